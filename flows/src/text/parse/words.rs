//! The words of matches and flows, found by hash: a file of flows has a dozen of them a line.

use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_RARP, FIELDS, Field,
    IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP,
};
use std::sync::LazyLock;

/// What a word of a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatchWord {
    /// An EtherType, and an IP protocol unless it is 0.
    Protocol(u16, u8),
    /// `eth`: an Ethernet packet.
    Eth,
    /// `dl_vlan`.
    DlVlan,
    /// A field.
    Field(Field),
}

/// Words that stand for an EtherType and an IP protocol.
const PROTOCOLS: [(&str, u16, u8); 17] = [
    ("ip", ETH_TYPE_IPV4, 0),
    ("ipv4", ETH_TYPE_IPV4, 0),
    ("ip4", ETH_TYPE_IPV4, 0),
    ("arp", ETH_TYPE_ARP, 0),
    ("rarp", ETH_TYPE_RARP, 0),
    ("icmp", ETH_TYPE_IPV4, IP_PROTO_ICMP),
    ("tcp", ETH_TYPE_IPV4, IP_PROTO_TCP),
    ("udp", ETH_TYPE_IPV4, IP_PROTO_UDP),
    ("sctp", ETH_TYPE_IPV4, IP_PROTO_SCTP),
    ("ipv6", ETH_TYPE_IPV6, 0),
    ("ip6", ETH_TYPE_IPV6, 0),
    ("icmp6", ETH_TYPE_IPV6, IP_PROTO_ICMPV6),
    ("tcp6", ETH_TYPE_IPV6, IP_PROTO_TCP),
    ("udp6", ETH_TYPE_IPV6, IP_PROTO_UDP),
    ("sctp6", ETH_TYPE_IPV6, IP_PROTO_SCTP),
    ("mpls", ETH_TYPE_MPLS, 0),
    ("mplsm", ETH_TYPE_MPLS_MCAST, 0),
];

/// Slots of the table: a power of two, some four times the number of words.
const SLOTS: usize = 1024;

/// An open-addressing hash table, filled once.
struct Table([Option<(&'static str, MatchWord)>; SLOTS]);

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let protocols = PROTOCOLS.iter().map(|(name, eth_type, proto)| (*name, MatchWord::Protocol(*eth_type, *proto)));
    let fields = FIELDS.iter().flat_map(|info| {
        let names = std::iter::once(info.name).chain(info.aliases.iter().copied());
        names.map(|name| (name, MatchWord::Field(info.field)))
    });
    let others = [("eth", MatchWord::Eth), ("dl_vlan", MatchWord::DlVlan)];
    let mut table = [None; SLOTS];
    for (name, word) in protocols.chain(fields).chain(others) {
        let mut at = start(name);
        while table[at].is_some() {
            at = (at + 1) % SLOTS;
        }
        table[at] = Some((name, word));
    }
    Table(table)
});

/// Where a word is looked for first.
fn start(word: &str) -> usize {
    let hash =
        word.bytes().fold(0u32, |hash, byte| hash.rotate_left(5).wrapping_add(byte.into()).wrapping_mul(0x9e37_79b1));
    (hash >> 16) as usize % SLOTS
}

/// What `word` means in a match.
pub(crate) fn match_word(word: &str) -> Option<MatchWord> {
    let table = &TABLE.0;
    let mut at = start(word);
    while let Some((name, meaning)) = table[at] {
        if name == word {
            return Some(meaning);
        }
        at = (at + 1) % SLOTS;
    }
    None
}

/// The field that `word` names, by its name or an alias.
pub(crate) fn field(word: &str) -> Option<Field> {
    match match_word(word) {
        Some(MatchWord::Field(field)) => Some(field),
        _ => None,
    }
}

/// Protocol words.
pub(crate) fn protocols() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_is_found_and_nothing_else() {
        for info in FIELDS {
            for name in std::iter::once(&info.name).chain(info.aliases) {
                assert_eq!(field(name), Some(info.field), "{name}");
            }
            for name in info.nxm {
                assert_eq!(field(name), None, "{name}");
            }
        }
        assert_eq!(match_word("udp6"), Some(MatchWord::Protocol(0x86dd, 17)));
        assert_eq!(match_word("dl_vlan"), Some(MatchWord::DlVlan));
        for other in ["", "reg", "reg16", "Reg0", "tcp7", "actions"] {
            assert_eq!(match_word(other), None, "{other}");
        }
    }
}
