//! What is set is what the switch has, whoever starts again.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_is_in_force_once_settled_and_what_is_removed_is_gone() {
    let mut node = Node::new();
    let _daemon = Daemon::start(node.path());
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    assert_eq!(node.program.settled().await, Err(Unsettled::NotReady));
    node.program
        .set(Object::Base, Part { flows: vec![flow(10, "ip", "resubmit(,18)", "builtin:classify")], groups: vec![] });
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.ready();
    node.settled().await.unwrap();
    let first =
        ["10 ip -> resubmit(,18) (builtin:classify)", "18 tcp,nw_dst=10.96.0.1,tp_dst=80 -> group:1001 (svc:shop/s1)"];
    assert_eq!(node.our_flows().await, first);
    assert_eq!(node.groups().await.len(), 1);
    let mut changed = service_part(1, 3);
    changed.flows.push(flow(18, "udp,nw_dst=10.96.0.1,tp_dst=53", "", "svc:shop/s1"));
    node.program.set(service("shop/s1"), changed);
    node.program.remove(&Object::Base);
    node.settled().await.unwrap();
    let second = [
        "18 tcp,nw_dst=10.96.0.1,tp_dst=80 -> group:1001 (svc:shop/s1)",
        "18 udp,nw_dst=10.96.0.1,tp_dst=53 -> drop (svc:shop/s1)",
    ];
    assert_eq!(node.our_flows().await, second);
    assert!(node.groups().await[0].contains("10.0.0.3"), "{:?}", node.groups().await);
    let status = node.program.status();
    assert_eq!((status.flows, status.groups, status.objects, status.pending), (2, 1, 1, 0), "{status:?}");
    assert!(status.connected && status.ready && status.in_step_since.is_some(), "{status:?}");
    node.program.keep_only(|_| false);
    node.settled().await.unwrap();
    assert_eq!((node.our_flows().await, node.groups().await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_for_a_part_that_is_as_it_was() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.ready();
    node.settled().await.unwrap();
    let before = node.program.status().bundles;
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.remove(&service("shop/s2"));
    node.settled().await.unwrap();
    assert_eq!(node.program.status().bundles, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_of_the_controller_changes_only_what_is_not_wanted_any_more() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    for n in 1..=3 {
        node.program.set(service(&format!("shop/s{n}")), service_part(n, 2));
    }
    node.program.ready();
    node.settled().await.unwrap();
    node.operator(&["table=18,priority=7,ip actions=drop", "table=0 actions=resubmit(,18)"]).await;
    for n in [1, 1, 1, 2, 3] {
        node.send_to(n).await;
    }
    let (before, groups) = (node.flows().await, node.groups().await);
    assert_eq!(groups.len(), 3);
    assert!(before.iter().filter(|f| f.cookie == COOKIE).all(|f| f.generation == 1), "{before:?}");

    let mut node = node.again();
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.flows().await.len(), 5, "nothing is deleted before the lists are complete");
    for n in 1..=2 {
        node.program.set(service(&format!("shop/s{n}")), service_part(n, 2));
    }
    node.program.ready();
    node.settled().await.unwrap();
    let after = node.flows().await;
    assert_eq!(node.groups().await, groups[..2]);
    assert_eq!(after.len(), 4);
    for flow in after {
        let before = before.iter().find(|f| (f.table, &f.r#match) == (flow.table, &flow.r#match)).unwrap();
        assert_eq!(flow.packets, before.packets, "{flow:?}");
        assert_ne!((flow.cookie, flow.packets), (COOKIE, 0), "each had packets");
        assert_eq!(flow.generation, if flow.cookie == COOKIE { 2 } else { 0 }, "{flow:?}");
    }
    let status = node.program.status();
    assert_eq!((status.changes, status.round), (2, 2), "one flow and one group are deleted: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_comes_again_has_everything_and_that_it_went_is_told() {
    let mut node = Node::new();
    node.program.set(service("shop/s1"), service_part(1, 2));
    node.program.ready();
    assert!(matches!(node.program.settled().await, Err(Unsettled::Behind(_))), "there is no switch yet");
    let daemon = Daemon::start(node.path());
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    node.settled().await.unwrap();
    let before = (node.our_flows().await, node.groups().await);
    drop(daemon);
    assert_eq!(node.event().await, Event::Lost);
    assert!(matches!(node.program.settled().await, Err(Unsettled::Behind(_))));
    assert!(node.switch.status().await.is_err());
    node.program.set(service("shop/s2"), service_part(2, 2));
    let _daemon = Daemon::start(node.path());
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    node.settled().await.unwrap();
    assert_eq!((node.our_flows().await.len(), node.groups().await.len()), (2, 2));
    assert_eq!((&node.our_flows().await[..1], &node.groups().await[..1]), (&*before.0, &*before.1));
}

/// The time is what it takes until something of others would be looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_changes_are_not_compared_with_themselves() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.ready();
    for n in 1..=20 {
        node.program.set(service("shop/s1"), service_part(1, n % 4));
        node.program.set(service("shop/s2"), service_part(2 + n % 2, 2));
        node.settled().await.unwrap();
    }
    assert_eq!(node.program.status().comparisons, 1, "that of the start");
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(node.program.status().comparisons, 1);
    node.operator(&["table=77 actions=drop"]).await;
    node.operator(&["delete table=77"]).await;
    let status = node.until("compared", |s| s.comparisons == 2).await;
    assert_eq!(status.mended, 0, "nothing was ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_deletes_comes_back_and_what_is_theirs_stays() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path());
    for n in 1..=3 {
        node.program.set(service(&format!("shop/s{n}")), service_part(n, 2));
    }
    node.program.ready();
    node.settled().await.unwrap();
    let before = (node.our_flows().await, node.groups().await);
    node.operator(&["table=19,priority=7,ip actions=drop", "delete table=18,tcp,nw_dst=10.96.0.2"]).await;
    assert_eq!(node.our_flows().await.len(), 2);
    node.until("mended", |s| s.mended == 1).await;
    assert_eq!((node.our_flows().await, node.groups().await), before);
    assert_eq!(node.flows().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_made_once_and_replaced_under_its_number_when_it_is_to_be_another() {
    let mut node = Node::new();
    let _daemon = Daemon::start(node.path());
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    let options = |peer: &str| [("peer".to_owned(), peer.to_owned())].into();
    let number = node.switch.ensure_tunnel("br0", "t0", "patch", &options("t1")).await.unwrap();
    assert_eq!(node.switch.ensure_tunnel("br0", "t0", "patch", &options("t1")).await.unwrap(), number);
    let there = node.switch.ports("br0").await.unwrap();
    let other = node.switch.ensure_tunnel("br0", "other", "patch", &options("t9")).await.unwrap();
    assert_eq!(node.switch.ensure_tunnel("br0", "t0", "patch", &options("t2")).await.unwrap(), number);
    let spec = |ports: Vec<sluice_proto::v1::Port>| {
        ports.into_iter().filter_map(|p| p.spec).find(|s| s.name == "t0").map(|s| s.options)
    };
    assert_eq!(spec(there).unwrap()["peer"], "t1");
    assert_eq!(spec(node.switch.ports("br0").await.unwrap()).unwrap()["peer"], "t2");
    assert_ne!(other, number);
    node.switch.remove_tunnel("br0", "t0").await.unwrap();
    node.switch.remove_tunnel("br0", "t0").await.unwrap();
    assert_eq!(spec(node.switch.ports("br0").await.unwrap()), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_reach_the_switch_and_say_what_it_answers() {
    let mut node = Node::new();
    let _daemon = Daemon::start(node.path());
    assert_eq!(node.event().await, Event::Connected { new_switch: true });
    node.switch.name_tables("br0", &[(10, "classify"), (18, "service")]).await.unwrap();
    node.switch.name_tables("br0", &[(10, "classify"), (18, "service")]).await.unwrap();
    let taken = node.switch.name_tables("br0", &[(11, "service")]).await.unwrap_err();
    assert!(taken.to_string().contains("service"), "{taken}");
    assert_eq!(node.switch.flush_connections("zone=65000,udp,reply_nw_src=10.0.0.1").await.unwrap(), 0);
    let learned = format!("table=19,cookie={:#x},tcp,nw_src=10.0.0.1 actions=drop", crate::flow::LEARNED);
    node.operator(&[&learned, "table=19,tcp,nw_src=10.0.0.2 actions=drop"]).await;
    assert_eq!(node.switch.delete_learned("br0", "table=18").await.unwrap(), 0);
    assert_eq!(node.switch.delete_learned("br0", "table=19").await.unwrap(), 1);
    assert_eq!(node.flows().await.len(), 1);
    assert_eq!(node.switch.stats().await.unwrap().dropped_packets, 0);
    assert_eq!(node.switch.connection_stats("").await.unwrap().connections, 0);
    assert_eq!(node.switch.attachments("sluice").await.unwrap(), []);
    assert_eq!(node.switch.confirm(vec![]).await.unwrap_or_default(), 0);
}
