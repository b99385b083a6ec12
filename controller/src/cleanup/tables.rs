//! Tables of nftables that the switch made: they have its name, and a comment of its own in each rule.

use super::{CleanupError, Line, line};
use serde_json::Value;
use std::process::Command;

/// What the names of our tables begin with.
const NAME: &str = "sluice-";
/// What the comments of our rules begin with.
const COMMENT: &str = "sluiced:";

/// Removes them.
pub(super) fn clean(dry_run: bool) -> Vec<Line> {
    // Without `nft` there was nothing that could have made a table.
    let Ok(output) = Command::new("nft").args(["-j", "list", "ruleset"]).output() else { return Vec::new() };
    let Ok(ruleset) = serde_json::from_slice(&output.stdout) else { return Vec::new() };
    let removal = |(family, name): (String, String)| {
        let what = format!("delete the nftables table {family} {name}");
        line(what.clone(), dry_run, || delete(&family, &name, what))
    };
    tables(&ruleset).into_iter().map(removal).collect()
}

/// Family and name of each table of ours: by its name, and no rule in it without our comment.
fn tables(ruleset: &Value) -> Vec<(String, String)> {
    let objects = || ruleset["nftables"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tables = objects().filter_map(|object| object.get("table"));
    let named = tables.map(|table| (text(&table["family"]), text(&table["name"])));
    let is_foreign = |(family, name): &(String, String)| {
        let rules = objects().filter_map(|object| object.get("rule"));
        let mut own = rules.filter(|rule| rule["family"] == **family && rule["table"] == **name);
        own.any(|rule| !text(&rule["comment"]).starts_with(COMMENT))
    };
    named.filter(|table| table.1.starts_with(NAME) && !is_foreign(table)).collect()
}

fn delete(family: &str, name: &str, what: String) -> Result<(), CleanupError> {
    match Command::new("nft").args(["delete", "table", family, name]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(CleanupError::Table { what, why })
        }
        Err(error) => Err(CleanupError::Table { what, why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_of_ours_has_our_name_and_our_comments_alone() {
        let table = |name: &str| json!({"table": {"family": "inet", "name": name}});
        let rule = |name: &str, comment: &str| json!({"rule": {"family": "inet", "table": name, "comment": comment}});
        let ruleset = json!({"nftables": [
            {"metainfo": {}},
            table("sluice-sluice0"), rule("sluice-sluice0", "sluiced: gateway sluice0"),
            table("sluice-ports-sluice0"),
            table("sluice-other"), rule("sluice-other", "mine"),
            table("filter"), rule("filter", "sluiced: gateway sluice0"),
        ]});
        let names: Vec<_> = tables(&ruleset).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["sluice-sluice0", "sluice-ports-sluice0"]);
    }
}
