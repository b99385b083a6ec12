//! Outputs, rewrites between them, and what failed outputs come to.

use crate::{FRAME, NOWHERE, bytes, flow, out, secure, set_dst, with_dst};
use sluice_flows::action::{Action, ControllerAction};
use sluice_flows::field::Field;
use sluice_flows::packet::Frame;
use sluice_flows::{DropReason, Owner, PortNo};
use sluice_switch::port::PortKind;
use sluice_switch::{Config, FailMode, PortChange, PortDevice, PortRequest};
use sluice_tests::switch::{Switch, take_all};

#[test]
fn a_rewrite_behind_an_output_does_not_touch_what_was_output() {
    let mut switch = secure(5);
    switch.add_flows([flow([
        out(2),
        set_dst(7),
        out(3),
        Action::PushVlan(0x8100),
        out(4),
        set_dst(9),
        out(5),
        out(2),
    ])]);
    switch.send(1, &FRAME);
    switch.send(1, &FRAME);
    switch.wait();
    let tagged = |dst| {
        let mut frame = with_dst(dst);
        frame.splice(12..12, [0x81, 0, 0, 0]);
        frame
    };
    assert_eq!(bytes(switch.take(2)), [with_dst(2), tagged(9), with_dst(2), tagged(9)]);
    assert_eq!(bytes(switch.take(3)), [with_dst(7), with_dst(7)]);
    assert_eq!(bytes(switch.take(4)), [tagged(7), tagged(7)]);
    assert_eq!(bytes(switch.take(5)), [tagged(9), tagged(9)]);
    switch.check_accounts();
}

#[test]
fn more_copies_than_there_are_frames_for_come_out_right_and_in_order() {
    let mut switch = secure(2);
    let actions: Vec<_> = (0..200).flat_map(|i| [set_dst(i), out(2)]).collect();
    switch.add_flows([flow(actions)]);
    for _ in 0..3 {
        switch.send(1, &FRAME);
    }
    switch.wait();
    let expected: Vec<_> = (0..3).flat_map(|_| (0..200).map(with_dst)).collect();
    assert_eq!(bytes(switch.take(2)), expected);
    assert_eq!(switch.totals().forwarded, 3);
}

#[test]
fn a_frame_that_no_port_took_is_dropped_for_the_reason_of_the_first() {
    let mut switch = secure(3);
    switch.add_flows([flow([out(2), out(3)])]);
    for (no, mtu) in [(2, 100), (3, 1500)] {
        let change = PortChange { mtu: Some(mtu), ..PortChange::default() };
        switch.datapath.set_port("br0", &format!("br0-{no}"), &change).unwrap();
    }
    switch.send(1, &[0x02; 800]);
    switch.wait();
    assert_eq!(switch.take(3).len(), 1);
    assert_eq!((switch.totals().forwarded, switch.dropped(DropReason::MtuExceeded)), (1, 0));
    switch.send(1, &[0x02; 1800]);
    switch.wait();
    assert_eq!((switch.totals().forwarded, switch.dropped(DropReason::MtuExceeded)), (1, 1));
    let ports = switch.datapath.ports(Some("br0")).unwrap();
    let stats: Vec<_> =
        ports.iter().map(|p| (p.stats.rx_packets, p.stats.rx_dropped, p.stats.tx_packets, p.stats.tx_errors)).collect();
    assert_eq!(stats, [(2, 1, 0, 0), (0, 0, 0, 2), (0, 0, 1, 1)]);
    switch.check_accounts();
    let drops = switch.datapath.drops();
    assert_eq!((drops.len(), drops[0].reason, drops[0].packets), (1, DropReason::MtuExceeded, 1));
}

#[test]
fn a_full_queue_drops_what_does_not_fit() {
    let mut switch = secure(2);
    switch.add_flows([flow([out(2)])]);
    for _ in 0..9000 {
        while !switch.end(1).inject(&FRAME) {
            std::thread::yield_now();
        }
        switch.expect_one_more();
    }
    switch.wait();
    assert_eq!(switch.take(2).len(), 8192);
    assert_eq!(switch.dropped(DropReason::QueueFull), 9000 - 8192);
    switch.check_accounts();
}

#[test]
fn drops_are_told_apart_by_reason_port_and_rule() {
    let mut switch = secure(2);
    let mut denied = flow([]);
    denied.matches.set_field(Field::EthDst, 2);
    denied.owner = Owner::new("np:shop/deny#1");
    denied.drop_reason = Some(DropReason::PolicyDeny);
    switch.add_flows([denied]);
    for _ in 0..3 {
        switch.send_and_see(1, &FRAME);
    }
    switch.send_and_see(2, &FRAME);
    switch.send_and_see(1, &with_dst(8));
    switch.send_and_see(1, &FRAME[..10]);
    switch.check_accounts();
    let drops = switch.datapath.drops();
    let owner = |g: &sluice_switch::stats::DropGroup| g.rule.as_ref().map(|r| r.spec.owner.to_string());
    let seen: Vec<_> = drops.iter().map(|g| (g.reason, g.ingress.0, g.packets, owner(g))).collect();
    let np = Some("np:shop/deny#1".to_owned());
    assert_eq!(seen[0], (DropReason::PolicyDeny, 0, 3, np.clone()));
    assert!(seen.contains(&(DropReason::PolicyDeny, 1, 1, np)));
    assert!(seen.contains(&(DropReason::NoRule, 0, 1, None)));
    assert!(seen.contains(&(DropReason::ParseError, 0, 1, None)));
    assert_eq!(seen.len(), 4);
    let example = drops[0].example.unwrap();
    assert_eq!(example.get(Field::EthDst.slot()), 2);
}

#[test]
fn a_patch_crosses_bridges_and_both_its_ends_count() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 1, FailMode::Standalone);
    switch.bridge("br1", 1, FailMode::Standalone);
    let patch = |switch: &Switch, bridge: &str, name: &str, peer: &str| {
        let device = PortDevice::Patch { peer: peer.to_owned() };
        switch.datapath.add_port(bridge, PortRequest::new(name, device)).unwrap();
    };
    patch(&switch, "br0", "to1", "to0");
    switch.send_and_see(1, &FRAME);
    assert_eq!(switch.dropped(DropReason::PortDown), 1, "one end alone is down");
    patch(&switch, "br1", "to0", "to1");
    switch.send(1, &FRAME);
    switch.wait();
    let far = &switch.ends[&("br1".to_owned(), 1)];
    assert_eq!(bytes(take_all(far)), [FRAME.to_vec()]);
    switch.sync();
    let ports = switch.datapath.ports(None).unwrap();
    let patches: Vec<_> = ports.iter().filter(|p| p.kind == PortKind::Patch).collect();
    assert!(patches.iter().all(|p| p.port.up && p.link_up));
    assert_eq!((patches[0].stats.tx_packets, patches[0].stats.tx_bytes), (1, 60));
    assert_eq!((patches[1].stats.rx_packets, patches[1].stats.rx_bytes), (1, 60));
    switch.check_accounts();
}

#[test]
fn the_controller_gets_what_it_asked_for_and_no_more_than_its_rate() {
    let mut switch =
        Switch::start(Config { packet_in_rate: 20, clock: sluice_switch::Clock::manual(), ..Config::default() });
    switch.bridge("br0", 2, FailMode::Secure);
    let controller = ControllerAction { max_len: 20, controller_id: 3, extended: true, ..Default::default() };
    let controller = Action::Controller(Box::new(controller));
    switch.add_flows([flow([controller])]);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    assert_eq!(switch.dropped(DropReason::Overload), 1, "nobody listens");
    let packet_ins = switch.datapath.packet_ins(10);
    for _ in 0..30 {
        switch.send(1, &FRAME);
    }
    switch.wait();
    let got: Vec<_> = packet_ins.try_iter().collect();
    assert_eq!(got.len(), 10, "the queue's depth");
    assert_eq!((got[0].frame.len(), got[0].frame_len, got[0].about.in_port), (20, 60, PortNo(1)));
    assert_eq!(got[0].about.controller_id, 3);
    assert_eq!(switch.totals().forwarded, 10);
    assert_eq!(switch.dropped(DropReason::Overload), 21);
    switch.check_accounts();
}

#[test]
fn a_packet_out_is_sent_as_its_actions_say() {
    let mut switch = secure(3);
    switch.add_flows([flow([out(2)])]);
    switch.datapath.packet_out("br0", PortNo::NONE, Frame::from_bytes(&FRAME), [set_dst(9), out(3)]).unwrap();
    switch.expect_one_more();
    switch.wait();
    assert_eq!(bytes(switch.take(3)), [with_dst(9)]);
    switch.datapath.packet_out("br0", PortNo(1), Frame::from_bytes(&FRAME), [Action::Output(PortNo::TABLE)]).unwrap();
    switch.expect_one_more();
    switch.wait();
    assert_eq!(bytes(switch.take(2)), [FRAME.to_vec()]);
    switch.datapath.packet_out("br0", PortNo(1), Frame::from_bytes(&FRAME[..9]), [out(2)]).unwrap();
    switch.expect_one_more();
    switch.wait();
    assert_eq!(switch.dropped(DropReason::ParseError), 1);
    switch.check_accounts();
}
