//! A container's interface: made, deleted and compared with what it should be.
//!
//! It is one end of a veth pair, whose other end stays on the host for the switch; or a persistent TAP in the container,
//! which the switch opens there. What is on the container's side (name, hardware address, MTU, addresses, routes, sysctls,
//! checksum offload) is set up here, by netlink and without the `ip` program; what is on the switch's side is the switch's.
//!
//! # Rules
//! - **Nothing is half there.** A veth pair is made by one request, both ends under their final names, each in its
//!   namespace, with hardware address and MTU; the request that writes the alias on both goes in the same datagram to the
//!   kernel (the container's end: in the datagram that sets it up). Who is killed in between leaves a pair whose host end
//!   has the attachment's own name, which [`delete`] takes for this attachment's if nothing else is written on it. A TAP
//!   becomes persistent by the last request of all: until then it goes with the process.
//! - **What is not ours is left alone.** A name that is taken is an error, and only an interface with the attachment's
//!   alias, or with its name and no alias, is deleted.
//! - **A failure undoes what was made.**
//! - The host's end stays down, without an IPv6 link-local address: the switch sets it up once it has closed it to the
//!   host's own stack.
//! - Addresses are usable at once: duplicate address detection is off, for link-local addresses too, unless asked for
//!   ([`LinkPlan::dad`]). Then [`settle`] waits for it, after the switch has attached the port, because until then nobody
//!   hears the question.
//!
//! A TAP has a vnet header (frames of 64 KiB cross whole) and one queue. With several, the kernel has 256 transmit queues for
//! each container, which took 6.6 MB of its memory instead of 50 KB (Linux 6.18); whoever opens a TAP finds out which it is.
//!
//! # Limits
//! Functions block, for as long as the kernel takes; deletion takes it tens of milliseconds. They may be called from
//! several threads at once. An interface that is to stay down ([`LinkPlan::up`]) gets no routes: the kernel has none for
//! interfaces that are down.

mod check;
mod error;
mod look;
mod make;
mod netlink;
mod netns;
mod remove;
mod routes;
mod sys;
mod sysctl;
#[cfg(test)]
mod tests;

pub use check::check;
pub use error::LinkError;
pub use look::{OurLink, has_default_route, interface, ours};
pub use make::{create, settle};
pub use netns::{is_netns, same_netns};
pub use remove::delete;

use crate::spec::Route;
use ipnet::IpNet;
use std::path::PathBuf;

/// What a container's interface is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// A veth pair; its other end is on the host.
    #[default]
    Veth,
    /// A persistent TAP in the container, and nothing on the host.
    Tap,
}

/// A container's interface as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// The container's network namespace.
    pub netns: PathBuf,
    /// The interface's name there, at most 15 bytes.
    pub ifname: String,
    /// The name of the host's end, at most 15 bytes; unused for a TAP.
    pub host_name: String,
    /// What is written on the interface, by which it is known as this attachment's; at most 255 bytes.
    pub alias: String,
    /// What it is made of.
    pub kind: LinkKind,
    /// Its hardware address, a unicast one.
    pub mac: [u8; 6],
    /// Longest network-layer packet, in bytes, of both ends.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes by it: without a gateway, what is on the link. A gateway outside of the addresses' networks is on the link.
    /// A scope says something in IPv4 only.
    pub routes: Vec<Route>,
    /// Sysctls of the container, below `net` only: `net.ipv4.conf.eth0.rp_filter` or `net/ipv4/conf/eth0/rp_filter`, with
    /// `IFNAME` for the interface's name.
    pub sysctls: Vec<(String, String)>,
    /// Whether IPv6 duplicate address detection is done.
    pub dad: bool,
    /// Whether checksums may be left to the switch; with a TAP they are.
    pub tx_checksum: bool,
    /// Whether it is set up.
    pub up: bool,
}

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Longest network-layer packet, in bytes.
    pub mtu: u32,
}

/// What [`create`] has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The host's end of a veth pair.
    pub host: Option<Interface>,
    /// The container's interface.
    pub container: Interface,
}
