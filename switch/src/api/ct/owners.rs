//! Whose marks and labels are whose: what the rules that there are now give to connections.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::Owner;
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, Model};
use sluice_flows::field::Field;
use std::collections::BTreeSet;

/// Who writes what.
#[derive(Default)]
pub(super) struct Owners {
    marks: Writes,
    labels: Writes,
}

/// Values that rules write, by the bits that they write. No owner where several write the same.
#[derive(Default)]
struct Writes(HashMap<u128, HashMap<u128, Option<Owner>, RandomState>, RandomState>);

impl Owners {
    /// What the rules and groups of a model write.
    pub(super) fn of(model: &Model) -> Self {
        let mut owners = Self::default();
        model.bridges.values().for_each(|bridge| owners.add_bridge(bridge));
        owners
    }

    /// Owners of the rules that write this mark, or bits of it.
    pub(super) fn of_mark(&self, mark: u32) -> Vec<String> {
        self.marks.owners(mark.into())
    }

    /// Owners of the rules that write this label, or bits of it.
    pub(super) fn of_label(&self, label: u128) -> Vec<String> {
        self.labels.owners(label)
    }

    fn add_bridge(&mut self, bridge: &Bridge) {
        for rule in bridge.tables.iter() {
            self.add(&rule.spec.actions, &rule.spec.owner);
        }
        for group in bridge.groups.values() {
            group.buckets.iter().for_each(|bucket| self.add(&bucket.actions, &group.owner));
        }
    }

    fn add(&mut self, actions: &[Action], owner: &Owner) {
        for action in actions {
            match action {
                Action::Ct(ct) => ct.exec.iter().for_each(|write| self.add_write(write, owner)),
                Action::Clone(list) | Action::WriteActions(list) => self.add(list, owner),
                _ => {}
            }
        }
    }

    fn add_write(&mut self, write: &Action, owner: &Owner) {
        let (field, value, mask) = match write {
            Action::SetField { field, value, mask } => (*field, *value, *mask),
            Action::Load { value, dst } => (dst.field, *value << dst.ofs, dst.mask()),
            // What is moved there depends on the packet.
            _ => return,
        };
        match field {
            Field::CtMark => self.marks.add(value, mask & u128::from(u32::MAX), owner),
            Field::CtLabel => self.labels.add(value, mask, owner),
            _ => {}
        }
    }
}

impl Writes {
    fn add(&mut self, value: u128, mask: u128, owner: &Owner) {
        let value = value & mask;
        // Bits without a one are those of a connection that nobody wrote to.
        if value != 0 {
            let writer = self.0.entry(mask).or_default().entry(value);
            let writer = writer.or_insert_with(|| Some(owner.clone()));
            if writer.as_ref().is_some_and(|other| other != owner) {
                *writer = None;
            }
        }
    }

    fn owners(&self, value: u128) -> Vec<String> {
        let found = self.0.iter().filter_map(|(mask, values)| values.get(&(value & mask))?.as_ref());
        found.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::text::{Names, parse_flow};

    fn owners(flows: &[(&str, &str)]) -> Owners {
        let mut owners = Owners::default();
        for (flow, owner) in flows {
            let spec = parse_flow(flow, &Names::new()).unwrap().value;
            owners.add(&spec.actions, &Owner::new(owner));
        }
        owners
    }

    #[test]
    fn a_value_is_its_only_writers() {
        let owners = owners(&[
            ("ip actions=ct(commit,exec(set_field:0x10/0xf0->ct_mark,set_field:7/0xffffffff->ct_label))", "svc:a"),
            ("tcp actions=ct(commit,exec(load:0x2->NXM_NX_CT_MARK[0..3]))", "svc:b"),
            ("udp actions=clone(ct(commit,exec(load:0x9->NXM_NX_CT_LABEL[32..63])))", "np:c"),
            ("udp actions=ct(commit,exec(set_field:3/0xf->ct_mark))", "svc:d"),
            ("sctp actions=ct(commit,exec(set_field:3/0xf->ct_mark))", "svc:e"),
        ]);
        assert_eq!(owners.of_mark(0x10), ["svc:a"]);
        assert_eq!(owners.of_mark(0x12), ["svc:a", "svc:b"], "each wrote its bits");
        assert_eq!(owners.of_mark(0x3), Vec::<String>::new(), "two write this");
        assert_eq!(owners.of_mark(0), Vec::<String>::new());
        assert_eq!(owners.of_label(9 << 32 | 7), ["np:c", "svc:a"]);
        assert_eq!(owners.of_label(9 << 32 | 8), ["np:c"]);
    }
}
