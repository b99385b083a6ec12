//! What the server of names answers, from bytes to bytes.

use crate::lab::names;
use crate::lab::topology::Topology;
use ipnet::Ipv4Net;
use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// For how long an answer may be remembered, in seconds. Addresses stay for as long as the lab is up, so this is for the next
/// lab.
const TTL: u32 = 30;
/// Longest answer to a query without EDNS (RFC 1035, section 4.2.1).
const PLAIN_MAX: usize = 512;
/// Longest answer to a query with it, as is usual: it fits every link unfragmented.
const EDNS_MAX: u16 = 1232;
/// Length of a message's header.
const HEADER: usize = 12;

/// The names of a lab, as a server of one of its networks tells them.
pub(in crate::lab) struct Zone {
    domain: String,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::lab) enum Answer {
    /// This goes back.
    Reply(Vec<u8>),
    /// It is not the lab's: others may know, and if nobody can be asked, this goes back.
    Elsewhere(Vec<u8>),
    /// It is no query.
    Nothing,
}

impl Zone {
    /// The zone of a lab; of several addresses of a node, those in `near` come first.
    pub(in crate::lab) fn of(topology: &Topology, near: Ipv4Net) -> Self {
        let is_far = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if !near.contains(ip));
        let mut zone = Self { domain: topology.name.clone(), addresses: BTreeMap::new(), names: BTreeMap::new() };
        for (name, mut addresses) in names::of(topology) {
            addresses.sort_by_key(is_far);
            for ip in &addresses {
                zone.names.entry(*ip).or_insert_with(|| format!("{name}.{}", topology.name));
            }
            zone.addresses.insert(name.to_owned(), addresses);
        }
        zone
    }

    /// The answer to a query; one that came by TCP may be answered at any length.
    pub(in crate::lab) fn answer(&self, query: &[u8], by_tcp: bool) -> Answer {
        // The id, and the bit that says that it is an answer itself.
        let (Some([id_high, id_low, flags, ..]), true) = (query.first_chunk::<3>(), query.len() >= HEADER) else {
            return Answer::Nothing;
        };
        if flags & 0x80 != 0 {
            return Answer::Nothing;
        }
        let Ok(query) = Packet::parse(query) else {
            let mut reply = Packet::new_reply(u16::from_be_bytes([*id_high, *id_low]));
            *reply.rcode_mut() = RCODE::FormatError;
            return reply.build_bytes_vec().map_or(Answer::Nothing, Answer::Elsewhere);
        };
        let mut reply = Packet::new_reply(query.id());
        reply.questions.clone_from(&query.questions);
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            // Some resolvers do not believe a server that says that it does not recurse.
            reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
        }
        if query.opt().is_some() {
            *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: EDNS_MAX, version: 0 });
        }
        let mut elsewhere = false;
        match query.questions.as_slice() {
            _ if query.opcode() != OPCODE::StandardQuery => *reply.rcode_mut() = RCODE::NotImplemented,
            [question] => match self.find(&question.qname.to_string(), question.qtype) {
                Found::Records(records) => {
                    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
                    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
                    reply.answers = records.into_iter().map(record).collect();
                }
                Found::NoName { ours } => {
                    elsewhere = !ours;
                    *reply.rcode_mut() = RCODE::NameError;
                }
            },
            _ => *reply.rcode_mut() = RCODE::FormatError,
        }
        let room = query.opt().map_or(PLAIN_MAX, |opt| usize::from(opt.udp_packet_size.clamp(512, EDNS_MAX)));
        let mut bytes = reply.build_bytes_vec_compressed();
        if !by_tcp && bytes.as_ref().is_ok_and(|bytes| bytes.len() > room) {
            reply.answers.clear();
            reply.set_flags(PacketFlag::TRUNCATION);
            bytes = reply.build_bytes_vec_compressed();
        }
        let wrap = if elsewhere { Answer::Elsewhere } else { Answer::Reply };
        bytes.map_or(Answer::Nothing, wrap)
    }

    /// The records of a name, which may be written in any case.
    fn find(&self, name: &str, wanted: QTYPE) -> Found<'_> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_wanted = |kind| wanted == QTYPE::ANY || wanted == QTYPE::TYPE(kind);
        if let Some(address) = reversed(&name) {
            return match self.names.get(&address) {
                Some(name) => {
                    let record = Name::new(name).ok().filter(|_| is_wanted(TYPE::PTR));
                    Found::Records(record.map(|name| RData::PTR(PTR(name))).into_iter().collect())
                }
                None => Found::NoName { ours: false },
            };
        }
        let own = name.strip_suffix(&self.domain).and_then(|front| front.strip_suffix('.'));
        match self.addresses.get(own.unwrap_or(name.as_str())) {
            Some(addresses) => {
                let data = addresses.iter().filter_map(|address| match address {
                    IpAddr::V4(ip) => is_wanted(TYPE::A).then(|| RData::A(A { address: ip.to_bits() })),
                    IpAddr::V6(ip) => is_wanted(TYPE::AAAA).then(|| RData::AAAA(AAAA { address: ip.to_bits() })),
                });
                Found::Records(data.collect())
            }
            // The domain itself is there and has nothing.
            None if name == self.domain => Found::Records(Vec::new()),
            None => Found::NoName { ours: own.is_some() || !name.contains('.') },
        }
    }
}

enum Found<'a> {
    /// The name is there, with these records.
    Records(Vec<RData<'a>>),
    /// It is not; nobody else can know it if it is ours.
    NoName { ours: bool },
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = octets.rsplit('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(octets).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let digits: Vec<_> = digits.rsplit('.').collect();
    if digits.len() != 32 || digits.iter().any(|digit| digit.len() != 1) {
        return None;
    }
    u128::from_str_radix(&digits.concat(), 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::topology;
    use simple_dns::Question;

    fn zone() -> Zone {
        let file = "\
lab: office
vlans:
  blue: {subnet: 10.0.10.0/24, subnet6: \"fd00:10::/64\", gateway: r1, dhcp: true}
  green: {subnet: 10.0.20.0/24, gateway: r1}
switches: {s1: {}}
routers: {r1: {}}
hosts: {h1: {dhcp: true}, web: {}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [web, s1], access: green}
  - {ends: [r1, s1], trunk: [green, blue]}
";
        let topology = topology::parse(file, "t.yml").map_err(crate::failure::Failure::from).unwrap();
        Zone::of(&topology, "10.0.10.254/24".parse().unwrap())
    }

    fn query(name: &str, kind: QTYPE) -> Vec<u8> {
        let mut query = Packet::new_query(0x1234);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(Name::new(name).unwrap(), kind, CLASS::IN.into(), false));
        query.build_bytes_vec().unwrap()
    }

    /// The answer's code and its addresses or names.
    fn ask(name: &str, kind: impl Into<QTYPE>) -> (RCODE, Vec<String>) {
        let (Answer::Reply(reply) | Answer::Elsewhere(reply)) = zone().answer(&query(name, kind.into()), false) else {
            panic!("no answer");
        };
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!(reply.id(), 0x1234);
        let data = reply.answers.iter().map(|record| match &record.rdata {
            RData::A(a) => Ipv4Addr::from_bits(a.address).to_string(),
            RData::AAAA(a) => Ipv6Addr::from_bits(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => format!("{other:?}"),
        });
        (reply.rcode(), data.collect())
    }

    fn found(data: &[&str]) -> (RCODE, Vec<String>) {
        (RCODE::NoError, data.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn nodes_are_found_by_both_names_in_both_ip_versions() {
        for name in ["h1", "h1.office", "H1.Office"] {
            assert_eq!(ask(name, TYPE::A), found(&["10.0.10.2"]), "{name}");
            assert_eq!(ask(name, TYPE::AAAA), found(&["fd00:10::2"]), "{name}");
        }
        assert_eq!(ask("h1", QTYPE::ANY), found(&["10.0.10.2", "fd00:10::2"]));
        assert_eq!(ask("web", TYPE::AAAA), found(&[]), "the name is there, without such an address");
        assert_eq!(ask("web", TYPE::MX), found(&[]));
        // The nearest of a router's addresses comes first, whatever the order of its interfaces.
        assert_eq!(ask("r1", TYPE::A), found(&["10.0.10.1", "10.0.20.1"]));
    }

    #[test]
    fn addresses_have_names() {
        assert_eq!(ask("2.10.0.10.in-addr.arpa", TYPE::PTR), found(&["h1.office"]));
        let v6 = format!("2.{}0.1.0.0.0.0.d.f.ip6.arpa", "0.".repeat(23));
        assert_eq!(ask(&v6, TYPE::PTR), found(&["h1.office"]));
        let none = (RCODE::NameError, Vec::new());
        for name in ["9.10.0.10.in-addr.arpa", "10.in-addr.arpa", "x.10.0.10.in-addr.arpa", "2.ip6.arpa"] {
            assert_eq!(ask(name, TYPE::PTR), none, "{name}");
        }
    }

    #[test]
    fn only_names_of_elsewhere_are_asked_elsewhere() {
        let asked = |name| matches!(zone().answer(&query(name, TYPE::A.into()), false), Answer::Elsewhere(_));
        assert_eq!(["h1", "h9", "h9.office", "office"].map(asked), [false; 4]);
        assert_eq!(["example.org", "h1.example.org", "1.2.0.192.in-addr.arpa"].map(asked), [true; 3]);
        assert_eq!(["h9", "h9.office", "example.org"].map(|name| ask(name, TYPE::A).0), [RCODE::NameError; 3]);
        assert_eq!(ask("office", TYPE::A), found(&[]));
    }

    #[test]
    fn what_is_no_query_is_left_or_refused() {
        let zone = zone();
        let sound = query("h1", TYPE::A.into());
        let mut answer = sound.clone();
        answer[2] |= 0x80;
        assert_eq!(zone.answer(&answer, false), Answer::Nothing);
        for end in 0..sound.len() {
            match zone.answer(&sound[..end], false) {
                Answer::Nothing => assert!(end < HEADER),
                Answer::Reply(reply) | Answer::Elsewhere(reply) => {
                    assert_eq!(Packet::parse(&reply).unwrap().rcode(), RCODE::FormatError, "{end} bytes");
                }
            }
        }
        let mut update = sound;
        update[2] |= 5 << 3;
        let Answer::Reply(reply) = zone.answer(&update, false) else { panic!("no reply") };
        assert_eq!(Packet::parse(&reply).unwrap().rcode(), RCODE::NotImplemented);
    }

    #[test]
    fn what_is_too_long_for_udp_is_said_by_tcp() {
        let mut zone = zone();
        let many = (0..200).map(|last| IpAddr::from([10, 0, 10, last]));
        zone.addresses.insert("many".to_owned(), many.collect());
        let sizes = [false, true].map(|by_tcp| {
            let Answer::Reply(reply) = zone.answer(&query("many", TYPE::A.into()), by_tcp) else { panic!("no reply") };
            let read = Packet::parse(&reply).unwrap();
            (reply.len() <= PLAIN_MAX, read.has_flags(PacketFlag::TRUNCATION), read.answers.len())
        });
        assert_eq!(sizes, [(true, true, 0), (false, false, 200)]);
    }
}
