//! Network namespaces for tests: made by unshare on a throwaway thread, gone when the last reference is dropped.
//!
//! A namespace has no name and no process, only a descriptor: nothing is left behind when a test is killed, and the
//! machine's own interfaces are never touched. Links and addresses are made by netlink; there is no `ip` binary to need.
//!
//! Threads matter: [`Netns::run`] runs work on a thread of its own that has entered the namespace. Sockets and ports
//! opened there keep working on any thread.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns, unshare};
use sluice_switch::port::link::Link;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// A network namespace; clones are the same one.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// A new namespace with its loopback interface up.
    ///
    /// # Errors
    /// `EPERM` without privilege.
    pub fn new() -> io::Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Link::open("lo")?.set_up(true)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Self { file: Arc::new(file) })
    }

    /// A new namespace whose interfaces have no IPv6, so that its kernel sends nothing on its own.
    ///
    /// # Errors
    /// `EPERM` without privilege; `EROFS` where `/proc/sys` may not be written.
    pub fn without_ipv6() -> io::Result<Self> {
        let netns = Self::new()?;
        netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))?;
        Ok(netns)
    }

    /// The namespace that a process is in.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open(format!("/proc/{pid}/ns/net"))?) })
    }

    /// The namespace that a file stands for, as `/run/netns` has them.
    ///
    /// # Errors
    /// There is no such file.
    pub fn at(file: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open(file)?) })
    }

    /// Does `work` on a thread in this namespace and returns what it returns; a panic in it goes on here.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A path by which other processes can open it, as long as this one and a clone of this value live.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// A veth pair: `name` here, `peer` in `other` (which may be this one). Both ends are down.
    ///
    /// # Errors
    /// `EEXIST` when a name is taken.
    pub fn add_veth(&self, name: &str, other: &Self, peer: &str) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(other.file.as_raw_fd())];
        let mut near = LinkMessage::default();
        near.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives the interface an address, usable at once.
    ///
    /// # Errors
    /// `ENODEV`, `EEXIST`.
    pub fn add_address(&self, link: &str, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = self.index(link)?;
        message.header.prefix_len = prefix_len;
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        if address.is_ipv6() {
            // Otherwise it cannot be a source until the kernel has looked for duplicates, however short that is.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes the neighbour's hardware address known for good.
    ///
    /// # Errors
    /// `ENODEV`, `EEXIST`.
    pub fn add_neighbour(&self, link: &str, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = self.index(link)?;
        message.header.state = NeighbourState::Permanent;
        let (family, address) = match address {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        message.header.family = family;
        message.attributes =
            vec![NeighbourAttribute::Destination(address), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends what goes to `network` by way of `gateway`, which is reached directly.
    ///
    /// # Errors
    /// `ENETUNREACH` when the gateway is not, `EEXIST`.
    pub fn add_route(&self, network: IpAddr, prefix_len: u8, gateway: IpAddr) -> io::Result<()> {
        let route = |address: IpAddr| match address {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        };
        let mut message = RouteMessage::default();
        message.header.address_family = if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = prefix_len;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(route(gateway))];
        if prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(route(network)));
        }
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets the interface up or down.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn set_up(&self, link: &str, up: bool) -> io::Result<()> {
        self.run(|| Link::open(link)?.set_up(up))
    }

    /// Sets the interface's MTU.
    ///
    /// # Errors
    /// `ENODEV`, `EINVAL` when out of range.
    pub fn set_mtu(&self, link: &str, mtu: u32) -> io::Result<()> {
        self.run(|| Link::open(link)?.set_mtu(mtu))
    }

    /// Moves the interface to another namespace, where it is down.
    ///
    /// # Errors
    /// `ENODEV`, `EEXIST` when its name is taken there.
    pub fn move_link(&self, link: &str, other: &Self) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(link)?;
        message.attributes = vec![LinkAttribute::NetNsFd(other.file.as_raw_fd())];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes the interface, and a veth's other end with it.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn remove_link(&self, link: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(link)?;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    fn index(&self, link: &str) -> io::Result<u32> {
        Ok(self.run(|| Link::open(link))?.index().unsigned_abs())
    }

    /// Sends a request to this namespace's kernel and waits for its word.
    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        let socket = self.run(|| Socket::new(NETLINK_ROUTE))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

/// Whether `test` cannot run on this machine; says so on standard error, with the reason.
pub fn skipped(test: &str) -> bool {
    let Some(reason) = missing() else { return false };
    // Not eprintln!, whose output the test runner keeps to itself when a test passes.
    _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
    true
}

/// What this machine lacks to make namespaces and TAPs, if anything.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if let Err(e) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("cannot open /dev/net/tun: {e}"));
    }
    Netns::without_ipv6().err().map(|e| format!("cannot make a network namespace: {e}"))
}
