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
//! - A packet that does not fit its connection is invalid, but shows the connection's mark, label and original tuple, and
//!   may write and be translated.
//! - A new packet never has the reply bit, even when it is a SYN in the reply direction.
//! - An ICMP error is related, and neither new nor established.
//! - Connections that belong to another (`parent`) show that one's original tuple, and keep the mark and label that they
//!   inherited.

use super::conn::{Conn, Guard, Marks, Protocol, Update};
use super::events::{ConnChange, EndReason};
use super::packet::Packet;
use super::table::Inserted;
use super::tuple::Direction;
use super::{Repeat, Tracked, Tracker};
use sluice_flows::DropReason;
use sluice_flows::datapath::DpCt;
use sluice_flows::key::{CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_TRK, PacketKey};
use sluice_flows::packet::{Frame, Layers};
use sluice_flows::rule::Millis;
use std::sync::Arc;

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
}

impl Judged {
    /// Of a packet that the next one may differ from.
    fn never(state: u8, found: Option<Found>) -> Self {
        Self { state, found, repeat: Repeat::Never }
    }
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
            return Ok(self.finish(ask, tracked, Repeat::Same));
        }
        let Some(packet) = Packet::read(frame, layers, key, ask.zone) else {
            *tracked = Tracked { state: CT_TRK | CT_INV, zone: ask.zone, ..Tracked::default() };
            return Ok(Repeat::Never);
        };
        let judged = self.judge(&packet, frame.len() as u64, ask, now)?;
        *tracked = Tracked {
            state: CT_TRK | judged.state,
            zone: ask.zone,
            original: Some(packet.tuple),
            conn: judged.found,
            ..Tracked::default()
        };
        Ok(self.finish(ask, tracked, judged.repeat))
    }

    /// Finds or makes the packet's connection and moves its state.
    fn judge(&self, packet: &Packet<'_>, len: u64, ask: &DpCt, now: Millis) -> Result<Judged, DropReason> {
        let mut checked = false;
        for _ in 0..TRIES {
            let found = self.table.find(&packet.tuple, now);
            if let Some(judged) = found.as_ref().and_then(|found| repeated(found, packet, len, ask, now)) {
                return Ok(judged);
            }
            if !checked && !packet.is_sound() {
                return Ok(Judged::never(CT_INV, None));
            }
            checked = true;
            let known = match found {
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
            if !ask.commit {
                return Ok(Judged::never(CT_NEW, None));
            }
            if let Some(conn) = self.commit(packet, len, ask, now)? {
                return Ok(Judged::never(CT_NEW, Some((conn, Direction::Original))));
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
        let answered = conn.is_answered();
        let update = conn.update(*direction, packet, self.is_liberal(packet.tuple.zone));
        if !answered && conn.is_answered() {
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

    /// Makes the connection that the packet begins. `None` if another worker was faster.
    fn commit(&self, packet: &Packet<'_>, len: u64, ask: &DpCt, now: Millis) -> Result<Option<Arc<Conn>>, DropReason> {
        let original = packet.tuple;
        let Some(reply) = original.reversed() else { return Ok(None) };
        let protocol = Protocol::begin(packet, self.is_liberal(original.zone));
        let conn = Conn::new(original, reply, protocol, None, now);
        let mut marks = conn.marks();
        write(&mut marks, ask);
        marks.owner.clone_from(&ask.owner);
        drop(marks);
        conn.count(Direction::Original, 1, len);
        match self.table.insert(conn, now) {
            Ok(Inserted::New(conn)) => {
                self.events.tell(&conn, ConnChange::New);
                Ok(Some(conn))
            }
            Ok(Inserted::Exists(..)) => Ok(None),
            Err(_) => Err(DropReason::CtFull),
        }
    }

    /// Whether TCP sequence numbers are not looked at in a zone.
    fn is_liberal(&self, zone: u16) -> bool {
        self.table.in_force().zone(zone).tcp_liberal
    }

    /// Reads and writes mark and label. `repeat` says what is known of the packet's repetition so far.
    fn finish(&self, ask: &DpCt, tracked: &mut Tracked, repeat: Repeat) -> Repeat {
        let Some((conn, _)) = &tracked.conn else { return repeat };
        let mut marks = conn.marks();
        let changed = conn.parent.is_none() && write(&mut marks, ask);
        (tracked.mark, tracked.label) = (marks.mark, marks.label);
        if changed {
            conn.changed();
        }
        drop(marks);
        tracked.original = Some(conn.parent.as_ref().unwrap_or(conn).original);
        if !changed {
            return repeat;
        }
        self.events.tell(conn, ConnChange::Marked { mark: tracked.mark, label: tracked.label });
        Repeat::Never
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
    Some(Judged { state, found: Some((Arc::clone(conn), direction)), repeat: Repeat::Guarded(guard) })
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
