//! Connections in a form that outlives the process, and connections made of it.
//!
//! # What is kept
//! What later packets need: both tuples, which side is translated, mark and label, how far the two ends are, and when the last packet
//! was seen, so that timeouts go on. Kept are connections that go on: of TCP those that are established or half closed, of SCTP those
//! that are established, of others all. Not kept are helpers and what they expect, counters, and the owners of marks.
//!
//! # What is not known any more
//! How far TCP's sequence numbers have got meanwhile. An end that is made of what was kept takes the numbers of its first segment,
//! whatever they are ([`End::resumed`]), and is judged by them from then on.

use super::conn::{Conn, Protocol};
use super::plain::PlainState;
use super::sctp::SctpState;
use super::table::{Inserted, Table};
use super::tcp::{End, TcpState};
use super::timeouts::TimeoutClass;
use super::tuple::Tuple;
use serde::{Deserialize, Serialize};
use sluice_flows::action::NatDirection;
use sluice_flows::field::{IP_PROTO_SCTP, IP_PROTO_TCP};
use sluice_flows::rule::Millis;
use std::hash::BuildHasher;
use std::net::IpAddr;

/// A connection, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptConn {
    zone: u16,
    proto: u8,
    original: Side,
    reply: Side,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat: Option<Nat>,
    #[serde(default)]
    mark: u32,
    /// Its two halves, most significant first: numbers of JSON go no further.
    #[serde(default)]
    label: [u64; 2],
    /// When the last packet was seen, by the clock of the switch.
    seen: u64,
    state: KeptState,
}

/// What packets of a direction show: source and destination, each with its port.
type Side = ((IpAddr, u16), (IpAddr, u16));

const fn high(label: u128) -> u64 {
    (label >> 64) as u64
}

const fn low(label: u128) -> u64 {
    label as u64
}

/// The side that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Nat {
    Src,
    Dst,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptState {
    /// By direction: state, window scale, largest window.
    Tcp([(u8, u8, u32); 2]),
    /// The tags by direction.
    Sctp([u32; 2]),
    /// What was seen.
    Plain(u8),
}

impl KeptConn {
    /// Of a connection, if it is worth it.
    #[must_use]
    pub fn of(conn: &Conn) -> Option<Self> {
        let state = match &conn.protocol {
            Protocol::Tcp(tcp) => {
                let goes_on = matches!(tcp.timeout_class(), TimeoutClass::TcpEstablished | TimeoutClass::TcpFinWait);
                if !goes_on {
                    return None;
                }
                KeptState::Tcp(tcp.ends.each_ref().map(End::kept))
            }
            Protocol::Sctp(sctp) => KeptState::Sctp(sctp.kept()?),
            Protocol::Plain(plain) => KeptState::Plain(plain.get() as u8),
        };
        let side = |tuple: &Tuple| ((tuple.src(), tuple.src_port), (tuple.dst(), tuple.dst_port));
        let marks = conn.marks();
        Some(Self {
            zone: conn.original.zone,
            proto: conn.original.proto,
            original: side(&conn.original),
            reply: side(&conn.reply),
            nat: conn.nat.map(|nat| match nat {
                NatDirection::Src => Nat::Src,
                NatDirection::Dst => Nat::Dst,
            }),
            mark: marks.mark,
            label: [high(marks.label), low(marks.label)],
            seen: conn.seen().0,
            state,
        })
    }

    /// The connection again. `None` if there can be no such connection.
    fn conn(&self, now: Millis) -> Option<Conn> {
        let protocol = match (&self.state, self.proto) {
            (KeptState::Tcp(ends), IP_PROTO_TCP) => {
                Protocol::Tcp(TcpState { ends: ends.map(End::resumed), ..TcpState::default() })
            }
            (KeptState::Sctp(tags), IP_PROTO_SCTP) => Protocol::Sctp(SctpState::resumed(*tags)),
            (KeptState::Plain(seen), proto) if proto != IP_PROTO_TCP => Protocol::Plain(PlainState::resumed(*seen)),
            _ => return None,
        };
        let tuple = |((src, src_port), (dst, dst_port)): Side| {
            Tuple::new(self.zone, self.proto, src, dst).with_ports(src_port, dst_port)
        };
        let (original, reply) = (tuple(self.original), tuple(self.reply));
        let (nat, is_sound) = match self.nat {
            None => (None, original.reversed() == Some(reply)),
            Some(Nat::Src) => (Some(NatDirection::Src), reply.src() == original.dst()),
            Some(Nat::Dst) => (Some(NatDirection::Dst), reply.dst() == original.src()),
        };
        let (((a, _), (b, _)), ((c, _), (d, _))) = (self.original, self.reply);
        let of_one_family = [b, c, d].iter().all(|address| address.is_ipv4() == a.is_ipv4());
        if !is_sound || !of_one_family || original.reversed().is_none() {
            return None;
        }
        let conn = Conn::new(original, reply, protocol, None, now).with_nat(nat);
        {
            let mut marks = conn.marks();
            marks.mark = self.mark;
            marks.label = u128::from(self.label[0]) << 64 | u128::from(self.label[1]);
        }
        // None was seen in times to come, whatever the file says.
        conn.see(now.min(Millis(self.seen)));
        Some(conn)
    }
}

impl Table {
    /// Puts a connection in that was kept. False if it does not fit, or there is one already.
    pub(crate) fn resume(&self, kept: &KeptConn, now: Millis) -> bool {
        let Some(conn) = kept.conn(now) else { return false };
        if let Protocol::Tcp(tcp) = &conn.protocol {
            let is_liberal = self.in_force().zone(kept.zone).tcp_liberal;
            tcp.liberal.store(is_liberal, std::sync::atomic::Ordering::Relaxed);
        }
        matches!(self.insert(conn, now), Ok(Inserted::New(_)))
    }

    /// A number that differs when connections have come, gone, or had packets.
    pub(crate) fn fingerprint(&self, now: Millis) -> u64 {
        let mut sum = 0_u64;
        self.for_each(now, |conn| {
            let what = (self.shards.hash(&conn.original), conn.seen().0, conn.version());
            sum = sum.wrapping_add(foldhash::fast::FixedState::default().hash_one(what));
            true
        });
        sum
    }
}

#[cfg(test)]
mod tests;
