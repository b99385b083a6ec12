//! Groups, bundles and the action set.

use super::{At, Run, TooFar};
use sluice_flows::PortNo;
use sluice_flows::action::{Action, Bundle, GroupId};
use sluice_flows::field::Field;
use sluice_flows::group::{Bucket, GroupKind};

/// Groups that may watch each other.
const MAX_WATCHED: u32 = 64;

impl Run<'_> {
    pub(super) fn group(&mut self, id: GroupId, at: At<'_>) -> Result<(), TooFar> {
        if self.depth >= super::MAX_DEPTH || self.jumps >= super::MAX_JUMPS {
            return Err(TooFar);
        }
        let bridge = self.bridge;
        let Some(group) = bridge.groups.get(&id) else { return Ok(()) };
        let live = || group.buckets.iter().filter(|bucket| self.is_live(bucket, 0));
        let chosen: Vec<&Bucket> = match group.kind {
            GroupKind::All | GroupKind::Indirect => group.buckets.iter().collect(),
            GroupKind::FastFailover => live().take(1).collect(),
            // The live buckets do the same.
            GroupKind::Select => live().filter(|bucket| bucket.weight > 0).take(1).collect(),
        };
        for bucket in chosen {
            let packet = self.packet.clone();
            self.depth += 1;
            self.actions(&in_order(&bucket.actions), At { reason: Some(4), ..at })?;
            self.depth -= 1;
            self.packet = packet;
            self.exit = false;
        }
        Ok(())
    }

    fn is_live(&self, bucket: &Bucket, depth: u32) -> bool {
        if depth > MAX_WATCHED {
            return false;
        }
        match (bucket.watch_port, bucket.watch_group) {
            (None, None) => true,
            (port, group) => {
                let group = group.and_then(|id| self.bridge.groups.get(&id));
                port.is_some_and(|port| self.is_up(port))
                    || group.is_some_and(|group| group.buckets.iter().any(|b| self.is_live(b, depth + 1)))
            }
        }
    }

    pub(super) fn is_up(&self, port: PortNo) -> bool {
        self.bridge.ports.get(&port).is_some_and(|port| port.up)
    }

    pub(super) fn bundle(&mut self, bundle: &Bundle, at: At<'_>) -> Result<(), TooFar> {
        let live = bundle.members.iter().copied().find(|port| self.is_up(*port));
        let port = live.unwrap_or(PortNo::NONE);
        match bundle.dst {
            Some(dst) => {
                self.set(dst.field, u128::from(port.0) << dst.ofs, dst.mask());
                Ok(())
            }
            None => self.output(port, at),
        }
    }

    pub(super) fn write_actions(&mut self, list: &[Action]) {
        self.action_set.extend(list.iter().cloned());
        let group = self.action_set.iter().any(|action| matches!(action, Action::Group(_)));
        let last = self.action_set.iter().rev().find_map(|action| match action {
            Action::Output(port) => Some(*port),
            _ => None,
        });
        let port = if group { PortNo::UNSET } else { last.unwrap_or(PortNo::UNSET) };
        self.packet.key.set(Field::ActsetOutput.slot(), port.0.into());
    }

    /// Does the action set, which is empty then; after an `exit` it is not done.
    pub(super) fn run_action_set(&mut self) -> Result<(), TooFar> {
        if self.exit {
            return Ok(());
        }
        let list = in_order(&std::mem::take(&mut self.action_set));
        self.actions(&list, At { table: 0, rule: None, reason: Some(3) })
    }
}

/// Actions in the order in which an action set is done: of most kinds the last that was written, then all setters as
/// they were written, then where it goes.
fn in_order(set: &[Action]) -> Vec<Action> {
    let kinds: [fn(&Action) -> bool; 7] = [
        |a| matches!(a, Action::PopVlan { .. }),
        |a| matches!(a, Action::PopMpls(_)),
        |a| matches!(a, Action::PushMpls(_)),
        |a| matches!(a, Action::PushVlan(_)),
        |a| matches!(a, Action::DecTtl(_)),
        |a| matches!(a, Action::DecMplsTtl),
        |a| matches!(a, Action::DecNshTtl),
    ];
    let last = |kind: fn(&Action) -> bool| set.iter().rev().find(|a| kind(a)).cloned();
    let mut list: Vec<Action> = kinds.into_iter().filter_map(last).collect();
    let setters = set.iter().filter(|action| {
        matches!(
            action,
            Action::SetField { .. }
                | Action::Load { .. }
                | Action::Move { .. }
                | Action::Mod(_)
                | Action::SetMplsLabel(_)
                | Action::SetMplsTc(_)
                | Action::SetMplsTtl(_)
                | Action::SetTunnel { .. }
        )
    });
    list.extend(setters.cloned());
    list.extend(last(|a| matches!(a, Action::SetQueue(_))));
    let ends: [fn(&Action) -> bool; 4] = [
        |a| matches!(a, Action::Group(_)),
        |a| matches!(a, Action::Output(_)),
        |a| matches!(a, Action::Resubmit { .. }),
        |a| matches!(a, Action::Ct(_)),
    ];
    list.extend(ends.into_iter().find_map(last));
    list
}
