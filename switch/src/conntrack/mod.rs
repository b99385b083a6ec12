//! Connection tracking and address translation.
//!
//! [`Tracker::track`] is what `ct(..)` does to a packet. It works on the packet's bytes, finds or makes the connection,
//! and says what the packet is told ([`Tracked`]) and whether the next packet like it will be told the same
//! ([`Repeat`]), so that the caches can answer for it.
//!
//! | file | what |
//! |---|---|
//! | `tuple.rs` | what a connection is known by |
//! | `conn.rs` | one connection, and what a cached answer needs of it |
//! | `table.rs`, `shards.rs`, `zones.rs` | the connections by tuple, and how many there may be |
//! | `expiry.rs` | what goes over all of them: expiring, flushing, reading |
//! | `settings.rs`, `timeouts.rs` | what can be set |
//! | `tcp.rs` | states and windows |
//! | `state.rs` | states in words |
//! | `filter.rs` | which connections are meant |
//! | `events.rs` | what happens to connections, told to watchers |
//! | `alg/` | FTP and TFTP: connections that are announced by others |
//! | `fragments.rs` | fragments that wait for the rest of their datagram |
//! | `nat.rs` | address translation: the choice, and rewriting packets |

mod alg;
mod conn;
mod events;
mod expiry;
mod filter;
mod fragments;
#[cfg(test)]
mod model;
mod nat;
mod settings;
mod shards;
mod state;
mod sync;
mod table;
mod tcp;
mod timeouts;
mod tuple;
mod zones;

pub(crate) use conn::Guard;
pub use conn::{Conn, Seen};
pub use events::{ConnChange, ConnEvent, EndReason};
pub use filter::{ConnFilter, FilterError};
pub use fragments::{BYTES_PER_FRAGMENT, FragmentCounts, FragmentLimits, FragmentStats, MAX_FRAGMENTS};
pub use settings::{CtSettings, FragmentSettings, SettingsError, ZoneSettings};
pub use state::ConnState;
pub use table::{CtCounters, ZoneCount};
pub(crate) use tcp::Segment;
pub use tcp::TcpEnd;
pub use timeouts::{TimeoutClass, Timeouts};
pub use tuple::{Direction, Tuple};

use conn::{PlainState, Protocol};
use events::ConnEvents;
use sluice_flows::DropReason;
use sluice_flows::datapath::DpCt;
use sluice_flows::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6};
use sluice_flows::key::{CT_EST, CT_INV, CT_NEW, CT_RPL, CT_TRK, FlowKey, PacketKey, slot};
use sluice_flows::packet::{Frame, Layers};
use sluice_flows::rule::Millis;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use table::{Inserted, Table};

/// What the tracker has said of a packet; all zero for one that was not tracked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracked {
    /// Bits of [`slot::CT_STATE`].
    pub(crate) state: u8,
    pub(crate) zone: u16,
    pub(crate) mark: u32,
    pub(crate) label: u128,
    /// The connection's original direction, as far as `ct_nw_src` and its fellows tell it.
    pub(crate) original: Option<Tuple>,
    /// The connection, once there is one, and the packet's direction.
    pub(crate) conn: Option<(Arc<Conn>, Direction)>,
}

impl Tracked {
    /// Writes it to the arrival part of a key.
    pub(crate) fn write(&self, key: &mut FlowKey) {
        key.set(slot::CT_STATE, self.state.into());
        key.set(slot::CT_ZONE, self.zone.into());
        key.set(slot::CT_MARK, self.mark.into());
        key.set(slot::CT_LABEL, self.label);
        let Some(tuple) = &self.original else { return };
        key.set(slot::CT_NW_PROTO, tuple.proto.into());
        key.set(slot::CT_TP_SRC, tuple.src_port.into());
        key.set(slot::CT_TP_DST, tuple.dst_port.into());
        for (address, v4, v6) in
            [(tuple.src(), slot::CT_NW_SRC, slot::CT_IPV6_SRC), (tuple.dst(), slot::CT_NW_DST, slot::CT_IPV6_DST)]
        {
            match address {
                IpAddr::V4(address) => key.set(v4, address.to_bits().into()),
                IpAddr::V6(address) => key.set(v6, address.to_bits()),
            }
        }
    }
}

/// Whether the tracker would say the same of the next packet like this one.
#[derive(Debug)]
pub(crate) enum Repeat {
    /// As long as the guard holds, and with the same translation. The connection was there, and this packet changed
    /// nothing but what [`Conn::pass`] changes.
    Guarded(Guard),
    /// As long as the guards of the packet's earlier passes hold: this did not look anything up.
    Same,
    /// Not known: it has to be asked again.
    Never,
}

/// The connections of all zones.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) table: Table,
    /// Where new and changed connections are told; the table tells which have ended.
    pub(crate) events: Arc<ConnEvents>,
}

impl Default for Tracker {
    fn default() -> Self {
        let events = Arc::default();
        Self { table: Table::new(Arc::clone(&events)), events }
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
        let Some(tuple) = tuple_of(key, ask.zone) else {
            *tracked = Tracked { state: CT_TRK | CT_INV, zone: ask.zone, ..Tracked::default() };
            return Ok(Repeat::Never);
        };
        let _ = (frame, layers);
        let mut repeat = Repeat::Never;
        let found = self.table.find(&tuple, now);
        let (conn, direction, state) = match found {
            Some((conn, direction)) => {
                let mut state = CT_TRK | if direction == Direction::Reply { CT_RPL } else { 0 };
                let version = conn.version();
                if let Protocol::Plain(seen) = &conn.protocol {
                    match (direction, seen.get()) {
                        (Direction::Reply, Seen::Both) | (Direction::Original, Seen::Both | Seen::Multiple) => {
                            repeat = Repeat::Guarded(Guard { conn: Arc::clone(&conn), direction, version });
                        }
                        (Direction::Reply, _) => {
                            seen.set(Seen::Both);
                            conn.changed();
                        }
                        (Direction::Original, _) => seen.set(Seen::Multiple),
                    }
                    state |= if seen.get() == Seen::Both { CT_EST } else { CT_NEW };
                }
                conn.see(now);
                (Some(conn), direction, state)
            }
            None => (None, Direction::Original, CT_TRK | CT_NEW),
        };
        let mut conn = conn;
        if let (None, true, Some(reply)) = (&conn, ask.commit, tuple.reversed()) {
            let new = Conn::new(tuple, reply, Protocol::Plain(PlainState::default()), None, now);
            let inserted = self.table.insert(new, now).map_err(|_| DropReason::CtFull)?;
            let (Inserted::New(inserted) | Inserted::Exists(inserted, _)) = inserted;
            conn = Some(inserted);
        }
        *tracked = Tracked { state, zone: ask.zone, original: Some(tuple), ..Tracked::default() };
        if let Some(conn) = conn {
            let mut marks = conn.marks();
            if let Some((value, mask)) = ask.mark {
                marks.mark = marks.mark & !mask | value & mask;
            }
            (tracked.mark, tracked.label, tracked.original) = (marks.mark, marks.label, Some(conn.original));
            drop(marks);
            tracked.conn = Some((conn, direction));
        }
        Ok(repeat)
    }
}

/// What the tracker knows a packet by. `None` if it is not IP.
fn tuple_of(key: &PacketKey, zone: u16) -> Option<Tuple> {
    let (src, dst): (IpAddr, IpAddr) = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV4 => {
            let address = |slot| Ipv4Addr::from_bits(key.get(slot) as u32).into();
            (address(slot::IP_SRC), address(slot::IP_DST))
        }
        ETH_TYPE_IPV6 => {
            let address = |slot| Ipv6Addr::from_bits(key.get(slot)).into();
            (address(slot::IPV6_SRC), address(slot::IPV6_DST))
        }
        _ => return None,
    };
    let tuple = Tuple::new(zone, key.get(slot::IP_PROTO) as u8, src, dst);
    Some(tuple.with_ports(key.get(slot::TP_SRC) as u16, key.get(slot::TP_DST) as u16))
}
