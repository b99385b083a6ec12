//! The one nftables table that a gateway has on the host: it hides the gateway's link addresses behind the host's own
//! when their packets leave by another interface.
//!
//! `nft` does the talking, through the `nftables` crate, in the calling thread's network namespace. The table is replaced
//! as a whole in one transaction, so there is no moment without it. It is named after the interface; what tells that it
//! is ours is the comment that each of its rules has.
//!
//! Other programs' tables are read for one thing, whether they drop what is forwarded, and never written: in nftables
//! the `accept` of one table does not speak for another, so such a drop can only be lifted where it stands.

use super::{HostError, accept};
use nftables::expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField};
use nftables::helper::{self, DEFAULT_ARGS, DEFAULT_NFT, NftablesError};
use nftables::schema::{Chain, NfCmd, NfListObject, NfObject, Nftables, Rule, Table};
use nftables::stmt::{Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use std::net::IpAddr;

/// How our tables' names begin; the interface follows.
pub(super) const TABLE: &str = "sluice-";
/// The chain of our table.
const CHAIN: &str = "postrouting";
/// Priority of source NAT, after everybody else's filters.
pub(super) const PRIORITY: i32 = 100;

/// What the kernel has of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such table.
    #[default]
    Nothing,
    /// It is as it is to be for these addresses.
    Good,
    /// It is ours and differs.
    Differs,
    /// It is somebody else's.
    Foreign,
}

/// The name of the table for a gateway on `link`.
pub fn table_name(link: &str) -> String {
    format!("{TABLE}{}", plain(link))
}

/// An interface's name in letters that nft reads.
pub(super) fn plain(link: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    link.chars().map(plain).collect()
}

/// Whether `nft` found that what it was asked for is not there.
pub(super) fn is_missing(error: &NftablesError) -> bool {
    matches!(error, NftablesError::NftFailed { stderr, .. } if stderr.contains("No such file or directory"))
}

fn comment(link: &str) -> String {
    format!("sluiced: gateway {link}")
}

fn table(name: &str) -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: name.to_owned().into(), handle: None })
}

fn chain(name: &str) -> Chain<'static> {
    Chain {
        family: NfFamily::INet,
        table: name.to_owned().into(),
        name: CHAIN.into(),
        newname: None,
        handle: None,
        _type: Some(NfChainType::NAT),
        hook: Some(NfHook::Postrouting),
        prio: Some(PRIORITY),
        dev: None,
        policy: Some(NfChainPolicy::Accept),
    }
}

fn matching(left: NamedExpression<'static>, op: Operator, right: String) -> Statement<'static> {
    Statement::Match(Match { left: Expression::Named(left), right: Expression::String(right.into()), op })
}

/// `ip saddr ADDRESS oifname != LINK masquerade`.
fn rule(name: &str, link: &str, address: IpAddr) -> Rule<'static> {
    let protocol = if address.is_ipv4() { "ip" } else { "ip6" };
    let source = Payload::PayloadField(PayloadField { protocol: protocol.into(), field: "saddr".into() });
    let out = NamedExpression::Meta(Meta { key: MetaKey::Oifname });
    let expr = vec![
        matching(NamedExpression::Payload(source), Operator::EQ, address.to_string()),
        matching(out, Operator::NEQ, link.to_owned()),
        Statement::Masquerade(None),
    ];
    Rule {
        family: NfFamily::INet,
        table: name.to_owned().into(),
        chain: CHAIN.into(),
        expr: expr.into(),
        handle: None,
        index: None,
        comment: Some(comment(link).into()),
    }
}

/// The names of all tables of the family `inet`. A host without `nft` has none that anybody could see.
pub(super) fn tables() -> Vec<String> {
    let listed = helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "tables", "inet"]).unwrap_or_default();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let objects = listed.get("nftables").and_then(serde_json::Value::as_array).into_iter().flatten();
    objects.filter_map(|object| object.pointer("/table/name")?.as_str()).map(str::to_owned).collect()
}

/// Compares the table for a gateway on `link` with what it is to be.
///
/// # Errors
/// `nft` fails. That it is missing is none when nothing is wanted of it.
pub(super) fn find(link: &str, addresses: &[IpAddr]) -> Result<Found, HostError> {
    let name = table_name(link);
    let listed = match helper::get_current_ruleset_with_args(DEFAULT_NFT, ["list", "table", "inet", &name]) {
        Ok(listed) => listed,
        Err(error) if is_missing(&error) => return Ok(Found::Nothing),
        Err(NftablesError::NftExecution { .. }) if addresses.is_empty() => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    let ours = comment(link);
    let (mut chains, mut rules, mut others) = (Vec::new(), Vec::new(), 0);
    for object in listed.objects.iter() {
        match object {
            NfObject::ListObject(NfListObject::Chain(chain)) => chains.push(Chain { handle: None, ..chain.clone() }),
            NfObject::ListObject(NfListObject::Rule(rule)) => rules.push(Rule { handle: None, ..rule.clone() }),
            NfObject::ListObject(NfListObject::Table(_) | NfListObject::MetainfoObject(_)) => {}
            _ => others += 1,
        }
    }
    if others > 0 || rules.iter().any(|rule| rule.comment.as_deref() != Some(&ours)) {
        return Ok(Found::Foreign);
    }
    let wanted: Vec<_> = addresses.iter().map(|address| rule(&name, link, *address)).collect();
    let good = !wanted.is_empty() && chains == [chain(&name)] && rules == wanted;
    Ok(if good { Found::Good } else { Found::Differs })
}

/// Puts the table for a gateway on `link` in the place of the one that is there; without addresses there is none.
///
/// # Errors
/// `nft` fails.
pub(super) fn replace(link: &str, addresses: &[IpAddr]) -> Result<(), HostError> {
    let name = table_name(link);
    // What is added first is there to be deleted, whether there was a table or not.
    let mut objects = vec![NfCmd::Add(table(&name)), NfCmd::Delete(table(&name))];
    if !addresses.is_empty() {
        objects.push(NfCmd::Add(table(&name)));
        objects.push(NfCmd::Add(NfListObject::Chain(chain(&name))));
        objects.extend(addresses.iter().map(|address| NfCmd::Add(NfListObject::Rule(rule(&name, link, *address)))));
    }
    let objects: Vec<_> = objects.into_iter().map(NfObject::CmdObject).collect();
    Ok(helper::apply_ruleset_with_args(&Nftables { objects: objects.into() }, DEFAULT_NFT, DEFAULT_ARGS)?)
}

/// The chains that drop what is forwarded unless a rule in them says otherwise, as `FAMILY TABLE CHAIN`. Docker's is not one
/// of them where it has its chain for rules of others, which [`accept`](super::accept) writes to.
pub(super) fn dropping_forward_chains() -> Vec<String> {
    // As plain JSON: objects that the crate does not know are no reason to fail.
    let listed = helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "chains"]).unwrap_or_default();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let objects = listed.get("nftables").and_then(serde_json::Value::as_array).into_iter().flatten();
    let chains: Vec<_> = objects.filter_map(|object| object.get("chain")).collect();
    let is = |chain: &serde_json::Value, key: &str, value: &str| {
        chain.get(key).and_then(serde_json::Value::as_str) == Some(value)
    };
    let asks_us = |chain: &serde_json::Value| {
        let beside = |other: &&serde_json::Value| {
            is(other, "name", accept::CHAIN)
                && is(other, "table", accept::TABLE)
                && other.get("family") == chain.get("family")
        };
        is(chain, "table", accept::TABLE) && is(chain, "name", "FORWARD") && chains.iter().any(beside)
    };
    let dropping = chains.iter().filter(|c| is(c, "hook", "forward") && is(c, "policy", "drop") && !asks_us(c));
    let word = |chain: &serde_json::Value, key: &str| {
        chain.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    dropping.map(|c| format!("{} {} {}", word(c, "family"), word(c, "table"), word(c, "name"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_after_its_interface_in_letters_that_nft_reads() {
        assert_eq!(table_name("br0"), "sluice-br0");
        assert_eq!(table_name("a@b c"), "sluice-a_b_c");
    }

    #[test]
    fn a_rule_is_written_as_nft_lists_it() {
        let rule = rule("sluice-gw0", "gw0", IpAddr::from([169, 254, 77, 2]));
        let text = serde_json::to_value(NfListObject::Rule(rule)).unwrap();
        let wanted = serde_json::json!({"rule": {
            "family": "inet", "table": "sluice-gw0", "chain": "postrouting", "comment": "sluiced: gateway gw0",
            "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                           "right": "169.254.77.2"}},
                {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "gw0"}},
                {"masquerade": null},
            ],
        }});
        assert_eq!(text, wanted);
    }
}
