//! Which flows a dump, a change or a deletion is about.

use crate::action::{Action, GroupId};
use crate::matching::Match;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::{FlowSpec, Rule, TableId};

/// Selects flows: all those for which everything that is set holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// The table; any if none.
    pub table: Option<TableId>,
    /// The flow's match must be this one or narrower.
    pub matches: Match,
    /// The flow must have this priority, and [`matches`](Self::matches) as its very match: OpenFlow's strict selection.
    pub strict: Option<u16>,
    /// The cookie, under [`cookie_mask`](Self::cookie_mask).
    pub cookie: u64,
    /// Which bits of the cookie must be those of [`cookie`](Self::cookie); 0 for any cookie.
    pub cookie_mask: u64,
    /// The flow must output to this port, by an action that names it.
    pub out_port: Option<PortNo>,
    /// The flow must send to this group, by an action that names it.
    pub out_group: Option<GroupId>,
    /// Whose flow it must be.
    pub owner: Option<OwnerFilter>,
    /// The flow's generation must be lower than this.
    pub generation_below: Option<u64>,
}

/// Selects owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerFilter {
    /// This one.
    Is(Owner),
    /// Every one whose text starts so.
    Prefix(String),
}

impl OwnerFilter {
    /// The filter that a text means: an owner, or the start of owners when it ends in `*`.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Is(Owner::new(text)),
        }
    }

    /// Whether it selects this owner.
    pub fn selects(&self, owner: &Owner) -> bool {
        match self {
            Self::Is(only) => only == owner,
            Self::Prefix(prefix) => owner.text().starts_with(prefix.as_str()),
        }
    }
}

impl FlowFilter {
    /// Selects every flow.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects the flow with the table, priority and match of `spec`.
    pub fn strictly(spec: &FlowSpec) -> Self {
        Self { strict: Some(spec.priority), ..Self::within(spec) }
    }

    /// Selects the flows in the table of `spec` whose match is that of `spec` or narrower.
    pub fn within(spec: &FlowSpec) -> Self {
        Self { table: Some(spec.table), matches: spec.matches.clone(), ..Self::default() }
    }

    /// Whether it selects this rule.
    pub fn selects(&self, rule: &Rule) -> bool {
        let spec = &rule.spec;
        self.table.is_none_or(|t| t == spec.table)
            && match self.strict {
                Some(priority) => spec.priority == priority && spec.matches == self.matches,
                None => spec.matches.is_within(&self.matches),
            }
            && self.selects_besides_match(rule)
    }

    /// The part of [`selects`](Self::selects) that is not about table, priority and match.
    pub(crate) fn selects_besides_match(&self, rule: &Rule) -> bool {
        let spec = &rule.spec;
        (spec.cookie ^ self.cookie) & self.cookie_mask == 0
            && self.out_port.is_none_or(|port| any(&spec.actions, &|a| outputs_to(a, port)))
            && self.out_group.is_none_or(|group| any(&spec.actions, &|a| *a == Action::Group(group)))
            && self.owner.as_ref().is_none_or(|o| o.selects(&spec.owner))
            && self.generation_below.is_none_or(|g| spec.generation < g)
    }
}

/// Whether `test` holds for one of the actions, those within others included.
fn any(actions: &[Action], test: &dyn Fn(&Action) -> bool) -> bool {
    actions.iter().any(|action| match action {
        Action::Clone(inner) | Action::WriteActions(inner) => any(inner, test),
        action => test(action),
    })
}

/// Whether the action names `port` as an output. Those that cut the packet, `bundle` and `resubmit` do not count, as in OVS.
fn outputs_to(action: &Action, port: PortNo) -> bool {
    match action {
        Action::Output(to) => *to == port,
        Action::Enqueue { port: to, .. } => *to == port,
        Action::Controller(_) => port == PortNo::CONTROLLER,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
