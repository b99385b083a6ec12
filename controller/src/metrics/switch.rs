//! What the switch is asked for at a scrape.

use super::{ANSWER_WITHIN, Options};
use crate::program::{Switch, SwitchError};
use sluice_proto::v1;
use std::time::{Duration, Instant};

/// Most ports, and most attachments, that are taken from the switch.
const MAX_LISTED: usize = 10_000;
/// How often the other ends of tunnels are asked how long the way to them is.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How long each has to answer, in milliseconds.
const PROBE_WITHIN_MS: u32 = 1_000;

/// All answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) status: v1::GetStatusReply,
    pub(super) stats: v1::GetStatsReply,
    pub(super) connections: v1::GetConnectionStatsReply,
    pub(super) tables: Vec<v1::Table>,
    pub(super) ports: Vec<v1::Port>,
    pub(super) tunnels: Vec<v1::Tunnel>,
    pub(super) networks: Vec<v1::Network>,
    pub(super) attachments: Vec<v1::Attachment>,
    /// Ports and attachments beyond the limit.
    pub(super) unlisted: u64,
}

/// Where they come from.
#[derive(Debug)]
pub(super) struct Source {
    switch: Switch,
    bridge: String,
    /// When tunnels were probed last, and what came of it: round trips by port and other end, in microseconds.
    probed: Option<Instant>,
    round_trips: Vec<((String, String), u64)>,
}

impl Source {
    pub(super) fn new(switch: Switch, options: &Options) -> Self {
        Self { switch, bridge: options.bridge.clone(), probed: None, round_trips: Vec::new() }
    }

    /// Asks for everything at once.
    ///
    /// # Errors
    /// What the switch says, that it is away, or that it says nothing in time.
    pub(super) async fn ask(&mut self) -> Result<Answers, SwitchError> {
        let probe = self.probed.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        let late = |_| {
            let (socket, seconds) = (self.switch.socket().to_owned(), ANSWER_WITHIN.as_secs());
            SwitchError::Slow { socket, seconds }
        };
        let mut answers = tokio::time::timeout(ANSWER_WITHIN, self.all(probe)).await.map_err(late)??;
        if probe {
            self.probed = Some(Instant::now());
            let peers = answers.tunnels.iter().flat_map(|tunnel| tunnel.peers.iter().map(|peer| (port(tunnel), peer)));
            self.round_trips =
                peers.filter_map(|(port, peer)| Some(((port, peer.remote.clone()), peer.rtt_us?))).collect();
        } else {
            for tunnel in &mut answers.tunnels {
                let port = port(tunnel);
                for peer in &mut tunnel.peers {
                    let known = self.round_trips.iter().find(|((p, remote), _)| *p == port && *remote == peer.remote);
                    peer.rtt_us = known.map(|(_, rtt)| *rtt);
                }
            }
        }
        Ok(answers)
    }

    async fn all(&self, probe: bool) -> Result<Answers, SwitchError> {
        let (switch, bridge) = (&self.switch, self.bridge.as_str());
        let (status, stats, connections, tables, tunnels, networks, ports, attachments) = tokio::join!(
            switch.status(),
            switch.stats(),
            switch.connection_stats(""),
            switch.tables(bridge),
            switch.tunnels(bridge, if probe { PROBE_WITHIN_MS } else { 0 }),
            switch.networks(),
            switch.ports(""),
            switch.attachments(""),
        );
        let (mut ports, mut attachments) = (ports?, attachments?);
        Ok(Answers {
            status: status?,
            stats: stats?,
            connections: connections?,
            // The bridge comes with the network, so it may not be there yet.
            tables: tables.unwrap_or_default(),
            tunnels: tunnels.unwrap_or_default(),
            networks: networks?,
            unlisted: cut(&mut ports) + cut(&mut attachments),
            ports,
            attachments,
        })
    }
}

/// Leaves as many as are listed at most, and says how many there were beyond.
fn cut<T>(all: &mut Vec<T>) -> u64 {
    let beyond = all.len().saturating_sub(MAX_LISTED);
    all.truncate(MAX_LISTED);
    beyond as u64
}

/// The name of a tunnel's port.
pub(super) fn port(tunnel: &v1::Tunnel) -> String {
    let spec = tunnel.port.as_ref().and_then(|port| port.spec.as_ref());
    spec.map(|spec| spec.name.clone()).unwrap_or_default()
}
