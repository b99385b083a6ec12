//! Bridges and their ports as translation sees them: plain data, changed by copying.

use crate::action::{GroupId, MeterId};
use crate::group::Group;
use crate::meter::Meter;
use crate::mirror::Mirror;
use crate::port::{DpPort, PortNo};
use crate::rule::{TableId, TableSet};
use crate::table::Tables;
use crate::tunnel::Tunnel;
use imbl::{HashMap, OrdMap};
use std::sync::Arc;

/// What names of bridges, ports and mirrors have to be, for messages.
pub const NAME_RULE: &str = "it has 1 to 63 bytes, none of them a blank, a slash or a control character";

/// Whether a bridge, a port or a mirror can be called so: see [`NAME_RULE`].
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

/// A VLAN ID, 0 to 4095; 0 stands for untagged traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanId(u16);

impl VlanId {
    /// Untagged traffic.
    pub const NONE: Self = Self(0);

    /// The VLAN in the low 12 bits of `tci`.
    pub const fn from_tci(tci: u16) -> Self {
        Self(tci & 0xfff)
    }

    /// VLAN `id`; `None` above 4095.
    pub const fn new(id: u16) -> Option<Self> {
        if id <= 0xfff { Some(Self(id)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Which VLANs a port carries, and how, under NORMAL. The modes are OVS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanMode {
    /// One VLAN, untagged on the wire.
    Access(VlanId),
    /// The VLANs of `trunks` (all if empty), tagged on the wire; untagged frames belong to VLAN 0.
    Trunk {
        /// VLANs carried; empty means all.
        trunks: Arc<[VlanId]>,
    },
    /// As a trunk, and `native` too, which leaves untagged or tagged as `tagged` says.
    Native {
        /// VLANs carried besides; empty means all.
        trunks: Arc<[VlanId]>,
        /// VLAN of untagged frames.
        native: VlanId,
        /// Frames of the native VLAN leave with a tag.
        tagged: bool,
    },
}

impl Default for VlanMode {
    fn default() -> Self {
        Self::Trunk { trunks: Arc::new([]) }
    }
}

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePort {
    /// Its OpenFlow number in the bridge.
    pub no: PortNo,
    /// Its name, unique in the datapath.
    pub name: Arc<str>,
    /// The datapath's number for it.
    pub dp: DpPort,
    /// Which VLANs it carries under NORMAL.
    pub vlan: VlanMode,
    /// Administratively up, with a device that is there.
    pub up: bool,
    /// Left out by FLOOD and by NORMAL's flooding.
    pub no_flood: bool,
    /// Nothing that came by a protected port leaves by it, whatever the action. What flows give another ingress port did
    /// not come by a protected one.
    pub protected: bool,
    /// For a patch port: the bridge and port at its other end.
    pub peer: Option<(BridgeId, PortNo)>,
    /// For a tunnel port: which outer headers it decides.
    pub tunnel: Option<Arc<Tunnel>>,
}

impl BridgePort {
    /// A trunk of all VLANs that is up.
    pub fn new(no: PortNo, name: impl Into<Arc<str>>, dp: DpPort) -> Self {
        Self {
            no,
            name: name.into(),
            dp,
            vlan: VlanMode::default(),
            up: true,
            no_flood: false,
            protected: false,
            peer: None,
            tunnel: None,
        }
    }
}

/// Index of a bridge in the [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u16);

/// A bridge: ports and flow tables.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its place in the model.
    pub id: BridgeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its ports by number.
    pub ports: OrdMap<PortNo, Arc<BridgePort>>,
    /// Its flow tables.
    pub tables: Tables,
    /// What is said of a table beside its flows, for the tables of which anything is said.
    pub table_configs: OrdMap<TableId, TableConfig>,
    /// Its groups by number.
    pub groups: OrdMap<GroupId, Arc<Group>>,
    /// Its meters by number.
    pub meters: OrdMap<MeterId, Arc<Meter>>,
    /// NORMAL sends multicast packets only to the ports behind which somebody wants them, as told by IGMP and MLD.
    pub mcast_snooping: bool,
    /// Its mirrors, in the order in which they were added; changed by [`Bridge::set_mirror`].
    pub mirrors: Arc<[Mirror]>,
}

/// What is said of a table beside its flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableConfig {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// What happens to a packet that no rule matches.
    pub miss: TableMiss,
    /// How many flows it may hold; any number if none.
    pub max_flows: Option<u32>,
    /// A full table removes a flow to make room, rather than refusing the new one.
    pub evict: bool,
}

/// What happens to a packet that no rule of a table matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableMiss {
    /// It is dropped.
    #[default]
    Drop,
    /// It is handed to the controller.
    Controller,
    /// It goes on in the next table.
    Continue,
}

/// One change to what is said of tables beside their flows; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMod {
    /// The table; all of them if none.
    pub table: Option<TableId>,
    /// Its name; empty takes it away.
    pub name: Option<Arc<str>>,
    /// What happens to a packet that no rule matches.
    pub miss: Option<TableMiss>,
    /// How many flows it may hold; 0 for any number.
    pub max_flows: Option<u32>,
    /// Whether a full table removes a flow to make room.
    pub evict: Option<bool>,
}

impl Bridge {
    /// A bridge without ports and flows.
    pub fn new(id: BridgeId, name: impl Into<Arc<str>>) -> Self {
        Self {
            id,
            name: name.into(),
            ports: OrdMap::new(),
            tables: Tables::new(),
            table_configs: OrdMap::new(),
            groups: OrdMap::new(),
            meters: OrdMap::new(),
            mcast_snooping: false,
            mirrors: Arc::default(),
        }
    }
}

/// Everything that translation reads, immutable. A change makes a new model that shares what did not change.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Grows with every change; caches compare it.
    pub generation: u64,
    /// The last generation that changed anything else than flows of tables in `moved`.
    pub settled: u64,
    /// Tables whose flows came or went of their own accord since then, by packets or in time, whatever their bridge; each with
    /// the generation that did it last.
    pub moved: OrdMap<TableId, u64>,
    /// Bridges by identifier.
    pub bridges: OrdMap<BridgeId, Arc<Bridge>>,
    /// Bridge and port number of every datapath port.
    pub ports: HashMap<DpPort, (BridgeId, PortNo)>,
}

impl Model {
    /// Begins the next generation, which may have changed anything.
    pub fn advance(&mut self) {
        self.generation += 1;
        self.settled = self.generation;
        self.moved.clear();
    }

    /// Begins the next generation, which changed nothing but flows of these tables.
    pub fn advance_tables(&mut self, tables: impl IntoIterator<Item = TableId>) {
        self.generation += 1;
        self.moved.extend(tables.into_iter().map(|table| (table, self.generation)));
    }

    /// Whether what a translation read is as it was in that generation, if these are the [`Translation::tables`] that
    /// it depends on.
    ///
    /// [`Translation::tables`]: crate::datapath::Translation::tables
    pub fn is_unchanged_since(&self, generation: u64, tables: &TableSet) -> bool {
        generation == self.generation
            || generation >= self.settled
                && !self.moved.iter().any(|(table, moved)| *moved > generation && tables.contains(*table))
    }

    /// The bridge with this identifier.
    pub fn bridge(&self, id: BridgeId) -> Option<&Arc<Bridge>> {
        self.bridges.get(&id)
    }

    /// The bridge with this name.
    pub fn bridge_named(&self, name: &str) -> Option<&Arc<Bridge>> {
        self.bridges.values().find(|b| &*b.name == name)
    }

    /// The bridge and port that a datapath port is.
    pub fn port(&self, dp: DpPort) -> Option<(&Arc<Bridge>, &Arc<BridgePort>)> {
        let (bridge, no) = self.ports.get(&dp)?;
        let bridge = self.bridge(*bridge)?;
        Some((bridge, bridge.ports.get(no)?))
    }
}
