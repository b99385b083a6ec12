//! How an end puts a burst on its way.

use super::super::shape::bits_of;
use super::super::{TxOutcome, fit};
use super::UnderWay;
use super::fate::Fate;
use super::lane::LaneState;
use super::shape::{Plan, Shape, WireCounts};
use sluice_flows::DropReason;
use sluice_flows::packet::segment::{Segmenter, fill_checksum};
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN};

/// One burst on its way by one direction.
pub(super) struct Sending<'a> {
    pub(super) shape: &'a Shape,
    pub(super) plan: &'a Plan,
    pub(super) under_way: &'a UnderWay,
    pub(super) lane: &'a mut LaneState,
    pub(super) now: u64,
    /// The number of the next frame of a plain direction.
    pub(super) number: u64,
    /// What became of the frames so far.
    pub(super) counts: WireCounts,
}

impl Sending<'_> {
    /// Sends a frame to which nothing happens but a delay: as it is.
    #[inline]
    pub(super) fn whole(&mut self, frame: &Frame) -> TxOutcome {
        let number = self.number;
        self.number = number.wrapping_add(1);
        if frame.len() > MAX_FRAME_LEN {
            return TxOutcome::Dropped(DropReason::MtuExceeded);
        }
        self.cross(frame, number, Fate::default())
    }

    /// Sends a frame, a super-frame in its segments, each of which has a fate of its own. `scratch` is made at the first
    /// frame that needs it.
    pub(super) fn each(&mut self, frame: &Frame, scratch: &mut Option<Frame>) -> TxOutcome {
        if frame.len() > MAX_FRAME_LEN {
            return TxOutcome::Dropped(DropReason::MtuExceeded);
        }
        if frame.offload.gso == GsoKind::None {
            let (number, fate) = self.draw();
            if !fate.corrupted {
                return self.cross(frame, number, fate);
            }
            let changed = scratch.get_or_insert_with(scratch_frame);
            changed.clone_from_frame(frame);
            return self.corrupt(changed, number, fate);
        }
        let Ok(mut segments) = Segmenter::new(frame) else { return TxOutcome::Dropped(DropReason::ParseError) };
        let segment = scratch.get_or_insert_with(scratch_frame);
        let mut outcome = TxOutcome::Sent;
        loop {
            match segments.next_into(segment) {
                Ok(true) => {}
                Ok(false) => return outcome,
                Err(_) => return TxOutcome::Dropped(DropReason::ParseError),
            }
            let (number, fate) = self.draw();
            let of_one = match fate.corrupted {
                true => self.corrupt(segment, number, fate),
                false => self.cross(segment, number, fate),
            };
            if outcome == TxOutcome::Sent {
                outcome = of_one;
            }
        }
    }

    fn draw(&self) -> (u64, Fate) {
        let number = self.shape.take_numbers(1);
        (number, self.shape.fate(self.plan, number))
    }

    /// Changes a bit of a frame with nothing left to do for its output, and sends it.
    fn corrupt(&mut self, frame: &mut Frame, number: u64, fate: Fate) -> TxOutcome {
        // A checksum that was filled in later would hide it.
        if fill_checksum(frame).is_err() {
            return TxOutcome::Dropped(DropReason::ParseError);
        }
        frame.offload.csum_valid = false;
        let behind = fit::link_len(frame.bytes());
        if let Some(packet) = frame.bytes_mut().get_mut(behind..).filter(|packet| !packet.is_empty()) {
            let bit = self.shape.bit(number, packet.len() as u64 * 8);
            if let Some(byte) = packet.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
        self.cross(frame, number, fate)
    }

    /// Sends one frame that meets its fate.
    #[inline]
    fn cross(&mut self, frame: &Frame, number: u64, fate: Fate) -> TxOutcome {
        self.counts.sent += 1;
        let Some(departure) = self.shape.departure(self.plan, self.now, || bits_of(frame)) else {
            self.counts.queue_full += 1;
            return TxOutcome::Dropped(DropReason::QueueFull);
        };
        // It took its time of the link like any other.
        if fate.lost {
            self.counts.lost += 1;
            self.lane.lose();
            return TxOutcome::Sent;
        }
        let len = frame.len() as u64;
        let limit = self.plan.settings.under_way;
        if !self.under_way.enter(len, limit) {
            self.counts.queue_full += 1;
            return TxOutcome::Dropped(DropReason::QueueFull);
        }
        let due = if fate.reordered { departure } else { self.shape.due(self.plan, number, departure) };
        self.lane.push(frame, due, fate.reordered);
        if fate.duplicated && self.under_way.enter(len, limit) {
            self.lane.push(frame, due, fate.reordered);
            self.counts.duplicated += 1;
        }
        self.counts.reordered += u64::from(fate.reordered);
        self.counts.corrupted += u64::from(fate.corrupted);
        TxOutcome::Sent
    }
}

/// Where segments and changed frames are made.
fn scratch_frame() -> Frame {
    Frame::with_capacity(MAX_FRAME_LEN)
}
