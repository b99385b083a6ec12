//! What translation makes of a packet: a flat list of datapath actions, valid for every packet under a mask.

mod rewrite;

use crate::action::{Action, CtAlg, MeterId, Nat, NshTlv, PacketInReason};
use crate::bridge::{BridgeId, VlanId};
use crate::field::Field;
use crate::key::{FlowKey, FlowMask, slot};
use crate::meter::Meter;
use crate::owner::Owner;
use crate::packet::readdress::Readdress;
use crate::port::{DpPort, PortNo};
use crate::rule::{FlowSpec, Rule, RuleStats, TableId, TableSet};
use crate::tunnel::TunnelKey;
use crate::verdict::{DropReason, Verdict};
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// New bits for one header field of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The field; a field of the packet part.
    pub field: Field,
    /// Its new bits, right-aligned.
    pub value: u128,
    /// Which bits are new.
    pub mask: u128,
}

/// One step of what is done to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DpAction {
    /// Send the packet as it now is.
    Output(DpPort),
    /// Send the packet as it now is to this port, for a mirror. Says nothing of what becomes of the packet.
    Mirror(DpPort),
    /// Rewrite fields of one header.
    Set(SmallVec<[Change; 2]>),
    /// Rewrite addresses and ports of a connection's packets, as address translation does.
    Readdress(Box<Readdress>),
    /// Put a VLAN tag in front of those there are.
    PushVlan {
        /// TPID of the new tag.
        tpid: u16,
        /// TCI of the new tag, without the tag-present bit of the key.
        tci: u16,
    },
    /// Take the outer VLAN tag off.
    PopVlan,
    /// Hand the packet to the controllers.
    Controller(Box<PacketIn>),
    /// Note what an IGMP, MLD or PIM message says of who wants which multicast group.
    Snoop(McastSighting),
    /// The next output sends at most this many bytes of the packet.
    Truncate(u32),
    /// What tunnel ports put into the outer headers of the packet from now on, where flows decide that.
    Tunnel(Box<TunnelKey>),
    /// Put an MPLS label stack entry in front of the network header.
    PushMpls {
        /// EtherType of the packet from then on.
        eth_type: u16,
        /// The entry: label (20 bits), traffic class (3), bottom of stack (1), TTL (8).
        lse: u32,
    },
    /// Take the outermost MPLS label stack entry off; the EtherType of what is under it.
    PopMpls(u16),
    /// Put an Ethernet header in front of the packet.
    PushEthernet {
        /// Source, in the low 48 bits.
        src: u64,
        /// Destination, in the low 48 bits.
        dst: u64,
        /// EtherType.
        eth_type: u16,
    },
    /// Take the Ethernet header off.
    PopEthernet,
    /// Put an NSH header (RFC 8300) in front of the packet.
    PushNsh(Box<NshHeader>),
    /// Take the NSH header off.
    PopNsh,
    /// Drop the packet, and the actions that follow, when it exceeds the meter.
    Meter(MeterRef),
    /// Do these with a copy of the packet.
    Clone(Box<[DpAction]>),
    /// Do the one list or the other, by the packet's length.
    CheckPktLen {
        /// The length in bytes.
        len: u16,
        /// Done when the packet is longer than that.
        larger: Box<[DpAction]>,
        /// Done when it is not.
        otherwise: Box<[DpAction]>,
    },
    /// From here on outputs send an IPv4 packet that is longer than an MTU and may be cut in fragments; any other longer IP
    /// packet is handed to the controllers and dropped.
    Fragment {
        /// Longest IP packet, in bytes.
        mtu: u16,
        /// What goes with the packet to the controllers.
        too_long: Box<PacketIn>,
    },
    /// Tell the sender of the packet, as it arrived, that nobody takes it in: [`crate::packet::reject`]. Says nothing of
    /// what becomes of the packet.
    Reject,
    /// Connection tracking.
    Ct(Box<DpCt>),
    /// Forget what connection tracking said of the packet.
    CtClear,
    /// Go on with a copy of the packet where [`Translation::resumes`] says, under this index.
    Recirculate(u32),
    /// Nothing is left to do in this branch: the packet is dropped.
    Drop(DropReason),
}

/// A meter that datapath actions refer to. Equal when it is the same meter.
#[derive(Clone, Debug)]
pub struct MeterRef(pub Arc<Meter>);

impl MeterRef {
    /// Its number.
    pub fn id(&self) -> MeterId {
        self.0.spec.id
    }
}

impl PartialEq for MeterRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MeterRef {}

impl Hash for MeterRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// An NSH header to push.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NshHeader {
    /// Flags.
    pub flags: u8,
    /// TTL, 6 bits.
    pub ttl: u8,
    /// Metadata type, 1 or 2.
    pub md_type: u8,
    /// Next protocol.
    pub np: u8,
    /// Service path identifier (24 bits) and service index (8).
    pub path: u32,
    /// Context words of metadata type 1.
    pub context: [u32; 4],
    /// Metadata of type 2.
    pub tlvs: Box<[NshTlv]>,
}

/// What the connection tracker is asked to do with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DpCt {
    /// Remember the connection.
    pub commit: bool,
    /// Remember it in this packet's direction even if the other one is known.
    pub force: bool,
    /// The zone.
    pub zone: u16,
    /// New bits of the connection's mark, and which.
    pub mark: Option<(u32, u32)>,
    /// New bits of the connection's label, and which.
    pub label: Option<(u128, u128)>,
    /// Address and port translation.
    pub nat: Option<Nat>,
    /// Helper.
    pub alg: Option<CtAlg>,
    /// Who owns the rule that asks; nobody for a packet-out.
    pub owner: Option<Owner>,
}

/// A list of actions that a packet was on when it had to wait for another pass.
#[derive(Clone, Debug)]
pub struct Suspended {
    /// The list.
    pub list: Arc<[Action]>,
    /// The action that comes next, by index.
    pub next: usize,
    /// The table of its rule.
    pub table: TableId,
    /// The rule that it belongs to; none for those of a packet-out and of an action set.
    pub rule: Option<Arc<Rule>>,
    /// Why packets are handed to the controller from there, if it is not because of an action of a rule.
    pub reason: Option<PacketInReason>,
}

/// Where a packet goes on after the datapath has found something out about it: in the lists of `lists`, innermost last,
/// or in `table` of `bridge` if there are none.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The bridge.
    pub bridge: BridgeId,
    /// The table.
    pub table: TableId,
    /// The lists that were not done.
    pub lists: Vec<Suspended>,
    /// The packet as the tables see it, with metadata and registers.
    pub key: FlowKey,
    /// The bits of its tunnel words that flows wrote; the others are those that the packet arrived with.
    pub tunnel_written: TunnelKey,
    /// The stack of `push` and `pop`, bottom first.
    pub stack: Vec<u128>,
    /// The action set.
    pub action_set: Vec<Action>,
    /// The zone that it was tracked in, for a packet that comes from the connection tracker.
    pub ct_zone: Option<u16>,
    /// The mirrors of the bridge that have their copy, by the bits of their places.
    pub mirrored: u32,
}

/// A flow that a packet makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The bridge.
    pub bridge: BridgeId,
    /// The flow.
    pub spec: FlowSpec,
    /// How many flows with its cookie may be in its table; 0 for any number.
    pub limit: u32,
}

/// What a packet does to the tables.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It makes a flow, or keeps it alive.
    Learn(Box<Learned>),
    /// It ends a TCP connection: the rule's timeouts become at most these, in seconds; 0 leaves one as it is.
    FinTimeout {
        /// The rule's bridge.
        bridge: BridgeId,
        /// The rule.
        rule: Arc<Rule>,
        /// Idle timeout.
        idle: u16,
        /// Hard timeout.
        hard: u16,
    },
}

/// What goes with a packet to the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PacketIn {
    /// Why.
    pub reason: PacketInReason,
    /// Which controller.
    pub controller_id: u16,
    /// Bytes of the packet to send, 65,535 for all.
    pub max_len: u16,
    /// The bridge whose rule sent it.
    pub bridge: BridgeId,
    /// The port it came in by, in that bridge.
    pub in_port: PortNo,
    /// The table of the rule.
    pub table: TableId,
    /// The rule's cookie.
    pub cookie: u64,
    /// The rule's owner.
    pub owner: Owner,
    /// Bytes that the controller gets back.
    pub userdata: Box<[u8]>,
    /// The packet's metadata and registers: fields that are not 0, with their values.
    pub metadata: Box<[(Field, u128)]>,
    /// The meter that limits such packets.
    pub meter: Option<MeterRef>,
    /// The packet is dropped for this reason, and the controllers are only told. Without one, to be handed to them is its
    /// way.
    pub drop: Option<DropReason>,
    /// Where the packet can be resumed, when it was paused.
    pub resume: Option<u32>,
}

/// A MAC address seen by NORMAL on a port: to be learned, and refreshed as long as packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacSighting {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The source address, in the low 48 bits.
    pub mac: u64,
    /// The port it is behind.
    pub port: PortNo,
}

/// Where a message about multicast groups came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct McastSighting {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The port.
    pub port: PortNo,
}

/// A read of the multicast groups that the result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct McastQuery {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The group; `None` for the ports behind which routers are.
    pub group: Option<IpAddr>,
}

/// A read of the MAC table that the result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacQuery {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address, in the low 48 bits.
    pub mac: u64,
}

/// The result of translating one packet: holds for every packet that agrees with it under `mask`.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The bits of the key that the result depends on. The ingress port is always among them; of the pipeline part
    /// there are none.
    pub mask: FlowMask,
    /// What to do, in order.
    pub actions: Vec<DpAction>,
    /// What becomes of the packet if every output takes it.
    pub verdict: Verdict,
    /// Rules that matched, in order, each as often as it matched: to be credited.
    pub rules: Vec<Arc<Rule>>,
    /// Counters of groups, of buckets and of mirrors, in order, each as often as it was taken: to be credited.
    pub buckets: Vec<Arc<RuleStats>>,
    /// What the packet does to the tables.
    pub effects: Vec<Effect>,
    /// Where the packet goes on after the datapath has found something out about it.
    pub resumes: Vec<Resume>,
    /// MAC addresses seen.
    pub sightings: SmallVec<[MacSighting; 1]>,
    /// MAC table reads that the result depends on.
    pub mac_queries: SmallVec<[MacQuery; 1]>,
    /// Patch ports crossed, in order: the port left by in one bridge, then the port entered by in the next.
    pub patched: SmallVec<[DpPort; 2]>,
    /// Tables whose flows the result depends on, or that the packet changes, whatever their bridge.
    pub tables: TableSet,
}

impl Translation {
    /// A packet of which nothing but the ingress port matters is dropped.
    pub fn dropped(reason: DropReason) -> Self {
        let mut mask = FlowMask::ZERO;
        mask.add(slot::IN_PORT);
        Self {
            mask,
            actions: Vec::new(),
            verdict: Verdict::Drop(reason),
            rules: Vec::new(),
            buckets: Vec::new(),
            effects: Vec::new(),
            resumes: Vec::new(),
            sightings: SmallVec::new(),
            mac_queries: SmallVec::new(),
            patched: SmallVec::new(),
            tables: TableSet::default(),
        }
    }

    /// The rule that decided: the last that matched.
    pub fn decider(&self) -> Option<&Arc<Rule>> {
        self.rules.last()
    }
}
