use super::*;
use crate::action::{Action, Conjunction, Learn};
use crate::field::Field;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::FlowSpec;

const TABLE: TableId = TableId::FIRST;

fn spec(priority: u16) -> FlowSpec {
    FlowSpec { priority, ..FlowSpec::new(Match::any(), [], Owner::user()) }
}

fn tables(specs: impl IntoIterator<Item = FlowSpec>) -> Tables {
    let mut tables = Tables::new();
    for spec in specs {
        tables.insert(Arc::new(Rule::new(spec, Millis(0))));
    }
    tables
}

fn learn(cookie: u64, delete_learned: bool) -> Action {
    Action::Learn(Box::new(Learn {
        table: TABLE,
        idle_timeout: 0,
        hard_timeout: 0,
        priority: 1,
        cookie,
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        send_flow_rem: false,
        delete_learned,
        limit: 0,
        result_dst: None,
        specs: Box::new([]),
    }))
}

fn evicted(tables: &Tables) -> Option<u16> {
    tables.evictable(TABLE).map(|rule| rule.spec.priority)
}

#[test]
fn rules_without_a_timeout_are_never_evicted() {
    let tables = tables([spec(1), FlowSpec { importance: 9, idle_timeout: 5, ..spec(2) }]);
    assert_eq!(evicted(&tables), Some(2));
    assert!(tables.evictable(TableId::LAST).is_none());
}

#[test]
fn importance_decides_who_is_evicted_before_time_does() {
    let timed = |priority, importance, hard_timeout| FlowSpec { importance, hard_timeout, ..spec(priority) };
    let mut tables = tables([timed(1, 2, 1), timed(2, 1, 100), timed(3, 1, 50), timed(4, 3, 1)]);
    for priority in [3, 2, 1, 4] {
        assert_eq!(evicted(&tables), Some(priority));
        tables.remove(TABLE, priority, &Match::any());
    }
    assert_eq!(evicted(&tables), None);
}

#[test]
fn traffic_puts_eviction_off() {
    let idle = |priority, idle_timeout| FlowSpec { idle_timeout, ..spec(priority) };
    let tables = tables([idle(1, 5), idle(2, 10), idle(3, 60)]);
    assert_eq!(evicted(&tables), Some(1));
    tables.get_strict(TABLE, 1, &Match::any()).unwrap().stats.credit(1, 60, Millis(20_000));
    assert_eq!(evicted(&tables), Some(2));
    tables.get_strict(TABLE, 2, &Match::any()).unwrap().stats.credit(1, 60, Millis(20_000));
    assert_eq!(evicted(&tables), Some(1));
}

#[test]
fn a_refresh_starts_the_hard_timeout_anew() {
    let tables = tables([FlowSpec { hard_timeout: 10, ..spec(1) }]);
    tables.get_strict(TABLE, 1, &Match::any()).unwrap().stats.refresh(Millis(5_000));
    assert!(tables.expired(Millis(14_999)).is_empty());
    assert_eq!(tables.expired(Millis(15_000))[0].1, RemovedReason::HardTimeout);
}

#[test]
fn learners_are_known_until_the_last_is_gone() {
    let with = |priority, actions: Vec<Action>| FlowSpec { actions: actions.into(), ..spec(priority) };
    let nested = Action::Clone([learn(7, true)].into());
    let mut tables = tables([with(1, vec![learn(7, true), learn(7, true)]), with(2, vec![nested, learn(8, false)])]);
    assert!(tables.learns(TABLE, 7) && !tables.learns(TABLE, 8) && !tables.learns(TableId::LAST, 7));
    let snapshot = tables.clone();
    tables.remove(TABLE, 1, &Match::any());
    assert!(tables.learns(TABLE, 7));
    tables.insert(Arc::new(Rule::new(spec(2), Millis(0))));
    assert!(!tables.learns(TABLE, 7) && snapshot.learns(TABLE, 7));
}

#[test]
fn rules_that_do_the_same_share_one_list_wherever_they_came_from() {
    // Each from a list of its own, as texts give them.
    let list = |id| [Action::Conjunction(Conjunction { id, clause: 0, clauses: 2 })];
    let mut tables = tables((0..100).map(|n| FlowSpec { actions: list(1).into(), ..spec(n) }));
    let (new, _) = tables.insert_new(Rule::new(FlowSpec { actions: list(1).into(), ..spec(200) }, Millis(0)));
    assert!(tables.iter().all(|rule| Arc::ptr_eq(&rule.spec.actions, &new.spec.actions)));
    let snapshot = tables.clone();
    let held = new.spec.actions.clone();
    drop(new);
    for priority in (0..100).chain([200]) {
        tables.remove(TABLE, priority, &Match::any());
    }
    drop(snapshot);
    assert_eq!(Arc::strong_count(&held), 1, "the last rule takes the list along");
}

#[test]
fn memory_grows_with_rules_and_lists_not_with_their_product() {
    let size = |rules: u32, len: u32| {
        let list: Vec<_> = (0..len).map(|id| Action::Conjunction(Conjunction { id, clause: 0, clauses: 2 })).collect();
        let specs = (0..rules).map(|n| {
            let mut matches = Match::any();
            matches.set_field(Field::IpSrc, n.into());
            FlowSpec { matches, actions: list.clone().into(), ..spec(1) }
        });
        tables(specs).heap_size()
    };
    let (few, many, rules) = (size(1_000, 1), size(1_000, 500), size(2_000, 500));
    let list = many - few;
    assert!(list >= 499 * size_of::<Action>() && list < 600 * (size_of::<Action>() + 4), "{list}");
    assert!(rules - many < 2 * few, "{few} {many} {rules}");
}

#[test]
fn replacing_a_rule_releases_the_list_of_the_old_one() {
    let mut tables = tables([FlowSpec { actions: [Action::Output(PortNo(1))].into(), ..spec(1) }]);
    let old = tables.get_strict(TABLE, 1, &Match::any()).unwrap().spec.actions.clone();
    tables.insert(Arc::new(Rule::new(spec(1), Millis(0))));
    assert_eq!(Arc::strong_count(&old), 1);
}

#[test]
fn many_rules_removed_at_once_leave_what_is_left_when_removed_one_by_one() {
    let in_table = |table, n| FlowSpec { table: TableId::new(table).unwrap(), idle_timeout: 5, ..spec(n) };
    let mut tables = tables((0..10).flat_map(|n| [in_table(0, n), in_table(3, n), in_table(254, n)]));
    let snapshot = tables.clone();
    let leaving: Vec<_> = tables.iter().filter(|r| r.spec.table.get() == 3 || r.spec.priority < 4).cloned().collect();
    tables.remove_all(leaving.iter());
    let left = |tables: &Tables, table| tables.table_len(TableId::new(table).unwrap());
    assert_eq!([left(&tables, 0), left(&tables, 3), left(&tables, 254), tables.len()], [6, 0, 6, 12]);
    assert_eq!(tables.expired(Millis(5_000)).len(), 12);
    assert!(leaving.iter().all(|r| tables.get_strict(r.spec.table, r.spec.priority, &r.spec.matches).is_none()));
    assert_eq!((snapshot.len(), left(&snapshot, 3)), (30, 10));
}
