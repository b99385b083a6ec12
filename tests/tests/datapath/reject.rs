//! Senders of rejected packets are told, by the port that the packet came in by, and about the packet as it arrived.

use crate::connections::{add, udp};
use crate::fragments::{cut, udp as datagram};
use sluice_flows::packet::Frame;
use sluice_flows::tunnel::{Byte, Part, Tunnel, TunnelKey, TunnelKind};
use sluice_flows::{DropReason, Owner};
use sluice_switch::{Clock, Config, FailMode};
use sluice_tests::switch::Switch;
use std::net::Ipv4Addr;

fn switch(config: Config, flows: &[&str]) -> Switch {
    let mut switch = Switch::start(config);
    switch.bridge("br0", 3, FailMode::Secure);
    add(&switch, flows);
    switch
}

/// Puts a frame in by port 1 and returns what comes back by it; nothing may leave elsewhere.
fn told(switch: &mut Switch, frame: &[u8]) -> Vec<Vec<u8>> {
    switch.send(1, frame);
    switch.wait();
    assert_eq!(switch.take(2).len() + switch.take(3).len(), 0);
    crate::bytes(switch.take(1))
}

/// Source and destination of an error about IPv4, and the packet that it quotes.
fn error(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr, &[u8]) {
    assert_eq!((frame[23], &frame[34..36]), (1, &[3, 3][..]), "port unreachable");
    let address = |at: usize| Ipv4Addr::from_octets(*frame[at..].first_chunk().unwrap());
    (address(26), address(30), &frame[42..])
}

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

#[test]
fn a_rejected_packet_is_answered_and_counted_once_with_caches_and_without() {
    for caches in [true, false] {
        let mut switch = switch(Config { caches, ..Config::default() }, &[]);
        let rule = sluice_flows::text::parse_flow("udp,actions=reject,output:2", sluice_flows::text::Names::NONE);
        let mut rule = rule.unwrap().value;
        (rule.drop_reason, rule.owner) = (Some(DropReason::ServiceNoEndpoint), Owner::user());
        switch.add_flows([rule]);
        for port in 0..5 {
            let frame = udp(1, 9, (1000 + port, 53));
            let answers = told(&mut switch, &frame);
            assert_eq!(answers.len(), 1);
            assert_eq!(error(&answers[0]), (SERVICE, US, &frame[14..]));
        }
        switch.sync();
        assert_eq!(switch.dropped(DropReason::ServiceNoEndpoint), 5);
        switch.check_accounts();
    }
}

#[test]
fn what_is_sent_before_a_reject_is_sent_and_what_changes_before_is_not_seen_by_the_answer() {
    let flows = ["actions=mod_nw_dst:10.0.0.77,mod_dl_src:00:00:00:00:00:99,output:2,push_vlan:0x8100,reject"];
    let mut switch = switch(Config::default(), &flows);
    let frame = udp(1, 9, (1000, 53));
    switch.send(1, &frame);
    switch.wait();
    assert_eq!(switch.take(2).len(), 1);
    let answers = crate::bytes(switch.take(1));
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][..14], [0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 2, 8, 0]);
    assert_eq!(error(&answers[0]), (SERVICE, US, &frame[14..]));
    switch.check_accounts();
}

#[test]
fn a_packet_that_is_rejected_behind_address_translation_is_answered_from_the_address_that_was_asked() {
    let flows = [
        "table=0,ip,actions=ct(commit,zone=1,nat(dst=10.0.0.5:8080),table=1)",
        "table=1,ip,ct_state=+trk,nw_dst=10.0.0.5,actions=ct(commit,zone=2,nat(src=10.0.0.200),table=2)",
        "table=2,ip,ct_state=+trk,nw_src=10.0.0.200,tp_dst=8080,actions=reject",
    ];
    for caches in [true, false] {
        let mut switch = switch(Config { caches, ..Config::default() }, &flows);
        let frame = udp(1, 9, (1000, 53));
        // The first one makes the connections, later ones find them; with caches the last ones take no passes.
        for _ in 0..6 {
            let answers = told(&mut switch, &frame);
            assert_eq!(answers.len(), 1);
            assert_eq!(error(&answers[0]), (SERVICE, US, &frame[14..]));
        }
        switch.sync();
        assert_eq!(switch.dropped(DropReason::RuleDrop), 6);
        switch.check_accounts();
    }
}

#[test]
fn fragments_are_answered_once_for_all_of_their_datagram() {
    let flows = ["ip,ct_state=-trk,actions=ct(table=1)", "table=1,ip,actions=reject"];
    let mut switch = switch(Config::default(), &flows);
    let pieces = cut(&datagram(false, 1, false, 2000), 1, &[1400]);
    assert_eq!(told(&mut switch, &pieces[1]).len(), 0, "it waits for the other");
    let answers = told(&mut switch, &pieces[0]);
    assert_eq!(answers.len(), 1);
    assert_eq!(error(&answers[0]), (Ipv4Addr::new(10, 0, 0, 2), US, &pieces[0][14..14 + 548]));
    switch.sync();
    assert_eq!(switch.dropped(DropReason::RuleDrop), 2);
    switch.check_accounts();
}

#[test]
fn what_came_by_a_tunnel_is_answered_through_it() {
    let mut switch = switch(Config::default(), &["actions=reject"]);
    let (remote, local, out_key) = (Part::Flow, Part::Flow, Part::Flow);
    let (kind, tos, ttl) = (TunnelKind::Vxlan, Byte::Inherit, Byte::Fixed(64));
    switch.tunnel_port(4, Tunnel { kind, layer3: false, remote, local, out_key, tos, ttl });
    let (mut came, mut back) = (TunnelKey::NONE, TunnelKey::NONE);
    let (far, near) = ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
    for (key, src, dst) in [(&mut came, far, near), (&mut back, near, far)] {
        key.set_id(7);
        key.set_src(src);
        key.set_dst(dst);
    }
    let mut frame = Frame::from_bytes(&udp(1, 9, (1000, 53)));
    frame.tunnel = Some(came);
    switch.send_frame(4, frame);
    switch.wait();
    let answers = switch.take(4);
    assert_eq!(answers.iter().map(|answer| answer.tunnel).collect::<Vec<_>>(), [Some(back)]);
}

#[test]
fn answers_are_limited_and_come_back_with_time() {
    let clock = Clock::manual();
    let mut switch = switch(Config { clock: clock.clone(), ..Config::default() }, &["actions=reject"]);
    let mut ask = |count: u16| -> usize { (0..count).map(|n| told(&mut switch, &udp(1, 9, (n, 53))).len()).sum() };
    assert_eq!(ask(1_200), 1_000);
    clock.advance(100);
    assert_eq!(ask(200), 100);
}
