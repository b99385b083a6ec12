//! What opens and closes, as rows: workloads for which it is the same stand in one.

use super::Change;
use super::ends::{ELSE, OTHERS};
use crate::cmd::policy::world::To;
use crate::failure::Failure;
use crate::output::{Cell, Output, Table, Tone};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Names that a cell has before the rest is counted.
const SHOWN: usize = 3;
/// Most rows of a table.
const MAX_ROWS: usize = 200;

/// From any of these to any of those.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    from: Vec<String>,
    to: Vec<String>,
    change: Change,
}

/// The ports in few words: all there are, or all that have no name.
pub(super) fn gathered(labels: Vec<String>, questions: &[(String, To)]) -> Vec<String> {
    if !labels.is_empty() && labels.len() == questions.len() && labels.iter().zip(questions).all(|(a, (b, _))| a == b) {
        return vec!["everything".to_owned()];
    }
    let is_other = |label: &&String| OTHERS.contains(&label.as_str());
    if labels.iter().filter(is_other).count() < OTHERS.len() {
        return labels;
    }
    let named = labels.into_iter().filter(|label| !is_other(&label));
    named.chain([ELSE.to_owned()]).collect()
}

/// Sources with the same change to a destination are one row, and then destinations with the same sources.
pub(super) fn rows(changes: &[(String, String, Change)]) -> Vec<Row> {
    let mut sources: BTreeMap<(&str, &Change), BTreeSet<&str>> = BTreeMap::new();
    for (from, to, change) in changes {
        sources.entry((to, change)).or_default().insert(from);
    }
    let mut targets: BTreeMap<(BTreeSet<&str>, &Change), BTreeSet<&str>> = BTreeMap::new();
    for ((to, change), from) in sources {
        targets.entry((from, change)).or_default().insert(to);
    }
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    let row = |((from, change), to): ((BTreeSet<&str>, &Change), BTreeSet<&str>)| Row {
        from: owned(from),
        to: owned(to),
        change: change.clone(),
    };
    let mut rows: Vec<Row> = targets.into_iter().map(row).collect();
    rows.sort_by(|a, b| (&a.to, &a.from).cmp(&(&b.to, &b.from)));
    rows
}

impl Row {
    pub(super) fn json(&self) -> Value {
        json!({ "from": self.from, "to": self.to, "opens": self.change.opens, "closes": self.change.closes })
    }
}

fn names(all: &[String]) -> String {
    let shown: Vec<_> = all.iter().take(SHOWN).map(String::as_str).collect();
    let more = all.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

/// Writes them.
pub(super) fn write(rows: &[Row], out: &mut Output) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["FROM", "TO", "OPENS", "CLOSES"]);
    let ports = |labels: &[String], tone| {
        let text = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        Cell::from(text).tone(if labels.is_empty() { Tone::Plain } else { tone })
    };
    for Row { from, to, change } in rows.iter().take(MAX_ROWS) {
        let (opens, closes) = (ports(&change.opens, Tone::Good), ports(&change.closes, Tone::Bad));
        table.row([Cell::from(names(from)), names(to).into(), opens, closes]);
    }
    out.table(&table)?;
    if rows.len() > MAX_ROWS {
        out.line(format!("... and {} rows more: -o json has them all", rows.len() - MAX_ROWS))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_changes_are_one_row_and_others_stay_apart() {
        let opens = |label: &str| Change { opens: vec![label.to_owned()], closes: Vec::new() };
        let changes =
            [("a", "x", "1"), ("b", "x", "1"), ("a", "y", "1"), ("b", "y", "1"), ("c", "y", "2"), ("c", "x", "1")];
        let changes: Vec<_> = changes.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), opens(c))).collect();
        let rows = rows(&changes);
        let found: Vec<_> = rows.iter().map(|row| format!("{}>{}", names(&row.from), names(&row.to))).collect();
        assert_eq!(found, ["a, b, c>x", "a, b>y", "c>y"]);
    }

    #[test]
    fn what_has_no_name_is_all_else_only_if_it_is_all() {
        let to = To { protocol: None, port: 0 };
        let labels = |all: &[&str]| all.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        let questions: Vec<_> = ["80/tcp"].iter().chain(&OTHERS).map(|label| ((*label).to_owned(), to)).collect();
        assert_eq!(gathered(labels(&["80/tcp"]), &questions), ["80/tcp"]);
        assert_eq!(gathered(labels(&OTHERS), &questions), [ELSE]);
        assert_eq!(gathered(labels(&OTHERS[..2]), &questions), OTHERS[..2]);
        assert_eq!(gathered(questions.iter().map(|(label, _)| label.clone()).collect(), &questions), ["everything"]);
    }
}
