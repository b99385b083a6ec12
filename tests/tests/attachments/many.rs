//! Many attachments, and many at once.

use crate::node::{Kind, NETWORK, Node, network};
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::attachment_spec::Device;
use sluice_proto::v1::{AttachRequest, AttachmentSpec, VethDevice};
use sluice_tests::netns::Netns;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// An attachment of a veth pair whose far end has no container of its own.
fn plug(node: &Node, far: &Netns, n: usize) -> AttachmentSpec {
    let port = format!("sl{n}");
    let end = format!("e{n}");
    node.netns.add_veth(&port, far, &end).unwrap();
    far.set_up(&end, true).unwrap();
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    AttachmentSpec {
        network: NETWORK.to_owned(),
        container_id: format!("c{n:063}"),
        ifname: "eth0".to_owned(),
        device: Some(Device::Veth(VethDevice { interface: port.clone() })),
        port,
        mac: format!("02:77:00:00:{high:02x}:{low:02x}"),
        addresses: vec![format!("10.77.{high}.{low}/16"), format!("fd77::{n:x}/64")],
        ..AttachmentSpec::default()
    }
}

#[test]
fn a_hundred_attached_at_once_are_all_in_force_and_a_hundred_detached_at_once_leave_nothing() {
    let Some(node) = Node::new("a_hundred_attached_at_once") else { return };
    let running = node.start("");
    let far = Netns::without_ipv6().unwrap();
    let specs: Vec<_> = (10..110).map(|n| plug(&node, &far, n)).collect();
    let [a, b] = [1, 2].map(|n| node.container(n, Kind::Veth));
    thread::scope(|scope| {
        for spec in specs.iter().chain([&a.spec, &b.spec]) {
            let running = &running;
            scope.spawn(move || running.attach(spec).unwrap());
        }
    });
    let list = running.list();
    let numbers: BTreeSet<_> = list.iter().map(|attachment| attachment.number).collect();
    assert_eq!((list.len(), numbers.len()), (102, 102));
    assert!(list.iter().all(|attachment| attachment.fault.is_empty()));
    a.reaches(&b);
    thread::scope(|scope| {
        for attachment in &list {
            let (running, spec) = (&running, attachment.spec.clone().unwrap());
            scope.spawn(move || {
                assert!(running.detach(sluice_proto::v1::AttachmentKey {
                    network: spec.network,
                    container_id: spec.container_id,
                    ifname: spec.ifname,
                }));
            });
        }
    });
    assert!(running.list().is_empty() && running.networks().is_empty() && !node.state().exists());
}

/// Prints how long attaching, checking, readiness and a restart take with 0, 100 and 1,000 attachments. For people:
/// `cargo test --release -p sluice-tests --test attachments -- --ignored --nocapture figures`.
#[test]
#[ignore = "measures, and asserts nothing of time"]
fn figures_of_a_thousand_attachments() {
    let Some(node) = Node::new("figures_of_a_thousand_attachments") else { return };
    let mut running = node.start("");
    let far = Netns::without_ipv6().unwrap();
    let specs: Vec<_> = (1..=1020).map(|n| plug(&node, &far, n)).collect();
    let mut next = 0;
    for there in [0, 100, 1000] {
        running.call(async |channel| {
            let mut client = AttachmentServiceClient::new(channel);
            let mut attach = async |spec: &AttachmentSpec| {
                let request = AttachRequest { network: Some(network()), attachment: Some(spec.clone()) };
                let start = Instant::now();
                client.attach(request).await.unwrap();
                start.elapsed()
            };
            while next < there {
                attach(&specs[next]).await;
                next += 1;
            }
            let mut times = Vec::new();
            for spec in &specs[next..next + 20] {
                times.push(attach(spec).await);
            }
            next += 20;
            report(&format!("attach at {there}"), times);
        });
        let times = |work: &dyn Fn()| (0..20).map(|_| timed(work)).collect();
        report(&format!("ready at {there}"), times(&|| assert!(running.ready(network()).problems.is_empty())));
        report(&format!("check at {there}"), times(&|| assert!(running.check(&specs[0]).len() < 2)));
    }
    running.crash();
    let start = Instant::now();
    running = node.start("");
    println!("start with {}: {:?}", running.list().len(), start.elapsed());
}

fn timed(work: &dyn Fn()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what}: median {:?}, most {:?}", times[times.len() / 2], times[times.len() - 1]);
}
