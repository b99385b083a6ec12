//! Random steps: what is set and removed, by which start of the controller, and whichever switch is there.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    /// Services with so many endpoints; none removes.
    Change(Vec<(u8, Option<u8>)>),
    /// Only Services below this number are left.
    KeepOnly(u8),
    /// The switch is gone, and another one comes.
    Switch,
    /// The controller starts again.
    Controller,
    /// An operator deletes a Service's flow.
    Operator(u8),
    /// All that was said is waited for, and looked at.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let part = prop::option::weighted(0.7, 1u8..4);
    prop_oneof![
        6 => prop::collection::vec((1u8..9, part), 1..5).prop_map(Step::Change),
        1 => (1u8..9).prop_map(Step::KeepOnly),
        1 => Just(Step::Switch),
        1 => Just(Step::Controller),
        1 => (1u8..9).prop_map(Step::Operator),
        2 => Just(Step::Look),
    ]
}

type Wanted = BTreeMap<u8, u8>;

fn object(n: u8) -> Object {
    service(&format!("shop/s{n}"))
}

async fn look(node: &Node, wanted: &Wanted) {
    node.settled().await.unwrap();
    let flow =
        |n: &u8| format!("18 tcp,nw_dst=10.96.0.{n},tp_dst=80 -> group:{} (svc:shop/s{n})", 1_000 + u32::from(*n));
    let flows: Vec<_> = wanted.keys().map(flow).collect();
    // What an operator has deleted takes a moment to be missed.
    for _ in 0..600 {
        if node.our_flows().await == flows {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.our_flows().await, flows);
    let groups = node.groups().await;
    assert_eq!(groups.len(), wanted.len(), "{groups:?}");
    for (group, (n, endpoints)) in groups.iter().zip(wanted) {
        assert!(group.starts_with(&format!("group_id={},", 1_000 + u32::from(*n))), "{group}");
        assert_eq!(group.matches("bucket=").count(), usize::from(*endpoints), "{group}");
    }
}

async fn walk(steps: Vec<Step>) {
    let (mut node, mut wanted) = (Node::new(), Wanted::new());
    let mut daemon = Daemon::start(node.path());
    node.program.ready();
    for step in steps.into_iter().chain([Step::Look]) {
        match step {
            Step::Change(changes) => {
                for (n, endpoints) in &changes {
                    match endpoints {
                        Some(endpoints) => wanted.insert(*n, *endpoints),
                        None => wanted.remove(n),
                    };
                }
                let part = |(n, e): (u8, Option<u8>)| (object(n), e.map(|e| service_part(n.into(), e.into())));
                node.program.change(changes.into_iter().map(part));
            }
            Step::KeepOnly(below) => {
                wanted.retain(|n, _| *n < below);
                let kept: Vec<_> = (0..below).map(object).collect();
                node.program.keep_only(|o| kept.contains(o));
            }
            Step::Switch => {
                drop(daemon);
                daemon = Daemon::start(node.path());
            }
            Step::Controller => {
                node = node.again();
                for (n, endpoints) in &wanted {
                    node.program.set(object(*n), service_part((*n).into(), (*endpoints).into()));
                }
                node.program.ready();
            }
            Step::Operator(n) => {
                node.settled().await.unwrap();
                let flow = format!("delete_strict table=18,priority=100,tcp,nw_dst=10.96.0.{n},tp_dst=80");
                node.operator(&[&flow]).await;
            }
            Step::Look => look(&node, &wanted).await,
        }
    }
    drop(daemon);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn the_switch_ends_with_exactly_what_is_wanted(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(walk(steps));
    }
}
