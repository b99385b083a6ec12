//! What is said of tables beside their flows.

use super::Touched;
use crate::bridge::{Bridge, TableConfig, TableMod};
use crate::flow_mod::Applied;
use crate::rule::TableId;
use crate::table::RemovedReason;
use std::sync::Arc;
use thiserror::Error;

/// Longest name of a table, in bytes.
pub const MAX_TABLE_NAME_LEN: usize = 31;

/// Why a [`TableMod`] was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableModError {
    /// A name for all tables.
    #[error("the name {name:?} can be that of one table only; say which")]
    NameForAll {
        /// The name.
        name: Arc<str>,
    },
    /// A name that another table has.
    #[error("table {table} is called {name:?} already; choose another name")]
    NameTaken {
        /// The name.
        name: Arc<str>,
        /// The table that has it.
        table: TableId,
    },
    /// A name that cannot be one.
    #[error(
        "{name:?} cannot be a table's name: it has 1 to {MAX_TABLE_NAME_LEN} bytes, starts with no digit, and has no \
         blank, comma, parenthesis, quote or control character"
    )]
    BadName {
        /// The name.
        name: Arc<str>,
    },
}

impl Bridge {
    pub(super) fn apply_table(&mut self, change: &TableMod) -> Result<Applied, TableModError> {
        if let Some(name) = change.name.as_ref().filter(|name| !name.is_empty()) {
            self.check_name(change.table, name)?;
        }
        let mut applied = Applied::default();
        let tables = match change.table {
            Some(table) => table.get()..=table.get(),
            None => 0..=TableId::LAST.get(),
        };
        for table in tables.filter_map(TableId::new) {
            let old = self.table_configs.get(&table).cloned().unwrap_or_default();
            let config = changed(&old, change);
            if config == old {
                continue;
            }
            let limit = config.max_flows.filter(|_| config.evict);
            if config == TableConfig::default() {
                self.table_configs.remove(&table);
            } else {
                self.table_configs.insert(table, config);
            }
            if let Some(max) = limit {
                let evicted = self.evict(table, max as usize);
                applied.removed.extend(evicted.into_iter().map(|rule| (rule, RemovedReason::Evicted)));
            }
            applied.touched.push(Touched::Table(table));
        }
        Ok(applied)
    }

    fn check_name(&self, table: Option<TableId>, name: &Arc<str>) -> Result<(), TableModError> {
        let Some(table) = table else { return Err(TableModError::NameForAll { name: Arc::clone(name) }) };
        check_table_name(name)?;
        let others = self.table_configs.iter().filter(|(other, _)| **other != table);
        match others.into_iter().find(|(_, config)| config.name.as_ref() == Some(name)) {
            Some((other, _)) => Err(TableModError::NameTaken { name: Arc::clone(name), table: *other }),
            None => Ok(()),
        }
    }
}

/// Checks that `name` can be a table's.
///
/// # Errors
/// [`TableModError::BadName`].
pub fn check_table_name(name: &str) -> Result<(), TableModError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '(' | ')' | '"' | '\'' | '=' | ':');
    let digit = |c: char| c.is_ascii_digit();
    if name.is_empty() || name.len() > MAX_TABLE_NAME_LEN || name.starts_with(digit) || name.contains(bad) {
        return Err(TableModError::BadName { name: name.into() });
    }
    Ok(())
}

fn changed(old: &TableConfig, change: &TableMod) -> TableConfig {
    TableConfig {
        name: match &change.name {
            None => old.name.clone(),
            Some(name) => Some(Arc::clone(name)).filter(|n| !n.is_empty()),
        },
        miss: change.miss.unwrap_or(old.miss),
        max_flows: match change.max_flows {
            None => old.max_flows,
            Some(max) => Some(max).filter(|max| *max != 0),
        },
        evict: change.evict.unwrap_or(old.evict),
    }
}
