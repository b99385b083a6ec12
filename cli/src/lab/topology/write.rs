//! A resolved topology written as a file again.
//!
//! A file says little and the rest follows from it. So what is written is as little as leads to the same topology: first
//! without addresses, MACs and port numbers, then with the one after the other, until reading it gives what was to be
//! written. That is checked, not hoped for: a text that reads differently is never given out.

mod test;

use super::parse;
use super::raw::{LEASE, show_lease};
use super::resolved::dhcp::DhcpServer;
use super::resolved::uplink::{Outside, Uplink};
use super::resolved::{
    Carried, End, Host, Impairment, Interface, Link, Router, RouterInterface, Rule, Topology, Tunnel,
};
use std::fmt::{Display, Write};

/// The MTU of a link whose file says none.
const MTU: u32 = 1500;

/// What is written beside what every file has.
#[derive(Clone, Copy)]
struct Detail {
    addresses: bool,
    macs: bool,
    ports: bool,
}

const DETAILS: [Detail; 4] = [
    Detail { addresses: false, macs: false, ports: false },
    Detail { addresses: true, macs: false, ports: false },
    Detail { addresses: true, macs: true, ports: false },
    Detail { addresses: true, macs: true, ports: true },
];

/// The text of a file that resolves to this topology; `None` when there is none.
pub(crate) fn write(topology: &Topology) -> Option<String> {
    let wanted = without_lines(topology.clone());
    let same = |text: &String| parse(text, &topology.source).is_ok_and(|read| without_lines(read) == wanted);
    DETAILS.iter().map(|detail| text(topology, *detail)).find(same)
}

/// Lines differ from file to file.
fn without_lines(mut topology: Topology) -> Topology {
    topology.switches.iter_mut().flat_map(|s| &mut s.rules).for_each(|rule| rule.line = 0);
    let files = topology.switches.iter_mut().flat_map(|s| s.groups.iter_mut().chain(&mut s.flows));
    // What is in a file is not the topology's to say.
    files.for_each(|file| (file.line, file.text) = (0, String::new()));
    topology.routers.iter_mut().flat_map(|r| &mut r.interfaces).for_each(|interface| interface.line = 0);
    topology.routers.iter_mut().flat_map(|r| &mut r.routes).for_each(|route| route.line = 0);
    topology.routers.iter_mut().flat_map(|r| &mut r.nat).for_each(|nat| nat.line = 0);
    topology.tunnels.iter_mut().for_each(|tunnel| tunnel.line = 0);
    topology.tests.iter_mut().for_each(|test| test.line = 0);
    topology
}

fn text(topology: &Topology, detail: Detail) -> String {
    let mut out = format!("lab: {}\nseed: {}\n", topology.name, topology.seed);
    // All other addresses can be given one by one.
    if let Some(uplink) = topology.uplink.as_ref().filter(|up| up.vlan.is_none() && !up.addresses().is_empty()) {
        let mut map = Map::default();
        let of =
            |v4: bool| uplink.addresses().iter().find(|net| net.addr().is_ipv4() == v4).map(|net| quoted(net.trunc()));
        map.put_some("subnet", of(true));
        map.put_some("subnet6", of(false));
        _ = writeln!(out, "defaults: {}", map.text());
    }
    section(&mut out, "vlans", &topology.vlans, |vlan| {
        let mut map = Map::default();
        map.put("id", vlan.id);
        map.put_some("subnet", vlan.subnet);
        map.put_some("subnet6", vlan.subnet6.map(quoted));
        map.put_some("gateway", vlan.gateway.as_ref());
        map.put_some("vni", vlan.vni);
        map.put_some("vrf", vlan.vrf.as_ref());
        map.put_some("dhcp", topology.dhcp_server(&vlan.name).map(dhcp_text));
        format!("{}: {}", vlan.name, map.text())
    });
    section(&mut out, "switches", &topology.switches, |switch| {
        let mut map = Map::default();
        map.put_list("rules", switch.rules.iter().map(rule));
        map.put_some("groups", switch.groups.as_ref().map(|file| quoted(&file.path)));
        map.put_some("flows", switch.flows.as_ref().map(|file| quoted(&file.path)));
        map.put_some("mirror", switch.mirror.as_ref());
        format!("{}: {}", switch.name, map.text())
    });
    let routers: Vec<_> = topology.own_routers().collect();
    section(&mut out, "routers", &routers, |router| router_text(router));
    section(&mut out, "hosts", &topology.hosts, |host| host_text(topology, host, detail));
    section(&mut out, "links", &topology.links, |link| format!("- {}", link_text(topology, link, detail)));
    section(&mut out, "tunnels", &topology.tunnels, |tunnel| format!("- {}", tunnel_text(tunnel)));
    if let Some(uplink) = &topology.uplink {
        _ = writeln!(out, "uplink: {}", uplink_text(uplink));
    }
    section(&mut out, "tests", &topology.tests, |test| format!("- {}", test::text(test)));
    out
}

fn section<T>(out: &mut String, name: &str, items: &[T], line: impl Fn(&T) -> String) {
    if !items.is_empty() {
        // Writing to a string cannot fail.
        _ = writeln!(out, "{name}:");
        items.iter().for_each(|item| _ = writeln!(out, "  {}", line(item)));
    }
}

/// A mapping on one line.
#[derive(Default)]
struct Map(Vec<String>);

impl Map {
    fn put(&mut self, key: &str, value: impl Display) {
        self.0.push(format!("{key}: {value}"));
    }

    fn put_some(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Nothing when there are no items.
    fn put_list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<_> = items.collect();
        if !items.is_empty() {
            self.put(key, format!("[{}]", items.join(", ")));
        }
    }

    fn text(&self) -> String {
        format!("{{{}}}", self.0.join(", "))
    }
}

/// A value in double quotes, whatever is in it.
fn quoted(value: impl Display) -> String {
    let mut out = "\"".to_owned();
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => _ = write!(out, "\\U{:08x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A rule from its flow, `priority=P,MATCH actions=ACTIONS`.
fn rule(rule: &Rule) -> String {
    let (front, action) = rule.flow.split_once(" actions=").unwrap_or((&rule.flow, ""));
    let front = front.strip_prefix("priority=").unwrap_or(front);
    let (priority, matches) = front.split_once(',').unwrap_or((front, ""));
    let mut map = Map::default();
    map.put("name", &rule.name);
    if !matches.is_empty() {
        map.put("match", quoted(matches));
    }
    map.put("action", quoted(action));
    map.put("priority", priority);
    map.text()
}

fn dhcp_text(server: &DhcpServer) -> String {
    if server.lease() == LEASE { "true".to_owned() } else { format!("{{lease: {}}}", show_lease(server.lease())) }
}

fn uplink_text(uplink: &Uplink) -> String {
    let mut map = Map::default();
    map.put("switch", &uplink.switch);
    map.put_some("vlan", uplink.vlan.as_ref());
    match &uplink.outside {
        Outside::Nat { .. } => map.put("mode", "nat"),
        Outside::Device(name) => map.put("dev", quoted(name)),
    }
    map.text()
}

fn router_text(router: &Router) -> String {
    let mut map = Map::default();
    let routes = router.routes.iter().map(|route| {
        let mut map = Map::default();
        map.put("to", quoted(route.to));
        map.put_list("via", route.via.iter().map(quoted));
        map.put_some("vrf", route.vrf.as_ref());
        map.text()
    });
    map.put_list("routes", routes);
    map.put_some("nat", router.nat.as_ref().map(|_| "uplink"));
    format!("{}: {}", router.name, map.text())
}

fn host_text(topology: &Topology, host: &Host, detail: Detail) -> String {
    let mut map = Map::default();
    if let Some(first) = host.interfaces.first() {
        // Addresses on a link to a router are the link's to give.
        if detail.addresses && !topology.routers.iter().any(|router| router.name == first.switch) {
            map.put_list("ip", first.addresses.iter().map(quoted));
        }
        if first.dhcp {
            map.put("dhcp", true);
        }
        if detail.macs {
            map.put("mac", quoted(first.mac));
        }
    }
    if !host.env.is_empty() {
        let env: Vec<_> = host.env.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
        map.put("env", format!("{{{}}}", env.join(", ")));
    }
    map.put_some("run", host.run.as_ref().map(quoted));
    format!("{}: {}", host.name, map.text())
}

fn link_text(topology: &Topology, link: &Link, detail: Detail) -> String {
    let ends = link.ends.each_ref().map(|end| match end {
        End::Stack { stack, .. } => stack.clone(),
        end if detail.ports => end.to_string(),
        end => end.node().to_owned(),
    });
    let mut map = Map::default();
    map.put("ends", format!("[{}, {}]", ends[0], ends[1]));
    if link.name != format!("{}-{}", link.ends[0].node(), link.ends[1].node()) {
        map.put("name", &link.name);
    }
    match &link.carried {
        Carried::All => {}
        Carried::Access(vlan) => map.put("access", vlan),
        Carried::Trunk { vlans, native } => {
            map.put_list("trunk", vlans.iter().cloned());
            map.put_some("native", native.as_ref());
        }
    }
    if link.mtu != MTU {
        map.put("mtu", link.mtu);
    }
    put_addresses(topology, link, detail, &mut map);
    put_domains(topology, link, &mut map);
    let [there, back] = &link.impairment;
    there.differing(&Impairment::default()).iter().for_each(|(key, value)| map.put(key, value));
    if link.down {
        map.put("down", true);
    }
    if back != there {
        let mut other = Map::default();
        back.differing(there).iter().for_each(|(key, value)| other.put(key, value));
        map.put("back", other.text());
    }
    // Only ends: the short form.
    if map.0.len() == 1 { format!("[{}, {}]", ends[0], ends[1]) } else { map.text() }
}

/// `ips:`, where a link gives its ends addresses.
fn put_addresses(topology: &Topology, link: &Link, detail: Detail, map: &mut Map) {
    let list = |addresses: Vec<String>| match addresses.as_slice() {
        [] => "null".to_owned(),
        [one] => one.clone(),
        _ => format!("[{}]", addresses.join(", ")),
    };
    let to_switch = link.ends.iter().any(|end| matches!(end, End::Switch { .. }));
    let trunk = matches!(link.carried, Carried::Trunk { .. });
    let addresses = match &link.underlay {
        Some(underlay) => underlay.each_ref().map(|end| end.addresses.iter().map(quoted).collect()),
        None if trunk || to_switch && !detail.addresses => return,
        None => link.ends.each_ref().map(|end| match end {
            End::Router { router, port } => {
                interfaces(topology, router, *port).flat_map(|i| &i.addresses).map(quoted).collect()
            }
            End::Host { host, interface } if !to_switch => {
                let found = topology.host(host).and_then(|h| h.interfaces.iter().find(|i| i.name == *interface));
                found.map_or_else(Vec::new, |i: &Interface| i.addresses.iter().map(quoted).collect())
            }
            _ => Vec::new(),
        }),
    };
    if addresses.iter().any(|end: &Vec<String>| !end.is_empty()) {
        let [a, b] = addresses.map(list);
        map.put("ips", format!("[{a}, {b}]"));
    }
}

/// `vrf:`, where it is the link and not the VLAN that says it.
fn put_domains(topology: &Topology, link: &Link, map: &mut Map) {
    let domains = link.ends.each_ref().map(|end| {
        let End::Router { router, port } = end else { return None };
        let interface = interfaces(topology, router, *port).next()?;
        let of_vlan = interface.vlan.as_ref().and_then(|name| topology.vlan(name)).and_then(|vlan| vlan.vrf.as_ref());
        interface.vrf.as_ref().filter(|vrf| Some(*vrf) != of_vlan)
    });
    match domains {
        [None, None] => {}
        [Some(a), Some(b)] if a == b => map.put("vrf", a),
        domains => {
            let [a, b] = domains.map(|vrf| vrf.map_or("null", String::as_str));
            map.put("vrf", format!("[{a}, {b}]"));
        }
    }
}

/// A router's interfaces at one of its ports.
fn interfaces<'a>(topology: &'a Topology, router: &str, port: u16) -> impl Iterator<Item = &'a RouterInterface> {
    let found = topology.routers.iter().find(|r| r.name == router);
    found.into_iter().flat_map(|r| &r.interfaces).filter(move |i| i.port == port)
}

fn tunnel_text(tunnel: &Tunnel) -> String {
    let mut map = Map::default();
    map.put("name", &tunnel.name);
    map.put("type", tunnel.kind.name());
    map.put_list("ends", tunnel.ends.iter().map(|end| end.switch.clone()));
    map.put_some("vni", tunnel.vni);
    match &tunnel.carried {
        Carried::All => {}
        Carried::Access(vlan) => map.put("vlans", format!("[{vlan}]")),
        Carried::Trunk { vlans, .. } => map.put_list("vlans", vlans.iter().cloned()),
    }
    match &tunnel.over {
        Some(over) => map.put("over", over),
        None => map.put_some("remote", tunnel.ends.first().map(|end| quoted(end.remote))),
    }
    map.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round_trip(text: &str) -> String {
        let topology = parse(text, "x.yml").unwrap();
        let written = write(&topology).unwrap_or_else(|| panic!("{}", super::text(&topology, DETAILS[3])));
        let again = parse(&written, "x.yml").unwrap();
        assert_eq!(without_lines(again), without_lines(topology), "{written}");
        written
    }

    #[test]
    fn a_file_without_peculiarities_stays_short() {
        let written = round_trip("lab: a\nlinks: [[h1, s1], [h2, s1], [s1, s2]]\n");
        assert_eq!(
            written,
            "lab: a\nseed: 1\nswitches:\n  s1: {}\n  s2: {}\nhosts:\n  h1: {}\n  h2: {}\n\
             links:\n  - [h1, s1]\n  - [h2, s1]\n  - [s1, s2]\n"
        );
    }

    #[test]
    fn addresses_macs_ports_rules_and_environments_survive() {
        round_trip(
            "lab: office\nseed: 7\ndefaults: {mtu: 9000, subnet: 10.7.0.0/16, subnet6: \"fd07::/64\"}\n\
             switches: {s1: {rules: [{name: no-ssh, match: \"tcp,tcp_dst=22\", action: drop},\n\
             \x20 {name: rest, action: \"NORMAL\", priority: 1}]}, s2: {flows: \"a b.flows\", groups: a.groups}}\n\
             hosts: {h1: {ip: [10.7.0.20, \"fd07::20\"], mac: \"02:00:00:00:00:0b\"},\n\
             \x20 h2: {run: \"sluice lab serve 80 # \\\"\", env: {A: \"x \\\"y\\\" \\\\ z\", B: \"\", C: \"line\\nfeed\"}}}\n\
             links: [[h1, \"s1:7\"], [\"h2:eth1\", s2], [h2, s1], {ends: [s1, s2], name: trunk, mtu: 1400}]\n",
        );
    }

    #[test]
    fn impairments_are_written_for_each_way() {
        let written = round_trip(
            "lab: wan\nlinks:\n\
             - {ends: [h1, s1], delay: 20ms, jitter: 3ms}\n\
             - {ends: [s1, s2], delay: 20ms, jitter: 3ms, back: {delay: 60ms, jitter: 0ms}}\n\
             - {ends: [s2, h2], back: {delay: 1.5ms}}\n\
             - {ends: [s2, h3], delay: 1ms, loss: 0.5%, rate: 1.5gbit, queue: 50ms, duplicate: 1%, corrupt: 0.01%,\n\
             \x20  reorder: 25%, back: {loss: 0%, rate: 64kbit, queue: 100p}}\n",
        );
        let written_down = round_trip("lab: a\nlinks: [{ends: [h1, s1], down: true}, {ends: [h2, s1], down: false}]\n");
        assert!(written_down.contains("- {ends: [h1, s1], down: true}\n  - [h2, s1]\n"), "{written_down}");
        assert!(
            written.contains(
                "- {ends: [s2, h3], delay: 1ms, loss: 0.5%, rate: 1.5gbit, queue: 50ms, duplicate: 1%, \
                 corrupt: 0.01%, reorder: 25%, back: {loss: 0%, rate: 64kbit, queue: 100p}}\n"
            ),
            "{written}"
        );
        assert!(written.contains("- {ends: [h1, s1], delay: 20ms, jitter: 3ms}\n"), "{written}");
        assert!(written.contains("delay: 20ms, jitter: 3ms, back: {delay: 60ms, jitter: 0ms}}\n"), "{written}");
        assert!(written.contains("- {ends: [s2, h2], back: {delay: 1.5ms}}\n"), "{written}");
    }

    #[test]
    fn tests_survive() {
        let written = round_trip(
            "lab: a\nhosts: {h1: {}, h2: {}}\nswitches: {s1: {rules: [{name: no-ssh, action: drop}]}}\n\
             links: [[h1, s1], [h2, s1]]\ntests:\n\
             - {ping: [h1, h2], rtt: 74..90ms, max_loss: 0.5%, within: 20s}\n\
             - {name: six, ping: [h1, 'fd00::1'], want: drop}\n\
             - {tcp: [h1, 'h2:22'], want: drop, by: no-ssh}\n\
             - {tcp: [h1, 'h2:23'], want: drop, by: 'np:shop/deny'}\n\
             - {tcp: [h2, '[fd00::1]:80'], want: refused}\n",
        );
        assert!(
            written.contains("- {ping: [h1, \"h2\"], rtt: 74ms..90ms, max_loss: 0.5%, within: 20s}\n"),
            "{written}"
        );
    }

    #[test]
    fn every_example_survives() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
        let mut seen = 0;
        let mut folders = vec![std::path::PathBuf::from(examples)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "yml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    if text.lines().any(|line| line.starts_with("lab:")) {
                        round_trip(&text);
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen >= 3, "{seen} examples");
    }

    #[test]
    fn vlans_routers_domains_and_tunnels_survive() {
        round_trip(
            "lab: net\nvlans:\n\
             \x20 blue: {id: 10, subnet: 10.0.10.0/24, gateway: r1}\n\
             \x20 green: {id: 20, subnet: 10.0.20.0/24, subnet6: \"fd00:20::/64\", gateway: s1, vni: 200}\n\
             switches: {s1: {}, s2: {}}\n\
             routers: {r1: {routes: [{to: default, via: 10.9.0.2}, {to: 10.8.0.0/16, via: [10.9.0.2]}]}}\n\
             hosts: {h1: {}, h2: {}, far: {}}\n\
             links:\n\
             - {ends: [h1, s1], access: blue}\n\
             - {ends: [h2, s2], access: green}\n\
             - {ends: [r1, s1], trunk: [blue], native: green}\n\
             - {ends: [r1, far], ips: [10.9.0.1/24, 10.9.0.2/24]}\n\
             - {ends: [s1, s2], name: core, ips: [192.0.2.1/30, 192.0.2.2/30], mtu: 1600, delay: 5ms}\n\
             tunnels: [{name: t1, type: vxlan, ends: [s1, s2], vni: 200, vlans: [green], over: core}]\n",
        );
    }
}
