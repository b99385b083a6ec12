//! The order in which policies are asked.

use super::cluster::{self, Action, Tier};
use super::namespaced;
use super::ports::Target;
use super::verdict::{Because, Direction, Half, Protocol, RuleName, Verdict};
use super::world::{End, Place, World, node_of};
use k8s_openapi::api::core::v1::Pod;

/// One question.
struct Question<'a> {
    world: &'a World,
    from: Place<'a>,
    to: Place<'a>,
    protocol: Protocol,
    port: u16,
    /// A Service chose the destination.
    by_service: bool,
}

impl World {
    /// Whether a new connection from one end to another is allowed, and by what. `port` is the destination's.
    ///
    /// # Panics
    ///
    /// If an end is a Pod that is not there, or the ends' addresses are of two families.
    pub fn verdict(&self, from: &End, to: &End, protocol: Protocol, port: u16) -> Verdict {
        self.ask(from, to, protocol, port, false)
    }

    /// The same for a connection to a Service that was led to this end. It differs where a Pod comes back to itself.
    ///
    /// # Panics
    ///
    /// As [`World::verdict`].
    pub fn verdict_by_service(&self, from: &End, to: &End, protocol: Protocol, port: u16) -> Verdict {
        self.ask(from, to, protocol, port, true)
    }

    fn ask(&self, from: &End, to: &End, protocol: Protocol, port: u16, by_service: bool) -> Verdict {
        assert_eq!(from.address().is_ipv4(), to.address().is_ipv4(), "{from} and {to} have no family in common");
        let (from, to) = (self.place(from), self.place(to));
        let question = Question { world: self, from, to, protocol, port, by_service };
        Verdict { egress: question.half(Direction::Egress), ingress: question.half(Direction::Ingress) }
    }
}

impl Question<'_> {
    /// What happens at one end.
    fn half(&self, direction: Direction) -> Half {
        let (subject, peer) = match direction {
            Direction::Egress => (self.from, self.to),
            Direction::Ingress => (self.to, self.from),
        };
        let half = |allowed, because| Half { allowed, because, passed: Vec::new(), ambiguous: false };
        let Some(pod) = subject.pod() else { return half(true, Because::NotAPod) };
        let itself = peer.pod().is_some_and(|peer| peer.metadata == pod.metadata);
        if itself && !self.by_service {
            return half(true, Because::Itself);
        }
        let own_node = matches!(peer, Place::Host { node, .. } if node == node_of(pod));
        if own_node && direction == Direction::Ingress {
            return half(true, Because::OwnNode);
        }
        let mut path = half(true, Because::NoPolicy);
        if self.tier(Tier::Admin, direction, pod, peer, &mut path) {
            return path;
        }
        if let Some((allowed, because)) = self.network_policies(direction, pod, peer, itself, own_node) {
            return Half { allowed, because, ..path };
        }
        self.tier(Tier::Baseline, direction, pod, peer, &mut path);
        path
    }

    /// Asks a tier. Says whether that is final.
    fn tier(&self, tier: Tier, direction: Direction, pod: &Pod, peer: Place<'_>, half: &mut Half) -> bool {
        let Some(decision) = cluster::decide(self.world, tier, direction, pod, peer, self.target()) else {
            return false;
        };
        half.ambiguous |= decision.ambiguous;
        match decision.action {
            Action::Accept | Action::Deny => {
                half.allowed = decision.action == Action::Accept;
                half.because = Because::Rules(vec![decision.rule]);
                true
            }
            Action::Pass => {
                half.passed.push(decision.rule);
                false
            }
        }
    }

    /// Asks the NetworkPolicies; none if none is about the Pod.
    fn network_policies(
        &self,
        direction: Direction,
        pod: &Pod,
        peer: Place<'_>,
        itself: bool,
        own_node: bool,
    ) -> Option<(bool, Because)> {
        let policies = self.world.network_policies().filter(|policy| namespaced::isolates(policy, pod, direction));
        let policies: Vec<_> = policies.collect();
        if policies.is_empty() {
            return None;
        }
        if itself {
            return Some((true, Because::Itself));
        }
        if own_node {
            return Some((true, Because::OwnNode));
        }
        let matching = policies
            .iter()
            .flat_map(|policy| namespaced::matching_rules(self.world, policy, direction, peer, self.target()));
        let mut rules: Vec<RuleName> = matching.collect();
        rules.sort();
        if !rules.is_empty() {
            return Some((true, Because::Rules(rules)));
        }
        let mut names: Vec<_> = policies.into_iter().map(namespaced::name).collect();
        names.sort();
        Some((false, Because::DefaultDeny(names)))
    }

    fn target(&self) -> Target<'_> {
        Target { to: self.to, protocol: self.protocol, port: self.port }
    }
}
