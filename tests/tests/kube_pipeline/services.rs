//! Packets to Services: whoever asks gets an endpoint and sees the Service's address; who is told nothing, and who an error.

use crate::packet::{Packet, Proto};
use crate::rig::{LOCAL, Mode, Net, Place, Talk};
use sluice_controller::facts::{Scope, Service};
use sluice_flows::DropReason;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

const PROTOCOLS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];
const POD: Place = (0, 10);
const HOST: Place = (0, LOCAL);

/// Calls with every protocol, family and mode.
fn everywhere(mut test: impl FnMut(&mut Net, Mode, Proto)) {
    for mode in [Mode::Encap, Mode::Routed] {
        for v6 in [false, true] {
            for proto in PROTOCOLS {
                test(&mut Net::new(mode, v6), mode, proto);
            }
        }
    }
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    (address, port).into()
}

/// Puts a Service with one endpoint.
fn put(net: &mut Net, proto: Proto, outside: Scope, end: SocketAddr) {
    let service = net.service(proto, outside, &[end]);
    net.put(&service);
}

#[test]
fn a_pod_reaches_a_service_with_an_endpoint_anywhere() {
    everywhere(|net, mode, proto| {
        for (frontend, first) in [(net.cluster_ip(10), 40_000), (net.balanced(), 40_100)] {
            let (client, server) = (at(net.pod(POD), first), at(frontend, 80));
            for (port, end) in [(1, (0, 11)), (2, (1, 11))] {
                let client = at(client.ip(), client.port() + port);
                let end = at(net.pod(end), 8080);
                put(net, proto, Scope::Cluster, end);
                let talk = net.talk(proto, POD, client, server);
                let place = match (mode, port) {
                    (_, 1) => (0, 11),
                    (Mode::Encap, _) => (1, 11),
                    (Mode::Routed, _) => HOST,
                };
                let tunnelled = place.0 == 1;
                assert_eq!(talk, Talk { at: place, client, server: end, tunnelled });
            }
            // Endpoints in the host network: of this node with its own address, of others as whatever is outside.
            let end = at(net.address(0), 6443);
            put(net, proto, Scope::Cluster, end);
            let client = at(client.ip(), client.port() + 3);
            assert_eq!(net.talk(proto, POD, client, server), Talk { at: HOST, client, server: end, tunnelled: false });
            let end = at(net.address(1), 6443);
            put(net, proto, Scope::Cluster, end);
            let talk = net.talk(proto, POD, at(client.ip(), client.port() + 4), server);
            assert_eq!((talk.at, talk.server, talk.client.ip()), (HOST, end, net.link(0)));
        }
    });
}

#[test]
fn a_port_that_a_client_uses_for_two_services_with_one_endpoint_is_told_apart() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let client = at(net.pod(POD), 40_000);
        let end = at(net.pod((1, 11)), 8080);
        put(&mut net, Proto::Tcp, Scope::Cluster, end);
        let servers = [net.cluster_ip(10), net.balanced()].map(|address| at(address, 80));
        let seen = servers.map(|server| net.talk(Proto::Tcp, POD, client, server));
        assert_eq!(seen.map(|talk| talk.server), [end; 2]);
        assert_eq!(seen[0].client, client);
        assert_ne!(seen[0].client, seen[1].client, "the second gets another port on the way");
    }
}

#[test]
fn a_pod_reaches_itself_by_a_service_and_sees_the_link() {
    everywhere(|net, _, proto| {
        let (client, end) = (at(net.pod(POD), 40_000), at(net.pod(POD), 8080));
        put(net, proto, Scope::Cluster, end);
        let talk = net.talk(proto, POD, client, at(net.cluster_ip(10), 80));
        assert_eq!((talk.at, talk.server, talk.client.ip()), (POD, end, net.link(0)));
    });
}

#[test]
fn the_host_reaches_a_service_with_an_endpoint_anywhere() {
    everywhere(|net, mode, proto| {
        let mut port = 40_000;
        for client in [net.gateway(0), net.address(0)] {
            let frontends = [at(net.cluster_ip(10), 80), at(net.balanced(), 80), at(net.incoming(0), 30_080)];
            for server in frontends {
                for (place, end) in [((0, 11), net.pod((0, 11))), ((1, 11), net.pod((1, 11)))] {
                    port += 1;
                    let end = at(end, 8080);
                    put(net, proto, Scope::Local, end);
                    let talk = net.talk(proto, HOST, at(client, port), server);
                    let (place, source) = match (mode, place.0) {
                        (_, 0) => (place, client),
                        (Mode::Encap, _) => (place, net.gateway(0)),
                        (Mode::Routed, _) => (HOST, net.link(0)),
                    };
                    assert_eq!((talk.at, talk.server, talk.client.ip()), (place, end, source));
                }
                for end in [net.address(0), net.address(1)] {
                    port += 1;
                    let end = at(end, 6443);
                    put(net, proto, Scope::Cluster, end);
                    let talk = net.talk(proto, HOST, at(client, port), server);
                    assert_eq!((talk.at, talk.server, talk.client.ip()), (HOST, end, net.link(0)));
                }
            }
        }
    });
}

#[test]
fn the_outside_reaches_node_ports_and_balanced_addresses_with_endpoints_anywhere() {
    everywhere(|net, mode, proto| {
        let outsider = net.outsider();
        let mut port = 40_000;
        for server in [at(net.incoming(0), 30_080), at(net.balanced(), 80)] {
            for (n, end) in [(0, net.pod((0, 11))), (1, net.pod((1, 11))), (2, net.address(0)), (3, net.address(1))] {
                port += 1;
                let end = at(end, 8080);
                put(net, proto, Scope::Cluster, end);
                let client = at(outsider, port);
                let talk = net.talk(proto, HOST, client, server);
                // Who is on this node sees who asks; everybody else answers this node.
                let (place, source) = match (n, mode) {
                    (0, _) => ((0, 11), outsider),
                    (1, Mode::Encap) => ((1, 11), net.gateway(0)),
                    _ => (HOST, net.link(0)),
                };
                assert_eq!((talk.at, talk.server, talk.client.ip()), (place, end, source));
            }
        }
    });
}

#[test]
fn with_the_local_policy_the_outside_gets_local_endpoints_and_the_inside_all() {
    everywhere(|net, _, proto| {
        let servers = [at(net.incoming(0), 30_080), at(net.balanced(), 80)];
        let (local, remote) = (at(net.pod((0, 11)), 8080), at(net.pod((1, 11)), 8080));
        let service = net.service(proto, Scope::Local, &[local, remote]);
        net.put(&service);
        for (first, server) in [40_000, 50_000].into_iter().zip(servers) {
            for port in 0..20 {
                let client = at(net.outsider(), first + port);
                let (place, packet, _) = net.one(HOST, &Packet::new(proto, 0, client, server));
                assert_eq!((place, packet.src, packet.dst), ((0, 11), client, local));
            }
            let inside: BTreeSet<SocketAddr> = (0..40)
                .map(|port| net.one(HOST, &Packet::new(proto, 0, at(net.gateway(0), first + port), server)).1.dst)
                .collect();
            assert_eq!(inside, BTreeSet::from([local, remote]));
        }
        put(net, proto, Scope::Local, remote);
        for (port, server) in [42_000, 43_000].into_iter().zip(servers) {
            let client = at(net.outsider(), port);
            net.dropped(HOST, &Packet::new(proto, 0, client, server), DropReason::ServiceNoEndpoint);
            let there = at(if server.ip() == net.incoming(0) { net.incoming(1) } else { server.ip() }, server.port());
            let talk = net.talk(proto, (1, LOCAL), client, there);
            assert_eq!(talk, Talk { at: (1, 11), client, server: remote, tunnelled: false });
        }
    });
}

#[test]
fn a_pod_reaches_its_own_nodes_ports_by_the_host_itself_included() {
    everywhere(|net, mode, proto| {
        let (asked, incoming) = (at(net.address(0), 30_080), at(net.incoming(0), 30_080));
        for (n, end) in [net.pod((0, 11)), net.pod(POD), net.pod((1, 11))].into_iter().enumerate() {
            let client = at(net.pod(POD), 40_000 + n as u16);
            let end = at(end, 8080);
            put(net, proto, Scope::Local, end);
            // To the host, which sends it back for the incoming address, and the answer likewise.
            let (there, packet, _) = net.one(POD, &Packet::new(proto, 0, client, asked));
            assert_eq!((there, packet.src, packet.dst), (HOST, client, asked));
            let talk = net.talk(proto, HOST, client, incoming);
            let (place, source) = match (n, mode) {
                (0, _) => ((0, 11), client.ip()),
                (1, _) => (POD, net.link(0)),
                (_, Mode::Encap) => ((1, 11), net.gateway(0)),
                (_, Mode::Routed) => (HOST, net.link(0)),
            };
            assert_eq!((talk.at, talk.server, talk.client.ip()), (place, end, source));
            let (back, packet, _) = net.one(HOST, &Packet::new(proto, 1, asked, client));
            assert_eq!((back, packet.src, packet.dst), (POD, asked, client));
        }
    });
}

#[test]
fn sources_that_a_balanced_service_does_not_name_are_dropped() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let end = at(net.pod((0, 11)), 8080);
        let mut service = net.service(Proto::Tcp, Scope::Cluster, &[end]);
        let sources = &mut service.ports[0].frontends[2].sources;
        *sources = vec![if v6 { "2001:db8:51::/48" } else { "198.51.100.0/24" }.parse().unwrap()];
        net.put(&service);
        let server = at(net.balanced(), 80);
        let client = at(net.outsider(), 40_000);
        assert_eq!(net.talk(Proto::Tcp, HOST, client, server).at, (0, 11));
        let other = at(crate::rig::pick(v6, "192.0.2.77", "2001:db8:99::1"), 40_000);
        net.dropped(HOST, &Packet::new(Proto::Tcp, 0, other, server), DropReason::RuleDrop);
        // They hold for all: Pods, and the host.
        let pod = at(net.pod(POD), 40_000);
        net.dropped(POD, &Packet::new(Proto::Tcp, 0, pod, server), DropReason::RuleDrop);
        let host = at(net.gateway(0), 40_000);
        net.dropped(HOST, &Packet::new(Proto::Tcp, 0, host, server), DropReason::RuleDrop);
    }
}

#[test]
fn without_endpoints_and_at_ports_of_nobody_clients_are_told() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        for proto in PROTOCOLS {
            let service = net.service(proto, Scope::Cluster, &[]);
            net.put(&service);
            let own = [at(net.cluster_ip(10), 80), at(net.incoming(0), 30_080)];
            let nobodys = [at(net.cluster_ip(10), 81), at(net.cluster_ip(11), 80), at(net.incoming(0), 9)];
            for server in own.into_iter().chain(nobodys) {
                let clients = [(HOST, net.gateway(0)), (HOST, net.outsider()), (POD, net.pod(POD))];
                for (place, client) in clients {
                    let packet = Packet::new(proto, 0, at(client, 40_000), server);
                    net.answered_with_an_error(place, &packet, DropReason::ServiceNoEndpoint);
                }
            }
            // Nobody answers pings there, and the host's route does not send them round.
            let ping = Packet::new(Proto::Ping, 0, at(net.gateway(0), 7), at(net.cluster_ip(10), 0));
            net.answered_with_an_error(HOST, &ping, DropReason::ServiceNoEndpoint);
        }
    }
}

#[test]
fn host_ports_lead_to_their_pod() {
    everywhere(|net, _, proto| {
        let (incoming, server) = (at(net.incoming(0), 40_080), at(net.pod((0, 11)), 80));
        let protocol = net.service(proto, Scope::Cluster, &[]).ports[0].protocol;
        let pod = sluice_controller::facts::Pod {
            owner: "pod:default/more".into(),
            port: 12,
            mac: 0x0a00_0000_0012,
            addresses: Vec::new(),
            host_ports: vec![sluice_controller::facts::HostPort {
                protocol,
                incoming: (incoming.ip(), incoming.port()),
                to: (server.ip(), server.port()),
            }],
        };
        let part = sluice_controller::pipeline::pod(&net.nodes[0].facts, &pod);
        net.nodes[0].apply("more", &part);
        for client in [net.outsider(), net.address(0)] {
            let client = at(client, 40_000);
            let talk = net.talk(proto, HOST, client, incoming);
            assert_eq!(talk, Talk { at: (0, 11), client, server, tunnelled: false });
        }
    });
}

/// Which endpoint each of many clients gets, by its port.
fn choices(net: &mut Net, proto: Proto, ports: std::ops::Range<u16>) -> Vec<SocketAddr> {
    let (client, server) = (net.pod(POD), at(net.cluster_ip(10), 80));
    ports.map(|port| net.one(POD, &Packet::new(proto, 0, at(client, port), server)).1.dst).collect()
}

#[test]
fn connections_of_one_client_spread_and_an_endpoint_that_goes_moves_only_its_own() {
    for v6 in [false, true] {
        for proto in PROTOCOLS {
            let mut net = Net::new(Mode::Encap, v6);
            // Others of the node: their packets come out at the tunnel or nowhere, so the Pods get several ports.
            let ends: Vec<SocketAddr> = (0..10).map(|n| at(net.pod((usize::from(n % 2 == 0), 11)), 8000 + n)).collect();
            let all = net.service(proto, Scope::Cluster, &ends);
            net.put(&all);
            let before = choices(&mut net, proto, 1000..1200);
            let used: BTreeSet<_> = before.iter().copied().collect();
            assert_eq!(used.len(), 10, "all are used");
            let gone = ends[3];
            let rest: Vec<SocketAddr> = ends.iter().copied().filter(|end| *end != gone).collect();
            net.put(&net.service(proto, Scope::Cluster, &rest));
            // The same clients again, as if they had never asked.
            for node in &net.nodes {
                node.switch.datapath.flush_connections(&Default::default());
            }
            let after = choices(&mut net, proto, 1000..1200);
            for (before, after) in before.iter().zip(&after) {
                assert!(before == after || *before == gone, "{before} became {after}");
            }
            assert!(!after.contains(&gone));
        }
    }
}

#[test]
fn connections_outlive_changes_of_their_service() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let (client, server) = (at(net.pod(POD), 40_000), at(net.cluster_ip(10), 80));
        let (there, here) = (at(net.pod((1, 11)), 8080), at(net.pod((0, 11)), 8080));
        put(&mut net, Proto::Tcp, Scope::Cluster, there);
        let talk = net.talk(Proto::Tcp, POD, client, server);
        put(&mut net, Proto::Tcp, Scope::Cluster, here);
        net.go_on(Proto::Tcp, POD, client, server, &talk);
        net.remove("default/web");
        net.go_on(Proto::Tcp, POD, client, server, &talk);
        let late = Packet::new(Proto::Tcp, 0, at(client.ip(), 40_001), server);
        net.answered_with_an_error(POD, &late, DropReason::ServiceNoEndpoint);
    }
}

/// The Service with affinity.
fn sticky(net: &Net, ends: &[SocketAddr]) -> Service {
    Service { affinity_s: Some(600), ..net.service(Proto::Tcp, Scope::Cluster, ends) }
}

#[test]
fn clients_keep_their_endpoint_until_it_goes() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let ends: Vec<SocketAddr> = (0..10).map(|n| at(net.pod((n % 2, 11)), 8000 + n as u16)).collect();
        // With one endpoint at first, so that it is what was learned that keeps the client there, not the choice.
        net.put(&sticky(&net, &ends[4..5]));
        let first = net.talk(Proto::Tcp, POD, at(net.pod(POD), 2000), at(net.cluster_ip(10), 80)).server;
        assert_eq!(first, ends[4]);
        let learned = |net: &Net| -> usize {
            let model = net.nodes[0].switch.datapath.model();
            let cookie = sluice_controller::flow::LEARNED;
            model.bridges.values().flat_map(|bridge| bridge.tables.iter()).filter(|r| r.spec.cookie == cookie).count()
        };
        assert_eq!(learned(&net), 1);
        net.put(&sticky(&net, &ends));
        assert_eq!(BTreeSet::from_iter(choices(&mut net, Proto::Tcp, 2001..2030)), BTreeSet::from([first]));
        let rest: Vec<SocketAddr> = ends.iter().copied().filter(|end| *end != first).collect();
        net.put(&sticky(&net, &rest));
        let second = BTreeSet::from_iter(choices(&mut net, Proto::Tcp, 2030..2060));
        assert_eq!(second.len(), 1);
        assert!(!second.contains(&first));
        net.put(&sticky(&net, &ends));
        assert_eq!(BTreeSet::from_iter(choices(&mut net, Proto::Tcp, 2060..2080)), second, "it stays with the new one");
        assert_eq!(learned(&net), 1, "what was learned is written over");
    }
}

#[test]
fn datagrams_that_nobody_answers_keep_their_endpoint() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let (client, server) = (at(net.pod(POD), 40_000), at(net.cluster_ip(10), 80));
        let (one, other) = (at(net.pod((0, 11)), 8080), at(net.pod((1, 11)), 8080));
        put(&mut net, Proto::Udp, Scope::Cluster, one);
        let packet = Packet::new(Proto::Udp, 0, client, server);
        assert_eq!(net.one(POD, &packet).1.dst, one);
        put(&mut net, Proto::Udp, Scope::Cluster, other);
        assert_eq!(net.one(POD, &packet).1.dst, one);
    }
}
