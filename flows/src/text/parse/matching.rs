//! Reading matches.
//!
//! Words take effect one after the other, as in OVS: a later word for the same bits replaces an earlier one, fields that
//! share a slot replace each other, and the order in which a field and its protocol are given does not matter. In the
//! end, fields that the packets of the flow cannot have are dropped ("normalised"), with a warning.

use super::error::{ErrorKind, Fault, Notice, Parsed};
use super::token::{Pair, Word};
use super::words::{MatchWord, match_word};
use super::{subfield, suggest, value};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_RARP, Field,
    Format, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, Maskable, ND_ADVERT, ND_SOLICIT,
    Prereq,
};
use crate::key::{CT_INV, CT_TRK, FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::matching::Match;
use crate::text::Names;
use smallvec::SmallVec;
use std::ops::Range;

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

/// What a word asks of a field that lies over others.
struct Aside {
    range: Range<usize>,
    field: Field,
    value: u128,
    mask: u128,
}

/// A match while its words are read.
pub(crate) struct Builder<'a> {
    names: &'a Names,
    key: FlowKey,
    mask: FlowMask,
    /// Fields that words have set.
    set: SmallVec<[(Range<usize>, Field); 8]>,
    /// Fields that lie over others in the key, kept apart until the protocol is known.
    aside: Vec<Aside>,
    notices: Vec<Notice>,
}

impl<'a> Builder<'a> {
    /// A match of every packet.
    pub(crate) fn new(names: &'a Names) -> Self {
        Self {
            names,
            key: FlowKey::ZERO,
            mask: FlowMask::ZERO,
            set: SmallVec::new(),
            aside: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Takes a word of a match in; false if it is none.
    pub(crate) fn read(&mut self, pair: &Pair<'_>) -> Result<bool, Fault> {
        match match_word(pair.key.text) {
            Some(MatchWord::Protocol(eth_type, proto)) => {
                no_value(pair)?;
                self.put(slot::ETH_TYPE, eth_type.into(), u128::MAX);
                if proto != 0 {
                    self.put(slot::IP_PROTO, proto.into(), u128::MAX);
                }
            }
            Some(MatchWord::Eth) => no_value(pair)?,
            Some(MatchWord::DlVlan) => self.dl_vlan(pair)?,
            Some(MatchWord::Field(field)) => self.field(field, pair)?,
            None if pair.key.text.contains('[') => self.subfield(pair)?,
            None => return Ok(false),
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
            if !matches!(
                info.format,
                Format::Decimal | Format::Hex | Format::TcpFlags | Format::CtState | Format::TunFlags
            ) {
                return Err(pair.value.fault(ErrorKind::MissingValue(info.name)));
            }
            self.note(pair.key.range(), format!("{} without a value matches anything", info.name));
            self.apply(field, 0, 0);
            return Ok(());
        }
        let (mut value, mask) = value::field_value(field, pair.value, self.names)?;
        let fits = match field {
            Field::NwTos => 0xfc,
            Field::NshTtl => 0x3f,
            Field::VlanVid => PRESENT | VID,
            _ => field.slot().max(),
        };
        if value & mask & !fits != 0 {
            if matches!(field, Field::Ipv6Label | Field::NshTtl) {
                return Err(pair.value.fault(ErrorKind::TooLarge { what: info.name, max: fits }));
            }
            value &= fits;
            self.note(pair.value.range(), format!("does not fit into {}: taken as {value}", info.name));
        }
        if field == Field::NshMdtype && mask != 0 && !matches!(value, 1 | 2) {
            return Err(pair.value.fault(ErrorKind::BadValue { what: info.name, want: "1 or 2" }));
        }
        if field == Field::SkbPriority {
            return Err(pair.key.fault(ErrorKind::NotAllowed("flows cannot match on it, only packets have it")));
        }
        self.take(pair.key.range(), field, value, mask);
        Ok(())
    }

    /// Notes that a word asks this of `field`.
    fn take(&mut self, range: Range<usize>, field: Field, value: u128, mask: u128) {
        if lies_over_others(field) {
            self.aside.push(Aside { range, field, value: value & mask, mask });
            return;
        }
        self.set.push((range, field));
        self.apply(field, value, mask);
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
            // Every packet is of Ethernet unless its match says otherwise.
            Field::PacketType if value == 0 => self.put(slot::PACKET_TYPE, 0, 0),
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
        if lies_over_others(part.field) {
            let earlier = self.aside.iter().rev().find(|a| a.field == part.field).map_or((0, 0), |a| (a.value, a.mask));
            let value = earlier.0 & !part.mask() | number << part.ofs;
            self.take(pair.key.range(), part.field, value, earlier.1 | part.mask());
            return Ok(());
        }
        let mask = self.mask.get(part.field.slot()) | part.mask();
        let value = self.key.get(part.field.slot()) & !part.mask() | number << part.ofs;
        self.take(pair.key.range(), part.field, value, mask);
        Ok(())
    }

    /// The match, without the fields that its packets cannot have.
    pub(crate) fn finish(&mut self) -> Result<Built, Fault> {
        let mask = self.mask;
        let shape = Shape::of(&self.key);
        self.narrow_icmp(shape)?;
        self.packets_without_ethernet()?;
        self.original_tuple(shape)?;
        for slot in shape.impossible_slots() {
            self.put(slot, 0, 0);
        }
        for (range, field) in std::mem::take(&mut self.set) {
            let lost = mask.get(field.slot()) != 0 && self.mask.get(field.slot()) == 0;
            if lost {
                self.dropped(range, field);
            }
        }
        for aside in std::mem::take(&mut self.aside) {
            if shape.has(aside.field) {
                self.put(aside.field.slot(), aside.value, aside.mask);
            } else if aside.field.info().prereq == Prereq::Nsh && aside.mask != 0 {
                return Err(Fault::new(aside.range, missing(aside.field)));
            } else {
                self.dropped(aside.range, aside.field);
            }
        }
        Ok(Built { matches: Match::new(&self.key, &self.mask), notices: std::mem::take(&mut self.notices) })
    }

    /// Says that a word about `field` has no effect.
    fn dropped(&mut self, range: Range<usize>, field: Field) {
        let (name, needs) = (field.info().name, needs(field.info().prereq));
        self.note(range, format!("{name} is there only in packets that match `{needs}`: ignored"));
    }

    /// A packet without an Ethernet header has no Ethernet fields.
    fn packets_without_ethernet(&self) -> Result<(), Fault> {
        if self.key.get(slot::PACKET_TYPE) == 0 {
            return Ok(());
        }
        let ethernet = [slot::ETH_SRC, slot::ETH_DST, slot::ETH_TYPE, slot::VLAN_TCI];
        if ethernet.iter().all(|slot| self.mask.get(*slot) == 0) {
            return Ok(());
        }
        let range = self.set.iter().find(|(_, field)| ethernet.iter().any(|slot| slot.word == field.slot().word));
        let range = range.or_else(|| self.set.iter().find(|(_, field)| *field == Field::PacketType));
        let kind = ErrorKind::NotAllowed("packets of this packet_type have no Ethernet header");
        Err(Fault::new(range.map_or(0..0, |(range, _)| range.clone()), kind))
    }

    /// The connection's first packet is known only of connections.
    fn original_tuple(&mut self, shape: Shape) -> Result<(), Fault> {
        for index in 0..self.set.len() {
            let (range, field) = self.set[index].clone();
            let family = match field.info().prereq {
                Prereq::CtIp => true,
                Prereq::CtIpv4 => shape.v4,
                Prereq::CtIpv6 => shape.v6,
                _ => continue,
            };
            if self.mask.get(field.slot()) == 0 {
                continue;
            }
            let port = matches!(field, Field::CtTpSrc | Field::CtTpDst);
            if port && self.mask.get(slot::CT_NW_PROTO) == 0 {
                self.put(field.slot(), 0, 0);
                self.note(range, format!("{} is there only beside ct_nw_proto: ignored", field.info().name));
            } else if !family || !self.connection_is_known() {
                return Err(Fault::new(range, missing(field)));
            }
        }
        Ok(())
    }

    /// Whether every packet that matches belongs to a connection: some bit says so, or it is tracked and not invalid.
    fn connection_is_known(&self) -> bool {
        let (state, mask) = (self.key.get(slot::CT_STATE) as u8, self.mask.get(slot::CT_STATE) as u8);
        let valid = mask & CT_INV != 0 && state & (CT_TRK | CT_INV) == CT_TRK;
        valid || state & !(CT_TRK | CT_INV) != 0
    }

    /// ICMP types and codes have 8 bits, wherever a 16-bit port was given for them.
    fn narrow_icmp(&mut self, shape: Shape) -> Result<(), Fault> {
        if !shape.icmp4 && !shape.icmp6 {
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

fn missing(field: Field) -> ErrorKind {
    ErrorKind::MissingProtocol { field: field.info().name, needs: needs(field.info().prereq) }
}

/// Whether the field shares its place in the key with fields of protocols that are not told apart by a later word.
fn lies_over_others(field: Field) -> bool {
    matches!(field.info().prereq, Prereq::Mpls | Prereq::Nsh)
        || matches!(field, Field::NdReserved | Field::NdOptionsType)
}

/// What the packets are that match, as far as it decides which fields they have.
#[derive(Clone, Copy)]
struct Shape {
    v4: bool,
    v6: bool,
    arp: bool,
    mpls: bool,
    nsh: bool,
    proto: u8,
    icmp4: bool,
    icmp6: bool,
    solicit: bool,
    advert: bool,
}

impl Shape {
    fn of(key: &FlowKey) -> Self {
        // A packet without an Ethernet header says its protocol by its type.
        let packet_type = key.get(slot::PACKET_TYPE) as u32;
        let eth_type = if packet_type >> 16 == 1 { packet_type as u16 } else { key.get(slot::ETH_TYPE) as u16 };
        let proto = key.get(slot::IP_PROTO) as u8;
        let (v4, v6) = (eth_type == ETH_TYPE_IPV4, eth_type == ETH_TYPE_IPV6);
        let icmp6 = v6 && proto == IP_PROTO_ICMPV6;
        let nd = |kind| icmp6 && key.get(slot::TP_SRC) == u128::from(kind) && key.get(slot::TP_DST) == 0;
        Self {
            v4,
            v6,
            arp: matches!(eth_type, ETH_TYPE_ARP | ETH_TYPE_RARP),
            mpls: matches!(eth_type, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST),
            nsh: eth_type == ETH_TYPE_NSH,
            proto,
            icmp4: v4 && proto == IP_PROTO_ICMP,
            icmp6,
            solicit: nd(ND_SOLICIT),
            advert: nd(ND_ADVERT),
        }
    }

    /// Whether packets have this field, which lies over others.
    fn has(self, field: Field) -> bool {
        match field.info().prereq {
            Prereq::Mpls => self.mpls,
            Prereq::Nsh => self.nsh,
            _ => self.solicit || self.advert,
        }
    }

    /// Slots of fields that packets cannot have.
    fn impossible_slots(self) -> impl Iterator<Item = Slot> {
        let Self { v4, v6, arp, icmp4, icmp6, solicit, advert, proto, .. } = self;
        let ip = v4 || v6;
        let ports = ip && matches!(proto, IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP);
        let tp = ports || icmp6 || icmp4;
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
