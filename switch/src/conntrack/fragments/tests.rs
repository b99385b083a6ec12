use super::*;
use proptest::prelude::*;
use sluice_flows::field::Field;
use sluice_flows::key::PacketKey;
use sluice_flows::packet::{checksum, extract, rewrite};

/// A datagram to be cut: addresses, protocol 17 and a payload that begins with a UDP header.
#[derive(Clone, Debug)]
struct Whole {
    v6: bool,
    id: u32,
    /// IPv4 options or an IPv6 destination options header in front of the fragment header; a multiple of 8 bytes.
    extra: usize,
    /// VLAN tags.
    tags: usize,
    body: Vec<u8>,
}

impl Whole {
    fn new(v6: bool, len: usize) -> Self {
        let mut body: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
        let (src, dst) = addresses(v6);
        body[..8].copy_from_slice(&[0x30, 0x39, 0, 53, (len >> 8) as u8, len as u8, 0, 0]);
        let pseudo = match v6 {
            true => checksum::pseudo_v6(src.try_into().unwrap(), dst.try_into().unwrap(), 17, len as u32),
            false => checksum::pseudo_v4(src.try_into().unwrap(), dst.try_into().unwrap(), 17, len as u16),
        };
        let sum = checksum::udp(!checksum::add(checksum::sum(&body), pseudo));
        body[6..8].copy_from_slice(&sum.to_be_bytes());
        Self { v6, id: 7, extra: 0, tags: 0, body }
    }

    /// The fragment with these bytes of the body.
    fn cut(&self, from: usize, to: usize) -> Frame {
        self.piece(from, &self.body[from..to], to < self.body.len())
    }

    fn piece(&self, from: usize, body: &[u8], more: bool) -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..self.tags {
            bytes.extend([0x81, 0, 0, 5]);
        }
        let (src, dst) = addresses(self.v6);
        if self.v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(((self.extra + 8 + body.len()) as u16).to_be_bytes());
            bytes.extend([if self.extra > 0 { 60 } else { 44 }, 64]);
            bytes.extend([src, dst].concat());
            if self.extra > 0 {
                bytes.extend([44, (self.extra / 8 - 1) as u8]);
                bytes.extend(vec![0; self.extra - 2]);
            }
            bytes.extend([17, 0]);
            bytes.extend((from as u16 | u16::from(more)).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
        } else {
            bytes.extend([0x08, 0]);
            let mut header = vec![0x45 + (self.extra / 4) as u8, 0];
            header.extend(((20 + self.extra + body.len()) as u16).to_be_bytes());
            header.extend((self.id as u16).to_be_bytes());
            header.extend(((from / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            header.extend([64, 17, 0, 0]);
            header.extend([src, dst].concat());
            header.extend(vec![1; self.extra]);
            let sum = checksum::checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            bytes.extend(header);
        }
        bytes.extend(body);
        Frame::from_bytes(&bytes)
    }

    /// The datagram as one packet: of IPv6 with a fragment header that says so.
    fn uncut(&self) -> Frame {
        self.cut(0, self.body.len())
    }
}

fn addresses(v6: bool) -> (Vec<u8>, Vec<u8>) {
    let address = |last: u8| match v6 {
        true => [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat(),
        false => vec![10, 0, 0, last],
    };
    (address(1), address(2))
}

fn layers(frame: &Frame) -> Layers {
    extract(frame.bytes(), 0, &mut { PacketKey::ZERO })
}

fn origin(ingress: u32) -> Origin {
    Origin { ingress: DpPort(ingress), counted: true }
}

/// Lets so many fragments of any size wait.
fn limit(fragments: &Fragments, max_fragments: u32) {
    let limits = FragmentLimits { max_fragments, min_v4: 0, min_v6: 0, ..FragmentLimits::default() };
    fragments.set(FragmentSettings { limits, ..FragmentSettings::default() });
}

/// A store that takes fragments of any size.
fn store() -> Fragments {
    let fragments = Fragments::default();
    limit(&fragments, FragmentLimits::default().max_fragments);
    fragments
}

fn take(fragments: &Fragments, frame: &Frame, from: u32, now: u64) -> Taken {
    fragments.take((frame, &layers(frame)), (1, 0), origin(from), Millis(now))
}

fn whole(taken: Taken) -> Datagram {
    match taken {
        Taken::Whole(datagram) => *datagram,
        other => panic!("{other:?}"),
    }
}

fn is_held(taken: &Taken) -> bool {
    matches!(taken, Taken::Held)
}

fn is_refused(taken: &Taken) -> bool {
    matches!(taken, Taken::Refused)
}

#[test]
fn fragments_in_any_order_become_the_datagram_and_go_on_as_they_came() {
    for v6 in [false, true] {
        let datagram = Whole::new(v6, 100);
        let cuts = [datagram.cut(0, 32), datagram.cut(32, 64), datagram.cut(64, 100)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let fragments = store();
            let [a, b, c] = order.map(|i| &cuts[i]);
            assert!(is_held(&take(&fragments, a, 10, 0)) && is_held(&take(&fragments, b, 11, 0)), "{order:?}");
            assert_eq!(fragments.len(), 2);
            let done = whole(take(&fragments, c, 12, 0));
            assert_eq!(done.whole.bytes(), datagram.uncut().bytes(), "v6 {v6} {order:?}");
            let mut last = Frame::from_bytes(c.bytes());
            let others = done.divide(&mut last).unwrap();
            let came: Vec<_> = others.iter().map(|(frame, origin)| (frame.bytes(), origin.ingress.0)).collect();
            assert_eq!(came, [(a.bytes(), 10), (b.bytes(), 11)]);
            assert_eq!(last.bytes(), c.bytes());
            let stats = fragments.stats();
            let counts = if v6 { stats.v6 } else { stats.v4 };
            assert_eq!((stats.waiting, stats.datagrams, counts.accepted, counts.completed), (0, 0, 3, 3));
        }
    }
}

#[test]
fn fragments_of_other_datagrams_zones_and_places_are_kept_apart() {
    let fragments = store();
    let datagram = Whole::new(false, 64);
    let (first, last) = (datagram.cut(0, 32), datagram.cut(32, 64));
    assert!(is_held(&take(&fragments, &first, 0, 0)));
    let other = Whole { id: 8, ..datagram };
    assert!(is_held(&take(&fragments, &other.cut(32, 64), 0, 0)), "another identification");
    let taken = |at| fragments.take((&last, &layers(&last)), at, origin(0), Millis(0));
    assert!(is_held(&taken((2, 0))), "another zone");
    assert!(is_held(&taken((1, 5))), "another place");
    assert_eq!(whole(taken((1, 0))).whole.len(), first.len() + 32);
    assert_eq!(fragments.stats().datagrams, 3);
}

#[test]
fn a_fragment_that_comes_twice_is_refused_and_the_datagram_still_becomes_whole() {
    let fragments = store();
    let datagram = Whole::new(false, 64);
    let first = datagram.cut(0, 32);
    assert!(is_held(&take(&fragments, &first, 0, 0)));
    assert!(is_refused(&take(&fragments, &first, 0, 0)));
    assert_eq!(fragments.stats().v4.duplicate, 1);
    assert_eq!(whole(take(&fragments, &datagram.cut(32, 64), 0, 0)).whole.bytes(), datagram.uncut().bytes());
}

#[test]
fn fragments_that_overlap_give_the_datagram_up_until_its_time_is_over() {
    let datagram = Whole::new(true, 96);
    let mut forged = datagram.body[32..64].to_vec();
    forged[9] ^= 1;
    let overlapping = [
        ("from below", datagram.piece(24, &datagram.body[24..40], true)),
        ("from above", datagram.piece(56, &datagram.body[56..72], true)),
        ("around", datagram.piece(24, &datagram.body[24..72], true)),
        ("within", datagram.piece(40, &datagram.body[40..48], true)),
        ("the same place, other bytes", datagram.piece(32, &forged, true)),
        ("the last, but not behind all", datagram.piece(24, &datagram.body[24..32], false)),
    ];
    for (what, overlapping) in overlapping {
        let fragments = store();
        assert!(is_held(&take(&fragments, &datagram.cut(32, 64), 3, 0)));
        assert!(is_refused(&take(&fragments, &overlapping, 4, 1)), "{what}");
        assert_eq!(fragments.len(), 0);
        assert!(fragments.is_due(Millis(1)));
        assert_eq!(fragments.reap(Millis(1)), [origin(3)], "{what}");
        assert!(is_refused(&take(&fragments, &datagram.cut(0, 32), 5, 14_999)), "{what}");
        let counts = fragments.stats().v6;
        assert_eq!((counts.rejected, counts.overlapped, counts.expired), (1, 2, 0), "{what}");
        assert!(is_held(&take(&fragments, &datagram.cut(0, 32), 5, 15_000)), "{what}: its time is over");
        assert_eq!(fragments.stats().datagrams, 1);
    }
}

#[test]
fn bytes_behind_the_last_fragment_give_the_datagram_up() {
    let datagram = Whole::new(false, 96);
    let fragments = store();
    let last = datagram.piece(32, &datagram.body[32..64], false);
    assert!(is_held(&take(&fragments, &last, 0, 0)));
    assert!(is_refused(&take(&fragments, &datagram.cut(64, 96), 0, 0)), "another last one");
    let fragments = store();
    assert!(is_held(&take(&fragments, &last, 0, 0)));
    assert!(is_refused(&take(&fragments, &datagram.piece(64, &datagram.body[64..80], true), 0, 0)));
}

#[test]
fn a_fragment_that_can_be_part_of_no_datagram_is_refused() {
    let datagram = Whole::new(false, 64);
    let mut broken = datagram.cut(0, 32);
    broken.bytes_mut()[25] ^= 1;
    let v6 = Whole::new(true, 64);
    let cases = [
        ("no bytes", datagram.piece(32, &[], false)),
        ("the next one cannot begin where it ends", datagram.piece(0, &[0; 31], true)),
        ("past the longest datagram", datagram.piece(65_528, &[0; 8], false)),
        ("header checksum", broken),
        ("no bytes, IPv6", v6.piece(32, &[], false)),
        ("the next one cannot begin where it ends, IPv6", v6.piece(0, &[0; 33], true)),
        ("past the longest payload", v6.piece(65_528, &[0; 16], false)),
    ];
    let fragments = store();
    for (what, frame) in cases {
        assert!(is_refused(&take(&fragments, &frame, 0, 0)), "{what}");
    }
    let stats = fragments.stats();
    assert_eq!((stats.v4.malformed, stats.v6.malformed, stats.datagrams), (4, 3, 0));
}

#[test]
fn a_datagram_that_is_longer_than_its_headers_can_say_is_given_up() {
    let fragments = store();
    let datagram = Whole { extra: 8, ..Whole::new(false, 65_535 - 24) };
    assert!(is_held(&take(&fragments, &datagram.cut(0, 65_504), 2, 0)));
    assert!(is_refused(&take(&fragments, &datagram.cut(65_504, 65_511), 0, 0)), "four bytes too long");
    assert_eq!(fragments.reap(Millis(0)), [origin(2)]);
    let fits = Whole::new(false, 65_535 - 20);
    assert!(is_held(&take(&fragments, &Whole { id: 9, ..fits.clone() }.cut(0, 65_504), 0, 0)));
    let done = whole(take(&fragments, &Whole { id: 9, ..fits }.cut(65_504, 65_515), 0, 0));
    assert_eq!(done.whole.len(), 14 + 65_535);
}

#[test]
fn a_fragment_below_the_smallest_size_is_refused_unless_it_is_the_last() {
    let fragments = Fragments::default();
    for (v6, headers, min) in [(false, 20_usize, 1200), (true, 48, 1280)] {
        let datagram = Whole::new(v6, 4000);
        // The body of fragments has to be a multiple of 8 bytes long.
        let (fits, too_small) = ((min - headers).div_ceil(8) * 8, (min - headers - 1) / 8 * 8);
        assert!(is_refused(&take(&fragments, &datagram.cut(0, too_small), 0, 0)));
        assert!(is_held(&take(&fragments, &datagram.cut(0, fits), 0, 0)));
        assert!(is_held(&take(&fragments, &datagram.cut(3992, 4000), 0, 0)), "the last");
    }
    let stats = fragments.stats();
    assert_eq!((stats.v4.too_small, stats.v6.too_small, stats.waiting), (1, 1, 4));
}

#[test]
fn fragments_whose_datagram_is_not_whole_in_time_are_dropped() {
    let fragments = store();
    let (a, b) = (Whole::new(false, 64), Whole { id: 8, ..Whole::new(false, 64) });
    assert!(!fragments.is_due(Millis(u64::MAX - 1)), "nothing waits");
    assert!(is_held(&take(&fragments, &a.cut(0, 32), 1, 100)));
    assert!(is_held(&take(&fragments, &b.cut(0, 32), 2, 200)));
    assert!(!fragments.is_due(Millis(15_099)));
    assert!(fragments.is_due(Millis(15_100)));
    assert_eq!(fragments.reap(Millis(15_100)), [origin(1)]);
    assert!(!fragments.is_due(Millis(15_100)));
    assert!(is_held(&take(&fragments, &a.cut(32, 64), 1, 15_100)), "the first is gone");
    assert!(is_held(&take(&fragments, &b.cut(32, 64), 2, 15_200)), "too late by a moment, though nobody has looked");
    assert_eq!(fragments.reap(Millis(15_200)), [origin(2)]);
    let stats = fragments.stats();
    assert_eq!((stats.v4.expired, stats.v4.completed, stats.waiting), (2, 0, 2));
}

#[test]
fn a_flood_of_fragments_does_not_keep_honest_ones_from_each_other() {
    let fragments = store();
    limit(&fragments, 50);
    for id in 0..=65_535 {
        let attack = Whole { id, ..Whole::new(false, 64) };
        assert!(is_held(&take(&fragments, &attack.cut(0, 32), 1, 0)));
        assert!(fragments.len() <= 50);
        if id % 1000 == 999 {
            let honest = Whole { id: id + 70_000, ..Whole::new(true, 64) };
            assert!(is_held(&take(&fragments, &honest.cut(0, 32), 2, 0)));
            whole(take(&fragments, &honest.cut(32, 64), 2, 0));
        }
        fragments.reap(Millis(0));
    }
    let FragmentStats { waiting, v4, v6, .. } = fragments.stats();
    assert_eq!((v6.completed, v6.evicted), (130, 0));
    assert_eq!(v4.accepted, v4.evicted + waiting as u64);
}

#[test]
fn datagrams_that_were_given_up_take_room_too() {
    let fragments = store();
    limit(&fragments, 20);
    for id in 0..1000 {
        let attack = Whole { id, ..Whole::new(false, 64) };
        assert!(is_held(&take(&fragments, &attack.cut(0, 32), 1, 0)));
        assert!(is_refused(&take(&fragments, &attack.piece(8, &[0; 32], true), 1, 0)));
        assert!(fragments.stats().datagrams <= 20);
    }
    assert_eq!(fragments.reap(Millis(0)).len(), 1000);
}

#[test]
fn many_fragments_of_one_datagram_and_many_bytes_are_bounded_too() {
    let fragments = store();
    limit(&fragments, 20);
    let small = Whole::new(false, 800);
    for i in 0..20 {
        assert!(is_held(&take(&fragments, &small.cut(i * 8, i * 8 + 8), 0, 0)));
    }
    assert!(is_refused(&take(&fragments, &small.cut(160, 168), 0, 0)), "nothing else could give way");
    assert_eq!(fragments.stats().v4.full, 1);
    let large = |id| Whole { id, ..Whole::new(false, 60_000) };
    for id in 100..110 {
        assert!(is_held(&take(&fragments, &large(id).cut(0, 59_992), 0, 0)));
    }
    assert_eq!(fragments.len(), 2, "{} bytes at most", 128 << 10);
    limit(&fragments, 0);
    assert!(is_refused(&take(&fragments, &large(7).cut(0, 59_992), 0, 0)), "turned off");
}

#[test]
fn a_family_that_is_not_put_together_is_refused() {
    let fragments = Fragments::default();
    fragments.set(FragmentSettings { v4: false, ..FragmentSettings::default() });
    for v6 in [false, true] {
        let taken = take(&fragments, &Whole::new(v6, 4000).cut(0, 1400), 0, 0);
        assert_eq!(is_held(&taken), v6);
    }
}

#[test]
fn copies_that_are_counted_elsewhere_are_not_told_of() {
    let fragments = store();
    let datagram = Whole::new(false, 64);
    let copy = Origin { counted: false, ..origin(1) };
    let frame = datagram.cut(0, 32);
    assert!(is_held(&fragments.take((&frame, &layers(&frame)), (1, 0), copy, Millis(0))));
    assert_eq!(fragments.reap(Millis(15_000)), []);
    assert_eq!(fragments.stats().v4.expired, 1);
}

#[test]
fn a_datagram_that_has_grown_cannot_be_divided() {
    let fragments = store();
    let datagram = Whole::new(false, 64);
    take(&fragments, &datagram.cut(0, 32), 6, 0);
    let mut last = datagram.cut(32, 64);
    let mut done = whole(take(&fragments, &last, 0, 0));
    let len = done.whole.len();
    done.whole.open_gap(len, 4).unwrap();
    assert_eq!(done.divide(&mut last).unwrap_err(), [origin(6)]);
}

#[test]
fn an_ipv6_fragment_that_is_the_whole_goes_on_at_once() {
    // Reserved bits make it a fragment for whoever reads the key.
    let datagram = Whole::new(true, 64);
    let mut frame = datagram.uncut();
    frame.bytes_mut()[14 + 40 + 3] = 2;
    let done = whole(take(&store(), &frame, 0, 0));
    assert_eq!(done.whole.bytes(), datagram.uncut().bytes());
    assert!(done.divide(&mut frame).unwrap().is_empty());
    assert_eq!(frame.bytes()[14 + 40 + 3], 2);
}

/// Lengths in units of 8 bytes for the pieces, what is left over for the last, and in which order they come.
fn splits() -> impl Strategy<Value = (Vec<usize>, usize, Vec<prop::sample::Index>)> {
    (prop::collection::vec(1..40_usize, 1..12), 1..8_usize, prop::collection::vec(any::<prop::sample::Index>(), 12))
}

proptest! {
    /// What is done to the whole is done to the fragments: they are what would come of cutting the datagram afterwards.
    #[test]
    fn dividing_what_was_rewritten_gives_the_fragments_of_the_rewritten_datagram(
        v6 in any::<bool>(),
        extra in 0..3_usize,
        tags in 0..3_usize,
        (lens, tail, picks) in splits(),
        address in any::<u32>(),
        port in any::<u16>(),
    ) {
        let total = lens.iter().sum::<usize>() * 8 + tail;
        let datagram = Whole { extra: extra * 8, tags, ..Whole::new(v6, total.max(9)) };
        let mut bounds = vec![0];
        bounds.extend(lens.iter().scan(0, |at, len| { *at += len * 8; Some(*at) }));
        bounds.push(datagram.body.len());
        let mut left: Vec<_> = bounds.windows(2).map(|w| (w[0], w[1])).collect();
        let mut order = Vec::new();
        for pick in picks.iter().cycle().take(left.len()) {
            order.push(left.swap_remove(pick.index(left.len())));
        }

        let fragments = store();
        let (&(from, to), before) = order.split_last().unwrap();
        for (at, &(from, to)) in before.iter().enumerate() {
            prop_assert!(is_held(&take(&fragments, &datagram.cut(from, to), at as u32, 0)));
        }
        let mut last = datagram.cut(from, to);
        let mut done = whole(take(&fragments, &last, 99, 0));
        let mut expected = datagram.uncut();
        prop_assert_eq!(done.whole.bytes(), expected.bytes());

        let source = if v6 { Field::Ipv6Src } else { Field::IpSrc };
        for frame in [&mut done.whole, &mut expected] {
            let layers = layers(frame);
            prop_assert!(rewrite::set_field(frame, &layers, source, address.into(), u32::MAX.into()));
            prop_assert!(rewrite::set_field(frame, &layers, Field::UdpSrc, port.into(), u16::MAX.into()));
        }
        let headers = expected.len() - datagram.body.len();
        let renewed = |from: usize, to: usize| {
            let body = &expected.bytes()[headers + from..headers + to];
            let mut frame = datagram.piece(from, body, to < datagram.body.len());
            let layers = Layers { l4: sluice_flows::packet::L4::None, ..layers(&frame) };
            rewrite::set_field(&mut frame, &layers, source, address.into(), u32::MAX.into());
            frame.bytes().to_vec()
        };
        let others = done.divide(&mut last).unwrap();
        prop_assert_eq!(others.len(), before.len());
        for ((frame, origin), (at, &(from, to))) in others.iter().zip(before.iter().enumerate()) {
            prop_assert_eq!(frame.bytes(), renewed(from, to));
            prop_assert_eq!(origin.ingress.0, at as u32);
        }
        prop_assert_eq!(last.bytes(), renewed(from, to));
        prop_assert_eq!(fragments.len(), 0);
    }

    /// Whatever the bytes are: no panic, and the counters add up.
    #[test]
    fn any_bytes_are_taken_or_refused(frames in prop::collection::vec((any::<bool>(), 0..40_usize, 0..40_usize,
        any::<bool>(), prop::collection::vec((0..90_usize, any::<u8>()), 0..3)), 1..40)) {
        let fragments = store();
        limit(&fragments, 8);
        let mut lost = 0;
        for (v6, at, len, more, damage) in frames {
            let datagram = Whole::new(v6, 700);
            let mut frame = datagram.piece(at * 8, &datagram.body[at * 8..at * 8 + len * 8], more);
            for (place, value) in damage {
                if let Some(byte) = frame.bytes_mut().get_mut(place) {
                    *byte = value;
                }
            }
            if let Taken::Whole(done) = take(&fragments, &frame, 0, 0) {
                _ = done.divide(&mut frame);
            }
            lost += fragments.reap(Millis(0)).len() as u64;
        }
        let stats = fragments.stats();
        prop_assert!(stats.waiting <= 8 && stats.waiting == fragments.len());
        for counts in [stats.v4, stats.v6] {
            prop_assert_eq!(counts.expired, 0);
        }
        let sum = |count: fn(&FragmentCounts) -> u64| count(&stats.v4) + count(&stats.v6);
        prop_assert_eq!(sum(|c| c.rejected) + sum(|c| c.evicted), lost);
        prop_assert_eq!(sum(|c| c.accepted), sum(|c| c.completed) + lost + stats.waiting as u64);
    }
}
