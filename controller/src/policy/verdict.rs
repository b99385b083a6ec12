//! What becomes of a connection at a Pod, and why: the same as flows make of it, from a node's share of the cluster.
//!
//! For people who ask which policy it was, and for connections that are there when policies change. It is asked for one Pod and
//! one way at a time, since each end of a connection is judged on its own node; what is always accepted is in
//! [`facts::policy`](crate::facts::policy). What policies in audit would drop they leave to the next tier.

use crate::facts::Protocol;
use crate::facts::policy::{Action, Direction, GroupKey, Member, Peer, Policy, PolicyName, Port, Rule, State, Tier};
use crate::policy::Map;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// The first packet of a connection, after a Service has chosen the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its protocol, if that has ports.
    pub protocol: Option<Protocol>,
    /// The destination's port; of no meaning without a protocol.
    pub port: u16,
    /// Whether the other end is the node that the Pod is on.
    pub is_with_own_node: bool,
}

impl Connection {
    /// The end that is not the Pod's, for which the connection goes this way.
    pub(super) const fn other_end(&self, direction: Direction) -> IpAddr {
        match direction {
            Direction::Ingress => self.source,
            Direction::Egress => self.destination,
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleName<'a> {
    /// Whose.
    pub policy: &'a PolicyName,
    /// Its direction.
    pub direction: Direction,
    /// Its place among the policy's rules of this direction, from 0; none for what the policy denies because no rule allows it.
    pub index: Option<u32>,
}

/// As owners of flows have it: `np:shop/db/ingress/0`.
impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.policy, self.direction.name())?;
        match self.index {
            Some(index) => write!(f, "{index}"),
            None => f.write_str("default"),
        }
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because<'a> {
    /// A Pod reaches itself.
    Itself,
    /// A node reaches its Pods.
    OwnNode,
    /// A rule says so. Of NetworkPolicies it is the first by name that does; there may be others.
    Rule(RuleName<'a>),
    /// These isolate the Pod, and none of their rules allows it.
    Default(Vec<&'a PolicyName>),
    /// Nothing decides.
    Nothing,
}

/// What becomes of a connection at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// It passes.
    pub is_accepted: bool,
    /// Why.
    pub because: Because<'a>,
    /// Rules that passed it on to the next tier.
    pub passed: Vec<RuleName<'a>>,
    /// What policies in audit would have dropped it by.
    pub audited: Vec<RuleName<'a>>,
}

/// A node's share, made ready for questions.
#[derive(Debug)]
pub struct Judge<'a> {
    state: &'a State,
    /// By subject, in the order in which they are asked.
    policies: BTreeMap<&'a GroupKey, Vec<&'a Policy>>,
    /// Of each group that is a peer, who has an address.
    addresses: Map<&'a GroupKey, Map<IpAddr, Vec<&'a Member>>>,
}

/// A Pod of the node, as policies have it as a subject.
#[derive(Debug)]
pub struct Subject<'a> {
    judge: &'a Judge<'a>,
    /// As the subject of each has it.
    members: Map<&'a GroupKey, &'a Member>,
    policies: Vec<&'a Policy>,
}

/// Is told each rule that is asked, in order.
pub(super) type Asked<'f, 'a> = dyn FnMut(&'a Policy, &'a Rule) + 'f;

fn order<'a>(policy: &&'a Policy) -> (Tier, u16, &'a PolicyName) {
    (policy.tier, policy.priority, &policy.name)
}

impl<'a> Judge<'a> {
    /// Makes a node's share ready.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        let mut policies: BTreeMap<&GroupKey, Vec<&Policy>> = BTreeMap::new();
        let mut addresses: Map<&GroupKey, Map<IpAddr, Vec<&Member>>> = Map::default();
        for policy in state.policies.values() {
            policies.entry(&policy.subject).or_default().push(policy);
            for peer in policy.rules.iter().flat_map(|rule| rule.peers.iter().flatten()) {
                let Peer::Group(key) = peer else { continue };
                addresses.entry(key).or_insert_with(|| by_address(state, key));
            }
        }
        Self { state, policies, addresses }
    }

    /// A Pod of the node by `NAMESPACE/NAME`.
    #[must_use]
    pub fn subject(&'a self, pod: &str) -> Subject<'a> {
        let mut subject = Subject { judge: self, members: Map::default(), policies: Vec::new() };
        for (key, policies) in &self.policies {
            if let Some(member) = self.state.groups.get(*key).and_then(|group| group.members.get(pod)) {
                subject.members.insert(key, member);
                subject.policies.extend(policies);
            }
        }
        subject.policies.sort_by(|a, b| order(a).cmp(&order(b)));
        subject
    }
}

fn by_address<'a>(state: &'a State, key: &GroupKey) -> Map<IpAddr, Vec<&'a Member>> {
    let mut addresses: Map<IpAddr, Vec<&Member>> = Map::default();
    for member in state.groups.get(key).into_iter().flat_map(|group| group.members.values()) {
        for address in &member.addresses {
            addresses.entry(*address).or_default().push(member);
        }
    }
    addresses
}

impl<'a> Subject<'a> {
    /// The policies that are about the Pod, in the order in which they are asked.
    #[must_use]
    pub fn policies(&self) -> &[&'a Policy] {
        &self.policies
    }

    /// What becomes of a connection of the Pod that goes this way.
    #[must_use]
    pub fn verdict(&self, direction: Direction, connection: &Connection) -> Verdict<'a> {
        self.judge(direction, connection, &mut |_, _| {})
    }

    /// The same, telling each rule that is asked.
    pub(super) fn judge(
        &self,
        direction: Direction,
        connection: &Connection,
        asked: &mut Asked<'_, 'a>,
    ) -> Verdict<'a> {
        let mut verdict =
            Verdict { is_accepted: true, because: Because::Nothing, passed: Vec::new(), audited: Vec::new() };
        if connection.source == connection.destination {
            verdict.because = Because::Itself;
        } else if connection.is_with_own_node && direction == Direction::Ingress {
            verdict.because = Because::OwnNode;
        } else {
            let question = (direction, connection);
            let _ = self.ordered(Tier::Admin, question, &mut verdict, asked)
                || (!connection.is_with_own_node && self.network(question, &mut verdict, asked))
                || self.ordered(Tier::Baseline, question, &mut verdict, asked);
        }
        verdict
    }

    fn of_tier(&self, tier: Tier) -> impl Iterator<Item = &'a Policy> {
        self.policies.iter().copied().filter(move |policy| policy.tier == tier)
    }

    /// Asks a tier of which the first rule that matches decides. Says whether one did.
    fn ordered(
        &self,
        tier: Tier,
        (direction, connection): (Direction, &Connection),
        verdict: &mut Verdict<'a>,
        asked: &mut Asked<'_, 'a>,
    ) -> bool {
        let Some((policy, rule)) = self.of_tier(tier).find_map(|policy| {
            let rules = policy.rules.iter().filter(|rule| rule.direction == direction);
            let mut matching = rules.inspect(|rule| asked(policy, rule));
            Some((policy, matching.find(|rule| self.matches(policy, rule, connection))?))
        }) else {
            return false;
        };
        let name = RuleName { policy: &policy.name, direction, index: Some(rule.index) };
        match rule.action {
            Action::Pass => verdict.passed.push(name),
            Action::Deny if policy.is_audit => verdict.audited.push(name),
            Action::Accept | Action::Deny => {
                verdict.is_accepted = rule.action == Action::Accept;
                verdict.because = Because::Rule(name);
                return true;
            }
        }
        false
    }

    /// Asks the NetworkPolicies. Says whether they decided.
    fn network(
        &self,
        (direction, connection): (Direction, &Connection),
        verdict: &mut Verdict<'a>,
        asked: &mut Asked<'_, 'a>,
    ) -> bool {
        let isolating = |policy: &&'a Policy| policy.isolates.contains(&direction);
        for policy in self.of_tier(Tier::Network).filter(isolating) {
            let rules = policy.rules.iter().filter(|rule| rule.direction == direction);
            let mut rules = rules.inspect(|rule| asked(policy, rule));
            if let Some(rule) = rules.find(|rule| self.matches(policy, rule, connection)) {
                verdict.because = Because::Rule(RuleName { policy: &policy.name, direction, index: Some(rule.index) });
                return true;
            }
        }
        let mut denying = Vec::new();
        for policy in self.of_tier(Tier::Network).filter(isolating) {
            if policy.is_audit {
                verdict.audited.push(RuleName { policy: &policy.name, direction, index: None });
            } else {
                denying.push(&policy.name);
            }
        }
        if denying.is_empty() {
            return false;
        }
        verdict.is_accepted = false;
        verdict.because = Because::Default(denying);
        true
    }

    /// The Pod, as the subject of a policy that is about it.
    pub(super) fn member(&self, policy: &Policy) -> Option<&'a Member> {
        self.members.get(&policy.subject).copied()
    }

    pub(super) fn matches(&self, policy: &Policy, rule: &Rule, connection: &Connection) -> bool {
        let member = self.member(policy);
        let other = connection.other_end(rule.direction);
        match (&rule.peers, &rule.ports) {
            (None, None) => true,
            (None, Some(ports)) => {
                let subject = member.filter(|_| rule.direction == Direction::Ingress);
                ports.iter().any(|port| is_port(port, connection, subject))
            }
            (Some(peers), None) => peers.iter().any(|peer| self.at(peer, other).is_some()),
            (Some(peers), Some(ports)) => peers.iter().filter_map(|peer| self.at(peer, other)).any(|members| {
                let named = match rule.direction {
                    Direction::Ingress => member.as_slice(),
                    Direction::Egress => members,
                };
                ports.iter().any(|port| {
                    is_port(port, connection, None)
                        || named.iter().any(|member| is_port(port, connection, Some(member)))
                })
            }),
        }
    }

    /// Those of a peer who have an address: nobody that is known, of a network; none if the peer does not have it.
    pub(super) fn at(&self, peer: &Peer, address: IpAddr) -> Option<&[&'a Member]> {
        match peer {
            Peer::Group(key) => self.judge.addresses.get(key)?.get(&address).map(Vec::as_slice),
            Peer::Net { net, except } => {
                (net.contains(&address) && !except.iter().any(|net| net.contains(&address))).then_some(&[])
            }
        }
    }
}

/// Whether a connection goes to a port, by the names that a member has for its own.
pub(super) fn is_port(port: &Port, connection: &Connection, member: Option<&Member>) -> bool {
    let Some(protocol) = connection.protocol else { return false };
    match port {
        Port::All(of) => *of == protocol,
        Port::Range(of, first, last) => *of == protocol && (*first..=*last).contains(&connection.port),
        Port::Named(of, name) => {
            let is_it = |(has, its, number): &(String, Protocol, u16)| {
                has == name && *its == protocol && *number == connection.port && of.is_none_or(|of| of == protocol)
            };
            member.is_some_and(|member| member.ports.iter().any(is_it))
        }
    }
}
