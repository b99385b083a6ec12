//! Telling the senders of rejected packets: [`DpAction::Reject`](sluice_flows::datapath::DpAction::Reject).
//!
//! The answer ([`reject`](sluice_flows::packet::reject)) leaves by the port that the packet came in by, at the end of the
//! burst, and takes no way through the tables: no rule, no connection tracking and no other `reject` sees it. What came by
//! a tunnel goes back by it, to the other end, with the same key.
//!
//! Answers are no frames of the burst: nothing of the packet's own fate changes by them. Each worker gives at most
//! [`RATE`] a second; packets beyond that are dropped in silence, as are those of a packet-out, which nobody sent.

use super::burst::NO_INGRESS;
use super::execute::{ANSWERS, Egress, Place, Surroundings};
use super::punt::Budget;
use sluice_flows::packet::reject;
use sluice_flows::rule::Millis;
use sluice_flows::tunnel::TunnelKey;

/// Answers of a worker in a second, and at once.
const RATE: u64 = 1000;

/// How many answers a worker may still give.
pub(super) fn budget() -> Budget {
    Budget::new(RATE, Millis(0))
}

impl Egress {
    /// Answers the packet at hand, which stays as it is.
    #[cold]
    pub(super) fn reject(&mut self, at: &mut Place, to: &Surroundings<'_>) {
        if self.ingress == NO_INGRESS || !self.answers.has(to.now) {
            return;
        }
        self.held.push(at.current as u16);
        let copy = self.fresh();
        at.current = self.release(at.current);
        let (front, back) = self.frames.split_at_mut(copy);
        let (Some(packet), Some(answer)) = (front.get(at.current), back.first_mut()) else { return };
        if !reject::answer(packet, to.key, answer) || !self.answers.take(to.now) {
            self.next_copy = copy;
            return;
        }
        answer.tunnel = way_back(&TunnelKey::of(to.key));
        // A port that is gone is no loss of the packet's.
        _ = self.lanes.queue(self.ingress, copy, ANSWERS, &self.frames, &mut self.fates);
    }
}

/// The tunnel of an answer to what came by `tunnel`; `None` for none.
fn way_back(tunnel: &TunnelKey) -> Option<TunnelKey> {
    let mut back = TunnelKey::NONE;
    back.set_id(tunnel.id());
    back.set_dst(tunnel.src()?);
    back.set_src(tunnel.dst()?);
    Some(back)
}
