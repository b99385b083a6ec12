//! The multicast groups of one bridge: behind which ports somebody wants each, and behind which a router is.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::PortNo;
use sluice_flows::bridge::VlanId;
use sluice_flows::packet::membership::Membership;
use sluice_flows::rule::Millis;
use smallvec::SmallVec;
use std::net::IpAddr;

/// VLAN and group; no group for the routers.
pub(super) type Key = (VlanId, Option<IpAddr>);

/// A port, and when something was last heard of it.
type Seen = (PortNo, Millis);

/// The multicast groups of one bridge.
#[derive(Debug, Default)]
pub(super) struct Groups {
    map: HashMap<Key, SmallVec<[Seen; 4]>, RandomState>,
}

impl Groups {
    /// Notes what was said behind `port`. Returns what changed, if anything. Beyond `limit` groups new ones are not
    /// noted, so that they are flooded.
    pub(super) fn hear(
        &mut self,
        vlan: VlanId,
        port: PortNo,
        said: Membership,
        now: Millis,
        limit: usize,
    ) -> Option<Key> {
        let (key, joins) = match said {
            Membership::Router => ((vlan, None), true),
            Membership::Join(group) => ((vlan, Some(group)), true),
            Membership::Leave(group) => ((vlan, Some(group)), false),
        };
        if !joins {
            let ports = self.map.get_mut(&key)?;
            let before = ports.len();
            ports.retain(|(no, _)| *no != port);
            let changed = ports.len() != before;
            if ports.is_empty() {
                self.map.remove(&key);
            }
            return changed.then_some(key);
        }
        if self.map.len() >= limit && !self.map.contains_key(&key) {
            return None;
        }
        let ports = self.map.entry(key).or_default();
        match ports.iter_mut().find(|(no, _)| *no == port) {
            Some((_, seen)) => {
                *seen = now;
                None
            }
            None => {
                ports.push((port, now));
                ports.sort_unstable();
                Some(key)
            }
        }
    }

    /// The ports of a group and of the routers, sorted; `None` if nobody is known to want the group.
    pub(super) fn members(&self, vlan: VlanId, group: Option<IpAddr>) -> Option<SmallVec<[PortNo; 4]>> {
        let ports = |key| self.map.get(&key).into_iter().flatten().map(|(no, _)| *no);
        if !self.map.contains_key(&(vlan, group)) {
            return None;
        }
        let mut all: SmallVec<[PortNo; 4]> = ports((vlan, group)).chain(ports((vlan, None))).collect();
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Forgets what has not been heard of for `ageing` milliseconds, and the ports that `gone` picks. Adds to `changed`.
    pub(super) fn forget(&mut self, now: Millis, ageing: u64, gone: impl Fn(PortNo) -> bool, changed: &mut Vec<Key>) {
        self.map.retain(|key, ports| {
            let before = ports.len();
            ports.retain(|(no, seen)| now.since(*seen) < ageing && !gone(*no));
            if ports.len() != before {
                changed.push(*key);
            }
            !ports.is_empty()
        });
    }

    /// Every group and port.
    pub(super) fn all(&self) -> impl Iterator<Item = (Key, PortNo, Millis)> + '_ {
        self.map.iter().flat_map(|(key, ports)| ports.iter().map(move |(no, seen)| (*key, *no, *seen)))
    }
}
