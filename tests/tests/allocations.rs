//! A frame that a cache answers costs no allocation: counted in the worker's thread by the allocator itself.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use sluice_flows::action::{Action, Fragment};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::meter::MeterMod;
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{
    GroupCommand, Names, parse_actions, parse_flow_mod, parse_group_mod, parse_match, parse_meter,
};
use sluice_flows::{DropReason, Match, Owner, PortNo};
use sluice_switch::port::{
    Device, Limits, NullPort, Port, PortCaps, PortError, PortKind, PortQueue, Rate, TxOutcome, Wire, WireOptions,
    WireSettings,
};
use sluice_switch::stats::WorkerStats;
use sluice_switch::{Config, Datapath, FailMode, PortDevice, PortRequest, Sight, Steering};
use sluice_tests::host::{Host, Kind};
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bursts that fill the caches and grow what grows once.
const WARM: u64 = 1_000;
/// Bursts that are watched.
const WATCHED: u64 = 1_000;
/// Flows in them: a burst has one frame of each, and a cache of the least size has no place for all.
const FLOWS: u128 = 32;
/// Bursts each way of a device; the second half is watched.
const BURSTS: u64 = 40;
/// Not counted yet.
const UNKNOWN: u64 = u64::MAX;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread on its way out has no counter any more; nobody watches it.
    _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Gives full bursts of a few flows, and notes how often its thread has allocated between two of them.
struct Source {
    device: Device,
    ready: Arc<PipeReader>,
    allocated: Arc<AtomicU64>,
}

impl Port for Source {
    fn kind(&self) -> PortKind {
        PortKind::Memory
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }
    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let (ready, allocated) = (&self.ready, &self.allocated);
        let frames: Arc<[Vec<u8>]> = (0..FLOWS).map(datagram).collect();
        // The first worker alone receives.
        let queue = |worker| SourceQueue {
            frames: Arc::clone(&frames),
            ready: Arc::clone(ready),
            allocated: Arc::clone(allocated),
            bursts: if worker == 0 { 0 } else { WARM + WATCHED },
            from: 0,
        };
        Ok((0..count).map(queue).map(|q| Box::new(q) as Box<dyn PortQueue>).collect())
    }
}

struct SourceQueue {
    frames: Arc<[Vec<u8>]>,
    ready: Arc<PipeReader>,
    allocated: Arc<AtomicU64>,
    bursts: u64,
    from: u64,
}

impl PortQueue for SourceQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        self.bursts += 1;
        match self.bursts {
            // Long enough for workers that share flows to have begun.
            n if n == WARM / 2 => std::thread::sleep(Duration::from_millis(20)),
            WARM => self.from = COUNT.get(),
            n if n == WARM + WATCHED => self.allocated.store(COUNT.get() - self.from, Ordering::Release),
            n if n > WARM + WATCHED => return Ok(0),
            _ => {}
        }
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.copy_from(&self.frames[i % self.frames.len()]);
        }
        Ok(frames.len())
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        outcomes[..frames.len()].fill(TxOutcome::Sent);
    }
}

/// A frame of 60 bytes with a UDP datagram, of another sender for each `number`.
fn datagram(number: u128) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    for (slot, value) in [
        (slot::ETH_DST, 2),
        (slot::ETH_SRC, 4 + number),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, 0x0a00_0001 + number),
        (slot::IP_DST, 0x0a00_0100),
        (slot::TP_SRC, 1000),
        (slot::TP_DST, 53),
    ] {
        key.set(slot, value);
    }
    compose(&key, &[7; 18])
}

/// What the flows of the cases refer to.
fn shared() -> [BridgeMod; 3] {
    let group = |spec| parse_group_mod(spec, GroupCommand::Add, Names::NONE).unwrap().into();
    let meter = parse_meter("meter=1 pktps bands=type=drop rate=4000000000").unwrap();
    [
        group("group_id=1,type=all,bucket=push_vlan:0x8100,output:2,bucket=output:3"),
        group("group_id=2,type=select,bucket=output:2,bucket=output:3"),
        MeterMod::Add(meter).into(),
    ]
}

/// Allocations of the worker while it does what `flows` say to [`WATCHED`] bursts, and frames that the entry of a
/// connection answered.
fn allocations(flows: &[FlowMod]) -> (u64, u64) {
    allocations_limited(flows, Limits::default())
}

/// As [`allocations`], with limits of the rate at which the source gives and at which the outputs take.
fn allocations_limited(flows: &[FlowMod], limits: Limits) -> (u64, u64) {
    let (allocations, stats) = watch(Config::default(), flows, limits);
    let held_back = stats.dropped[DropReason::QueueFull as usize];
    // What waited and what comes share a burst.
    let least = if limits.is_none() { (WARM + WATCHED - 1) * 32 - 100 } else { (WARM + WATCHED) * 16 };
    assert!(stats.cache.exact_hits + held_back > least, "{stats:?}");
    assert_eq!(held_back > 0, !limits.is_none(), "{stats:?}");
    (allocations, stats.cache.connection_hits)
}

/// Allocations of the worker while it does what `flows` say to [`WATCHED`] bursts, and what it counted.
fn watch(config: Config, flows: &[FlowMod], limits: Limits) -> (u64, WorkerStats) {
    watch_captured(config, flows, limits, &[])
}

/// As [`watch`], while captures look for packets at two outputs that do not come.
fn watch_captured(config: Config, flows: &[FlowMod], limits: Limits, sights: &[Sight]) -> (u64, WorkerStats) {
    let datapath = Datapath::start(config).unwrap();
    datapath.add_bridge("br0", FailMode::Secure).unwrap();
    datapath.apply_bundle("br0", &shared()).unwrap();
    datapath.apply_bundle("br0", flows).unwrap();
    for no in 2..5 {
        let name = format!("out{no}");
        let device = PortDevice::Device(Box::new(NullPort::new(&name, 1500)));
        let request = PortRequest { number: Some(PortNo(no)), limits, ..PortRequest::new(&name, device) };
        datapath.add_port("br0", request).unwrap();
    }
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&[0]).unwrap();
    let allocated = Arc::new(AtomicU64::new(UNKNOWN));
    let source = Source {
        device: Device::without_link("source", None, 1500),
        ready: Arc::new(reader),
        allocated: Arc::clone(&allocated),
    };
    let device = PortDevice::Device(Box::new(source));
    let captures = sights.iter().map(|sight| datapath.capture(&["out2".to_owned(), "out3".to_owned()], sight).unwrap());
    let captures: Vec<_> = captures.collect();
    datapath.add_port("br0", PortRequest { limits, ..PortRequest::new("source", device) }).unwrap();
    wait_until("the bursts are through", || allocated.load(Ordering::Acquire) != UNKNOWN);
    let stats = datapath.worker_stats().remove(0);
    assert!(captures.iter().all(|capture| capture.next(Duration::ZERO).is_none() && capture.lost().sum::<u64>() == 0));
    drop(captures);
    datapath.shutdown();
    (allocated.load(Ordering::Acquire), stats)
}

#[test]
fn a_frame_on_a_cache_hit_costs_no_allocation() {
    let out = |no| Action::Output(PortNo(no));
    let set = |value| Action::SetField { field: Field::EthDst, value, mask: u128::MAX };
    let fragment = Fragment { mtu: 28, controller_id: 0, userdata: Box::default() };
    let cases = [
        ("output", vec![out(2)]),
        ("fragments", vec![Action::Fragment(Box::new(fragment)), out(2), out(3)]),
        ("normal", vec![Action::Output(PortNo::NORMAL)]),
        ("flood", vec![Action::Output(PortNo::FLOOD)]),
        ("drop", vec![]),
        ("rewrites between outputs", vec![out(2), set(7), out(3), Action::PushVlan(0x8100), out(4), set(9), out(2)]),
    ];
    let text = |actions: &'static str| (actions, parse_actions(actions, Names::NONE).unwrap().into_vec());
    let texts = [
        "meter:1,output:2",
        "reject",
        "clone(decap(),encap(ethernet),output:2),output:3",
        "group:1,output:4",
        "group:2",
        "output(port=2,max_len=40),output:3",
        "push_mpls:0x8847,output:2,pop_mpls:0x0800,output:3",
        "check_pkt_larger(59)->NXM_NX_REG0[0],output:2",
        "encap(nsh),encap(ethernet),output:2",
    ];
    for (name, actions) in cases.into_iter().chain(texts.map(text)) {
        let flow = FlowMod::add(FlowSpec::new(Match::any(), actions, Owner::user()));
        assert_eq!(allocations(&[flow]), (0, 0), "{name}");
    }
}

#[test]
fn a_frame_that_only_the_megaflow_cache_answers_costs_no_allocation() {
    // Flows by their sources, more of them than the exact cache has slots, so that they push each other out.
    let flows = ["ip,nw_src=10.0.0.1 actions=output:2", "priority=1 actions=output:3"];
    let flows = flows.map(|flow| parse_flow_mod(flow, Names::NONE).unwrap().value);
    let config = Config { exact_slots: 1, ..Config::default() };
    let (allocations, stats) = watch(config, &flows, Limits::default());
    assert_eq!(allocations, 0);
    assert!(stats.cache.megaflow_hits > (WARM + WATCHED) * 16, "{stats:?}");
}

#[test]
fn a_frame_that_is_handed_on_costs_no_allocation() {
    let flow = FlowMod::add(FlowSpec::new(Match::any(), vec![Action::Output(PortNo(2))], Owner::user()));
    let config = Config { workers: 2, steering: Steering::Restless, ..Config::default() };
    let (allocations, stats) = watch(config, &[flow], Limits::default());
    assert_eq!(allocations, 0);
    assert!(stats.handed_on > 0, "{stats:?}");
}

#[test]
fn a_frame_that_no_capture_wants_costs_no_allocation() {
    let flow = parse_flow_mod("actions=output:2,output:3", Names::NONE).unwrap().value;
    let other = Sight::of(parse_match("udp,udp_dst=54", Names::NONE).unwrap().value);
    let dropped = Sight { dropped: true, ..Sight::of(Match::any()) };
    let (allocations, _) = watch_captured(Config::default(), &[flow], Limits::default(), &[other, dropped]);
    assert_eq!(allocations, 0);
}

#[test]
fn a_frame_that_waits_for_its_turn_costs_no_allocation() {
    let rate = |bits_per_s| Some(Rate { bits_per_s, burst_bits: 0 });
    let flow = FlowMod::add(FlowSpec::new(Match::any(), vec![Action::Output(PortNo(2))], Owner::user()));
    // What comes is held back more than what goes: a line that fills while it is watched takes room when the clock says so.
    let both = Limits { rx: rate(10_000_000), tx: rate(20_000_000) };
    for limits in [Limits { rx: None, ..both }, Limits { tx: None, ..both }, both] {
        assert_eq!(allocations_limited(std::slice::from_ref(&flow), limits), (0, 0), "{limits:?}");
    }
}

#[test]
fn a_frame_of_a_connection_costs_no_allocation() {
    let flows = [
        "ip,ct_state=-trk actions=ct(table=1,zone=3,nat)",
        "table=1,ip,ct_state=+new actions=ct(commit,table=2,zone=3,nat(src=10.9.9.1-10.9.9.4)),output:3",
        "table=2,ip actions=ct(commit,zone=4,exec(load:5->NXM_NX_CT_MARK[])),output:2",
    ];
    let flows = flows.map(|flow| parse_flow_mod(flow, Names::NONE).unwrap().value);
    let (allocations, answered) = allocations(&flows);
    assert_eq!(allocations, 0);
    assert!(answered > WATCHED * 32, "{answered}");
}

#[test]
fn a_frame_that_comes_and_goes_by_a_device_costs_no_allocation() {
    if skipped("a_frame_that_comes_and_goes_by_a_device_costs_no_allocation") {
        return;
    }
    for kind in Kind::ALL {
        let (host, port) = Host::new(1, kind, 1500);
        wait_until("the link is up", || port.link_up());
        let (mut queue, mut far) = (port.queues(1).unwrap().remove(0), host.capture());
        let frames: Vec<_> = (0..32).map(|n| Frame::from_bytes(&foreign(60 + 40 * n))).collect();
        let sent: Vec<_> = frames.iter().collect();
        let mut received: Vec<_> = (0..64).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
        let mut outcomes = [TxOutcome::Dropped(DropReason::Overload); 32];
        // What its far end allocates is not of interest. In the first half something may grow.
        let mut allocated = [0; 2];
        for burst in 0..BURSTS {
            let half = &mut allocated[usize::from(burst >= BURSTS / 2)];
            let before = COUNT.get();
            queue.tx_burst(&sent, &mut outcomes);
            *half += COUNT.get() - before;
            assert_eq!(outcomes, [TxOutcome::Sent; 32], "{kind:?}");
            let mut there = 0;
            wait_until("what was sent is there", || {
                there += far.take().iter().filter(|frame| frame.bytes()[12..14] == [0x88, 0xb5]).count();
                there >= sent.len()
            });
            frames.iter().for_each(|frame| assert!(far.send(frame.bytes()), "{kind:?}"));
            let mut got = 0;
            wait_until("what the host sent is there", || {
                let before = COUNT.get();
                let count = queue.rx_burst(&mut received).unwrap();
                *half += COUNT.get() - before;
                got += received[..count].iter().filter(|frame| frame.bytes()[12..14] == [0x88, 0xb5]).count();
                got >= sent.len()
            });
        }
        assert_eq!(allocated[1], 0, "{kind:?}, after {} in the first half", allocated[0]);
    }
}

/// A frame of an experimental type, which no network stack answers.
fn foreign(len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5];
    bytes.resize(len, 7);
    bytes
}

#[test]
fn a_frame_that_crosses_a_wire_costs_no_allocation() {
    let late = WireSettings { jitter: Duration::from_micros(3), ..WireSettings::default() };
    crosses_without_allocations(late);
    let delay = Duration::from_micros(3);
    let mut bad = WireSettings { delay, rate: 100_000_000_000, ..late };
    for (option, value) in [("corrupt", "50%"), ("reorder", "50%"), ("queue", "100p")] {
        bad.take(option, value).unwrap();
    }
    crosses_without_allocations(bad);
}

fn crosses_without_allocations(settings: WireSettings) {
    let options = WireOptions { settings, ..WireOptions::to("") };
    let [a, b] = Wire::pair(["a", "b"], [&options, &options]).unwrap();
    let [mut near, mut far] = [&a, &b].map(|end| end.queues(1).unwrap().remove(0));
    let sent: Vec<_> = (0..32).map(|n| Frame::from_bytes(&vec![n; 60 + 40 * usize::from(n)])).collect();
    let sent: Vec<_> = sent.iter().collect();
    let mut received: Vec<_> = (0..32).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
    let mut outcomes = [TxOutcome::Sent; 32];
    let mut from = 0;
    for burst in 0..WARM + WATCHED {
        if burst == WARM {
            from = COUNT.get();
        }
        near.tx_burst(&sent, &mut outcomes);
        // The longest jitter is over long before that.
        let mut got = 0;
        for _ in 0..10_000_000 {
            got += far.rx_burst(&mut received[got..]).unwrap();
            if got == sent.len() {
                break;
            }
        }
        assert_eq!(got, sent.len());
    }
    assert_eq!(COUNT.get() - from, 0);
    // Whatever their order.
    let bytes = |frames: &mut dyn Iterator<Item = &Frame>| frames.map(Frame::len).sum::<usize>();
    assert_eq!(bytes(&mut received.iter()), bytes(&mut sent.iter().copied()));
}
