//! Groups: which of the buckets are done, and doing them.

use super::choice::{heaviest, symmetric_l4};
use super::{At, MacLookup, TraceEvent, TraceSink, Walk, Work, action_set};
use crate::action::{GroupId, PacketInReason};
use crate::group::{Bucket, Group, GroupKind, Selection};
use std::sync::Arc;

/// How far a group that watches a group that watches a group is followed.
const MAX_WATCHED: u32 = 128;

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn group(&mut self, id: GroupId, at: At<'a>) {
        let Some(group) = self.bridge.groups.get(&id) else {
            self.note("the bridge has no such group: this list of actions ends here");
            self.pop_list();
            return;
        };
        if self.depth >= super::MAX_DEPTH || self.jumps >= super::MAX_JUMPS {
            self.looped = true;
            return;
        }
        self.jumps += 1;
        let mut chosen: Vec<usize> = match group.kind {
            GroupKind::All | GroupKind::Indirect => (0..group.buckets.len()).collect(),
            GroupKind::FastFailover => group.buckets.iter().position(|b| self.is_live(b, 0)).into_iter().collect(),
            GroupKind::Select => self.select(group).into_iter().collect(),
        };
        if S::ACTIVE {
            self.tell(TraceEvent::Group { group, chosen: &chosen });
        }
        if chosen.is_empty() {
            return self.note("no live bucket");
        }
        self.out.buckets.push(Arc::clone(&group.stats));
        chosen.reverse();
        self.stack.push(Work::Buckets { group, left: chosen, at });
    }

    /// Does one bucket on a copy of the packet.
    pub(super) fn bucket(&mut self, group: &'a Arc<Group>, index: usize, at: At<'a>) {
        let Some(bucket) = group.buckets.get(index) else { return };
        if S::ACTIVE {
            self.tell(TraceEvent::Bucket(bucket));
        }
        self.out.buckets.push(Arc::clone(&bucket.stats));
        self.save_for_bucket();
        let (list, at) = (action_set::in_order(&bucket.actions), At { reason: Some(PacketInReason::Group), ..at });
        self.stack.push(Work::Actions { list, next: 0, at, deepens: false });
    }

    /// Whether what the bucket watches is up; one that watches nothing is live.
    fn is_live(&self, bucket: &Bucket, depth: u32) -> bool {
        if bucket.watch_port.is_none() && bucket.watch_group.is_none() {
            return true;
        }
        let port = bucket.watch_port.and_then(|no| self.bridge.ports.get(&no)).is_some_and(|port| port.up);
        port || bucket.watch_group.and_then(|id| self.bridge.groups.get(&id)).is_some_and(|group| {
            depth < MAX_WATCHED && group.buckets.iter().any(|bucket| self.is_live(bucket, depth + 1))
        })
    }

    /// The bucket of a select group that this packet takes.
    fn select(&mut self, group: &Group) -> Option<usize> {
        let hash = match &group.selection {
            Selection::Hash { param, fields } if !fields.is_empty() => self.hash_fields(fields, *param),
            Selection::Hash { param, .. } | Selection::DpHash { param } => symmetric_l4(self, *param),
            Selection::Default => symmetric_l4(self, 0),
        };
        let live = group.buckets.iter().enumerate().filter(|(_, bucket)| self.is_live(bucket, 0));
        heaviest(hash, live.map(|(index, bucket)| (index, u64::from(bucket.id), bucket.weight)))
    }
}
