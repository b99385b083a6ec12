//! Reading settings of tables, as `ovs-ofctl mod-table` reads them.

use super::error::{ErrorKind, Fault, ParseError};
use super::token::{Pairs, Word};
use super::{suggest, value};
use crate::bridge::{TableMiss, TableMod};
use crate::text::Names;

/// Words of settings.
const WORDS: [&str; 7] = ["drop", "controller", "continue", "evict", "noevict", "name", "flow_limit"];

/// Reads which table, by its number or name, or `all`; and what is said of it: `drop`, `controller` or `continue` for
/// packets that no flow matches, `evict` or `noevict` for a table that is full, `name:NAME` (without a name to take it
/// away), `flow_limit:N` (0 for any number). Several settings may stand behind one another.
///
/// # Errors
/// When the table is unknown, a setting is none or has a wrong value, and when `all` would get a name.
pub fn parse_table_mod(text: &str, names: &Names) -> Result<TableMod, ParseError> {
    read(Word::whole(text), names).map_err(|fault| fault.in_text(text))
}

/// As [`parse_table_mod`].
pub(crate) fn read(text: Word<'_>, names: &Names) -> Result<TableMod, Fault> {
    let begun = text.trim();
    let len = begun.text.find([',', ' ', '\t', '\r', '\n']).unwrap_or(begun.text.len());
    let (table, settings) = (begun.part(0, len), begun.part(len, begun.text.len()));
    if table.text.is_empty() {
        return Err(table.fault(ErrorKind::MissingKey("a table and what to say of it")));
    }
    let mut out = TableMod::default();
    if !matches!(table.text, "all" | "ALL") {
        out.table = value::table(table, names)?;
    }
    let mut some = false;
    for pair in Pairs::new(settings) {
        let word = pair.key;
        match word.text {
            "drop" => out.miss = Some(TableMiss::Drop),
            "controller" => out.miss = Some(TableMiss::Controller),
            "continue" => out.miss = Some(TableMiss::Continue),
            "evict" => out.evict = Some(true),
            "noevict" => out.evict = Some(false),
            "name" if out.table.is_none() => {
                return Err(word.fault(ErrorKind::NotAllowed("one table has a name, not all")));
            }
            "name" => {
                let name = pair.value.text;
                out.name = Some(name.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(name).into());
            }
            "flow_limit" => {
                out.max_flows = Some(value::number_to(pair.value, "flow_limit", u32::MAX.into())? as u32);
            }
            "vacancy" => return Err(word.fault(ErrorKind::Unsupported)),
            other => {
                return Err(word.fault(ErrorKind::UnknownKeyword).suggest(suggest::nearest(other, WORDS)));
            }
        }
        if pair.has_value() && !matches!(word.text, "name" | "flow_limit") {
            return Err(pair.value.fault(ErrorKind::UnexpectedValue));
        }
        some = true;
    }
    if some { Ok(out) } else { Err(text.end().fault(ErrorKind::MissingKey("what to say of the table"))) }
}
