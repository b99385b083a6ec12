//! Routers between real hosts: network namespaces whose kernels are the oracle for everything that they are told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod hosts;
mod mtu;
mod next_hops;
mod paths;
mod vrfs;

use sluice_flows::bridge::VlanMode;
use sluice_switch::FailMode;
use sluice_switch::router::{NamedHop, NamedInterface, NamedProbe, NamedRoute, NamedRouter};
use sluice_tests::host::{Host, Kind};
use sluice_tests::lan::Lan;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// The port of the patch between two bridges.
const PATCH: u8 = 100;

/// An interface on this port, with these addresses.
fn interface(port: &str, addresses: &[&str]) -> NamedInterface {
    NamedInterface {
        name: port.into(),
        addresses: addresses.iter().map(|&address| address.into()).collect(),
        ..NamedInterface::default()
    }
}

/// A route by these routers.
fn route(to: &str, via: &[&str]) -> NamedRoute {
    let hop = |&address: &&str| NamedHop { address: address.into(), ..NamedHop::default() };
    NamedRoute { to: to.into(), via: via.iter().map(hop).collect(), ..NamedRoute::default() }
}

fn router(name: &str, bridge: &str, interfaces: Vec<NamedInterface>, routes: Vec<NamedRoute>) -> NamedRouter {
    NamedRouter { name: name.into(), bridge: bridge.into(), interfaces, routes, ..NamedRouter::default() }
}

fn set(lan: &Lan, router: &NamedRouter) {
    let bridge = lan.datapath.bridge(&router.bridge).unwrap();
    let spec = router.resolve(&lan.datapath, &bridge).unwrap_or_else(|error| panic!("{error}"));
    lan.datapath.set_router(spec).unwrap_or_else(|error| panic!("{error}"));
}

/// Adds host `n` with 10.NET.0.HOST and `fd00:NET::HOST`, and default routes by the router of its network, which is 1.
fn join(lan: &mut Lan, bridge: &str, n: u8, (net, host): (u8, u8), kind: Kind, mtu: u32) {
    let v4 = Ipv4Addr::new(10, net, 0, host);
    let v6 = Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into());
    let (host, port) = Host::with_addresses([2, 0, 0, 0, net, n], v4, v6, kind, mtu, lan.workers());
    host.netns.add_route(Ipv4Addr::UNSPECIFIED.into(), 0, Ipv4Addr::new(10, net, 0, 1).into()).unwrap();
    let gateway = Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, 1);
    host.netns.add_route(Ipv6Addr::UNSPECIFIED.into(), 0, gateway.into()).unwrap();
    lan.join(bridge, n, host, port, VlanMode::default());
}

/// Host 1 in 10.1.0.0/24, router `r1` in bridge `a`, a link of 10.12.0.0/24 with this MTU, router `r2` in bridge `b`, host 2
/// in 10.2.0.0/24.
fn two_routers(kind: Kind, mtu: u16) -> Lan {
    let mut lan = Lan::new(&["a", "b"], FailMode::Secure, 1);
    join(&mut lan, "a", 1, (1, 9), kind, 1500);
    join(&mut lan, "b", 2, (2, 9), kind, 1500);
    lan.patch("a", "b", PATCH);
    let near = vec![
        interface("h1", &["10.1.0.1/24", "fd00:1::1/64"]),
        NamedInterface { mtu, ..interface("to-b", &["10.12.0.1/24", "fd00:12::1/64"]) },
    ];
    let far = vec![
        interface("h2", &["10.2.0.1/24", "fd00:2::1/64"]),
        NamedInterface { mtu, ..interface("to-a", &["10.12.0.2/24", "fd00:12::2/64"]) },
    ];
    let out = vec![route("10.2.0.0/24", &["10.12.0.2"]), route("fd00:2::/64", &["fd00:12::2"])];
    let back = vec![route("10.1.0.0/24", &["10.12.0.1"]), route("fd00:1::/64", &["fd00:12::1"])];
    set(&lan, &router("r1", "a", near, out));
    set(&lan, &router("r2", "b", far, back));
    lan
}

/// What a command says that runs in a host; whether it ends well.
fn run(host: &Host, command: &str) -> (bool, String) {
    let mut words = command.split_whitespace();
    let mut process = Command::new(words.next().unwrap());
    process.args(words);
    let output = host.netns.run(|| process.output()).unwrap_or_else(|error| panic!("{command}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

/// Both addresses of a host.
fn both(host: &Host) -> [IpAddr; 2] {
    [host.v4, host.v6]
}
