//! Names of ports and tables, for reading and printing flow text.

use crate::bridge::Bridge;
use crate::port::PortNo;
use crate::rule::TableId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of the ports and tables of one bridge. Numbers always work; an empty `Names` knows no names.
///
/// What is printed with names reads back with the same names only.
#[derive(Clone, Debug, Default)]
pub struct Names {
    ports: BTreeMap<Arc<str>, PortNo>,
    port_names: BTreeMap<PortNo, Arc<str>>,
    tables: BTreeMap<Arc<str>, TableId>,
    table_names: BTreeMap<TableId, Arc<str>>,
}

impl Names {
    /// No names at all.
    pub const NONE: &'static Self = &Self::new();

    /// No names yet.
    pub const fn new() -> Self {
        Self {
            ports: BTreeMap::new(),
            port_names: BTreeMap::new(),
            tables: BTreeMap::new(),
            table_names: BTreeMap::new(),
        }
    }

    /// The names of a bridge's ports and tables.
    pub fn of_bridge(bridge: &Bridge) -> Self {
        let mut names = Self::new();
        for (table, config) in &bridge.table_configs {
            if let Some(name) = &config.name {
                names.add_table(*table, name.clone());
            }
        }
        for port in bridge.ports.values() {
            names.add_port(port.no, port.name.clone());
        }
        names
    }

    /// Names a port. A later name for the same port or number replaces the earlier one.
    pub fn add_port(&mut self, no: PortNo, name: impl Into<Arc<str>>) {
        let name = name.into();
        self.ports.insert(name.clone(), no);
        self.port_names.insert(no, name);
    }

    /// Names a table. A later name for the same table or number replaces the earlier one.
    pub fn add_table(&mut self, table: TableId, name: impl Into<Arc<str>>) {
        let name = name.into();
        self.tables.insert(name.clone(), table);
        self.table_names.insert(table, name);
    }

    /// Whether nothing has a name.
    pub fn is_empty(&self) -> bool {
        self.port_names.is_empty() && self.table_names.is_empty()
    }

    /// The port with this name.
    pub fn port(&self, name: &str) -> Option<PortNo> {
        self.ports.get(name).copied()
    }

    /// The name of this port.
    pub fn port_name(&self, no: PortNo) -> Option<&str> {
        self.port_names.get(&no).map(|n| &**n)
    }

    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<TableId> {
        self.tables.get(name).copied()
    }

    /// The name of this table.
    pub fn table_name(&self, table: TableId) -> Option<&str> {
        self.table_names.get(&table).map(|n| &**n)
    }

    /// Every port name.
    pub(crate) fn port_words(&self) -> impl Iterator<Item = &str> {
        self.ports.keys().map(|n| &**n)
    }

    /// Every table name.
    pub(crate) fn table_words(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|n| &**n)
    }
}
