//! Reading packets written as flows.
//!
//! Words are sorted before they take effect, so that a field comes after those that say whether the packet has it.

use super::error::{ErrorKind, Fault, ParseError};
use super::matching::{needs, no_value};
use super::token::{Pair, Pairs, Word};
use super::words::{MatchWord, match_word};
use super::{suggest, value};
use crate::field::{ETH_TYPE_QINQ, ETH_TYPE_VLAN, Field, Format, Prereq};
use crate::key::{FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::port::PortNo;
use crate::text::Names;

const PRESENT: u128 = VLAN_PRESENT as u128;

/// What a word of a packet gives.
#[derive(Clone, Copy)]
enum Given {
    Protocol(u16, u8),
    /// `eth`.
    Eth,
    Field(Field),
    /// A number that no flow can match on.
    Number(&'static str, Slot),
    /// `dl_vlan` of the tag in this slot.
    Vid(Slot),
    /// `dl_vlan_pcp` of the tag in this slot.
    Pcp(Slot),
    /// `vlan_tci` of the tag in this slot.
    Tci(Slot),
}

impl Given {
    fn of(pair: &Pair<'_>) -> Option<Self> {
        Some(match pair.key.text {
            "dl_vlan1" => Self::Vid(slot::INNER_VLAN_TCI),
            "dl_vlan_pcp" | "vlan_pcp" => Self::Pcp(slot::VLAN_TCI),
            "dl_vlan_pcp1" => Self::Pcp(slot::INNER_VLAN_TCI),
            "vlan_tci" => Self::Tci(slot::VLAN_TCI),
            "vlan_tci1" => Self::Tci(slot::INNER_VLAN_TCI),
            "tun_tos" => Self::Number("tun_tos", slot::TUN_TOS),
            "tun_ttl" => Self::Number("tun_ttl", slot::TUN_TTL),
            "mpls_lse1" => Self::Number("mpls_lse1", slot::MPLS_LSE_1),
            "mpls_lse2" => Self::Number("mpls_lse2", slot::MPLS_LSE_2),
            word => match match_word(word)? {
                MatchWord::Protocol(eth_type, proto) => Self::Protocol(eth_type, proto),
                MatchWord::Eth => Self::Eth,
                MatchWord::DlVlan => Self::Vid(slot::VLAN_TCI),
                MatchWord::Field(field) => Self::Field(field),
            },
        })
    }

    /// Words of a lower rank are read first: a field comes after those that say whether it is there.
    fn rank(self) -> usize {
        match self {
            Self::Protocol(..) | Self::Eth | Self::Number(..) | Self::Field(Field::PacketType) => 0,
            Self::Vid(_) | Self::Tci(_) => 1,
            Self::Pcp(_) => 2,
            Self::Field(field) => 3 + field as usize,
        }
    }
}

/// A packet while it is read.
struct Packet<'a> {
    names: &'a Names,
    key: FlowKey,
    /// Bits that were given.
    given: FlowMask,
}

/// Reads a packet written as a flow: `in_port=1,tcp,nw_src=10.0.0.1,tp_dst=80`.
///
/// As in OVS, every field has one value and is given once, what is not given is zero, and a field needs its protocol.
/// Without `in_port` the packet comes in by no port. More lenient than OVS: the order of words does not matter, `tp_src`
/// and `tp_dst` do for UDP and SCTP too, `icmp_type` and `icmp_code` for ICMPv6, and zero may be said of a field that the
/// packet does not have, so that a printed packet reads back. `dl_vlan1`, `dl_vlan_pcp1` and `vlan_tci1` are the inner
/// tag. Flags are those that are set: `ct_state=trk|new` or `ct_state=+trk+new`. Metadata and registers may be given,
/// for a packet that is on its way through the tables.
///
/// # Errors
/// When a word is unknown or given twice, a value is wrong or has a mask, or a field's protocol is missing.
pub fn parse_packet(text: &str, names: &Names) -> Result<FlowKey, ParseError> {
    read(Word::whole(text), names).map_err(|fault| fault.in_text(text))
}

fn read(text: Word<'_>, names: &Names) -> Result<FlowKey, Fault> {
    let mut words = Vec::new();
    for pair in Pairs::new(text) {
        match Given::of(&pair) {
            Some(given) => words.push((given, pair)),
            None => return Err(suggest::unknown_match_word(pair.key)),
        }
    }
    words.sort_by_key(|(given, _)| given.rank());
    let mut packet = Packet { names, key: FlowKey::ZERO, given: FlowMask::ZERO };
    for (given, pair) in &words {
        packet.word(*given, pair)?;
    }
    packet.tags(text)?;
    if packet.key.get(slot::IN_PORT) == 0 {
        packet.key.set(slot::IN_PORT, PortNo::NONE.0.into());
    }
    Ok(packet.key)
}

impl Packet<'_> {
    fn word(&mut self, given: Given, pair: &Pair<'_>) -> Result<(), Fault> {
        match given {
            Given::Protocol(eth_type, proto) => {
                no_value(pair)?;
                self.put(pair, slot::ETH_TYPE, eth_type.into(), u128::MAX)?;
                if proto != 0 {
                    self.put(pair, slot::IP_PROTO, proto.into(), u128::MAX)?;
                }
                Ok(())
            }
            Given::Vid(tag) => match value::number_to(pair.value, "dl_vlan", 0xffff)? {
                0xffff => self.put(pair, tag, 0, 0xffff),
                vid if vid > 0xfff => Err(pair.value.fault(ErrorKind::TooLarge { what: "dl_vlan", max: 0xfff })),
                vid => self.put(pair, tag, vid | PRESENT, PRESENT | 0xfff),
            },
            Given::Pcp(tag) => {
                let pcp = value::number_to(pair.value, "vlan_pcp", 7)?;
                self.put(pair, tag, pcp << 13, 0xe000)?;
                self.key.set_masked(tag, PRESENT, PRESENT);
                Ok(())
            }
            Given::Tci(tag) => {
                let tci = value::number_to(pair.value, "vlan_tci", 0xffff)?;
                self.put(pair, tag, tci, 0xffff)
            }
            Given::Eth => no_value(pair),
            Given::Number(what, slot) => {
                let number = value::number_to(pair.value, what, slot.max())?;
                self.put(pair, slot, number, u128::MAX)
            }
            Given::Field(field) => self.field(field, pair),
        }
    }

    /// Lets the bits of `slot` in `mask` be `value`, if that was not said before.
    fn put(&mut self, pair: &Pair<'_>, slot: Slot, value: u128, mask: u128) -> Result<(), Fault> {
        if self.given.get(slot) & mask != 0 {
            return Err(pair.key.fault(ErrorKind::NotAllowed("this was said before")));
        }
        self.key.set_masked(slot, value, mask);
        self.given.set_masked(slot, mask, mask);
        Ok(())
    }

    fn holds(&self, field: Field) -> bool {
        let mut read = FlowMask::ZERO;
        field.info().prereq.holds(&self.key, &mut read)
    }

    fn field(&mut self, named: Field, pair: &Pair<'_>) -> Result<(), Fault> {
        if pair.value.text.is_empty() {
            return Err(pair.value.fault(ErrorKind::MissingValue(named.info().name)));
        }
        let (value, mask) = value::field_value(named, pair.value, self.names)?;
        let flags = matches!(named.info().format, Format::CtState | Format::TunFlags);
        if mask != u128::MAX && !(flags && pair.value.text.starts_with(['+', '-'])) {
            return Err(pair.value.fault(ErrorKind::NotAllowed("a packet has one value in each field")));
        }
        let field = named.kin(pair.key.text).into_iter().find(|f| self.holds(*f)).unwrap_or(named);
        if !self.holds(field) {
            let (name, needs) = (field.info().name, needs(field.info().prereq));
            let missing = ErrorKind::MissingProtocol { field: name, needs };
            return if value == 0 { Ok(()) } else { Err(pair.key.fault(missing)) };
        }
        let max = field.slot().max();
        if value > max {
            return Err(pair.value.fault(ErrorKind::TooLarge { what: field.info().name, max }));
        }
        match field {
            Field::NwTos if value & 3 != 0 => {
                Err(pair.value.fault(ErrorKind::BadValue { what: "nw_tos", want: "a multiple of 4 up to 252" }))
            }
            Field::NwTos => self.put(pair, slot::IP_DSCP, value >> 2, u128::MAX),
            Field::VlanVid => self.put(pair, slot::VLAN_TCI, value, PRESENT | 0xfff),
            Field::PacketType if value >> 16 == 1 => {
                self.put(pair, slot::ETH_TYPE, value & 0xffff, u128::MAX)?;
                self.put(pair, slot::PACKET_TYPE, value, u128::MAX)
            }
            _ => self.put(pair, field.slot(), value, u128::MAX),
        }
    }

    /// Gives the tags their TPIDs.
    fn tags(&mut self, text: Word<'_>) -> Result<(), Fault> {
        let (outer, inner) = (self.key.get(slot::VLAN_TCI), self.key.get(slot::INNER_VLAN_TCI));
        let half = [outer, inner].iter().any(|tci| *tci != 0 && tci & PRESENT == 0);
        if half || inner != 0 && outer == 0 {
            let want = "0x1000 in the TCI of each tag, and an outer tag before an inner one";
            return Err(text.fault(ErrorKind::BadValue { what: "the VLAN tags", want }));
        }
        let outer_tpid = if inner != 0 { ETH_TYPE_QINQ } else { ETH_TYPE_VLAN };
        for (tci, slot, tpid) in [(outer, slot::VLAN_TPID, outer_tpid), (inner, slot::INNER_VLAN_TPID, ETH_TYPE_VLAN)] {
            self.key.set(slot, if tci == 0 { 0 } else { tpid.into() });
        }
        Ok(())
    }
}

impl Field {
    /// The fields that `word`, which names this one, may mean in packets of one protocol or another.
    fn kin(self, word: &str) -> Vec<Self> {
        match (word, self.info().prereq) {
            ("tp_src", _) => vec![Self::TcpSrc, Self::UdpSrc, Self::SctpSrc],
            ("tp_dst", _) => vec![Self::TcpDst, Self::UdpDst, Self::SctpDst],
            ("icmp_type", Prereq::Icmpv4) => vec![Self::IcmpType, Self::Icmpv6Type],
            ("icmp_code", Prereq::Icmpv4) => vec![Self::IcmpCode, Self::Icmpv6Code],
            _ => vec![self],
        }
    }
}
