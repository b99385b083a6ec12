//! Finishing in software what an output cannot: checksums left partial, super-frames left whole.
//!
//! [`fill_checksum`] completes a partial checksum in place. A [`Segmenter`] cuts a super-frame into the segments that
//! the sender's offload metadata asks for, one at a time into a frame that the caller reuses, so a burst needs no
//! allocation. An output that gathers its frames from several places asks it for the headers of each segment alone
//! ([`Segmenter::next_piece`]) and leaves the payload where it is. What is written is what Linux's software GSO would
//! send:
//!
//! - Every segment repeats all headers up to and including the transport header, VLAN tags and IP options too.
//! - Lengths are each segment's own. The IPv4 identification counts up by one.
//! - TCP sequence numbers advance by the payload; FIN and PSH stay with the last segment, CWR with the first.
//! - Checksums are complete. A UDP datagram that had none (0, and not partial) gets none.
//! - Padding behind the datagram is dropped.
//! - Labels and NSH headers in front of the datagram are repeated like any other header.
//!
//! Metadata comes from guests and drivers and is not trusted: what does not fit the bytes is refused, nothing is cut.

use super::layers::{IPV6_LEN, be16, be32, bytes_at, innermost};
use super::rewrite::datagram_end;
use super::{Frame, GsoKind, L3, L4, Layers, Offload, checksum};
use crate::field::{IP_PROTO_TCP, IP_PROTO_UDP};
use crate::key::{FRAG_ANY, PacketKey, slot};

#[cfg(test)]
mod tests;

/// TCP flags by their bit in the low byte.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a frame could not be finished. The frame is as it was; drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// A checksum is to be written where the frame has no bytes, or starts behind the frame's end.
    #[error("the partial checksum lies outside the frame")]
    Checksum,
    /// The frame is to be cut as a protocol that its headers do not show, or it is a fragment.
    #[error("the headers are not those of the kind of segments asked for")]
    Headers,
    /// The segments are to have no payload.
    #[error("the segment size is zero")]
    Size,
    /// The frame to write to is too small for a segment.
    #[error("the segment does not fit in the frame it is written to")]
    NoRoom,
}

/// Completes the checksum of a frame that carries a partial one; any other frame is left as it is.
///
/// A checksum that comes out as 0 is written as 0xffff, the same number: the message may be UDP, inside a tunnel even,
/// where 0 means "none".
///
/// # Errors
/// [`SegmentError::Checksum`] when the checksum lies outside the frame.
pub fn fill_checksum(frame: &mut Frame) -> Result<(), SegmentError> {
    let Some(field) = complete(frame.bytes(), frame.offload)? else {
        return Ok(());
    };
    field.put(frame.bytes_mut());
    frame.offload = frame.offload.filled();
    Ok(())
}

/// A checksum field that is to be written.
#[derive(Clone, Copy, Debug)]
struct ChecksumField {
    at: usize,
    value: [u8; 4],
    /// Bytes of `value` that count.
    len: usize,
}

impl ChecksumField {
    fn end(&self) -> usize {
        self.at + self.len
    }

    /// Writes it, where the bytes reach that far.
    fn put(&self, bytes: &mut [u8]) {
        if let (Some(place), Some(value)) = (bytes.get_mut(self.at..self.end()), self.value.get(..self.len)) {
            place.copy_from_slice(value);
        }
    }
}

/// The field that completes a partial checksum, which lies within `bytes`; `None` for a frame without one.
fn complete(bytes: &[u8], offload: Offload) -> Result<Option<ChecksumField>, SegmentError> {
    if !offload.csum_partial {
        return Ok(None);
    }
    let (start, offset) = (usize::from(offload.csum_start), usize::from(offload.csum_offset));
    let layers = innermost(bytes, &mut PacketKey::default());
    let message = bytes.get(start..datagram_end(bytes, &layers)).ok_or(SegmentError::Checksum)?;
    let sctp = layers.l4 == L4::Sctp && start == usize::from(layers.l4_ofs) && offset == 8;
    let (value, len) = if sctp {
        (checksum::sctp_of(message).ok_or(SegmentError::Checksum)?, 4)
    } else {
        let [high, low] = checksum::udp(checksum::checksum(message)).to_be_bytes();
        ([high, low, 0, 0], 2)
    };
    if offset + len > message.len() {
        return Err(SegmentError::Checksum);
    }
    Ok(Some(ChecksumField { at: start + offset, value, len }))
}

/// Length in bytes of the longest frame that will be on the wire when an output has finished `frame`: its own, or that
/// of a segment.
pub fn wire_len(frame: &Frame) -> usize {
    match frame.offload.gso {
        GsoKind::None => frame.len(),
        _ => Segmenter::new(frame).map_or(frame.len(), |segments| segments.max_len()),
    }
}

/// Writes `value` at `at`; false when it does not fit.
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> bool {
    let place = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut());
    place.map(|place| *place = value).is_some()
}

/// A super-frame on its way to being cut. A frame that is none comes out as itself, its checksum completed.
#[derive(Debug)]
pub struct Segmenter<'a> {
    /// All headers, tags included; of a frame that is not cut, all up to a checksum that is to be completed.
    headers: &'a [u8],
    payload: &'a [u8],
    /// Payload bytes in each segment but the last.
    size: usize,
    /// Payload bytes already written.
    done: usize,
    /// Segments already written.
    count: u16,
    plan: Plan,
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    /// One frame, as it is but for its checksum, with the metadata that is right then.
    Copy { field: Option<ChecksumField>, offload: Offload },
    /// Segments whose headers lie like this. `pseudo` is the sum of the pseudo-header, its length 0; `None` when the
    /// transport has no checksum.
    Cut { layers: Layers, pseudo: Option<u16> },
    /// Everything was written.
    Done,
}

impl<'a> Segmenter<'a> {
    /// Looks at the frame and its metadata.
    ///
    /// # Errors
    /// [`SegmentError::Headers`] and [`SegmentError::Size`] when the metadata of a super-frame does not fit its bytes;
    /// [`SegmentError::Checksum`] for a single frame whose partial checksum lies outside it.
    pub fn new(frame: &'a Frame) -> Result<Self, SegmentError> {
        Self::without(0, frame)
    }

    /// As [`Self::new`], for segments without the first `start` bytes of the frame, which end in front of its network
    /// header.
    pub(super) fn without(start: usize, frame: &'a Frame) -> Result<Self, SegmentError> {
        let (bytes, offload) = (frame.bytes(), frame.offload);
        if offload.gso == GsoKind::None {
            return Self::single(start, bytes, offload);
        }
        if offload.gso_size == 0 {
            return Err(SegmentError::Size);
        }
        let mut key = PacketKey::default();
        let mut layers = innermost(bytes, &mut key);
        let whole = key.get(slot::IP_FRAG) as u8 & FRAG_ANY == 0;
        let fits = match offload.gso {
            GsoKind::Tcp4 => layers.l3 == L3::Ipv4 && layers.l4 == L4::Tcp,
            GsoKind::Tcp6 => layers.l3 == L3::Ipv6 && layers.l4 == L4::Tcp,
            GsoKind::Udp => layers.l4 == L4::Udp,
            GsoKind::None => false,
        };
        let end = datagram_end(bytes, &layers);
        let cut = bytes.get(..end).and_then(|b| b.split_at_checked(layers.payload_ofs.into()));
        let (Some((headers, payload)), true) = (cut, fits && whole && start <= usize::from(layers.l3_ofs)) else {
            return Err(SegmentError::Headers);
        };
        let message_len = end - usize::from(layers.l4_ofs);
        let pseudo = pseudo_header(headers, &layers, message_len, offload.csum_partial)?;
        layers.shift(-(start as i16));
        let plan = Plan::Cut { layers, pseudo };
        let headers = headers.get(start..).unwrap_or_default();
        Ok(Self { headers, payload, size: offload.gso_size.into(), done: 0, count: 0, plan })
    }

    /// A frame that is not cut.
    fn single(start: usize, bytes: &'a [u8], offload: Offload) -> Result<Self, SegmentError> {
        let field = complete(bytes, offload)?;
        let bytes = bytes.get(start..).unwrap_or_default();
        // A field in what is left out needs no writing.
        let field = field.and_then(|f| Some(ChecksumField { at: f.at.checked_sub(start)?, ..f }));
        let (headers, payload) = bytes.split_at_checked(field.map_or(0, |f| f.end())).unwrap_or((&[], bytes));
        let plan = Plan::Copy { field, offload: offload.filled() };
        Ok(Self { headers, payload, size: payload.len(), done: 0, count: 0, plan })
    }

    /// Length of the longest frame that [`Self::next_into`] will write, in bytes.
    pub fn max_len(&self) -> usize {
        self.headers.len() + self.size.min(self.payload.len())
    }

    /// Bytes that [`Self::next_piece`] writes.
    pub fn headers_len(&self) -> usize {
        self.headers.len()
    }

    /// Segments there are in all.
    pub fn segments(&self) -> usize {
        self.payload.len().div_ceil(self.size.max(1)).max(1)
    }

    /// Writes the next segment into `out`, whose content and metadata it replaces. False, with `out` untouched, when
    /// everything was written. A super-frame without payload is one segment.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`] when `out` is too small, see [`Self::max_len`]; trying again with a larger one writes
    /// the same segment.
    pub fn next_into(&mut self, out: &mut Frame) -> Result<bool, SegmentError> {
        let offload = match self.plan {
            Plan::Copy { offload, .. } => offload,
            Plan::Cut { .. } => Offload::NONE,
            Plan::Done => return Ok(false),
        };
        if self.headers.len() + self.next_payload().len() > out.capacity() {
            return Err(SegmentError::NoRoom);
        }
        let room = out.room();
        let Some((headers_len, payload)) = self.next_piece(room)? else {
            return Ok(false);
        };
        let len = headers_len + payload.len();
        if let Some(to) = room.get_mut(headers_len..len) {
            to.copy_from_slice(payload);
        }
        out.set_len(len);
        out.offload = offload;
        Ok(true)
    }

    /// Writes the headers of the next segment to the start of `out`. Returns their length, which is
    /// [`Self::headers_len`], and the payload that belongs behind them; `None` when everything was written.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`] when `out` is too small; trying again with a larger one writes the same segment.
    pub fn next_piece(&mut self, out: &mut [u8]) -> Result<Option<(usize, &'a [u8])>, SegmentError> {
        if matches!(self.plan, Plan::Done) {
            return Ok(None);
        }
        let out = out.get_mut(..self.headers.len()).ok_or(SegmentError::NoRoom)?;
        out.copy_from_slice(self.headers);
        let payload = self.next_payload();
        let last = self.done + payload.len() >= self.payload.len();
        match self.plan {
            Plan::Copy { field, .. } => {
                if let Some(field) = field {
                    field.put(out);
                }
            }
            Plan::Cut { layers, pseudo } => {
                let mut segment = Segment { headers: out, payload, layers };
                segment.ip(self.count);
                segment.transport(self.done as u32, self.count == 0, last, pseudo);
            }
            Plan::Done => {}
        }
        self.done += payload.len();
        self.count = self.count.wrapping_add(1);
        if last {
            self.plan = Plan::Done;
        }
        Ok(Some((self.headers.len(), payload)))
    }

    /// The payload of the next segment.
    fn next_payload(&self) -> &'a [u8] {
        let rest = self.payload.get(self.done..).unwrap_or_default();
        rest.get(..self.size).unwrap_or(rest)
    }
}

/// The sum of the pseudo-header of a super-frame's segments, their length left 0; `None` when the transport has no
/// checksum.
fn pseudo_header(
    headers: &[u8],
    layers: &Layers,
    message_len: usize,
    partial: bool,
) -> Result<Option<u16>, SegmentError> {
    let (l3, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
    let (proto, ofs) = if layers.l4 == L4::Tcp { (IP_PROTO_TCP, 16) } else { (IP_PROTO_UDP, 6) };
    let field = be16(headers, l4 + ofs);
    if layers.l4 == L4::Udp && field == 0 && !partial {
        return Ok(None);
    }
    if layers.routed {
        // The destination that counts is in the routing header. The sender has put it into the partial sum, together
        // with the length of the whole message.
        let len = checksum::sum(&(message_len as u32).to_be_bytes());
        return if partial { Ok(Some(checksum::add(field, !len))) } else { Err(SegmentError::Headers) };
    }
    Ok(Some(match layers.l3 {
        L3::Ipv4 => checksum::pseudo_v4(bytes_at(headers, l3 + 12), bytes_at(headers, l3 + 16), proto, 0),
        _ => checksum::pseudo_v6(bytes_at(headers, l3 + 8), bytes_at(headers, l3 + 24), proto, 0),
    }))
}

/// One segment, its headers still those of the super-frame.
struct Segment<'a> {
    headers: &'a mut [u8],
    payload: &'a [u8],
    layers: Layers,
}

impl Segment<'_> {
    /// Length from `ofs` on.
    fn len_from(&self, ofs: usize) -> u16 {
        (self.headers.len() + self.payload.len()).saturating_sub(ofs) as u16
    }

    /// The IP header of segment number `count`.
    fn ip(&mut self, count: u16) {
        let (l3, l4) = (usize::from(self.layers.l3_ofs), usize::from(self.layers.l4_ofs));
        if self.layers.l3 == L3::Ipv6 {
            let len = self.len_from(l3 + IPV6_LEN);
            put(self.headers, l3 + 4, len.to_be_bytes());
            return;
        }
        let (len, id) = (self.len_from(l3), be16(self.headers, l3 + 4).wrapping_add(count));
        put(self.headers, l3 + 2, len.to_be_bytes());
        put(self.headers, l3 + 4, id.to_be_bytes());
        put(self.headers, l3 + 10, [0; 2]);
        let header = checksum::checksum(self.headers.get(l3..l4).unwrap_or_default());
        put(self.headers, l3 + 10, header.to_be_bytes());
    }

    /// The transport header of the segment whose payload starts `done` bytes into the whole.
    fn transport(&mut self, done: u32, first: bool, last: bool, pseudo: Option<u16>) {
        let len = self.len_from(self.layers.l4_ofs.into());
        let Some(header) = self.headers.get_mut(self.layers.l4_ofs.into()..) else {
            return;
        };
        let tcp = self.layers.l4 == L4::Tcp;
        let checksum_ofs = if tcp { 16 } else { 6 };
        if tcp {
            let seq = be32(header, 4).wrapping_add(done);
            put(header, 4, seq.to_be_bytes());
            if let Some(flags) = header.get_mut(13) {
                *flags &= if last { 0xff } else { !(FIN | PSH) };
                *flags &= if first { 0xff } else { !CWR };
            }
        } else {
            put(header, 4, len.to_be_bytes());
        }
        let Some(pseudo) = pseudo else {
            return;
        };
        put(header, checksum_ofs, [0; 2]);
        // The header's length is even: the words of the payload are those of the message.
        let message = checksum::add(checksum::sum(header), checksum::sum(self.payload));
        let sum = !checksum::add(checksum::add(pseudo, len), message);
        put(header, checksum_ofs, if tcp { sum } else { checksum::udp(sum) }.to_be_bytes());
    }
}
