//! Flows, who talks, and what happens, as text that can be kept; and how one that fails is made small.

use super::programs::MARKS;
use super::{Conversation, Event};
use crate::generate::program::FlowLine;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Rounds over the whole scenario; each makes it smaller, or is the last.
const ROUNDS: usize = 8;

/// What two switches are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// The flows.
    pub flows: Vec<FlowLine>,
    /// Who talks.
    pub conversations: Vec<Conversation>,
    /// What happens.
    pub events: Vec<Event>,
}

impl Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flows.iter().try_for_each(|flow| writeln!(f, "flow {flow}"))?;
        self.conversations.iter().try_for_each(|talk| writeln!(f, "talk {talk}"))?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl FromStr for Scenario {
    type Err = String;

    /// Reads lines; empty ones and those that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(' ') {
                Some(("flow", flow)) => all.flows.push(FlowLine::read(flow)?),
                Some(("talk", talk)) => all.conversations.push(talk.parse()?),
                _ => all.events.push(line.parse()?),
            }
        }
        let known = |event: &Event| match event {
            Event::Send(packet) => packet.conversation < all.conversations.len(),
            _ => true,
        };
        match all.events.iter().find(|event| !known(event)) {
            Some(event) => Err(format!("nobody talks so: {event}")),
            None => Ok(all),
        }
    }
}

impl Scenario {
    /// The smallest scenario found that fails as this one does, and how; `None` if it does not fail twice.
    pub fn shrink<T>(&self, mut fails: impl FnMut(&Self) -> Option<T>) -> Option<(Self, T)> {
        let mut found = fails(self)?;
        let mut best = self.clone();
        for _ in 0..ROUNDS {
            let before = best.clone();
            // Whole conversations, then ever smaller runs of events, then flows and their actions.
            for talk in (0..best.conversations.len()).rev() {
                try_less(&mut best, &mut found, &mut fails, |less| less.remove(talk));
            }
            let mut size = best.events.len() / 2;
            while size > 0 {
                let mut at = 0;
                while at < best.events.len() {
                    let end = (at + size).min(best.events.len());
                    if !try_less(&mut best, &mut found, &mut fails, |less| drop(less.events.drain(at..end))) {
                        at = end;
                    }
                }
                size /= 2;
            }
            // What tells of the tracker stays.
            for flow in (0..best.flows.len()).rev() {
                if best.flows[flow].table >= MARKS {
                    continue;
                }
                if try_less(&mut best, &mut found, &mut fails, |less| drop(less.flows.remove(flow))) {
                    continue;
                }
                for action in (0..best.flows[flow].actions.len()).rev() {
                    try_less(&mut best, &mut found, &mut fails, |less| drop(less.flows[flow].actions.remove(action)));
                }
            }
            if best == before {
                break;
            }
        }
        Some((best, found))
    }
}

impl Scenario {
    /// Takes a conversation and its packets out.
    fn remove(&mut self, talk: usize) {
        self.conversations.remove(talk);
        self.events.retain(|event| !matches!(event, Event::Send(packet) if packet.conversation == talk));
        for event in &mut self.events {
            if let Event::Send(packet) = event {
                packet.conversation -= usize::from(packet.conversation > talk);
            }
        }
    }
}

/// Keeps what `cut` makes of the scenario if it still fails.
fn try_less<T>(
    best: &mut Scenario,
    found: &mut T,
    fails: &mut impl FnMut(&Scenario) -> Option<T>,
    cut: impl FnOnce(&mut Scenario),
) -> bool {
    let mut less = best.clone();
    cut(&mut less);
    let Some(failure) = fails(&less) else { return false };
    (*best, *found) = (less, failure);
    true
}
