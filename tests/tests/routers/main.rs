//! Routers with memory ports: what hosts send, what comes out, what flows there are. Time moves only when a test says so.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod advertise;
mod change;
mod errors;
mod load;
mod next_hops;
mod resolve;

use sluice_flows::action::Action;
use sluice_flows::field::Field;
use sluice_flows::key::{PacketKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, checksum, extract};
use sluice_flows::router::{Interface, InterfaceId, NextHop, Route, RouteKind, RouterConfig, Vrf, VrfId};
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::text::{Names, parse_packet};
use sluice_flows::{Match, Owner, PortNo};
use sluice_switch::router::RouterSpec;
use sluice_switch::{Clock, Config, FailMode};
use sluice_tests::switch::{Switch, wait_until};
use std::net::IpAddr;

/// A switch with a router `r1` in `br0`. Interface `eN` is on port N, has 10.0.N.1/24 and `fd00:N::1/64`, and the address
/// 02:00:00:00:01:0N; host M behind it has 10.0.N.M and 02:00:00:00:0N:M.
struct Net {
    switch: Switch,
    clock: Clock,
    ports: u16,
    /// Hosts that have asked for routers.
    asked: u32,
}

impl Net {
    fn new(ports: u16) -> Self {
        Self::with(ports, |_| {})
    }

    /// With another configuration.
    fn with(ports: u16, change: impl FnOnce(&mut RouterSpec)) -> Self {
        let clock = Clock::manual();
        clock.advance(1_000_000);
        let config = Config { clock: clock.clone(), packet_in_rate: 100_000, ..Config::default() };
        let mut switch = Switch::start(config);
        switch.bridge("br0", ports, FailMode::Secure);
        let mut spec = spec(ports);
        change(&mut spec);
        if spec.first_table != 0 {
            let go = Action::GotoTable(TableId::new(spec.first_table).unwrap());
            switch.add_flows([FlowSpec::new(Match::any(), [go], Owner::new("router:r10/e1"))]);
        }
        switch.datapath.set_router(spec).unwrap();
        let mut net = Self { switch, clock, ports, asked: 0 };
        // What interfaces say of themselves when they come up.
        net.pass(0);
        net.pass(2000);
        net.settle();
        net.clear();
        net
    }

    /// Time goes by.
    fn pass(&mut self, millis: u64) {
        self.clock.advance(millis);
        self.switch.datapath.maintain_routers();
    }

    /// Waits until what was sent and handed over has been worked on: a host that asks for routers is heard behind it.
    fn settle(&mut self) {
        self.asked += 1;
        let address = format!("fe80::ffff:{:x}", self.asked);
        let text = format!(
            "icmp6,dl_src=02:00:00:00:ff:ff,dl_dst=33:33:00:00:00:02,ipv6_src={address},ipv6_dst=ff02::2,nw_ttl=255,\
             icmp_type=133,icmp_code=0"
        );
        self.switch.send(1, &with_source(&frame(&text, &[]), [2, 0, 0, 0, 0xff, 0xff]));
        let key = (InterfaceId(1), address.parse().unwrap());
        wait_until("the router has heard a host", || self.switch.datapath.remove_neighbor("r1", key).is_ok());
        // What it wanted sent then is with the worker, which answers behind it.
        wait_until("the worker is done", || self.switch.datapath.sync_stats());
    }

    fn punted(&self) -> u64 {
        self.switch.datapath.router_list().first().map_or(0, |router| router.counters.punted)
    }

    fn clear(&self) {
        (1..=self.ports).for_each(|no| drop(self.switch.take(no)));
    }

    /// Sends a packet from a host, which is a flow's text, and says what came out.
    fn send(&mut self, port: u16, text: &str) -> Vec<(u16, Seen)> {
        self.send_bytes(port, &frame(text, b"payload of a packet"))
    }

    fn send_bytes(&mut self, port: u16, bytes: &[u8]) -> Vec<(u16, Seen)> {
        self.switch.send(port, bytes);
        self.settle();
        self.take()
    }

    /// What came out, by port.
    fn take(&mut self) -> Vec<(u16, Seen)> {
        let out =
            (1..=self.ports).flat_map(|no| self.switch.take(no).into_iter().map(move |frame| (no, Seen::new(&frame))));
        out.collect()
    }

    /// Host `host` behind port `port` says that it is there, and the router that it has heard it.
    fn host(&mut self, port: u16, host: u8) {
        let (v4, mac) = (format!("10.0.{port}.{host}"), mac_of(port, host));
        let datapath = &self.switch.datapath;
        let key = (InterfaceId(port), v4.parse().unwrap());
        datapath.set_neighbor("r1", key, mac).unwrap();
        let v6 = format!("fd00:{port}::{host}").parse().unwrap();
        datapath.set_neighbor("r1", (InterfaceId(port), v6), mac).unwrap();
    }
}

fn mac_of(port: u16, host: u8) -> [u8; 6] {
    [2, 0, 0, 0, port as u8, host]
}

/// A frame that a flow's text describes.
fn frame(text: &str, payload: &[u8]) -> Vec<u8> {
    compose(&parse_packet(text, &Names::new()).unwrap_or_else(|e| panic!("{text}: {e}")), payload)
}

/// An ICMPv6 message with the option that has the sender's hardware address behind it.
fn with_source(message: &[u8], mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = [message, &[1, 1], &mac].concat();
    let len = bytes.len() as u16 - 54;
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    refill(&mut bytes);
    bytes
}

/// Fills the checksum of an ICMPv6 message in.
fn refill(bytes: &mut [u8]) {
    bytes[56..58].fill(0);
    let at = |from: usize| bytes[from..from + 16].try_into().unwrap();
    let pseudo = checksum::pseudo_v6(at(22), at(38), 58, bytes.len() as u32 - 54);
    let sum = !checksum::add(checksum::sum(&bytes[54..]), pseudo);
    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP packet of host M behind port N, to the router.
fn udp(port: u16, host: u8, to: &str) -> String {
    let mac = format!("dl_src=02:00:00:00:0{port}:{host:02x},dl_dst=02:00:00:00:01:0{port}");
    match to.parse().unwrap() {
        IpAddr::V4(to) => format!("udp,{mac},nw_src=10.0.{port}.{host},nw_dst={to},nw_ttl=64,tp_src=4000,tp_dst=9"),
        IpAddr::V6(to) => {
            format!("udp6,{mac},ipv6_src=fd00:{port}::{host},ipv6_dst={to},nw_ttl=64,tp_src=4000,tp_dst=9")
        }
    }
}

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    key: PacketKey,
    bytes: Vec<u8>,
    /// What follows the transport header, or the ICMP header.
    payload: usize,
}

impl Seen {
    fn new(frame: &Frame) -> Self {
        let mut key = PacketKey::ZERO;
        let layers = extract(frame.bytes(), 0, &mut key);
        Self { key, bytes: frame.bytes().to_vec(), payload: layers.payload_ofs.into() }
    }

    fn get(&self, field: Field) -> u128 {
        self.key.get(field.slot())
    }

    fn v4(&self, field: Field) -> String {
        std::net::Ipv4Addr::from_bits(self.get(field) as u32).to_string()
    }

    fn v6(&self, field: Field) -> String {
        std::net::Ipv6Addr::from_bits(self.get(field)).to_string()
    }

    fn is_arp_request(&self) -> bool {
        self.get(Field::EthType) == 0x0806 && self.key.get(slot::IP_PROTO) == 1
    }

    /// Type and code of an ICMP or ICMPv6 message with a right checksum.
    fn icmp(&self) -> Option<(u8, u8)> {
        let v6 = match (self.get(Field::EthType), self.get(Field::IpProto)) {
            (0x0800, 1) => false,
            (0x86dd, 58) => true,
            _ => return None,
        };
        let message = &self.bytes[self.payload - 8..];
        let pseudo = match v6 {
            true => {
                let at = |from: usize| self.bytes[from..from + 16].try_into().unwrap();
                checksum::pseudo_v6(at(22), at(38), 58, message.len() as u32)
            }
            false => 0,
        };
        assert!(checksum::verify(message, pseudo), "a wrong checksum: {self:?}");
        Some((message[0], message[1]))
    }

    /// The second word of an ICMP message.
    fn word(&self) -> u32 {
        u32::from_be_bytes(self.bytes[self.payload - 4..self.payload].try_into().unwrap())
    }
}

/// A router with so many interfaces, and no routes but the connected ones.
fn spec(ports: u16) -> RouterSpec {
    RouterSpec {
        bridge: "br0".into(),
        first_table: 0,
        config: RouterConfig {
            name: "r1".into(),
            vrfs: vec![Vrf { name: "main".into(), id: VrfId(0) }],
            interfaces: (1..=ports).map(|no| interface(no, no, VrfId(0))).collect(),
            ..RouterConfig::default()
        },
        probes: Vec::new(),
    }
}

/// Interface `eN`, with the addresses of network `net`.
fn interface(no: u16, net: u16, vrf: VrfId) -> Interface {
    Interface {
        id: InterfaceId(no),
        name: format!("e{no}"),
        port: PortNo(no),
        vlan: None,
        vrf,
        mac: 0x0200_0000_0100 + u64::from(no),
        addresses: vec![format!("10.0.{net}.1/24").parse().unwrap(), format!("fd00:{net}::1/64").parse().unwrap()],
        mtu: 1500,
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    }
}

/// A route by routers: interface and address of each.
fn route(to: &str, via: &[(u16, &str)]) -> Route {
    let hop =
        |(no, via): &(u16, &str)| NextHop { interface: InterfaceId(*no), via: Some(via.parse().unwrap()), weight: 1 };
    Route {
        vrf: VrfId(0),
        destination: to.parse().unwrap(),
        kind: RouteKind::Unicast,
        next_hops: via.iter().map(hop).collect(),
        distance: 1,
    }
}
