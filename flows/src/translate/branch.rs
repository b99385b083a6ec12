//! Lists of actions that work on a copy of the packet: `clone`, buckets, other bridges, and the two ways behind
//! `check_pkt_larger`.

use super::{At, Flow, MacLookup, TraceSink, Walk, Wire, Work};
use crate::action::{Action, Subfield};
use crate::datapath::DpAction;
use std::sync::Arc;

/// What a list that works on a copy leaves as it was.
pub(super) struct Saved {
    flow: Flow,
    wire: Wire,
    /// Stack and action set, if they are put back too.
    lists: Option<(Vec<u128>, Vec<Action>)>,
    tracked: bool,
    unread: bool,
    /// What was emitted before.
    actions: Vec<DpAction>,
    /// It counts towards the depth.
    deepens: bool,
}

/// The two ways behind `check_pkt_larger`.
pub(super) struct Fork<'a> {
    saved: Saved,
    len: u16,
    dst: Subfield,
    /// The rest of the list, which both ways do.
    rest: Arc<[Action]>,
    at: At<'a>,
    forwarded: bool,
    /// What the first way came to, when it is done.
    larger: Option<Vec<DpAction>>,
    /// The mirrors that had their copy before.
    mirrored: u32,
}

/// Whether an action stops or changes what follows it in a way that no later action can make up for, so that what it
/// ends must be done on a copy.
fn needs_copy(action: &DpAction) -> bool {
    !matches!(
        action,
        DpAction::Output(_)
            | DpAction::Mirror(_)
            | DpAction::Truncate(_)
            | DpAction::Set(_)
            | DpAction::Readdress(_)
            | DpAction::PushVlan { .. }
            | DpAction::PopVlan
            | DpAction::PushMpls { .. }
            | DpAction::PopMpls(_)
            | DpAction::Controller(_)
            | DpAction::Reject
            | DpAction::Clone(_)
    )
}

/// Takes a copy that nothing follows for the packet itself.
pub(super) fn inline_last_copy(actions: &mut Vec<DpAction>) {
    while let Some(DpAction::Clone(_)) = actions.last() {
        if let Some(DpAction::Clone(copy)) = actions.pop() {
            actions.extend(copy);
        }
    }
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    /// Everything from here on is done on a copy until the work that this leaves is come back to.
    fn save(&mut self, with_lists: bool, deepens: bool) -> Saved {
        Saved {
            flow: self.flow,
            wire: self.wire.clone(),
            lists: with_lists.then(|| (self.values.clone(), self.action_set.clone())),
            tracked: self.tracked,
            unread: self.unread,
            actions: std::mem::take(&mut self.out.actions),
            deepens,
        }
    }

    /// Puts the packet back. Returns what the copy came to, and its wire.
    fn put_back_packet(&mut self, saved: Saved) -> (Vec<DpAction>, Wire) {
        let copy = std::mem::replace(&mut self.out.actions, saved.actions);
        let wire = std::mem::replace(&mut self.wire, saved.wire);
        self.flow = saved.flow;
        if let Some(lists) = saved.lists {
            (self.values, self.action_set) = lists;
        }
        (self.tracked, self.unread) = (saved.tracked, saved.unread);
        self.depth -= u32::from(saved.deepens);
        (copy, wire)
    }

    pub(super) fn save_for_bucket(&mut self) {
        let saved = self.save(false, true);
        self.depth += 1;
        self.stack.push(Work::Restore(Box::new(saved)));
    }

    /// What is done until this is come back to is to send the packet, maybe through another bridge; it is `before` then.
    pub(super) fn save_until_sent(&mut self, before: Flow) {
        let mut saved = self.save(false, false);
        saved.flow = before;
        self.stack.push(Work::Restore(Box::new(saved)));
    }

    /// The list that worked on a copy is done.
    pub(super) fn restore(&mut self, saved: Saved) {
        let (mut copy, wire) = self.put_back_packet(saved);
        inline_last_copy(&mut copy);
        if copy.iter().any(needs_copy) {
            self.out.actions.push(DpAction::Clone(copy.into()));
        } else {
            // What the copy's actions changed can be changed back when something is sent, so no copy is needed.
            self.out.actions.extend(copy);
            self.wire = wire;
        }
    }

    pub(super) fn clone_packet(&mut self, list: &Arc<[Action]>, at: At<'a>) {
        let saved = self.save(true, false);
        self.stack.push(Work::Restore(Box::new(saved)));
        self.stack.push(Work::ActionSet);
        self.stack.push(Work::Actions { list: Arc::clone(list), next: 0, at, deepens: false });
    }

    /// Does the rest of the current list twice: for packets of more than `len` bytes, and for the others.
    pub(super) fn check_pkt_larger(&mut self, len: u16, dst: Subfield, at: At<'a>) {
        let Some(Work::Actions { list, next, .. }) = self.stack.last_mut() else { return };
        let rest: Arc<[Action]> = list.get(*next..).unwrap_or_default().into();
        *next = list.len();
        if rest.is_empty() {
            return;
        }
        self.commit();
        let forwarded = std::mem::replace(&mut self.forwarded, false);
        let saved = self.save(true, false);
        let mirrored = self.mirrored;
        self.start_branch(Fork { saved, len, dst, rest, at, forwarded, larger: None, mirrored });
    }

    fn start_branch(&mut self, fork: Fork<'a>) {
        let bit = u128::from(fork.larger.is_none());
        let (dst, at, list) = (fork.dst, fork.at, Arc::clone(&fork.rest));
        self.stack.push(Work::Branch(Box::new(fork)));
        self.stack.push(Work::ActionSet);
        self.stack.push(Work::Actions { list, next: 0, at, deepens: false });
        self.set_field(dst.field, bit << dst.ofs, dst.mask());
    }

    /// One way is done: begins the other, or puts both together.
    pub(super) fn next_branch(&mut self, fork: Fork<'a>) {
        if !self.forwarded {
            self.out.actions.push(DpAction::Drop(self.reason));
        }
        let Fork { saved, len, dst, rest, at, forwarded, larger, mirrored } = fork;
        let forwarded = forwarded | std::mem::replace(&mut self.forwarded, false);
        let (mut done, _) = self.put_back_packet(saved);
        inline_last_copy(&mut done);
        match larger {
            None => {
                let saved = self.save(true, false);
                // A packet goes one way only.
                self.mirrored = mirrored;
                self.start_branch(Fork { saved, len, dst, rest, at, forwarded, larger: Some(done), mirrored });
            }
            Some(larger) => {
                let (larger, otherwise) = (larger.into(), done.into());
                self.out.actions.push(DpAction::CheckPktLen { len, larger, otherwise });
                self.forwarded = forwarded;
            }
        }
    }
}
