//! Connection tracking, as far as translation goes: what the tracker is asked to do, and where the packet goes on with
//! its answer.

use super::{Flow, MacLookup, TraceEvent, TraceSink, Walk, Work};
use crate::action::{Action, Ct, CtZone};
use crate::datapath::{DpAction, DpCt, Resume, Suspended};
use crate::field::{ETH_TYPE_IPV4, Field};
use crate::key::{FlowKey, FlowMask, Slot, slot};
use crate::owner::Owner;
use crate::rule::TableId;
use crate::tunnel::TunnelKey;

/// Slots of what the tracker says.
const CT_SLOTS: [Slot; 9] = [
    slot::CT_STATE,
    slot::CT_ZONE,
    slot::CT_MARK,
    slot::CT_LABEL,
    slot::CT_NW_PROTO,
    slot::CT_IPV6_SRC,
    slot::CT_IPV6_DST,
    slot::CT_TP_SRC,
    slot::CT_TP_DST,
];

/// The packet's addresses, ports and protocol, each with its fellow in the connection's original direction.
fn tuple(key: &FlowKey) -> [(Slot, Slot); 5] {
    let [source, destination] = if key.get(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV4 {
        [(slot::IP_SRC, slot::CT_NW_SRC), (slot::IP_DST, slot::CT_NW_DST)]
    } else {
        [(slot::IPV6_SRC, slot::CT_IPV6_SRC), (slot::IPV6_DST, slot::CT_IPV6_DST)]
    };
    let ports = (slot::TP_SRC, slot::CT_TP_SRC);
    [source, destination, ports, (slot::TP_DST, slot::CT_TP_DST), (slot::IP_PROTO, slot::CT_NW_PROTO)]
}

impl Flow {
    /// The packet with its connection's original direction in the place of its own addresses and ports.
    pub(super) fn with_original_tuple(&self) -> Self {
        let mut swapped = *self;
        for (own, first) in tuple(&self.key) {
            swapped.key.set(own, self.key.get(first));
            swapped.key.set(first, self.key.get(own));
            swapped.written.set(own, self.written.get(first));
            swapped.written.set(first, self.written.get(own));
        }
        swapped
    }

    /// The bits of this packet that were read of [`Self::with_original_tuple`].
    pub(super) fn of_original_tuple(&self, read: &FlowMask) -> FlowMask {
        let mut swapped = *read;
        for (own, first) in tuple(&self.key) {
            swapped.set(own, read.get(first));
            swapped.set(first, read.get(own));
        }
        swapped
    }
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    pub(super) fn ct(&mut self, ct: &Ct, owner: Option<Owner>) {
        self.commit();
        let zone = match ct.zone {
            CtZone::Number(zone) => zone,
            CtZone::Field(src) => self.read_subfield(src) as u16,
        };
        let [mark, label] = self.ct_exec(&ct.exec);
        self.out.actions.push(DpAction::Ct(Box::new(DpCt {
            commit: ct.commit,
            force: ct.force,
            zone,
            mark: mark.map(|(value, mask)| (value as u32, mask as u32)),
            label,
            nat: ct.nat,
            alg: ct.alg,
            owner,
        })));
        if let Some(table) = ct.table {
            self.resume_at(table, Vec::new(), Some(zone), self.action_set.clone());
            if S::ACTIVE {
                self.tell(TraceEvent::Forked(table));
            }
        }
        self.note("Sets the packet to an untracked state, and clears all the conntrack fields.");
        // What is sent goes where the tracker's answer leads; without one this translation is as far as it gets.
        self.forwarded |= ct.table.is_some();
        self.forget_connection();
    }

    pub(super) fn ct_clear(&mut self) {
        if self.tracked || self.flow.key.get(slot::CT_STATE) != 0 {
            self.out.actions.push(DpAction::CtClear);
        }
        self.forget_connection();
    }

    /// Mark and label that the actions inside `ct(exec(..))` set, each with the bits that are new.
    fn ct_exec(&mut self, exec: &[Action]) -> [Option<(u128, u128)>; 2] {
        let before = self.flow;
        for slot in [slot::CT_MARK, slot::CT_LABEL] {
            self.flow.written.set(slot, 0);
        }
        for action in exec {
            match action {
                Action::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
                Action::Load { value, dst } => self.set_field(dst.field, *value << dst.ofs, dst.mask()),
                Action::Move { src, dst } => {
                    let value = self.read_subfield(*src);
                    self.set_field(dst.field, value << dst.ofs, dst.mask());
                }
                _ => {}
            }
        }
        let set = |field: Field| {
            let mask = self.flow.written.get(field.slot());
            (mask != 0).then(|| (self.flow.key.get(field.slot()) & mask, mask))
        };
        let sets = [set(Field::CtMark), set(Field::CtLabel)];
        self.flow = before;
        sets
    }

    /// The packet, as it is, goes on in `table` or in `lists` after the datapath has looked at it.
    fn resume_at(&mut self, table: TableId, lists: Vec<Suspended>, ct_zone: Option<u16>, action_set: Vec<Action>) {
        let index = u32::try_from(self.out.resumes.len()).unwrap_or(u32::MAX);
        self.out.actions.push(DpAction::Recirculate(index));
        self.out.resumes.push(Resume {
            bridge: self.bridge.id,
            table,
            lists,
            key: self.flow.key,
            tunnel_written: self.tunnel_written.union(&TunnelKey::written(&self.flow.written)),
            stack: self.values.clone(),
            action_set,
            ct_zone,
            mirrored: self.mirrored,
        });
    }

    /// The header under the one that was taken off has to be read before `table` can see it.
    pub(super) fn read_anew(&mut self, table: TableId) {
        self.wait_for_reading(table, Vec::new());
    }

    /// The header under the one that was taken off has to be read before the action that was just begun can be done. It,
    /// and what is left of the lists that it stands in, is done in another pass.
    pub(super) fn suspend(&mut self, table: TableId) {
        let mut lists = Vec::new();
        while let Some(Work::Actions { .. }) = self.stack.last() {
            let Some(Work::Actions { list, next, at, deepens }) = self.stack.pop() else { break };
            self.depth -= u32::from(deepens);
            let rule = at.rule.cloned();
            lists.push(Suspended { list, next, table: at.table, rule, reason: at.reason });
        }
        if let Some(innermost) = lists.first_mut() {
            innermost.next = innermost.next.saturating_sub(1);
        }
        lists.reverse();
        self.wait_for_reading(table, lists);
    }

    fn wait_for_reading(&mut self, table: TableId, lists: Vec<Suspended>) {
        self.note("what is under the header has to be read first: the packet goes on in another pass");
        self.commit();
        // The action set goes along, unless it belongs to lists that go on here.
        let goes_along = !lists.is_empty() && matches!(self.stack.last(), Some(Work::ActionSet));
        let action_set = if goes_along { std::mem::take(&mut self.action_set) } else { Vec::new() };
        self.resume_at(table, lists, None, action_set);
        self.forwarded = true;
    }

    fn forget_connection(&mut self) {
        self.tracked = false;
        for slot in CT_SLOTS {
            self.write(slot, 0, u128::MAX);
        }
    }
}
