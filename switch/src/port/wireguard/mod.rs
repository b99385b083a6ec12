//! WireGuard ports: IP packets to and from other switches, encrypted, in UDP.
//!
//! The protocol is that of <https://www.wireguard.com/papers/wireguard.pdf> and is done in user space by the boringtun
//! crate, so it works where the kernel has no wireguard module, and talks to any other implementation. Here is what is
//! around it: sockets, peers by allowed IPs, super-frames, keys that change.
//!
//! # Design
//! - A port like any other, with UDP sockets of its own: one for each worker, all on one UDP port (`SO_REUSEPORT`). The
//!   kernel spreads peers over the workers by their addresses, so what one peer sends is decrypted by one worker.
//! - Packets are layer 3: an Ethernet header of zeros is put in front towards the pipeline and taken off on the way out.
//! - On the way out the peer is the one that `tun_dst` names (its address, or one behind it), else the one with the
//!   longest allowed IP that the destination is in. On the way in the source has to be behind the peer that sent it.
//!   `tun_src` is the peer's address and `tun_id` its number in the port.
//! - A super-frame is cut here, each segment encrypted where it is to be sent from, and the lot leaves by one system call
//!   (`UDP_SEGMENT`): they are equally long. What comes is received by one call for many datagrams (`UDP_GRO`) and
//!   decrypted straight into the worker's frames.
//! - Each peer has a lock, taken once for a frame. The sessions count packets both ways and the library wants them to
//!   itself; 20 ns beside the microsecond of the cryptography is nothing, and two workers meet at one peer only when one
//!   sends to it and the other hears from it.
//! - Handshakes, keepalives and the end of old keys are kept by a thread that looks at all peers four times a second.
//!   No worker wakes for them.
//!
//! # Guards
//! Handshakes past a hundred a second are answered with a cookie, before anything dear is done. Messages that are not
//! authentic, or were here before, are dropped as `checksum`; those of no session as `tunnel_down`; packets from
//! addresses that are not behind their peer as `spoof_guard`. Packets wait for a first handshake, 256 for each peer.
//!
//! # Limits
//! - The replay window is 1024 packets, the library's.
//! - One peer's packets are encrypted by one core at a time.
//! - An endpoint's name is looked up when the options are read, not again.
//! - Replies leave by the address that the host's routes choose, not by the one that was asked.

mod allowed;
mod identity;
mod key;
mod options;
mod peer;
mod queue;
mod sys;
mod table;
mod train;

pub use key::{KEY_LEN, PublicKey, SecretKey};
use options::HIDDEN;
pub(crate) use options::option_names;
pub use options::{DEFAULT_MTU, KeySource, MAX_PEERS, PeerOptions, WireguardOptions};

use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, PortSpec, SpecError, TunnelPeer};
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use sluice_flows::DpPort;
use sluice_flows::tunnel::{Byte, Part, Tunnel, TunnelKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use sys::UdpSocket;
use table::{Numbers, Resolved, Table};

/// Time between two looks at the peers' timers.
const TICK: Duration = Duration::from_millis(250);

/// A WireGuard port.
pub struct WireguardPort {
    device: Device,
    shared: Arc<Shared>,
    sockets: Vec<Arc<UdpSocket>>,
    made: Mutex<Made>,
    /// Its end is the end of the timers' thread.
    stop: Option<Sender<()>>,
    timers: Option<JoinHandle<()>>,
}

/// What the table was made of.
struct Made {
    options: WireguardOptions,
    numbers: Numbers,
}

/// What queues and timers share.
struct Shared {
    table: Arc<ArcSwap<Table>>,
    /// The port's number in the switch.
    number: AtomicU32,
}

/// How a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name in the options.
    pub name: Arc<str>,
    /// Its number: `tun_id` of what comes from it.
    pub number: u32,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it is, as far as known.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last handshake; `None` when there is no session.
    pub handshake_age: Option<Duration>,
    /// Bytes of packets received from it.
    pub rx_bytes: u64,
    /// Bytes of packets sent to it, padding included.
    pub tx_bytes: u64,
}

impl WireguardPort {
    /// Opens the port `name` for `workers` workers, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::File`] for a key that cannot be read, [`PortError::Option`] for an endpoint that cannot be found,
    /// [`PortError::Io`] when the UDP port is taken.
    pub fn open(name: &str, options: &WireguardOptions, workers: usize) -> Result<Self, PortError> {
        let resolved = Resolved::load(name, options)?;
        let sockets = bind(options.listen_port, workers.max(1))
            .map_err(|e| PortError::from_io(name, "take the UDP port to listen on", e))?;
        let mut numbers = Numbers::default();
        let table = Table::build(options, &resolved, None, &mut numbers, Instant::now());
        let table = Arc::new(ArcSwap::from_pointee(table));
        let (stop, stopped) = bounded(0);
        let socket = Arc::clone(&sockets[0]);
        let peers = Arc::clone(&table);
        let timers = std::thread::Builder::new()
            .name("sluice-wg".to_owned())
            .spawn(move || keep_time(&peers, &socket, &stopped))
            .map_err(|e| PortError::from_io(name, "start the timers", e))?;
        Ok(Self {
            device: Device::without_link(name, None, options.mtu),
            shared: Arc::new(Shared { table, number: AtomicU32::new(u32::MAX) }),
            sockets,
            made: Mutex::new(Made { options: options.clone(), numbers }),
            stop: Some(stop),
            timers: Some(timers),
        })
    }

    /// Has the port be as `options` say, while traffic flows. Files with keys are read anew. Peers that stay keep their
    /// sessions; where a key has changed, the old session goes on until the new one is made.
    ///
    /// # Errors
    /// As [`Self::open`], and [`PortError::Option`] for another `listen_port`. Nothing has changed then.
    pub fn change(&self, options: &WireguardOptions) -> Result<(), PortError> {
        let resolved = Resolved::load(self.name(), options)?;
        let mut made = self.made();
        if made.options.listen_port != options.listen_port {
            let why = "cannot change while the port is there; remove the port and add it again";
            let why = SpecError::BadOption { option: "listen_port".to_owned(), why: why.into() };
            return Err(PortError::Option { port: self.name().to_owned(), why });
        }
        if made.options.mtu != options.mtu {
            self.set_mtu(options.mtu)?;
        }
        let Made { options: before, numbers } = &mut *made;
        let old = self.shared.table.load_full();
        let table = Table::build(options, &resolved, Some((&old, before)), numbers, Instant::now());
        self.shared.table.store(Arc::new(table));
        *before = options.clone();
        Ok(())
    }

    /// The options that it has, secrets included.
    pub fn wanted(&self) -> WireguardOptions {
        self.made().options.clone()
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The public key of this end.
    pub fn public_key(&self) -> PublicKey {
        self.shared.table.load().identities[0].public()
    }

    /// How the peers are, by name.
    pub fn status(&self) -> Vec<PeerStatus> {
        let table = self.shared.table.load();
        let status = |peer: &Arc<peer::Peer>| {
            let state = peer.lock();
            PeerStatus {
                name: Arc::clone(&peer.name),
                number: peer.number,
                public_key: state.public_key(),
                endpoint: state.endpoint,
                handshake_age: state.handshake_age(),
                rx_bytes: state.rx_bytes,
                tx_bytes: state.tx_bytes,
            }
        };
        table.peers.iter().map(status).collect()
    }
}

impl Port for WireguardPort {
    fn kind(&self) -> PortKind {
        PortKind::Tunnel(TunnelKind::Wireguard)
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn tunnel(&self) -> Option<Arc<Tunnel>> {
        Some(Arc::new(Tunnel {
            kind: TunnelKind::Wireguard,
            layer3: true,
            remote: Part::Flow,
            local: Part::Fixed(Ipv4Addr::UNSPECIFIED.into()),
            out_key: Part::Fixed(None),
            tos: Byte::Fixed(0),
            ttl: Byte::Fixed(0),
        }))
    }

    fn peers(&self, _seen: &[std::net::IpAddr]) -> Vec<TunnelPeer> {
        let peer = |status: PeerStatus| TunnelPeer {
            remote: status.endpoint.map(|endpoint| endpoint.ip()),
            up: status.handshake_age.is_some(),
            name: Some(status.public_key.to_string()),
            ..TunnelPeer::default()
        };
        self.status().into_iter().map(peer).collect()
    }

    fn joined(&self, number: DpPort) {
        self.shared.number.store(number.0, Ordering::Relaxed);
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let (port, key) = (self.made().options.listen_port, self.public_key());
        vec![("listen_port", port.to_string()), ("public_key", key.to_string())]
    }

    fn set_options(&self, changes: &[(String, String)]) -> Result<(), PortError> {
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let options =
            self.wanted().changed(changes).map_err(|why| PortError::Option { port: self.name().to_owned(), why })?;
        self.change(&options)
    }

    fn set_spec(&self, spec: &PortSpec) -> Result<bool, PortError> {
        match spec {
            PortSpec::Wireguard(options) if options.listen_port == self.made().options.listen_port => {
                self.change(options).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let sockets = self.sockets.iter().cycle().take(count);
        let queue = |socket| queue::Queue::new(&self.shared, socket, self.device.shared_mtu());
        Ok(sockets.map(|socket| Box::new(queue(socket)) as Box<dyn PortQueue>).collect())
    }
}

impl Drop for WireguardPort {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(timers) = self.timers.take() {
            // A panic there has been told, and there is nothing left to do.
            _ = timers.join();
        }
    }
}

/// The sockets of `count` workers. The first does not share until it has the port, so that no two WireGuard ports take
/// each other's datagrams.
fn bind(port: u16, count: usize) -> std::io::Result<Vec<Arc<UdpSocket>>> {
    let first = UdpSocket::bind(port, false)?;
    if count > 1 {
        first.share()?;
    }
    let mut sockets = vec![Arc::new(first)];
    for _ in 1..count {
        sockets.push(Arc::new(UdpSocket::bind(port, true)?));
    }
    Ok(sockets)
}

/// Keeps the peers' timers until the port is gone.
fn keep_time(table: &ArcSwap<Table>, socket: &UdpSocket, stopped: &Receiver<()>) {
    let mut out = [0; peer::HANDSHAKE_ROOM];
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        let (table, now) = (table.load_full(), Instant::now());
        for identity in &table.identities {
            identity.limiter.reset_count();
        }
        for peer in &table.peers {
            peer.lock().tick(now, &mut out, |message, to| {
                // What does not leave is sent again in time.
                _ = socket.send(message, None, 0, to);
            });
        }
    }
}

#[cfg(test)]
mod tests;
