//! Printing what is said of tables as `ovs-ofctl -O OpenFlow15 dump-table-desc` and `dump-tables` do.

use super::action::table;
use crate::bridge::TableConfig;
use crate::rule::TableId;
use crate::text::Names;
use std::fmt;

/// A table as `dump-table-desc` prints it: three lines.
///
/// A table that is full evicts the flow of the least importance, among those the one whose timeout comes first.
pub fn show_table_desc<'a>(id: TableId, config: &'a TableConfig, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        writeln!(f, "  table {}:", table(id, names))?;
        writeln!(
            f,
            "   eviction={} eviction_flags=OTHER|IMPORTANCE|LIFETIME",
            if config.evict { "on" } else { "off" }
        )?;
        f.write_str("   vacancy=off")
    })
}

/// A table as `dump-tables` prints it: two lines. `active` is the number of its flows, `lookup` the number of packets
/// that were looked up in it, and `matched` the number of those that a flow matched.
pub fn show_table_stats(
    id: TableId,
    active: usize,
    lookup: u64,
    matched: u64,
    names: &Names,
) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        writeln!(f, "  table {}:", table(id, names))?;
        write!(f, "    active={active}, lookup={lookup}, matched={matched}")
    })
}
