//! Which flows are an object's of the cluster: by owner, and by what names it in matches and actions.

use super::super::groups;
use super::super::policy::owner;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::kube::find_pod;
use clap::Args;
use ipnet::IpNet;
use sluice_proto::v1::{Flow, Group, ListGroupsRequest, ListTablesRequest};
use std::collections::{BTreeMap, BTreeSet};

/// Whose flows are wanted.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "By Kubernetes names")]
pub(super) struct Whose {
    /// Flows of this Pod, on its node, and those that name its addresses, MAC address or port
    #[arg(long, value_name = "NS/POD", group = "whose")]
    pod: Option<String>,
    /// Flows of this Service, and its groups
    #[arg(long, value_name = "NS/SERVICE", group = "whose")]
    svc: Option<String>,
    /// Flows of this policy, with counters, on every node: NS/NAME, cnp:NAME, anp:NAME or banp:NAME
    #[arg(long, value_name = "POLICY", group = "whose")]
    pub(super) policy: Option<String>,
    /// Flows that every node has, whatever there is in the cluster
    #[arg(long, group = "whose")]
    builtin: bool,
}

/// What selects them.
pub(super) enum Selected {
    /// All of an owner; one that ends in `*` is all that start so.
    Owner(String),
    /// Those of an owner, and those with one of these words.
    Words(String, Words),
    /// Those of a policy, which may have owners in common with others, and those that are clauses of these rules of it: an owner
    /// names a few policies only.
    Policy(String, BTreeSet<u32>),
}

/// What names a Pod in matches and actions.
pub(super) struct Words {
    /// Addresses and MAC address, as values of fields.
    values: BTreeSet<String>,
    /// The port's number.
    port: u32,
}

impl Whose {
    /// Connects to the switch that is meant: in a cluster that of the Pod, or for a Service or what every node has, any.
    pub(super) fn connect(&self, target: &Target) -> Result<Client, Failure> {
        match &self.pod {
            Some(pod) => Client::connect_for(target, Some(pod)),
            None if self.svc.is_some() || self.builtin => Client::connect_any(target),
            None => Client::connect(target),
        }
    }

    /// What selects them; `None` for all flows.
    pub(super) fn selected(&self, client: &Client) -> Result<Option<Selected>, Failure> {
        if let Some(service) = &self.svc {
            return Ok(Some(Selected::Owner(format!("svc:{}", service.strip_prefix("svc:").unwrap_or(service)))));
        }
        if let Some(policy) = &self.policy {
            return owner::named(policy).map(|policy| Some(Selected::Policy(policy, BTreeSet::new())));
        }
        let Some(pod) = &self.pod else {
            return Ok(self.builtin.then(|| Selected::Owner("builtin:*".to_owned())));
        };
        let attachment = find_pod(client, pod)?;
        let spec = attachment.spec.unwrap_or_default();
        let addresses = spec.addresses.iter().filter_map(|a| a.parse::<IpNet>().ok()).map(|net| net.addr().to_string());
        let values = addresses.chain([spec.mac.to_lowercase()]).collect();
        let owner = format!("pod:{}", pod.strip_prefix("pod:").unwrap_or(pod));
        Ok(Some(Selected::Words(owner, Words { values, port: attachment.number })))
    }

    /// The Service's groups.
    pub(super) fn groups(&self, client: &Client, bridge: &str) -> Result<Vec<Group>, Failure> {
        let Some(Selected::Owner(owner)) = self.svc.as_ref().map(|_| self.selected(client)).transpose()?.flatten()
        else {
            return Ok(Vec::new());
        };
        let request = ListGroupsRequest { bridge: bridge.to_owned(), ..ListGroupsRequest::default() };
        let parts = client.collect(client.groups().list_groups(request))?;
        Ok(parts.into_iter().flat_map(|part| part.groups).filter(|group| group.owner == owner).collect())
    }

    /// The names of tables.
    pub(super) fn table_names(client: &Client, bridge: &str) -> Result<BTreeMap<u32, String>, Failure> {
        let request = ListTablesRequest { bridge: bridge.to_owned(), all: false };
        let tables = client.call(client.tables().list_tables(request))?.tables;
        Ok(tables.into_iter().filter(|t| !t.name.is_empty()).map(|t| (t.table, t.name)).collect())
    }
}

impl Selected {
    /// Whether a flow is one of them.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        match self {
            Self::Owner(owner) => match owner.strip_suffix('*') {
                Some(start) => flow.owner.starts_with(start),
                None => flow.owner == *owner,
            },
            Self::Policy(policy, rules) => {
                owner::policies(&flow.owner).contains(policy)
                    || clauses(&flow.actions).any(|rule| rules.contains(&rule))
            }
            Self::Words(owner, words) => flow.owner == *owner || words.are_in(flow),
        }
    }

    /// Learns from all flows of a bridge which rules a policy has there.
    pub(super) fn find_rules(&mut self, flows: &[Flow]) {
        let Self::Policy(policy, rules) = self else { return };
        let own = flows.iter().filter(|flow| owner::policies(&flow.owner).contains(policy));
        rules.extend(own.filter_map(|flow| {
            let rule = flow.r#match.split(',').find_map(|word| word.strip_prefix("conj_id="))?;
            rule.parse::<u32>().ok()
        }));
    }
}

impl Words {
    fn are_in(&self, flow: &Flow) -> bool {
        let value = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_lowercase()));
        let matched = flow.r#match.split(',').filter_map(value).any(|(name, value)| {
            let is_port = ["in_port", "out_port"].contains(&name.as_str()) && value == self.port.to_string();
            is_port || self.values.contains(&value)
        });
        matched || self.is_target(&flow.actions)
    }

    /// Whether actions translate to one of the addresses: `nat(dst=ADDRESS:PORT)`.
    fn is_target(&self, actions: &str) -> bool {
        actions.split("nat(dst=").skip(1).any(|rest| {
            let end = rest.split([')', ',']).next().unwrap_or_default();
            let address = end.rsplit_once(':').map_or(end, |(address, _)| address).trim_matches(['[', ']']);
            self.values.contains(address) || self.values.contains(end)
        })
    }
}

/// The rules of which a flow with these actions is a clause: `conjunction(RULE,1/2)`.
fn clauses(actions: &str) -> impl Iterator<Item = u32> {
    actions.split("conjunction(").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok())
}

/// The groups as `sluice groups` shows them.
pub(super) fn group_table(groups: &[Group], wide: bool) -> crate::output::Table {
    groups::table(groups, wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Selected {
        let values = ["10.244.1.5", "fd00:244:1::5", "02:00:0a:f4:01:05"].map(str::to_owned).into();
        Selected::Words("pod:shop/web".to_owned(), Words { values, port: 7 })
    }

    fn flow(owner: &str, r#match: &str, actions: &str) -> Flow {
        let (owner, r#match, actions) = (owner.to_owned(), r#match.to_owned(), actions.to_owned());
        Flow { owner, r#match, actions, ..Flow::default() }
    }

    #[test]
    fn a_pods_flows_are_its_own_and_those_that_name_it() {
        let selected = words();
        for (owner, r#match, actions) in [
            ("pod:shop/web", "ip", "drop"),
            ("builtin:route", "ip,nw_dst=10.244.1.5", "goto_table:40"),
            ("cni:sluice/1", "in_port=7,dl_src=02:00:0A:F4:01:05", "goto_table:1"),
            ("svc:shop/web", "reg3=0x2", "ct(commit,nat(dst=10.244.1.5:80))"),
            ("svc:shop/web", "reg3=0x2", "ct(commit,nat(dst=[fd00:244:1::5]:80))"),
        ] {
            assert!(selected.has(&flow(owner, r#match, actions)), "{match} {actions}");
        }
        for (r#match, actions) in
            [("ip,nw_dst=10.244.1.50", "drop"), ("in_port=77", "drop"), ("ip", "ct(commit,nat(dst=10.244.1.50:80))")]
        {
            assert!(!selected.has(&flow("x", r#match, actions)), "{match} {actions}");
        }
    }

    #[test]
    fn a_policys_flows_are_also_those_that_it_shares() {
        let mut selected = Selected::Policy("np:shop/db".to_owned(), BTreeSet::new());
        assert!(selected.has(&flow("np:shop/db/ingress/0", "", "")));
        assert!(selected.has(&flow("np:shop/a+shop/db/ingress/default", "", "")));
        assert!(!selected.has(&flow("np:shop/db2/ingress/0", "", "")) && !selected.has(&flow("cnp:shop/db/x", "", "")));
        // One that it shares with so many that it is not named.
        let clause = flow("np:a/a+b/b+c/c+d/d+1more/ingress/0", "reg1=0x2", "conjunction(7,1/2),conjunction(12,1/2)");
        selected.find_rules(&[clause.clone(), flow("np:shop/db2/ingress/0", "conj_id=7,ip", "")]);
        assert!(!selected.has(&clause));
        selected.find_rules(&[flow("np:shop/db/ingress/0", "conj_id=12,ip", "goto_table:40")]);
        assert!(selected.has(&clause));
    }

    #[test]
    fn an_owner_that_ends_in_a_star_is_all_that_start_so() {
        let builtin = Selected::Owner("builtin:*".to_owned());
        assert!(builtin.has(&flow("builtin:route", "", "")) && !builtin.has(&flow("svc:a/builtin", "", "")));
    }
}
