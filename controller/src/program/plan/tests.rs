use super::{Change, Difference, Item, Plan, What};
use crate::flow::{Flow, Group, Object, Part};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a switch has: actions by match, and texts by number of group.
type Switch = (BTreeMap<String, String>, BTreeMap<u32, String>);

fn apply(switch: &mut Switch, difference: &Difference) {
    let all = [
        (&difference.groups, true),
        (&difference.leaving, false),
        (&difference.flows, true),
        (&difference.groups_leaving, false),
    ];
    for (item, is_set) in all.into_iter().flat_map(|(items, is_set)| items.iter().map(move |i| (i, is_set))) {
        match (item.what().unwrap(), is_set) {
            (What::Flow(f), true) => drop(switch.0.insert(f.matching.clone(), f.actions.clone())),
            (What::Flow(f), false) => assert!(switch.0.remove(&f.matching).is_some(), "deleted twice: {f:?}"),
            (What::Group(g), true) => drop(switch.1.insert(g.id, g.text.clone())),
            (What::Group(g), false) => assert!(switch.1.remove(&g.id).is_some(), "deleted twice: {g:?}"),
        }
    }
}

/// What the switch should have: of what two claim, the lesser object has its own.
fn expected(parts: &BTreeMap<Arc<Object>, Arc<Part>>) -> Switch {
    let mut switch = Switch::default();
    for part in parts.values().rev() {
        switch.0.extend(part.flows.iter().map(|f| (f.matching.clone(), f.actions.clone())));
        switch.1.extend(part.groups.iter().map(|g| (g.id, g.text.clone())));
    }
    switch
}

fn part(flows: &[(u8, u8)], groups: &[(u8, u8)]) -> Part {
    let flow = |(n, actions): &(u8, u8)| Flow {
        table: 1,
        priority: 1,
        matching: format!("tp_dst={n}"),
        actions: format!("output:{actions}"),
        owner: "svc:a/b".into(),
        drop_reason: None,
    };
    let group = |(n, text): &(u8, u8)| Group { id: (*n).into(), text: text.to_string(), owner: "svc:a/b".into() };
    Part { flows: flows.iter().map(flow).collect(), groups: groups.iter().map(group).collect() }
}

fn object(n: u8) -> Arc<Object> {
    Arc::new(Object::Pod(n.into()))
}

fn names(items: &[Item]) -> Vec<&Object> {
    items.iter().map(|item| &*item.object).collect()
}

proptest! {
    /// Few keys, so that objects meet at them all the time.
    #[test]
    fn differences_one_after_the_other_make_what_is_wanted(
        steps in prop::collection::vec(
            prop::collection::btree_map(
                0u8..5,
                prop::option::weighted(
                    0.7,
                    (prop::collection::vec((0u8..6, 0u8..3), 0..4), prop::collection::vec((0u8..4, 0u8..3), 0..3)),
                ),
                1..4,
            ),
            1..20,
        ),
    ) {
        let (mut plan, mut switch, mut wanted) = (Plan::default(), Switch::default(), BTreeMap::new());
        for step in steps {
            let changes: Vec<Change> = step
                .into_iter()
                .map(|(n, p)| (object(n), p.map(|(flows, groups)| Arc::new(part(&flows, &groups)))))
                .collect();
            let before: Vec<Change> = changes.iter().map(|(o, _)| (o.clone(), plan.part(o).cloned())).collect();
            // What is taken back leaves no trace.
            let mut there_and_back = switch.clone();
            apply(&mut there_and_back, &plan.change(&changes));
            apply(&mut there_and_back, &plan.change(&before));
            prop_assert_eq!(&there_and_back, &switch);

            apply(&mut switch, &plan.change(&changes));
            for (object, part) in changes {
                match part {
                    Some(part) => wanted.insert(object, part),
                    None => wanted.remove(&object),
                };
            }
            prop_assert_eq!(&switch, &expected(&wanted));
            let mut anew = Switch::default();
            apply(&mut anew, &plan.all());
            prop_assert_eq!(&anew, &switch);
        }
        let all: Vec<Change> = wanted.keys().map(|object| (object.clone(), None)).collect();
        apply(&mut switch, &plan.change(&all));
        prop_assert_eq!(switch, Switch::default());
        prop_assert!(plan.owners.is_empty() && plan.contested.is_empty() && plan.parts.is_empty());
    }
}

#[test]
fn only_what_differs_is_sent() {
    let mut plan = Plan::default();
    let first = part(&[(1, 1), (2, 1), (3, 1)], &[(1, 1), (2, 1)]);
    plan.change(&[(object(1), Some(Arc::new(first)))]);
    let second = part(&[(4, 1), (2, 9), (1, 1)], &[(2, 1), (3, 1)]);
    let difference = plan.change(&[(object(1), Some(Arc::new(second)))]);
    assert_eq!(names(&difference.flows).len(), 2);
    assert_eq!((difference.leaving.len(), difference.groups.len(), difference.groups_leaving.len()), (1, 1, 1));
    let same = part(&[(1, 1), (2, 9), (4, 1)], &[(3, 1), (2, 1)]);
    let nothing = plan.change(&[(object(1), Some(Arc::new(same)))]);
    assert!(nothing.flows.is_empty() && nothing.leaving.is_empty(), "{nothing:?}");
    assert!(nothing.groups.is_empty() && nothing.groups_leaving.is_empty(), "{nothing:?}");
}
