//! Tunnels as the control side tells of them.

use super::ports::PortInfo;
use super::{ControlError, Datapath};
use crate::port::{Port, TunnelPeer};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

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
        // Asked without a lock, and side by side: an answer may be long in coming.
        Ok(thread::scope(|scope| {
            let asked: Vec<_> = ports
                .into_iter()
                .map(|(device, info)| scope.spawn(move || TunnelInfo { peers: ask(&device, probe), port: info }))
                .collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
        }))
    }
}

fn ask(device: &Arc<dyn Port>, probe: Option<Duration>) -> Vec<(TunnelPeer, Option<Duration>)> {
    let peers = device.peers();
    let Some(timeout) = probe else { return peers.into_iter().map(|peer| (peer, None)).collect() };
    let remotes: Vec<IpAddr> = peers.iter().filter_map(|peer| peer.remote).collect();
    let mut times = device.probe(&remotes, timeout).into_iter();
    let mut time = |peer: &TunnelPeer| peer.remote.and_then(|_| times.next().flatten());
    peers.into_iter().map(|peer| (time(&peer), peer)).map(|(rtt, peer)| (peer, rtt)).collect()
}
