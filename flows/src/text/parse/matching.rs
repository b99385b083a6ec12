//! Reading matches.
//!
//! Words take effect one after the other, as in OVS: a later word for the same bits replaces an earlier one, fields that
//! share a slot replace each other, and the order in which a field and its protocol are given does not matter. In the
//! end, fields that the packets of the flow cannot have are dropped ("normalised"), with a warning.

use super::error::{ErrorKind, Fault, Notice, Parsed};
use super::token::{Pair, Word};
use super::{subfield, suggest, value};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_RARP, Field, Format, IP_PROTO_ICMP, IP_PROTO_ICMPV6,
    IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, Maskable, ND_ADVERT, ND_SOLICIT, Prereq,
};
use crate::key::{FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::matching::Match;
use crate::text::Names;
use std::ops::Range;

/// Words that stand for an EtherType and an IP protocol.
pub(crate) const PROTOCOLS: [(&str, u16, u8); 15] = [
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
];

const VID: u128 = 0xfff;
const PRESENT: u128 = VLAN_PRESENT as u128;
const PCP: u128 = 0xe000;
/// What `dl_vlan=0xffff` means: no tag.
const NO_VLAN: u128 = 0xffff;

/// What a packet must match to have the fields of `prereq`.
pub(crate) fn needs(prereq: Prereq) -> &'static str {
    match prereq {
        Prereq::None => "any",
        Prereq::Vlan => "vlan_tci=0x1000/0x1000",
        Prereq::Arp => "arp",
        Prereq::Ipv4 => "ip",
        Prereq::Ipv6 => "ipv6",
        Prereq::Ip => "ip` or `ipv6",
        Prereq::Tcp => "tcp` or `tcp6",
        Prereq::Udp => "udp` or `udp6",
        Prereq::Sctp => "sctp` or `sctp6",
        Prereq::Icmpv4 => "icmp",
        Prereq::Icmpv6 => "icmp6",
        Prereq::Nd => "icmp6,icmp_type=135` or `icmp6,icmp_type=136",
        Prereq::NdSolicit => "icmp6,icmp_type=135",
        Prereq::NdAdvert => "icmp6,icmp_type=136",
        Prereq::Mpls => "mpls` or `mplsm",
        Prereq::Nsh => "dl_type=0x894f",
        Prereq::CtIpv4 => "ct_state=+trk,ip",
        Prereq::CtIpv6 => "ct_state=+trk,ipv6",
        Prereq::CtIp => "ct_state=+trk,ip` or `ct_state=+trk,ipv6",
    }
}

/// A match that was read.
pub(crate) struct Built {
    /// The match.
    pub(crate) matches: Match,
    /// What is to be said about it.
    pub(crate) notices: Vec<Notice>,
}

impl Built {
    /// The match by itself, as read from `text`.
    pub(crate) fn in_text(self, text: &str) -> Parsed<Match> {
        Parsed { value: self.matches, warnings: Notice::all_in_text(self.notices, text) }
    }
}

/// A match while its words are read.
pub(crate) struct Builder<'a> {
    names: &'a Names,
    key: FlowKey,
    mask: FlowMask,
    /// Fields that words have set.
    set: Vec<(Range<usize>, Field)>,
    notices: Vec<Notice>,
}

impl<'a> Builder<'a> {
    /// A match of every packet.
    pub(crate) fn new(names: &'a Names) -> Self {
        Self { names, key: FlowKey::ZERO, mask: FlowMask::ZERO, set: Vec::new(), notices: Vec::new() }
    }

    /// Takes a word of a match in; false if it is none.
    pub(crate) fn read(&mut self, pair: &Pair<'_>) -> Result<bool, Fault> {
        let word = pair.key.text;
        if let Some((_, eth_type, proto)) = PROTOCOLS.iter().find(|(name, ..)| *name == word) {
            no_value(pair)?;
            self.put(slot::ETH_TYPE, (*eth_type).into(), u128::MAX);
            if *proto != 0 {
                self.put(slot::IP_PROTO, (*proto).into(), u128::MAX);
            }
        } else if word == "eth" {
            no_value(pair)?;
        } else if word == "dl_vlan" {
            self.dl_vlan(pair)?;
        } else if let Some(field) = subfield::field_named(word) {
            self.field(field, pair)?;
        } else if word.contains('[') {
            self.subfield(pair)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Makes the bits of `slot` in `mask` those that count, with these values, and no others of the slot.
    fn put(&mut self, slot: Slot, value: u128, mask: u128) {
        self.key.set(slot, value & mask);
        self.mask.set(slot, mask);
    }

    /// Says `message` about the bytes `range`.
    pub(crate) fn note(&mut self, range: Range<usize>, message: impl Into<Box<str>>) {
        self.notices.push(Notice { range, message: message.into() });
    }

    fn field(&mut self, field: Field, pair: &Pair<'_>) -> Result<(), Fault> {
        let info = field.info();
        if pair.value.text.is_empty() {
            if !matches!(info.format, Format::Decimal | Format::Hex | Format::TcpFlags) {
                return Err(pair.value.fault(ErrorKind::MissingValue(info.name)));
            }
            self.note(pair.key.range(), format!("{} without a value matches anything", info.name));
            self.apply(field, 0, 0);
            return Ok(());
        }
        let (mut value, mask) = value::field_value(field, pair.value, self.names)?;
        let fits = match field {
            Field::NwTos => 0xfc,
            Field::VlanVid => PRESENT | VID,
            _ => field.slot().max(),
        };
        if value & mask & !fits != 0 {
            if field == Field::Ipv6Label {
                return Err(pair.value.fault(ErrorKind::TooLarge { what: info.name, max: fits }));
            }
            value &= fits;
            self.note(pair.value.range(), format!("does not fit into {}: taken as {value}", info.name));
        }
        self.set.push((pair.key.range(), field));
        self.apply(field, value, mask);
        Ok(())
    }

    /// Lets `field` be `value` in the bits of `mask`.
    fn apply(&mut self, field: Field, value: u128, mask: u128) {
        match field {
            Field::VlanVid if mask == 0 => self.any_vlan(PCP, VID),
            Field::VlanPcp if mask == 0 => self.any_vlan(VID, PCP),
            Field::VlanVid => {
                let mask = mask & (PRESENT | VID);
                let old = self.mask.get(slot::VLAN_TCI) & PCP;
                self.key.set_masked(slot::VLAN_TCI, value & mask, PRESENT | VID);
                self.mask.set(slot::VLAN_TCI, old | mask);
            }
            Field::VlanPcp => self.merge(slot::VLAN_TCI, (value & 7) << 13 | PRESENT, PRESENT | PCP),
            Field::NwTos => self.put(slot::IP_DSCP, value >> 2, mask),
            _ => self.put(field.slot(), value, mask),
        }
    }

    /// Also lets the bits of `slot` in `mask` be `value`.
    fn merge(&mut self, slot: Slot, value: u128, mask: u128) {
        self.key.set_masked(slot, value, mask);
        self.mask.set_masked(slot, mask, mask);
    }

    /// Forgets the bits `gone` of the TCI; all of it if it does not look at the bits `other`.
    fn any_vlan(&mut self, other: u128, gone: u128) {
        let keep = if self.mask.get(slot::VLAN_TCI) & other != 0 { !gone } else { 0 };
        let (value, mask) = (self.key.get(slot::VLAN_TCI), self.mask.get(slot::VLAN_TCI));
        self.put(slot::VLAN_TCI, value & keep, mask & keep);
    }

    fn dl_vlan(&mut self, pair: &Pair<'_>) -> Result<(), Fault> {
        let given = if pair.value.text.is_empty() { (0, 0) } else { value::integer(pair.value, "dl_vlan", 0xffff)? };
        let vid = match given {
            (vid, u128::MAX) => vid,
            (_, 0) => {
                self.any_vlan(PCP, VID);
                return Ok(());
            }
            _ => return Err(pair.value.fault(ErrorKind::BadMask("dl_vlan"))),
        };
        if vid == NO_VLAN {
            self.put(slot::VLAN_TCI, 0, 0xffff);
            return Ok(());
        }
        if vid > VID {
            self.note(pair.value.range(), format!("does not fit into dl_vlan: taken as {}", vid & VID));
        }
        self.merge(slot::VLAN_TCI, vid & VID | PRESENT, PRESENT | VID);
        Ok(())
    }

    /// `FIELD[FIRST..LAST]=NUMBER`: adds to what the field has to be already.
    fn subfield(&mut self, pair: &Pair<'_>) -> Result<(), Fault> {
        let part = subfield::read(pair.key).map_err(|fault| match fault.kind() {
            ErrorKind::UnknownField => suggest::unknown_match_word(pair.key),
            _ => fault,
        })?;
        let info = part.field.info();
        let number = value::number_to(pair.value, info.name, part.mask() >> part.ofs)?;
        let whole = part == crate::action::Subfield::whole(part.field);
        if info.maskable == Maskable::Exact && !whole {
            return Err(pair.key.fault(ErrorKind::BadMask(info.name)));
        }
        let mask = self.mask.get(part.field.slot()) | part.mask();
        let value = self.key.get(part.field.slot()) & !part.mask() | number << part.ofs;
        self.set.push((pair.key.range(), part.field));
        self.apply(part.field, value, mask);
        Ok(())
    }

    /// The match, without the fields that its packets cannot have.
    pub(crate) fn finish(mut self) -> Result<Built, Fault> {
        let mask = self.mask;
        self.narrow_icmp()?;
        for slot in impossible_slots(&self.key) {
            self.put(slot, 0, 0);
        }
        for (range, field) in std::mem::take(&mut self.set) {
            let lost = mask.get(field.slot()) != 0 && self.mask.get(field.slot()) == 0;
            if lost {
                let (name, needs) = (field.info().name, needs(field.info().prereq));
                self.note(range, format!("{name} is there only in packets that match `{needs}`: ignored"));
            }
        }
        Ok(Built { matches: Match::new(&self.key, &self.mask), notices: self.notices })
    }

    /// ICMP types and codes have 8 bits, wherever a 16-bit port was given for them.
    fn narrow_icmp(&mut self) -> Result<(), Fault> {
        let eth_type = self.key.get(slot::ETH_TYPE) as u16;
        let proto = self.key.get(slot::IP_PROTO) as u8;
        if (eth_type, proto) != (ETH_TYPE_IPV4, IP_PROTO_ICMP) && (eth_type, proto) != (ETH_TYPE_IPV6, IP_PROTO_ICMPV6)
        {
            return Ok(());
        }
        for (ports, what) in [(slot::TP_SRC, "icmp_type"), (slot::TP_DST, "icmp_code")] {
            let (value, mask) = (self.key.get(ports), self.mask.get(ports));
            if value > 0xff {
                let range = self.set.iter().rev().find(|(_, f)| f.slot() == ports).map(|(r, _)| r.clone());
                return Err(Fault::new(range.unwrap_or(0..0), ErrorKind::TooLarge { what, max: 0xff }));
            }
            self.put(ports, value, mask & 0xff);
        }
        Ok(())
    }
}

/// The key may have no value.
pub(crate) fn no_value(pair: &Pair<'_>) -> Result<(), Fault> {
    if pair.has_value() { Err(pair.key.fault(ErrorKind::UnexpectedValue)) } else { Ok(()) }
}

/// Slots of fields that packets with these values cannot have.
fn impossible_slots(key: &FlowKey) -> impl Iterator<Item = Slot> + use<> {
    let eth_type = key.get(slot::ETH_TYPE) as u16;
    let proto = key.get(slot::IP_PROTO) as u8;
    let kind = key.get(slot::TP_SRC);
    let (v4, v6) = (eth_type == ETH_TYPE_IPV4, eth_type == ETH_TYPE_IPV6);
    let arp = matches!(eth_type, ETH_TYPE_ARP | ETH_TYPE_RARP);
    let ip = v4 || v6;
    let icmp6 = v6 && proto == IP_PROTO_ICMPV6;
    let ports = ip && matches!(proto, IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP);
    let tp = ports || icmp6 || v4 && proto == IP_PROTO_ICMP;
    let (solicit, advert) = (icmp6 && kind == u128::from(ND_SOLICIT), icmp6 && kind == u128::from(ND_ADVERT));
    [
        (slot::IP_SRC, v4 || arp),
        (slot::IP_DST, v4 || arp),
        (slot::IP_PROTO, ip || arp),
        (slot::IP_TOS, ip),
        (slot::IP_TTL, ip),
        (slot::IP_FRAG, ip),
        (slot::IPV6_SRC, v6),
        (slot::IPV6_DST, v6),
        (slot::IPV6_LABEL, v6),
        (slot::TP_SRC, tp),
        (slot::TP_DST, tp),
        (slot::TCP_FLAGS, ip && proto == IP_PROTO_TCP),
        (slot::ND_TARGET, solicit || advert),
        (slot::ARP_SHA, arp || solicit),
        (slot::ARP_THA, arp || advert),
    ]
    .into_iter()
    .filter_map(|(slot, possible)| (!possible).then_some(slot))
}

/// A whole text as a match.
pub(crate) fn read_all(text: Word<'_>, names: &Names) -> Result<Built, Fault> {
    let mut builder = Builder::new(names);
    for pair in super::token::Pairs::new(text) {
        if !builder.read(&pair)? {
            return Err(suggest::unknown_match_word(pair.key));
        }
    }
    builder.finish()
}
