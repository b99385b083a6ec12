//! The MAC learning tables: which port each address was last seen behind, per bridge and VLAN.
//!
//! # Who touches it
//! Only slow paths: translation asks ([`MacLookup`]), a miss learns, and every half second the cache entries that were
//! used refresh what they carry. So a lock per bridge is enough. No guard is held across another call of the map.
//!
//! # How cached results follow it
//! A cached result depends on the answers that its translation got. Each (bridge, VLAN, address) hashes to one of
//! [`SLOTS`] counters; learning, moving and ageing bump it, then the epoch. A worker that sees the epoch unchanged
//! needs to compare nothing; otherwise it compares the counters that the entry noted. Two addresses that share a
//! counter cost a needless translation, never a wrong result.
//!
//! Reader and writer agree without a lock because the reader notes the counter *before* it asks and the writer bumps
//! it *after* it has changed the table: a change that the reader missed is one that it will see in the counter.
//!
//! # Multicast groups
//! What IGMP and MLD tell of groups is kept in the same way, per bridge, VLAN and group, and watched by the same counters.
//! A bridge holds [`MAX_GROUPS`] groups; packets to those beyond are flooded.
//!
//! # Limits
//! Each bridge holds [`MacSettings::limit`] addresses. When it is full, the oldest address of the port that holds
//! most makes room, so a host that floods addresses pushes out its own.

use dashmap::DashMap;
use foldhash::fast::RandomState;
use sluice_flows::PortNo;
use sluice_flows::bridge::{BridgeId, VlanId};
use sluice_flows::datapath::{MacQuery, MacSighting, McastQuery, McastSighting};
use sluice_flows::packet::{Layers, membership};
use sluice_flows::rule::Millis;
use sluice_flows::translate::MacLookup;
use smallvec::SmallVec;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

mod groups;
mod learned;

use groups::Groups;
use learned::Learned;

/// Number of version counters.
pub const SLOTS: usize = 4096;
/// Multicast groups that a bridge knows, OVS's default.
pub const MAX_GROUPS: usize = 2048;
/// Group bit of an Ethernet address held in the low 48 bits of a word.
const MULTICAST: u64 = 0x0100_0000_0000;

/// How long and how much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacSettings {
    /// Milliseconds without a packet from an address until it is forgotten.
    pub ageing: u64,
    /// Addresses held per bridge, at least 1.
    pub limit: usize,
}

impl Default for MacSettings {
    /// OVS's defaults: 300 s and 8192 addresses.
    fn default() -> Self {
        Self { ageing: 300_000, limit: 8192 }
    }
}

/// One learned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address, in the low 48 bits.
    pub mac: u64,
    /// The port it is behind.
    pub port: PortNo,
    /// When a packet last came from it.
    pub seen: Millis,
}

/// What a sighting told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacChange {
    /// Nothing new: the address is behind the port it was behind, or is one that is never learned.
    None,
    /// The address was not known.
    Learned,
    /// The address was behind another port.
    Moved {
        /// That port.
        from: PortNo,
    },
}

/// A port behind which somebody wants a multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupMember {
    /// The VLAN.
    pub vlan: VlanId,
    /// The group; `None` for a port behind which a multicast router is.
    pub group: Option<IpAddr>,
    /// The port.
    pub port: PortNo,
    /// When it was last said.
    pub seen: Millis,
}

/// The learning tables of all bridges.
#[derive(Debug)]
pub struct MacTable {
    bridges: DashMap<BridgeId, Learned>,
    groups: DashMap<BridgeId, Groups>,
    versions: Box<[AtomicU32]>,
    epoch: AtomicU64,
    hasher: RandomState,
    settings: MacSettings,
}

impl MacTable {
    /// Empty tables.
    pub fn new(settings: MacSettings) -> Self {
        let settings = MacSettings { limit: settings.limit.max(1), ..settings };
        Self {
            bridges: DashMap::new(),
            groups: DashMap::new(),
            versions: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            epoch: AtomicU64::new(0),
            hasher: RandomState::default(),
            settings,
        }
    }

    /// Notes that `sighting` was made at `now`. Multicast and all-zero addresses are never learned.
    pub fn learn(&self, sighting: &MacSighting, now: Millis) -> MacChange {
        if sighting.mac & MULTICAST != 0 || sighting.mac == 0 {
            return MacChange::None;
        }
        let (change, evicted) = {
            let mut table = self.bridges.entry(sighting.bridge).or_default();
            let change = table.learn((sighting.vlan, sighting.mac), sighting.port, now);
            let evicted = if table.len() > self.settings.limit { table.evict() } else { None };
            (change, evicted)
        };
        if change != MacChange::None {
            self.bump(sighting.bridge, sighting.vlan, sighting.mac);
        }
        if let Some((vlan, mac)) = evicted {
            self.bump(sighting.bridge, vlan, mac);
        }
        if change != MacChange::None || evicted.is_some() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        change
    }

    /// Notes that packets of `sighting` came until `now`, if that is where the address still is. Unlike
    /// [`Self::learn`] it never moves an address, so a refresh that comes late does no harm.
    pub fn refresh(&self, sighting: &MacSighting, now: Millis) {
        if let Some(mut table) = self.bridges.get_mut(&sighting.bridge) {
            table.refresh((sighting.vlan, sighting.mac), sighting.port, now);
        }
    }

    /// Forgets the addresses not seen for [`MacSettings::ageing`] and returns them.
    pub fn expire(&self, now: Millis) -> Vec<MacEntry> {
        self.remove_where(|_| true, |table, out| table.expire(now, self.settings.ageing, out))
    }

    /// Forgets the addresses of `bridge`, or only those behind `port` if one is given. Returns how many.
    pub fn flush(&self, bridge: BridgeId, port: Option<PortNo>) -> usize {
        self.remove_where(|id| id == bridge, |table, out| table.flush(port, out)).len()
    }

    /// Notes what a message that came in by a port says of multicast groups.
    pub(crate) fn snoop(&self, from: &McastSighting, frame: &[u8], layers: &Layers, now: Millis) {
        let mut changed = SmallVec::<[groups::Key; 4]>::new();
        {
            let mut groups = self.groups.entry(from.bridge).or_default();
            membership::read(frame, layers, &mut |said| {
                changed.extend(groups.hear(from.vlan, from.port, said, now, MAX_GROUPS));
            });
        }
        self.tell_groups(from.bridge, &changed);
    }

    /// Forgets multicast groups that nobody has asked for within [`MacSettings::ageing`].
    pub fn expire_groups(&self, now: Millis) {
        self.forget_groups(|_| true, |groups, changed| groups.forget(now, self.settings.ageing, |_| false, changed));
    }

    /// Forgets the multicast groups of `bridge`, or only what was said behind `port` if one is given.
    pub fn flush_groups(&self, bridge: BridgeId, port: Option<PortNo>) {
        let gone = |no| port.is_none_or(|only| only == no);
        self.forget_groups(|id| id == bridge, |groups, changed| groups.forget(Millis(0), u64::MAX, gone, changed));
    }

    /// The ports behind which somebody wants multicast groups of `bridge`, in the order of VLAN, group and port.
    pub fn group_members(&self, bridge: BridgeId) -> Vec<GroupMember> {
        let Some(groups) = self.groups.get(&bridge) else { return Vec::new() };
        let mut all: Vec<_> =
            groups.all().map(|((vlan, group), port, seen)| GroupMember { vlan, group, port, seen }).collect();
        all.sort_unstable();
        all
    }

    fn forget_groups(&self, select: impl Fn(BridgeId) -> bool, forget: impl Fn(&mut Groups, &mut Vec<groups::Key>)) {
        let mut all = Vec::new();
        for mut groups in self.groups.iter_mut().filter(|groups| select(*groups.key())) {
            let mut changed = Vec::new();
            forget(groups.value_mut(), &mut changed);
            all.push((*groups.key(), changed));
        }
        for (bridge, changed) in all {
            self.tell_groups(bridge, &changed);
        }
    }

    /// Makes changed groups known to the caches.
    fn tell_groups(&self, bridge: BridgeId, changed: &[groups::Key]) {
        for (vlan, group) in changed {
            self.bump_slot(self.group_slot(McastQuery { bridge, vlan: *vlan, group: *group }));
        }
        if !changed.is_empty() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// The version counter that stands for a multicast group.
    pub(crate) fn group_slot(&self, query: McastQuery) -> u16 {
        (self.hasher.hash_one((query.bridge.0, query.vlan, query.group)) % SLOTS as u64) as u16
    }

    /// The addresses of `bridge`, in the order of VLAN and address.
    pub fn entries(&self, bridge: BridgeId) -> Vec<MacEntry> {
        let mut out = Vec::new();
        if let Some(table) = self.bridges.get(&bridge) {
            table.all(&mut out);
        }
        for entry in &mut out {
            entry.bridge = bridge;
        }
        out.sort_unstable_by_key(|e| (e.vlan, e.mac));
        out
    }

    /// Number of addresses held, over all bridges.
    pub fn len(&self) -> usize {
        self.bridges.iter().map(|t| t.len()).sum()
    }

    /// Whether no address is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grows whenever any answer of the tables may have changed.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The version counter that stands for an address.
    pub(crate) fn slot(&self, bridge: BridgeId, vlan: VlanId, mac: u64) -> u16 {
        let word = mac & 0xffff_ffff_ffff | u64::from(vlan.get()) << 48;
        (self.hasher.hash_one((bridge.0, word)) % SLOTS as u64) as u16
    }

    /// The value of a version counter.
    pub(crate) fn version(&self, slot: u16) -> u32 {
        self.versions.get(usize::from(slot)).map_or(0, |v| v.load(Ordering::Acquire))
    }

    fn bump(&self, bridge: BridgeId, vlan: VlanId, mac: u64) {
        self.bump_slot(self.slot(bridge, vlan, mac));
    }

    fn bump_slot(&self, slot: u16) {
        if let Some(version) = self.versions.get(usize::from(slot)) {
            version.fetch_add(1, Ordering::Release);
        }
    }

    /// Runs `remove` on the tables that `select` picks and makes what it removed known to the caches.
    fn remove_where(
        &self,
        select: impl Fn(BridgeId) -> bool,
        remove: impl Fn(&mut Learned, &mut Vec<MacEntry>),
    ) -> Vec<MacEntry> {
        let mut out = Vec::new();
        for mut table in self.bridges.iter_mut() {
            let bridge = *table.key();
            if select(bridge) {
                let from = out.len();
                remove(table.value_mut(), &mut out);
                for entry in &mut out[from..] {
                    entry.bridge = bridge;
                }
            }
        }
        for entry in &out {
            self.bump(entry.bridge, entry.vlan, entry.mac);
        }
        if !out.is_empty() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        out
    }
}

impl MacLookup for MacTable {
    fn port_of(&self, query: MacQuery) -> Option<PortNo> {
        self.bridges.get(&query.bridge)?.port_of(&(query.vlan, query.mac))
    }

    fn members(&self, query: McastQuery) -> Option<SmallVec<[PortNo; 4]>> {
        self.groups.get(&query.bridge)?.members(query.vlan, query.group)
    }
}

#[cfg(test)]
mod tests;
