//! SCTP (RFC 9260), packet by packet: the machine may have no sockets of it, so both ends are made of raw ones.

use crate::cluster::{Cluster, within};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use sluice_flows::packet::checksum::{sctp, verify_sctp};
use sluice_tests::netns::Netns;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// SCTP's number in IP.
const PROTOCOL: u8 = 132;
/// Where servers are, the port of the Service, and its node port.
const SERVER_PORT: u16 = 36_413;
const SERVICE_PORT: u16 = 36_412;
const NODE_PORT: u16 = 30_132;
/// Each association has a port of its own.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// A Service whose only endpoint is `c1`.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: sctp}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 36412, nodePort: 30132, protocol: SCTP}]
";
/// Its endpoint of one family.
const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sctp-FAMILY, labels: {kubernetes.io/service-name: sctp}}
addressType: IPvFAMILY
ports: [{name: '', port: 36413, protocol: SCTP}]
endpoints: [{addresses: ['ADDRESS'], nodeName: NODE, conditions: {ready: true}}]
";

/// A chunk (RFC 9260, 3.3) and the verification tag of its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
}

impl Step {
    const fn chunk(self) -> (u32, &'static [u8]) {
        match self {
            Self::Init => (0, &[1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]),
            Self::InitAck => {
                (7, &[2, 0, 0, 28, 0, 0, 0, 8, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 7, 0, 8, b'c', b'o', b'o', b'k'])
            }
            Self::CookieEcho => (8, &[10, 0, 0, 8, b'c', b'o', b'o', b'k']),
            Self::CookieAck => (7, &[11, 0, 0, 4]),
        }
    }
}

/// One end: it sends packets as they are, and sees all that come.
struct End {
    name: String,
    out: UdpSocket,
    seen: UdpSocket,
    address: SocketAddr,
}

impl End {
    fn new(name: &str, netns: &Netns, address: SocketAddr) -> Self {
        let (out, seen) = netns.run(|| (sender(address.ip()), sniffer()));
        seen.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { name: name.to_owned(), out, seen, address }
    }

    fn send(&self, step: Step, to: SocketAddr) {
        let (tag, chunk) = step.chunk();
        let packet = packet(self.address, to, tag, chunk);
        self.out.send_to(&packet, SocketAddr::new(to.ip(), 0)).unwrap();
    }

    /// Who sends this step here, within 3 seconds.
    fn receive(&self, step: Step) -> Result<SocketAddr, String> {
        let end = Instant::now() + Duration::from_secs(3);
        let mut buffer = [0; 2000];
        while Instant::now() < end {
            let Ok(len) = self.seen.recv(&mut buffer) else { continue };
            let Some((from, to, body)) = read(&buffer[..len]) else { continue };
            if to == self.address && body[12] == step.chunk().1[0] {
                assert!(verify_sctp(body), "{}: wrong checksum of {step:?} from {from}: {body:x?}", self.name);
                assert_eq!(body[4..8], step.chunk().0.to_be_bytes(), "{}: the tag of {step:?}", self.name);
                return Ok(from);
            }
        }
        Err(format!("{} at {} sees no {step:?}", self.name, self.address))
    }
}

/// A socket that sends packets of an address's family as they are.
pub(crate) fn sender(address: IpAddr) -> UdpSocket {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap().into()
}

/// A socket that sees all packets.
pub(crate) fn sniffer() -> UdpSocket {
    let kind = SockType::Datagram;
    socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap().into()
}

/// The first packet of an association, with an initiate tag of its own, which is not 0.
pub(crate) fn init(tag: u32, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut chunk = Step::Init.chunk().1.to_vec();
    chunk[4..8].copy_from_slice(&tag.to_be_bytes());
    packet(from, to, 0, &chunk)
}

/// Where such a packet goes, and its tag.
pub(crate) fn read_init(packet: &[u8]) -> Option<(SocketAddr, u32)> {
    let (_, to, body) = read(packet)?;
    let tag = body.get(16..20)?.try_into().ok()?;
    (body[12] == Step::Init.chunk().1[0]).then_some((to, u32::from_be_bytes(tag)))
}

fn packet(from: SocketAddr, to: SocketAddr, tag: u32, chunk: &[u8]) -> Vec<u8> {
    let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    body.extend(tag.to_be_bytes());
    body.extend([0; 4]);
    body.extend(chunk);
    let sum = sctp(&body);
    body[8..12].copy_from_slice(&sum);
    [header(PROTOCOL, from.ip(), to.ip(), body.len() as u16), body].concat()
}

/// What stands before `len` bytes of a protocol.
pub(crate) fn header(protocol: u8, from: IpAddr, to: IpAddr, len: u16) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            // The kernel writes number and checksum.
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            [header, from.octets().to_vec(), to.octets().to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([protocol, 64]);
            [header, from.octets().to_vec(), to.octets().to_vec()].concat()
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// From where, to where, and what is in it, from the header of SCTP on.
fn read(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let (protocol, from, to, body): (u8, IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let at = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
            let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            (*packet.get(9)?, at(12)?.into(), at(16)?.into(), packet.get(20..len)?)
        }
        6 => {
            let at = |at: usize| -> Option<[u8; 16]> { packet.get(at..at + 16)?.try_into().ok() };
            (*packet.get(6)?, at(8)?.into(), at(24)?.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    if protocol != PROTOCOL || body.len() < 16 {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    Some((SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)), body))
}

/// An association is made by way of an address and port; who the server sees.
fn associate(client: &End, by: SocketAddr, server: &End) -> Result<SocketAddr, String> {
    client.send(Step::Init, by);
    let seen = server.receive(Step::Init)?;
    for (from, step, to, answerer) in
        [(server, Step::InitAck, seen, by), (client, Step::CookieEcho, by, seen), (server, Step::CookieAck, seen, by)]
    {
        from.send(step, to);
        let receiver = if std::ptr::eq(from, server) { client } else { server };
        let found = receiver.receive(step)?;
        if found != answerer {
            return Err(format!("{} sees {step:?} of {found}, not of {answerer}", receiver.name));
        }
    }
    Ok(seen)
}

/// A client at an address, with a port that no other has.
fn client(name: &str, netns: &Netns, address: &str) -> End {
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    End::new(name, netns, SocketAddr::new(address.parse().unwrap(), port))
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

pub(crate) fn between_pods(cluster: &Cluster) {
    let (inside, there) = (cluster.netns_of("a2"), cluster.netns_of("c1"));
    for (own, address) in cluster.addresses("a2").iter().zip(cluster.addresses("c1")) {
        let by = at(&address, SERVER_PORT);
        let (client, server) = (client("a2", &inside, own), End::new("c1", &there, by));
        let seen = associate(&client, by, &server).unwrap();
        assert_eq!(seen, client.address, "whom c1 sees");
    }
}

pub(crate) fn by_service(cluster: &Cluster) {
    let slice = |address: &String| {
        let family = if address.contains(':') { "6" } else { "4" };
        SLICE.replace("FAMILY", family).replace("ADDRESS", address).replace("NODE", "node-3")
    };
    let addresses = cluster.addresses("c1");
    let slices: String = addresses.iter().map(slice).collect();
    cluster.apply(&format!("{SERVICE}{slices}"));
    let (inside, there, outside) = (cluster.netns_of("a2"), cluster.netns_of("c1"), cluster.outside());
    let services = cluster.cluster_ips("sctp");
    let first = cluster.outside_addresses(&cluster.nodes[0]);
    for (family, address) in addresses.iter().enumerate() {
        let server = End::new("c1", &there, at(address, SERVER_PORT));
        let own = &cluster.addresses("a2")[family];
        let by = at(&services[family], SERVICE_PORT);
        within(20, "an association by the Service", || {
            let client = client("a2", &inside, own);
            let seen = associate(&client, by, &server)?;
            if seen == client.address { Ok(()) } else { Err(format!("c1 sees {seen}")) }
        });
        let own = cluster.of_families("172.30.0.1", "fd00:30::1")[family];
        let by = at(&first[family], NODE_PORT);
        within(20, "an association by a node port", || {
            associate(&client("outside", &outside, own), by, &server).map(drop)
        });
    }
    cluster.kubectl(&["delete", "service", "sctp"]);
}
