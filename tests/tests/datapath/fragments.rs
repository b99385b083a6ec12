//! Fragments that meet `ct`: they wait, are tracked as the datagram they are, and go on as they came.

use rand::RngExt;
use rand::seq::SliceRandom;
use sluice_flows::DropReason;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, checksum};
use sluice_flows::text::{Names, parse_flow_mod};
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::{Clock, Config, Datapath, FailMode, PortDevice, PortRequest};
use sluice_tests::generate::seeded;
use sluice_tests::switch::{Switch, take_all, wait_until};

/// What is invalid leaves by port 3. New and established packets go to the other side of 1 and 2; a mark tells them
/// apart.
const FIREWALL: [&str; 7] = [
    "table=0,priority=100,ip,actions=ct(table=1)",
    "table=0,priority=100,ipv6,actions=ct(table=1)",
    "table=1,priority=100,ip,ct_state=+trk+new,in_port=1,actions=ct(commit),output:2",
    "table=1,priority=100,ipv6,ct_state=+trk+new,in_port=1,actions=ct(commit),output:2",
    "table=1,priority=100,ct_state=+trk+est,in_port=1,actions=output:2",
    "table=1,priority=100,ct_state=+trk+est,in_port=2,actions=output:1",
    "table=1,priority=200,ct_state=+trk+inv,actions=output:3",
];

fn add(datapath: &Datapath, flows: &[&str]) {
    let changes: Vec<_> =
        flows.iter().map(|text| BridgeMod::from(parse_flow_mod(text, &Names::new()).unwrap().value)).collect();
    datapath.apply_bundle("br0", &changes).unwrap();
}

fn switch(config: Config, flows: &[&str]) -> Switch {
    let mut switch = Switch::start(config);
    switch.bridge("br0", 3, FailMode::Secure);
    add(&switch.datapath, flows);
    switch
}

/// A UDP packet of connection `number`; `back` is the other direction.
pub(crate) fn udp(v6: bool, number: u16, back: bool, len: usize) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    let (a, b): (u128, u128) = (0x0a00_0001, 0x0a00_0002);
    let (near, far) = ((a, u128::from(number)), (b, 53));
    let ((src, tp_src), (dst, tp_dst)) = if back { (far, near) } else { (near, far) };
    let prefix = 0xfd00 << 112;
    let (ip_src, ip_dst) = if v6 { (slot::IPV6_SRC, slot::IPV6_DST) } else { (slot::IP_SRC, slot::IP_DST) };
    for (slot, value) in [
        (slot::ETH_SRC, 4),
        (slot::ETH_DST, 2),
        (slot::ETH_TYPE, if v6 { 0x86dd } else { 0x0800 }),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (ip_src, if v6 { prefix | src } else { src }),
        (ip_dst, if v6 { prefix | dst } else { dst }),
        (slot::TP_SRC, tp_src),
        (slot::TP_DST, tp_dst),
    ] {
        key.set(slot, value);
    }
    compose(&key, &(0..len).map(|i| (i * 31 + i / 256) as u8).collect::<Vec<_>>())
}

/// Cuts a packet of [`udp`] into fragments with these lengths of its payload; the last takes what is left.
pub(crate) fn cut(packet: &[u8], id: u16, lens: &[usize]) -> Vec<Vec<u8>> {
    let v6 = packet[12] == 0x86;
    let headers = 14 + if v6 { 40 } else { 20 };
    let body = &packet[headers..];
    let mut bounds = vec![0];
    bounds.extend(lens.iter().scan(0, |at, len| {
        *at += len / 8 * 8;
        Some(*at)
    }));
    bounds.retain(|at| *at < body.len());
    bounds.push(body.len());
    bounds.dedup();
    let fragment = |w: &[usize]| {
        let (part, more) = (&body[w[0]..w[1]], w[1] < body.len());
        let mut out = packet[..headers].to_vec();
        if v6 {
            out[18..20].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
            out[20] = 44;
            out.extend([17, 0]);
            out.extend((w[0] as u16 | u16::from(more)).to_be_bytes());
            out.extend(u32::from(id).to_be_bytes());
        } else {
            out[16..18].copy_from_slice(&(part.len() as u16 + 20).to_be_bytes());
            out[18..20].copy_from_slice(&id.to_be_bytes());
            out[20..22].copy_from_slice(&((w[0] / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            out[24..26].fill(0);
            let sum = checksum::checksum(&out[14..34]).to_be_bytes();
            out[24..26].copy_from_slice(&sum);
        }
        out.extend(part);
        out
    };
    bounds.windows(2).map(fragment).collect()
}

fn bytes(frames: Vec<Frame>) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.bytes().to_vec()).collect()
}

#[test]
fn fragments_go_on_as_they_came_once_all_are_there() {
    for v6 in [false, true] {
        let mut switch = switch(Config::default(), &FIREWALL);
        let there = cut(&udp(v6, 1, false, 4000), 1, &[1400, 1400]);
        for number in [2, 0] {
            switch.send(1, &there[number]);
        }
        switch.wait();
        assert_eq!(switch.waiting(), 2);
        switch.check_accounts();
        assert!(switch.take(2).is_empty());
        switch.send(1, &there[1]);
        switch.wait();
        assert_eq!(bytes(switch.take(2)), [&*there[2], &*there[0], &*there[1]], "v6 {v6}");
        let back = cut(&udp(v6, 1, true, 3000), 1, &[1480]);
        for fragment in &back {
            switch.send(2, fragment);
        }
        switch.wait();
        assert_eq!(bytes(switch.take(1)), back, "v6 {v6}: an answer to what was committed");
        let stranger = cut(&udp(v6, 2, true, 3000), 2, &[1480]);
        for fragment in &stranger {
            switch.send(2, fragment);
        }
        switch.wait();
        assert!(switch.take(1).is_empty(), "v6 {v6}: nobody asked");
        assert_eq!((switch.waiting(), switch.dropped(DropReason::NoRule)), (0, 2));
        switch.check_accounts();
    }
}

#[test]
fn a_fragment_that_cannot_wait_goes_on_as_invalid() {
    let mut switch = switch(Config::default(), &FIREWALL);
    let small = cut(&udp(false, 1, false, 2000), 1, &[800]);
    switch.send(1, &small[0]);
    let overlapping = cut(&udp(false, 1, false, 4000), 2, &[1480]);
    switch.send(1, &overlapping[0]);
    switch.send(1, &overlapping[0]);
    switch.wait();
    assert_eq!(bytes(switch.take(3)), [&*small[0], &*overlapping[0]], "too small, and twice");
    assert_eq!(switch.waiting(), 1);
    switch.send(1, &cut(&udp(false, 1, false, 4000), 2, &[1400])[0]);
    switch.wait();
    switch.sync();
    assert_eq!((switch.take(3).len(), switch.waiting(), switch.dropped(DropReason::CtInvalid)), (1, 0, 1));
    switch.check_accounts();
}

#[test]
fn fragments_whose_datagram_never_becomes_whole_are_dropped_and_counted() {
    let clock = Clock::manual();
    let mut switch = switch(Config { clock: clock.clone(), ..Config::default() }, &FIREWALL);
    let fragments = cut(&udp(false, 1, false, 6000), 1, &[1480, 1480]);
    switch.send(1, &fragments[0]);
    switch.send(1, &fragments[1]);
    switch.wait();
    clock.advance(14_999);
    switch.datapath.maintain();
    switch.sync();
    assert_eq!(switch.waiting(), 2);
    clock.advance(1);
    switch.datapath.maintain();
    wait_until("they are dropped", || switch.waiting() == 0);
    assert_eq!(switch.dropped(DropReason::CtInvalid), 2);
    switch.check_accounts();
    let port = switch.datapath.ports(Some("br0")).unwrap().into_iter().find(|p| p.port.no.0 == 1).unwrap();
    assert_eq!((port.stats.rx_packets, port.stats.rx_dropped), (2, 2));
    switch.send(1, &fragments[2]);
    switch.wait();
    assert_eq!((switch.waiting(), switch.take(2).len()), (1, 0), "too late");
}

#[test]
fn fragments_wait_in_every_zone_and_branch_they_come_to() {
    let flows = [
        "table=0,ip,actions=ct(zone=1,table=1),ct(zone=1,table=2)",
        "table=1,ip,ct_state=+new-inv,actions=ct(zone=7,table=3)",
        "table=2,ct_state=+new-inv,actions=output:2",
        "table=3,ct_state=+new-inv,actions=output:3",
    ];
    let mut switch = switch(Config::default(), &flows);
    let fragments = cut(&udp(false, 1, false, 4000), 1, &[1480, 1480]);
    for fragment in &fragments {
        switch.send(1, fragment);
    }
    switch.wait();
    assert_eq!(bytes(switch.take(2)), fragments, "one branch");
    assert_eq!(bytes(switch.take(3)), fragments, "the other, through two zones");
    assert_eq!((switch.waiting(), switch.totals().forwarded), (0, 3));
    switch.check_accounts();
}

#[test]
fn a_fragment_of_which_a_copy_left_already_is_counted_once() {
    let clock = Clock::manual();
    let flows = ["table=0,ip,actions=output:3,ct(table=1)", "table=1,ct_state=-inv,actions=output:2"];
    let mut switch = switch(Config { clock: clock.clone(), ..Config::default() }, &flows);
    let fragments = cut(&udp(false, 1, false, 4000), 1, &[1480, 1480]);
    for fragment in &fragments {
        switch.send(1, fragment);
    }
    switch.send(1, &cut(&udp(false, 1, false, 4000), 2, &[1480])[0]);
    switch.wait();
    assert_eq!((switch.take(3).len(), bytes(switch.take(2))), (4, fragments));
    assert_eq!((switch.totals().forwarded, switch.totals().held), (4, 0));
    clock.advance(15_000);
    switch.datapath.maintain();
    switch.sync();
    switch.check_accounts();
}

#[test]
fn a_rule_that_drops_released_fragments_is_named_for_each() {
    let flows = ["table=0,ip,actions=ct(table=1)", "table=1,priority=77,ct_state=+new,actions=drop"];
    let mut switch = switch(Config::default(), &flows);
    for fragment in cut(&udp(false, 1, false, 4000), 1, &[1480, 1480]) {
        switch.send(1, &fragment);
    }
    switch.wait();
    switch.sync();
    let drops = switch.datapath.drops();
    let named: Vec<_> = drops.iter().map(|d| (d.packets, d.rule.as_ref().map(|rule| rule.spec.priority))).collect();
    assert_eq!(named, [(3, Some(77))]);
    switch.check_accounts();
}

#[test]
fn fragments_are_translated_as_their_datagram_would_be() {
    let flows = [
        "table=0,in_port=1,ip,actions=ct(commit,nat(src=10.9.9.9),table=1)",
        "table=0,in_port=2,ip,actions=ct(nat,table=1)",
        "table=0,in_port=1,ipv6,actions=ct(commit,nat(src=fd99::9),table=1)",
        "table=0,in_port=2,ipv6,actions=ct(nat,table=1)",
        "table=1,ct_state=-inv,in_port=1,actions=output:2",
        "table=1,ct_state=+est,in_port=2,actions=output:1",
    ];
    for v6 in [false, true] {
        let (mut cut_up, mut whole) = (switch(Config::default(), &flows), switch(Config::default(), &flows));
        let there = udp(v6, 1000, false, 4000);
        whole.send(1, &there);
        whole.wait();
        let translated = bytes(whole.take(2)).remove(0);
        let (src, dst) = if v6 { (22..38, 38..54) } else { (26..30, 30..34) };
        assert_ne!(translated[src.clone()], there[src.clone()], "v6 {v6}");
        for fragment in cut(&there, 5, &[1480, 1400]) {
            cut_up.send(1, &fragment);
        }
        cut_up.wait();
        assert_eq!(bytes(cut_up.take(2)), cut(&translated, 5, &[1480, 1400]), "v6 {v6}");
        // The answer, to the address that it was translated to.
        let mut back = udp(v6, 1000, true, 4000);
        let at = if v6 { 54 } else { 34 } + 6;
        let diff = |old: &[u8], new: &[u8]| checksum::add(!checksum::sum(old), checksum::sum(new));
        let sum = u16::from_be_bytes([back[at], back[at + 1]]);
        let sum = checksum::update(sum, diff(&back[dst.clone()], &translated[src.clone()]));
        back[at..at + 2].copy_from_slice(&checksum::udp(sum).to_be_bytes());
        back[dst].copy_from_slice(&translated[src]);
        let expected = cut(&udp(v6, 1000, true, 4000), 6, &[1480]);
        for fragment in cut(&back, 6, &[1480]) {
            cut_up.send(2, &fragment);
        }
        cut_up.wait();
        assert_eq!(bytes(cut_up.take(1)), expected, "v6 {v6}");
        cut_up.check_accounts();
    }
}

/// A data path of two workers and the ports 1 and 2 with a queue for each.
fn two_workers() -> (Datapath, [MemHandle; 2]) {
    let datapath = Datapath::start(Config { workers: 2, ..Config::default() }).unwrap();
    datapath.add_bridge("br0", FailMode::Secure).unwrap();
    let ends = [1, 2].map(|no| {
        let options = MemOptions { queues: 2, mtu: 65_535, ..MemOptions::default() };
        let (port, end) = MemPort::new(&format!("p{no}"), &options).unwrap();
        let request = PortRequest::new(&format!("p{no}"), PortDevice::Device(Box::new(port)));
        datapath.add_port("br0", request).unwrap();
        end
    });
    (datapath, ends)
}

#[test]
fn fragments_that_come_to_different_workers_find_each_other_and_are_counted_once() {
    const DATAGRAMS: u16 = 300;
    let (datapath, [near, far]) = two_workers();
    add(&datapath, &FIREWALL);
    let mut expected = Vec::new();
    for number in 1..=DATAGRAMS {
        for (index, fragment) in cut(&udp(false, number, false, 3000), number, &[1480]).iter().enumerate() {
            let queue = (usize::from(number) + index) % 2;
            wait_until("there is room", || near.inject_frame(queue, Frame::from_bytes(fragment)));
            expected.push(fragment.clone());
        }
    }
    let sum = |count: fn(&sluice_switch::stats::WorkerStats) -> u64| -> u64 {
        datapath.worker_stats().iter().map(count).sum()
    };
    let mut came = Vec::new();
    wait_until("all have come through", || {
        came.extend(bytes(take_all(&far)));
        came.len() >= expected.len()
    });
    came.sort();
    expected.sort();
    assert!(came == expected, "each as it came");
    wait_until("all are counted", || sum(|w| w.received) == u64::from(DATAGRAMS) * 2);
    for w in datapath.worker_stats() {
        assert_eq!(w.received + w.released, w.forwarded + w.dropped_total() + w.held, "{w:?}");
    }
    assert_eq!((sum(|w| w.held) - sum(|w| w.released), sum(|w| w.dropped_total())), (0, 0));
    datapath.shutdown();
}

/// Datagrams in fragments, which come in any order, each through the same flows as whole: the fragments come out as they
/// came, by the port by which the whole does, after the same packets.
#[test]
fn fragments_are_answered_as_their_datagram_would_be() {
    for seed in 0..24 {
        let mut rng = seeded(seed);
        let config = Config { caches: rng.random_bool(0.5), ..Config::default() };
        let (mut cut_up, mut whole) = (switch(config.clone(), &FIREWALL), switch(config, &FIREWALL));
        for id in 0..rng.random_range(1..12) {
            let (v6, back) = (rng.random_bool(0.5), rng.random_bool(0.5));
            let packet = udp(v6, rng.random_range(0..3), back, rng.random_range(2600..9000));
            let lens: Vec<_> = (0..rng.random_range(1..5)).map(|_| rng.random_range(1300..1500)).collect();
            let port = if back { 2 } else { 1 };
            whole.send(port, &packet);
            whole.wait();
            let mut fragments = cut(&packet, id, &lens);
            fragments.shuffle(&mut rng);
            for fragment in &fragments {
                cut_up.send(port, fragment);
            }
            cut_up.wait();
            assert_eq!(cut_up.waiting(), 0, "seed {seed}, datagram {id}");
            for no in 1..=3 {
                let expected = if whole.take(no).is_empty() { Vec::new() } else { fragments.clone() };
                assert_eq!(bytes(cut_up.take(no)), expected, "seed {seed}, datagram {id}, port {no}");
            }
        }
        cut_up.check_accounts();
    }
}
