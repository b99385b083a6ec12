//! Sending a packet in pieces: the segments of a super-frame, and the fragments of a packet that is longer than an MTU.
//!
//! From [`DpAction::Fragment`](sluice_flows::datapath::DpAction::Fragment) on, every output sends the packet in fragments,
//! in whatever list it stands; of several MTUs the least counts. The packet itself stays whole, so that connection
//! tracking and rewrites behind the action see all of it.

use super::execute::{Egress, Place, Surroundings};
use sluice_flows::datapath::PacketIn;
use sluice_flows::packet::fragment::{Fit, Fragmenter, fit};
use sluice_flows::packet::segment::{SegmentError, Segmenter};
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_flows::{DpPort, DropReason};

/// Stands for no MTU: no packet of a frame is longer.
pub(super) const NO_MTU: u16 = u16::MAX;

/// Frames that are in no burst, for cutting others; always there between two calls.
pub(super) struct Cutting {
    /// Takes the place of a frame that is being cut.
    place: Option<Frame>,
    /// A segment that is cut further.
    segment: Option<Frame>,
}

impl Default for Cutting {
    fn default() -> Self {
        Self { place: Some(Frame::with_capacity(0)), segment: Some(Frame::with_capacity(MAX_FRAME_LEN)) }
    }
}

impl Egress {
    /// Sends the first `limit` bytes of the frames that an output would make of this one, each in fragments if the packet
    /// has to keep to an MTU.
    #[cold]
    pub(super) fn send_cut(&mut self, port: DpPort, at: &mut Place, limit: usize) {
        let Some(mut frame) = self.cutting.place.take() else { return };
        if at.shared {
            // What waits must have left before the frame leaves its place for a while.
            self.lanes.flush(&self.frames, &mut self.fates);
        }
        self.held.push(at.current as u16);
        std::mem::swap(&mut frame, &mut self.frames[at.current]);
        let sent = if at.mtu == NO_MTU {
            self.send_segments(port, &frame, at.origin, limit).map_err(|_| DropReason::ParseError)
        } else {
            self.send_fragments(port, &frame, at, limit)
        };
        at.current = self.release(at.current);
        std::mem::swap(&mut frame, &mut self.frames[at.current]);
        self.cutting.place = Some(frame);
        if let Err(reason) = sent {
            self.fates[at.origin].lose(reason);
        }
    }

    /// Sends the segments of a frame that is not in its place.
    fn send_segments(&mut self, port: DpPort, frame: &Frame, origin: usize, limit: usize) -> Result<(), SegmentError> {
        let mut segments = Segmenter::new(frame)?;
        loop {
            let copy = self.fresh();
            let out = &mut self.frames[copy];
            if !segments.next_into(out)? {
                self.next_copy = copy;
                return Ok(());
            }
            out.tunnel = frame.tunnel;
            out.set_len(out.len().min(limit));
            self.output_as(port, copy, origin);
        }
    }

    /// Sends the fragments of each segment of a frame that is not in its place.
    fn send_fragments(&mut self, port: DpPort, frame: &Frame, at: &Place, limit: usize) -> Result<(), DropReason> {
        let Some(mut segment) = self.cutting.segment.take() else { return Ok(()) };
        let sent = self.fragment_segments((frame, &mut segment), port, at, limit);
        self.cutting.segment = Some(segment);
        sent
    }

    fn fragment_segments(
        &mut self,
        (frame, segment): (&Frame, &mut Frame),
        port: DpPort,
        at: &Place,
        limit: usize,
    ) -> Result<(), DropReason> {
        let mut segments = Segmenter::new(frame).map_err(|_| DropReason::ParseError)?;
        while segments.next_into(segment).map_err(|_| DropReason::ParseError)? {
            // Under labels there is no packet to cut.
            let mut fragments = Fragmenter::new(segment, at.mtu).ok_or(DropReason::MtuExceeded)?;
            loop {
                let copy = self.fresh();
                let out = &mut self.frames[copy];
                if !fragments.next_into(out) {
                    self.next_copy = copy;
                    break;
                }
                out.tunnel = frame.tunnel;
                out.set_len(out.len().min(limit));
                self.output_as(port, copy, at.origin);
            }
        }
        Ok(())
    }

    /// Keeps the packet to an MTU from here on. One that is too long and may not be cut is dropped.
    pub(super) fn keep_to(
        &mut self,
        mtu: u16,
        too_long: &PacketIn,
        at: &mut Place,
        to: &Surroundings<'_>,
    ) -> Result<(), DropReason> {
        match fit(&self.frames[at.current], &at.layers, mtu) {
            Fit::Whole => {}
            Fit::Cut => at.mtu = at.mtu.min(mtu),
            Fit::TooLong => {
                self.punt(too_long, at, to);
                return Err(DropReason::MtuExceeded);
            }
        }
        Ok(())
    }
}
