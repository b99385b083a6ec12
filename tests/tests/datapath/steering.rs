//! Workers that hand on flows of a port with one queue: every frame comes out once, in its flow's order, as if one worker had
//! done all.

use crate::out;
use sluice_flows::PortNo;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::Frame;
use sluice_flows::packet::compose::compose;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{Names, parse_flow_mod};
use sluice_flows::{Match, Owner};
use sluice_switch::port::{MemOptions, MemPort, Recording};
use sluice_switch::replay::{BRIDGE, Replay};
use sluice_switch::{Config, FailMode, PortDevice, PortRequest, Steering};
use sluice_tests::switch::{Switch, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const FLOWS: u32 = 50;
/// Long enough for a dozen moves each way.
const TIME: Duration = Duration::from_millis(300);

fn restless(workers: usize) -> Config {
    Config { workers, steering: Steering::Restless, ..Config::default() }
}

/// Number `number` of a flow's datagrams, IPv4 or IPv6.
fn datagram(flow: u32, number: u32) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    let v6 = flow.is_multiple_of(3);
    let words = [
        (slot::ETH_DST, 2),
        (slot::ETH_SRC, 4),
        (slot::ETH_TYPE, if v6 { 0x86dd } else { 0x0800 }),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (if v6 { slot::IPV6_SRC } else { slot::IP_SRC }, 0x0a00_0001),
        (if v6 { slot::IPV6_DST } else { slot::IP_DST }, 0x0a00_0100),
        (slot::TP_SRC, 1000 + u128::from(flow)),
        (slot::TP_DST, 53),
    ];
    words.into_iter().for_each(|(slot, value)| key.set(slot, value));
    compose(&key, &[flow.to_be_bytes(), number.to_be_bytes()].concat())
}

/// The flow and the number of a datagram.
fn read(frame: &Frame) -> (u32, u32) {
    let tail = frame.bytes().last_chunk::<8>().unwrap();
    let word = |at: usize| u32::from_be_bytes(tail[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

#[test]
fn flows_keep_their_order_whichever_worker_does_them_and_no_frame_is_lost() {
    for workers in [2, 3] {
        let mut switch = Switch::start(restless(workers));
        switch.bridge("br0", 2, FailMode::Secure);
        switch.add_flows([FlowSpec::new(Match::any(), [out(2)], Owner::user())]);
        let [near, far] = [1, 2].map(|no| switch.end(no).clone());
        let (mut numbers, mut expected) = ([0; FLOWS as usize], [0; FLOWS as usize]);
        let (began, mut sent, mut came) = (Instant::now(), 0_u64, 0);
        let mut check = |came: &mut u64| {
            while let Some(frame) = far.take() {
                let (flow, number) = read(&frame);
                let expected = &mut expected[flow as usize];
                assert_eq!(number, *expected, "flow {flow} of {workers} workers");
                *expected += 1;
                *came += 1;
                far.recycle(frame);
            }
        };
        while began.elapsed() < TIME {
            let flow = (sent.wrapping_mul(0x9e37_79b9) >> 7) as u32 % FLOWS;
            // Not more than the ring at the other end holds.
            if sent - came < 4000 && near.inject(&datagram(flow, numbers[flow as usize])) {
                numbers[flow as usize] += 1;
                sent += 1;
            }
            check(&mut came);
        }
        wait_until("all came", || {
            check(&mut came);
            came == sent
        });
        (0..sent).for_each(|_| switch.expect_one_more());
        switch.wait();
        switch.check_accounts();
        let stats = switch.datapath.worker_stats();
        assert!(stats.iter().all(|of| of.received > 0), "{stats:?}");
        let (handed_on, taken_over): (u64, u64) =
            stats.iter().fold((0, 0), |(on, over), of| (on + of.handed_on, over + of.taken_over));
        assert!(handed_on == taken_over && stats[0].handed_on == handed_on && stats[0].taken_over == 0, "{stats:?}");
    }
}

/// What came out of ports 2 and 3, sorted, after `frames` went in by port 1.
fn outcome(config: Config, frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
    let mut switch = Switch::start(config);
    switch.bridge("br0", 3, FailMode::Secure);
    let flows = [
        "priority=9,udp,tp_src=0x3e8/0x7 actions=drop",
        "priority=8,udp,tp_src=0x3e9/0x7 actions=push_vlan:0x8100,set_field:4103->vlan_vid,output:2,output:3",
        "priority=7,udp,tp_src=0x3ea/0x7 actions=ct(commit,zone=2,nat(src=10.9.9.9),table=1)",
        "priority=7,udp6,tp_src=0x3ea/0x7 actions=ct(commit,zone=2,table=1)",
        "priority=1 actions=NORMAL",
        "table=1 actions=dec_ttl,output:2",
    ];
    let flows = flows.map(|flow| parse_flow_mod(flow, Names::NONE).unwrap().value);
    switch.datapath.apply_bundle("br0", &flows).unwrap();
    for (n, frame) in frames.iter().enumerate() {
        switch.send(1, frame);
        if n % 500 == 499 {
            switch.wait();
            // The table moves on.
            thread::sleep(Duration::from_millis(5));
        }
    }
    switch.wait();
    switch.check_accounts();
    [2, 3].map(|no| {
        let mut all: Vec<_> = switch.take(no).iter().map(|frame| frame.bytes().to_vec()).collect();
        all.sort();
        all
    })
}

#[test]
fn what_comes_of_frames_does_not_depend_on_who_does_them() {
    let frames: Vec<_> = (0..5000).map(|n| datagram(n * 7 % 400, n)).collect();
    let one = outcome(Config::default(), &frames);
    assert!(one.iter().all(|frames| frames.len() > 500));
    for workers in [2, 4] {
        assert!(outcome(restless(workers), &frames) == one, "{workers} workers");
    }
}

#[test]
fn a_port_goes_while_its_frames_are_handed_on_and_nothing_is_left_of_it() {
    let mut switch = Switch::start(restless(2));
    switch.bridge("br0", 1, FailMode::Secure);
    // The new port's frames are dropped by a rule, or for want of one, and remembered by port.
    switch.add_flows([FlowSpec::new(Match::any(), [out(1)], Owner::user())]);
    let sink = switch.end(1).clone();
    for round in 0..40_u32 {
        let (port, end) = MemPort::new("extra", &MemOptions::default()).unwrap();
        let device = PortDevice::Device(Box::new(port));
        let request = PortRequest { number: Some(PortNo(9)), ..PortRequest::new("extra", device) };
        switch.datapath.add_port("br0", request).unwrap();
        let stop = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    sent += u64::from(end.inject(&datagram(sent as u32 % FLOWS, 0)));
                    while sink.take().is_some() {}
                }
                sent
            });
            thread::sleep(Duration::from_millis(u64::from(round % 4 * 4)));
            switch.datapath.remove_port("br0", "extra").unwrap();
            stop.store(true, Ordering::Relaxed);
            traffic.join().unwrap()
        });
        // What nobody has received is gone with the port.
        let received = sent - end.pending() as u64;
        (0..received).for_each(|_| switch.expect_one_more());
        let ports = switch.datapath.model();
        assert!(switch.datapath.drops().iter().all(|of| ports.port(of.ingress).is_some()), "a port left drops behind");
    }
    switch.wait();
    let stats = switch.datapath.worker_stats();
    assert!(stats[0].handed_on > 0 && stats[0].handed_on == stats[1].taken_over, "{stats:?}");
    assert!(stats.iter().all(|of| of.received == of.forwarded + of.dropped_total()), "{stats:?}");
}

#[test]
fn a_saturated_worker_hands_flows_on_to_one_that_has_time_and_is_given_nothing_when_traffic_ends() {
    let replay = Replay::start_with(Config { workers: 2, ..Config::default() }).unwrap();
    let datapath = replay.datapath();
    datapath.apply_bundle(BRIDGE, &[FlowMod::add(FlowSpec::new(Match::any(), [out(2)], Owner::user()))]).unwrap();
    replay.begin_on_one_queue(Recording::from_frames((0..FLOWS).map(|flow| datagram(flow, 0)))).unwrap();
    wait_until("the other worker does some", || datapath.worker_stats()[1].taken_over > 1000);
    datapath.remove_port(BRIDGE, "in").unwrap();
    let stats = datapath.worker_stats();
    assert_eq!(stats[0].handed_on, stats[1].taken_over);
    assert!(stats.iter().all(|of| of.received == of.forwarded + of.dropped_total()), "{stats:?}");
    wait_until("both sleep", || {
        let rounds = || datapath.worker_stats().iter().map(|of| of.rounds).sum::<u64>();
        let before = rounds();
        thread::sleep(Duration::from_millis(300));
        rounds() - before < 20
    });
}
