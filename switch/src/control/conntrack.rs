//! Tracked connections: reading, flushing, limits, events.

use super::Datapath;
use crate::conntrack::{
    Conn, ConnEvent, ConnFilter, CtCounters, CtSettings, FragmentStats, SettingsError, Tuple, ZoneCount,
};
use crossbeam::channel::Receiver;
use sluice_flows::datapath::DpCt;
use sluice_flows::explain::CtKnown;
use sluice_flows::key::FlowKey;
use sluice_flows::rule::Millis;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Datapath {
    /// Shows connections that have not expired, in no order, until `show` says no. Those that come or go meanwhile may be
    /// shown or not. Counters are up to date after [`Self::sync_stats`].
    pub fn connections(&self, show: impl FnMut(Arc<Conn>) -> bool) {
        self.inner.shared.conntrack.table.for_each(self.clock().now(), show);
    }

    /// A number that differs when connections have come, gone, or had packets.
    pub(crate) fn connections_fingerprint(&self) -> u64 {
        self.inner.shared.conntrack.table.fingerprint(self.clock().now())
    }

    /// How many connections there are that the filter selects.
    pub fn count_connections(&self, filter: &ConnFilter) -> u64 {
        let mut count = 0;
        self.connections(|conn| {
            count += u64::from(filter.selects(&conn));
            true
        });
        count
    }

    /// Removes the connections that the filter selects; their next packets begin anew. Returns how many.
    pub fn flush_connections(&self, filter: &ConnFilter) -> u64 {
        self.inner.shared.conntrack.table.flush(|conn| filter.selects(conn))
    }

    /// As [`Self::flush_connections`], of those that `stale` says so of.
    pub(crate) fn flush_connections_where(&self, stale: impl Fn(&Conn) -> bool) -> u64 {
        self.inner.shared.conntrack.table.flush(stale)
    }

    /// Writes bits of the label of the connection whose packets of the original direction show this. Whether that changed it; not if
    /// there is no such connection.
    pub fn label_connection(&self, original: &Tuple, value: u128, mask: u128) -> bool {
        self.inner.shared.conntrack.label(original, value, mask, self.clock().now())
    }

    /// When a connection ends if no packet of it comes.
    pub fn connection_expires(&self, conn: &Conn) -> Millis {
        self.inner.shared.conntrack.table.in_force().expires(conn)
    }

    /// What the tracker would say of the packet `key` if it were asked for `ask`. Changes nothing.
    pub fn peek_connection(&self, key: &FlowKey, ask: &DpCt) -> CtKnown {
        self.inner.shared.conntrack.peek(key, ask, self.clock().now())
    }

    /// Number of connections.
    pub fn connections_len(&self) -> u32 {
        self.inner.shared.conntrack.table.len()
    }

    /// The zones that have connections or a limit of their own, by number.
    pub fn connection_zones(&self) -> Vec<ZoneCount> {
        self.inner.shared.conntrack.table.zones()
    }

    /// What came of connections since the start.
    pub fn connection_counters(&self) -> CtCounters {
        self.inner.shared.conntrack.table.counters()
    }

    /// Packets that had to be translated, and for which no address and port was left.
    pub fn nat_exhausted(&self) -> u64 {
        self.inner.shared.conntrack.chooser.exhausted()
    }

    /// Packets dropped because the answers to their connection would have been those to another one.
    pub fn collided_packets(&self) -> u64 {
        self.inner.shared.conntrack.collided.load(Ordering::Relaxed)
    }

    /// Packets that were invalid: they fitted no connection and could begin none.
    pub fn invalid_packets(&self) -> u64 {
        self.inner.shared.conntrack.invalid.load(Ordering::Relaxed)
    }

    /// Fragments that wait, and what came of others.
    pub fn fragment_stats(&self) -> FragmentStats {
        self.inner.shared.conntrack.fragments.stats()
    }

    /// Limits, timeouts and what is checked.
    pub fn connection_settings(&self) -> CtSettings {
        self.inner.shared.conntrack.table.in_force().settings().clone()
    }

    /// Changes settings. Connections that there are follow them at once.
    ///
    /// # Errors
    /// What `change` says, or [`SettingsError`] for what it made of them; nothing was changed.
    pub fn set_connection_settings<E: From<SettingsError>>(
        &self,
        change: impl FnOnce(&mut CtSettings) -> Result<(), E>,
    ) -> Result<CtSettings, E> {
        // One change at a time.
        let _state = self.inner.lock();
        let mut settings = self.connection_settings();
        change(&mut settings)?;
        self.inner.shared.conntrack.set(settings.clone())?;
        Ok(settings)
    }

    /// What happens to connections from now on. One that reads too slowly loses events, and is told how many; at most
    /// `depth` wait.
    pub fn connection_events(&self, depth: usize) -> Receiver<ConnEvent> {
        self.inner.shared.conntrack.events.subscribe(depth)
    }
}
