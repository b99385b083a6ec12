//! Groups: one number for several lists of actions, of which all, one or the first live one are done.
//!
//! The semantics are Open vSwitch's: each bucket is an action set, done on a copy of the packet, which is what it was
//! afterwards. A select group takes the bucket whose hash times weight is highest among those that are live.

use crate::action::{Action, GroupId};
use crate::field::Field;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::{Millis, RuleStats};
use std::sync::Arc;

/// Most buckets that a group may have.
pub const MAX_BUCKETS: usize = 65_536;

/// What a group does with its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// All of them are done.
    All,
    /// One of them, chosen by a hash of the packet.
    Select,
    /// The only one.
    Indirect,
    /// The first that is live.
    FastFailover,
}

/// How a select group hashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Selection {
    /// As no method was named: like [`DpHash`](Self::DpHash).
    #[default]
    Default,
    /// A hash of the connection, the same in both directions, by the datapath.
    DpHash {
        /// Parameter: which hash, and its basis.
        param: u64,
    },
    /// A hash of these fields, or of the connection if there are none.
    Hash {
        /// Basis of the hash.
        param: u64,
        /// The fields with the bits that count.
        fields: Box<[(Field, u128)]>,
    },
}

/// A bucket as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// Its number in the group, below 0xffffff00; given in order to those that have none.
    pub id: Option<u32>,
    /// Its share in a select group; 0 is never chosen.
    pub weight: u16,
    /// It is live only while this port is up.
    pub watch_port: Option<PortNo>,
    /// It is live only while this group has a live bucket.
    pub watch_group: Option<GroupId>,
    /// What it does, as it was written; done in the order of an action set.
    pub actions: Arc<[Action]>,
}

/// A bucket of a group.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its number in the group.
    pub id: u32,
    /// Its share in a select group; 0 is never chosen.
    pub weight: u16,
    /// It is live only while this port is up.
    pub watch_port: Option<PortNo>,
    /// It is live only while this group has a live bucket.
    pub watch_group: Option<GroupId>,
    /// What it does, as it was written; done in the order of an action set.
    pub actions: Arc<[Action]>,
    /// Packets that took it.
    pub stats: Arc<RuleStats>,
}

/// A group as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its number.
    pub id: GroupId,
    /// What it does with its buckets.
    pub kind: GroupKind,
    /// How it hashes, if it selects.
    pub selection: Selection,
    /// Its buckets.
    pub buckets: Vec<BucketSpec>,
    /// Who asked for it.
    pub owner: Owner,
}

/// A group of a bridge.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// What it does with its buckets.
    pub kind: GroupKind,
    /// How it hashes, if it selects.
    pub selection: Selection,
    /// Its buckets, in order.
    pub buckets: Arc<[Bucket]>,
    /// Who asked for it.
    pub owner: Owner,
    /// When it was added.
    pub created: Millis,
    /// Packets that came to it.
    pub stats: Arc<RuleStats>,
}

/// Where among a group's buckets new ones go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BucketPlace {
    /// Before the first.
    First,
    /// Behind the last.
    #[default]
    Last,
    /// Behind the bucket with this number.
    After(u32),
}

/// Which of a group's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketChoice {
    /// The first.
    First,
    /// The last.
    Last,
    /// All of them.
    All,
    /// The one with this number.
    Id(u32),
}

/// One change to a bridge's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMod {
    /// Add a group; refused when its number is taken.
    Add(GroupSpec),
    /// Give a group another kind and other buckets; buckets that keep their number keep their counters.
    Modify {
        /// The group as it is to be.
        spec: GroupSpec,
        /// Add it when there is none.
        may_create: bool,
    },
    /// Delete one group or all of them, and the flows that send to them.
    Delete(Option<GroupId>),
    /// Add buckets to a group.
    InsertBuckets {
        /// The group.
        group: GroupId,
        /// Where they go.
        place: BucketPlace,
        /// The buckets.
        buckets: Vec<BucketSpec>,
    },
    /// Remove buckets from a group.
    RemoveBuckets {
        /// The group.
        group: GroupId,
        /// Which buckets.
        which: BucketChoice,
    },
}
