//! Groups of a bridge.
//!
//! A bucket without a number gets the lowest one that is free in its group. Buckets that keep their number keep their
//! counters when their group is modified, and so does the group.

use super::{Fate, ModError, Touched};
use crate::action::GroupId;
use crate::bridge::Bridge;
use crate::consistency::{self, ConsistencyError, Place};
use crate::flow_mod::Applied;
use crate::group::{Bucket, BucketChoice, BucketPlace, BucketSpec, Group, GroupKind, GroupMod, GroupSpec, MAX_BUCKETS};
use crate::owner::Owner;
use crate::reference::{Reference, each};
use crate::rule::Millis;
use crate::table::RemovedReason;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use thiserror::Error;

/// Largest number of a bucket.
const MAX_BUCKET_ID: u32 = 0xffff_feff;

/// Why a [`GroupMod`] was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupModError {
    /// The number is taken.
    #[error("there is a group {group} already, of owner {owner}; modify it instead, or choose another number")]
    Exists {
        /// The group.
        group: GroupId,
        /// Owner of the group that is there.
        owner: Owner,
    },
    /// There is no such group.
    #[error("there is no group {group} to change; add it first")]
    Unknown {
        /// The group.
        group: GroupId,
    },
    /// A number that no group has.
    #[error("{group} cannot be a group's number; it is 0 to {max}", max = GroupId::MAX)]
    BadNumber {
        /// The number.
        group: GroupId,
    },
    /// A number that no bucket has.
    #[error("group {group}: {bucket} cannot be a bucket's number; it is 0 to {MAX_BUCKET_ID}")]
    BadBucketNumber {
        /// The group.
        group: GroupId,
        /// The number.
        bucket: u32,
    },
    /// Two buckets of one number.
    #[error("group {group} would have two buckets with the number {bucket}; leave bucket_id out to get a free one")]
    BucketExists {
        /// The group.
        group: GroupId,
        /// The number.
        bucket: u32,
    },
    /// There is no such bucket.
    #[error("group {group} has no bucket {bucket}")]
    UnknownBucket {
        /// The group.
        group: GroupId,
        /// The number.
        bucket: u32,
    },
    /// There are too many buckets.
    #[error("group {group} would have {buckets} buckets; a group has at most {MAX_BUCKETS}")]
    TooManyBuckets {
        /// The group.
        group: GroupId,
        /// How many.
        buckets: usize,
    },
    /// An indirect group has one bucket.
    #[error("group {group} is indirect and would have {buckets} buckets; it must have one")]
    NotOneBucket {
        /// The group.
        group: GroupId,
        /// How many.
        buckets: usize,
    },
    /// A weight that nothing is weighed by.
    #[error("group {group}, bucket {bucket}: only buckets of a select group have a weight")]
    Weight {
        /// The group.
        group: GroupId,
        /// The bucket's number.
        bucket: u32,
    },
    /// A port or group is watched for nothing.
    #[error("group {group}, bucket {bucket}: only buckets of select and fast failover groups watch a port or group")]
    Watch {
        /// The group.
        group: GroupId,
        /// The bucket's number.
        bucket: u32,
    },
    /// A fast failover group must know what lives.
    #[error("group {group}, bucket {bucket}: a bucket of a fast failover group needs watch_port or watch_group")]
    NoWatch {
        /// The group.
        group: GroupId,
        /// The bucket's number.
        bucket: u32,
    },
    /// Actions that a bucket cannot have.
    #[error("group {group}, bucket {bucket}, {source}")]
    Actions {
        /// The group.
        group: GroupId,
        /// The bucket's number.
        bucket: u32,
        /// Which, and why.
        source: ConsistencyError,
    },
    /// A packet would go in circles.
    #[error("group {group} would send to itself: {path}")]
    Loop {
        /// The group.
        group: GroupId,
        /// The groups on the way, with arrows.
        path: String,
    },
}

impl Bridge {
    pub(super) fn apply_group(&mut self, change: &GroupMod, now: Millis) -> Result<Applied, ModError> {
        let (spec, old) = match change {
            GroupMod::Add(spec) => match self.groups.get(&spec.id) {
                Some(there) => {
                    let owner = there.owner.clone();
                    return Err(GroupModError::Exists { group: spec.id, owner }.into());
                }
                None => (spec.clone(), None),
            },
            GroupMod::Modify { spec, may_create } => match self.groups.get(&spec.id) {
                None if !may_create => return Err(GroupModError::Unknown { group: spec.id }.into()),
                old => (spec.clone(), old.cloned()),
            },
            GroupMod::Delete(which) => return Ok(self.delete_groups(*which)),
            GroupMod::InsertBuckets { group, place, buckets } => {
                let old = self.group(*group)?;
                (with_buckets(&old, *place, buckets)?, Some(old))
            }
            GroupMod::RemoveBuckets { group, which } => {
                let old = self.group(*group)?;
                (without_buckets(&old, *which)?, Some(old))
            }
        };
        let fate = if old.is_some() { Fate::Modified } else { Fate::Added };
        let of_buckets = matches!(change, GroupMod::InsertBuckets { .. } | GroupMod::RemoveBuckets { .. });
        let group = build(spec, old.as_deref(), of_buckets, now)?;
        if old.is_some_and(|old| is_same(&old, &group)) {
            // Nobody needs to hear of it, and no cache has to look again.
            return Ok(Applied::default());
        }
        self.refuse_loop(&group)?;
        let touched = Touched::Group(group.id, fate);
        self.groups.insert(group.id, Arc::new(group));
        Ok(Applied::touching(touched))
    }

    fn group(&self, id: GroupId) -> Result<Arc<Group>, GroupModError> {
        self.groups.get(&id).cloned().ok_or(GroupModError::Unknown { group: id })
    }

    fn delete_groups(&mut self, which: Option<GroupId>) -> Applied {
        let mut applied = Applied::default();
        let range = which.map_or(GroupId(0)..=GroupId(u32::MAX), |id| id..=id);
        let ids: Vec<_> = self.groups.range(range).map(|(id, _)| *id).collect();
        for id in ids {
            self.groups.remove(&id);
            let rules: Vec<_> = self.tables.references().of(Reference::Group(id)).cloned().collect();
            self.remove_rules(rules, RemovedReason::GroupDelete, &mut applied.removed);
            applied.touched.push(Touched::Group(id, Fate::Deleted));
        }
        applied
    }

    /// Checks that no way through groups leads from `group` back to it.
    fn refuse_loop(&self, group: &Group) -> Result<(), GroupModError> {
        let mut came_from = HashMap::new();
        let mut waiting = Vec::new();
        next_groups(group, |next| waiting.push((group.id, next)));
        while let Some((from, id)) = waiting.pop() {
            if id == group.id {
                return Err(GroupModError::Loop { group: id, path: way(id, from, &came_from) });
            }
            if came_from.contains_key(&id) {
                continue;
            }
            came_from.insert(id, from);
            if let Some(next) = self.groups.get(&id) {
                next_groups(next, |next| waiting.push((id, next)));
            }
        }
        Ok(())
    }
}

/// The way of a packet from `group` back to it, whose last stop was `last`; at most ten stops of it.
fn way(group: GroupId, last: GroupId, came_from: &HashMap<GroupId, GroupId>) -> String {
    let mut stops = vec![group.to_string()];
    let mut at = last;
    while at != group && stops.len() < 10 {
        stops.push(at.to_string());
        match came_from.get(&at) {
            Some(before) => at = *before,
            None => break,
        }
    }
    stops.push(if at == group { group.to_string() } else { "..".to_owned() });
    stops.reverse();
    stops.join(" -> ")
}

/// Tells the groups that a group's buckets send to.
fn next_groups(group: &Group, mut tell: impl FnMut(GroupId)) {
    for bucket in group.buckets.iter() {
        each(&bucket.actions, &mut |what| {
            if let Reference::Group(next) = what {
                tell(next);
            }
        });
    }
}

/// The group as it is to be with more buckets.
fn with_buckets(old: &Group, place: BucketPlace, new: &[BucketSpec]) -> Result<GroupSpec, GroupModError> {
    let mut spec = spec_of(old);
    let at = match place {
        BucketPlace::First => 0,
        BucketPlace::Last => spec.buckets.len(),
        BucketPlace::After(id) => 1 + position(old, id)?,
    };
    spec.buckets.splice(at..at, new.iter().cloned());
    Ok(spec)
}

/// The group as it is to be with fewer buckets.
fn without_buckets(old: &Group, which: BucketChoice) -> Result<GroupSpec, GroupModError> {
    let mut spec = spec_of(old);
    match which {
        BucketChoice::All => spec.buckets.clear(),
        BucketChoice::First => drop(spec.buckets.drain(..spec.buckets.len().min(1))),
        BucketChoice::Last => drop(spec.buckets.pop()),
        BucketChoice::Id(id) => drop(spec.buckets.remove(position(old, id)?)),
    }
    Ok(spec)
}

fn position(group: &Group, bucket: u32) -> Result<usize, GroupModError> {
    let found = group.buckets.iter().position(|b| b.id == bucket);
    found.ok_or(GroupModError::UnknownBucket { group: group.id, bucket })
}

fn spec_of(group: &Group) -> GroupSpec {
    let bucket = |b: &Bucket| BucketSpec {
        id: Some(b.id),
        weight: b.weight,
        watch_port: b.watch_port,
        watch_group: b.watch_group,
        actions: Arc::clone(&b.actions),
    };
    GroupSpec {
        id: group.id,
        kind: group.kind,
        selection: group.selection.clone(),
        buckets: group.buckets.iter().map(bucket).collect(),
        owner: group.owner.clone(),
    }
}

/// Makes the group that `spec` asks for, in the place of `old`. `of_buckets`: only its buckets are changed.
fn build(spec: GroupSpec, old: Option<&Group>, of_buckets: bool, now: Millis) -> Result<Group, GroupModError> {
    let group = spec.id;
    if group > GroupId::MAX {
        return Err(GroupModError::BadNumber { group });
    }
    let count = spec.buckets.len();
    if count > MAX_BUCKETS {
        return Err(GroupModError::TooManyBuckets { group, buckets: count });
    }
    // As in OVS, what removes the bucket before it inserts another leaves the group without one in between.
    if spec.kind == GroupKind::Indirect && count != 1 && !(count == 0 && of_buckets) {
        return Err(GroupModError::NotOneBucket { group, buckets: count });
    }
    let ids = numbers(group, &spec.buckets)?;
    let counters: HashMap<u32, _> =
        old.into_iter().flat_map(|g| g.buckets.iter()).map(|b| (b.id, Arc::clone(&b.stats))).collect();
    let mut buckets = Vec::with_capacity(count);
    for (id, bucket) in ids.into_iter().zip(spec.buckets) {
        check_bucket(group, spec.kind, id, &bucket)?;
        buckets.push(Bucket {
            id,
            weight: bucket.weight,
            watch_port: bucket.watch_port,
            watch_group: bucket.watch_group,
            actions: bucket.actions,
            stats: counters.get(&id).cloned().unwrap_or_default(),
        });
    }
    Ok(Group {
        id: group,
        kind: spec.kind,
        selection: spec.selection,
        buckets: buckets.into(),
        owner: spec.owner,
        created: old.map_or(now, |g| g.created),
        stats: old.map(|g| Arc::clone(&g.stats)).unwrap_or_default(),
    })
}

/// Whether a group is, but for counters and age, as another one.
fn is_same(a: &Group, b: &Group) -> bool {
    let parts = |b: &Bucket| (b.id, b.weight, b.watch_port, b.watch_group);
    a.kind == b.kind
        && a.selection == b.selection
        && a.owner == b.owner
        && a.buckets.len() == b.buckets.len()
        && a.buckets.iter().zip(b.buckets.iter()).all(|(a, b)| parts(a) == parts(b) && a.actions == b.actions)
}

/// The number of every bucket, in order.
fn numbers(group: GroupId, buckets: &[BucketSpec]) -> Result<Vec<u32>, GroupModError> {
    let mut taken = HashSet::new();
    for bucket in buckets.iter().filter_map(|b| b.id) {
        if bucket > MAX_BUCKET_ID {
            return Err(GroupModError::BadBucketNumber { group, bucket });
        }
        if !taken.insert(bucket) {
            return Err(GroupModError::BucketExists { group, bucket });
        }
    }
    // There are fewer buckets than numbers, so one is always free.
    let mut free = (0..=MAX_BUCKET_ID).filter(|id| !taken.contains(id));
    Ok(buckets.iter().map(|b| b.id.or_else(|| free.next()).unwrap_or(0)).collect())
}

fn check_bucket(group: GroupId, kind: GroupKind, bucket: u32, spec: &BucketSpec) -> Result<(), GroupModError> {
    let watches = spec.watch_port.is_some() || spec.watch_group.is_some();
    match kind {
        GroupKind::All | GroupKind::Indirect if watches => return Err(GroupModError::Watch { group, bucket }),
        GroupKind::FastFailover if !watches => return Err(GroupModError::NoWatch { group, bucket }),
        _ => {}
    }
    if spec.weight != 0 && kind != GroupKind::Select {
        return Err(GroupModError::Weight { group, bucket });
    }
    consistency::verify(&spec.actions, Place::Bucket).map_err(|source| GroupModError::Actions { group, bucket, source })
}
