//! Who sends to whom: read from cached answers, drops and connections.

use super::shape::{Node, Talk};
use sluice_proto::v1::{Connection, Drop, Megaflow};
use std::collections::{BTreeMap, HashMap};

/// Most pairs that a page is told of.
const MAX_TALKS: usize = 500;

/// Whom an address belongs to.
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn of(nodes: &'a [Node]) -> Self {
        let mut names = HashMap::new();
        for node in nodes {
            let bare = node.addresses.iter().map(|net| net.split('/').next().unwrap_or(net));
            names.extend(bare.chain(node.macs.iter().map(String::as_str)).map(|address| (address, node.name.as_str())));
        }
        Self(names)
    }

    /// The node, or the address itself.
    fn name(&self, address: &str) -> String {
        self.0.get(address).map_or(address, |name| name).to_owned()
    }

    /// Both ends of a packet. The node that has an end's address by IP is the better answer: a MAC may be a gateway's.
    fn ends(&self, flow: &str) -> Option<(String, String)> {
        let value = |names: [&str; 3]| {
            let exact = |name: &&str| field(flow, name).filter(|value| !value.contains('/'));
            names.iter().find_map(exact).filter(|value| !is_group(value))
        };
        let from = value(["nw_src", "ipv6_src", "dl_src"])?;
        let to = value(["nw_dst", "ipv6_dst", "dl_dst"])?;
        Some((self.name(from), self.name(to)))
    }
}

/// Whether an address is of many: everybody who listens, which is no talk of two.
fn is_group(address: &str) -> bool {
    let mac = address.len() == 17 && address.split(':').count() == 6;
    let odd = u8::from_str_radix(address.get(..2).unwrap_or_default(), 16).is_ok_and(|first| first & 1 == 1);
    let ip = address.parse::<std::net::IpAddr>();
    mac && odd || ip.is_ok_and(|ip| ip.is_multicast() || ip == std::net::Ipv4Addr::BROADCAST)
}

/// The value of a field of a flow.
fn field<'a>(flow: &'a str, name: &str) -> Option<&'a str> {
    flow.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// Everybody who sends to somebody, most packets first.
pub(super) fn talks(nodes: &[Node], megaflows: &[Megaflow], drops: &[Drop], connections: &[Connection]) -> Vec<Talk> {
    let names = Names::of(nodes);
    let mut pairs: BTreeMap<(String, String, &'static str), (u64, String)> = BTreeMap::new();
    let mut put = |(from, to): (String, String), verdict, packets: u64, owner: &str| {
        let pair = pairs.entry((from, to, verdict)).or_default();
        // What crosses several bridges is counted on each.
        if packets >= pair.0 {
            *pair = (packets, owner.to_owned());
        }
    };
    for flow in megaflows {
        let Some(ends) = names.ends(&flow.r#match) else { continue };
        let verdict = if flow.actions.trim() == "drop" { "drop" } else { "forward" };
        put(ends, verdict, flow.packets, &flow.owner);
    }
    for drop in drops {
        if let Some(ends) = names.ends(&drop.last_packet) {
            put(ends, "drop", drop.packets, &drop.owner);
        }
    }
    for connection in connections {
        let (Some(original), Some(reply)) = (&connection.original, &connection.reply) else { continue };
        let packets = connection.original_count.unwrap_or_default().packets;
        put((names.name(&original.src), names.name(&reply.src)), "forward", packets, &connection.owner);
    }
    let talk = |((from, to, verdict), (packets, owner))| Talk { from, to, verdict, packets, owner };
    let mut talks: Vec<_> = pairs.into_iter().map(talk).filter(|talk| talk.from != talk.to).collect();
    talks.sort_by_key(|talk| std::cmp::Reverse(talk.packets));
    talks.truncate(MAX_TALKS);
    talks
}

#[cfg(test)]
mod tests {
    use super::super::shape::NodeKind;
    use super::*;

    fn node(name: &str, address: &str, mac: &str) -> Node {
        let (addresses, macs) = (vec![address.to_owned()], vec![mac.to_owned()]);
        Node { name: name.to_owned(), kind: NodeKind::Host, addresses, macs }
    }

    #[test]
    fn ends_are_called_by_the_names_of_nodes() {
        let nodes = [node("h1", "10.0.0.1/24", "02:00:00:00:00:01"), node("h2", "fd00::2/64", "02:00:00:00:00:02")];
        let flow = |text: &str, actions: &str, packets| Megaflow {
            r#match: text.to_owned(),
            actions: actions.to_owned(),
            packets,
            ..Megaflow::default()
        };
        let megaflows = [
            flow("in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_src=10.0.0.0/24", "2", 7),
            flow("in_port=3,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02", "2", 5),
            flow("in_port=1,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff", "2,3", 9),
            flow("ip,nw_src=10.0.0.1,nw_dst=224.0.0.5", "drop", 9),
            flow("in_port=1", "drop", 9),
        ];
        let last_packet = "tcp,nw_src=10.0.0.1,nw_dst=192.0.2.9,tp_dst=22".to_owned();
        let drops = [Drop { last_packet, owner: "lab:no-ssh".to_owned(), packets: 3, ..Drop::default() }];
        let talk = |to: &str, verdict, packets, owner: &str| Talk {
            from: "h1".to_owned(),
            to: to.to_owned(),
            verdict,
            packets,
            owner: owner.to_owned(),
        };
        let expected = [talk("h2", "forward", 7, ""), talk("192.0.2.9", "drop", 3, "lab:no-ssh")];
        assert_eq!(talks(&nodes, &megaflows, &drops, &[]), expected);
    }
}
