//! Endpoints: the sockets by which several tunnel ports receive and send.

use super::TunnelOptions;
use super::answers::Answers;
use super::demux::Table;
use super::namespace::Namespace;
use super::paths::Probes;
use super::peers::{peer, probe};
use super::receive::ReceiveQueue;
use super::senders::{Senders, protocol};
use super::sys::{Family, Socket};
use super::transmit::TransmitQueue;
use crate::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue, RxLoss, TunnelPeer};
use arc_swap::ArcSwap;
use sluice_flows::DpPort;
use sluice_flows::tunnel::{Part, TlvMap, Tunnel, TunnelKind};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a receiving socket's buffer: a hundred 64 KiB datagrams.
const RECEIVE_SIZE: i32 = 8 << 20;
/// The least that a send buffer is asked for; receiving sockets send nothing.
const NO_SIZE: i32 = 0;

/// Which tunnel ports share an endpoint: those of one kind and UDP port in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    /// The namespace's inode.
    pub namespace: u64,
    /// The encapsulation.
    pub kind: TunnelKind,
    /// The UDP port; 0 for what is not in UDP.
    pub port: u16,
}

/// A tunnel port that was asked for, before it has an endpoint.
#[derive(Debug)]
pub struct TunnelPort {
    name: String,
    options: TunnelOptions,
    namespace: Namespace,
}

impl TunnelPort {
    /// A tunnel port in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::Io`] when the namespace cannot be told.
    pub fn new(name: &str, options: TunnelOptions) -> Result<Self, PortError> {
        let namespace =
            Namespace::current().map_err(|e| PortError::from_io(name, "tell the thread's network namespace", e))?;
        Ok(Self { name: name.to_owned(), options, namespace })
    }

    /// The endpoint that it needs.
    pub fn endpoint(&self) -> EndpointId {
        let port = self.options.port.unwrap_or(0);
        EndpointId { namespace: self.namespace.inode(), kind: self.options.kind, port }
    }

    /// Makes it the port `dp` of the switch, one of those that share `endpoint`.
    ///
    /// # Errors
    /// [`PortError::TunnelTaken`] when another port of the endpoint takes the same packets, and the system's when the
    /// sockets to send by cannot be opened.
    pub fn attach(self, endpoint: &Arc<Endpoint>, dp: DpPort) -> Result<TunnelDevice, PortError> {
        let Self { name, options, namespace } = self;
        let core = Arc::clone(&endpoint.core);
        let name = name.as_str();
        let failed = |op| move |e| PortError::from_io(name, op, e);
        core.senders.open(&namespace, &options).map_err(failed("open the tunnel's sending sockets"))?;
        let probe = match options.remote {
            Part::Fixed(remote) => {
                let open = || namespace.run(|| Socket::udp(Family::of(remote)));
                Some(Mutex::new(open().map_err(failed("open a socket to ask for routes"))?))
            }
            Part::Flow => None,
        };
        core.change(|table| table.add(name, &options, dp))
            .map_err(|other| PortError::TunnelTaken { port: name.to_owned(), other })?;
        let device = Device::without_link(name, None, u32::from(u16::MAX));
        Ok(TunnelDevice { device, options, namespace, core, dp, probe })
    }
}

/// What ports, workers and control side share of an endpoint.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) kind: TunnelKind,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) tlvs: ArcSwap<TlvMap>,
    pub(crate) senders: Senders,
    /// Per worker, what tunnel ports answer packets with that they cannot send.
    pub(crate) answers: Vec<Arc<Answers>>,
    /// Per worker, the sockets that it asks for path MTUs by.
    probes: Vec<Probes>,
    /// Per worker, the sockets that it receives by.
    pub(crate) receivers: Vec<Vec<Arc<Socket>>>,
    changing: Mutex<()>,
}

impl Core {
    /// What a worker asks for path MTUs by.
    pub(crate) fn probes(&self, worker: usize) -> &Probes {
        // There is at least one worker.
        &self.probes[worker % self.probes.len()]
    }

    /// Changes the table of ports; workers see it with their next burst.
    fn change<E>(&self, change: impl FnOnce(&mut Table) -> Result<(), E>) -> Result<(), E> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        change(&mut table)?;
        self.table.store(Arc::new(table));
        Ok(())
    }
}

/// The sockets by which several tunnel ports receive and send.
#[derive(Debug)]
pub struct Endpoint {
    core: Arc<Core>,
}

impl Endpoint {
    /// Opens the sockets that `port` needs, for `workers` workers.
    ///
    /// # Errors
    /// [`PortError::NoPrivilege`] for kinds that are not in UDP, and the system's.
    pub fn open(port: &TunnelPort, workers: usize) -> Result<Self, PortError> {
        let TunnelPort { name, options, namespace } = port;
        let kind = options.kind;
        let workers = workers.max(1);
        let probes = || (0..workers).map(|_| Probes::open()).collect();
        let (receivers, probes) = namespace
            .run(|| Ok((receivers(kind, options.port.unwrap_or(0), workers)?, probes())))
            .map_err(|e| PortError::from_io(name, "open the tunnel's receiving sockets", e))?;
        let answers = (0..workers).map(|_| Answers::new().map(Arc::new)).collect::<io::Result<_>>();
        let core = Core {
            kind,
            table: ArcSwap::default(),
            tlvs: ArcSwap::default(),
            senders: Senders::new(kind, workers),
            answers: answers.map_err(|e| PortError::from_io(name, "make an eventfd", e))?,
            probes,
            receivers,
            changing: Mutex::default(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// One receiving queue for each worker.
    ///
    /// # Errors
    /// The system's.
    pub fn queues(&self) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let failed = |e| PortError::from_io(self.core.kind.name(), "watch the tunnel's sockets", e);
        let queue = |worker| {
            let queue = ReceiveQueue::new(Arc::clone(&self.core), worker);
            Ok(Box::new(queue.map_err(failed)?) as Box<dyn PortQueue>)
        };
        (0..self.core.receivers.len()).map(queue).collect()
    }

    /// Says which Geneve option each `tun_metadata` is.
    pub fn set_tlv_map(&self, map: TlvMap) {
        self.core.tlvs.store(Arc::new(map));
    }

    /// Whether no port uses it any more.
    pub fn is_unused(&self) -> bool {
        self.core.table.load().is_empty()
    }
}

/// The receiving sockets of each worker.
fn receivers(kind: TunnelKind, port: u16, workers: usize) -> io::Result<Vec<Vec<Arc<Socket>>>> {
    let mut all = vec![Vec::new(); workers];
    let mut last = None;
    for family in Family::BOTH {
        match family_receivers(kind, family, port, workers) {
            Ok(sockets) => all.iter_mut().zip(sockets).for_each(|(all, socket)| all.push(Arc::new(socket))),
            // A host may do without one of the two.
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    match last {
        Some(e) if all.first().is_none_or(Vec::is_empty) => Err(e),
        _ => Ok(all),
    }
}

fn family_receivers(kind: TunnelKind, family: Family, port: u16, workers: usize) -> io::Result<Vec<Socket>> {
    if let Some(protocol) = protocol(kind) {
        // Each raw socket gets every packet, so there can be but one.
        let socket = Socket::raw(family, protocol)?;
        set_up(&socket, family)?;
        return Ok(vec![socket]);
    }
    if workers > 1 {
        // The kernel spreads flows over sockets that share a port, those of another program too. Without sharing, the
        // port is free or it is not.
        Socket::udp(family)?.bind(family, port)?;
    }
    (0..workers)
        .map(|_| {
            let socket = Socket::udp(family)?;
            if workers > 1 {
                socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            }
            set_up(&socket, family)?;
            // Linux before 5.0 does not join datagrams.
            _ = socket.set(libc::SOL_UDP, libc::UDP_GRO, 1);
            if family == Family::V6 {
                socket.set(libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
            }
            socket.bind(family, port)?;
            Ok(socket)
        })
        .collect()
}

/// Has the kernel tell the addresses, TOS and TTL of each message.
fn set_up(socket: &Socket, family: Family) -> io::Result<()> {
    let (level, options) = match family {
        Family::V4 => (libc::IPPROTO_IP, [libc::IP_PKTINFO, libc::IP_RECVTOS, libc::IP_RECVTTL]),
        Family::V6 => (libc::IPPROTO_IPV6, [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS, libc::IPV6_RECVHOPLIMIT]),
    };
    for option in options {
        socket.set(level, option, 1)?;
    }
    socket.set_buffer_sizes(RECEIVE_SIZE, NO_SIZE)
}

/// A tunnel port of the switch.
#[derive(Debug)]
pub struct TunnelDevice {
    device: Device,
    options: TunnelOptions,
    namespace: Namespace,
    core: Arc<Core>,
    dp: DpPort,
    /// Asks whether there is a route to the other end, where that is fixed.
    probe: Option<Mutex<Socket>>,
}

impl TunnelDevice {
    /// The address of ours that the port says, if it says one.
    fn local(&self) -> Option<IpAddr> {
        match self.options.local {
            Part::Fixed(local) if !local.is_unspecified() => Some(local),
            _ => None,
        }
    }
}

impl Port for TunnelDevice {
    fn kind(&self) -> PortKind {
        PortKind::Tunnel(self.options.kind)
    }

    fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a route to the other end; a port for all peers is always up.
    fn link_up(&self) -> bool {
        let (Part::Fixed(remote), Some(probe)) = (self.options.remote, &self.probe) else { return true };
        let probe = probe.lock().unwrap_or_else(PoisonError::into_inner);
        probe.path_mtu(remote, self.local()).is_ok()
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn tunnel(&self) -> Option<Arc<Tunnel>> {
        Some(Arc::new(self.options.tunnel()))
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        self.options.options()
    }

    fn peers(&self, seen: &[IpAddr]) -> Vec<TunnelPeer> {
        let remotes = if let Part::Fixed(remote) = &self.options.remote { std::slice::from_ref(remote) } else { seen };
        remotes.iter().map(|remote| peer(&self.namespace, *remote, self.local())).collect()
    }

    fn probe(&self, remotes: &[IpAddr], timeout: Duration) -> Vec<Option<Duration>> {
        probe(&self.namespace, remotes, timeout).unwrap_or_else(|_| vec![None; remotes.len()])
    }

    fn rx_loss(&self) -> RxLoss {
        let sockets = self.core.receivers.iter().flatten();
        RxLoss { queue_full: sockets.map(|socket| socket.drops()).sum(), invalid: 0 }
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = |worker| {
            let mtu = self.device.shared_mtu();
            let queue = TransmitQueue::new(Arc::clone(&self.core), self.options.clone(), self.dp, worker, mtu);
            Box::new(queue) as Box<dyn PortQueue>
        };
        Ok((0..count).map(queue).collect())
    }
}

impl Drop for TunnelDevice {
    fn drop(&mut self) {
        let removed: Result<(), ()> = self.core.change(|table| {
            table.remove(&self.options);
            Ok(())
        });
        // Taking one out cannot fail.
        _ = removed;
    }
}
