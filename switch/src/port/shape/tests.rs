//! Limited queues by a clock of the test's own: the rate is met and kept, order too, and every frame is counted once.

use super::backlog::bits_of;
use super::bucket::{Bucket, burst};
use super::queue::Shaped;
use super::{Limits, Rate, Shaper};
use crate::port::{MemHandle, MemOptions, MemPort, Port, PortQueue, TxOutcome};
use crate::stats::PortCounters;
use proptest::prelude::*;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload};
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// What the clock begins at: the machine's would be some days.
const BEGIN: u64 = 1000 * SECOND;

fn rate(bits_per_s: u64, burst_bits: u64) -> Rate {
    Rate { bits_per_s, burst_bits }
}

/// A frame that says its number behind its addresses.
fn frame(number: u32, len: usize) -> Frame {
    let mut bytes = vec![0; len.max(18)];
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    Frame::from_bytes(&bytes)
}

fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.bytes()[14..18].try_into().unwrap())
}

/// A TCP super-frame with so many bytes of payload.
fn super_frame(payload: usize, size: u16) -> Frame {
    let mut bytes = vec![0; 54 + payload];
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[34 + 12] = 0x50;
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: size,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    frame
}

/// Queues of a limited memory port.
struct Rig {
    end: MemHandle,
    shaper: Arc<Shaper>,
    counters: Arc<PortCounters>,
    queues: Vec<Shaped>,
    frames: Vec<Frame>,
}

impl Rig {
    fn new(limits: Limits, workers: usize) -> Self {
        let options = MemOptions { mtu: 65_535, depth: 1 << 16, queues: workers, ..MemOptions::default() };
        let (port, end) = MemPort::new("m0", &options).unwrap();
        let counters = Arc::new(PortCounters::new(workers));
        let shaper = Shaper::new(&port, DpPort(7), &counters, Limits::default());
        shaper.rx.set(limits.rx, BEGIN);
        shaper.tx.set(limits.tx, BEGIN);
        let shapings = shaper.shapings().unwrap();
        let queues = port.queues(workers).unwrap().into_iter().zip(shapings);
        let queues = queues.map(|(queue, shaping)| Shaped::new(queue, shaping)).collect();
        let frames = (0..32).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
        Self { end, shaper, counters, queues, frames }
    }

    fn tx(rate: Rate) -> Self {
        Self::new(Limits { tx: Some(rate), rx: None }, 1)
    }

    fn rx(rate: Rate) -> Self {
        Self::new(Limits { rx: Some(rate), tx: None }, 1)
    }

    fn send(&mut self, now: u64, frame: &Frame) -> TxOutcome {
        let mut outcomes = [TxOutcome::Sent];
        self.queues[0].send(now, &[frame], &mut outcomes);
        outcomes[0]
    }

    /// What the device got.
    fn sent(&self) -> Vec<Frame> {
        std::iter::from_fn(|| self.end.take()).collect()
    }

    /// What the worker gets at `now`.
    fn received(&mut self, now: u64) -> Vec<Frame> {
        let mut all = Vec::new();
        for _ in 0..10_000 {
            let count = self.queues[0].receive(now, &mut self.frames).unwrap();
            if count == 0 && self.end.pending() == 0 {
                return all;
            }
            all.extend(self.frames[..count].iter().map(|frame| {
                let mut copy = Frame::with_capacity(frame.len());
                copy.clone_from_frame(frame);
                copy
            }));
        }
        panic!("frames without end");
    }

    /// Polls queue 0 whenever it asks for it, until `end` or until nothing waits. Returns when that was.
    fn run(&mut self, mut now: u64, end: u64) -> u64 {
        for _ in 0..1_000_000 {
            self.queues[0].receive(now, &mut self.frames).unwrap();
            match self.queues[0].due(false) {
                Some(due) if due <= end => now = due.max(now),
                _ => return now,
            }
        }
        panic!("polled without end");
    }
}

#[test]
fn a_frame_takes_what_it_takes_on_a_link() {
    assert_eq!(bits_of(&frame(0, 1514)), 1518 * 8);
    assert_eq!(bits_of(&frame(0, 20)), 64 * 8, "padded");
    // Three whole segments and one with a single byte, each with 54 bytes of headers.
    assert_eq!(bits_of(&super_frame(3 * 1000 + 1, 1000)), (3 * 1058 + 64) * 8);
    let mut wrong = super_frame(3000, 0);
    assert_eq!(bits_of(&wrong), (54 + 3000 + 4) * 8, "nothing to be cut to");
    wrong.offload.csum_start = u16::MAX;
    wrong.offload.gso_size = 1;
    assert_eq!(bits_of(&wrong), (54 + 3000 + 4) * 8, "no payload");
}

#[test]
fn bursts_that_are_not_set_or_too_small_follow_from_the_rate() {
    assert_eq!(burst(rate(100_000_000, 0)), 1_000_000);
    assert_eq!(burst(rate(100_000_000, 1)), 200_000, "2 ms");
    assert_eq!(burst(rate(8, 0)), 1518 * 8, "one frame");
    assert_eq!(burst(rate(8, u64::MAX)), u64::MAX);
    assert_eq!(burst(rate(u64::MAX, 0)), u64::MAX / 100);
}

#[test]
fn no_rate_and_no_burst_is_too_small_or_too_large() {
    for bits_per_s in [1, 8, 1_000_000, 1 << 40, u64::MAX] {
        for burst_bits in [0, 1, 12_000, u64::from(u32::MAX), u64::MAX] {
            let bucket = Bucket::new(1);
            for now in [0, 1, BEGIN, 10 * 365 * 86_400 * SECOND] {
                bucket.set(Some(rate(bits_per_s, burst_bits)), now);
                assert!(bucket.is_limited());
                assert!(bucket.take(1 << 25, now), "{bits_per_s} {burst_bits}: the first frame goes");
                _ = (bucket.due(false), bucket.is_long(u32::MAX), bucket.take(u32::MAX, u64::MAX));
            }
        }
    }
    // A whole burst of what CNI takes at most, at a rate for which that lasts 17 years: the frames just go.
    let bucket = Bucket::new(1);
    bucket.set(Some(rate(8, u64::from(u32::MAX))), BEGIN);
    assert!((0..1000).all(|_| bucket.take(12_144, BEGIN)));
}

#[test]
fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
    // 100 frames of 1518 bytes a second, and not quite ten of them at once.
    let mut rig = Rig::tx(rate(1_214_400, 121_000));
    let outcomes: Vec<_> = (0..20).map(|n| rig.send(BEGIN, &frame(n, 1514))).collect();
    // The tenth leaves a debt.
    assert_eq!(outcomes.iter().filter(|o| **o == TxOutcome::Sent).count(), 10);
    assert_eq!(outcomes.iter().filter(|o| **o == TxOutcome::Held).count(), 10);
    assert_eq!(rig.sent().len(), 10);
    let end = rig.run(BEGIN, u64::MAX);
    let took = end - BEGIN;
    assert!((90 * MS..102 * MS).contains(&took), "{took}");
    let numbers: Vec<_> = rig.sent().iter().map(number).collect();
    assert_eq!(numbers, (10..20).collect::<Vec<_>>());
    let stats = rig.counters.total();
    // Those that went at once are the worker's to count.
    assert_eq!((stats.tx_packets, stats.tx_dropped, stats.tx_errors), (10, 0, 0));
}

#[test]
fn what_waits_is_bounded_and_what_is_above_that_is_dropped() {
    let mut rig = Rig::tx(rate(100_000_000, 0));
    let outcomes: Vec<_> = (0..1000).map(|n| rig.send(BEGIN, &frame(n, 1514))).collect();
    let held = outcomes.iter().filter(|o| **o == TxOutcome::Held).count();
    // 50 ms of the rate are 411.7 frames.
    assert_eq!(held, 411);
    let lost = outcomes.iter().filter(|o| **o == TxOutcome::Dropped(DropReason::QueueFull)).count();
    let at_once = rig.sent().len();
    assert_eq!((at_once + held + lost, at_once), (1000, 83));
    rig.run(BEGIN, u64::MAX);
    assert_eq!(rig.sent().len(), held, "nothing that waits is lost");
}

#[test]
fn received_frames_wait_too_and_are_counted_when_dropped() {
    let mut rig = Rig::rx(rate(100_000_000, 0));
    for n in 0..1000 {
        assert!(rig.end.inject_frame(0, frame(n, 1514)));
    }
    let first = rig.received(BEGIN);
    assert_eq!(first.len(), 83);
    assert_eq!(rig.end.pending(), 0, "nothing is left to pile up in the device");
    let lost = std::iter::from_fn(|| rig.queues[0].rx_dropped()).collect::<Vec<_>>();
    let [(DpPort(7), DropReason::QueueFull, lost)] = lost[..] else { panic!("{lost:?}") };
    let mut numbers: Vec<_> = first.iter().map(number).collect();
    for ms in 1..=60 {
        numbers.extend(rig.received(BEGIN + ms * MS).iter().map(number));
    }
    assert_eq!(numbers.len() + lost as usize, 1000);
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
    assert!(rig.queues[0].due(false).is_none() && !rig.queues[0].is_waiting());
    let stats = rig.counters.total();
    assert_eq!(
        (stats.rx_packets, stats.rx_dropped, stats.rx_bytes),
        (lost.into(), lost.into(), u64::from(lost) * 1514)
    );
}

#[test]
fn a_super_frame_stays_whole_where_it_takes_no_time_and_is_cut_where_it_does() {
    let sent = super_frame(40_000, 1000);
    let mut fast = Rig::tx(rate(1_000_000_000, 0));
    assert_eq!(fast.send(BEGIN, &sent), TxOutcome::Sent);
    assert_eq!(fast.sent()[0].offload, sent.offload);
    let mut slow = Rig::tx(rate(10_000_000, 0));
    assert_eq!(slow.send(BEGIN, &sent), TxOutcome::Held);
    // 10 ms are 100 kbit, 11.8 segments, and one more for a debt.
    assert_eq!(slow.sent().len(), 12);
    slow.run(BEGIN, u64::MAX);
    let rest = slow.sent();
    assert_eq!(rest.len(), 28);
    assert!(rest.iter().all(|segment| segment.len() == 1054 && segment.offload == Offload::NONE));
    let mut from = Rig::rx(rate(10_000_000, 0));
    assert!(from.end.inject_frame(0, super_frame(40_000, 1000)));
    assert_eq!(from.received(BEGIN).len(), 12);
}

#[test]
fn a_super_frame_that_cannot_wait_whole_is_lost_for_one_reason() {
    // 131 kB may wait, so the third does not.
    let mut rig = Rig::tx(rate(1_000_000, 0));
    let outcomes: Vec<_> = (0..4).map(|_| rig.send(BEGIN, &super_frame(60_000, 1000))).collect();
    let full = TxOutcome::Dropped(DropReason::QueueFull);
    assert_eq!(outcomes, [TxOutcome::Held, TxOutcome::Held, full, full]);
    let mut from = Rig::rx(rate(1_000_000, 0));
    (0..4).for_each(|_| assert!(from.end.inject_frame(0, super_frame(60_000, 1000))));
    let got = from.received(BEGIN).len() as u32;
    let lost = from.queues[0].rx_dropped().unwrap().2;
    let mut later = 0;
    for ms in 1..2000 {
        later += from.received(BEGIN + ms * MS).len() as u32;
    }
    assert_eq!(got + later + lost, 240, "every segment has one fate");
}

#[test]
fn limits_that_are_raised_or_taken_away_hold_nothing_back() {
    let mut rig = Rig::tx(rate(8, 0));
    let outcomes: Vec<_> = (0..10).map(|n| rig.send(BEGIN, &frame(n, 1514))).collect();
    assert_eq!(outcomes.iter().filter(|o| **o == TxOutcome::Held).count(), 8);
    rig.shaper.tx.set(Some(rate(1_000_000_000, 0)), BEGIN);
    rig.run(BEGIN, BEGIN + 2 * MS);
    assert_eq!(rig.sent().len(), 10);
    rig.shaper.tx.set(Some(rate(8, 0)), BEGIN + 20 * SECOND);
    (0..10).for_each(|n| _ = rig.send(BEGIN + 20 * SECOND, &frame(n, 1514)));
    assert!(rig.queues[0].is_waiting());
    rig.shaper.tx.set(None, BEGIN + 20 * SECOND);
    rig.run(BEGIN + 20 * SECOND, BEGIN + 20 * SECOND);
    assert!(!rig.queues[0].is_waiting());
    assert_eq!(rig.sent().len(), 10);
    let inner = rig.queues[0].take_inner();
    assert!(inner.is_some());
}

#[test]
fn what_the_device_refuses_of_what_waited_is_counted_once() {
    let mut rig = Rig::tx(rate(1_000_000, 0));
    (0..10).for_each(|n| _ = rig.send(BEGIN, &frame(n, 1514)));
    let at_once = rig.sent().len() as u64;
    rig.end.set_link(false);
    rig.run(BEGIN, u64::MAX);
    let stats = rig.counters.total();
    assert_eq!((stats.tx_packets, stats.tx_errors), (0, 10 - at_once));
    assert!(rig.sent().is_empty());
}

#[test]
fn a_frame_that_is_too_long_for_the_device_does_not_wait() {
    let (port, _end) = MemPort::new("m0", &MemOptions::default()).unwrap();
    let counters = Arc::new(PortCounters::new(1));
    let shaper = Shaper::new(&port, DpPort(1), &counters, Limits { tx: Some(rate(8, 0)), rx: None });
    let shaping = shaper.shapings().unwrap().remove(0);
    let mut queue = Shaped::new(port.queues(1).unwrap().remove(0), shaping);
    let (fits, long) = (frame(0, 1514), frame(0, 1515));
    let mut outcomes = [TxOutcome::Sent; 4];
    queue.send(BEGIN, &[&fits, &fits, &long, &fits], &mut outcomes);
    assert_eq!(outcomes[2..], [TxOutcome::Dropped(DropReason::MtuExceeded), TxOutcome::Held]);
}

/// What a bucket lets pass of `frames`, when each is asked for at its time.
fn passed(bucket: &Bucket, frames: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let mut now = BEGIN;
    let mut out = Vec::new();
    for (wait, bits) in frames {
        now += wait;
        if bucket.take(*bits, now) {
            out.push((now, *bits));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn over_any_time_no_more_than_the_rate_and_a_burst_and_a_frame_go(
        bits_per_s in 1000_u64..200_000_000_000,
        burst_bits in 0_u64..10_000_000,
        frames in prop::collection::vec((0_u64..3_000_000, 512_u32..600_000), 1..200),
    ) {
        let bucket = Bucket::new(1);
        let rate = rate(bits_per_s, burst_bits);
        bucket.set(Some(rate), BEGIN);
        let passed = passed(&bucket, &frames);
        for (i, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0_u128;
            for (to, bits) in &passed[i..] {
                sum += u128::from(*bits);
                let time = u128::from(bits_per_s) * u128::from(to - from) / u128::from(SECOND);
                prop_assert!(sum <= time + u128::from(burst(rate)) + 600_000 + 1);
            }
        }
    }

    #[test]
    fn with_frames_waiting_the_rate_is_met_and_their_order_kept(
        bits_per_s in 100_000_u64..10_000_000_000,
        burst_bits in prop::sample::select(vec![0, 1, 100_000, 10_000_000]),
        lens in prop::collection::vec(60_usize..1514, 1..20),
        late in 0_u64..500_000,
    ) {
        let rate = rate(bits_per_s, burst_bits);
        let mut rig = Rig::tx(rate);
        let (mut now, mut given, mut next) = (BEGIN, 0_u64, 0);
        let mut waits = |rig: &mut Rig, now, given: &mut u64| {
            // As much as may wait, so that something always does.
            for n in 0..1000_u32 {
                let frame = frame(next + n, lens[(next + n) as usize % lens.len()]);
                match rig.send(now, &frame) {
                    TxOutcome::Dropped(_) => { next += n; return; }
                    _ => *given += u64::from(bits_of(&frame)),
                }
            }
            next += 1000;
        };
        let mut sent = 0;
        for _ in 0..20 {
            waits(&mut rig, now, &mut given);
            let Some(due) = rig.queues[0].due(false) else { break };
            // The timer may be late.
            now = due.max(now) + late;
            rig.queues[0].receive(now, &mut []).unwrap();
        }
        for (expected, frame) in (0..).zip(rig.sent()) {
            prop_assert_eq!(number(&frame), expected);
            sent += u64::from(bits_of(&frame));
        }
        let time = u128::from(bits_per_s) * u128::from(now - BEGIN) / u128::from(SECOND);
        prop_assert!(u128::from(sent) <= time + u128::from(burst(rate)) + 12_144);
        // What is saved at the end is the burst's, not lost.
        if rig.queues[0].due(false).is_some_and(|due| due > now) {
            prop_assert!(u128::from(sent) * 100 >= time * 95, "{} of {}", sent, time);
        }
    }
}

#[test]
fn two_workers_share_one_rate() {
    let limits = Limits { tx: Some(rate(100_000_000, 0)), rx: None };
    let mut rig = Rig::new(limits, 2);
    let sent = frame(0, 1514);
    let mut now = BEGIN;
    for round in 0..1000 {
        for which in [round % 2, 1 - round % 2] {
            rig.queues[which].send(now, &[&sent; 8], &mut [TxOutcome::Sent; 8]);
            rig.queues[which].receive(now, &mut []).unwrap();
        }
        now += MS;
    }
    let bits: u64 = rig.sent().iter().map(|frame| u64::from(bits_of(frame))).sum();
    assert!((99_000_000..101_100_000).contains(&bits), "{bits}");
    assert!(rig.queues.iter().all(|queue| queue.is_waiting()), "each has its share of what may wait");
}
