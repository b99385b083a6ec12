//! A line of the log.

use crate::cmd::ct::proto_name;
use crate::cmd::events::time_of_day;
use serde_json::{Value, json};
use sluice_proto::v1::{Connection, Drop};
use std::net::IpAddr;

/// What policies did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Drop,
}

/// A connection that was accepted, or packets that were dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) time_unix_ns: u64,
    pub(super) node: Option<String>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The destination's; 0 for none.
    pub(super) port: u32,
    pub(super) protocol: String,
    pub(super) verdict: Verdict,
    /// The rules, as owners of flows.
    pub(super) by: Vec<String>,
    pub(super) packets: u64,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Drop => "DROP",
        }
    }
}

/// The bits of a label that have the rule for egress, and those for ingress.
const RULE_BITS: u32 = 32;

/// The rules' numbers in a label; none for 0.
pub(super) fn rules(label: &str) -> [Option<u32>; 2] {
    let label = label.strip_prefix("0x").and_then(|text| u128::from_str_radix(text, 16).ok()).unwrap_or_default();
    // Each is what is left of 32 bits.
    [label as u32, (label >> RULE_BITS) as u32].map(|number| Some(number).filter(|number| *number != 0))
}

impl Record {
    /// A connection that was accepted by rules of these names; none if it cannot be told.
    pub(super) fn accepted(
        connection: &Connection,
        by: Vec<String>,
        time_unix_ns: u64,
        node: Option<&str>,
    ) -> Option<Self> {
        let original = connection.original.as_ref()?;
        // Policies judge where it really goes.
        let reply = connection.reply.as_ref().filter(|_| connection.dnat);
        let (destination, port) =
            reply.map_or((&original.dst, original.dst_port), |reply| (&reply.src, reply.src_port));
        Some(Self {
            time_unix_ns,
            node: node.map(str::to_owned),
            source: original.src.parse().ok()?,
            destination: destination.parse().ok()?,
            port: if original.icmp_type.is_some() { 0 } else { port },
            protocol: proto_name(connection.proto),
            verdict: Verdict::Allow,
            by,
            packets: 1,
        })
    }

    /// Packets that were dropped since somebody looked; none if the last one was not kept, or has no addresses.
    pub(super) fn dropped(drop: &Drop, packets: u64, now_unix_ns: u64, node: Option<&str>) -> Option<Self> {
        let words: Vec<&str> = drop.last_packet.split(',').map(str::trim).collect();
        let value = |names: &[&str]| {
            let pairs = words.iter().filter_map(|word| word.split_once('='));
            pairs.filter(|(name, _)| names.contains(name)).map(|(_, value)| value).next()
        };
        let protocols = ["tcp", "udp", "sctp", "icmp", "icmp6", "tcp6", "udp6", "sctp6", "ip", "ipv6"];
        let protocol = words.iter().copied().find(|word| protocols.contains(word)).unwrap_or("ip");
        let protocol = if protocol == "icmp6" { protocol } else { protocol.trim_end_matches('6') };
        let port = value(&["tp_dst", "tcp_dst", "udp_dst", "sctp_dst"]).and_then(|port| port.parse().ok());
        let ago = drop.last_ms.unwrap_or_default().saturating_mul(1_000_000);
        Some(Self {
            time_unix_ns: now_unix_ns.saturating_sub(ago),
            node: node.map(str::to_owned),
            source: value(&["nw_src", "ipv6_src"])?.parse().ok()?,
            destination: value(&["nw_dst", "ipv6_dst"])?.parse().ok()?,
            port: port.unwrap_or_default(),
            protocol: protocol.to_owned(),
            verdict: Verdict::Drop,
            by: vec![drop.owner.clone()],
            packets,
        })
    }

    fn by(&self) -> String {
        self.by.join(" ")
    }

    /// For a person, by the ends' names.
    pub(super) fn line(&self, from: &str, to: &str) -> String {
        let to = match self.port {
            0 => to.to_owned(),
            port if to.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) => format!("[{to}]:{port}"),
            port => format!("{to}:{port}"),
        };
        let (time, verdict) = (time_of_day(self.time_unix_ns), self.verdict.word());
        format!("{time}  {from} -> {to}  {}  {verdict}  {}  {}", self.protocol, self.by(), self.packets)
    }

    /// For a program.
    pub(super) fn json(&self, from: &str, to: &str) -> Value {
        json!({
            "time_unix_ns": self.time_unix_ns, "node": self.node, "verdict": self.verdict.word(), "by": self.by,
            "from": from, "source": self.source, "to": to, "destination": self.destination,
            "protocol": self.protocol, "port": Some(self.port).filter(|port| *port != 0), "packets": self.packets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::ConnectionTuple;

    #[test]
    fn a_label_has_the_rules_of_both_ends() {
        assert_eq!(rules("0x0"), [None, None]);
        assert_eq!(rules("0x1f"), [Some(0x1f), None]);
        assert_eq!(rules("0x1_0000_0000".replace('_', "").as_str()), [None, Some(1)]);
        assert_eq!(rules("0x10000000200000003"), [Some(3), Some(2)]);
        assert_eq!(rules("nonsense"), [None, None]);
    }

    #[test]
    fn a_drop_is_told_by_its_last_packet() {
        let drop = Drop {
            last_packet:
                "tcp,in_port=3,dl_src=02:00:00:00:00:01,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=4000,tp_dst=5432"
                    .to_owned(),
            owner: "np:shop/db/ingress/default".to_owned(),
            last_ms: Some(500),
            ..Drop::default()
        };
        let record = Record::dropped(&drop, 3, 86_400_000_000_000 + 43_267_500_000_000, None).unwrap();
        assert_eq!(
            record.line("shop/web", "shop/db-0"),
            "12:01:07.000Z  shop/web -> shop/db-0:5432  tcp  DROP  np:shop/db/ingress/default  3"
        );
        let without = Drop { last_packet: "arp,arp_spa=10.0.0.1".to_owned(), ..drop };
        assert_eq!(Record::dropped(&without, 1, 0, None), None);
    }

    #[test]
    fn a_connection_to_a_service_is_told_with_its_endpoint() {
        let tuple = |src: &str, src_port, dst: &str, dst_port| {
            let (src, dst) = (src.to_owned(), dst.to_owned());
            Some(ConnectionTuple { src, dst, src_port, dst_port, ..ConnectionTuple::default() })
        };
        let connection = Connection {
            proto: 6,
            original: tuple("fd00::1", 4000, "fd00:96::1", 80),
            reply: tuple("fd00::2", 8080, "fd00::1", 4000),
            dnat: true,
            ..Connection::default()
        };
        let record = Record::accepted(&connection, vec!["np:a/b/egress/0".to_owned()], 0, None).unwrap();
        assert_eq!(
            record.line("fd00::1", "fd00::2"),
            "00:00:00.000Z  fd00::1 -> [fd00::2]:8080  tcp  ALLOW  np:a/b/egress/0  1"
        );
    }
}
