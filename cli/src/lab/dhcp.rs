//! Addresses by DHCP: the servers of VLANs, and the clients of hosts with `dhcp: true`.
//!
//! A server is a network namespace of its own with one interface, a port of its switch in the VLAN. So the kernel answers
//! for its address, and it is there for anybody: a client that is started by hand in a host, or a container. A host's
//! client is ours, so that none has to be installed. Both are threads of the supervisor and end with it.

mod client;
mod leases;
mod line;
mod message;
mod record;
mod server;

use super::dns::{self, Forwarder, Zone};
use super::enter::enter_network;
use super::machine::Machine;
use super::topology::Topology;
use super::topology::resolved::dhcp::DhcpServer;
use super::topology::resolved::{Host, Interface, Link};
use crate::failure::Failure;
use client::Client;
use ipnet::{IpNet, Ipv4Net};
use leases::Leases;
use record::Record;
pub(super) use record::{Held, now, read as held};
use server::{Network, Server};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long hosts may take to get their addresses, besides what their links delay.
const PATIENCE: Duration = Duration::from_secs(15);
/// Crossings of the lab's links that two exchanges of messages need at most, each way.
const CROSSINGS: u32 = 2;
/// Clients that ask at the same time, and the pause before the next ones do: what each says to all reaches every host.
const AT_ONCE: usize = 16;
const PAUSE: Duration = Duration::from_millis(20);
/// Stack of a client's thread, which is one for each host.
const STACK: usize = 256 * 1024;

/// What a client says: which one, and what it was given or what is in its way.
type Word = (usize, Result<Ipv4Net, String>);

/// Starts the servers of a lab, then its clients, and waits until every client has its address. `namespace` gives the
/// network namespace of a host or a server; `folder` is the lab's, for what the servers write down.
///
/// # Errors
/// A server cannot be started, or the hosts that got no address.
pub(crate) fn start<'a>(
    topology: &Topology,
    folder: &Path,
    machine: Option<&Machine>,
    namespace: impl Fn(&str) -> Option<&'a OwnedFd>,
) -> Result<(), Failure> {
    let opened = |name: &str| {
        let found = namespace(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        found.and_then(OwnedFd::try_clone)
    };
    for server in &topology.dhcp {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot start the DHCP server of the VLAN {}: {error}", server.vlan))
        };
        let (network, leases) = (network(topology, server), leases(topology, server));
        let (Some(network), Some(leases)) = (network, leases) else { continue };
        let zone = Zone::of(topology, network.server.trunc());
        let forwarder = machine.filter(|_| topology.uplink.is_some()).map(forwarder).transpose()?;
        let record = Record::new(folder, &server.vlan);
        let open = move || {
            let dhcp = Server::open(DhcpServer::INTERFACE, network, leases, record)?;
            Ok((dhcp, dns::Server::open(zone, forwarder)?))
        };
        serve(opened(&server.namespace_name()).map_err(failed)?, open).map_err(failed)?;
    }
    let waiting: Vec<_> = clients(topology).collect();
    let (say, words) = channel();
    for (index, (host, interface)) in waiting.iter().enumerate() {
        let failed = |error: io::Error| Failure::new(format!("cannot start the DHCP client of {}: {error}", host.name));
        let client = Client { host: host.name.clone(), interface: interface.name.clone(), mac: interface.mac };
        lease(client, opened(&host.name).map_err(failed)?, index, say.clone()).map_err(failed)?;
    }
    wait(topology, &waiting, &words)
}

/// The interfaces that have their addresses by DHCP.
fn clients(topology: &Topology) -> impl Iterator<Item = (&Host, &Interface)> {
    let all = topology.hosts.iter().flat_map(|host| host.interfaces.iter().map(move |interface| (host, interface)));
    all.filter(|(_, interface)| interface.dhcp)
}

/// What the server of a VLAN tells its clients.
fn network(topology: &Topology, server: &DhcpServer) -> Option<Network> {
    let gateway = server.gateways.iter().find_map(|gateway| match gateway {
        IpAddr::V4(gateway) => Some(*gateway),
        IpAddr::V6(_) => None,
    });
    let nodes = inside(topology, server).map(|(host, interface)| (interface.mac, (host.name.clone(), interface.mtu)));
    Some(Network {
        vlan: server.vlan.clone(),
        server: server.address?,
        router: gateway,
        domain: topology.name.clone(),
        lease: server.lease(),
        mtu: server.mtu,
        nodes: nodes.collect(),
    })
}

/// The addresses that the server of a VLAN gives.
fn leases(topology: &Topology, server: &DhcpServer) -> Option<Leases> {
    let net = server.address?;
    let reserved = inside(topology, server).filter_map(|(_, interface)| {
        let own = interface.addresses.iter().find_map(|address| v4_in(net, *address));
        Some((interface.mac, own?))
    });
    let hosts = topology.hosts.iter().flat_map(|h| &h.interfaces).flat_map(|i| &i.addresses);
    let routers = topology.routers.iter().flat_map(|r| &r.interfaces).flat_map(|i| &i.addresses);
    let machine = topology.uplink.iter().flat_map(|uplink| uplink.addresses());
    let taken = hosts.chain(routers).chain(machine).filter_map(|address| v4_in(net, *address));
    Some(Leases::new(net.addr(), net.trunc(), server.lease(), reserved.collect(), taken.collect()))
}

/// The hosts' interfaces in the VLAN of a server.
fn inside<'a>(topology: &'a Topology, server: &'a DhcpServer) -> impl Iterator<Item = (&'a Host, &'a Interface)> {
    let all = topology.hosts.iter().flat_map(|host| host.interfaces.iter().map(move |interface| (host, interface)));
    all.filter(|(_, interface)| interface.vlan.as_ref() == Some(&server.vlan))
}

fn v4_in(net: Ipv4Net, address: IpNet) -> Option<Ipv4Addr> {
    match address.addr() {
        IpAddr::V4(ip) if net.contains(&ip) => Some(ip),
        _ => None,
    }
}

/// Starts a server's threads in its network namespace, and waits until its ports are open.
fn serve(
    namespace: OwnedFd,
    open: impl FnOnce() -> io::Result<(Server, dns::Server)> + Send + 'static,
) -> io::Result<()> {
    let (told, opened) = channel();
    let work = move || match enter_network(&namespace).and_then(|()| open()) {
        Ok((dhcp, dns)) => {
            let started = dns.start();
            let goes_on = started.is_ok();
            // The lab was given up if nobody listens.
            if told.send(started).is_ok() && goes_on {
                dhcp.run();
            }
        }
        Err(error) => _ = told.send(Err(error)),
    };
    thread::Builder::new().name("sluice-dhcp".to_owned()).spawn(work)?;
    opened.recv().unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::BrokenPipe)))
}

/// What asks the machine's servers, with sockets of the machine's network namespace.
fn forwarder(machine: &Machine) -> Result<Forwarder, Failure> {
    machine.run(|| {
        let failed =
            |error: io::Error| Failure::new(format!("cannot open sockets to the machine's DNS servers: {error}"));
        Forwarder::open(&dns::machine_servers()).map_err(failed)
    })
}

/// Starts a client's thread.
fn lease(client: Client, namespace: OwnedFd, index: usize, say: Sender<Word>) -> io::Result<()> {
    // Nobody listens any more once the lab is up.
    let work = move || match enter_network(&namespace) {
        Ok(()) => client.run(pause(index), |result| _ = say.send((index, result))),
        Err(error) => _ = say.send((index, Err(error.to_string()))),
    };
    thread::Builder::new().name("sluice-lease".to_owned()).stack_size(STACK).spawn(work).map(|_| ())
}

/// How long a client waits before it asks, by its place among the clients.
fn pause(index: usize) -> Duration {
    PAUSE * u32::try_from(index / AT_ONCE).unwrap_or(u32::MAX)
}

/// Waits until every client has its address, but for those whose own link is down.
fn wait(topology: &Topology, clients: &[(&Host, &Interface)], words: &Receiver<Word>) -> Result<(), Failure> {
    let is_up = |host: &Host, interface: &Interface| {
        let its = |link: &&Link| link.ends.iter().any(|end| end.is_interface(&host.name, &interface.name));
        !topology.links.iter().find(its).is_some_and(|link| link.down)
    };
    let mut left: Vec<_> = clients.iter().map(|(host, interface)| is_up(host, interface)).collect();
    let delays: Duration = topology.links.iter().flat_map(|link| &link.impairment).map(|i| i.delay + i.jitter).sum();
    let patience = PATIENCE + delays * CROSSINGS + pause(clients.len());
    let begin = Instant::now();
    while left.contains(&true) {
        let (index, result) = match words.recv_timeout(patience.saturating_sub(begin.elapsed())) {
            Ok(word) => word,
            Err(_) => break,
        };
        match (result, clients.get(index)) {
            (Ok(_), _) => left.get_mut(index).into_iter().for_each(|left| *left = false),
            (Err(problem), Some((host, interface))) => {
                let what = format!("{} of {} cannot get an address by DHCP", interface.name, host.name);
                return Err(Failure::new(what).why(problem));
            }
            (Err(_), None) => {}
        }
    }
    let without: Vec<_> = clients.iter().zip(&left).filter(|(_, left)| **left).map(|(client, _)| *client).collect();
    match without.first() {
        None => Ok(()),
        Some((host, interface)) => Err(unanswered(topology, host, interface, without.len(), patience)),
    }
}

fn unanswered(topology: &Topology, host: &Host, interface: &Interface, count: usize, patience: Duration) -> Failure {
    let vlan = interface.vlan.as_deref().unwrap_or_default();
    let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    let at = topology.dhcp_server(vlan).map_or("its switch", |server| server.switch.as_str());
    Failure::new(format!("{}{more} got no address by DHCP in {} s", host.name, patience.as_secs()))
        .why(format!(
            "it is in the VLAN {vlan}, whose server is at {at}, and no answer came: a link on the way is down, loses all or \
             does not carry {vlan}, or a rule drops UDP to ports 67 and 68"
        ))
        .next(format!("mend the way from {} to {at}, or leave `dhcp: true` of {} out", host.name, host.name))
}
