//! Ports: where frames come in and go out.
//!
//! # Two sides
//! A [`Port`] is what the control side holds: it opens the device once, answers questions about it and hands out
//! queues. A [`PortQueue`] is what one worker holds: bursts in, bursts out, nothing else. A worker touches only its own
//! queues, so no queue has a lock.
//!
//! # Rules
//! - `rx_burst` fills frames that the worker allocated once; `tx_burst` borrows frames, so that a frame flooded to N
//!   ports is sent N times and copied never. Neither allocates, except in kinds made for tests.
//! - [`Offload`](sluice_flows::packet::Offload) travels with the frame both ways. An output that cannot take a
//!   super-frame or a partial checksum cuts and fills in software, in its own scratch frame.
//! - `tx_burst` says of every frame whether it left; the worker counts each frame once, but for those that wait for a
//!   limited rate, which their queue counts when they leave.
//! - A device closes when its `Port` and all the queues it gave are dropped.
//!
//! # Limits
//! What a device does behind our back (renamed, moved to another namespace, a new MTU) is noticed when the control side
//! asks ([`Port::mtu`], [`Port::link_up`]), not by the queue.

mod af_packet;
mod af_xdp;
mod alarm;
mod coalesce;
mod device;
mod error;
mod finish;
mod fit;
mod line;
pub mod link;
mod mem;
mod null;
mod pace;
mod pcap;
mod recording;
mod shape;
mod spec;
mod sys;
mod tap;
mod tap_plain;
mod tunnel;
mod vnet;
mod wire;
pub mod wireguard;

pub use af_packet::{AfPacket, AfPacketOptions};
pub use af_xdp::{AfXdp, AfXdpOptions, XdpMode};
pub use device::Device;
pub use error::PortError;
pub use mem::{MemHandle, MemOptions, MemPort};
pub use null::NullPort;
pub use pcap::{PcapOptions, PcapPort};
pub use recording::Recording;
pub use shape::{Limits, Rate, parse_bits, show_bits};
pub(crate) use shape::{Shaped, Shaper, Shaping, is_limit};
pub use spec::{PortDevice, PortSpec, SpecError};
pub use tap::{Tap, TapOptions};
pub use tap_plain::TapPlain;
pub use tunnel::{Endpoint, EndpointId, TunnelDevice, TunnelOptions, TunnelPort};
pub use wire::{Percent, Queue, Wire, WireCounts, WireOptions, WireQueue, WireSettings, parse_time, show_time};
pub use wireguard::{WireguardOptions, WireguardPort};

use sluice_flows::packet::Frame;
use sluice_flows::tunnel::{Tunnel, TunnelKind};
use sluice_flows::{DpPort, DropReason};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// What a port is made of; `type` in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// A TAP with vnet header, offloads and one queue per worker.
    Tap,
    /// A TAP without vnet header, one queue.
    TapPlain,
    /// A packet socket on an existing interface.
    AfPacket,
    /// AF_XDP sockets on an existing interface.
    AfXdp,
    /// Two rings in memory.
    Memory,
    /// A capture file replayed, and one written.
    Pcap,
    /// Receives nothing, discards what is sent.
    Null,
    /// One end of a pair between two bridges; crossed in translation, so no frame is ever sent to it.
    Patch,
    /// The bridge's own interface: a TAP named like the bridge.
    Local,
    /// A tunnel to other hosts.
    Tunnel(TunnelKind),
    /// One end of a pair between two bridges, which frames cross with a delay, losses or a rate.
    Wire,
}

impl PortKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Tap,
        Self::TapPlain,
        Self::AfPacket,
        Self::AfXdp,
        Self::Memory,
        Self::Pcap,
        Self::Null,
        Self::Patch,
        Self::Local,
        Self::Tunnel(TunnelKind::Vxlan),
        Self::Tunnel(TunnelKind::Geneve),
        Self::Tunnel(TunnelKind::Gre),
        Self::Tunnel(TunnelKind::Ipip),
        Self::Tunnel(TunnelKind::Sit),
        Self::Tunnel(TunnelKind::BareUdp),
        Self::Tunnel(TunnelKind::Wireguard),
        Self::Wire,
    ];

    /// The name that configurations and outputs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::TapPlain => "tap-plain",
            Self::AfPacket => "af-packet",
            Self::AfXdp => "af-xdp",
            Self::Memory => "memory",
            Self::Pcap => "pcap",
            Self::Null => "null",
            Self::Patch => "patch",
            Self::Local => "local",
            Self::Tunnel(kind) => kind.name(),
            Self::Wire => "wire",
        }
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.name() == name)
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an output takes without help from software.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCaps {
    /// Partial checksums.
    pub csum: bool,
    /// TCP super-frames, IPv4 and IPv6.
    pub tso: bool,
    /// UDP super-frames.
    pub uso: bool,
}

impl PortCaps {
    /// Everything is taken as it is.
    pub const ALL: Self = Self { csum: true, tso: true, uso: true };
    /// Only finished frames are taken.
    pub const NONE: Self = Self { csum: false, tso: false, uso: false };
}

/// What went wrong on the way in, before a worker saw it. Totals since the port was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxLoss {
    /// Frames that the kernel dropped because our queue was full.
    pub queue_full: u64,
    /// Frames that did not fit their buffer, or that the kernel had no form for.
    pub invalid: u64,
}

/// What became of one frame given to [`PortQueue::tx_burst`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// It left, whole or in segments.
    Sent,
    /// It waits in a queue of the switch's, which counts it when it leaves.
    Held,
    /// It, or at least one of its segments, did not leave.
    Dropped(DropReason),
}

/// Another end of a tunnel port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Its address, if it is known.
    pub remote: Option<IpAddr>,
    /// Our address, as the host's routes have it.
    pub local: Option<IpAddr>,
    /// Longest IP packet in bytes that the way there carries; `None` without a route.
    pub path_mtu: Option<u32>,
    /// There is a route and, if it is encrypted, a session.
    pub up: bool,
    /// Its name, if it has one: its public key.
    pub name: Option<String>,
}

/// A port as the control side sees it: opened once, gives one queue to each worker, closes on drop.
pub trait Port: Send + Sync {
    /// What it is made of.
    fn kind(&self) -> PortKind;

    /// Its name, its MTU and its interface, which answer the questions below.
    fn device(&self) -> &Device;

    /// The device's name, or the name given to a port without a device.
    fn name(&self) -> &str {
        self.device().name()
    }

    /// The device's hardware address, if it has one.
    fn mac(&self) -> Option<[u8; 6]> {
        self.device().mac()
    }

    /// Longest network-layer packet it sends, in bytes, as the device says now; its queues use the answer from then on.
    fn mtu(&self) -> u32 {
        self.device().mtu()
    }

    /// Sets the MTU, of the device too if there is one.
    ///
    /// # Errors
    /// [`PortError::Mtu`] when the value is out of the device's range.
    fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        self.device().set_mtu(mtu)
    }

    /// Whether the device is up and has a carrier. Asks the device.
    fn link_up(&self) -> bool {
        self.device().link_up()
    }

    /// What the port takes without help from software.
    fn caps(&self) -> PortCaps;

    /// What flows decide of its outer headers, for a tunnel port.
    fn tunnel(&self) -> Option<Arc<Tunnel>> {
        None
    }

    /// The other ends that a tunnel port leads to: those that it is configured with or, where flows say where to, those
    /// that packets were `seen` to come from and go to.
    fn peers(&self, _seen: &[IpAddr]) -> Vec<TunnelPeer> {
        Vec::new()
    }

    /// Asks other ends of a tunnel for an ICMP echo, and says how long each took. `None` stands for those that did not
    /// answer within `timeout`.
    fn probe(&self, remotes: &[IpAddr], _timeout: Duration) -> Vec<Option<Duration>> {
        vec![None; remotes.len()]
    }

    /// Frames lost before a worker saw them.
    fn rx_loss(&self) -> RxLoss {
        RxLoss::default()
    }

    /// Tells it its number in the switch, before it is asked for queues.
    fn joined(&self, _number: DpPort) {}

    /// Becomes what `spec` says while frames flow. Whether it could: if not, it is to be removed and added anew.
    ///
    /// # Errors
    /// What is wrong with the options. Nothing has changed then.
    fn set_spec(&self, _spec: &PortSpec) -> Result<bool, PortError> {
        Ok(false)
    }

    /// The end of a wire that it is, if it is one: the control side joins it with the other end.
    fn wire(&self) -> Option<&Wire> {
        None
    }

    /// What it goes by now, by the names of its kind's options; empty for kinds that do not tell.
    fn options(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Changes options of its kind while frames flow: all of them, or none.
    ///
    /// # Errors
    /// [`PortError::Option`].
    fn set_options(&self, options: &[(String, String)]) -> Result<(), PortError> {
        no_options(self.kind(), self.name(), options)
    }

    /// One queue for each of `count` workers. A port with fewer receive queues than that gives the first workers one
    /// each, and the others queues that only send.
    ///
    /// Call it once per port: the queues of a second call would compete with those of the first.
    ///
    /// # Errors
    /// The system's, when the device refuses.
    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError>;
}

/// Refuses to change options of a port that has none that can be changed while it runs.
pub(crate) fn no_options(kind: PortKind, port: &str, options: &[(String, String)]) -> Result<(), PortError> {
    let Some((option, _)) = options.first() else { return Ok(()) };
    let limits = Limits::are_for(kind).then(|| Limits::NAMES.join(", "));
    let known = limits.unwrap_or_else(|| "none of this kind's options".to_owned());
    let why = SpecError::Fixed { option: option.clone(), known };
    Err(PortError::Option { port: port.to_owned(), why })
}

/// One worker's view of a port.
pub trait PortQueue: Send {
    /// Readable (level-triggered) while there may be frames to receive. `None`: this queue only sends.
    fn rx_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Receives into the first frames of `frames`, each replaced whole, and returns how many; 0 when nothing is there.
    /// Give frames of [`MAX_FRAME_LEN`](sluice_flows::packet::MAX_FRAME_LEN) bytes: what does not fit is lost. Never
    /// waits.
    ///
    /// # Errors
    /// The device is gone for good: stop polling the descriptor and tell the control side. A device that is only down
    /// gives 0.
    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize>;

    /// The port that the frames of the last burst came in by, where it is not the one that the queue belongs to: several
    /// tunnel ports receive by one socket.
    fn ingress(&self) -> Option<DpPort> {
        None
    }

    /// Frames that the last bursts received and dropped at once: the port that they came in by, why, and how many. Ask
    /// until there are none.
    fn rx_dropped(&mut self) -> Option<(DpPort, DropReason, u32)> {
        None
    }

    /// Whether the last burst that gave nothing was of use all the same: frames that had waited were sent, or frames
    /// that came have to wait.
    fn worked(&self) -> bool {
        false
    }

    /// Whether frames wait in it: for a limited rate, or until they have come to this end of a wire.
    fn is_waiting(&self) -> bool {
        false
    }

    /// The queue that this one was wrapped around, if it was. What waits in it is lost, and nothing is to be sent or
    /// received by it any more.
    fn take_inner(&mut self) -> Option<Box<dyn PortQueue>> {
        None
    }

    /// Sends `frames` in order and says in the `outcomes` of the same index what became of each; the shorter slice
    /// counts. The drop reasons are `queue_full`, `mtu_exceeded`, `port_down` and `parse_error`.
    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]);
}
