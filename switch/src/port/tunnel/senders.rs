//! The sockets that tunnel ports send by, shared by all ports and workers of an endpoint.
//!
//! A UDP socket's port is the source port of what it sends, and routers on the way choose paths by that. So there are
//! several, each with a port of its own, and a packet's flow chooses among them. They receive nothing.
//!
//! Whether an outer packet has a checksum and whether it may be fragmented are properties of a socket, too: there is a
//! pool for each combination that a port needs, opened with the port.

use super::TunnelOptions;
use super::namespace::Namespace;
use super::sys::{Family, Socket};
use sluice_flows::packet::tunnel::entropy;
use sluice_flows::tunnel::{Part, TunnelKind};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;

/// Sockets of a UDP pool: source ports that flows are spread over.
const PORTS: usize = 32;
/// The source ports: those that no service has (RFC 6335, as RFC 7348 asks for).
const LOW_PORT: u16 = 49152;
/// Ports tried for one socket, before the choice is left to the kernel.
const TRIES: u64 = 64;
/// Bytes that a socket's send buffer takes: a hundred 64 KiB datagrams.
const SEND_SIZE: i32 = 8 << 20;
/// The kernel makes the smallest buffer of it that there is.
const NO_SIZE: i32 = 0;

/// What the packets of a pool's sockets are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) family: Family,
    /// UDP checksums.
    pub(crate) csum: bool,
    /// "Do not fragment".
    pub(crate) df: bool,
}

impl Outside {
    fn index(self) -> usize {
        usize::from(self.family == Family::V6) * 4 + usize::from(self.csum) * 2 + usize::from(self.df)
    }
}

/// Sockets of one kind of packets; those that are open come first.
#[derive(Debug)]
struct Pool(Box<[OnceLock<Socket>]>);

/// Every pool of an endpoint.
#[derive(Debug)]
pub(crate) struct Senders {
    kind: TunnelKind,
    pools: [Pool; 8],
    /// Sockets of a full pool.
    full: usize,
}

impl Senders {
    pub(crate) fn new(kind: TunnelKind, workers: usize) -> Self {
        // Raw sockets have no ports. Each worker has its own, because they have a lock.
        let full = if kind.default_port().is_some() { PORTS } else { workers.max(1) };
        let pool = || Pool((0..full).map(|_| OnceLock::new()).collect());
        Self { kind, pools: std::array::from_fn(|_| pool()), full }
    }

    /// Opens what a port with these options sends by.
    pub(crate) fn open(&self, namespace: &Namespace, options: &TunnelOptions) -> io::Result<()> {
        let csum = options.csum.unwrap_or(true) || self.kind.default_port().is_none();
        for family in Family::BOTH {
            let required = match options.remote {
                Part::Fixed(remote) if Family::of(remote) == family => true,
                Part::Fixed(_) => continue,
                Part::Flow => false,
            };
            // What may be fragmented although the port says otherwise needs no choice of source ports.
            let few = if options.df { 1 } else { self.full };
            let wanted = [(Outside { family, csum, df: false }, few), (Outside { family, csum, df: true }, self.full)];
            let opened = wanted
                .into_iter()
                .filter(|(outside, _)| options.df || !outside.df)
                .try_for_each(|(outside, count)| self.fill(namespace, outside, count));
            match opened {
                Err(e) if required => return Err(e),
                // A host without this family has nobody to send to in it.
                _ => {}
            }
        }
        Ok(())
    }

    fn fill(&self, namespace: &Namespace, outside: Outside, count: usize) -> io::Result<()> {
        let missing: Vec<_> =
            self.pools[outside.index()].0.iter().take(count).filter(|slot| slot.get().is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        namespace.run(|| {
            for slot in missing {
                // If another port was faster, its socket serves as well.
                _ = slot.set(self.socket(outside)?);
            }
            Ok(())
        })
    }

    fn socket(&self, outside: Outside) -> io::Result<Socket> {
        let Outside { family, csum, df } = outside;
        let v4 = family == Family::V4;
        let socket = match protocol(self.kind) {
            Some(protocol) => Socket::raw(family, protocol)?,
            None => Socket::udp(family)?,
        };
        socket.deafen()?;
        socket.set_buffer_sizes(NO_SIZE, SEND_SIZE)?;
        let (level, option, value) = match (v4, df) {
            (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
            (false, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
            (false, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
        };
        socket.set(level, option, value)?;
        if protocol(self.kind).is_none() {
            if !csum && v4 {
                socket.set(libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
            } else if !csum {
                socket.set(libc::SOL_UDP, libc::UDP_NO_CHECK6_TX, 1)?;
            }
            bind_somewhere(&socket, family)?;
        }
        Ok(socket)
    }

    /// The socket for a packet with this flow hash from this worker; `None` when the host does not speak the family.
    pub(crate) fn get(&self, outside: Outside, hash: u32, worker: usize) -> Option<&Socket> {
        let Pool(sockets) = &self.pools[outside.index()];
        let slot = match protocol(self.kind) {
            Some(_) => worker,
            None => entropy::port(hash, 0, (self.full - 1) as u16).into(),
        };
        sockets.get(slot).and_then(OnceLock::get).or_else(|| sockets.first().and_then(OnceLock::get))
    }
}

/// The IP protocol of a kind that is not in UDP.
pub(crate) fn protocol(kind: TunnelKind) -> Option<u8> {
    match kind {
        TunnelKind::Gre => Some(47),
        TunnelKind::Ipip => Some(4),
        TunnelKind::Sit => Some(41),
        TunnelKind::Vxlan | TunnelKind::Geneve | TunnelKind::BareUdp | TunnelKind::Wireguard => None,
    }
}

/// Binds to a port of the range that is free.
fn bind_somewhere(socket: &Socket, family: Family) -> io::Result<()> {
    let random = RandomState::new();
    for n in 0..TRIES {
        let port = entropy::port(random.hash_one(n) as u32, LOW_PORT, u16::MAX);
        match socket.bind(family, port) {
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => {}
            done => return done,
        }
    }
    socket.bind(family, 0)
}
