//! What a rule does with a packet: the actions of the flow language, kept as they were written so that they print as
//! they were written.

use crate::field::Field;
use crate::port::PortNo;
use crate::rule::TableId;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Bits `ofs` to `ofs + bits - 1` of a field, counted from its least significant bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// First bit.
    pub ofs: u8,
    /// Number of bits, at least 1; `ofs + bits` is at most the field's width.
    pub bits: u8,
}

impl Subfield {
    /// The whole of `field`.
    pub fn whole(field: Field) -> Self {
        Self { field, ofs: 0, bits: field.width() }
    }

    /// The field's bits that belong to this subfield.
    pub fn mask(self) -> u128 {
        let low = if self.bits >= 128 { u128::MAX } else { (1 << self.bits) - 1 };
        low << self.ofs
    }
}

/// One action. OVS's `ofp-actions` names them; [`crate::text`] reads and prints them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to a port; reserved numbers mean what OpenFlow says (`NORMAL`, `FLOOD`, `ALL`, `LOCAL`, `IN_PORT`).
    Output(PortNo),
    /// Send to the port whose number a subfield holds.
    OutputField(Subfield),
    /// Send the packet, cut at a length, to a port: `output(port=N,max_len=B)`.
    OutputTruncated {
        /// The port.
        port: PortNo,
        /// Bytes of the packet to send, at least 14.
        max_len: u32,
    },
    /// Hand the packet to the controller.
    Controller(Box<ControllerAction>),
    /// Send to a port by one of its queues.
    Enqueue {
        /// The port.
        port: PortNo,
        /// The queue.
        queue: u32,
    },
    /// Do what a group says.
    Group(GroupId),
    /// Send to one of several ports: `bundle(..)` and `bundle_load(..)`.
    Bundle(Box<Bundle>),
    /// Go on in a later table, after the other actions.
    GotoTable(TableId),
    /// Look the packet up again, then go on here.
    Resubmit {
        /// Ingress port to look up with; the packet's own if none.
        port: Option<PortNo>,
        /// Table to look up in; the current one if none.
        table: Option<TableId>,
        /// Look up with the connection's original direction in place of the packet's addresses and ports.
        ct: bool,
        /// Written as `resubmit(..)`, not as `resubmit:PORT`.
        extended: bool,
    },
    /// `set_field:VALUE[/MASK]->FIELD`.
    SetField {
        /// What is set.
        field: Field,
        /// Its new value.
        value: u128,
        /// The bits to set; all ones for the whole field.
        mask: u128,
    },
    /// `load:VALUE->SUBFIELD`.
    Load {
        /// Right-aligned value.
        value: u128,
        /// Where it goes.
        dst: Subfield,
    },
    /// `move:SUBFIELD->SUBFIELD`, of equal widths.
    Move {
        /// Where the bits come from.
        src: Subfield,
        /// Where they go.
        dst: Subfield,
    },
    /// Put a subfield on the stack.
    Push(Subfield),
    /// Take the top of the stack into a subfield.
    Pop(Subfield),
    /// `mod_*`: OpenFlow 1.0's setters.
    Mod(ModAction),
    /// `push_vlan:TPID`.
    PushVlan(u16),
    /// `pop_vlan` (true) or its older name `strip_vlan` (false).
    PopVlan {
        /// Written as `pop_vlan`.
        modern: bool,
    },
    /// `push_mpls:ETHERTYPE`.
    PushMpls(u16),
    /// `pop_mpls:ETHERTYPE`, the type of what is under the label.
    PopMpls(u16),
    /// `set_mpls_label`: 20 bits.
    SetMplsLabel(u32),
    /// `set_mpls_tc`: 3 bits.
    SetMplsTc(u8),
    /// `set_mpls_ttl`.
    SetMplsTtl(u8),
    /// Decrement the TTL of the outermost MPLS entry; at 0 or 1 the list ends here.
    DecMplsTtl,
    /// Decrement the TTL or hop limit; at 0 or 1 these controllers are told and the list ends here. Empty for the
    /// plain `dec_ttl`, which tells controller 0.
    DecTtl(Box<[u16]>),
    /// Decrement the TTL of the NSH header; at 0 or 1 the list ends here.
    DecNshTtl,
    /// Set the tunnel key: `set_tunnel` (32 bits) or `set_tunnel64`.
    SetTunnel {
        /// The key.
        id: u64,
        /// Written as `set_tunnel64`.
        wide: bool,
    },
    /// Send by this queue of whatever port is sent to.
    SetQueue(u32),
    /// Send by the queue that the packet came with.
    PopQueue,
    /// Remove a Geneve option: `delete_field:tun_metadataN`.
    DeleteField(Field),
    /// Add or modify a flow made of the packet.
    Learn(Box<Learn>),
    /// The packet satisfies one clause of a conjunction.
    Conjunction(Conjunction),
    /// Hash fields to one of several links, and put its number into a subfield.
    Multipath(Box<Multipath>),
    /// Drop the packet if it exceeds a meter's rate.
    Meter(MeterId),
    /// Do these actions with a copy of the packet.
    Clone(Arc<[Action]>),
    /// End the pipeline for this packet.
    Exit,
    /// Bytes that mean nothing to the switch.
    Note(Box<[u8]>),
    /// Sample packets for a flow collector.
    Sample(Box<Sample>),
    /// Set one bit to whether the packet is longer than this many bytes.
    CheckPktLarger {
        /// The length.
        len: u16,
        /// The bit.
        dst: Subfield,
    },
    /// Keep to an MTU: an IPv4 packet that is longer and may be cut leaves in fragments from here on; any other longer IP
    /// packet is dropped, and the controller told.
    Fragment(Box<Fragment>),
    /// `reject`, an action of our own: end the pipeline for this packet, and tell its sender at once that nobody takes it
    /// in. Unless it went somewhere before, it is dropped for the reason of its rule.
    Reject,
    /// Shorten the rule's timeouts when the packet ends a TCP connection.
    FinTimeout {
        /// New idle timeout in seconds if it is shorter; 0 leaves it.
        idle: u16,
        /// New hard timeout in seconds if it is shorter; 0 leaves it.
        hard: u16,
    },
    /// Connection tracking: `ct(..)`.
    Ct(Box<Ct>),
    /// Forget what connection tracking said of the packet.
    CtClear,
    /// Put a header in front of the packet.
    Encap(Encap),
    /// Take the outermost header off; what is under it is said only where the header does not say.
    Decap(Option<PacketType>),
    /// Add to the action set.
    WriteActions(Arc<[Action]>),
    /// Empty the action set.
    ClearActions,
    /// Set bits of the metadata.
    WriteMetadata {
        /// The new bits.
        value: u64,
        /// Which bits are new.
        mask: u64,
    },
}

/// `fragment(mtu=N,..)`, an action of our own: what a router does with packets that are too long for a link (RFC 1812,
/// 5.2.6 and 5.2.7; RFC 8200, 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Longest IP packet, in bytes; at least [`Self::MIN_MTU`].
    pub mtu: u16,
    /// Which controller is told of packets that may not be cut.
    pub controller_id: u16,
    /// Bytes that the controller gets with them.
    pub userdata: Box<[u8]>,
}

impl Fragment {
    /// The least MTU: every link of IPv4 carries so much (RFC 791, 3.1).
    pub const MIN_MTU: u16 = 68;
}

/// Number of a group, 0 to 0xffffff00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The largest number of a group.
    pub const MAX: Self = Self(0xffff_ff00);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a meter, 1 to 0xffff0000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterId(pub u32);

impl MeterId {
    /// The largest number of a meter.
    pub const MAX: Self = Self(0xffff_0000);
}

impl fmt::Display for MeterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A packet type: a name space and a type within it (OpenFlow 1.5, 7.2.3.11). In name space 1 the type is an EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketType {
    /// The name space.
    pub ns: u16,
    /// The type.
    pub ty: u16,
}

/// `conjunction(ID,K/N)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conjunction {
    /// The conjunction.
    pub id: u32,
    /// The clause that the rule is part of, counted from 0.
    pub clause: u8,
    /// How many clauses there are, 2 to 64.
    pub clauses: u8,
}

/// What a hash is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashFields {
    /// The Ethernet source.
    EthSrc,
    /// Ethernet, VLAN, IP and TCP or UDP, the same in both directions.
    SymmetricL4,
    /// As [`SymmetricL4`](Self::SymmetricL4), without Ethernet and VLAN.
    SymmetricL3L4,
    /// As [`SymmetricL3L4`](Self::SymmetricL3L4), with the ports of UDP.
    SymmetricL3L4Udp,
    /// The IP source.
    NwSrc,
    /// The IP destination.
    NwDst,
    /// IP addresses, the same in both directions.
    SymmetricL3,
}

impl HashFields {
    /// Every kind, with the word that OVS has for it.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::EthSrc, "eth_src"),
        (Self::SymmetricL4, "symmetric_l4"),
        (Self::SymmetricL3L4, "symmetric_l3l4"),
        (Self::SymmetricL3L4Udp, "symmetric_l3l4+udp"),
        (Self::NwSrc, "nw_src"),
        (Self::NwDst, "nw_dst"),
        (Self::SymmetricL3, "symmetric_l3"),
    ];
}

/// `bundle(FIELDS,BASIS,ALGORITHM,ofport,members:..)` and `bundle_load(..)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// What is hashed.
    pub fields: HashFields,
    /// Start of the hash.
    pub basis: u16,
    /// How a port is chosen.
    pub algorithm: BundleAlgorithm,
    /// The ports.
    pub members: Box<[PortNo]>,
    /// Where the number of the port goes; it is sent to if none.
    pub dst: Option<Subfield>,
}

/// How `bundle` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BundleAlgorithm {
    /// The first port that is up.
    ActiveBackup,
    /// Highest random weight among the ports that are up.
    Hrw,
}

/// `multipath(FIELDS,BASIS,ALGORITHM,N_LINKS,ARG,DST)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// What is hashed.
    pub fields: HashFields,
    /// Start of the hash.
    pub basis: u16,
    /// How a link is chosen.
    pub algorithm: MultipathAlgorithm,
    /// Number of links, 1 to 65,536.
    pub links: u32,
    /// Argument of the algorithm.
    pub arg: u32,
    /// Where the number of the link, from 0, goes.
    pub dst: Subfield,
}

/// How `multipath` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MultipathAlgorithm {
    /// The hash modulo the number of links.
    ModuloN,
    /// Regions of the hash's range of equal size.
    HashThreshold,
    /// Highest random weight.
    Hrw,
    /// Repeated hashing until the number is small enough.
    IterHash,
}

/// `sample(..)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Of 65,535 packets, how many are sampled; at least 1.
    pub probability: u16,
    /// Set of collectors.
    pub collector_set_id: u32,
    /// Observation domain.
    pub obs_domain_id: u32,
    /// Observation point.
    pub obs_point_id: u32,
    /// The port where the packet is sampled.
    pub sampling_port: Option<PortNo>,
    /// Whether the packet is sampled on its way in (`Some(false)`) or out (`Some(true)`).
    pub egress: Option<bool>,
}

/// `learn(..)`: the flow to make of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Table of the flow.
    pub table: TableId,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Its hard timeout in seconds.
    pub hard_timeout: u16,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Idle timeout that a TCP FIN or RST leaves it; 0 for none.
    pub fin_idle_timeout: u16,
    /// Hard timeout that a TCP FIN or RST leaves it; 0 for none.
    pub fin_hard_timeout: u16,
    /// Tell of its removal.
    pub send_flow_rem: bool,
    /// Delete the flows learned when no flow with this action is left.
    pub delete_learned: bool,
    /// How many flows with its cookie may be in its table; 0 for any number.
    pub limit: u32,
    /// The bit that is set to whether the flow could be learned under `limit`.
    pub result_dst: Option<Subfield>,
    /// What the flow matches and does, in order.
    pub specs: Box<[LearnSpec]>,
}

/// One part of a flow to be learned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LearnSpec {
    /// It matches a subfield.
    Match {
        /// The subfield.
        dst: Subfield,
        /// The bits to match.
        src: LearnSource,
    },
    /// It loads a subfield.
    Load {
        /// The subfield.
        dst: Subfield,
        /// The bits to load.
        src: LearnSource,
    },
    /// It sends to the port that the packet's subfield holds.
    Output(Subfield),
}

/// Where bits of a flow to be learned come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// A constant, right-aligned.
    Value(u128),
    /// The packet.
    Field(Subfield),
}

/// `ct(..)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Ct {
    /// Remember the connection.
    pub commit: bool,
    /// Remember it in this packet's direction even if the other one is known.
    pub force: bool,
    /// The zone.
    pub zone: CtZone,
    /// Go on in this table with what the tracker says, besides going on here.
    pub table: Option<TableId>,
    /// Translate addresses and ports.
    pub nat: Option<Nat>,
    /// Helper for protocols that name further connections: `ftp` or `tftp`.
    pub alg: Option<CtAlg>,
    /// Sets of mark and label to remember with the connection: `set_field`, `load` and `move`.
    pub exec: Box<[Action]>,
}

/// The zone of a `ct` action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtZone {
    /// This one.
    Number(u16),
    /// The one that a subfield of 16 bits holds.
    Field(Subfield),
}

impl Default for CtZone {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// A helper of connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtAlg {
    /// FTP (RFC 959, 2428).
    Ftp,
    /// TFTP (RFC 1350).
    Tftp,
}

/// `nat` within `ct(..)`. Without a direction it does what was remembered with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Nat {
    /// What a new connection gets.
    pub direction: Option<NatDirection>,
    /// First and last address; `None` translates ports only.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// First and last port; `None` leaves the choice to the tracker.
    pub ports: Option<(u16, u16)>,
    /// How an address and a port are chosen.
    pub choice: NatChoice,
    /// The same choice after a restart.
    pub persistent: bool,
}

/// What NAT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatDirection {
    /// The source.
    Src,
    /// The destination.
    Dst,
}

/// How NAT chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum NatChoice {
    /// As the tracker sees fit.
    #[default]
    Any,
    /// By a hash of the connection.
    Hash,
    /// At random.
    Random,
}

/// `encap(..)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// An Ethernet header.
    Ethernet,
    /// An NSH header.
    Nsh {
        /// Metadata type 1 or 2; written only if given.
        md_type: Option<u8>,
        /// Variable-length metadata of type 2: class, type and value.
        tlvs: Box<[NshTlv]>,
    },
    /// An MPLS header.
    Mpls,
    /// A multicast MPLS header.
    MplsMulticast,
}

/// One metadata item of NSH metadata type 2 (RFC 8300, 2.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NshTlv {
    /// Its class.
    pub class: u16,
    /// Its type.
    pub ty: u8,
    /// Its value, at most 124 bytes.
    pub value: Box<[u8]>,
}

/// The `controller` action's options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControllerAction {
    /// Bytes of the packet to send; 65,535 means all.
    pub max_len: u16,
    /// Why it is sent.
    pub reason: PacketInReason,
    /// Which controller.
    pub controller_id: u16,
    /// Bytes that the controller gets back with the packet.
    pub userdata: Box<[u8]>,
    /// Keep the packet's place in the pipeline so that the controller can resume it there.
    pub pause: bool,
    /// Meter that limits such packets.
    pub meter: Option<MeterId>,
    /// Written with parentheses rather than as `CONTROLLER:LEN`.
    pub extended: bool,
}

/// Why a packet is handed to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PacketInReason {
    /// A rule without a match of its own (table miss).
    NoMatch,
    /// A rule's action.
    #[default]
    Action,
    /// The TTL ran out.
    InvalidTtl,
    /// An action in the action set.
    ActionSet,
    /// A group's bucket.
    Group,
    /// A packet-out.
    PacketOut,
}

impl Default for ControllerAction {
    /// `controller:65535`.
    fn default() -> Self {
        Self {
            max_len: u16::MAX,
            reason: PacketInReason::Action,
            controller_id: 0,
            userdata: Box::default(),
            pause: false,
            meter: None,
            extended: false,
        }
    }
}

/// OpenFlow 1.0's setters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModAction {
    /// `mod_dl_src`.
    DlSrc(u64),
    /// `mod_dl_dst`.
    DlDst(u64),
    /// `mod_nw_src`.
    NwSrc(u32),
    /// `mod_nw_dst`.
    NwDst(u32),
    /// `mod_nw_tos`: the upper six bits; ECN stays.
    NwTos(u8),
    /// `mod_nw_ecn`.
    NwEcn(u8),
    /// `mod_nw_ttl`.
    NwTtl(u8),
    /// `mod_tp_src`.
    TpSrc(u16),
    /// `mod_tp_dst`.
    TpDst(u16),
    /// `mod_vlan_vid`: pushes a tag when there is none.
    VlanVid(u16),
    /// `mod_vlan_pcp`: pushes a tag when there is none.
    VlanPcp(u8),
    /// `set_vlan_vid`: OpenFlow 1.1's, for packets that have a tag.
    SetVlanVid(u16),
    /// `set_vlan_pcp`: OpenFlow 1.1's, for packets that have a tag.
    SetVlanPcp(u8),
}
