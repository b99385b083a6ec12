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
//! | `track.rs` | what becomes of a packet |
//! | `packet.rs`, `icmp.rs` | what the tracker reads of a packet, and of one that an ICMP error quotes |
//! | `tcp.rs`, `sctp.rs`, `plain.rs` | states: TCP's with windows, SCTP's with tags, those of everything else |
//! | `kept.rs` | connections that outlive the process |
//! | `state.rs` | states in words |
//! | `filter.rs` | which connections are meant |
//! | `events.rs` | what happens to connections, told to watchers |
//! | `alg/` | FTP and TFTP: connections that are announced by others |
//! | `fragments.rs` | fragments that wait for the rest of their datagram |
//! | `nat.rs` | address translation: the choice, and rewriting packets |
//! | `peek.rs` | what a traced packet would be told |

mod alg;
mod conn;
mod events;
mod expiry;
mod filter;
mod fragments;
mod icmp;
mod kept;
#[doc(hidden)]
pub mod measure;
#[cfg(test)]
mod model;
mod nat;
mod packet;
mod peek;
mod plain;
mod sctp;
mod settings;
mod shards;
mod state;
mod sync;
mod table;
mod tcp;
#[cfg(test)]
mod testing;
mod timeouts;
mod track;
mod tuple;
mod zones;

pub use conn::Conn;
pub(crate) use conn::Guard;
pub use events::{ConnChange, ConnEvent, EndReason};
pub use filter::{ConnFilter, FilterError};
pub use fragments::{BYTES_PER_FRAGMENT, FragmentCounts, FragmentLimits, FragmentStats, MAX_FRAGMENTS};
pub(crate) use fragments::{Datagram, Fragments, Origin, Taken};
pub use kept::KeptConn;
pub(crate) use packet::Segment;
pub use plain::Seen;
pub use sctp::Association;
pub use settings::{CtSettings, FragmentSettings, SettingsError, ZoneSettings};
pub use state::ConnState;
pub use table::{CtCounters, ZoneCount};
pub use tcp::TcpEnd;
pub use timeouts::{TimeoutClass, Timeouts};
pub use tuple::{Direction, Tuple};

use alg::Expectations;
use conn::Protocol;
use events::ConnEvents;
use nat::Chooser;
use sluice_flows::key::{CT_INV, FlowKey, slot};
use sluice_flows::rule::Millis;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use table::Table;

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
    /// Writes it to the arrival part of a key. An invalid packet shows no original tuple, as in Open vSwitch.
    pub(crate) fn write(&self, key: &mut FlowKey) {
        key.set(slot::CT_STATE, self.state.into());
        key.set(slot::CT_ZONE, self.zone.into());
        key.set(slot::CT_MARK, self.mark.into());
        key.set(slot::CT_LABEL, self.label);
        let Some(tuple) = self.original.as_ref().filter(|_| self.state & CT_INV == 0) else { return };
        key.set(slot::CT_NW_PROTO, tuple.proto.into());
        let [first, second] = if tuple.is_icmp() {
            [tuple.icmp_type().into(), tuple.icmp_code().into()]
        } else {
            [tuple.src_port, tuple.dst_port]
        };
        key.set(slot::CT_TP_SRC, first.into());
        key.set(slot::CT_TP_DST, second.into());
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
    /// Fragments are put together before they are tracked.
    pub(crate) fragments: Fragments,
    /// Where new and changed connections are told; the table tells which have ended.
    pub(crate) events: Arc<ConnEvents>,
    /// Chooses translations.
    pub(crate) chooser: Chooser,
    /// Packets that were invalid: they fitted no connection and could begin none.
    pub(crate) invalid: AtomicU64,
    /// Packets whose connection would be answered like one that is there.
    pub(crate) collided: AtomicU64,
    /// What control connections have announced.
    pub(crate) expectations: Expectations,
}

impl Default for Tracker {
    fn default() -> Self {
        let events = Arc::default();
        let table = Table::new(Arc::clone(&events));
        Self {
            table,
            fragments: Fragments::default(),
            events,
            chooser: Chooser::default(),
            invalid: AtomicU64::new(0),
            collided: AtomicU64::new(0),
            expectations: Expectations::default(),
        }
    }
}

impl Tracker {
    /// Changes the settings, for connections and fragments that are there too.
    ///
    /// # Errors
    /// [`SettingsError`]; those in force stay.
    pub(crate) fn set(&self, settings: CtSettings) -> Result<(), SettingsError> {
        let fragments = settings.fragments;
        self.table.set(settings)?;
        self.fragments.set(fragments);
        let rules = self.table.in_force();
        // At time 0 none has expired. Plain packets look at the connection only, and no other may ever come.
        self.table.for_each(Millis(0), |conn| {
            if let Protocol::Tcp(tcp) = &conn.protocol {
                tcp.liberal.store(rules.zone(conn.original.zone).tcp_liberal, Ordering::Relaxed);
            }
            true
        });
        Ok(())
    }
}
