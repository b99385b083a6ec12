//! For outputs that take only finished frames: super-frames are cut and checksums filled in on the way out.

use super::TxOutcome;
use sluice_flows::DropReason;
use sluice_flows::packet::segment::Segmenter;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN};

/// Finishes frames into a frame of its own, so that the frame given, which may leave by other ports too, stays as it is
/// and nothing is allocated.
pub(crate) struct Finisher {
    scratch: Frame,
}

impl Finisher {
    pub(crate) fn new() -> Self {
        Self { scratch: Frame::with_capacity(MAX_FRAME_LEN) }
    }

    /// Hands `send` the bytes of the frame, or of one segment after the other until one does not leave.
    pub(crate) fn send(&mut self, frame: &Frame, mut send: impl FnMut(&[u8]) -> TxOutcome) -> TxOutcome {
        if frame.offload.gso == GsoKind::None && !frame.offload.csum_partial {
            return send(frame.bytes());
        }
        let Ok(mut segments) = Segmenter::new(frame) else { return TxOutcome::Dropped(DropReason::ParseError) };
        loop {
            match segments.next_into(&mut self.scratch) {
                Ok(true) => match send(self.scratch.bytes()) {
                    TxOutcome::Sent | TxOutcome::Held => {}
                    dropped @ TxOutcome::Dropped(_) => return dropped,
                },
                Ok(false) => return TxOutcome::Sent,
                Err(_) => return TxOutcome::Dropped(DropReason::ParseError),
            }
        }
    }
}
