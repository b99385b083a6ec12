//! A machine with a switch in this process, containers of several networks, and a client outside.

use ipnet::IpNet;
use sluice_flows::bridge::{VlanId, VlanMode};
use sluice_flows::field;
use sluice_switch::config::{PortConfig, add_bridge, add_port};
use sluice_switch::host::gateway::GatewayError;
use sluice_switch::host::{HostPort, Leads, NetworkGateway, NetworkPort, apply_networks, check_networks};
use sluice_switch::port::PortKind;
use sluice_switch::{Config, Datapath, FailMode};
use sluice_tests::host::{PATIENCE, wait_for_carrier};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;

/// The machine's addresses outside, IPv4's first, as with all that follow.
pub(crate) const MACHINE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// More of them.
pub(crate) const MORE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The client's.
pub(crate) const CLIENT: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// A container.
pub(crate) struct Container {
    pub(crate) netns: Netns,
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) mac: [u8; 6],
}

/// A machine, its switch, the containers on its bridge `br0`, and a client outside.
pub(crate) struct Machine {
    pub(crate) netns: Netns,
    pub(crate) outside: Netns,
    pub(crate) datapath: Datapath,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn namespace() -> Netns {
    let netns = Netns::new().unwrap();
    for (path, value) in
        [("ipv6/conf/default/accept_dad", "0"), ("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")]
    {
        netns.run(|| fs::write(format!("/proc/sys/net/{path}"), value)).unwrap();
    }
    netns.set_up("lo", true).unwrap();
    netns
}

fn start(netns: &Netns) -> Datapath {
    netns.run(|| {
        let datapath = Datapath::start(Config::default()).unwrap();
        add_bridge(&datapath, "br0", FailMode::Standalone, true).unwrap();
        datapath
    })
}

impl Machine {
    /// The namespaces and the switch, whose bridge has no port but its own. `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        let (netns, outside) = (namespace(), namespace());
        netns.add_veth("up0", &outside, "eth0").unwrap();
        for (netns, link, addresses) in [(&netns, "up0", MACHINE), (&outside, "eth0", CLIENT)] {
            netns.set_up(link, true).unwrap();
            for (address, len) in addresses.iter().zip([24, 64]) {
                netns.add_address(link, ip(address), len).unwrap();
            }
        }
        for (n, len) in [(0, 32), (1, 128)] {
            netns.add_address("lo", ip(MORE[n]), len).unwrap();
            outside.add_route(ip(MORE[n]), len, ip(MACHINE[n])).unwrap();
        }
        wait_for_carrier(&[(&netns, "up0"), (&outside, "eth0")]);
        let datapath = start(&netns);
        Some(Self { netns, outside, datapath })
    }

    /// A container with the address number `n` of `network`, behind a port of the network's VLAN.
    pub(crate) fn container(&self, network: &NetworkGateway, n: u8) -> Container {
        let netns = namespace();
        let name = format!("c{n}");
        self.netns.add_veth(&name, &netns, "eth0").unwrap();
        netns.set_up("eth0", true).unwrap();
        self.netns.set_up(&name, true).unwrap();
        wait_for_carrier(&[(&netns, "eth0"), (&self.netns, &name)]);
        self.netns.run(|| fs::write(format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"), "8")).unwrap();
        self.netns.run(|| fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")).unwrap();
        self.plug(&name, network.vlan);
        let addresses = [0, 1].map(|family| {
            let gateway = network.addresses[family];
            let mut octets = match gateway.addr() {
                IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                IpAddr::V6(a) => a.octets(),
            };
            octets[15] = n;
            let address = IpAddr::from(octets).to_canonical();
            netns.add_address("eth0", address, gateway.prefix_len()).unwrap();
            netns.add_route(ip(["0.0.0.0", "::"][family]), 0, gateway.addr()).unwrap();
            address
        });
        let shown = run(&netns, &["ip", "-o", "link", "show", "eth0"]);
        let text = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        let octets: Vec<_> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Container { netns, addresses, mac: octets.try_into().unwrap() }
    }

    fn plug(&self, name: &str, vlan: Option<u16>) {
        let vlan = vlan.map_or_else(VlanMode::default, |vlan| VlanMode::Access(VlanId::new(vlan).unwrap()));
        let port = PortConfig { vlan, ..PortConfig::new(name, PortKind::AfPacket) };
        self.netns.run(|| add_port(&self.datapath, "br0", &port)).unwrap();
    }

    /// Has the gateways be so. What that took.
    pub(crate) fn apply(
        &self,
        networks: &[NetworkGateway],
        ports: &[NetworkPort],
    ) -> Result<Vec<String>, GatewayError> {
        self.netns.run(|| apply_networks(&self.datapath, networks.to_vec(), ports.to_vec()))
    }

    pub(crate) fn check(&self, networks: &[NetworkGateway], ports: &[NetworkPort]) -> Vec<String> {
        self.netns.run(|| check_networks(&self.datapath, networks.to_vec(), ports.to_vec()))
    }

    /// The switch is gone without a word, as when it is killed, and there is a new one with the same ports.
    pub(crate) fn crash(&mut self, vlans: &[(&str, Option<u16>)]) {
        self.netns.run(|| self.datapath.shutdown());
        self.datapath = start(&self.netns);
        vlans.iter().for_each(|(name, vlan)| self.plug(name, *vlan));
    }

    /// What a program prints on the machine.
    pub(crate) fn say(&self, words: &str) -> String {
        run(&self.netns, &words.split(' ').collect::<Vec<_>>())
    }

    /// What `ip` and `nft` say of the machine.
    pub(crate) fn state(&self) -> String {
        ["ip addr show", "ip route show table all", "ip -6 route show table all", "ip rule", "nft list ruleset"]
            .map(|words| format!("# {words}\n{}", self.say(words)))
            .concat()
    }
}

/// A network with these gateway addresses, masqueraded.
pub(crate) fn network(name: &str, gateway: [&str; 2]) -> NetworkGateway {
    let addresses: Vec<_> = gateway.iter().map(|text| net(text)).collect();
    NetworkGateway {
        name: name.to_owned(),
        bridge: "br0".to_owned(),
        vlan: None,
        masquerade: addresses.iter().map(IpNet::trunc).collect(),
        addresses,
        except: Vec::new(),
        mtu: None,
        internal: false,
        routes: Vec::new(),
        hops: Vec::new(),
        steered: false,
    }
}

/// The network that most tests have.
pub(crate) fn blue() -> NetworkGateway {
    network("blue", ["10.77.0.1/24", "fd77::1/64"])
}

/// Another one.
pub(crate) fn red() -> NetworkGateway {
    network("red", ["10.88.0.1/24", "fd88::1/64"])
}

pub(crate) const TCP: u8 = field::IP_PROTO_TCP;
pub(crate) const UDP: u8 = field::IP_PROTO_UDP;

/// Ports of both families of all of the machine's addresses.
pub(crate) fn everywhere(
    network: &NetworkGateway,
    to: &Container,
    protocol: u8,
    port: u16,
    to_port: u16,
) -> Vec<NetworkPort> {
    [0, 1].map(|family| one(network, to, family, None, (protocol, port), to_port)).into()
}

/// A port of one family.
pub(crate) fn one(
    network: &NetworkGateway,
    to: &Container,
    family: usize,
    address: Option<&str>,
    (protocol, port): (u8, u16),
    to_port: u16,
) -> NetworkPort {
    NetworkPort {
        network: network.name.clone(),
        owner: format!("{}/{}", network.name, to.addresses[0]),
        port: HostPort { v6: family == 1, address: address.map(ip), protocol, port },
        leads: Some(Leads { to: to.addresses[family], port: to_port, mac: to.mac }),
    }
}

/// What a program prints, which ends with 0.
pub(crate) fn run(netns: &Netns, words: &[&str]) -> String {
    let (code, output) = programs::run(netns, words);
    assert!(code == Some(0), "{words:?} ended with {code:?}:\n{output}");
    output
}

/// A server that says to each client by which address it sees it, a line for each connection, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
    name: &'static str,
}

impl Server {
    /// A server of TCP on any address of a container. What it says ends with its name.
    pub(crate) fn tcp(netns: &Netns, port: u16, name: &'static str) -> Self {
        let listener = netns.run(|| TcpListener::bind((ip("::"), port))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, peer)) => {
                        _ = stream.write_all(format!("{} {name}", peer.ip().to_canonical()).as_bytes())
                    }
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(2)),
                }
            }
        });
        Self { address: SocketAddr::new(ip("::"), port), stop, thread: Some(thread), name }
    }

    /// As [`tcp`](Self::tcp), of datagrams.
    pub(crate) fn udp(netns: &Netns, port: u16, name: &'static str) -> Self {
        let socket = netns.run(|| UdpSocket::bind((ip("::"), port))).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    _ = socket.send_to(format!("{} {name}", peer.ip().to_canonical()).as_bytes(), peer);
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        Self { address: SocketAddr::new(ip("::"), port), stop, thread: Some(thread), name }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "the server {} at {} failed", self.name, self.address);
    }
}

/// What a server of TCP says, or why it says nothing.
pub(crate) fn ask(from: &Netns, to: &str, port: u16) -> Result<String, std::io::ErrorKind> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(ip(to), port), PATIENCE);
    let mut stream = from.run(connect).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(text)
}

/// A socket that datagrams are sent from to one address.
pub(crate) fn caller(from: &Netns, to: &str, port: u16) -> UdpSocket {
    let any = if ip(to).is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = from.run(|| UdpSocket::bind((ip(any), 0))).unwrap();
    socket.connect((ip(to), port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What a server of datagrams answers.
pub(crate) fn call(socket: &UdpSocket) -> Result<String, std::io::ErrorKind> {
    socket.send(b"who am I?").map_err(|error| error.kind())?;
    let mut buffer = [0; 2000];
    let len = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Two pings, both of which are answered.
pub(crate) fn ping(netns: &Netns, to: &str) {
    let output = run(netns, &["ping", "-n", "-c", "2", "-i", "0.1", "-W", "5", to]);
    assert!(output.contains(" 2 received"), "{output}");
}
