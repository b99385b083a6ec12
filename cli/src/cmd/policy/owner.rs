//! Which policies the owner of a flow or a drop names.
//!
//! Owners are `KIND:POLICY/DIRECTION/RULE`. What several rules share names each of them, joined by `+`, the kind once where they
//! have it in common, and the last part once where it is the same: `np:shop/a/ingress/0+shop/b/ingress/1`,
//! `np:shop/a+shop/b/ingress/default`. A flow with more than four names tells how many more there are, and not which.

use crate::client::Client;
use crate::failure::Failure;
use sluice_controller::facts::policy::PolicyKind;
use sluice_proto::v1::{DumpFlowsRequest, Flow, FlowFilter};

/// The policies that an owner names, each with its kind; none if it is no policy's.
pub(crate) fn policies(owner: &str) -> Vec<String> {
    rules(owner).into_iter().map(|(policy, _)| policy).collect()
}

/// The same, each with its rule: `ingress/0`, `egress/default`.
pub(crate) fn rules(owner: &str) -> Vec<(String, String)> {
    let Some((kind, _)) = PolicyKind::of_prefix(owner) else { return Vec::new() };
    let kind = kind.prefix();
    let mut all: Vec<(String, Option<&str>)> = Vec::new();
    for part in owner.split('+') {
        let (policy, rule) = split(part);
        let has_kind = PolicyKind::of_prefix(policy).is_some();
        let policy = if has_kind { policy.to_owned() } else { format!("{kind}{policy}") };
        all.push((policy, rule));
    }
    // Without a rule of its own, a name has that of the last.
    let last = all.last().and_then(|(_, rule)| *rule).unwrap_or_default();
    let is_count = |policy: &str| {
        let rest = policy.strip_prefix(kind).unwrap_or(policy).strip_suffix("more");
        rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let named = all.into_iter().filter(|(policy, _)| !is_count(policy));
    named.map(|(policy, rule)| (policy, rule.unwrap_or(last).to_owned())).collect()
}

/// A policy's name, and the direction and rule behind it.
fn split(part: &str) -> (&str, Option<&str>) {
    let at = ["/ingress/", "/egress/"].iter().filter_map(|word| part.rfind(word)).max();
    at.map_or((part, None), |at| (&part[..at], Some(&part[at + 1..])))
}

/// A policy as owners name it, by what somebody types: `NAMESPACE/NAME`, or `np:`, `cnp:`, `anp:` or `banp:` and its name.
///
/// # Errors
/// It is none of these.
pub(crate) fn named(text: &str) -> Result<String, Failure> {
    let is_kind = PolicyKind::of_prefix(text).is_some_and(|(_, name)| !name.is_empty());
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, name] if !is_kind && !text.contains(':') && !namespace.is_empty() && !name.is_empty() => {
            Ok(format!("np:{text}"))
        }
        _ if is_kind => Ok(text.to_owned()),
        _ => {
            Err(Failure::usage(format!("`{text}` names no policy"))
                .next("NAMESPACE/NAME, cnp:NAME, anp:NAME or banp:NAME"))
        }
    }
}

/// The flows of a switch that are policies'; of `only_used` ones, those alone that packets have met.
///
/// # Errors
/// The switch does not answer.
pub(crate) fn flows(client: &Client, only_used: bool) -> Result<Vec<Flow>, Failure> {
    let mut flows = Vec::new();
    for kind in PolicyKind::ALL {
        let filter = FlowFilter { r#match: format!("owner={}*", kind.prefix()), ..FlowFilter::default() };
        let request = DumpFlowsRequest { filter: Some(filter), nonzero: only_used, ..DumpFlowsRequest::default() };
        flows.extend(client.collect(client.flows().dump_flows(request))?.into_iter().flat_map(|part| part.flows));
    }
    Ok(flows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_and_rule_of_an_owner_is_found() {
        for (owner, want) in [
            ("np:shop/db/ingress/0", "np:shop/db ingress/0"),
            ("np:shop/a/ingress/0+shop/b/egress/1", "np:shop/a ingress/0, np:shop/b egress/1"),
            ("np:shop/a+shop/b/egress/default", "np:shop/a egress/default, np:shop/b egress/default"),
            ("cnp:a/ingress/0+anp:b/ingress/3", "cnp:a ingress/0, anp:b ingress/3"),
            (
                "np:x/a+x/b+x/c+x/d+2more/ingress/default",
                "np:x/a ingress/default, np:x/b ingress/default, np:x/c ingress/default, np:x/d ingress/default",
            ),
            ("np:x/ingress/ingress/4", "np:x/ingress ingress/4"),
            ("svc:shop/web", ""),
            ("builtin:route", ""),
            ("", ""),
        ] {
            let found: Vec<_> = rules(owner).iter().map(|(policy, rule)| format!("{policy} {rule}")).collect();
            assert_eq!(found.join(", "), want, "{owner}");
        }
    }

    #[test]
    fn policies_are_named_with_or_without_their_kind() {
        assert_eq!(named("shop/db").unwrap(), "np:shop/db");
        assert_eq!(named("np:shop/db").unwrap(), "np:shop/db");
        assert_eq!(named("cnp:guard").unwrap(), "cnp:guard");
        for wrong in ["db", "cnp:", "svc:shop/db", "a/b/c", "/x"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
