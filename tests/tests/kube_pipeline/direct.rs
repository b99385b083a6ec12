//! Packets to Pods, nodes and the outside: no Service is asked for.

use crate::packet::{Packet, Proto};
use crate::rig::{LOCAL, Mode, Net, Talk};
use sluice_flows::DropReason;
use std::net::SocketAddr;

const PROTOCOLS: [Proto; 4] = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Ping];

/// The answerer's port; a ping has none.
fn port(proto: Proto, port: u16) -> u16 {
    if proto == Proto::Ping { 0 } else { port }
}

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

#[test]
fn pods_of_a_node_reach_each_other_with_their_own_addresses() {
    everywhere(|net, _, proto| {
        let client: SocketAddr = (net.pod((0, 10)), 40_000).into();
        let server = (net.pod((0, 11)), port(proto, 80)).into();
        let talk = net.talk(proto, (0, 10), client, server);
        assert_eq!(talk, Talk { at: (0, 11), client, server, tunnelled: false });
    });
}

#[test]
fn pods_of_other_nodes_are_reached_by_the_tunnel_or_by_the_host() {
    everywhere(|net, mode, proto| {
        let client: SocketAddr = (net.pod((0, 10)), 40_000).into();
        let server = (net.pod((1, 11)), port(proto, 80)).into();
        let talk = net.talk(proto, (0, 10), client, server);
        match mode {
            Mode::Encap => assert_eq!(talk, Talk { at: (1, 11), client, server, tunnelled: true }),
            Mode::Routed => {
                assert_eq!(talk, Talk { at: (0, LOCAL), client, server, tunnelled: false });
                // There it comes by the host, and goes back to it.
                let there = net.talk(proto, (1, LOCAL), client, server);
                assert_eq!(there, Talk { at: (1, 11), client, server, tunnelled: false });
            }
        }
    });
}

#[test]
fn a_pod_reaches_the_addresses_of_its_node_with_its_own() {
    everywhere(|net, _, proto| {
        for server in [net.gateway(0), net.address(0)] {
            let client: SocketAddr = (net.pod((0, 10)), 40_000).into();
            let server = (server, port(proto, 10_250)).into();
            let talk = net.talk(proto, (0, 10), client, server);
            assert_eq!(talk, Talk { at: (0, LOCAL), client, server, tunnelled: false });
        }
    });
}

#[test]
fn a_pod_reaches_another_nodes_gateway_by_the_tunnel() {
    for v6 in [false, true] {
        for proto in PROTOCOLS {
            let mut net = Net::new(Mode::Encap, v6);
            let client: SocketAddr = (net.pod((0, 10)), 40_000).into();
            let server = (net.gateway(1), port(proto, 10_250)).into();
            let talk = net.talk(proto, (0, 10), client, server);
            assert_eq!(talk, Talk { at: (1, LOCAL), client, server, tunnelled: true });
        }
    }
}

#[test]
fn the_outside_sees_the_link_unless_it_is_excepted_or_nothing_is_masqueraded() {
    everywhere(|net, mode, proto| {
        let client: SocketAddr = (net.pod((0, 10)), 40_000).into();
        for server in [net.outsider(), net.address(1)] {
            let server = (server, port(proto, 53)).into();
            let talk = net.talk(proto, (0, 10), client, server);
            assert_eq!((talk.at, talk.server), ((0, LOCAL), server));
            assert_eq!(talk.client.ip(), net.link(0));
        }
        let excepted = crate::rig::pick(net.v6, "192.0.2.9", "2001:db8:192::9");
        let server = (excepted, port(proto, 53)).into();
        let talk = net.talk(proto, (0, 10), client, server);
        assert_eq!(talk, Talk { at: (0, LOCAL), client, server, tunnelled: false });
        let mut plain = Net::with(mode, net.v6, Default::default(), |node| node.masquerade = false);
        let server = (net.outsider(), port(proto, 53)).into();
        let talk = plain.talk(proto, (0, 10), client, server);
        assert_eq!(talk, Talk { at: (0, LOCAL), client, server, tunnelled: false });
    });
}

#[test]
fn two_pods_with_the_same_port_are_told_apart_outside() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let server = (net.outsider(), 53).into();
        let seen = [10, 11].map(|pod| {
            let client = (net.pod((0, pod)), 40_000).into();
            net.talk(Proto::Udp, (0, pod), client, server).client
        });
        assert_ne!(seen[0], seen[1]);
    }
}

#[test]
fn the_host_reaches_pods_of_its_node_and_the_outside_reaches_them_through_it() {
    everywhere(|net, _, proto| {
        let server = (net.pod((0, 11)), port(proto, 80)).into();
        for client in [net.gateway(0), net.address(0), net.outsider()] {
            let client: SocketAddr = (client, 40_000).into();
            let talk = net.talk(proto, (0, LOCAL), client, server);
            assert_eq!(talk, Talk { at: (0, 11), client, server, tunnelled: false });
        }
    });
}

#[test]
fn the_host_reaches_pods_of_other_nodes_with_an_address_that_they_know() {
    for v6 in [false, true] {
        for proto in PROTOCOLS {
            let mut net = Net::new(Mode::Encap, v6);
            let server = (net.pod((1, 11)), port(proto, 80)).into();
            let mut seen = Vec::new();
            // Only its own node knows the last one.
            for client in [net.address(0), net.gateway(0), crate::rig::pick(v6, "172.17.0.1", "fd00:17::1")] {
                let talk = net.talk(proto, (0, LOCAL), (client, 40_000).into(), server);
                assert_eq!((talk.at, talk.server, talk.tunnelled), ((1, 11), server, true));
                seen.push(talk.client);
            }
            assert_eq!(seen[..2], [(net.address(0), 40_000).into(), (net.gateway(0), 40_000).into()]);
            assert_eq!(seen[2].ip(), net.gateway(0));
            assert_ne!(seen[2].port(), 40_000, "two connections are not alike");
            // Others are routed, and seen as they are; their answers find another way.
            let stranger: SocketAddr = (net.outsider(), 40_000).into();
            let (at, packet, _) = net.one((0, LOCAL), &Packet::new(proto, 0, stranger, server));
            assert_eq!((at, packet.src), ((1, 11), stranger));
        }
    }
}

#[test]
fn what_nobody_has_and_what_leads_back_ends_here() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let packet = |src, dst| Packet::new(Proto::Udp, 0, (src, 40_000).into(), (dst, 9).into());
        let nobody = net.pod((0, 200));
        let (pod, gateway, outsider) = (net.pod((0, 10)), net.gateway(0), net.outsider());
        net.dropped((0, 10), &packet(pod, nobody), DropReason::NoRoute);
        let (link, gateway_there) = (net.link(0), net.gateway(1));
        net.dropped((0, 10), &packet(pod, link), DropReason::NoRoute);
        net.dropped((1, 100), &packet(pod, outsider), DropReason::NoRoute);
        net.dropped((1, 100), &packet(pod, net_pod_of_sender(v6)), DropReason::NoRoute);
        // Somebody else's address, and a frame that no guard let pass.
        net.dropped((0, 10), &packet(gateway_there, outsider), DropReason::SpoofGuard);
        let many = crate::rig::pick(v6, "224.0.0.251", "ff02::fb");
        net.dropped((0, 10), &packet(pod, many), DropReason::RuleDrop);
        net.dropped((0, LOCAL), &packet(gateway, many), DropReason::RuleDrop);
        // The host would get it again and again.
        net.answered_with_an_error((0, LOCAL), &packet(gateway, outsider), DropReason::NoRoute);
    }
}

/// A Pod of the node that has sent by the tunnel.
fn net_pod_of_sender(v6: bool) -> std::net::IpAddr {
    crate::rig::pick(v6, "10.244.1.11", "fd00:10:244:1::b")
}

#[test]
fn invalid_packets_end_as_such() {
    for v6 in [false, true] {
        let mut net = Net::new(Mode::Encap, v6);
        let (pod, server) = ((net.pod((0, 10)), 40_000).into(), (net.pod((0, 11)), 80).into());
        // A cookie of an association that nobody began.
        net.dropped((0, 10), &Packet::new(Proto::Sctp, 2, pod, server), DropReason::CtInvalid);
    }
}
