//! The answer to a question about one packet.

use std::fmt;

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// By the name that Kubernetes gives it: `TCP`, `UDP` or `SCTP`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.to_string() == name)
    }

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// As the Pod sees it that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What comes to it.
    Ingress,
    /// What it sends.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are Kubernetes's names")]
pub enum PolicyKind {
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    NetworkPolicy,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for policies of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// Whose rule.
    pub policy: PolicyName,
    /// In which of its lists.
    pub direction: Direction,
    /// From 0, in the order in which they are written.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// No policy says anything about this packet at this Pod: allowed.
    NoPolicy,
    /// This end is not a Pod of the Pod network, so that no policy is about it: allowed.
    NotAPod,
    /// A Pod and itself: allowed.
    Itself,
    /// A Pod and its own node: allowed.
    OwnNode,
    /// These rules match: all that do of NetworkPolicy, of which each allows; the deciding one of the others.
    Rules(Vec<RuleName>),
    /// These NetworkPolicies select the Pod, and no rule of theirs allows the packet: denied.
    DefaultDeny(Vec<PolicyName>),
}

/// What happens at one of the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// It may pass.
    pub allowed: bool,
    /// By what.
    pub because: Because,
    /// Rules that passed the question on to the next tier, in the order of the tiers.
    pub passed: Vec<RuleName>,
    /// Policies of equal priority disagree, and an implementation may choose: nothing can be held against either answer.
    pub ambiguous: bool,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allowed { "allowed by " } else { "denied by " })?;
        match &self.because {
            Because::NoPolicy => f.write_str("no policy")?,
            Because::NotAPod => f.write_str("being no Pod")?,
            Because::Itself => f.write_str("being the Pod itself")?,
            Because::OwnNode => f.write_str("being the Pod's own node")?,
            Because::Rules(rules) => f.write_str(&joined(rules))?,
            Because::DefaultDeny(policies) => write!(f, "default of {}", joined(policies))?,
        }
        if !self.passed.is_empty() {
            write!(f, ", passed on by {}", joined(&self.passed))?;
        }
        f.write_str(if self.ambiguous { " (ambiguous)" } else { "" })
    }
}

fn joined(of: &[impl ToString]) -> String {
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What becomes of a packet that opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// At the source.
    pub egress: Half,
    /// At the destination, as if it had come that far.
    pub ingress: Half,
}

impl Verdict {
    /// Both ends let it through.
    pub fn allowed(&self) -> bool {
        self.egress.allowed && self.ingress.allowed
    }

    /// Another answer would be right as well: policies of equal priority disagree at an end that decides.
    pub fn ambiguous(&self) -> bool {
        let (egress, ingress) = (&self.egress, &self.ingress);
        let denied = |half: &Half| !half.allowed && !half.ambiguous;
        (egress.ambiguous || ingress.ambiguous) && !denied(egress) && !denied(ingress)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "egress {}; ingress {}", self.egress, self.ingress)
    }
}
