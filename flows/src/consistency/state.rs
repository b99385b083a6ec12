//! What is known of a flow's packets while its actions are gone through.

mod ct;

use super::order::{Place, verify, word};
use super::{ConsistencyError, learn};
use crate::action::{Action, Bundle, Encap, GroupId, MeterId, ModAction, Multipath, Subfield};
use crate::field::{ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_QINQ, ETH_TYPE_VLAN, Field, Prereq};
use crate::key::{CT_DNAT, CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK};
use crate::key::{FlowKey, FlowMask, VLAN_PRESENT, slot};
use crate::matching::Match;
use crate::port::PortNo;
use crate::rule::TableId;

/// How many lists may stand within each other.
const DEEPEST: u8 = 64;

/// The tag-present bit of the outer VLAN tag.
const TAG_PRESENT: crate::key::Slot = crate::key::Slot::new(slot::VLAN_TCI.word, 12, 1);

/// `packet_type` of packets whose type is not known, as behind `decap` of anything but Ethernet.
const TYPE_UNKNOWN: u128 = 0xffff_ffff;

/// What is known about every packet of the flow, after the actions so far.
pub(super) struct State<'a> {
    table: Option<TableId>,
    matches: Option<&'a Match>,
    /// The bits that are known and which they are; most flows have no action that depends on the match, and then they
    /// are never made.
    known: Option<(FlowKey, FlowMask)>,
    /// The number of the outermost action.
    action: usize,
    depth: u8,
}

impl<'a> State<'a> {
    /// What is known of packets that match `matches` in `table`.
    pub(super) fn new(table: TableId, matches: &'a Match) -> Self {
        Self { table: Some(table), matches: Some(matches), known: None, action: 0, depth: 0 }
    }

    /// What is known of packets of which nothing is said, for the `action`th action.
    pub(super) fn of_any(action: usize) -> Self {
        Self { table: None, matches: None, known: None, action, depth: 0 }
    }

    /// Checks a list.
    pub(super) fn list(&mut self, actions: &[Action]) -> Result<(), ConsistencyError> {
        for (i, action) in actions.iter().enumerate() {
            if self.depth == 0 {
                self.action = i + 1;
            }
            self.check(action)?;
        }
        Ok(())
    }

    /// Checks a list within an action, at `place`.
    fn nested(&mut self, outer: &Action, actions: &[Action], place: Place) -> Result<(), ConsistencyError> {
        if self.depth >= DEEPEST {
            return Err(self.bad(word(outer), "at most 64 lists of actions within each other"));
        }
        if let Err(error) = verify(actions, place) {
            return Err(error.at(self.action));
        }
        let known = self.known;
        self.depth += 1;
        let result = self.list(actions);
        self.depth -= 1;
        self.known = known;
        result
    }

    fn check(&mut self, action: &Action) -> Result<(), ConsistencyError> {
        match action {
            Action::Output(_)
            | Action::OutputField(_)
            | Action::OutputTruncated { .. }
            | Action::Enqueue { .. }
            | Action::Group(_)
            | Action::Bundle(_)
            | Action::GotoTable(_)
            | Action::Resubmit { .. } => self.output(action),
            Action::SetField { field, value, mask } => self.set(Subfield::whole(*field), *value, *mask),
            Action::Load { value, dst } => {
                self.bits(*dst)?;
                self.set(*dst, value << dst.ofs, dst.mask())
            }
            Action::Move { src, dst } => self.move_bits(*src, *dst),
            Action::Push(src) => self.readable(*src),
            Action::Pop(dst) => self.destination(*dst),
            Action::DeleteField(field) if !(Field::TunMetadata0..=Field::TunMetadata7).contains(field) => {
                Err(self.bad("delete_field", "tun_metadata0 to tun_metadata7"))
            }
            Action::CheckPktLarger { dst, .. } => {
                self.bits(*dst)?;
                self.writable(dst.field)?;
                self.one_bit(*dst, "check_pkt_larger")
            }
            Action::Learn(spec) => learn::check(self, spec),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::Conjunction(part) => match part.clauses {
                2..=64 if part.clause < part.clauses => Ok(()),
                _ => Err(self.bad("conjunction", "2 to 64 clauses, and one of them")),
            },
            Action::Meter(MeterId(id)) if *id == 0 || *id > MeterId::MAX.0 => {
                Err(self.bad("meter", "a number from 1 to 4294901760"))
            }
            Action::Sample(sample) if sample.probability == 0 => {
                Err(self.bad("sample", "a probability from 1 to 65535"))
            }
            Action::Clone(list) => self.nested(action, list, Place::Clone),
            Action::WriteActions(list) => self.nested(action, list, Place::WriteActions),
            Action::Ct(ct) => self.ct(action, ct),
            _ => self.headers(action),
        }
    }

    /// Actions that make and take headers.
    fn headers(&mut self, action: &Action) -> Result<(), ConsistencyError> {
        match action {
            Action::Mod(
                ModAction::VlanVid(_) | ModAction::VlanPcp(_) | ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_),
            ) => self.key().set(TAG_PRESENT, 1),
            Action::PushVlan(tpid) => self.push_vlan(*tpid)?,
            Action::PopVlan { .. } => {
                let inner = self.key().get(slot::INNER_VLAN_TCI);
                self.key().set(slot::VLAN_TCI, inner);
                self.key().set(slot::INNER_VLAN_TCI, 0);
            }
            Action::PushMpls(ethertype) => {
                if !matches!(*ethertype, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST) {
                    return Err(self.bad("push_mpls", "0x8847 or 0x8848"));
                }
                self.key().set(slot::ETH_TYPE, (*ethertype).into());
                // What is under the label is not looked at any more.
                self.key().set(slot::IP_PROTO, 0);
            }
            Action::PopMpls(ethertype) => self.key().set(slot::ETH_TYPE, (*ethertype).into()),
            Action::Encap(encap) => self.encap(encap),
            Action::Decap(_) => {
                let key = self.key();
                if key.get(slot::PACKET_TYPE) == 0 {
                    let ethertype = key.get(slot::ETH_TYPE);
                    key.set(slot::PACKET_TYPE, 1 << 16 | ethertype);
                } else {
                    key.set(slot::PACKET_TYPE, TYPE_UNKNOWN);
                    key.set(slot::ETH_TYPE, 0xffff);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn encap(&mut self, encap: &Encap) {
        let ethertype = match encap {
            Encap::Ethernet => {
                self.key().set(slot::PACKET_TYPE, 0);
                return;
            }
            Encap::Nsh { .. } => ETH_TYPE_NSH,
            Encap::Mpls => ETH_TYPE_MPLS,
            Encap::MplsMulticast => ETH_TYPE_MPLS_MCAST,
        };
        self.key().set(slot::PACKET_TYPE, 1 << 16 | u128::from(ethertype));
        self.key().set(slot::ETH_TYPE, ethertype.into());
        self.key().set(slot::IP_PROTO, 0);
    }

    /// What sends the packet somewhere.
    fn output(&mut self, action: &Action) -> Result<(), ConsistencyError> {
        match action {
            Action::Output(port) => self.port(*port),
            Action::OutputField(src) => self.readable(*src),
            Action::OutputTruncated { max_len: 0..14, .. } => Err(self.bad("output", "a max_len of at least 14")),
            Action::OutputTruncated { port, .. } | Action::Enqueue { port, .. } => match *port {
                PortNo::LOCAL | PortNo::IN_PORT => Ok(()),
                port if port <= PortNo::MAX => Ok(()),
                port => Err(ConsistencyError::BadPort { action: self.action, port }),
            },
            Action::Group(id) if *id > GroupId::MAX => Err(self.bad("group", "a number up to 4294967040")),
            Action::Bundle(bundle) => self.bundle(bundle),
            Action::GotoTable(to) => match self.table {
                Some(from) if *to <= from => Err(ConsistencyError::GotoNotLater { action: self.action, from, to: *to }),
                _ => Ok(()),
            },
            Action::Resubmit { ct: true, .. } if !self.has_connection() => {
                Err(self.needs("resubmit(..,ct)", "tracked packets", TRACKED))
            }
            _ => Ok(()),
        }
    }

    fn bundle(&mut self, bundle: &Bundle) -> Result<(), ConsistencyError> {
        if let Some(dst) = bundle.dst {
            self.destination(dst)?;
            if dst.bits < 16 {
                return Err(self.bad("bundle_load", "a field of at least 16 bits"));
            }
        }
        for port in &bundle.members {
            if *port != PortNo::NONE {
                self.port(*port)?;
            }
            if *port == PortNo::CONTROLLER {
                return Err(ConsistencyError::BadPort { action: self.action, port: *port });
            }
        }
        Ok(())
    }

    fn multipath(&mut self, multipath: &Multipath) -> Result<(), ConsistencyError> {
        let Multipath { links, dst, .. } = *multipath;
        self.destination(dst)?;
        if !(1..=1 << 16).contains(&links) {
            return Err(self.bad("multipath", "1 to 65536 links"));
        }
        if dst.bits < 16 && links > 1 << dst.bits {
            return Err(self.bad("multipath", "a field wide enough for the number of links"));
        }
        Ok(())
    }

    fn known(&mut self) -> &mut (FlowKey, FlowMask) {
        self.known.get_or_insert_with(|| {
            let (mut key, mask) =
                self.matches.map_or((FlowKey::ZERO, FlowMask::ZERO), |matches| (matches.value(), matches.mask()));
            // A packet that is no Ethernet frame has the type that its packet_type says.
            let packet_type = key.get(slot::PACKET_TYPE);
            if packet_type != 0 {
                key.set(slot::ETH_TYPE, if packet_type >> 16 == 1 { packet_type & 0xffff } else { 0 });
            }
            (key, mask)
        })
    }

    /// The bits that are known.
    fn key(&mut self) -> &mut FlowKey {
        &mut self.known().0
    }

    /// From here on the bits of `part` are known: they are `value`, right-aligned.
    pub(super) fn learn(&mut self, part: Subfield, value: u128) {
        let (key, mask) = self.known();
        key.set_masked(part.field.slot(), value << part.ofs, part.mask());
        mask.set_masked(part.field.slot(), u128::MAX, part.mask());
    }

    /// Whether every packet belongs to a connection or says that it does not: its original direction is known.
    fn has_connection(&mut self) -> bool {
        let (key, mask) = self.known();
        let (state, known) = (key.get(slot::CT_STATE) as u8, mask.get(slot::CT_STATE) as u8);
        state & (CT_NEW | CT_EST | CT_REL | CT_RPL | CT_SNAT | CT_DNAT) != 0
            || state & (CT_TRK | CT_INV) == CT_TRK && known & CT_INV != 0
    }

    fn port(&self, port: PortNo) -> Result<(), ConsistencyError> {
        if port.0 > PortNo::MAX.0 && port.0 < PortNo::IN_PORT.0 || port == PortNo::NONE {
            return Err(ConsistencyError::BadPort { action: self.action, port });
        }
        Ok(())
    }

    fn set(&mut self, dst: Subfield, value: u128, mask: u128) -> Result<(), ConsistencyError> {
        self.exists(dst.field)?;
        // OVS asks more of a set of vlan_vid than of a move to it: only the tag actions may make a tag.
        if dst.field == Field::VlanVid && self.key().get(TAG_PRESENT) == 0 {
            return Err(self.missing(dst.field, Prereq::Vlan));
        }
        self.writable(dst.field)?;
        if dst.field == Field::VlanTci {
            self.key().set_masked(slot::VLAN_TCI, value, mask);
        }
        Ok(())
    }

    fn move_bits(&mut self, src: Subfield, dst: Subfield) -> Result<(), ConsistencyError> {
        self.readable(src)?;
        self.destination(dst)?;
        self.same_width(src, dst)
    }

    fn same_width(&self, src: Subfield, dst: Subfield) -> Result<(), ConsistencyError> {
        if src.bits == dst.bits {
            return Ok(());
        }
        Err(ConsistencyError::MoveWidths { action: self.action, from: src.bits, to: dst.bits })
    }

    fn push_vlan(&mut self, tpid: u16) -> Result<(), ConsistencyError> {
        if !matches!(tpid, ETH_TYPE_VLAN | ETH_TYPE_QINQ) {
            return Err(ConsistencyError::BadTpid { action: self.action, tpid });
        }
        let (outer, inner) = (self.key().get(slot::VLAN_TCI), self.key().get(slot::INNER_VLAN_TCI));
        if inner & u128::from(VLAN_PRESENT) != 0 {
            return Err(ConsistencyError::TooManyTags { action: self.action });
        }
        self.key().set(slot::INNER_VLAN_TCI, outer);
        self.key().set(slot::VLAN_TCI, u128::from(VLAN_PRESENT));
        Ok(())
    }

    /// Whether a subfield has its bits, and every packet of the flow has its field.
    pub(super) fn readable(&mut self, part: Subfield) -> Result<(), ConsistencyError> {
        self.bits(part)?;
        self.exists(part.field)
    }

    /// Whether a subfield is [`readable`](Self::readable) and actions may change it.
    pub(super) fn destination(&mut self, part: Subfield) -> Result<(), ConsistencyError> {
        self.readable(part)?;
        self.writable(part.field)
    }

    /// Whether a subfield has its bits.
    pub(super) fn bits(&self, part: Subfield) -> Result<(), ConsistencyError> {
        let (width, end) = (part.field.width(), u16::from(part.ofs) + u16::from(part.bits));
        if part.bits == 0 || end > u16::from(width) {
            return Err(ConsistencyError::NoSuchBits {
                action: self.action,
                field: part.field.info().name,
                width,
                ofs: part.ofs,
                last: end.saturating_sub(1),
            });
        }
        Ok(())
    }

    /// Whether a subfield is one bit, as `name` wants it.
    pub(super) fn one_bit(&self, part: Subfield, name: &'static str) -> Result<(), ConsistencyError> {
        if part.bits == 1 { Ok(()) } else { Err(self.bad(name, "one bit to write to")) }
    }

    fn exists(&mut self, field: Field) -> Result<(), ConsistencyError> {
        let ethernet = matches!(
            field,
            Field::EthSrc | Field::EthDst | Field::EthType | Field::VlanTci | Field::VlanVid | Field::VlanPcp
        );
        if ethernet && self.packet_type() != 0 {
            let (needs, advice) = ("Ethernet packets", "match packet_type=(0,0), or encap(ethernet) before");
            let field = field.info().name;
            return Err(ConsistencyError::FieldMissing { action: self.action, field, needs, advice });
        }
        let prereq = field.info().prereq;
        let holds = match prereq {
            Prereq::None => true,
            // OVS asks for the connection only, not for the version of IP.
            Prereq::CtIpv4 | Prereq::CtIpv6 | Prereq::CtIp => self.has_connection(),
            _ => prereq.holds(self.key(), &mut FlowMask::default()),
        };
        if holds { Ok(()) } else { Err(self.missing(field, prereq)) }
    }

    /// The packet type, for which alone the known bits are not made.
    fn packet_type(&self) -> u128 {
        match &self.known {
            Some((key, _)) => key.get(slot::PACKET_TYPE),
            None => self.matches.map_or(0, |matches| matches.get(slot::PACKET_TYPE).0),
        }
    }

    /// Whether actions may change `field`.
    pub(super) fn writable(&self, field: Field) -> Result<(), ConsistencyError> {
        let info = field.info();
        if info.writable {
            Ok(())
        } else {
            Err(ConsistencyError::NotWritable { action: self.action, field: info.name })
        }
    }

    fn missing(&self, field: Field, prereq: Prereq) -> ConsistencyError {
        let (needs, advice) = describe(prereq);
        ConsistencyError::FieldMissing { action: self.action, field: field.info().name, needs, advice }
    }

    fn needs(&self, name: &'static str, needs: &'static str, advice: &'static str) -> ConsistencyError {
        ConsistencyError::NeedsMatch { action: self.action, name, needs, advice }
    }

    /// The argument of `name` is none of those that it can have.
    pub(super) fn bad(&self, name: &'static str, want: &'static str) -> ConsistencyError {
        ConsistencyError::BadArgument { action: self.action, name, want }
    }

    /// The number of the outermost action.
    pub(super) fn action(&self) -> usize {
        self.action
    }
}

/// How to ask for packets whose connection is known.
const TRACKED: &str = "add ct_state=+trk-inv, or a state such as ct_state=+trk+est, to the match";

/// The packets that a prerequisite is about, and how to ask for them.
fn describe(prereq: Prereq) -> (&'static str, &'static str) {
    match prereq {
        Prereq::None => ("every packet", "nothing to do"),
        Prereq::Vlan => ("packets with a VLAN tag", "match dl_vlan, or push_vlan before"),
        Prereq::Arp => ("ARP and RARP packets", "add arp to the match"),
        Prereq::Ipv4 => ("IPv4 packets", "add ip to the match"),
        Prereq::Ipv6 => ("IPv6 packets", "add ipv6 to the match"),
        Prereq::Ip => ("IPv4 and IPv6 packets", "add ip or ipv6 to the match"),
        Prereq::Tcp => ("TCP packets that are no later fragments", "add tcp or tcp6 to the match"),
        Prereq::Udp => ("UDP packets that are no later fragments", "add udp or udp6 to the match"),
        Prereq::Sctp => ("SCTP packets that are no later fragments", "add sctp or sctp6 to the match"),
        Prereq::Icmpv4 => ("ICMP packets that are no later fragments", "add icmp to the match"),
        Prereq::Icmpv6 => ("ICMPv6 packets that are no later fragments", "add icmp6 to the match"),
        Prereq::Nd => ("neighbour discovery packets", "add icmp6,icmp_type=135 or icmp6,icmp_type=136 to the match"),
        Prereq::NdSolicit => ("neighbour solicitations", "add icmp6,icmp_type=135 to the match"),
        Prereq::NdAdvert => ("neighbour advertisements", "add icmp6,icmp_type=136 to the match"),
        Prereq::Mpls => ("MPLS packets", "add mpls or mplsm to the match"),
        Prereq::Nsh => ("NSH packets", "add dl_type=0x894f to the match"),
        Prereq::CtIpv4 | Prereq::CtIpv6 | Prereq::CtIp => ("tracked packets", TRACKED),
    }
}
