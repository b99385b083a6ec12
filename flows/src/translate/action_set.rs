//! The action set: what `write_actions` collects and the end of the pipeline does, in OpenFlow's order (OpenFlow 1.5,
//! 5.6), which is also how a group's bucket does its actions.

use super::{At, MacLookup, TraceEvent, TraceSink, Walk, Work};
use crate::action::{Action, PacketInReason};
use crate::key::slot;
use crate::port::PortNo;
use crate::rule::TableId;
use std::sync::Arc;

/// The places of actions in an action set, in the order in which they are done. Of those with one place, the last that
/// was written counts; sets are done in the order in which they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    PopVlan,
    PopMpls,
    Decap,
    Encap,
    PushMpls,
    PushVlan,
    DecTtl,
    DecMplsTtl,
    DecNshTtl,
    Set,
    SetQueue,
    Ending,
}

/// Where an action stands in an action set; `None` for one that has no place there.
fn place(action: &Action) -> Option<Place> {
    Some(match action {
        Action::PopVlan { .. } => Place::PopVlan,
        Action::Decap(_) => Place::Decap,
        Action::PopMpls(_) => Place::PopMpls,
        Action::Encap(_) => Place::Encap,
        Action::PushMpls(_) => Place::PushMpls,
        Action::PushVlan(_) => Place::PushVlan,
        Action::DecTtl(_) => Place::DecTtl,
        Action::DecMplsTtl => Place::DecMplsTtl,
        Action::DecNshTtl => Place::DecNshTtl,
        Action::SetField { .. }
        | Action::Load { .. }
        | Action::Move { .. }
        | Action::Mod(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::SetTunnel { .. } => Place::Set,
        Action::SetQueue(_) => Place::SetQueue,
        Action::Group(_) | Action::Output(_) | Action::Resubmit { .. } | Action::CtClear | Action::Ct(_) => {
            Place::Ending
        }
        _ => return None,
    })
}

/// Of the actions that end a set only the strongest is done: a group, else an output, else a resubmit, else `ct_clear`,
/// else `ct`.
fn strength(action: &Action) -> u8 {
    match action {
        Action::Group(_) => 4,
        Action::Output(_) => 3,
        Action::Resubmit { .. } => 2,
        Action::CtClear => 1,
        _ => 0,
    }
}

/// The actions of a set in the order in which they are done; nothing if no action would end it.
pub(super) fn in_order(set: &[Action]) -> Arc<[Action]> {
    let mut placed: Vec<(Place, &Action)> = Vec::new();
    let mut ending: Option<&Action> = None;
    for action in set {
        match place(action) {
            Some(Place::Ending) if ending.is_none_or(|there| strength(there) <= strength(action)) => {
                ending = Some(action);
            }
            Some(Place::Ending) | None => {}
            Some(Place::Set) => placed.push((Place::Set, action)),
            Some(at) => {
                placed.retain(|(other, _)| *other != at);
                placed.push((at, action));
            }
        }
    }
    let Some(ending) = ending else { return Arc::new([]) };
    // The sort is stable, so sets keep their order.
    placed.sort_by_key(|(at, _)| *at);
    placed.into_iter().map(|(_, action)| action).chain([ending]).cloned().collect()
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn write_actions(&mut self, list: &[Action]) {
        self.action_set.extend(list.iter().cloned());
        if S::ACTIVE {
            let set = in_order(&self.action_set);
            self.tell(TraceEvent::ActionSet(&set));
        }
        self.tell_output_of_set();
    }

    pub(super) fn clear_actions(&mut self) {
        self.action_set.clear();
        self.tell_output_of_set();
    }

    /// Keeps `actset_output` what it says.
    fn tell_output_of_set(&mut self) {
        let has_group = self.action_set.iter().any(|action| matches!(action, Action::Group(_)));
        let output = self.action_set.iter().rev().find_map(|action| match action {
            Action::Output(port) => Some(*port),
            _ => None,
        });
        let port = output.filter(|_| !has_group).unwrap_or(PortNo::UNSET);
        self.write(slot::ACTSET_OUTPUT, port.0.into(), u128::MAX);
    }

    /// Starts on the action set, which is empty from then on.
    pub(super) fn do_action_set(&mut self) {
        let set = std::mem::take(&mut self.action_set);
        let list = in_order(&set);
        if !list.is_empty() {
            if S::ACTIVE {
                self.tell(TraceEvent::ActionSetDone);
            }
            let at = At { rule: None, table: TableId::FIRST, reason: Some(PacketInReason::ActionSet) };
            self.stack.push(Work::Actions { list, next: 0, at, deepens: false });
        }
    }
}
