//! What a wire does to frames besides making them late: it loses, doubles, changes and reorders them, and has a rate.
//!
//! Numbers of frames follow from the seed, so they are the same in every run; rates are measured against the clock with a
//! lower bound alone, because a busy machine may be late.

use super::*;
use sluice_flows::packet::segment::Segmenter;
use sluice_switch::port::{Percent, Queue, WireCounts, WireSettings};
use std::collections::BTreeMap;
use std::time::Instant;

const FRAMES: usize = 10_000;

fn share(text: &str) -> Percent {
    Percent::parse(text).unwrap()
}

/// Two ends; the first sends as `settings` say.
fn pair(settings: WireSettings) -> [Wire; 2] {
    pair_of(1, settings)
}

fn pair_of(seed: u64, settings: WireSettings) -> [Wire; 2] {
    let sending = WireOptions { settings, seed, ..WireOptions::to("") };
    Wire::pair(["a", "b"], [&sending, &WireOptions::to("")]).unwrap()
}

/// A frame with its number.
fn numbered(number: usize) -> Frame {
    let mut frame = plain(60, 0);
    frame.bytes_mut()[14..22].copy_from_slice(&(number as u64).to_be_bytes());
    frame
}

fn number(frame: &Frame) -> usize {
    u64::from_be_bytes(frame.bytes()[14..22].try_into().unwrap()) as usize
}

/// Sends frames `0..FRAMES`, and returns what came out at once.
fn crossed(settings: WireSettings, seed: u64) -> (Vec<Frame>, WireCounts, u32) {
    let [a, b] = pair_of(seed, settings);
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let (mut all, mut lost) = (Vec::new(), 0);
    for i in 0..FRAMES {
        assert_eq!(send_one(&mut *near, &numbered(i)), TxOutcome::Sent);
        let mut frames = buffers(3);
        let count = far.rx_burst(&mut frames).unwrap();
        all.extend(frames.drain(..count));
        lost += far.rx_dropped().map_or(0, |(_, reason, count)| {
            assert_eq!(reason, DropReason::LinkLoss);
            count
        });
    }
    (all, a.counts(), lost)
}

#[track_caller]
fn assert_share(count: usize, of: usize, p: f64) {
    let (mean, deviation) = (of as f64 * p, (of as f64 * p * (1.0 - p)).sqrt());
    assert!((count as f64 - mean).abs() < 4.0 * deviation, "{count} of {of}, not {mean}");
}

#[test]
fn frames_are_lost_by_their_share_and_the_others_stay_in_order() {
    let (frames, counts, lost) = crossed(WireSettings { loss: share("5%"), ..WireSettings::default() }, 1);
    let numbers: Vec<_> = frames.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "order is kept");
    assert_share(FRAMES - numbers.len(), FRAMES, 0.05);
    assert_eq!(lost as usize, FRAMES - numbers.len());
    assert_eq!(counts, WireCounts { sent: FRAMES as u64, lost: lost.into(), ..WireCounts::default() });
}

#[test]
fn equal_seeds_lose_the_same_frames_and_others_do_not() {
    let lossy = WireSettings { loss: share("20%"), ..WireSettings::default() };
    let of_seed = |seed| crossed(lossy, seed).0.iter().map(number).collect::<Vec<_>>();
    let one = of_seed(1);
    assert_eq!(one, of_seed(1));
    assert_ne!(one, of_seed(2));
}

#[test]
fn the_other_direction_has_settings_and_fates_of_its_own() {
    let both =
        WireOptions { settings: WireSettings { loss: share("50%"), ..WireSettings::default() }, ..WireOptions::to("") };
    let [a, b] = Wire::pair(["a", "b"], [&both, &both]).unwrap();
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for i in 0..200 {
        send_one(&mut *near, &numbered(i));
        there.push(far.rx_burst(&mut buffers(1)).unwrap());
        send_one(&mut *far, &numbered(i));
        back.push(near.rx_burst(&mut buffers(1)).unwrap());
    }
    assert_ne!(there, back);
    b.set(&WireSettings::default());
    for i in 0..20 {
        send_one(&mut *far, &numbered(i));
        assert_eq!(near.rx_burst(&mut buffers(1)).unwrap(), 1, "only the one way loses");
    }
}

#[test]
fn a_loss_wakes_the_receiver_that_is_to_count_it() {
    let [a, b] = pair(WireSettings { loss: share("100%"), ..WireSettings::default() });
    b.joined(sluice_flows::DpPort(7));
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    for _ in 0..3 {
        assert_eq!(far.rx_burst(&mut buffers(1)).unwrap(), 0);
        assert!(!far.worked() && !readable(&*far, 0));
        assert_eq!(send_one(&mut *near, &plain(60, 1)), TxOutcome::Sent);
        assert!(readable(&*far, 250));
        assert_eq!(far.rx_burst(&mut buffers(1)).unwrap(), 0);
        assert!(far.worked(), "it was not in vain");
        assert_eq!(far.rx_dropped(), Some((sluice_flows::DpPort(7), DropReason::LinkLoss, 1)));
        assert_eq!(far.rx_dropped(), None);
    }
    assert_eq!(a.under_way(), (0, 0));
}

#[test]
fn frames_are_doubled_by_their_share_one_right_behind_the_other() {
    let (frames, counts, _) = crossed(WireSettings { duplicate: share("10%"), ..WireSettings::default() }, 1);
    let mut copies = BTreeMap::new();
    frames.iter().for_each(|frame| *copies.entry(number(frame)).or_insert(0) += 1);
    assert!(frames.is_sorted_by_key(number));
    assert!((0..FRAMES).all(|i| matches!(copies.get(&i), Some(1 | 2))));
    let doubled = copies.values().filter(|count| **count == 2).count();
    assert_share(doubled, FRAMES, 0.1);
    assert_eq!(counts.duplicated as usize, doubled);
}

#[test]
fn frames_are_changed_by_their_share_in_one_bit_behind_the_link_header() {
    let (frames, counts, _) = crossed(WireSettings { corrupt: share("10%"), ..WireSettings::default() }, 1);
    assert_eq!(frames.len(), FRAMES);
    let mut places = BTreeMap::new();
    for (i, frame) in frames.iter().enumerate() {
        let sent = numbered(i);
        assert_eq!(frame.bytes()[..14], sent.bytes()[..14]);
        let differing: Vec<_> =
            (0..60 * 8).filter(|bit| (frame.bytes()[bit / 8] ^ sent.bytes()[bit / 8]) >> (bit % 8) & 1 == 1).collect();
        assert!(differing.len() <= 1, "{} bits of frame {i} differ", differing.len());
        differing.into_iter().for_each(|bit| *places.entry(bit).or_insert(0) += 1);
    }
    let changed: usize = places.values().sum();
    assert_share(changed, FRAMES, 0.1);
    assert_eq!(counts.corrupted as usize, changed);
    assert!(places.len() > 200, "{} places of 368", places.len());
}

/// The segments of a TCP super-frame as they are to come.
fn segments(frame: &Frame) -> Vec<Vec<u8>> {
    let (mut out, mut all) = (Frame::with_capacity(MAX_FRAME_LEN), Vec::new());
    let mut segments = Segmenter::new(frame).unwrap();
    while segments.next_into(&mut out).unwrap() {
        all.push(out.bytes().to_vec());
    }
    all
}

#[test]
fn each_segment_of_a_super_frame_has_a_fate_of_its_own() {
    let sent = tcp(60_000);
    let wanted = segments(&sent);
    let [a, b] = pair(WireSettings { loss: share("30%"), ..WireSettings::default() });
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let mut came = 0;
    for _ in 0..20 {
        assert_eq!(send_one(&mut *near, &sent), TxOutcome::Sent);
        let mut frames = buffers(wanted.len() + 1);
        let count = far.rx_burst(&mut frames).unwrap();
        let mut rest = wanted.iter();
        for frame in &frames[..count] {
            assert_eq!(frame.offload, Offload::NONE, "it is finished");
            assert!(rest.any(|segment| segment == frame.bytes()), "a segment, behind the one before");
        }
        came += count;
    }
    let all = 20 * wanted.len();
    assert_share(all - came, all, 0.3);
    assert_eq!((a.counts().sent, a.counts().lost), (all as u64, (all - came) as u64));
}

#[test]
fn a_change_of_a_segment_is_not_covered_by_a_checksum_filled_in_later() {
    let [a, b] = pair(WireSettings { corrupt: share("100%"), ..WireSettings::default() });
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    // A super-frame, and a frame of its own with a partial checksum.
    let mut single = tcp(1_000);
    single.offload.gso = GsoKind::None;
    single.offload.gso_size = 0;
    for sent in [tcp(20_000), single] {
        let wanted = segments(&sent);
        assert_eq!(send_one(&mut *near, &sent), TxOutcome::Sent);
        let mut frames = buffers(wanted.len() + 1);
        assert_eq!(far.rx_burst(&mut frames).unwrap(), wanted.len());
        for (frame, wanted) in frames.iter().zip(&wanted) {
            assert_eq!(frame.offload, Offload::NONE);
            let bits: u32 = frame.bytes().iter().zip(wanted).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(bits, 1);
        }
    }
}

#[test]
fn frames_that_are_reordered_overtake_and_the_others_keep_their_order() {
    let settings = WireSettings { delay: Duration::from_millis(200), reorder: share("10%"), ..WireSettings::default() };
    let [a, b] = pair(settings);
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    const SENT: usize = 1_000;
    let begun = Instant::now();
    for i in 0..SENT {
        assert_eq!(send_one(&mut *near, &numbered(i)), TxOutcome::Sent);
    }
    let mut frames = buffers(SENT);
    let first = far.rx_burst(&mut frames).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(200), "the machine stood still");
    let ahead: Vec<_> = frames[..first].iter().map(number).collect();
    assert!(ahead.is_sorted());
    assert_share(ahead.len(), SENT, 0.1);
    assert_eq!(a.counts().reordered as usize, ahead.len());
    let mut later = Vec::new();
    for _ in 0..1_000 {
        assert!(later.len() + first == SENT || readable(&*far, 250));
        let count = far.rx_burst(&mut frames).unwrap();
        later.extend(frames[..count].iter().map(number));
        if later.len() + first == SENT {
            break;
        }
    }
    assert!(later.is_sorted() && later.len() + first == SENT, "{} of {SENT}", later.len() + first);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_rate_is_kept_by_super_frames_and_by_frames_and_a_full_queue_drops() {
    let settings = WireSettings { rate: 10_000_000, queue: Queue::Packets(100), ..WireSettings::default() };
    for super_frames in [false, true] {
        let [a, b] = pair(settings);
        let (mut near, mut far) = (only_queue(&a), only_queue(&b));
        let sent = if super_frames { tcp(14_600) } else { plain(1_514, 1) };
        let begun = Instant::now();
        let (mut bits, mut got, mut full, mut frames) = (0, 0, 0, buffers(64));
        // 200 frames of 1518 bytes take 243 ms.
        for _ in 0..1_000_000 {
            full += u64::from(send_one(&mut *near, &sent) == TxOutcome::Dropped(DropReason::QueueFull));
            let count = far.rx_burst(&mut frames).unwrap();
            bits += frames[..count].iter().map(|frame| (frame.len() as u64 + 4) * 8).sum::<u64>();
            got += count;
            if got >= 200 {
                break;
            }
            assert!(count > 0 || readable(&*far, 250), "{got} frames came");
        }
        let took = begun.elapsed().as_secs_f64();
        let rate = bits as f64 / took;
        assert!(rate < 10_000_000.0 * 1.001, "{rate}");
        let counts = a.counts();
        assert!(full > 0 && counts.queue_full >= full && counts.lost == 0, "{full} {counts:?}");
        assert!((90..=100).contains(&a.waiting().packets), "{:?}", a.waiting());
    }
}
