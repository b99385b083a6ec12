//! Fragments on a packet's way: put away where `ct` is asked, and sent on when their datagram is whole.
//!
//! The fragment that completes a datagram is the packet at hand. The others go on before it, one after the other and in
//! the order of their arrival, each through what follows in the list that the last one is on, and with a fate of its own.
//!
//! # Counting
//! A frame that waits is not forwarded and not dropped, but *held*. Whichever worker takes it out counts it as
//! *released*, and as what became of it then. So of each worker
//! `received + released = forwarded + dropped + held`, and all that were held and not released still wait. A frame
//! is held at most once: of several copies, or when a copy has left already, the others are not counted.

use super::execute::{Egress, Pass, Place, Surroundings};
use super::lanes::Fate;
use super::worker::Worker;
use crate::conntrack::{Datagram, Origin, Taken, Tracked};
use sluice_flows::DropReason;
use sluice_flows::datapath::{DpAction, DpCt};
use sluice_flows::key::{CT_INV, CT_TRK, PacketKey};
use sluice_flows::packet::{Frame, extract};
use sluice_flows::rule::{Millis, Rule};
use std::sync::Arc;

/// Whether the packet at hand goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// With the next action.
    On,
    /// Not now: it waits for the rest of its datagram.
    Later,
}

impl Egress {
    /// Does what `ct` asks with a fragment; `rest` is what follows in its list.
    #[cold]
    pub(super) fn track_fragment(
        &mut self,
        ask: &DpCt,
        rest: Pass<'_>,
        at: &mut Place,
        to: &Surroundings<'_>,
    ) -> Result<Goes, DropReason> {
        self.recording.stop();
        // What left before is known then.
        self.lanes.flush(&self.frames, &mut self.fates);
        let waits = self.waiting & 1 << at.origin != 0;
        let counted = !waits && matches!(self.fates[at.origin], Fate::Waiting | Fate::Lost(_));
        let origin = Origin { ingress: self.ingress, counted };
        let frame = (&self.frames[at.current], &at.layers);
        match to.shared.conntrack.fragments.take(frame, (ask.zone, branch(ask, rest)), origin, to.now) {
            Taken::Held => {
                self.waiting |= u32::from(counted) << at.origin;
                Ok(Goes::Later)
            }
            Taken::Refused => {
                let tracked = Tracked { state: CT_TRK | CT_INV, zone: ask.zone, ..Tracked::default() };
                at.tracked = self.remember(tracked);
                Ok(Goes::On)
            }
            Taken::Whole(datagram) => {
                self.track_whole(*datagram, ask, rest, at, to)?;
                Ok(Goes::On)
            }
        }
    }

    /// Tracks a datagram that the packet at hand completes, and sends on what had waited.
    fn track_whole(
        &mut self,
        mut datagram: Datagram,
        ask: &DpCt,
        rest: Pass<'_>,
        at: &mut Place,
        to: &Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let mut key = PacketKey::ZERO;
        let layers = extract(datagram.whole.bytes(), 0, &mut key);
        let mut tracked = self.said_of(at);
        let packet = (&mut datagram.whole, &layers, &key);
        let answer = to.shared.conntrack.track(packet, ask, &mut tracked, to.now);
        let divided = match answer {
            Ok(_) => datagram.divide(&mut self.frames[at.current]).map_err(|lost| (lost, DropReason::ParseError)),
            Err(reason) => Err((datagram.origins(), reason)),
        };
        match divided {
            Ok(others) => {
                at.tracked = self.remember(tracked);
                self.send_on(others, rest, at, to);
                Ok(())
            }
            Err((lost, reason)) => {
                for origin in lost.into_iter().filter(|origin| origin.counted) {
                    self.count_released(origin, (Fate::Lost(reason), None), None, to);
                }
                Err(reason)
            }
        }
    }

    /// Takes fragments through `rest` that the packet at hand has completed.
    fn send_on(&mut self, fragments: Vec<(Frame, Origin)>, rest: Pass<'_>, at: &mut Place, to: &Surroundings<'_>) {
        let index = at.origin;
        let bit = 1 << index;
        // Each borrows the fate of the packet at hand.
        let (fate, decider) = (self.fates[index], self.deciders[index].take());
        let (decided, waiting) = (self.decided, self.waiting);
        let (ingress, passes_left) = (self.ingress, self.passes_left);
        self.held.push(at.current as u16);
        for (frame, origin) in fragments {
            let copy = self.fresh();
            self.frames[copy].clone_from_frame(&frame);
            self.fates[index] = if origin.counted { Fate::Waiting } else { Fate::Done };
            self.decided &= !bit;
            self.waiting &= !bit;
            (self.ingress, self.passes_left) = (origin.ingress, passes_left);
            let mut key = PacketKey::ZERO;
            let layers = extract(self.frames[copy].bytes(), origin.ingress.0, &mut key);
            let mut place = Place { current: copy, layers, shared: false, plain: false, ..*at };
            if let Err(reason) = self.list(rest, &mut place, to) {
                self.fates[index].lose(reason);
            }
            self.lanes.flush(&self.frames, &mut self.fates);
            if origin.counted {
                let fate = if self.waiting & bit != 0 { Fate::Held } else { self.fates[index] };
                let rule = self.deciders[index].take().filter(|_| self.decided & bit != 0);
                self.count_released(origin, (fate, rule), Some(&key), to);
            }
        }
        at.current = self.release(at.current);
        (self.fates[index], self.deciders[index]) = (fate, decider);
        self.decided = self.decided & !bit | decided & bit;
        self.waiting = self.waiting & !bit | waiting & bit;
        (self.ingress, self.passes_left) = (ingress, passes_left);
    }

    /// Counts a fragment that was taken out, and what became of it.
    fn count_released(
        &mut self,
        origin: Origin,
        (fate, rule): (Fate, Option<Arc<Rule>>),
        example: Option<&PacketKey>,
        to: &Surroundings<'_>,
    ) {
        to.cells.released.add(1);
        let reason = match fate {
            Fate::Done => return to.cells.forwarded.add(1),
            Fate::Held => return to.cells.held.add(1),
            Fate::Waiting => DropReason::NoPort,
            Fate::Lost(reason) | Fate::Dropped(reason) => reason,
        };
        to.cells.dropped[reason as usize].add(1);
        let drops = &to.shared.drops[self.lanes.worker()];
        drops.add(reason, origin.ingress, rule.as_ref(), 1, to.now, example);
        if let Some(cells) = self.lanes.cells(origin.ingress) {
            cells.rx_dropped.add(1);
        }
    }
}

impl Worker<'_> {
    /// Counts the fragments that were dropped where they waited, those whose time is over included.
    #[inline]
    pub(super) fn reap_fragments(&mut self, now: Millis) {
        if self.shared.conntrack.fragments.is_due(now) {
            self.count_reaped(now);
        }
    }

    #[cold]
    fn count_reaped(&mut self, now: Millis) {
        let reason = DropReason::CtInvalid;
        for origin in self.shared.conntrack.fragments.reap(now) {
            self.cells.released.add(1);
            self.cells.dropped[reason as usize].add(1);
            self.shared.drops[self.index].add(reason, origin.ingress, None, 1, now, None);
            if let Some(cells) = self.egress.lanes.cells(origin.ingress) {
                cells.rx_dropped.add(1);
            }
        }
    }
}

/// Tells the branches of a packet's way apart that ask in the same zone, by what they ask and where they go on. The
/// same for every worker.
fn branch(ask: &DpCt, (rest, resumes): Pass<'_>) -> u64 {
    let next = match rest.first() {
        Some(DpAction::Recirculate(index)) => resumes.get(*index as usize),
        _ => None,
    };
    let next =
        next.map_or(0, |next| 1 << 24 | u64::from(next.resume.bridge.0) << 8 | u64::from(next.resume.table.get()));
    next << 2 | u64::from(ask.commit) << 1 | u64::from(ask.force)
}
