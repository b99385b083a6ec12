//! Attaching and detaching while the switch runs.

use crate::node::{BRIDGE, Kind, NETWORK, Node, Running, attempt, ip, network, say};
use sluice_proto::v1::attachment_spec::Device;
use sluice_proto::v1::bridge_service_client::BridgeServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::{
    AttachRequest, AttachmentSpec, Bandwidth, ListBridgesRequest, ListPortsRequest, NetworkSpec, PortMapping,
    VethDevice,
};
use sluice_switch::port::link::Link;
use sluice_tests::switch::wait_until;
use std::net::UdpSocket;
use tonic::Code;

fn bridges(running: &Running) -> Vec<String> {
    running.call(async |channel| {
        let reply = BridgeServiceClient::new(channel).list_bridges(ListBridgesRequest {}).await.unwrap();
        reply.into_inner().bridges.into_iter().map(|bridge| bridge.name).collect()
    })
}

#[test]
fn attached_containers_reach_each_other_and_the_last_detached_leaves_nothing() {
    let Some(node) = Node::new("attached_containers_reach_each_other") else { return };
    let running = node.start("");
    let links = say(&node.netns, "ip -o link");
    for kind in [Kind::Veth, Kind::Tap] {
        let [a, b] = [1, 2].map(|n| node.container(n, kind));
        let attached = running.attach(&a.spec).unwrap();
        assert_eq!((attached.bridge.as_str(), attached.number, attached.link_up), (BRIDGE, 1, true));
        assert_eq!(attached.owner, "container:c00000000000");
        assert!(running.attach(&b.spec).unwrap().fault.is_empty());
        a.reaches(&b);
        assert_eq!(running.networks()[0].attachments, 2);
        assert_eq!(running.check(&a.spec), Vec::<String>::new());
        assert_eq!(node.records().len(), 3);
        assert!(running.detach(a.key()));
        assert!(!running.detach(a.key()));
        assert!(running.detach(b.key()));
        assert!(!node.state().exists());
        assert_eq!((bridges(&running).len(), running.networks().len(), running.list().len()), (0, 0, 0));
        if kind == Kind::Veth {
            [a, b].iter().for_each(|container| node.netns.remove_link(&container.spec.port).unwrap());
        }
        assert_eq!(say(&node.netns, "ip -o link"), links);
    }
}

#[test]
fn what_is_anothers_is_refused_with_its_owners_name_and_nothing_is_left_of_the_attempt() {
    let Some(node) = Node::new("what_is_anothers_is_refused") else { return };
    let running = node.start("");
    let [a, b] = [1, 2].map(|n| node.container(n, Kind::Veth));
    let mut first = a.spec.clone();
    first.port_mappings =
        vec![PortMapping { host_port: 8080, container_port: 80, protocol: "tcp".to_owned(), ..PortMapping::default() }];
    let alone = NetworkSpec { gateway: vec!["10.77.0.254/24".to_owned()], ..network() };
    running.attach_as(AttachRequest { network: Some(alone.clone()), attachment: Some(first.clone()) }).unwrap();
    let owner = format!("{NETWORK}/{}/eth0", a.spec.container_id);
    let before = (node.records(), running.networks());
    let spec = || b.spec.clone();
    for (what, spec) in [
        ("address 10.77.0.1", AttachmentSpec { addresses: vec!["10.77.0.1/16".to_owned()], ..spec() }),
        ("port sl1", AttachmentSpec { port: "sl1".to_owned(), ..spec() }),
        ("host port 8080/tcp", AttachmentSpec { port_mappings: first.port_mappings.clone(), ..spec() }),
        ("attached already", AttachmentSpec { container_id: first.container_id.clone(), ..spec() }),
    ] {
        let status =
            running.attach_as(AttachRequest { network: Some(alone.clone()), attachment: Some(spec) }).unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains(what) && status.message().contains(&owner), "{status}");
    }
    // A step that fails undoes those before it, the declared network included.
    let mut spec = b.spec.clone();
    spec.network = "green".to_owned();
    spec.device = Some(Device::Veth(VethDevice { interface: "none".to_owned() }));
    let green = NetworkSpec { name: "green".to_owned(), bridge: "sw1".to_owned(), ..network() };
    let status = running.attach_as(AttachRequest { network: Some(green), attachment: Some(spec) }).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("no interface none"), "{status}");
    assert_eq!((node.records(), running.networks()), before);
    assert_eq!(bridges(&running), [BRIDGE]);
}

/// Frames that the switch has sent by the bridge's own interface.
fn received(running: &Running) -> u64 {
    running.call(async |channel| {
        let request = ListPortsRequest { bridge: BRIDGE.to_owned() };
        let mut stream = PortServiceClient::new(channel).list_ports(request).await.unwrap().into_inner();
        let ports = stream.message().await.unwrap().unwrap().ports;
        let own = ports.iter().find(|port| port.spec.as_ref().unwrap().name == BRIDGE).unwrap();
        own.counters.as_ref().unwrap().tx_packets
    })
}

#[test]
fn the_hosts_stack_never_takes_what_a_container_sends_past_the_switch() {
    let Some(node) = Node::new("the_hosts_stack_never_takes") else { return };
    let running = node.start("");
    let container = node.container(1, Kind::Veth);
    running.attach(&container.spec).unwrap();
    // An address of the host's own, which it would answer for on every interface by itself.
    node.netns.add_address("lo", ip("192.0.2.1"), 32).unwrap();
    let service = node.netns.run(|| UdpSocket::bind(("0.0.0.0", 4040))).unwrap();
    service.set_nonblocking(true).unwrap();
    say(&container.netns, "ip route add 192.0.2.0/24 dev eth0");
    assert!(!attempt(&container.netns, "ping -n -c 1 -W 1 192.0.2.1").0);
    assert!(!say(&container.netns, "ip neigh show 192.0.2.1").contains("lladdr"), "the host answers ARP");
    // Frames to all, and to the host's end itself.
    let end = node.netns.run(|| Link::open("sl1")?.mac()).unwrap().map(|byte| format!("{byte:02x}")).join(":");
    for mac in ["ff:ff:ff:ff:ff:ff", end.as_str()] {
        say(&container.netns, &format!("ip neigh replace 192.0.2.1 lladdr {mac} dev eth0"));
        let before = received(&running);
        let socket = container.netns.run(|| UdpSocket::bind(("10.77.0.1", 0))).unwrap();
        socket.send_to(b"hello", ("192.0.2.1", 4040)).unwrap();
        // Another container has received it by now, or it was dropped on the way, before the host's own is sent.
        wait_until("the frame was forwarded", || received(&running) > before);
        let own = node.netns.run(|| UdpSocket::bind(("127.0.0.1", 0))).unwrap();
        own.send_to(b"own", ("192.0.2.1", 4040)).unwrap();
        let mut buffer = [0; 16];
        wait_until("the host's own datagram is there", || match service.recv(&mut buffer) {
            Ok(len) => {
                assert_eq!(&buffer[..len], b"own", "to {mac}");
                true
            }
            Err(_) => false,
        });
    }
    assert!(service.recv(&mut [0; 16]).is_err());
}

#[test]
fn a_check_says_what_differs_and_where() {
    let Some(node) = Node::new("a_check_says_what_differs") else { return };
    let running = node.start("");
    let container = node.container(1, Kind::Veth);
    let unknown = running.check(&container.spec);
    assert!(unknown[0].contains("knows of no attachment"), "{unknown:?}");
    running.attach(&container.spec).unwrap();
    let check = |what: &str| {
        let problems = running.check(&container.spec);
        assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:?}");
    };
    let mut other = container.spec.clone();
    other.mac = "02:00:00:00:00:99".to_owned();
    let problems = running.check(&other);
    assert!(problems.len() == 1 && problems[0].contains("02:77:00:00:00:01"), "{problems:?}");
    node.netns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/sl1/arp_ignore", "0")).unwrap();
    check("net/ipv4/conf/sl1/arp_ignore is 0, and is to be 8");
    container.netns.set_up("eth0", false).unwrap();
    wait_until("the switch has seen it", || !running.list()[0].link_up);
    check("port sl1 of bridge sw0 is down");
}

#[test]
fn readiness_says_what_is_in_the_way() {
    let Some(node) = Node::new("readiness_says_what_is_in_the_way") else { return };
    let running = node.start("");
    let ready = running.ready(network());
    assert_eq!((ready.problems.len(), ready.mtu_bytes), (0, 1500), "{ready:?}");
    assert!(!node.state().exists());
    let ready = running.ready(NetworkSpec { make_bridge: false, mtu_bytes: 1400, ..network() });
    assert_eq!((ready.problems.len(), ready.mtu_bytes), (1, 1400), "{ready:?}");
    assert!(ready.problems[0].contains("there is no bridge \"sw0\""), "{ready:?}");
    // A file where the directory belongs.
    std::fs::write(node.state(), "").unwrap();
    let ready = running.ready(network());
    assert!(ready.problems[0].contains("switch.state"), "{ready:?}");
    let container = node.container(1, Kind::Veth);
    assert_eq!(running.attach(&container.spec).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!((bridges(&running).len(), running.networks().len(), running.list().len()), (0, 0, 0));
}

#[test]
fn addresses_are_announced_to_who_knew_them_elsewhere() {
    let Some(node) = Node::new("addresses_are_announced") else { return };
    let mut running = node.start("");
    let [a, b] = [1, 2].map(|n| node.container(n, Kind::Veth));
    running.attach(&b.spec).unwrap();
    for is_restart in [false, true] {
        for address in a.addresses() {
            say(&b.netns, &format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 nud stale dev eth0"));
        }
        if is_restart {
            running.crash();
            running = node.start("");
        } else {
            running.attach(&a.spec).unwrap();
        }
        for address in a.addresses() {
            let knows = || say(&b.netns, &format!("ip neigh show {address}")).contains(&a.spec.mac);
            wait_until("the neighbour knows of it", knows);
        }
    }
}

#[test]
fn an_attachment_whose_device_is_gone_makes_room_for_another() {
    let Some(node) = Node::new("an_attachment_whose_device_is_gone") else { return };
    let running = node.start("");
    let a = node.container(1, Kind::Veth);
    running.attach(&a.spec).unwrap();
    // Its plugin could not reach the switch when the container went.
    node.netns.remove_link("sl1").unwrap();
    let b = node.container(1, Kind::Veth);
    let spec = AttachmentSpec { container_id: "another".to_owned(), ..b.spec.clone() };
    running.attach(&spec).unwrap();
    let list = running.list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].spec.as_ref().unwrap().container_id, "another");
    assert_eq!(node.records().len(), 2);
}

#[test]
fn limits_and_host_ports_change_while_frames_flow_and_are_there_after_a_restart() {
    let Some(node) = Node::new("limits_and_host_ports_change") else { return };
    let running = node.start("");
    let [a, b] = [1, 2].map(|n| node.container(n, Kind::Veth));
    [&a, &b].iter().for_each(|container| _ = running.attach(&container.spec).unwrap());
    let bandwidth = Bandwidth { ingress_rate_bps: 8_000_000, egress_rate_bps: 4_000_000, ..Bandwidth::default() };
    running.set(a.key(), bandwidth).unwrap();
    a.reaches(&b);
    let problems = running.check(&a.spec);
    assert!(problems.len() == 1 && problems[0].contains("the bandwidth"), "{problems:?}");
    running.crash();
    let running = node.start("");
    assert_eq!(running.list()[0].spec.as_ref().unwrap().bandwidth, Some(bandwidth));
    let options = running.options("sl1");
    assert_eq!((options["rx_rate"].as_str(), options["tx_rate"].as_str()), ("4M", "8M"), "{options:?}");
    running.set(a.key(), Bandwidth::default()).unwrap();
    assert_eq!(running.list()[0].spec.as_ref().unwrap().bandwidth, None);
    assert_eq!(running.options("sl1").get("rx_rate"), None);
    a.reaches(&b);
}

#[test]
fn isolated_containers_reach_only_those_that_are_not() {
    let Some(node) = Node::new("isolated_containers_reach_only") else { return };
    let running = node.start("");
    let [mut a, mut b, c] = [1, 2, 3].map(|n| node.container(n, Kind::Veth));
    [&mut a, &mut b].into_iter().for_each(|container| container.spec.isolated = true);
    [&a, &b, &c].iter().for_each(|container| _ = running.attach(&container.spec).unwrap());
    a.reaches(&c);
    b.reaches(&c);
    assert!(!attempt(&a.netns, &format!("ping -n -c 2 -i 0.1 -W 1 {}", b.addresses()[0])).0);
}
