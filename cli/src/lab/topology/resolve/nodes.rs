//! Which nodes a lab has, and what each is.

use super::super::Problem;
use super::super::raw::{Raw, RawEnd, Spot, nearest};
use super::super::resolved::{Host, Router, Rule, RuleFile, Switch};
use std::collections::BTreeMap;

/// The nodes of a lab, and which name is which.
pub(super) struct Nodes {
    pub(super) hosts: Vec<Host>,
    pub(super) switches: Vec<Switch>,
    pub(super) routers: Vec<Router>,
    pub(super) index: BTreeMap<String, Index>,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Host,
    Switch(usize),
    Router,
}

impl Nodes {
    pub(super) fn find(raw: &Raw, problems: &mut Vec<Problem>) -> Self {
        let mut nodes = Self { hosts: Vec::new(), switches: Vec::new(), routers: Vec::new(), index: BTreeMap::new() };
        if raw.switches.is_none() && raw.routers.is_none() && raw.hosts.is_none() {
            raw.links.iter().flat_map(|l| &l.ends).for_each(|end| nodes.infer(end));
            return nodes;
        }
        for switch in raw.switches.iter().flatten() {
            nodes.add_switch(&switch.name.value);
            let rules = switch.rules.iter().map(|rule| {
                let comma = if rule.matches.is_empty() { "" } else { "," };
                let flow = format!("priority={}{comma}{} actions={}", rule.priority, rule.matches, rule.action);
                Rule { name: rule.name.clone(), flow, line: rule.line }
            });
            let file =
                |file: &Spot<String>| RuleFile { path: file.value.clone(), text: String::new(), line: file.line };
            if let Some(last) = nodes.switches.last_mut() {
                last.rules = rules.collect();
                last.groups = switch.groups.as_ref().map(file);
                last.flows = switch.flows.as_ref().map(file);
                last.mirror = switch.mirror.as_ref().map(|host| host.value.clone());
            }
        }
        for router in raw.routers.iter().flatten() {
            nodes.check_new(&router.name, problems);
            nodes.add_router(&router.name.value);
        }
        for host in raw.hosts.iter().flatten() {
            nodes.check_new(&host.name, problems);
            nodes.add_host(&host.name.value);
            if let Some(last) = nodes.hosts.last_mut() {
                last.env.clone_from(&host.env);
                last.run.clone_from(&host.run);
            }
        }
        for end in raw.links.iter().flat_map(|l| &l.ends) {
            if !nodes.index.contains_key(&end.node) {
                let known = nearest(&end.node, nodes.index.keys().map(String::as_str));
                let message = format!("`{}` is in no section of nodes{known}", end.node);
                problems.push(Problem::new(end.line, message));
            }
        }
        nodes
    }

    fn check_new(&self, name: &Spot<String>, problems: &mut Vec<Problem>) {
        let what = match self.index.get(&name.value) {
            Some(Index::Switch(_)) => "switch",
            Some(_) => "router",
            None => return,
        };
        problems.push(Problem::new(name.line, format!("`{}` is a {what} already", name.value)));
    }

    /// Without any section of nodes, a name's first letter says what it is.
    fn infer(&mut self, end: &RawEnd) {
        if self.index.contains_key(&end.node) {
            return;
        }
        match end.node.as_bytes().first() {
            Some(b's') => self.add_switch(&end.node),
            Some(b'r') => self.add_router(&end.node),
            _ => self.add_host(&end.node),
        }
    }

    fn add_switch(&mut self, name: &str) {
        self.index.insert(name.to_owned(), Index::Switch(self.switches.len()));
        self.switches.push(Switch {
            name: name.to_owned(),
            rules: Vec::new(),
            groups: None,
            flows: None,
            mirror: None,
        });
    }

    fn add_host(&mut self, name: &str) {
        self.index.insert(name.to_owned(), Index::Host);
        self.hosts.push(Host { name: name.to_owned(), env: BTreeMap::new(), run: None, interfaces: Vec::new() });
    }

    fn add_router(&mut self, name: &str) {
        self.index.insert(name.to_owned(), Index::Router);
        let name = name.to_owned();
        self.routers.push(Router { name, inside: None, interfaces: Vec::new(), routes: Vec::new(), nat: None });
    }

    /// What the node with this name is.
    pub(super) fn kind(&self, name: &str) -> Option<Index> {
        self.index.get(name).copied()
    }

    /// Whether it is a host.
    pub(super) fn is_host(&self, name: &str) -> bool {
        self.kind(name) == Some(Index::Host)
    }

    /// The host with this name.
    pub(super) fn host_mut(&mut self, name: &str) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|h| h.name == name)
    }

    /// The router with this name.
    pub(super) fn router_mut(&mut self, name: &str) -> Option<&mut Router> {
        self.routers.iter_mut().find(|r| r.name == name)
    }
}
