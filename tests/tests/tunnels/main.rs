//! Tunnel ports on the sockets of a network namespace of their own; where that cannot be made, the cases say that they
//! are skipped.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod hostile;
mod linux;
mod ovs;
mod traffic;
mod underlay;

use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_flows::tunnel::{Part, TlvMap, TunnelKey, TunnelKind};
use sluice_flows::{DpPort, DropReason};
use sluice_switch::port::{Endpoint, Port, PortQueue, TunnelOptions, TunnelPort};
use sluice_tests::netns::Netns;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Tunnel ports of one endpoint, with one worker's queue.
struct Receiving {
    netns: Netns,
    queue: Box<dyn PortQueue>,
    _devices: Vec<Box<dyn Port>>,
    frames: Vec<Frame>,
    /// Everything that came in.
    seen: Vec<Seen>,
    /// Everything that was dropped.
    dropped: BTreeMap<DropReason, u32>,
}

/// A frame that came in by a tunnel port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    port: u32,
    key: TunnelKey,
    bytes: Vec<u8>,
}

impl Receiving {
    /// Ports of this kind, given as number, other end (`None` for any) and key.
    fn new(kind: TunnelKind, ports: &[(u32, Option<&str>, u64)]) -> Self {
        let netns = Netns::new().unwrap();
        let (queue, devices) = netns.run(|| {
            let mut endpoint = None;
            let mut devices: Vec<Box<dyn Port>> = Vec::new();
            for (no, remote, key) in ports {
                let remote = remote.map_or(Part::Flow, |remote| Part::Fixed(remote.parse().unwrap()));
                let mut options = TunnelOptions::new(kind, remote);
                options.in_key = Part::Fixed(Some(*key));
                let port = TunnelPort::new(&format!("t{no}"), options).unwrap();
                let endpoint = endpoint.get_or_insert_with(|| Arc::new(Endpoint::open(&port, 1).unwrap()));
                devices.push(Box::new(port.attach(endpoint, DpPort(*no)).unwrap()));
            }
            let endpoint = endpoint.unwrap();
            endpoint.set_tlv_map(TlvMap::default());
            (endpoint.queues().unwrap().remove(0), devices)
        });
        let frames = (0..32).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
        Self { netns, queue, _devices: devices, frames, seen: Vec::new(), dropped: BTreeMap::new() }
    }

    /// A peer with this address, which sends to `port` of this host.
    fn peer(&self, address: &str, port: u16) -> UdpSocket {
        let address: IpAddr = address.parse().unwrap();
        self.netns.run(|| {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.connect(("127.0.0.1", port)).unwrap();
            socket
        })
    }

    /// Waits a bounded time until frames and drops make `total` in all, and for what should not come behind them.
    fn wait_for(&mut self, total: usize) {
        for _ in 0..2000 {
            self.receive();
            if self.total() >= total {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.receive();
        assert_eq!(self.total(), total, "{:?}, dropped {:?}", self.seen, self.dropped);
    }

    fn total(&self) -> usize {
        self.seen.len() + self.dropped.values().map(|count| *count as usize).sum::<usize>()
    }

    /// Takes in what is there, a bounded number of bursts of it.
    fn receive(&mut self) {
        for _ in 0..1000 {
            let count = self.queue.rx_burst(&mut self.frames).unwrap();
            for frame in &self.frames[..count] {
                let (port, key) = (self.queue.ingress().unwrap().0, frame.tunnel.unwrap());
                self.seen.push(Seen { port, key, bytes: frame.bytes().to_vec() });
            }
            let mut dropped = false;
            while let Some((_, reason, count)) = self.queue.rx_dropped() {
                *self.dropped.entry(reason).or_default() += count;
                dropped = true;
            }
            if count == 0 && !dropped {
                break;
            }
        }
    }

    /// How many were dropped for this reason.
    fn dropped(&self, reason: DropReason) -> u32 {
        self.dropped.get(&reason).copied().unwrap_or_default()
    }
}
