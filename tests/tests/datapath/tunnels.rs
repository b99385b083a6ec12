//! Packets that arrive by a tunnel and that leave by one: what flows see of it, and what the port is told.

use crate::connections::{add, udp};
use sluice_flows::packet::Frame;
use sluice_flows::tunnel::{Byte, Part, Tunnel, TunnelKey, TunnelKind};
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;

/// A switch with ordinary ports 1 to 3 and a tunnel port 4 whose ends and key flows decide.
fn switch(caches: bool, flows: &[&str]) -> Switch {
    let mut switch = Switch::start(Config { caches, ..Config::default() });
    switch.bridge("br0", 3, FailMode::Secure);
    let tunnel = Tunnel {
        kind: TunnelKind::Vxlan,
        layer3: false,
        remote: Part::Flow,
        local: Part::Flow,
        out_key: Part::Flow,
        tos: Byte::Inherit,
        ttl: Byte::Fixed(64),
    };
    switch.tunnel_port(4, tunnel);
    add(&switch, flows);
    switch
}

fn key(id: u64) -> TunnelKey {
    let mut key = TunnelKey::NONE;
    key.set_id(id);
    key.set_src("192.0.2.2".parse().unwrap());
    key.set_dst("192.0.2.1".parse().unwrap());
    key
}

/// Puts a packet in by the tunnel, and says where it came out.
fn arrive(switch: &mut Switch, id: u64) -> Vec<u16> {
    let mut frame = Frame::from_bytes(&udp(1, 2, (1000, 53)));
    frame.tunnel = Some(key(id));
    switch.send_frame(4, frame);
    switch.wait();
    (1..=4).flat_map(|no| switch.take(no).into_iter().map(move |_| no)).collect()
}

#[test]
fn flows_match_the_tunnel_of_each_packet_of_a_burst() {
    let flows = [
        "priority=9,tun_id=7,tun_src=192.0.2.2,actions=output:1",
        "priority=9,tun_id=8,actions=output:2",
        "priority=1,in_port=3,tun_dst=0.0.0.0,actions=output:1",
    ];
    for caches in [true, false] {
        let mut switch = switch(caches, &flows);
        for _ in 0..3 {
            for (id, ports) in [(7, vec![1]), (8, vec![2]), (9, vec![])] {
                assert_eq!(arrive(&mut switch, id), ports, "key {id}");
            }
            assert_eq!(switch.send_and_see(3, &udp(1, 2, (1, 2))), [1], "a frame without a tunnel in the same place");
        }
        switch.check_accounts();
    }
}

#[test]
fn a_later_pass_sees_the_tunnel_of_its_own_packet() {
    let flows = [
        "table=0,ip,ct_state=-trk,actions=ct(table=1)",
        "table=1,tun_id=7,actions=output:1",
        "table=1,tun_id=8,actions=output:2",
        "table=1,tun_id=0,actions=output:3",
    ];
    for caches in [true, false] {
        let mut switch = switch(caches, &flows);
        for _ in 0..3 {
            assert_eq!(arrive(&mut switch, 7), [1]);
            assert_eq!(arrive(&mut switch, 8), [2]);
            assert_eq!(switch.send_and_see(1, &udp(1, 2, (1000, 53))), [3]);
        }
    }
}

#[test]
fn what_flows_wrote_before_connection_tracking_holds_behind_it() {
    let flows = [
        "table=0,udp,ct_state=-trk,actions=set_field:192.0.2.9->tun_dst,move:NXM_OF_UDP_DST[]->NXM_NX_TUN_ID[0..15],ct(commit,table=1)",
        "table=1,tun_dst=192.0.2.9,actions=output:4",
    ];
    for caches in [true, false] {
        let mut switch = switch(caches, &flows);
        for port in [53, 54, 53, 54, 53, 54] {
            switch.send(1, &udp(1, 2, (1000, port)));
            switch.wait();
            let [frame] = &switch.take(4)[..] else { panic!("one frame") };
            let tunnel = frame.tunnel.unwrap();
            assert_eq!((tunnel.id(), tunnel.dst()), (port.into(), "192.0.2.9".parse().ok()));
        }
        assert_eq!(arrive(&mut switch, 5), [0; 0], "not out by the port that it came in by");
    }
}

#[test]
fn each_copy_leaves_with_its_own_tunnel() {
    let flows = [
        "actions=set_field:192.0.2.7->tun_dst,set_field:7->tun_id,output:4,set_field:8->tun_id,output:4,output:2,set_field:7->tun_id,output:4",
    ];
    for caches in [true, false] {
        let mut switch = switch(caches, &flows);
        for _ in 0..3 {
            switch.send(1, &udp(1, 2, (1000, 53)));
        }
        switch.wait();
        let ids: Vec<_> = switch.take(4).iter().map(|frame| frame.tunnel.unwrap().id()).collect();
        assert_eq!(ids, [7, 8, 7].repeat(3));
        assert_eq!(switch.take(2).len(), 3);
    }
}
