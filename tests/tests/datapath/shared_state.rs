//! What flows share and packets change: meters, groups, the tables themselves.

use crate::{FRAME, NOWHERE, bytes, flow, gso, out, secure, set_dst, with_dst};
use sluice_flows::DropReason;
use sluice_flows::action::{GroupId, MeterId};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::meter::{Meter, MeterMod};
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::text::{GroupCommand, Names, parse_flow, parse_group_mod, parse_meter};
use sluice_switch::{Clock, Config, FailMode, PortChange};
use sluice_tests::switch::Switch;
use std::sync::Arc;

fn text(flow: &str) -> FlowSpec {
    parse_flow(flow, Names::NONE).unwrap().value
}

fn apply(switch: &Switch, change: impl Into<BridgeMod>) {
    switch.datapath.apply_bundle("br0", &[change.into()]).unwrap();
}

fn group(switch: &Switch, spec: &str) {
    apply(switch, parse_group_mod(spec, GroupCommand::Add, Names::NONE).unwrap());
}

fn meter(switch: &Switch, spec: &str) {
    apply(switch, MeterMod::Add(parse_meter(spec).unwrap()));
}

fn meter_of(switch: &Switch, id: u32) -> Arc<Meter> {
    switch.datapath.bridge("br0").unwrap().meters[&MeterId(id)].clone()
}

/// A switch whose time stands still.
fn still() -> (Switch, Clock) {
    let clock = Clock::manual();
    let mut switch = Switch::start(Config { clock: clock.clone(), ..Config::default() });
    switch.bridge("br0", 4, FailMode::Secure);
    (switch, clock)
}

/// Packets and bytes of the group's buckets.
fn buckets(switch: &Switch, id: u32) -> Vec<(u64, u64)> {
    switch.sync();
    let group = switch.datapath.bridge("br0").unwrap().groups[&GroupId(id)].clone();
    group.buckets.iter().map(|b| (b.stats.packets(), b.stats.bytes())).collect()
}

#[test]
fn what_exceeds_a_meter_is_dropped_and_counted_and_time_lets_more_pass() {
    let (mut switch, clock) = still();
    meter(&switch, "meter=1 pktps burst stats bands=type=drop rate=10 burst_size=5");
    switch.add_flows([text("actions=output:2,resubmit(,1)"), text("table=1,actions=meter:1,output:3")]);
    let sent = |switch: &mut Switch, count: usize| {
        (0..count).for_each(|_| switch.send(1, &FRAME));
        switch.wait();
        (switch.take(2).len(), switch.take(3).len())
    };
    assert_eq!(sent(&mut switch, 8), (8, 5));
    clock.advance(200);
    assert_eq!(sent(&mut switch, 8), (8, 2));
    assert_eq!(switch.totals().forwarded, 16, "they left by port 2");
    let meter = meter_of(&switch, 1);
    assert_eq!(meter.came(), (16, 960));
    assert_eq!(meter.dropped().collect::<Vec<_>>(), [(9, 540)]);
    switch.check_accounts();
}

#[test]
fn a_packet_that_a_meter_takes_whole_is_a_drop_of_its_reason() {
    let (mut switch, _clock) = still();
    meter(&switch, "meter=7 kbps burst bands=type=drop rate=8 burst_size=1");
    switch.add_flows([text("actions=meter:7,output:3")]);
    for port in [vec![3], vec![3], vec![]] {
        assert_eq!(switch.send_and_see(1, &FRAME), port);
    }
    // A super-frame is one packet of all its bytes.
    switch.send_frame(1, gso(5000, 100));
    switch.wait();
    assert_eq!(switch.dropped(DropReason::Meter), 2);
    assert_eq!(meter_of(&switch, 7).came(), (4, 180 + 5054));
    switch.check_accounts();
}

#[test]
fn a_meter_in_a_clone_stops_the_clone() {
    let (mut switch, _clock) = still();
    meter(&switch, "meter=1 pktps burst bands=type=drop rate=10 burst_size=1");
    switch.add_flows([text("actions=clone(resubmit(,1)),output:3"), text("table=1,actions=meter:1,output:2")]);
    assert_eq!(switch.send_and_see(1, &FRAME), [2, 3]);
    assert_eq!(switch.send_and_see(1, &FRAME), [3]);
    assert_eq!(switch.send_and_see(1, &FRAME), [3]);
    switch.check_accounts();
}

#[test]
fn a_meter_limits_what_the_controller_gets() {
    let (mut switch, _clock) = still();
    meter(&switch, "meter=1 pktps burst bands=type=drop rate=10 burst_size=3");
    switch.add_flows([text("actions=load:5->NXM_NX_REG1[],controller(id=9,userdata=01.02,meter_id=1)")]);
    let packet_ins = switch.datapath.packet_ins(10);
    for _ in 0..5 {
        switch.send(1, &FRAME);
    }
    switch.wait();
    let got: Vec<_> = packet_ins.try_iter().collect();
    assert_eq!(got.len(), 3);
    assert_eq!((&*got[0].about.userdata, got[0].about.controller_id), (&[1, 2][..], 9));
    assert_eq!(*got[0].about.metadata, [(sluice_flows::field::Field::Reg1, 5)]);
    assert_eq!(switch.dropped(DropReason::Meter), 2);
    switch.check_accounts();
}

#[test]
fn every_bucket_of_an_all_group_has_a_copy_of_its_own() {
    let mut switch = secure(4);
    group(&switch, "group_id=1,type=all,bucket=set_field:02:00:00:00:00:07->eth_dst,output:2,bucket=output:3");
    switch.add_flows([text("actions=group:1,output:4")]);
    let changed = {
        let mut f = with_dst(7);
        f[0] = 2;
        f
    };
    for _ in 0..3 {
        switch.send(1, &FRAME);
    }
    switch.wait();
    assert_eq!(bytes(switch.take(2)), vec![changed; 3]);
    assert_eq!(bytes(switch.take(3)), vec![FRAME.to_vec(); 3]);
    assert_eq!(bytes(switch.take(4)), vec![FRAME.to_vec(); 3]);
    assert_eq!(buckets(&switch, 1), [(3, 180), (3, 180)]);
    switch.check_accounts();
}

#[test]
fn a_select_group_keeps_a_connection_on_one_bucket_and_credits_that() {
    let mut switch = secure(3);
    group(&switch, "group_id=1,type=select,bucket=weight:1,output:2,bucket=weight:1,output:3");
    switch.add_flows([text("actions=group:1")]);
    let mut by_port = [0; 2];
    for n in 0..64 {
        let mut frame = FRAME;
        frame[11] = 2 * n;
        let first = switch.send_and_see(1, &frame);
        assert_eq!(switch.send_and_see(1, &frame), first);
        by_port[usize::from(first[0] - 2)] += 2;
    }
    assert!(by_port.iter().all(|n| *n > 20), "{by_port:?}");
    assert_eq!(buckets(&switch, 1), by_port.map(|n| (n, n * 60)));
    switch.check_accounts();
}

#[test]
fn a_failover_group_takes_the_first_bucket_whose_port_is_up() {
    let mut switch = secure(3);
    group(&switch, "group_id=1,type=ff,bucket=watch_port:2,output:2,bucket=watch_port:3,output:3");
    switch.add_flows([text("actions=group:1")]);
    let up = |switch: &Switch, no, up| {
        let change = PortChange { up: Some(up), ..PortChange::default() };
        switch.datapath.set_port("br0", &format!("br0-{no}"), &change).unwrap();
    };
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    up(&switch, 2, false);
    assert_eq!(switch.send_and_see(1, &FRAME), [3]);
    up(&switch, 3, false);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    up(&switch, 2, true);
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    assert_eq!(buckets(&switch, 1), [(2, 120), (1, 60)]);
    switch.check_accounts();
}

/// Learns where sources are, for one direction as for the other.
const LEARN: &str = "actions=learn(table=1,idle_timeout=5,priority=9,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],\
                     output:NXM_OF_IN_PORT[]),resubmit(,1)";

fn learned(switch: &Switch) -> usize {
    let bridge = switch.datapath.bridge("br0").unwrap();
    bridge.tables.iter().filter(|rule| rule.spec.table == TableId::new(1).unwrap() && rule.spec.priority == 9).count()
}

/// [`FRAME`] from and to these.
fn between(src: u8, dst: u8) -> [u8; 60] {
    let mut frame = FRAME;
    (frame[5], frame[11]) = (dst, src);
    frame
}

#[test]
fn what_one_packet_learns_the_next_one_finds() {
    let (mut switch, _clock) = still();
    switch.add_flows([text(LEARN), text("table=1,priority=1,actions=flood")]);
    assert_eq!(switch.send_and_see(1, &between(4, 2)), [2, 3, 4]);
    assert_eq!(switch.send_and_see(3, &between(2, 4)), [1]);
    assert_eq!(switch.send_and_see(1, &between(4, 2)), [3]);
    assert_eq!(learned(&switch), 2);
    // In one burst, too.
    switch.send(2, &between(6, 8));
    switch.send(2, &between(8, 6));
    switch.wait();
    assert_eq!(
        (switch.take(1).len(), switch.take(3).len()),
        (1, 1),
        "the second goes back to port 2, where it came from"
    );
    switch.check_accounts();
}

#[test]
fn learning_nothing_new_leaves_the_caches_warm() {
    let (mut switch, _clock) = still();
    switch.add_flows([text(LEARN), text("table=1,priority=1,actions=flood")]);
    for _ in 0..3 {
        switch.send_and_see(1, &between(4, 2));
    }
    let (before, generation) = (switch.totals().cache, switch.datapath.model().generation);
    for _ in 0..20 {
        switch.send_and_see(1, &between(4, 2));
        switch.sync();
    }
    let after = switch.totals().cache;
    assert_eq!((after.exact_hits - before.exact_hits, after.misses, after.stale), (20, before.misses, before.stale));
    assert_eq!(switch.datapath.model().generation, generation);
}

#[test]
fn what_packets_learn_puts_only_those_out_of_date_that_its_table_matters_to() {
    let (mut switch, clock) = still();
    switch.add_flows([
        text(&format!("in_port=1,{LEARN}")),
        text("in_port=2,actions=output:3"),
        text("in_port=3,actions=resubmit(,1)"),
        text("table=1,priority=2,actions=output:4"),
    ]);
    let others = |switch: &mut Switch| {
        let before = switch.totals().cache;
        let sent = [switch.send_and_see(2, &FRAME), switch.send_and_see(3, &between(2, 4))];
        let after = switch.totals().cache;
        let hits = after.exact_hits + after.megaflow_hits - before.exact_hits - before.megaflow_hits;
        (sent, hits, after.misses - before.misses, after.stale - before.stale)
    };
    assert_eq!(others(&mut switch), ([vec![3], vec![4]], 0, 2, 0));
    // It learns where another is; then where the one is that port 3 sends to.
    for (source, to) in [(6, 4), (4, 1)] {
        switch.send_and_see(1, &between(source, 8));
        assert_eq!(others(&mut switch), ([vec![3], vec![to]], 1, 0, 1), "{source}");
        assert_eq!(others(&mut switch), ([vec![3], vec![to]], 2, 0, 0), "{source}");
    }
    // Time takes both away.
    clock.advance(6_000);
    switch.datapath.maintain();
    assert_eq!(learned(&switch), 0);
    assert_eq!(others(&mut switch), ([vec![3], vec![4]], 1, 0, 1));
    switch.check_accounts();
}

#[test]
fn a_learned_flow_lives_as_long_as_cached_packets_would_learn_it() {
    let (mut switch, clock) = still();
    let hard = LEARN.replace("idle_timeout", "hard_timeout");
    switch.add_flows([text(&hard), text("table=1,priority=1,actions=flood")]);
    for _ in 0..4 {
        switch.send_and_see(1, &between(4, 2));
        clock.advance(3_000);
        switch.sync();
        switch.datapath.maintain();
        assert_eq!(learned(&switch), 1);
    }
    clock.advance(6_000);
    switch.sync();
    switch.datapath.maintain();
    assert_eq!(learned(&switch), 0);
    switch.sync();
    assert_eq!(learned(&switch), 0, "what was counted before it went does not bring it back");
    switch.send_and_see(1, &between(4, 2));
    assert_eq!(learned(&switch), 1);
}

#[test]
fn a_packet_that_ends_a_connection_shortens_its_flow_and_others_do_not() {
    let (mut switch, _clock) = still();
    switch.add_flows([text("tcp,idle_timeout=60,actions=fin_timeout(idle_timeout=3),output:2")]);
    let idle = |switch: &Switch| switch.datapath.bridge("br0").unwrap().tables.iter().next().unwrap().spec.idle_timeout;
    let mut frame = crate::segments_of(&gso(100, 100)).remove(0);
    for _ in 0..3 {
        assert_eq!(switch.send_and_see(1, &frame), [2]);
        switch.sync();
        assert_eq!(idle(&switch), 60);
    }
    frame[47] |= 1;
    assert_eq!(switch.send_and_see(1, &frame), [2]);
    assert_eq!(idle(&switch), 3);
    switch.check_accounts();
}

#[test]
fn flows_that_ask_for_it_are_not_counted_but_stay_in_use() {
    let (mut switch, clock) = still();
    let mut spec = FlowSpec { idle_timeout: 5, no_packet_counts: true, ..flow([set_dst(9), out(2)]) };
    spec.no_byte_counts = true;
    switch.add_flows([spec]);
    for _ in 0..3 {
        clock.advance(3_000);
        assert_eq!(switch.send_and_see(1, &FRAME), [2]);
        switch.sync();
        switch.datapath.maintain();
    }
    let bridge = switch.datapath.bridge("br0").unwrap();
    let rule = bridge.tables.iter().next().unwrap();
    assert_eq!((rule.stats.packets(), rule.stats.bytes()), (0, 0));
}
