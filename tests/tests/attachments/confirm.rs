//! Networks of a controller: attachments that wait for its word, what it is told, and what the host has for it.

use crate::node::{Container, Kind, NETWORK, Node, Running, attempt, network};
use sluice_proto::v1::event::Kind as EventKind;
use sluice_proto::v1::event_service_client::EventServiceClient;
use sluice_proto::v1::{
    AttachRequest, Attachment, IncomingPort, NetworkSpec, PortMapping, ServicePort, WatchEventsRequest,
};
use sluice_tests::switch::wait_until;
use std::sync::mpsc;
use std::thread;
use tonic::{Code, Status};

/// A controller's network.
fn controlled() -> NetworkSpec {
    NetworkSpec {
        gateway: vec!["10.77.0.254/24".to_owned(), "fd77::fe/64".to_owned()],
        keep: true,
        kind: "kubernetes".to_owned(),
        confirm: true,
        ..network()
    }
}

/// Attaches to the network that is declared.
fn attach(running: &Running, container: &Container) -> Result<Attachment, Status> {
    running.attach_as(AttachRequest { network: None, attachment: Some(container.spec.clone()) })
}

fn is_waiting(running: &Running, container: &Container) -> bool {
    let id = &container.spec.container_id;
    running.list().iter().any(|a| a.unconfirmed && a.number > 0 && a.spec.as_ref().unwrap().container_id == *id)
}

fn reaches_the_gateway(container: &Container) -> bool {
    attempt(&container.netns, "ping -n -c 1 -W 1 10.77.0.254").0
}

/// The networks that events tell of, from now on.
fn watch(running: &Running) -> mpsc::Receiver<String> {
    let (told, tells) = mpsc::channel();
    let socket = running.socket().to_owned();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        crate::node::call(&socket, async |channel| {
            let request = WatchEventsRequest::default();
            let mut stream = EventServiceClient::new(channel).watch_events(request).await.unwrap().into_inner();
            ready.send(()).unwrap();
            while let Ok(Some(event)) = stream.message().await {
                if let Some(EventKind::AttachmentsChanged(changed)) = event.kind
                    && told.send(changed.network).is_err()
                {
                    return;
                }
            }
        });
    });
    is_ready.recv().unwrap();
    tells
}

#[test]
fn an_attachment_is_held_until_it_is_confirmed_and_undone_when_nobody_does() {
    let Some(node) = Node::new("an_attachment_is_held_until_it_is_confirmed") else { return };
    let running = node.start("");
    let [a, b, c] = [1, 2, 3].map(|n| node.container(n, Kind::Veth));
    running.put(&controlled()).unwrap();
    thread::scope(|scope| {
        let forgotten = scope.spawn(|| attach(&running, &c));
        let waits = scope.spawn(|| attach(&running, &a));
        let withdrawn = scope.spawn(|| attach(&running, &b));
        for container in [&a, &b, &c] {
            wait_until("an attachment waits", || is_waiting(&running, container));
        }
        assert!(!reaches_the_gateway(&a), "it is held");
        // Nobody who waits is in the way of others.
        let twice = attach(&running, &a).unwrap_err();
        assert_eq!(twice.code(), Code::AlreadyExists, "{twice}");
        assert!(running.check(&a.spec).iter().any(|problem| problem.contains("waits for the node's controller")));
        assert!(running.detach(b.key()));
        let status = withdrawn.join().unwrap().unwrap_err();
        assert!(status.message().contains("detached while it waited"), "{status}");
        // One that is not there is told; the others are confirmed all the same.
        let status = running.confirm(vec![b.key(), a.key()]).unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(!waits.join().unwrap().unwrap().unconfirmed);
        wait_until("the gateway is reached", || reaches_the_gateway(&a));
        assert_eq!(running.confirm(vec![a.key()]).unwrap(), 0, "it does not wait any more");
        assert_eq!(running.check(&a.spec), Vec::<String>::new());
        let status = forgotten.join().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("the node's controller has not confirmed it"), "{status}");
    });
    assert_eq!(running.list().len(), 1, "what nobody confirmed is gone");
    assert_eq!(node.records().len(), 2);
}

#[test]
fn what_is_taken_up_is_held_again_and_a_network_that_asks_for_no_word_lets_go() {
    let Some(node) = Node::new("what_is_taken_up_is_held_again") else { return };
    let running = node.start("");
    let container = node.container(1, Kind::Veth);
    // An attachment of a network that does not ask for it does not wait.
    running.put(&NetworkSpec { confirm: false, ..controlled() }).unwrap();
    let made = attach(&running, &container).unwrap();
    assert!(!made.unconfirmed && !made.taken_up);
    running.put(&controlled()).unwrap();
    assert!(reaches_the_gateway(&container), "what is there stays");
    running.crash();
    let running = node.start("");
    assert!(is_waiting(&running, &container), "{}", running.log());
    assert!(running.list().iter().all(|attachment| attachment.taken_up));
    assert!(!reaches_the_gateway(&container));
    assert_eq!(running.confirm(vec![container.key()]).unwrap(), 1);
    wait_until("the gateway is reached", || reaches_the_gateway(&container));
    running.end();
    let running = node.start("");
    assert!(is_waiting(&running, &container), "{}", running.log());
    running.put(&NetworkSpec { confirm: false, ..controlled() }).unwrap();
    assert!(!is_waiting(&running, &container));
    wait_until("the gateway is reached", || reaches_the_gateway(&container));
}

#[test]
fn a_controller_is_told_of_changes_and_what_it_needs_for_its_flows() {
    let Some(node) = Node::new("a_controller_is_told_of_changes") else { return };
    let running = node.start("");
    let events = watch(&running);
    let mut container = node.container(1, Kind::Veth);
    let mapping = |host_port, host_address: &str| PortMapping {
        host_port,
        container_port: 80,
        protocol: "tcp".to_owned(),
        host_address: host_address.to_owned(),
    };
    container.spec.port_mappings = vec![mapping(8080, "0.0.0.0"), mapping(30_080, "192.0.2.1")];
    let service = ServicePort { protocol: "tcp".to_owned(), port: 30_080, ..ServicePort::default() };
    let spec = NetworkSpec { service_ports: vec![service.clone()], ..controlled() };
    let declared = running.put(&spec).unwrap();
    assert_eq!(declared.spec.as_ref(), Some(&spec));
    assert_eq!(declared.gateway_port, 0xfffe);
    assert_eq!(declared.link, ["169.254.77.2", "fd73:6c75:6963::2"]);
    assert_eq!(declared.incoming, ["169.254.77.3", "fd73:6c75:6963::3"]);
    assert_eq!(declared.gateway_mac.len(), 17);
    assert_eq!(events.recv().unwrap(), NETWORK, "the network came");
    thread::scope(|scope| {
        let waits = scope.spawn(|| attach(&running, &container));
        assert_eq!(events.recv().unwrap(), NETWORK, "an attachment came, and waits");
        wait_until("an attachment waits", || is_waiting(&running, &container));
        let arrives: Vec<_> = running.networks().remove(0).incoming_ports;
        let of_pod = |port: ServicePort, incoming_port| IncomingPort {
            port: Some(port),
            incoming_port,
            attachment: Some(container.key()),
            container_port: 80,
        };
        let own = ServicePort { address: "192.0.2.1".to_owned(), ..service.clone() };
        assert_eq!(
            arrives,
            [
                of_pod(ServicePort { port: 8080, ..service.clone() }, 8080),
                IncomingPort {
                    port: Some(service.clone()),
                    incoming_port: 30_080,
                    attachment: None,
                    container_port: 0
                },
                of_pod(own, 1024),
            ]
        );
        running.confirm(vec![container.key()]).unwrap();
        waits.join().unwrap().unwrap();
    });
    running.set(container.key(), Default::default()).unwrap();
    assert_eq!(events.recv().unwrap(), NETWORK, "an attachment was set");
    running.detach(container.key());
    assert_eq!(events.recv().unwrap(), NETWORK, "an attachment went");
    assert_eq!(events.try_recv().ok(), None);
}
