//! What becomes of a connection, at both of its ends, with every rule that is about them.

use super::place::Question;
use super::world::{End, To, connection, pairs};
use crate::failure::Failure;
use sluice_controller::facts::policy::Direction;
use sluice_controller::policy::{Because, Connection, Explanation, Judge, RuleName, Verdict};
use std::net::IpAddr;

/// A connection between two ends by one pair of addresses.
pub(super) struct Answer<'a> {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) at: To,
    /// The pairs of addresses for which it is so.
    pub(super) pairs: Vec<(IpAddr, IpAddr)>,
    /// Egress, then ingress, of those that are Pods.
    pub(super) halves: Vec<Half<'a>>,
}

/// What one end's policies say.
#[derive(PartialEq, Eq)]
pub(super) struct Half<'a> {
    pub(super) direction: Direction,
    /// The Pod.
    pub(super) pod: String,
    pub(super) connection: Connection,
    pub(super) explanation: Explanation<'a>,
}

/// Asks both ends of everything that is meant. Addresses of both families are told once if they come to the same.
///
/// # Errors
/// The ends have no addresses of one IP version.
pub(super) fn answers<'a>(judge: &'a Judge<'a>, question: &Question) -> Result<Vec<Answer<'a>>, Failure> {
    let mut all = Vec::new();
    for (to, at) in &question.to {
        let pairs = pairs(&question.from, to);
        if pairs.is_empty() {
            return Err(Failure::new(format!(
                "{} and {} have no addresses of one IP version",
                question.from.name, to.name
            )));
        }
        let mut of_this: Vec<Answer<'a>> = Vec::new();
        for pair in pairs {
            let halves = halves(judge, &question.from, to, pair, *at);
            let is_same = |of: &&mut Answer<'_>| of.halves.iter().map(Half::gist).eq(halves.iter().map(Half::gist));
            match of_this.iter_mut().find(is_same) {
                Some(known) => known.pairs.push(pair),
                None => {
                    let (from, to) = (question.from.clone(), to.clone());
                    of_this.push(Answer { from, to, at: *at, pairs: vec![pair], halves });
                }
            }
        }
        all.extend(of_this);
    }
    Ok(all)
}

fn halves<'a>(judge: &'a Judge<'a>, from: &End, to: &End, pair: (IpAddr, IpAddr), at: To) -> Vec<Half<'a>> {
    let ends = [(Direction::Egress, from), (Direction::Ingress, to)];
    let of = |(direction, end): (Direction, &End)| {
        let pod = end.pod.clone()?;
        let connection = connection(direction, from, to, pair, at);
        let explanation = judge.subject(&pod).explain(direction, &connection);
        Some(Half { direction, pod, connection, explanation })
    };
    ends.into_iter().filter_map(of).collect()
}

impl<'a> Half<'a> {
    fn gist(&self) -> (Direction, &Explanation<'a>) {
        (self.direction, &self.explanation)
    }

    pub(super) fn verdict(&self) -> &Verdict<'a> {
        &self.explanation.verdict
    }

    /// By whom, in a few words: rules by name, or what stands for them.
    pub(super) fn by(&self) -> String {
        match &self.verdict().because {
            Because::Itself => "a Pod reaches itself".to_owned(),
            Because::OwnNode => "a node reaches its own Pods".to_owned(),
            Because::Rule(name) => name.to_string(),
            Because::Default(policies) => {
                let name = |policy| RuleName { policy, direction: self.direction, index: None }.to_string();
                policies.iter().map(|policy| name(*policy)).collect::<Vec<_>>().join(", ")
            }
            Because::Nothing if self.explanation.policies.is_empty() => "no policy is about it".to_owned(),
            Because::Nothing => "no policy decides".to_owned(),
        }
    }

    /// Whether rules are what [`Self::by`] names.
    pub(super) fn is_by_rule(&self) -> bool {
        matches!(self.verdict().because, Because::Rule(_) | Because::Default(_))
    }
}

impl<'a> Answer<'a> {
    pub(super) fn is_allowed(&self) -> bool {
        self.halves.iter().all(|half| half.verdict().is_accepted)
    }

    /// The ends that deny it.
    pub(super) fn denying(&self) -> impl Iterator<Item = &Half<'a>> {
        self.halves.iter().filter(|half| !half.verdict().is_accepted)
    }

    /// `ALLOWED` or `DENIED`, from where to where, and by whom.
    pub(super) fn headline(&self, question: &Question) -> String {
        let verdict = word(self.is_allowed());
        let via = question.service.as_ref().map_or(String::new(), |name| format!(" (svc/{name})"));
        let family = match self.pairs.as_slice() {
            [(IpAddr::V4(_), _)] if self.has_both() => " by IPv4",
            [(IpAddr::V6(_), _)] if self.has_both() => " by IPv6",
            _ => "",
        };
        let to = format!("{}{}{via}{family}", self.to.name, self.at.suffix());
        let wanted = |half: &&Half<'_>| half.is_by_rule() && half.verdict().is_accepted == self.is_allowed();
        let by: Vec<_> = self.halves.iter().filter(wanted).map(Half::by).collect();
        let by = if by.is_empty() { String::new() } else { format!("  by {}", by.join(" and ")) };
        format!("{verdict}  {} -> {to}{by}", self.from.name)
    }

    fn has_both(&self) -> bool {
        pairs(&self.from, &self.to).len() > 1
    }
}

/// The verdict in a word.
pub(super) fn word(is_allowed: bool) -> &'static str {
    if is_allowed { "ALLOWED" } else { "DENIED" }
}
