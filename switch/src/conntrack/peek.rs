//! What the tracker would say of a packet, without the packet: for traces.
//!
//! Nothing is found out that depends on a packet's bytes. A segment of TCP counts as one that fits the connection (one
//! without flags, as a flow that does not say them has it, as whatever comes next), and ICMP, which is known by an
//! identifier, is not looked up.

use super::alg::Expected;
use super::conn::Conn;
use super::tcp::{ACK, SYN};
use super::tuple::{Direction, Tuple};
use super::{ConnState, TcpEnd, Tracked, Tracker, nat};
use sluice_flows::action::NatDirection;
use sluice_flows::datapath::DpCt;
use sluice_flows::explain::CtKnown;
use sluice_flows::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6};

use sluice_flows::key::{CT_DNAT, CT_EST, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK, FlowKey, Slot, slot};
use sluice_flows::rule::Millis;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(test)]
mod tests;

impl Tracker {
    /// What it would say of the packet `key` if it were asked for `ask`. Changes nothing.
    pub(crate) fn peek(&self, key: &FlowKey, ask: &DpCt, now: Millis) -> CtKnown {
        let Some(tuple) = tuple_of(key, ask.zone) else {
            return CtKnown::Unsaid("what is not IP is invalid to the tracker");
        };
        if tuple.is_icmp() {
            return CtKnown::Unsaid("the tracker knows ICMP by identifiers, which a flow does not say");
        }
        match self.table.find(&tuple, now) {
            // With `force` a connection that began at the other end is begun anew from here.
            Some((_, Direction::Reply)) if ask.force => CtKnown::New,
            Some((conn, direction)) => match place(&conn, direction, key) {
                Place::Anew => CtKnown::New,
                Place::First => known(&conn, CT_NEW, direction, key, ask),
                Place::Later => known(&conn, CT_EST, direction, key, ask),
            },
            None => match self.expectations.find(&tuple, now) {
                Some(expected) => self.announced(&tuple, &expected, key, ask, now),
                None => CtKnown::New,
            },
        }
    }

    /// Of the first packet of a connection that another one announced.
    fn announced(&self, tuple: &Tuple, expected: &Expected, key: &FlowKey, ask: &DpCt, now: Millis) -> CtKnown {
        let mut key = *key;
        let mut state = CT_TRK | CT_NEW | CT_REL;
        if ask.commit && ask.nat.is_some() {
            let Some(reply) = expected.replies(tuple).find(|reply| self.table.is_free(reply, now)) else {
                return CtKnown::Unsaid("nothing is left to translate it to, and it would be dropped");
            };
            translate(&mut key, &reply);
            state |= match expected.side() {
                NatDirection::Src => CT_SNAT,
                NatDirection::Dst => CT_DNAT,
            };
        }
        let (zone, original) = (ask.zone, Some(expected.parent.original));
        let tracked = Tracked { state, zone, mark: expected.mark, label: expected.label, original, conn: None };
        tracked.write(&mut key);
        CtKnown::Connection { key: Box::new(key), told: format!("announced by {}", in_words(&expected.parent)) }
    }
}

/// What the packet is known by. `None` if it is not IP.
fn tuple_of(key: &FlowKey, zone: u16) -> Option<Tuple> {
    let address = |slot: Slot| match slot.bits {
        128 => IpAddr::from(Ipv6Addr::from_bits(key.get(slot))),
        _ => Ipv4Addr::from_bits(key.get(slot) as u32).into(),
    };
    let (src, dst) = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV4 => (address(slot::IP_SRC), address(slot::IP_DST)),
        ETH_TYPE_IPV6 => (address(slot::IPV6_SRC), address(slot::IPV6_DST)),
        _ => return None,
    };
    let tuple = Tuple::new(zone, key.get(slot::IP_PROTO) as u8, src, dst);
    Some(tuple.with_ports(key.get(slot::TP_SRC) as u16, key.get(slot::TP_DST) as u16))
}

/// Where in its connection a packet stands.
enum Place {
    /// It begins the connection anew.
    Anew,
    /// Nobody has answered yet.
    First,
    /// It answers, or comes after an answer.
    Later,
}

fn place(conn: &Conn, direction: Direction, key: &FlowKey) -> Place {
    let ConnState::Tcp([original, reply]) = conn.state() else {
        return if direction == Direction::Reply || conn.is_answered() { Place::Later } else { Place::First };
    };
    let (src, dst) = if direction == Direction::Original { (original, reply) } else { (reply, original) };
    let flags = key.get(slot::TCP_FLAGS) as u8;
    let is_syn =
        flags & (SYN | ACK) == SYN || flags == 0 && reply == TcpEnd::Closed && direction == Direction::Original;
    match is_syn {
        true if src.min(dst) >= TcpEnd::FinWait2 => Place::Anew,
        true if src <= TcpEnd::SynSent => Place::First,
        _ => Place::Later,
    }
}

/// Of a packet of a connection that is there, with the bit of its place.
fn known(conn: &Conn, place: u8, direction: Direction, key: &FlowKey, ask: &DpCt) -> CtKnown {
    let mut key = *key;
    let mut state = CT_TRK | place;
    // What is new has no direction, even if it goes against that of the connection.
    state |= if direction == Direction::Reply && place == CT_EST { CT_RPL } else { 0 };
    state |= if conn.parent.is_some() { CT_REL } else { 0 };
    if ask.nat.is_some() && nat::side(conn, direction).is_some() {
        state |= nat::state_bits(conn, direction);
        translate(&mut key, conn.tuple(direction.opposite()));
    }
    let (mut mark, mut label) = {
        let marks = conn.marks();
        (marks.mark, marks.label)
    };
    // Those of a connection that another one announced are that one's.
    if conn.parent.is_none() {
        mark = ask.mark.map_or(mark, |(value, mask)| mark & !mask | value & mask);
        label = ask.label.map_or(label, |(value, mask)| label & !mask | value & mask);
    }
    let original = conn.parent.as_ref().map_or(conn.original, |parent| parent.original);
    let tracked = Tracked { state, zone: ask.zone, mark, label, original: Some(original), conn: None };
    tracked.write(&mut key);
    CtKnown::Connection { key: Box::new(key), told: in_words(conn) }
}

/// Gives the packet the addresses and ports that lead to answers that show `answered`.
fn translate(key: &mut FlowKey, answered: &Tuple) {
    let Some(sent) = answered.reversed() else { return };
    let (v4, v6) = ((slot::IP_SRC, slot::IP_DST), (slot::IPV6_SRC, slot::IPV6_DST));
    let (src, dst) = if sent.is_v6() { v6 } else { v4 };
    set_address(key, src, sent.src());
    set_address(key, dst, sent.dst());
    key.set(slot::TP_SRC, sent.src_port.into());
    key.set(slot::TP_DST, sent.dst_port.into());
}

fn set_address(key: &mut FlowKey, slot: Slot, address: IpAddr) {
    match address {
        IpAddr::V4(address) => key.set(slot, address.to_bits().into()),
        IpAddr::V6(address) => key.set(slot, address.to_bits()),
    }
}

/// The connection as a line.
fn in_words(conn: &Conn) -> String {
    let end = |address: IpAddr, port: u16| match address {
        IpAddr::V6(address) => format!("[{address}]:{port}"),
        IpAddr::V4(address) => format!("{address}:{port}"),
    };
    let show = |tuple: &Tuple| format!("{} > {}", end(tuple.src(), tuple.src_port), end(tuple.dst(), tuple.dst_port));
    let Tuple { zone, proto, .. } = conn.original;
    let (original, reply) = (show(&conn.original), show(&conn.reply));
    format!("zone {zone}, protocol {proto}, {original}, answered as {reply}, {}", conn.state().name())
}
