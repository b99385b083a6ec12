//! Flows and groups as text, as the switch's API takes them, and the parts that they belong to.

use std::sync::Arc;

/// The cookie of every flow that a node controller makes: what has it is replaced as a whole after a restart, and nothing else is
/// touched. Flows that the switch learns from ours have [`LEARNED`].
pub const COOKIE: u64 = 0x51ce_0000_0000_0001;
/// The cookie of flows that the switch learns for affinity; they outlive a restart of the controller.
pub const LEARNED: u64 = 0x51ce_0000_0000_0002;

/// A flow of a bridge. Table, priority and match name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Its table, 0 to 254.
    pub table: u8,
    /// Its priority; the highest that matches wins.
    pub priority: u16,
    /// Its match in OVS's syntax; empty matches everything.
    pub matching: String,
    /// Its actions in OVS's syntax; empty drops.
    pub actions: String,
    /// Who asked for it, `KIND:REST`: `svc:NAMESPACE/NAME`, `pod:NAMESPACE/NAME`, `node:NAME`, `builtin:STAGE`,
    /// `np:NAMESPACE/NAME/DIRECTION/RULE`.
    pub owner: Arc<str>,
    /// What is counted when its actions drop a packet, by name; `rule_drop` if none.
    pub drop_reason: Option<&'static str>,
}

/// A select group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// Its type and buckets in OVS's syntax, without its number: `type=select,bucket=...`.
    pub text: String,
    /// Who asked for it.
    pub owner: Arc<str>,
}

/// All that one object of the cluster needs in the switch. Parts of different objects have no flow and no group in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its flows, in any order.
    pub flows: Vec<Flow>,
    /// Its groups.
    pub groups: Vec<Group>,
}

/// What a part is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// What every node has, whatever there is in the cluster.
    Base,
    /// Another node, by its name.
    Peer(String),
    /// A Pod's interface on this node, by its port's number.
    Pod(u32),
    /// A Service, as `NAMESPACE/NAME`.
    Service(String),
    /// A flow that rules of policies share, by what names it.
    Policy(Arc<FlowName>),
}

/// What names a flow in a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowName {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its match.
    pub matching: String,
}
