//! The labs of the examples, as switches with namespaces around them.

use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_switch::stats::DropGroup;
use sluice_switch::{Clock, Config, FailMode};
use sluice_tests::host::{Host, Kind, LINK, wait_for_carrier};
use sluice_tests::lan::Lan;
use sluice_tests::netns::Netns;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The folders of the examples.
pub(crate) const FIREWALL: [&str; 1] = ["stateful-firewall/firewall.flows"];
pub(crate) const GATEWAY: [&str; 1] = ["snat-gateway/gateway.flows"];
pub(crate) const PORT_RANGE: &str = "snat-gateway/port-range.flows";
pub(crate) const BALANCER: [&str; 2] = ["load-balancer/balancer.groups", "load-balancer/balancer.flows"];

/// The address that the hosts behind the gateway share.
pub(crate) const SHARED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))];
/// The gateway's next hop.
pub(crate) const ROUTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe))];
/// The server behind that.
pub(crate) const SERVER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10))];
/// The router's own end of the link to the server.
const ROUTER_FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1))];
/// The router's interface to the server.
const FAR: &str = "far";
/// Any address.
const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// What may be lost in any lab: the kernels' own talk of multicast groups and routers, which no rule lets through.
pub(crate) const CHATTER: [DropReason; 2] = [DropReason::RuleDrop, DropReason::NoRule];

/// A switch with the files' flows, whose time is told by `clock`, and no hosts.
fn switch(files: &[&str], workers: usize, clock: Clock) -> Lan {
    let config = Config { workers, clock, ..Config::default() };
    let lan = Lan::with_config(&["br0"], FailMode::Secure, config);
    lan.add_files("br0", files);
    lan
}

/// A host on port `n`.
fn host(lan: &mut Lan, n: u8, mac: u8, v4: [u8; 4], v6: [u16; 8], kind: Kind) {
    let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
    let (host, port) = Host::with_addresses([2, 0, 0, 0, 0, mac], v4, v6, kind, 1500, lan.workers());
    lan.join("br0", n, host, port, VlanMode::default());
}

/// The firewall: a client (host 1) and a server (host 2) inside, host 3 outside.
pub(crate) fn firewall(kind: Kind, clock: Clock) -> Lan {
    let mut lan = switch(&FIREWALL, 1, clock);
    for n in 1..=3 {
        host(&mut lan, n, n, [10, 0, 0, n], [0xfd00, 0, 0, 0, 0, 0, 0, n.into()], kind);
    }
    lan
}

/// The load balancer: a client (host 1) and three backends (hosts 2 to 4).
pub(crate) fn balancer(kind: Kind) -> Lan {
    let mut lan = switch(&BALANCER, 1, Clock::monotonic());
    host(&mut lan, 1, 1, [10, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, 1], kind);
    for n in 1..=3 {
        let last = 10 + n;
        let v6 = [0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(n)];
        host(&mut lan, 1 + n, 0x10 + n, [10, 0, 0, last], v6, kind);
    }
    lan
}

/// The gateway with the hosts around it: 1 and 2 inside, 3 the next hop, which has nothing behind it.
pub(crate) fn gateway_alone(kind: Kind, workers: usize) -> Lan {
    let mut lan = switch(&GATEWAY, workers, Clock::monotonic());
    for (n, last) in [(1, 10), (2, 11)] {
        let v6 = [0xfd00, 1, 0, 0, 0, 0, 0, if n == 1 { 0x10 } else { 0x11 }];
        host(&mut lan, n, n, [192, 168, 1, last], v6, kind);
        let inside = &lan.host(n).netns;
        inside.add_route(ANY[0], 0, Ipv4Addr::new(192, 168, 1, 1).into()).unwrap();
        inside.add_route(ANY[1], 0, Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).into()).unwrap();
    }
    host(&mut lan, 3, 0xfe, [203, 0, 113, 254], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe], kind);
    lan
}

/// The owner of the first rule of a file whose line begins like this.
pub(crate) fn owner(file: &str, rule: &str) -> String {
    let text = fs::read_to_string(format!("{}/../examples/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let line = text.lines().position(|line| line.starts_with(rule)).unwrap_or_else(|| panic!("{file}: no {rule}"));
    format!("file:{file}:{}", line + 1)
}

/// How many packets the rule of this owner has dropped.
pub(crate) fn dropped_by(lan: &Lan, owner: &str) -> u64 {
    lan.datapath.sync_stats();
    let drops = lan.datapath.drops();
    let by = |drop: &&DropGroup| drop.rule.as_ref().is_some_and(|rule| rule.spec.owner.text() == owner);
    drops.iter().filter(by).map(|drop| drop.packets).sum()
}

/// The gateway: hosts 1 and 2 inside, and outside the router (host 3), with a server behind it.
pub(crate) struct Gateway {
    pub(crate) lan: Lan,
    pub(crate) server: Netns,
}

impl Gateway {
    /// The gateway; the link between router and server has this MTU.
    pub(crate) fn new(kind: Kind, workers: usize, far_mtu: u32) -> Self {
        let lan = gateway_alone(kind, workers);
        let server = Netns::new().unwrap();
        join(&lan.host(3).netns, &server, far_mtu);
        Self { lan, server }
    }

    /// Host `n`, 1 or 2 inside, or 3 for the router.
    pub(crate) fn host(&self, n: u8) -> &Host {
        self.lan.host(n)
    }
}

/// Makes `router` a router, with `server` behind it.
fn join(router: &Netns, server: &Netns, mtu: u32) {
    let set = |netns: &Netns, name: &str, value: &str| {
        netns.run(|| fs::write(format!("/proc/sys/net/{name}"), value)).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    for netns in [router, server] {
        // Each probe of a traceroute is to be answered, however fast they come.
        set(netns, "ipv4/icmp_ratelimit", "0");
        set(netns, "ipv6/icmp/ratelimit", "0");
        set(netns, "ipv6/conf/default/accept_dad", "0");
    }
    set(router, "ipv4/ip_forward", "1");
    set(router, "ipv6/conf/all/forwarding", "1");
    router.add_veth(FAR, server, LINK).unwrap();
    for (netns, link, addresses) in [(router, FAR, ROUTER_FAR), (server, LINK, SERVER)] {
        netns.add_address(link, addresses[0], 24).unwrap();
        netns.set_up(link, true).unwrap();
        netns.add_address(link, addresses[1], 64).unwrap();
    }
    wait_for_carrier(&[(router, FAR), (server, LINK)]);
    // The server believes in full frames, so that only ICMP errors tell of the smaller link.
    router.set_mtu(FAR, mtu).unwrap();
    for (any, gateway) in ANY.into_iter().zip(ROUTER_FAR) {
        server.add_route(any, 0, gateway).unwrap();
    }
}
