//! Frames that wait until there are tokens for them, first in, first out, and what each takes of a link.

use super::bucket::Bucket;
use crate::port::fit::{link_len, transport_end};
use crate::port::line::Line;
use sluice_flows::packet::{Frame, GsoKind};
use std::collections::VecDeque;

/// IEEE 802.3: bytes of the shortest frame without its check sequence, and of that.
const LEAST_LEN: usize = 60;
const FCS_LEN: usize = 4;
/// More than any frame takes whose segments have some payload.
const MOST_BITS: usize = 1 << 25;

/// Bits that `frame` takes on an Ethernet link, from its header to its check sequence: padded if it is short; all its
/// segments, each with its headers, if it is a super-frame. The preamble and the gap between frames do not count.
pub(in crate::port) fn bits_of(frame: &Frame) -> u32 {
    let len = frame.len();
    let on_link = |len: usize| len.max(LEAST_LEN) + FCS_LEN;
    let (size, headers) = match frame.offload.gso {
        GsoKind::None => (0, len),
        _ => {
            let headers = transport_end(frame.bytes(), link_len(frame.bytes()), &frame.offload);
            (usize::from(frame.offload.gso_size), headers)
        }
    };
    let payload = len.saturating_sub(headers);
    let bytes = if size == 0 || payload == 0 {
        on_link(len)
    } else {
        let rest = payload % size;
        let last = if rest == 0 { 0 } else { on_link(headers + rest) };
        (payload / size).saturating_mul(on_link(headers + size)).saturating_add(last)
    };
    bytes.saturating_mul(8).min(MOST_BITS) as u32
}

/// One worker's frames that wait one way.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    line: Line,
    bits: VecDeque<u32>,
    /// The sum of `bits`.
    all: u64,
}

impl Backlog {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Puts a copy of `frame` behind the others, if there is room. Returns whether there was.
    pub(super) fn push(&mut self, frame: &Frame, bucket: &Bucket) -> bool {
        let bits = bits_of(frame);
        let fits = bucket.enter(bits, self.all);
        if fits {
            self.line.push(frame, 0);
            self.bits.push_back(bits);
            self.all += u64::from(bits);
        }
        fits
    }

    /// Takes the first frame off if there are tokens for it at `now`. Returns whether it did.
    pub(super) fn pop(&mut self, frame: &mut Frame, bucket: &Bucket, now: u64) -> bool {
        let Some(bits) = self.bits.pop_front_if(|bits| bucket.take(*bits, now)) else { return false };
        bucket.leave(bits);
        self.all -= u64::from(bits);
        self.line.pop(0, frame).is_some()
    }
}
