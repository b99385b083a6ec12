//! The table without packets, for the benches: committing, finding and expiring TCP connections, and nothing else.

use super::conn::{Conn, Protocol};
use super::settings::{CtSettings, SettingsError};
use super::table::{CtCounters, Inserted, Table};
use super::tcp::{TcpEnd, TcpState};
use super::tuple::Tuple;
use sluice_flows::rule::Millis;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A table of connections.
#[derive(Debug, Default)]
pub struct BareTable(Table);

impl BareTable {
    /// An empty table.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: CtSettings) -> Result<Self, SettingsError> {
        let table = Table::default();
        table.set(settings)?;
        Ok(Self(table))
    }

    /// Commits a half-open connection, whose source address may be translated. Says whether there was room.
    pub fn commit(&self, original: Tuple, translated: Option<IpAddr>, now: Millis) -> bool {
        let Some(conn) = new_conn(original, translated, now) else { return false };
        self.0.insert(conn, now).is_ok()
    }

    /// Commits an established connection likewise.
    pub fn commit_established(&self, original: Tuple, now: Millis) -> bool {
        let Some(conn) = new_conn(original, None, now) else { return false };
        let Ok(Inserted::New(conn)) = self.0.insert(conn, now) else { return false };
        if let Protocol::Tcp(tcp) = &conn.protocol {
            tcp.ends.iter().for_each(|end| end.set_state(TcpEnd::Established));
        }
        true
    }

    /// Whether a connection is known by this tuple, which a packet of it shows now.
    pub fn see(&self, tuple: &Tuple, now: Millis) -> bool {
        let found: Option<(Arc<Conn>, _)> = self.0.find(tuple, now);
        found.is_some_and(|(conn, _)| {
            conn.see(now);
            true
        })
    }

    /// One part of the sweep in the background; says when the next is due.
    pub fn expire_part(&self, now: Millis) -> Option<Duration> {
        self.0.expire_part(now)
    }

    /// Number of connections.
    pub fn count(&self) -> u32 {
        self.0.len()
    }

    /// Totals since the start.
    pub fn counters(&self) -> CtCounters {
        self.0.counters()
    }
}

fn new_conn(original: Tuple, translated: Option<IpAddr>, now: Millis) -> Option<Conn> {
    let reply = original.reversed()?;
    let reply = translated.map_or(reply, |address| reply.with_dst(address));
    Some(Conn::new(original, reply, Protocol::Tcp(TcpState::default()), None, now))
}
