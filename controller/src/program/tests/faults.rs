//! Parts that the switch refuses.

use super::*;

/// A part with a flow that no switch takes.
fn bad(n: u32) -> Part {
    let mut part = service_part(n, 1);
    part.flows.push(flow(18, &format!("tcp,tp_dst={n}"), "output:no-such-port", &format!("svc:shop/s{n}")));
    part
}

fn names(result: Result<(), Unsettled>) -> Vec<Object> {
    match result {
        Err(Unsettled::Refused { refused }) => refused.into_iter().map(|(object, _)| object).collect(),
        other => panic!("nothing was refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_part_that_is_refused_keeps_what_it_had_and_stops_no_other() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.ready();
    node.settled().await.unwrap();
    node.program.set(service("shop/s1"), bad(1));
    node.program.set(service("shop/s2"), service_part(2, 2));
    let error = node.settled().await.unwrap_err();
    assert!(error.to_string().starts_with("the switch refuses what Service shop/s1 needs: "), "{error}");
    assert!(error.to_string().contains("no-such-port"), "{error}");
    assert_eq!((node.our_flows().await.len(), node.groups().await.len()), (2, 2), "the old part and the other one");
    // It is still refused after another change, and gone with a change of its own.
    node.program.remove(&service("shop/s2"));
    assert_eq!(names(node.settled().await), [service("shop/s1")]);
    node.program.set(service("shop/s1"), service_part(1, 3));
    node.settled().await.unwrap();
    assert!(node.groups().await[0].contains("10.0.0.3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_not_there_is_the_fault_of_who_names_it() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.ready();
    node.settled().await.unwrap();
    let mut part = service_part(1, 2);
    part.groups.clear();
    node.program.set(service("shop/s1"), part);
    node.program.set(service("shop/s2"), service_part(2, 2));
    assert_eq!(names(node.settled().await), [service("shop/s1")]);
    assert_eq!((node.our_flows().await.len(), node.groups().await.len()), (1, 1));
}

/// More are bad than are looked at one by one; they are found at the start, and among changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_parts_that_are_refused_are_found_among_more() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    let is_bad = |n: u32| n % 5 == 3;
    let set = |all: std::ops::Range<u32>| {
        node.program.change(
            all.map(|n| (service(&format!("shop/s{n:03}")), Some(if is_bad(n) { bad(n) } else { service_part(n, 2) }))),
        );
    };
    set(0..100);
    node.program.ready();
    let refused = names(node.settled().await);
    let expected = |all: std::ops::Range<u32>| -> Vec<_> {
        all.filter(|n| is_bad(*n)).map(|n| service(&format!("shop/s{n:03}"))).collect()
    };
    assert_eq!(refused, expected(0..100));
    assert_eq!((node.our_flows().await.len(), node.groups().await.len()), (80, 80));
    set(100..200);
    assert_eq!(names(node.settled().await), expected(0..200));
    assert_eq!((node.our_flows().await.len(), node.groups().await.len()), (160, 160));
}

/// Without the bridge nothing is anybody's fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_is_not_there_yet_is_waited_for() {
    let node = Node::new();
    let daemon = Daemon::start(node.path());
    daemon.datapath.remove_bridge("br0").unwrap();
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.ready();
    let status = node.until("behind", |s| s.last_error.as_ref().is_some_and(|(_, e)| e.contains("br0"))).await;
    assert!(status.refused.is_empty() && status.connected && status.in_step_since.is_none(), "{status:?}");
    assert!(matches!(node.program.settled().await, Err(Unsettled::Behind(_))));
    daemon.datapath.add_bridge("br0", FailMode::Secure).unwrap();
    node.settled().await.unwrap();
    assert_eq!(node.our_flows().await.len(), 1);
}

/// Two objects of one flow, as while an address moves: the lesser has it in whatever order, and the other one when it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_two_objects_claim_stays_as_long_as_one_of_them_does() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    let part = |port: u32| Part { flows: vec![flow(18, "ip", &format!("output:{port}"), "svc:x/y")], groups: vec![] };
    node.program.set(service("b"), part(2));
    node.program.ready();
    node.settled().await.unwrap();
    for (change, has) in [
        ((service("a"), Some(part(1))), "output:1"),
        ((service("c"), Some(part(3))), "output:1"),
        ((service("a"), None), "output:2"),
        ((service("c"), None), "output:2"),
    ] {
        node.program.change([change.clone()]);
        node.settled().await.unwrap();
        assert_eq!(node.our_flows().await, [format!("18 ip -> {has} (svc:x/y)")], "{change:?}");
    }
}

/// What is refused may be an operator's doing, or a part's; changes go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_while_an_operator_changes_flows_holds_up_nothing() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.set(service("shop/s9"), service_part(9, 1));
    node.program.ready();
    node.settled().await.unwrap();
    for step in 1..=10 {
        node.operator(&["delete table=18,tcp,nw_dst=10.96.0.9"]).await;
        let good = service_part(2, 1 + step % 3);
        node.program.change([(service("shop/s1"), Some(bad(1))), (service("shop/s2"), Some(good))]);
        tokio::time::sleep(Duration::from_millis(2 + u64::from(step % 4))).await;
        node.program.set(service("shop/s3"), service_part(3, 1 + step % 2));
        assert_eq!(names(node.settled().await), [service("shop/s1")], "step {step}");
        assert_eq!(node.groups().await.len(), 3, "step {step}");
        node.program.remove(&service("shop/s1"));
        node.settled().await.unwrap();
    }
    let status = node.until("compared", |s| s.comparisons > 1).await;
    assert!(status.refused.is_empty(), "{status:?}");
}
