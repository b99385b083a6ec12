//! Bundles: a difference as the messages of one `ApplyBundle`, and whose change it was that the switch refused.

use super::plan::{Difference, Item, What};
use crate::flow::{COOKIE, Flow, Group, Object};
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::flow_mod::Command;
use sluice_proto::v1::{ApplyBundleRequest, BridgeMod, BundleHeader, FlowFilter, FlowMod, GroupMod, group_mod};
use std::fmt::Write;
use std::sync::Arc;

/// Bytes of texts in a message, about; what gRPC takes by default is four times as much.
const MESSAGE_LEN: usize = 1 << 20;
/// What a change takes in a message beside its texts, at most.
const OVERHEAD: usize = 64;

/// A bundle, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    header: BundleHeader,
    changes: Arc<[(Act, Item)]>,
}

/// What is done with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    SetGroup,
    DeleteFlow,
    AddFlow,
    DeleteGroup,
}

/// The flows of node controllers.
pub(super) fn our_flows() -> FlowFilter {
    FlowFilter { r#match: format!("cookie={COOKIE:#x}/-1"), ..FlowFilter::default() }
}

impl Bundle {
    /// A bundle of a bridge for these changes, whose flows are of this round.
    pub(super) fn new(bridge: &str, round: u64, difference: Difference) -> Self {
        let header = BundleHeader { bridge: bridge.to_owned(), generation: round, ..BundleHeader::default() };
        let Difference { groups, leaving, flows, groups_leaving } = difference;
        let acts = [
            (Act::SetGroup, groups),
            (Act::DeleteFlow, leaving),
            (Act::AddFlow, flows),
            (Act::DeleteGroup, groups_leaving),
        ];
        let changes = acts.into_iter().flat_map(|(act, items)| items.into_iter().map(move |item| (act, item)));
        Self { header, changes: changes.collect() }
    }

    /// The same, in the place of all flows of node controllers.
    pub(super) fn replacing(mut self) -> Self {
        self.header.replace = Some(our_flows());
        self
    }

    /// The same, only to learn what it would do.
    pub(super) fn dry_run(mut self) -> Self {
        self.header.dry_run = true;
        self
    }

    /// Its messages; `groups_leaving` are groups to delete at the end of which nothing but the number is known.
    pub(super) fn messages(&self, groups_leaving: Vec<u32>) -> impl Iterator<Item = ApplyBundleRequest> + use<> {
        let (changes, mut header, mut next) = (Arc::clone(&self.changes), Some(self.header.clone()), 0);
        let mut groups_leaving = groups_leaving.into_iter();
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let mut message = ApplyBundleRequest { header: header.take(), ..ApplyBundleRequest::default() };
            let mut len = 0;
            while let Some((act, item)) = changes.get(next) {
                // In a message flows come before all else.
                if len >= MESSAGE_LEN || (is_of_flow(*act) && !message.changes.is_empty()) {
                    return Some(message);
                }
                next += 1;
                len += add(&mut message, *act, item);
            }
            for id in groups_leaving.by_ref() {
                message.changes.push(delete_group(id));
                if message.changes.len() * OVERHEAD >= MESSAGE_LEN {
                    return Some(message);
                }
            }
            (message.commit, is_over) = (true, true);
            Some(message)
        })
    }

    /// Whether it cannot change anything.
    pub(super) fn is_nothing(&self) -> bool {
        self.changes.is_empty() && self.header.replace.is_none()
    }

    /// Whether it is only to learn what it would do.
    pub(super) fn is_dry_run(&self) -> bool {
        self.header.dry_run
    }

    /// Number of changes.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whose change the switch means by what it says of a bundle (`flow 3 of 12: ..`, `change 3 of 12, a group: ..`), and what is
    /// wrong with it.
    pub(super) fn at_fault(&self, said: &str) -> Option<(&Arc<Object>, String)> {
        let rest = said.strip_prefix("flow ").or_else(|| said.strip_prefix("change "))?;
        let (place, why) = rest.split_once(": ")?;
        let number: usize = place.split_once(' ')?.0.parse().ok()?;
        let (_, item) = self.changes.get(number.checked_sub(1)?)?;
        Some((&item.object, why.replace("\n  ", ": ")))
    }
}

fn is_of_flow(act: Act) -> bool {
    matches!(act, Act::DeleteFlow | Act::AddFlow)
}

/// Adds a change to a message; about how long it is there.
fn add(message: &mut ApplyBundleRequest, act: Act, item: &Item) -> usize {
    match (act, item.what()) {
        (Act::SetGroup, Some(What::Group(group))) => {
            let text = group_text(group);
            let len = text.len() + group.owner.len();
            let command = group_mod::Command::AddOrModify.into();
            let change = GroupMod { command, group: text, owner: group.owner.to_string() };
            message.changes.push(BridgeMod { change: Some(Change::Group(change)) });
            len + OVERHEAD
        }
        (Act::DeleteGroup, Some(What::Group(group))) => {
            message.changes.push(delete_group(group.id));
            OVERHEAD
        }
        (Act::AddFlow, Some(What::Flow(flow))) => {
            let change = FlowMod {
                command: Command::Add.into(),
                flow: flow_text(flow),
                owner: flow.owner.to_string(),
                drop_reason: flow.drop_reason.unwrap_or_default().to_owned(),
                ..FlowMod::default()
            };
            let len = change.flow.len() + change.owner.len() + change.drop_reason.len();
            message.mods.push(change);
            len + OVERHEAD
        }
        (Act::DeleteFlow, Some(What::Flow(flow))) => {
            let mut text = flow_key(flow);
            // A flow that somebody else has put in its place is theirs. Writing to a string cannot fail.
            _ = write!(text, "cookie={COOKIE:#x}/-1");
            let len = text.len();
            let command = Command::DeleteStrict.into();
            message.mods.push(FlowMod { command, flow: text, ..FlowMod::default() });
            len + OVERHEAD
        }
        _ => 0,
    }
}

fn delete_group(id: u32) -> BridgeMod {
    let command = group_mod::Command::Delete.into();
    let change = GroupMod { command, group: format!("group_id={id}"), owner: String::new() };
    BridgeMod { change: Some(Change::Group(change)) }
}

/// A group in OVS's syntax.
pub(super) fn group_text(group: &Group) -> String {
    format!("group_id={},{}", group.id, group.text)
}

/// What names a flow, with a comma behind it.
fn flow_key(flow: &Flow) -> String {
    let comma = if flow.matching.is_empty() { "" } else { "," };
    format!("table={},priority={},{}{comma}", flow.table, flow.priority, flow.matching)
}

fn flow_text(flow: &Flow) -> String {
    let mut text = flow_key(flow);
    let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
    // Writing to a string cannot fail.
    _ = write!(text, "cookie={COOKIE:#x} actions={actions}");
    text
}
