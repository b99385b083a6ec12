//! Drops by reason, ingress port and rule: what `sluice drops` shows.
//!
//! Not kept per packet: cache entries that drop are added when their counters are credited, and frames lost on the way
//! out once per burst.

use crate::stats::DropGroup;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::key::PacketKey;
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::{DpPort, DropReason};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Groups that one worker tells apart by rule; past it, new ones are counted without their rule.
const LIMIT: usize = 1024;

/// Reason, ingress port, and the rule's address to tell rules apart.
type GroupKey = (DropReason, DpPort, usize);

/// The drops that one worker has seen. The lock is the worker's, but for a reader now and then.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    groups: Mutex<HashMap<GroupKey, DropGroup, RandomState>>,
}

impl Drops {
    /// Counts `packets` that came in by `ingress`.
    pub(crate) fn add(
        &self,
        reason: DropReason,
        ingress: DpPort,
        rule: Option<&Arc<Rule>>,
        packets: u64,
        last: Millis,
        example: Option<&PacketKey>,
    ) {
        let mut groups = self.lock();
        let key = |rule: Option<&Arc<Rule>>| (reason, ingress, rule.map_or(0, |r| Arc::as_ptr(r).addr()));
        let known = groups.len() < LIMIT || groups.contains_key(&key(rule));
        let rule = rule.filter(|_| known);
        let group = groups.entry(key(rule)).or_insert_with(|| DropGroup {
            reason,
            ingress,
            rule: rule.cloned(),
            packets: 0,
            last,
            example: None,
        });
        group.packets += packets;
        group.last = group.last.max(last);
        group.example = example.copied().or(group.example);
    }

    /// Adds these drops to `all`, those of the same rule, reason and port together.
    pub(crate) fn collect(&self, all: &mut HashMap<GroupKey, DropGroup, RandomState>) {
        for (key, group) in self.lock().iter() {
            let sum = all.entry(*key).or_insert_with(|| DropGroup { packets: 0, ..group.clone() });
            sum.packets += group.packets;
            if group.last >= sum.last {
                sum.last = group.last;
                sum.example = group.example.or(sum.example);
            }
        }
    }

    /// Forgets what came in by `port`, which is gone: its number will be another port's.
    pub(crate) fn forget(&self, port: DpPort) {
        self.lock().retain(|(_, ingress, _), _| *ingress != port);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupKey, DropGroup, RandomState>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
