//! What the stages hand to the running side of a router, and how it tells what is asked of it.
//!
//! The packet comes with user data of four bytes, `R`, `T`, the [`PuntKind`] and 0, and with the registers of
//! [`pipeline`](super::pipeline): from them [`Punt::read`] tells what is asked, for which VRF and interfaces.

use super::config::{InterfaceId, VrfId};
use super::pipeline::{self, IN_INTERFACE, NEXT_HOP_V4, NEXT_HOP_V6, OUT_INTERFACE, Pipeline, Stage, VRF};
use crate::action::{Action, Subfield};
use crate::datapath::PacketIn;
use crate::field::Field;
use crate::port::PortNo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first bytes of the user data.
const MARK: [u8; 2] = *b"RT";

/// Why a packet is handed over. Those marked "dropped" have been counted as dropped, and are told only so that an answer
/// can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PuntKind {
    /// An ARP packet that no flow answers.
    Arp = 1,
    /// A neighbour solicitation or advertisement that no flow answers, or a redirect.
    Nd = 2,
    /// A router solicitation, or another router's advertisement.
    Ra = 3,
    /// IGMP or MLD.
    Group = 4,
    /// A packet for the router itself that no flow answers.
    Local = 5,
    /// The TTL or hop limit ran out; dropped.
    TtlExpired = 6,
    /// There is no route; dropped.
    NoRoute = 7,
    /// The route prohibits it; dropped.
    Prohibited = 8,
    /// The next hop's MAC address is not known: keep the packet, and send it on when it is.
    Resolve = 9,
    /// The next hop does not answer; dropped.
    NoNeighbor = 10,
    /// Longer than the MTU of the interface to leave by, and not to be cut; dropped.
    TooBig = 11,
}

impl PuntKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Arp,
        Self::Nd,
        Self::Ra,
        Self::Group,
        Self::Local,
        Self::TtlExpired,
        Self::NoRoute,
        Self::Prohibited,
        Self::Resolve,
        Self::NoNeighbor,
        Self::TooBig,
    ];

    /// The user data that says so.
    pub fn userdata(self) -> Box<[u8]> {
        [MARK[0], MARK[1], self as u8, 0].into()
    }

    /// The kind that the user data says, if a router's flow wrote it.
    pub fn from_userdata(bytes: &[u8]) -> Option<Self> {
        let [first, second, kind, 0] = *bytes else { return None };
        ([first, second] == MARK).then(|| Self::ALL.into_iter().find(|k| *k as u8 == kind))?
    }
}

/// What a router's flows say of a packet that they handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Why.
    pub kind: PuntKind,
    /// The VRF.
    pub vrf: VrfId,
    /// The interface it came in by; none for what the router itself sends.
    pub in_interface: Option<InterfaceId>,
    /// The interface it was to leave by, once that is known.
    pub out_interface: Option<InterfaceId>,
    /// The next hop, once that is known.
    pub next_hop: Option<IpAddr>,
    /// The frame came to a group or to everybody.
    pub to_many: bool,
}

impl Punt {
    /// Reads what comes with a packet; `None` when it was not a router's flow that handed it over.
    pub fn read(about: &PacketIn) -> Option<Self> {
        let kind = PuntKind::from_userdata(&about.userdata)?;
        let of = |part: Subfield| (value(about, part.field) & part.mask()) >> part.ofs;
        let interface = |part| Some(of(part) as u16).filter(|id| *id != 0).map(InterfaceId);
        let (v4, v6) = (of(NEXT_HOP_V4) as u32, of(NEXT_HOP_V6));
        let next_hop = match v6 {
            0 => None,
            _ if v6 == u128::from(v4) => Some(IpAddr::V4(Ipv4Addr::from(v4))),
            _ => Some(IpAddr::V6(Ipv6Addr::from(v6))),
        };
        let out_interface = interface(OUT_INTERFACE);
        Some(Self {
            kind,
            vrf: VrfId(of(VRF) as u16),
            in_interface: interface(IN_INTERFACE),
            out_interface,
            next_hop: next_hop.filter(|_| out_interface.is_some()),
            to_many: of(pipeline::TO_MANY) != 0,
        })
    }
}

/// The value of a register or of several that are read as one; a packet comes with the registers of 32 bits only.
fn value(about: &PacketIn, field: Field) -> u128 {
    let slot = field.slot();
    let mut key = crate::key::FlowKey::ZERO;
    for (field, value) in &about.metadata {
        key.set(field.slot(), *value);
    }
    key.get(slot)
}

/// The actions of a packet-out that sends an IP packet on from the Route stage of a VRF, as one of the router's own: its
/// TTL stays.
pub fn send_by_route(pipeline: &Pipeline, vrf: VrfId) -> Vec<Action> {
    vec![load(VRF, vrf.0.into()), resubmit(pipeline, Stage::Route)]
}

/// The actions of a packet-out that sends an IP packet on from the Neighbor stage: by this interface, to this next hop.
pub fn send_to_neighbor(pipeline: &Pipeline, vrf: VrfId, out: InterfaceId, next_hop: IpAddr) -> Vec<Action> {
    let next_hop = match next_hop {
        IpAddr::V4(address) => load(NEXT_HOP_V4, u32::from(address).into()),
        IpAddr::V6(address) => load(NEXT_HOP_V6, address.into()),
    };
    vec![load(VRF, vrf.0.into()), load(OUT_INTERFACE, out.0.into()), next_hop, resubmit(pipeline, Stage::Neighbor)]
}

/// As [`send_to_neighbor`], for a packet that was forwarded: who sent it is told when it turns out to be too big. It
/// came in by `from`.
pub fn go_on(
    pipeline: &Pipeline,
    vrf: VrfId,
    from: Option<InterfaceId>,
    out: InterfaceId,
    next_hop: IpAddr,
) -> Vec<Action> {
    let mut actions = send_to_neighbor(pipeline, vrf, out, next_hop);
    actions.insert(0, load(IN_INTERFACE, from.map_or(0, |id| id.0).into()));
    actions
}

/// The actions of a packet-out that sends a frame by an interface as it is but for the sender's MAC address and the tag:
/// ARP, neighbour discovery, and whatever else has its destination's MAC address already.
pub fn send_by_interface(pipeline: &Pipeline, out: InterfaceId) -> Vec<Action> {
    vec![load(OUT_INTERFACE, out.0.into()), resubmit(pipeline, Stage::Egress)]
}

pub(super) fn load(dst: Subfield, value: u128) -> Action {
    Action::Load { value, dst }
}

pub(super) fn resubmit(pipeline: &Pipeline, stage: Stage) -> Action {
    let table = Some(pipeline.table(stage));
    Action::Resubmit { port: None::<PortNo>, table, ct: false, extended: true }
}
