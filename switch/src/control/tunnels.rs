//! Tunnels as the control side tells of them.

use super::ports::PortInfo;
use super::{ControlError, Datapath};
use crate::port::{Port, TunnelPeer};
use sluice_flows::DpPort;
use sluice_flows::datapath::DpAction;
use sluice_flows::key::slot;
use sluice_flows::tunnel::{Part, TunnelKey};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Other ends of one port that are told of, where flows say where to.
const MAX_PEERS: usize = 1024;

/// A tunnel port and its other ends.
#[derive(Clone, Debug)]
pub struct TunnelInfo {
    /// The port.
    pub port: PortInfo,
    /// Each other end, and how long it took to answer a probe.
    pub peers: Vec<(TunnelPeer, Option<Duration>)>,
}

impl Datapath {
    /// The tunnel ports of one bridge, or of all if none is named, sorted by bridge name and number. With a timeout,
    /// all other ends are asked for an ICMP echo, which takes that long if one does not answer.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn tunnels(&self, bridge: Option<&str>, probe: Option<Duration>) -> Result<Vec<TunnelInfo>, ControlError> {
        let ports = self.ports(bridge)?.into_iter().filter(|info| info.port.tunnel.is_some());
        let ports: Vec<_> = ports.filter_map(|info| Some((self.device(info.port.dp)?, info))).collect();
        let by_flow = ports.iter().any(|(_, info)| remote_of(info) == Some(Part::Flow));
        let seen = if by_flow { self.remotes() } else { BTreeSet::new() };
        // Asked without a lock, and side by side: an answer may be long in coming.
        Ok(thread::scope(|scope| {
            let asked: Vec<_> = ports
                .into_iter()
                .map(|(device, info)| {
                    let of_port = seen.iter().filter(|(port, _)| *port == info.port.dp);
                    let seen: Vec<_> = of_port.map(|(_, remote)| *remote).take(MAX_PEERS).collect();
                    scope.spawn(move || TunnelInfo { peers: ask(&device, &seen, probe), port: info })
                })
                .collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
        }))
    }

    /// Which other ends packets came from and went to by each tunnel port, as far as the caches know.
    fn remotes(&self) -> BTreeSet<(DpPort, IpAddr)> {
        let mut all = BTreeSet::new();
        for entry in self.megaflows(None) {
            let ingress = DpPort(entry.key.get(slot::IN_PORT) as u32);
            all.extend(TunnelKey::of_flow(&entry.key).src().map(|remote| (ingress, remote)));
            let mut to = None;
            for action in &entry.actions {
                match action {
                    DpAction::Tunnel(key) => to = key.dst(),
                    DpAction::Output(port) | DpAction::Mirror(port) => all.extend(to.map(|remote| (*port, remote))),
                    _ => {}
                }
            }
        }
        all
    }
}

/// Who says where the tunnel leads.
fn remote_of(info: &PortInfo) -> Option<Part<IpAddr>> {
    info.port.tunnel.as_ref().map(|tunnel| tunnel.remote)
}

fn ask(device: &Arc<dyn Port>, seen: &[IpAddr], probe: Option<Duration>) -> Vec<(TunnelPeer, Option<Duration>)> {
    let peers = device.peers(seen);
    let Some(timeout) = probe else { return peers.into_iter().map(|peer| (peer, None)).collect() };
    let remotes: Vec<IpAddr> = peers.iter().filter_map(|peer| peer.remote).collect();
    let mut times = device.probe(&remotes, timeout).into_iter();
    let mut time = |peer: &TunnelPeer| peer.remote.and_then(|_| times.next().flatten());
    peers.into_iter().map(|peer| (time(&peer), peer)).map(|(rtt, peer)| (peer, rtt)).collect()
}
