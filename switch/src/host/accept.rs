//! Having Docker's firewall let the gateways' packets pass.
//!
//! Docker drops what the host forwards unless it says otherwise, and has a chain for others to say so: `DOCKER-USER`, in the
//! tables `ip filter` and `ip6 filter`. Where it is there, two rules of ours are in it for each gateway that forwards, in
//! front of the rule that ends it, so that what the operator drops there stays dropped. They are known by their comment.

use super::HostError;
use super::nft::is_missing;
use nftables::helper::{self, DEFAULT_NFT, NftablesError};
use serde_json::{Value, json};

/// The tables' families.
pub(super) const FAMILIES: [&str; 2] = ["ip", "ip6"];
/// The table.
pub(super) const TABLE: &str = "filter";
/// The chain.
pub(super) const CHAIN: &str = "DOCKER-USER";

/// What is in the chain of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether the chain is there.
    pub(super) there: bool,
    /// The handles of our rules.
    pub(super) ours: Vec<u64>,
    /// Whether they are as they are to be.
    pub(super) good: bool,
    /// The handle of the rule that ends the chain, if one does.
    last: Option<u64>,
}

/// How our rules' comments begin; the interface follows.
const COMMENT: &str = "sluiced: gateway ";

fn comment(link: &str) -> String {
    format!("{COMMENT}{link}")
}

fn expressions(link: &str) -> [Value; 2] {
    ["iifname", "oifname"].map(|key| {
        let by = json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": link}});
        json!([by, {"accept": null}])
    })
}

/// Reads the chain of one family, and what is in it for `link`. A host without `nft` has none.
///
/// # Errors
/// `nft` fails.
pub(super) fn find(link: &str, family: &str) -> Result<Found, HostError> {
    Ok(list(family)?.map_or_else(Found::default, |objects| judge(link, &objects)))
}

/// The chain of one family, if it is there.
fn list(family: &str) -> Result<Option<Vec<Value>>, HostError> {
    let listed = match helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "chain", family, TABLE, CHAIN]) {
        Ok(listed) => listed,
        Err(NftablesError::NftExecution { .. }) => return Ok(None),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    Ok(Some(listed.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default()))
}

/// The interfaces that rules of ours in the chain of one family are for.
///
/// # Errors
/// `nft` fails.
pub(super) fn links(family: &str) -> Result<Vec<String>, HostError> {
    let objects = list(family)?.unwrap_or_default();
    let comments = objects.iter().filter_map(|object| object.pointer("/rule/comment").and_then(Value::as_str));
    Ok(comments.filter_map(|comment| comment.strip_prefix(COMMENT)).map(str::to_owned).collect())
}

/// Puts our rules in where they are not. Returns for which interfaces.
///
/// # Errors
/// `nft` fails.
pub(super) fn again<'a>(links: &[&'a str], family: &str) -> Result<Vec<&'a str>, HostError> {
    let Some(objects) = list(family)? else { return Ok(Vec::new()) };
    let missing: Vec<_> = links.iter().copied().filter(|link| !judge(link, &objects).good).collect();
    missing.iter().try_for_each(|link| take(link, family, true))?;
    Ok(missing)
}

fn judge(link: &str, objects: &[Value]) -> Found {
    let ours = comment(link);
    let rules: Vec<_> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let handle = |rule: &Value| rule.get("handle").and_then(Value::as_u64);
    let is_ours = |rule: &&Value| rule.get("comment").and_then(Value::as_str) == Some(&ours);
    let there: Vec<_> = rules.iter().copied().filter(is_ours).collect();
    let words = |rule: &Value| {
        let expr = rule.get("expr").and_then(Value::as_array).cloned().unwrap_or_default();
        // Counters are of no matter.
        Value::from(expr.into_iter().filter(|e| e.get("counter").is_none()).collect::<Vec<_>>())
    };
    let ends = |rule: &&&Value| words(rule) == json!([{"return": null}]);
    Found {
        there: true,
        good: there.iter().map(|rule| words(rule)).eq(expressions(link)),
        ours: there.into_iter().filter_map(handle).collect(),
        last: rules.last().filter(ends).copied().and_then(handle),
    }
}

/// Puts our rules in, anew if there are any, or takes them out.
///
/// # Errors
/// `nft` fails.
pub(super) fn take(link: &str, family: &str, wanted: bool) -> Result<(), HostError> {
    let found = find(link, family)?;
    let rule = json!({"family": family, "table": TABLE, "chain": CHAIN});
    let with = |more: Value| {
        let mut rule = rule.clone();
        if let (Some(rule), Value::Object(more)) = (rule.as_object_mut(), more) {
            rule.extend(more);
        }
        json!({ "rule": rule })
    };
    let mut commands: Vec<_> =
        found.ours.iter().map(|handle| json!({"delete": with(json!({"handle": handle}))})).collect();
    if wanted && found.there {
        commands.extend(expressions(link).map(|expr| {
            let new = json!({"expr": expr, "comment": comment(link)});
            match found.last {
                Some(before) => {
                    let mut rule = with(new);
                    rule["rule"]["handle"] = json!(before);
                    json!({ "insert": rule })
                }
                None => json!({"add": with(new)}),
            }
        }));
    }
    if !commands.is_empty() {
        let text = json!({"nftables": commands}).to_string();
        helper::apply_ruleset_raw(&text, DEFAULT_NFT, helper::DEFAULT_ARGS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rules_are_told_from_others_and_the_end_is_found() {
        let [inward, outward] = expressions("br0");
        let rule = |handle: u64, comment: &str, expr: Value| {
            let rule = json!({"handle": handle, "comment": comment, "expr": expr});
            json!({"rule": rule})
        };
        let theirs = rule(4, "mine", json!([{"drop": null}]));
        let end = rule(9, "", json!([{"counter": {"packets": 1, "bytes": 60}}, {"return": null}]));
        let a = rule(5, "sluiced: gateway br0", inward);
        let b = rule(6, "sluiced: gateway br0", outward);
        let found = judge("br0", &[theirs.clone(), a.clone(), b.clone(), end.clone()]);
        assert_eq!(found, Found { there: true, ours: vec![5, 6], good: true, last: Some(9) });
        let found = judge("br0", &[theirs.clone(), b, a]);
        assert_eq!(found, Found { there: true, ours: vec![6, 5], good: false, last: None });
        assert_eq!(judge("br1", &[theirs, end]).last, Some(9));
    }
}
