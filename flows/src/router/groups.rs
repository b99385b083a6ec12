//! Next hops shared by routes: each set of several has one group, however many routes go by it.
//!
//! So when a next hop dies, the groups that have it change and not the routes. A set is told by its next hops in order
//! and its family; routes that list the same next hops in another order share it too.

use super::config::{InterfaceId, NextHop, Route};
use super::pipeline::Pipeline;
use crate::action::GroupId;
use crate::field::Field;
use crate::group::Selection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The sets of next hops in use, each with its group.
#[derive(Clone, Debug)]
pub struct NextHops {
    first: u32,
    sets: BTreeMap<Key, Held>,
    /// Numbers given back.
    free: BTreeSet<u32>,
    /// The first number never given.
    next: u32,
}

/// Family and next hops, sorted.
type Key = (bool, Arc<[NextHop]>);

#[derive(Clone, Copy, Debug)]
struct Held {
    group: u32,
    /// Routes that go by it.
    routes: usize,
}

/// A set of next hops, sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// They are for IPv4.
    pub v4: bool,
    /// The next hops.
    pub next_hops: &'a [NextHop],
}

impl NextHops {
    /// None yet; groups from the pipeline's first on.
    pub fn new(pipeline: &Pipeline) -> Self {
        let first = pipeline.first_group().0;
        Self { first, sets: BTreeMap::new(), free: BTreeSet::new(), next: first }
    }

    /// Notes that a route goes by its next hops. Returns the set if it is new and so has to get its group now: before
    /// the route its flow. A route with one next hop or none needs no group.
    pub fn hold(&mut self, route: &Route) -> Option<Arc<[NextHop]>> {
        let key = key(route)?;
        if let Some(held) = self.sets.get_mut(&key) {
            held.routes += 1;
            return None;
        }
        let group = self.free.pop_first().unwrap_or_else(|| {
            let group = self.next;
            self.next = group.saturating_add(1).min(GroupId::MAX.0);
            group
        });
        let hops = Arc::clone(&key.1);
        self.sets.insert(key, Held { group, routes: 1 });
        Some(hops)
    }

    /// Notes that a route is gone. Returns the group to delete if no other route goes by it.
    pub fn release(&mut self, route: &Route) -> Option<GroupId> {
        let key = key(route)?;
        let held = self.sets.get_mut(&key)?;
        held.routes = held.routes.saturating_sub(1);
        if held.routes > 0 {
            return None;
        }
        let group = held.group;
        self.sets.remove(&key);
        self.free.insert(group);
        Some(GroupId(group))
    }

    /// The group of a route that has several next hops and is [held](Self::hold).
    pub fn group(&self, route: &Route) -> Option<GroupId> {
        Some(GroupId(self.sets.get(&key(route)?)?.group))
    }

    /// The group of a set.
    pub fn id_of(&self, set: Set<'_>) -> Option<GroupId> {
        let key = (set.v4, Arc::from(set.next_hops));
        self.sets.get(&key).map(|held| GroupId(held.group))
    }

    /// The sets in use.
    pub fn iter(&self) -> impl Iterator<Item = Set<'_>> {
        self.sets.keys().map(|(v4, hops)| Set { v4: *v4, next_hops: hops })
    }

    /// The sets that a next hop by this interface is in.
    pub fn by(&self, interface: InterfaceId) -> impl Iterator<Item = Set<'_>> {
        self.iter().filter(move |set| set.next_hops.iter().any(|hop| hop.interface == interface))
    }

    /// The set that a route goes by, if it has several next hops.
    pub fn set_of(&self, route: &Route) -> Option<Set<'_>> {
        let (key, _) = self.sets.get_key_value(&key(route)?)?;
        Some(Set { v4: key.0, next_hops: &key.1 })
    }

    /// The first number of a group that may be used.
    pub fn first_group(&self) -> GroupId {
        GroupId(self.first)
    }
}

/// What tells the set of a route; none for a route that needs no group.
fn key(route: &Route) -> Option<Key> {
    if route.next_hops.len() < 2 {
        return None;
    }
    let mut hops = route.next_hops.clone();
    hops.sort_unstable();
    Some((route.destination.addr().is_ipv4(), hops.into()))
}

/// What spreads flows over next hops: addresses, protocol and ports, so that a connection keeps its way. Each router
/// hashes from a start of its own: else all that one router sends to its first next hop would be sent to the first again
/// by the next router.
pub(super) fn selection(router: &str, v4: bool) -> Selection {
    const V4: [Field; 2] = [Field::IpSrc, Field::IpDst];
    const V6: [Field; 2] = [Field::Ipv6Src, Field::Ipv6Dst];
    const REST: [Field; 7] =
        [Field::IpProto, Field::TcpSrc, Field::TcpDst, Field::UdpSrc, Field::UdpDst, Field::SctpSrc, Field::SctpDst];
    let addresses = if v4 { V4 } else { V6 };
    let fields = addresses.into_iter().chain(REST).map(|field| (field, field.slot().max())).collect();
    // FNV-1a, the same wherever the router runs.
    let param = router
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Selection::Hash { param, fields }
}
