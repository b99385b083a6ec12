//! The switch goes and comes back; containers stay.

use crate::node::{BRIDGE, Container, Kind, Node, Running, attempt, network};
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::{AttachRequest, Attachment, DeletePortRequest, DumpFlowsRequest, NetworkSpec};
use sluice_tests::switch::wait_until;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

/// The flows of stations, sorted, without counters.
fn flows(running: &Running) -> Vec<String> {
    running.call(async |channel| {
        let request = DumpFlowsRequest { bridge: BRIDGE.to_owned(), ..DumpFlowsRequest::default() };
        let mut stream = FlowServiceClient::new(channel).dump_flows(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            let ours = part.flows.into_iter().filter(|flow| flow.owner.starts_with("container:"));
            all.extend(ours.map(|f| format!("{} {} {} {} {}", f.table, f.priority, f.r#match, f.actions, f.owner)));
        }
        all.sort();
        all
    })
}

fn attached(node: &Node, running: &Running, kind: Kind) -> [Container; 3] {
    let containers = [1, 2, 3].map(|n| node.container(n, kind));
    containers.iter().for_each(|container| _ = running.attach(&container.spec).unwrap());
    containers
}

fn leave(running: Running, is_crash: bool) {
    if is_crash { running.crash() } else { _ = running.end() }
}

#[test]
fn traffic_resumes_by_itself_when_the_switch_was_ended_or_killed() {
    let Some(node) = Node::new("traffic_resumes_by_itself") else { return };
    for kind in [Kind::Veth, Kind::Tap] {
        let mut running = node.start("");
        let [a, b, c] = attached(&node, &running, kind);
        // Numbers are not given anew from the lowest one.
        assert!(running.detach(a.key()));
        b.reaches(&c);
        let (before, guards) = (running.list(), flows(&running));
        let states = [&b, &c].map(Container::state);
        assert!(!guards.is_empty());
        for is_crash in [false, true] {
            running = thread::scope(|scope| {
                let addresses = c.addresses().into_iter();
                let pings = addresses.map(|address| {
                    let netns = b.netns.clone();
                    scope.spawn(move || attempt(&netns, &format!("ping -n -i 0.1 -c 80 -W 1 {address}")).1)
                });
                let pings: Vec<_> = pings.collect();
                leave(running, is_crash);
                let running = node.start("");
                for ping in pings {
                    let output = ping.join().unwrap();
                    // The last ones may be late on a machine that has much to do.
                    let has_resumed = (60..=80).any(|seq| output.contains(&format!("icmp_seq={seq} ttl")));
                    assert!(has_resumed, "{kind:?} {is_crash} {output}\n{}", running.log());
                }
                running
            });
            assert_eq!(running.list(), taken_up(&before), "{kind:?} {is_crash}");
            assert_eq!(flows(&running), guards);
            assert_eq!([&b, &c].map(Container::state), states);
        }
        for container in [b, c] {
            assert!(running.detach(container.key()));
        }
        assert!(!node.state().exists());
    }
}

#[test]
fn records_whose_device_went_meanwhile_are_dropped() {
    for kind in [Kind::Veth, Kind::Tap] {
        let Some(node) = Node::new("records_whose_device_went") else { return };
        let running = node.start("");
        let [a, b, c] = attached(&node, &running, kind);
        leave(running, true);
        // One's interface is gone, another's is one of the same name but not the same.
        match kind {
            Kind::Veth => {
                node.netns.remove_link("sl1").unwrap();
                node.netns.remove_link("sl2").unwrap();
                node.netns.add_veth("sl2", &b.netns, "eth0").unwrap();
            }
            Kind::Tap => {
                a.netns.remove_link("eth0").unwrap();
                drop(b);
            }
        }
        let running = node.start("");
        let ids: Vec<_> = running.list().into_iter().map(|a| a.spec.unwrap().container_id).collect();
        assert_eq!(ids, std::slice::from_ref(&c.spec.container_id), "{}", running.log());
        assert_eq!(node.records().len(), 2);
        leave(running, false);
        match kind {
            Kind::Veth => node.netns.remove_link("sl3").unwrap(),
            Kind::Tap => c.netns.remove_link("eth0").unwrap(),
        }
        let running = node.start("");
        assert_eq!((running.list().len(), running.networks().len(), node.state().exists()), (0, 0, false));
    }
}

#[test]
fn a_damaged_record_is_set_aside_and_the_others_are_taken_up() {
    let Some(node) = Node::new("a_damaged_record_is_set_aside") else { return };
    let running = node.start("");
    let [a, b, c] = attached(&node, &running, Kind::Veth);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = |container: &Container| {
        let key = container.key();
        node.state().join(format!("{}@{}@{}.json", key.network, key.container_id, key.ifname))
    };
    assert_eq!((mode(&node.state()), mode(&file(&a))), (0o700, 0o600));
    leave(running, true);
    let text = fs::read_to_string(file(&a)).unwrap();
    fs::write(file(&a), &text[..text.len() / 2]).unwrap();
    fs::write(node.state().join("other.json"), text.replace("\"version\": 1", "\"version\": 99")).unwrap();
    fs::write(node.state().join(".new-half"), "{").unwrap();
    let running = node.start("");
    b.reaches(&c);
    let records = node.records();
    assert_eq!(records.iter().filter(|name| name.ends_with(".bad")).count(), 2, "{records:?}");
    assert_eq!(records.len(), 5, "{records:?}");
    assert!(running.log().contains("a record was set aside"), "{}", running.log());
    // It may be attached again.
    running.attach(&a.spec).unwrap();
    a.reaches(&c);
}

#[test]
fn what_cannot_be_taken_up_is_told_and_tried_again() {
    let Some(node) = Node::new("what_cannot_be_taken_up") else { return };
    let running = node.start("[bridges.sw0]\n");
    let plain = NetworkSpec { make_bridge: false, ..network() };
    let [a, b] = [1, 2].map(|n| node.container(n, Kind::Veth));
    for container in [&a, &b] {
        let request = AttachRequest { network: Some(plain.clone()), attachment: Some(container.spec.clone()) };
        running.attach_as(request).unwrap();
    }
    leave(running, false);
    // The bridge is another's matter, and is not there any more.
    let running = node.start("");
    let list = running.list();
    assert_eq!(list.len(), 2);
    assert!(list[0].fault.contains("bridge sw0 is not there"), "{list:?}");
    assert_eq!((list[0].number, list[0].link_up), (0, false));
    assert_eq!(running.ready(network()).limits.len(), 2);
    let problems = running.check(&a.spec);
    assert!(problems[0].contains("is not in force"), "{problems:?}");
    node.write("[bridges.sw0]\n");
    running.reload();
    wait_until("it is in force", || running.list().iter().all(|attachment| attachment.fault.is_empty()));
    a.reaches(&b);
}

/// The same, of a switch that has made their ports anew.
fn taken_up(before: &[Attachment]) -> Vec<Attachment> {
    before.iter().map(|one| Attachment { taken_up: true, ..one.clone() }).collect()
}

#[test]
fn attachments_outlive_a_reload_and_what_others_do_to_their_ports_is_mended_by_it() {
    let Some(node) = Node::new("attachments_outlive_a_reload") else { return };
    let running = node.start("");
    let [a, b, c] = attached(&node, &running, Kind::Veth);
    a.reaches(&b);
    let (before, guards) = (running.list(), flows(&running));
    // The bridge becomes the configuration's, its flows change, and it is no longer the configuration's.
    for text in [
        "[bridges.sw0]\n",
        "[bridges.sw0]\nflows = [\"priority=10 actions=NORMAL\"]\n",
        "[bridges.sw0]\nlocal_port = false\n",
        "[bridges.sw1]\n",
        "",
    ] {
        node.write(text);
        let said = running.reload();
        assert!(said.contains("failures=0"), "{text:?} {said}");
        assert_eq!(running.list(), taken_up(&before), "{text:?}");
        assert_eq!(flows(&running), guards, "{text:?}");
        a.reaches(&c);
    }
    running.call(async |channel| {
        let request = DeletePortRequest { bridge: BRIDGE.to_owned(), name: "sl1".to_owned() };
        PortServiceClient::new(channel).delete_port(request).await.unwrap();
    });
    assert_eq!(running.list()[0].number, 0);
    let problems = running.check(&a.spec);
    assert!(problems[0].contains("port sl1 of bridge sw0 is gone"), "{problems:?}");
    running.reload();
    assert_eq!(running.list(), taken_up(&before));
    a.reaches(&c);
}
