//! What each rule made of a connection, for people who ask why.
//!
//! The verdict of an explanation is that of [`Subject::verdict`], and whether a rule matches is asked of the same code. What is more is
//! told part by part: which peers and ports of a rule are those of the connection, and, for who wants to know what would have to be
//! otherwise, what keeps a Pod or a node out of a group.

use super::Set;
use super::cluster::Cluster;
use super::selector::{Block, Labels, Requirements, Scope};
use super::verdict::{Connection, RuleName, Subject, Verdict, is_port};
use crate::facts::Protocol;
use crate::facts::policy::{Direction, GroupKey, Member, Peer, Policy, Port, Rule};
use std::fmt;

/// What becomes of a connection at one end, and what each rule that is about the Pod made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What becomes of it.
    pub verdict: Verdict<'a>,
    /// The policies that say something for the direction, in the order in which they are asked.
    pub policies: Vec<PolicyLook<'a>>,
}

/// A policy that is about the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLook<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its rules for the direction, in order.
    pub rules: Vec<RuleLook<'a>>,
}

/// A rule, and the parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLook<'a> {
    /// What it is called.
    pub name: RuleName<'a>,
    /// The rule.
    pub rule: &'a Rule,
    /// Whether it was asked: nothing before it had decided.
    pub is_asked: bool,
    /// Whether it matches, asked or not.
    pub is_match: bool,
    /// Each peer, and whether the other end is one of it; none if the rule is about everybody.
    pub peers: Option<Vec<(&'a Peer, bool)>>,
    /// Each port, and whether the connection goes to it; none if the rule is about every port. A name is what Pods of the peers that
    /// match call so.
    pub ports: Option<Vec<(&'a Port, bool)>>,
}

impl RuleLook<'_> {
    /// Whether the other end is one that the rule is about.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.iter().any(|(_, is)| *is))
    }

    /// Whether the connection goes to a port that the rule is about.
    #[must_use]
    pub fn is_port(&self) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.iter().any(|(_, is)| *is))
    }
}

impl<'a> Subject<'a> {
    /// What becomes of a connection of the Pod that goes this way, and what each rule made of it.
    #[must_use]
    pub fn explain(&self, direction: Direction, connection: &Connection) -> Explanation<'a> {
        let mut asked: Set<RuleName<'a>> = Set::default();
        let named = |policy: &'a Policy, rule: &'a Rule| RuleName {
            policy: &policy.name,
            direction: rule.direction,
            index: Some(rule.index),
        };
        let verdict = self.judge(direction, connection, &mut |policy, rule| {
            asked.insert(named(policy, rule));
        });
        let mut policies = Vec::new();
        for policy in self.policies().iter().copied() {
            let rules = policy.rules.iter().filter(|rule| rule.direction == direction);
            let rules: Vec<_> = rules
                .map(|rule| {
                    let name = named(policy, rule);
                    self.look(policy, rule, connection, name, asked.contains(&name))
                })
                .collect();
            if !rules.is_empty() || policy.isolates.contains(&direction) {
                policies.push(PolicyLook { policy, rules });
            }
        }
        Explanation { verdict, policies }
    }

    fn look(
        &self,
        policy: &'a Policy,
        rule: &'a Rule,
        connection: &Connection,
        name: RuleName<'a>,
        is_asked: bool,
    ) -> RuleLook<'a> {
        let other = connection.other_end(rule.direction);
        let mut ends: Vec<&Member> = Vec::new();
        let peers = rule.peers.as_ref().map(|peers| {
            let is = |peer: &'a Peer| {
                let members = self.at(peer, other);
                ends.extend(members.into_iter().flatten());
                (peer, members.is_some())
            };
            peers.iter().map(is).collect()
        });
        if rule.direction == Direction::Ingress {
            ends = self.member(policy).into_iter().collect();
        }
        let ports = rule.ports.as_ref().map(|ports| {
            let is = |port: &Port| {
                is_port(port, connection, None) || ends.iter().any(|member| is_port(port, connection, Some(member)))
            };
            ports.iter().map(|port| (port, is(port))).collect()
        });
        RuleLook { name, rule, is_asked, is_match: self.matches(policy, rule, connection), peers, ports }
    }
}

/// What keeps a Pod or a node out of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// There is no such Pod or node, or no policy can select it: it has ended, is on no node, or is in the network of its node.
    Nobody,
    /// Nodes are asked for, and it is a Pod.
    NoNode,
    /// Pods are asked for, and it is a node.
    NoPod,
    /// It is not in this namespace.
    Namespace(String),
    /// Its namespace has not such a label.
    NamespaceLabel {
        /// What is asked for, in kubectl's words.
        wants: String,
        /// The value that the label has.
        has: Option<String>,
    },
    /// It has not such a label.
    Label {
        /// What is asked for, in kubectl's words.
        wants: String,
        /// The value that the label has.
        has: Option<String>,
    },
    /// None of its addresses is in the network that the group is of.
    Network,
}

/// What would have to be so, and is not.
impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("it is nobody whom selectors select"),
            Self::NoNode => f.write_str("it is no node"),
            Self::NoPod => f.write_str("it is no Pod"),
            Self::Namespace(name) => write!(f, "its namespace is not {name}"),
            Self::NamespaceLabel { wants, has } => write!(f, "its namespace {}", Lacks { wants, has: has.as_deref() }),
            Self::Label { wants, has } => write!(f, "it {}", Lacks { wants, has: has.as_deref() }),
            Self::Network => f.write_str("it has no address in that network"),
        }
    }
}

/// A label that is not as it is asked for.
struct Lacks<'a> {
    wants: &'a str,
    has: Option<&'a str>,
}

impl fmt::Display for Lacks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.wants.trim_start_matches('!').split([' ', '=', '!']).next().unwrap_or_default();
        match self.has {
            Some(has) => write!(f, "has {key}={has}, not {}", self.wants),
            None => write!(f, "has no label {}", self.wants),
        }
    }
}

fn unmet(requirements: &Requirements, labels: &Labels) -> Vec<(String, Option<String>)> {
    let unmet = requirements.iter().filter(|requirement| !requirement.matches(labels));
    unmet.map(|requirement| (requirement.to_string(), labels.get(requirement.key()).map(str::to_owned))).collect()
}

impl Cluster {
    /// What keeps a Pod (`NAMESPACE/NAME`) or a node (`NAME`) out of a group that a policy names; nothing if it is a member.
    #[must_use]
    pub fn unmet(&self, group: &GroupKey, name: &str) -> Vec<Unmet> {
        let Some((selector, object)) = self.selector(group).zip(self.object(name)) else { return vec![Unmet::Nobody] };
        let label = |(wants, has)| Unmet::Label { wants, has };
        let mut all = Vec::new();
        match (&selector.scope, object.namespace) {
            (Scope::Nodes, Some(_)) => return vec![Unmet::NoNode],
            (Scope::Namespace(_) | Scope::Namespaces(_), None) => return vec![Unmet::NoPod],
            (Scope::Nodes, None) => {}
            (Scope::Namespace(wanted), Some(namespace)) if **wanted != *namespace => {
                all.push(Unmet::Namespace(wanted.to_string()));
            }
            (Scope::Namespace(_), Some(_)) => {}
            (Scope::Namespaces(requirements), Some(namespace)) => match self.namespace_labels(namespace) {
                Some(labels) => {
                    let label = |(wants, has)| Unmet::NamespaceLabel { wants, has };
                    all.extend(unmet(requirements, labels).into_iter().map(label));
                }
                None => all.push(Unmet::Nobody),
            },
        }
        all.extend(unmet(&selector.labels, object.labels).into_iter().map(label));
        let is_there = |of: &Block| object.member.addresses.iter().any(|address| of.contains(address));
        if selector.block.as_ref().is_some_and(|block| !is_there(block)) {
            all.push(Unmet::Network);
        }
        all
    }

    /// The ports of a Pod that have names; none of nobody.
    #[must_use]
    pub fn named_ports(&self, name: &str) -> &[(String, Protocol, u16)] {
        self.object(name).map_or(&[], |object| &object.member.ports)
    }
}
