//! What becomes of a packet.
//!
//! # The order of things
//! A packet that an earlier pass found a connection for, in this zone, is not looked up again and moves no state: its
//! second `ct` only reads and writes mark and label, and translates. Any other packet is read and looked up. One that a
//! cached answer would do for is taken in as a cached answer would ([`Conn::admits`], [`Conn::pass`]), so that caches
//! never show. Of all others headers and checksums are checked first; then its connection's states move under the
//! connection's lock, or it begins one.
//!
//! # As in Open vSwitch
//! - A packet that does not fit its connection is invalid, but shows the connection's mark and label, and may write and
//!   be translated.
//! - A new packet never has the reply bit, even when it is a SYN in the reply direction.
//! - An ICMP error is related, and neither new nor established.
//! - Connections that belong to another (`parent`) show that one's original tuple, and keep the mark and label that they
//!   inherited.

use super::alg::{self, Expected, Helper};
use super::conn::{Conn, Guard, Marks, Protocol, Update};
use super::events::{ConnChange, EndReason};
use super::packet::{Packet, Segment};
use super::table::{Inserted, Refused};
use super::tuple::{Direction, Tuple};
use super::{Repeat, Tracked, Tracker, nat};
use sluice_flows::DropReason;
use sluice_flows::datapath::DpCt;
use sluice_flows::key::{CT_DNAT, CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK, PacketKey};
use sluice_flows::packet::{Frame, Layers};
use sluice_flows::rule::Millis;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(test)]
mod cached;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;

/// How often a packet is looked up anew because another worker was faster with its connection.
const TRIES: usize = 4;

/// A connection and the packet's direction.
type Found = (Arc<Conn>, Direction);

/// What the tracker makes of a packet before marks and translation.
struct Judged {
    state: u8,
    found: Option<Found>,
    repeat: Repeat,
    /// A control connection announced it, and it is not committed.
    expected: Option<Expected>,
}

impl Judged {
    /// Of a packet that the next one may differ from.
    const fn never(state: u8, found: Option<Found>) -> Self {
        Self { state, found, repeat: Repeat::Never, expected: None }
    }
}

/// How far a packet's way through a zone has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    First,
    Again,
}

impl Tracker {
    /// Does what `ask` says with a packet, of which `tracked` is what earlier passes said. `key` is read from the frame
    /// as it is. With address translation the frame is rewritten in place.
    ///
    /// # Errors
    /// The packet is to be dropped: there is no room for its connection, or nothing left to translate it to.
    pub(crate) fn track(
        &self,
        (frame, layers, key): (&mut Frame, &Layers, &PacketKey),
        ask: &DpCt,
        tracked: &mut Tracked,
        now: Millis,
    ) -> Result<Repeat, DropReason> {
        if known_before(tracked, ask) {
            return Ok(self.finish((frame, layers), ask, (tracked, Visit::Again), Repeat::Same, now));
        }
        if let Some((conn, _)) = tracked.conn.as_ref().filter(|(conn, _)| conn.original.zone == ask.zone) {
            // It goes the wrong way. Translated, the packet would not show that any more.
            self.table.remove(conn, EndReason::Replaced);
        }
        let Some(packet) = Packet::read(frame, layers, key, ask.zone) else {
            self.invalid.fetch_add(1, Ordering::Relaxed);
            *tracked = Tracked { state: CT_TRK | CT_INV, zone: ask.zone, ..Tracked::default() };
            return Ok(Repeat::Never);
        };
        let judged = self.judge(&packet, frame.len() as u64, ask, now)?;
        if judged.state & CT_INV != 0 {
            self.invalid.fetch_add(1, Ordering::Relaxed);
        }
        *tracked = Tracked {
            state: CT_TRK | judged.state,
            zone: ask.zone,
            original: Some(packet.tuple),
            conn: judged.found,
            ..Tracked::default()
        };
        if let Some(expected) = judged.expected {
            (tracked.mark, tracked.label) = (expected.mark, expected.label);
            tracked.original = Some(expected.parent.original);
        }
        Ok(self.finish((frame, layers), ask, (tracked, Visit::First), judged.repeat, now))
    }

    /// Finds or makes the packet's connection and moves its state.
    fn judge(&self, packet: &Packet<'_>, len: u64, ask: &DpCt, now: Millis) -> Result<Judged, DropReason> {
        let mut found = self.table.find(&packet.tuple, now);
        let mut checked = false;
        for _ in 0..TRIES {
            if let Some(judged) = found.as_ref().and_then(|found| repeated(found, packet, len, ask, now)) {
                return Ok(judged);
            }
            if !checked && !packet.is_sound() {
                return Ok(Judged::never(CT_INV, None));
            }
            checked = true;
            let known = match found.take() {
                Some((conn, Direction::Reply)) if ask.force => {
                    self.table.remove(&conn, EndReason::Replaced);
                    None
                }
                found => found,
            };
            let judged = match known {
                Some(found) => self.belongs(found, packet, len, now),
                None => None,
            };
            if let Some(judged) = judged {
                return Ok(judged);
            }
            if packet.quoted.is_some() || !packet.may_begin() {
                return Ok(Judged::never(CT_INV, None));
            }
            let expected = self.expectations.find(&packet.tuple, now);
            let state = if expected.is_some() { CT_NEW | CT_REL } else { CT_NEW };
            if !ask.commit {
                return Ok(Judged { expected, ..Judged::never(state, None) });
            }
            match self.commit(packet, len, ask, expected.as_ref(), now)? {
                Inserted::New(conn) => return Ok(Judged::never(state, Some((conn, Direction::Original)))),
                Inserted::Exists(conn, direction) => found = Some((conn, direction)),
            }
        }
        Err(DropReason::CtFull)
    }

    /// Takes in a packet of a connection that is known. `None` if it is over, and the packet begins another one.
    fn belongs(&self, found: Found, packet: &Packet<'_>, len: u64, now: Millis) -> Option<Judged> {
        let (conn, direction) = &found;
        let reply = if *direction == Direction::Reply { CT_RPL } else { 0 };
        if packet.quoted.is_some() {
            return Some(Judged::never(CT_REL | reply, Some(found)));
        }
        let mut packet = *packet;
        // Outside the connection's lock, which helpers take under their own.
        if let (Some(helper), Some(Segment::Tcp(segment))) = (&conn.helper, &mut packet.segment) {
            helper.acknowledges(*direction, segment);
        }
        let (update, answers) = conn.update(*direction, &packet, self.is_liberal(packet.tuple.zone));
        if answers {
            self.events.tell(conn, ConnChange::Replied);
        }
        match update {
            Update::Replaced => {
                self.table.remove(conn, EndReason::Replaced);
                return None;
            }
            Update::Invalid => return Some(Judged::never(CT_INV, Some(found))),
            Update::New | Update::Valid => conn.see(now),
            Update::Tolerated => {}
        }
        conn.count(*direction, 1, len);
        Some(Judged::never(told(conn, *direction, update), Some(found)))
    }

    /// Makes the connection that the packet begins.
    fn commit(
        &self,
        packet: &Packet<'_>,
        len: u64,
        ask: &DpCt,
        expected: Option<&Expected>,
        now: Millis,
    ) -> Result<Inserted, DropReason> {
        let original = packet.tuple;
        let Some(answers) = original.reversed() else { return Err(DropReason::CtFull) };
        let liberal = self.is_liberal(original.zone);
        let make = |reply: Tuple, nat| {
            let parent = expected.map(|expected| Arc::clone(&expected.parent));
            let helper = if expected.is_none() { Helper::new(ask.alg, &original) } else { None };
            let conn = Conn::new(original, reply, Protocol::begin(packet, liberal), parent, now);
            conn.count(Direction::Original, 1, len);
            let mut marks = conn.marks();
            match expected {
                Some(expected) => (marks.mark, marks.label) = (expected.mark, expected.label),
                None => _ = write(&mut marks, ask),
            }
            marks.owner.clone_from(&ask.owner);
            drop(marks);
            conn.with_nat(nat).with_helper(helper)
        };
        let inserted = match (&ask.nat, expected) {
            (None, _) => self.table.insert(make(answers, None), now),
            (Some(_), Some(expected)) => {
                let side = Some(expected.side());
                let free = |reply: &Tuple| self.table.is_free(reply, now);
                let Some(reply) = expected.replies(&original).find(free) else { return Err(self.collide()) };
                self.table.insert(make(reply, side), now)
            }
            (Some(nat), None) => self.chooser.choose(&original, nat, |reply| {
                if !self.table.is_free(reply, now) {
                    return None;
                }
                match self.table.insert(make(*reply, nat.direction), now) {
                    Err(Refused::Taken) => None,
                    settled => Some(settled),
                }
            })?,
        };
        if let Ok(Inserted::New(conn)) = &inserted {
            self.events.tell(conn, ConnChange::New);
        }
        inserted.map_err(|refused| match refused {
            Refused::Taken => self.collide(),
            Refused::Full | Refused::ZoneFull => DropReason::CtFull,
        })
    }

    /// Counts a packet whose connection would be answered like one that is there.
    fn collide(&self) -> DropReason {
        self.collided.fetch_add(1, Ordering::Relaxed);
        DropReason::CtFull
    }

    /// Whether TCP sequence numbers are not looked at in a zone.
    fn is_liberal(&self, zone: u16) -> bool {
        self.table.in_force().zone(zone).tcp_liberal
    }

    /// Translates the packet, follows what it announces, reads and writes mark and label. `repeat` says what is known of
    /// the packet's repetition so far.
    fn finish(
        &self,
        (frame, layers): (&mut Frame, &Layers),
        ask: &DpCt,
        (tracked, visit): (&mut Tracked, Visit),
        repeat: Repeat,
        now: Millis,
    ) -> Repeat {
        let Some((conn, direction)) = &tracked.conn else { return repeat };
        let mut translated = false;
        if ask.nat.is_some() && tracked.state & (CT_SNAT | CT_DNAT) == 0 {
            let related = tracked.state & (CT_NEW | CT_EST | CT_REL) == CT_REL;
            let bits = nat::translate((frame, layers), conn, *direction, related);
            tracked.state |= bits;
            translated = bits != 0;
        }
        let mut marks = conn.marks();
        let changed = conn.parent.is_none() && write(&mut marks, ask);
        (tracked.mark, tracked.label) = (marks.mark, marks.label);
        if changed {
            conn.changed();
        }
        drop(marks);
        tracked.original = Some(conn.parent.as_ref().unwrap_or(conn).original);
        // What is invalid announces nothing, nor what is only related: an ICMP error.
        let heard = conn.helper.is_some() && tracked.state & (CT_NEW | CT_EST) != 0;
        if heard
            && (translated || visit == Visit::First)
            && !alg::follow((frame, layers), (conn, *direction), &self.expectations, translated, now)
        {
            tracked.state |= CT_INV;
        }
        if changed {
            self.events.tell(conn, ConnChange::Marked { mark: tracked.mark, label: tracked.label });
            return Repeat::Never;
        }
        repeat
    }
}

impl Tracker {
    /// Writes bits of a connection's label. Whether that changed it. Connections that belong to another keep what that one had, as
    /// they do when packets write labels.
    pub(crate) fn label(&self, original: &Tuple, value: u128, mask: u128, now: Millis) -> bool {
        let Some((conn, Direction::Original)) = self.table.find(original, now) else { return false };
        if conn.parent.is_some() {
            return false;
        }
        let mut marks = conn.marks();
        let before = marks.label;
        marks.label = before & !mask | value & mask;
        let (mark, label) = (marks.mark, marks.label);
        if label == before {
            return false;
        }
        conn.changed();
        drop(marks);
        self.events.tell(&conn, ConnChange::Marked { mark, label });
        true
    }
}

/// Whether an earlier pass has found the packet's connection in this zone, and that one is to be kept.
fn known_before(tracked: &Tracked, ask: &DpCt) -> bool {
    tracked.conn.as_ref().is_some_and(|(conn, direction)| {
        conn.original.zone == ask.zone && conn.is_alive() && !(ask.force && *direction == Direction::Reply)
    })
}

/// Takes in a packet that a cached answer does for, as that would.
fn repeated((conn, direction): &Found, packet: &Packet<'_>, len: u64, ask: &DpCt, now: Millis) -> Option<Judged> {
    let (direction, version) = (*direction, conn.version());
    let ordinary = packet.quoted.is_none() && !packet.tuple.is_icmp() && conn.helper.is_none();
    let ordinary = ordinary && !(ask.force && direction == Direction::Reply);
    if !ordinary || !conn.admits(direction, version, packet.segment.as_ref(), now) {
        return None;
    }
    conn.pass(direction, packet.segment.as_ref(), now);
    conn.count(direction, 1, len);
    let state = told(conn, direction, conn.settled());
    let guard = Guard { conn: Arc::clone(conn), direction, version };
    Some(Judged { state, found: Some((Arc::clone(conn), direction)), repeat: Repeat::Guarded(guard), expected: None })
}

/// The state bits of a packet that belongs to a connection.
fn told(conn: &Conn, direction: Direction, update: Update) -> u8 {
    let related = if conn.parent.is_some() { CT_REL } else { 0 };
    match (update, direction) {
        (Update::New, _) => CT_NEW | related,
        (_, Direction::Original) => CT_EST | related,
        (_, Direction::Reply) => CT_EST | CT_RPL | related,
    }
}

/// Writes mark and label. Whether that changed anything.
fn write(marks: &mut Marks, ask: &DpCt) -> bool {
    let before = (marks.mark, marks.label);
    if let Some((value, mask)) = ask.mark {
        marks.mark = marks.mark & !mask | value & mask;
    }
    if let Some((value, mask)) = ask.label {
        marks.label = marks.label & !mask | value & mask;
    }
    let changed = before != (marks.mark, marks.label);
    if changed {
        marks.owner.clone_from(&ask.owner);
    }
    changed
}
