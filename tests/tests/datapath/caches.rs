//! Cached results are what translation says, also after everything that makes them out of date.

use crate::NOWHERE;
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::action::{Action, Encap, Fragment, Subfield};
use sluice_flows::bridge::Model;
use sluice_flows::field::Field;
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, PacketKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, extract};
use sluice_flows::rule::FlowSpec;
use sluice_flows::{DropReason, Match, Owner, PortNo};
use sluice_switch::{Clock, Config, FailMode, PacketIn};
use sluice_tests::generate::{model, model_of, packet, prioritised, rule, seeded};
use sluice_tests::switch::{Switch, take_all, wait_until};

const TABLES: u64 = 1_000;
const PACKETS: usize = 50;
const THREADS: u64 = 6;

/// Everything that can be seen of what a switch did: frames by port, packets for the controller.
type Seen = (Vec<(String, u16, Vec<Vec<u8>>)>, Vec<(u16, Vec<u8>)>);

fn run(caches: bool, model: &Model, frames: &[(u16, Vec<u8>)]) -> (Seen, Switch) {
    // Small caches start faster, and there are few frames.
    let config = Config { caches, packet_in_rate: 1_000_000_000, exact_slots: 256, ..Config::default() };
    let mut switch = Switch::of_model(config, model);
    let packet_ins = switch.datapath.packet_ins(5_000);
    for (n, (port, bytes)) in frames.iter().enumerate() {
        switch.send(*port, bytes);
        // Frames of different ports may be received in any order, those of one burst not.
        if frames.get(n + 1).is_none_or(|next| next.0 != *port) {
            switch.wait();
        }
    }
    let bytes = |f: Frame| f.bytes().to_vec();
    let out = switch
        .ends
        .iter()
        .map(|((bridge, no), end)| (bridge.clone(), *no, take_all(end).into_iter().map(bytes).collect::<Vec<_>>()));
    let packet_in = |p: PacketIn| (p.about.in_port.0, p.frame.to_vec());
    ((out.collect(), packet_ins.try_iter().map(packet_in).collect()), switch)
}

/// Frames that often are like one that came before, but for bits that few rules look at.
fn frames(seed: u64) -> Vec<(u16, Vec<u8>)> {
    let mut rng = seeded(seed);
    let mut keys: Vec<FlowKey> = Vec::new();
    for _ in 0..PACKETS {
        let mut key = if keys.is_empty() || rng.random_bool(0.4) {
            packet(&mut rng)
        } else {
            keys[rng.random_range(0..keys.len())]
        };
        if rng.random_bool(0.3) {
            let fields = [slot::IP_TTL, slot::IP_TOS, slot::TP_SRC, slot::TP_DST, slot::ETH_SRC, slot::IP_SRC];
            let field = fields[rng.random_range(0..fields.len())];
            let bit = 1 << rng.random_range(0..field.bits);
            // A multicast source stays one that nobody learns.
            key.set(field, key.get(field) ^ bit);
        }
        keys.push(key);
    }
    // In runs of one port, so that bursts are more than one frame.
    keys.sort_by_cached_key(|key| key.get(slot::IN_PORT) + 4 * u128::from(rng.random_bool(0.5)));
    keys.iter().map(|k| (k.get(slot::IN_PORT) as u16, compose(k, &[1, 2, 3]))).collect()
}

/// A random rule with one of the actions that do more than send and rewrite.
fn rich_rule(rng: &mut StdRng) -> FlowSpec {
    let mut spec = rule(rng);
    let mut actions = spec.actions.to_vec();
    let port = PortNo(rng.random_range(1..5));
    let bit = Subfield { field: Field::Reg0, ofs: rng.random_range(0..2), bits: 1 };
    let label = Action::SetMplsLabel(rng.random_range(0..8));
    let fragment = Fragment { mtu: rng.random_range(24..60), controller_id: 0, userdata: Box::default() };
    let more = match rng.random_range(0..8) {
        0 => vec![Action::Clone(actions.as_slice().into())],
        1 => vec![Action::CheckPktLarger { len: rng.random_range(30..80), dst: bit }],
        2 => vec![Action::OutputTruncated { port, max_len: rng.random_range(14..80) }],
        3 => vec![Action::PushMpls(0x8847), label, Action::Output(port), Action::PopMpls(0x0800)],
        4 => vec![Action::PushMpls(0x8848), Action::Output(port)],
        5 => vec![Action::Fragment(Box::new(fragment)), Action::Output(port)],
        6 => vec![Action::Encap(Encap::Nsh { md_type: None, tlvs: Box::default() }), Action::Encap(Encap::Ethernet)],
        _ => vec![Action::Decap(None), Action::Encap(Encap::Ethernet), Action::Output(port)],
    };
    // A goto stays the last.
    let at = rng.random_range(0..actions.len().max(1));
    actions.splice(at..at, more);
    spec.actions = actions.into();
    spec
}

#[test]
fn cached_switches_do_what_uncached_ones_do() {
    // Most of the time is spent waiting for workers to wake up, so several pairs of switches run at a time.
    let shares = std::thread::scope(|scope| {
        let shares: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || compare(n))).collect();
        shares.into_iter().map(|share| share.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |of: fn(&Share) -> u64| shares.iter().map(of).sum::<u64>();
    let (hits, packets, sent) = (sum(|s| s.hits), sum(|s| s.packets), sum(|s| s.sent));
    assert!(hits > packets / 4, "{hits} of {packets} answered by a cache: the caches were not tested");
    assert!(sent > packets / 4, "{sent} of {packets} went anywhere: nothing was tested");
}

/// What a share of the tables came to.
#[derive(Default)]
struct Share {
    hits: u64,
    packets: u64,
    sent: u64,
}

/// Compares a cached with an uncached switch, for every [`THREADS`]th table from `first` on.
fn compare(first: u64) -> Share {
    let mut share = Share::default();
    for seed in (first..TABLES).step_by(THREADS as usize) {
        let frames = frames(10_000 + seed);
        let mut rng = seeded(seed);
        let model = if seed % 2 == 0 {
            model(&mut rng, 30)
        } else {
            model_of(&[(); 2].map(|()| prioritised(&mut rng, 30, rich_rule)))
        };
        let (cached, switch) = run(true, &model, &frames);
        let (uncached, oracle) = run(false, &model, &frames);
        for (a, b) in cached.0.iter().zip(&uncached.0) {
            let differ = a.2.iter().zip(&b.2).position(|(a, b)| a != b);
            let counts = (a.2.len(), b.2.len());
            assert!(a == b, "seed {seed}: {} port {}: {counts:?} frames, first difference {differ:?}", a.0, a.1);
        }
        assert_eq!(cached.1, uncached.1, "seed {seed}: packets for the controller");
        switch.check_accounts();
        oracle.check_accounts();
        assert_eq!(drops(&switch), drops(&oracle), "seed {seed}: drop reasons");
        assert_eq!(rule_counters(&switch), rule_counters(&oracle), "seed {seed}: rule counters");
        let cache = switch.totals().cache;
        assert_eq!(cache.exact_hits + cache.megaflow_hits + cache.misses + cache.stale, frames.len() as u64);
        share.hits += cache.exact_hits + cache.megaflow_hits;
        share.packets += frames.len() as u64;
        share.sent += cached.0.iter().map(|(_, _, out)| out.len()).sum::<usize>() as u64;
    }
    share
}

/// Drops by reason. A packet that goes round in circles and fills a port's ring has both reasons, and the first of them
/// counts: that depends on how many frames the worker found in the ring at once, so the two are one here.
fn drops(switch: &Switch) -> Vec<u64> {
    let mut dropped = switch.totals().dropped.to_vec();
    dropped[DropReason::Loop as usize] += std::mem::take(&mut dropped[DropReason::QueueFull as usize]);
    dropped
}

/// Bridge, table, priority, packets, bytes.
fn rule_counters(switch: &Switch) -> Vec<(String, u8, u16, u64, u64)> {
    switch.sync();
    let bridges = switch.datapath.bridges();
    let rules = bridges.iter().flat_map(|b| b.tables.iter().map(|r| (b.name.to_string(), r)));
    let mut all: Vec<_> =
        rules.map(|(b, r)| (b, r.spec.table.get(), r.spec.priority, r.stats.packets(), r.stats.bytes())).collect();
    all.sort();
    all
}

#[test]
fn flipping_a_bit_that_the_megaflow_does_not_look_at_changes_nothing() {
    let mut tried = 0;
    for seed in 0..40 {
        let mut rng = seeded(seed);
        let model = model(&mut seeded(seed), 30);
        let mut switch = Switch::of_model(Config::default(), &model);
        for _ in 0..10 {
            let key = packet(&mut rng);
            let port = key.get(slot::IN_PORT) as u16;
            // Twice: what the first teaches about its source may change the answer for the second.
            outputs(&mut switch, port, &compose(&key, &[]));
            let first = outputs(&mut switch, port, &compose(&key, &[]));
            let ingress = switch.datapath.bridge("br0").unwrap().ports[&PortNo(port)].dp;
            let Some(flow) = switch.datapath.megaflows(None).into_iter().find(|m| agrees(&key.packet(), m, ingress.0))
            else {
                continue;
            };
            for _ in 0..10 {
                let mut other = key;
                let field = [slot::ETH_SRC, slot::ETH_DST, slot::IP_SRC, slot::IP_DST, slot::TP_SRC, slot::TP_DST]
                    [rng.random_range(0..6)];
                let bit = 1 << rng.random_range(0..field.bits);
                other.set(field, key.get(field) ^ bit);
                let bytes = compose(&other, &[]);
                let mut read = PacketKey::ZERO;
                extract(&bytes, ingress.0, &mut read);
                if !agrees(&read, &flow, ingress.0) {
                    continue;
                }
                tried += 1;
                let hits = switch.totals().cache;
                let again = outputs(&mut switch, port, &bytes);
                assert_eq!(again, first, "seed {seed}, {field:?}");
                assert_eq!(switch.totals().cache.misses, hits.misses, "seed {seed}: it is the same megaflow");
            }
        }
    }
    assert!(tried > 100, "only {tried} flips were outside a mask");
}

fn agrees(key: &PacketKey, flow: &sluice_switch::MegaflowStats, ingress: u32) -> bool {
    let mut key = FlowKey::from(key);
    key.set(slot::IN_PORT, ingress.into());
    key.masked(&flow.mask) == flow.key
}

/// Ports that a frame leaves by.
fn outputs(switch: &mut Switch, port: u16, bytes: &[u8]) -> Vec<(String, u16)> {
    switch.send(port, bytes);
    switch.wait();
    let ends = switch.ends.iter();
    ends.flat_map(|(at, end)| take_all(end).into_iter().map(move |_| at.clone())).collect()
}

fn to(port: u16) -> FlowSpec {
    FlowSpec::new(Match::any(), [Action::Output(PortNo(port))], Owner::user())
}

const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    (frame[5], frame[11], frame[12]) = (2, 4, 0x88);
    frame
};

#[test]
fn the_next_packet_follows_a_changed_flow() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 4, FailMode::Secure);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    assert_eq!(switch.dropped(DropReason::NoRule), 1);
    for port in [2, 3, 4, 2] {
        switch.add_flows([to(port)]);
        assert_eq!(switch.send_and_see(1, &FRAME), [port]);
        assert_eq!(switch.send_and_see(1, &FRAME), [port]);
    }
    switch.datapath.apply_bundle("br0", &[FlowMod::delete(FlowFilter::all())]).unwrap();
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    switch.check_accounts();
    let cache = switch.totals().cache;
    assert_eq!((cache.exact_hits, cache.misses, cache.stale), (4, 1, 5));
}

#[test]
fn no_packet_sees_half_a_bundle() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 3, FailMode::Secure);
    // Table 0 and table 1 always agree on the port; a packet that sees one old and one new rule goes nowhere.
    let bundle = |port: u16| {
        let mut first = FlowSpec::new(
            Match::any(),
            [
                Action::SetField { field: Field::Reg0, value: port.into(), mask: u128::MAX },
                Action::GotoTable(sluice_flows::rule::TableId::new(1).unwrap()),
            ],
            Owner::user(),
        );
        first.priority = 7;
        let mut second = to(port);
        second.table = sluice_flows::rule::TableId::new(1).unwrap();
        second.matches.set_field(Field::Reg0, port.into());
        let old = FlowFilter { table: sluice_flows::rule::TableId::new(1), ..FlowFilter::all() };
        [FlowMod::delete(old), FlowMod::add(first), FlowMod::add(second)]
    };
    switch.datapath.apply_bundle("br0", &bundle(2)).unwrap();
    for n in 0..300 {
        for _ in 0..10 {
            switch.send(1, &FRAME);
        }
        switch.datapath.apply_bundle("br0", &bundle(2 + n % 2)).unwrap();
    }
    switch.wait();
    assert_eq!(switch.take(2).len() + switch.take(3).len(), 3000);
    assert_eq!(switch.totals().forwarded, 3000);
}

#[test]
fn a_refused_bundle_changes_nothing() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 2, FailMode::Secure);
    switch.bridge("br1", 1, FailMode::Secure);
    let generation = switch.datapath.model().generation;
    let bad = FlowSpec::new(Match::any(), [Action::GotoTable(sluice_flows::rule::TableId::FIRST)], Owner::user());
    let error = switch
        .datapath
        .apply_bundles(&[("br1", &[FlowMod::add(to(1))]), ("br0", &[FlowMod::add(to(2)), FlowMod::add(bad)])])
        .unwrap_err();
    assert!(error.to_string().starts_with("bridge br0, change 2 of the bundle:"), "{error}");
    assert_eq!(switch.datapath.model().generation, generation);
    assert!(switch.datapath.bridges().iter().all(|b| b.tables.is_empty()));
}

#[test]
fn idle_megaflows_go_and_their_counts_stay() {
    let clock = Clock::manual();
    let mut switch = Switch::start(Config { clock: clock.clone(), ..Config::default() });
    switch.bridge("br0", 2, FailMode::Secure);
    switch.add_flows([to(2)]);
    for _ in 0..5 {
        switch.send_and_see(1, &FRAME);
    }
    clock.advance(9_999);
    switch.sync();
    assert_eq!(switch.datapath.megaflows(None).len(), 1);
    assert_eq!(switch.datapath.megaflows(None)[0].packets, 5);
    clock.advance(1);
    switch.sync();
    assert_eq!(switch.datapath.megaflows(None).len(), 0);
    let rules: Vec<_> = switch.datapath.model().bridge_named("br0").unwrap().tables.iter().cloned().collect();
    assert_eq!((rules[0].stats.packets(), rules[0].stats.bytes()), (5, 300));
}

#[test]
fn a_full_cache_evicts_without_losing_a_count() {
    let mut switch = Switch::start(Config { megaflow_limit: 10, exact_slots: 16, ..Config::default() });
    switch.bridge("br0", 2, FailMode::Secure);
    let mut by_source = to(2);
    by_source.matches.set_field(Field::EthSrc, 4);
    switch.add_flows([by_source, FlowSpec { priority: 1, ..to(2) }]);
    for i in 0..1000_u32 {
        let mut frame = FRAME;
        frame[6..10].copy_from_slice(&(i.reverse_bits() & 0xfeff_ffff).to_be_bytes());
        switch.send(1, &frame);
    }
    switch.wait();
    assert_eq!(switch.take(2).len(), 1000);
    let counted: u64 = rule_counters(&switch).iter().map(|r| r.3).sum();
    assert_eq!(counted, 1000);
    let cache = switch.datapath.worker_stats()[0].cache;
    assert!(cache.megaflow_entries <= 10);
    assert!(cache.evictions > 0);
}

#[test]
fn idle_and_hard_timeouts_remove_flows_with_final_counts() {
    let clock = Clock::manual();
    let mut switch = Switch::start(Config { clock: clock.clone(), ..Config::default() });
    switch.bridge("br0", 2, FailMode::Secure);
    let events = switch.datapath.events(100);
    switch.add_flows([FlowSpec { idle_timeout: 2, ..to(2) }]);
    clock.advance(1_500);
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    clock.advance(1_500);
    switch.datapath.maintain();
    assert_eq!(switch.send_and_see(1, &FRAME), [2], "a packet kept it");
    clock.advance(2_000);
    switch.datapath.maintain();
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    let mut removed = Vec::new();
    wait_until("the removal is told", || {
        removed.extend(events.try_iter().filter_map(|e| match e.kind {
            sluice_switch::event::EventKind::FlowRemoved { rule, reason } => Some((rule, reason)),
            _ => None,
        }));
        !removed.is_empty()
    });
    assert_eq!(removed[0].1.name(), "idle");
    assert_eq!(removed[0].0.stats.packets(), 2);
}
