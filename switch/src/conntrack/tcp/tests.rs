use super::super::timeouts::TimeoutClass;
use super::*;
use Direction::{Original, Reply};
use proptest::prelude::*;

/// A segment that allows 1000 bytes.
fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> TcpSegment {
    TcpSegment { seq, ack, window: 1000, flags, len }
}

/// A window scale option.
fn scale_option(scale: u8) -> [u8; 4] {
    [1, 3, 3, scale]
}

/// One step of a conversation: who sends, what, and what comes of it.
type Step = (&'static str, Direction, TcpSegment, Update);

/// Begins a connection with `first` and puts the steps through it.
fn play(first: TcpSegment, steps: &[Step]) -> TcpState {
    let tcp = TcpState::begin(&first, &[], false);
    follow(&tcp, steps);
    tcp
}

fn follow(tcp: &TcpState, steps: &[Step]) {
    for (what, direction, segment, expected) in steps {
        assert_eq!(tcp.update(*direction, segment, &[]), *expected, "{what}: {segment:?} {tcp:?}");
    }
}

fn states(tcp: &TcpState) -> [TcpEnd; 2] {
    tcp.ends.each_ref().map(End::state)
}

/// Established, from `a` and `b` on. Each end has sent a byte, or a SYN, last.
fn established(a: u32, b: u32) -> TcpState {
    let (first, second) = (a.wrapping_sub(2), a.wrapping_sub(1));
    play(
        segment(SYN, first, 0, 0),
        &[
            ("SYN ACK", Reply, segment(SYN | ACK, b.wrapping_sub(1), second, 0), Update::Valid),
            ("a byte", Original, segment(ACK, second, b, 1), Update::Valid),
            ("ACK", Reply, segment(ACK, b, a, 0), Update::Valid),
        ],
    )
}

#[test]
fn flags_stand_together_as_the_rules_say() {
    for flags in 0..0x40_u8 {
        let has = |bit: u8| flags & bit != 0;
        let without_ack = !has(ACK) && (has(FIN) || has(PSH) || has(URG));
        let sound = if has(SYN) { !has(RST) && !has(FIN) } else { has(ACK) || has(RST) };
        let segment = segment(flags, 1, 1, 0);
        assert_eq!(segment.is_sound(), sound && !without_ack, "{flags:#x}");
        assert_eq!(segment.may_begin(), segment.is_sound() && !(has(SYN) && has(ACK)), "{flags:#x}");
        if !segment.is_sound() {
            let tcp = established(1, 1);
            assert_eq!(tcp.update(Original, &segment, &[]), Update::Invalid, "{flags:#x}");
            assert_eq!(states(&tcp), [TcpEnd::Established; 2]);
        }
    }
}

#[test]
fn window_scale_options_are_found() {
    for (options, expected) in [
        (&[][..], 0),
        (&[3, 3, 7], SCALE_KNOWN | 7),
        (&[2, 4, 5, 180, 1, 3, 3, 7], SCALE_KNOWN | 7),
        (&[3, 3, 200], SCALE_KNOWN | 14),
        (&[0, 3, 3, 7], 0),
        (&[3, 3], 0),
        (&[5, 0, 3, 3, 7], SCALE_KNOWN | 7),
        (&[5, 255, 3, 3, 7], 0),
    ] {
        assert_eq!(window_scale(options), expected, "{options:?}");
    }
}

#[test]
fn a_connection_goes_through_its_states() {
    let tcp = play(segment(SYN, 99, 0, 0), &[("SYN again", Original, segment(SYN, 99, 0, 0), Update::New)]);
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::SynSent, TcpEnd::Closed], TimeoutClass::TcpSynSent));
    follow(&tcp, &[("SYN ACK", Reply, segment(SYN | ACK, 499, 100, 0), Update::Valid)]);
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::Established, TcpEnd::SynSent], TimeoutClass::TcpSynRecv));
    follow(
        &tcp,
        &[
            ("SYN ACK again", Reply, segment(SYN | ACK, 499, 100, 0), Update::Valid),
            ("ACK", Original, segment(ACK, 100, 500, 0), Update::Valid),
        ],
    );
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::Established; 2], TimeoutClass::TcpEstablished));
    follow(
        &tcp,
        &[
            ("FIN", Original, segment(FIN | ACK, 100, 500, 10), Update::Valid),
            ("FIN again", Original, segment(FIN | ACK, 100, 500, 10), Update::Valid),
        ],
    );
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::Closing, TcpEnd::Established], TimeoutClass::TcpFinWait));
    follow(&tcp, &[("half closed", Reply, segment(ACK, 500, 111, 100), Update::Valid)]);
    assert_eq!(states(&tcp), [TcpEnd::FinWait2, TcpEnd::Established]);
    follow(&tcp, &[("FIN of the other end", Reply, segment(FIN | ACK, 600, 111, 0), Update::Valid)]);
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::FinWait2, TcpEnd::Closing], TimeoutClass::TcpTimeWait));
    follow(&tcp, &[("last ACK", Original, segment(ACK, 111, 601, 0), Update::Valid)]);
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::FinWait2; 2], TimeoutClass::TcpClose));
    follow(
        &tcp,
        &[
            ("a stray", Reply, segment(ACK, 599, 111, 1), Update::Valid),
            ("a stray a little outside", Reply, segment(ACK, 601 + 5000, 111, 10), Update::Tolerated),
            ("a stray from elsewhere", Reply, segment(ACK, 601 + 200_000, 111, 10), Update::Invalid),
            ("SYN", Reply, segment(SYN, 5000, 0, 0), Update::Replaced),
        ],
    );
}

#[test]
fn fins_may_cross() {
    let tcp = established(100, 500);
    follow(
        &tcp,
        &[
            ("FIN", Original, segment(FIN | ACK, 100, 500, 0), Update::Valid),
            ("FIN at the same time", Reply, segment(FIN | ACK, 500, 100, 0), Update::Valid),
            ("ACK", Original, segment(ACK, 101, 501, 0), Update::Valid),
            ("ACK", Reply, segment(ACK, 501, 101, 0), Update::Valid),
        ],
    );
    assert_eq!(states(&tcp), [TcpEnd::FinWait2; 2]);
}

#[test]
fn both_ends_may_open_at_once() {
    let tcp = play(
        segment(SYN, 99, 0, 0),
        &[
            ("SYN of the other end", Reply, segment(SYN, 4_000_000_000, 0, 0), Update::New),
            ("SYN ACK", Original, segment(SYN | ACK, 99, 4_000_000_001, 0), Update::Valid),
            ("SYN ACK of the other end", Reply, segment(SYN | ACK, 4_000_000_000, 100, 0), Update::Valid),
        ],
    );
    assert_eq!(states(&tcp), [TcpEnd::Established; 2]);
    follow(
        &tcp,
        &[
            ("data", Original, segment(ACK, 100, 4_000_000_001, 900), Update::Valid),
            ("data", Reply, segment(ACK, 4_000_000_001, 1000, 900), Update::Valid),
            ("data outside", Reply, segment(ACK, 4_000_010_001, 1000, 900), Update::Invalid),
        ],
    );
}

#[test]
fn a_second_try_begins_with_its_own_number() {
    for (first, second) in [(1000, 3_000_000_000), (3_000_000_000, 1000)] {
        let tcp = play(
            segment(SYN, first, 0, 0),
            &[
                ("SYN of another try", Original, segment(SYN, second, 0, 0), Update::New),
                ("SYN ACK", Reply, segment(SYN | ACK, 499, second + 1, 0), Update::Valid),
                ("ACK", Original, segment(ACK, second + 1, 500, 0), Update::Valid),
                ("data", Original, segment(PSH | ACK, second + 1, 500, 1000), Update::Valid),
                ("ACK", Reply, segment(ACK, 500, second + 1001, 0), Update::Valid),
            ],
        );
        assert_eq!(states(&tcp), [TcpEnd::Established; 2]);
    }
}

#[test]
fn a_refused_connection_is_over() {
    let tcp = play(segment(SYN, 99, 0, 0), &[("refused", Reply, segment(RST | ACK, 0, 100, 0), Update::Valid)]);
    assert_eq!((states(&tcp), tcp.timeout_class()), ([TcpEnd::TimeWait; 2], TimeoutClass::TcpClose));
    follow(&tcp, &[("next try", Original, segment(SYN, 7777, 0, 0), Update::Replaced)]);
}

#[test]
fn a_connection_is_picked_up_in_the_middle() {
    // Windows are taken for scaled as far as may be, as nobody saw the SYNs.
    let tcp = play(
        segment(ACK, 1_000_000, 2_000_000, 100),
        &[
            ("more, not known to be allowed", Original, segment(ACK, 1_000_100, 2_000_000, 1400), Update::Tolerated),
            ("answer", Reply, segment(ACK, 2_000_000, 1_001_500, 1400), Update::Valid),
            ("far ahead", Original, segment(ACK, 1_001_500 + 500_000, 2_001_400, 1400), Update::Valid),
        ],
    );
    assert_eq!(states(&tcp), [TcpEnd::Established; 2]);
    assert_eq!(tcp.ends[0].scale(), None);
}

#[test]
fn a_picked_up_connection_may_be_answered_first_by_old_data() {
    let tcp = play(
        segment(ACK, 1_000_000, 2_000_000, 0),
        &[
            ("sent before", Reply, segment(ACK, 1_999_000, 999_000, 500), Update::Valid),
            ("answer", Original, segment(ACK, 1_000_000, 2_000_000, 0), Update::Valid),
        ],
    );
    assert_eq!(states(&tcp), [TcpEnd::Established; 2]);
}

#[test]
fn windows_are_scaled_when_both_ends_say_so() {
    let syn = segment(SYN, 99, 0, 0);
    let syn_ack = segment(SYN | ACK, 499, 100, 0);
    for (scales, reach, beyond) in [
        ([Some(7), Some(3)], 1000 << 3, 2000 << 3),
        ([Some(7), None], 1000, 1100),
        ([None, Some(7)], 1000, 1100),
        ([Some(14), Some(14)], 1000 << 14, 1001 << 14),
    ] {
        let options = scales.map(|scale| scale.map(scale_option));
        let [original, reply] = options.each_ref().map(|option| option.as_ref().map_or(&[][..], |o| &o[..]));
        let tcp = TcpState::begin(&syn, original, false);
        assert_eq!(tcp.update(Reply, &syn_ack, reply), Update::Valid);
        follow(
            &tcp,
            &[
                ("ACK", Original, segment(ACK, 100, 500, 0), Update::Valid),
                ("window update", Reply, segment(ACK, 500, 100, 0), Update::Valid),
                ("the last byte", Original, segment(ACK, 100 + reach - 1, 500, 1), Update::Valid),
                ("one beyond", Original, segment(ACK, 100 + beyond, 500, 1), Update::Invalid),
            ],
        );
    }
}

#[test]
fn an_offer_to_scale_that_is_not_taken_up_leaves_the_largest_window() {
    let syn = TcpSegment { window: 0xffff, ..segment(SYN, 99, 0, 0) };
    let tcp = TcpState::begin(&syn, &scale_option(7), false);
    assert_eq!(tcp.update(Reply, &segment(SYN | ACK, 499, 100, 0), &[]), Update::Valid);
    assert_eq!(tcp.ends[0].max_window(), 0xffff);
}

#[test]
fn a_rst_has_to_be_exact() {
    for (offset, expected) in
        [(-2, Update::Invalid), (-1, Update::Valid), (0, Update::Valid), (1, Update::Valid), (2, Update::Invalid)]
    {
        let tcp = established(100, 500);
        let rst = segment(RST, 100_u32.wrapping_add_signed(offset), 0, 0);
        assert_eq!(tcp.update(Original, &rst, &[]), expected, "{offset}");
        let over = if expected == Update::Valid { TcpEnd::TimeWait } else { TcpEnd::Established };
        assert_eq!(states(&tcp), [over; 2], "{offset}");
    }
}

#[test]
fn a_client_that_forgot_its_connection_gets_rid_of_it() {
    let tcp = established(100, 500);
    follow(
        &tcp,
        &[
            ("SYN of a new connection", Original, segment(SYN, 9_000_000, 0, 0), Update::Invalid),
            ("the server says where it is", Reply, segment(ACK, 500, 100, 0), Update::Valid),
            ("RST", Original, segment(RST, 100, 0, 0), Update::Valid),
            ("SYN again", Original, segment(SYN, 9_000_000, 0, 0), Update::Replaced),
        ],
    );
}

#[test]
fn what_lies_outside_the_windows_is_invalid() {
    let steps: [(&str, TcpSegment, Update); 10] = [
        ("retransmission of a window ago", segment(ACK, 100_u32.wrapping_sub(1000), 500, 10), Update::Valid),
        ("older", segment(ACK, 100_u32.wrapping_sub(1001), 500, 10), Update::Invalid),
        ("up to the window's end", segment(ACK, 100, 500, 1000), Update::Valid),
        ("a byte more", segment(ACK, 100, 500, 1001), Update::Invalid),
        ("keep-alive", segment(ACK, 99, 500, 0), Update::Valid),
        ("acknowledgement of what was not sent, a little", segment(ACK, 100, 500 + 67_035, 1), Update::Valid),
        ("likewise, more", segment(ACK, 100, 500 + 67_036, 1), Update::Invalid),
        ("old acknowledgement", segment(ACK, 100, 500_u32.wrapping_sub(67_035), 1), Update::Valid),
        ("older acknowledgement", segment(ACK, 100, 500_u32.wrapping_sub(67_036), 1), Update::Invalid),
        ("urgent", segment(ACK | URG, 100, 500, 10), Update::Valid),
    ];
    for (what, segment, expected) in steps {
        for liberal in [false, true] {
            let tcp = established(100, 500);
            tcp.liberal.store(liberal, Ordering::Relaxed);
            let expected = if liberal { Update::Valid } else { expected };
            assert_eq!(tcp.update(Original, &segment, &[]), expected, "{what} {liberal}");
        }
    }
}

#[test]
fn an_empty_segment_ahead_of_the_data_moves_nothing() {
    let tcp = established(100, 500);
    let ahead = segment(ACK, 1_000_000, 500, 0);
    assert!(tcp.admits(Original, &ahead));
    tcp.advance(Original, &ahead);
    assert_eq!(tcp.ends[0].seq_lo(), 100);
}

/// Everything that a connection remembers.
fn snapshot(tcp: &TcpState) -> [(u32, u32, u32, u8, TcpEnd); 2] {
    tcp.ends.each_ref().map(|end| (end.seq_lo(), end.seq_hi(), end.max_window(), end.raw_scale(), end.state()))
}

fn copy(tcp: &TcpState) -> TcpState {
    let copy = TcpState::default();
    copy.liberal.store(tcp.is_liberal(), Ordering::Relaxed);
    for (to, from) in copy.ends.iter().zip(&tcp.ends) {
        to.seq_lo.store(from.seq_lo(), Ordering::Relaxed);
        to.seq_hi.store(from.seq_hi(), Ordering::Relaxed);
        to.max_window.store(from.max_window(), Ordering::Relaxed);
        to.scale.store(from.raw_scale(), Ordering::Relaxed);
        to.set_state(from.state());
    }
    copy
}

/// A connection in any state, whose numbers are near each other and near the wrap.
fn any_state() -> impl Strategy<Value = TcpState> {
    let near = prop_oneof![Just(0_u32), Just(u32::MAX - 500), Just(1 << 31), any::<u32>()];
    let scale = prop_oneof![Just(0_u8), Just(SCALE_GUESSED), (0..=14_u8).prop_map(|scale| SCALE_KNOWN | scale)];
    let state = prop_oneof![4 => Just(4_u8), 1 => 0..=10_u8];
    let end = (near, -70_000..70_000_i32, 0..=0xffff_u32, scale, state);
    (end.clone(), end, any::<bool>()).prop_map(|(a, b, liberal)| {
        let tcp = TcpState { liberal: AtomicBool::new(liberal), ..TcpState::default() };
        for (end, (seq, room, window, scale, state)) in tcp.ends.iter().zip([a, b]) {
            end.seq_lo.store(seq, Ordering::Relaxed);
            end.seq_hi.store(seq.wrapping_add_signed(room), Ordering::Relaxed);
            end.max_window.store(window, Ordering::Relaxed);
            end.scale.store(scale, Ordering::Relaxed);
            end.state.store(state, Ordering::Relaxed);
        }
        tcp
    })
}

/// A segment whose numbers are near those of a connection.
fn near(tcp: &TcpState, direction: Direction, (seq, ack, window, flags, len): Drawn) -> TcpSegment {
    let (src, dst) = tcp.ends(direction);
    TcpSegment {
        seq: src.seq_lo().wrapping_add_signed(seq),
        ack: dst.seq_lo().wrapping_add_signed(ack),
        window,
        flags,
        len,
    }
}

type Drawn = (i32, i32, u16, u8, u32);

fn drawn() -> impl Strategy<Value = Drawn> {
    let distance = || prop_oneof![4 => -3..3_i32, 3 => -70_000..70_000_i32, 1 => any::<i32>()];
    let flags = prop_oneof![3 => Just(ACK), 1 => Just(ACK | PSH), 2 => 0..0x40_u8];
    (distance(), distance(), any::<u16>(), flags, prop_oneof![Just(0_u32), 1..3000_u32, 0..70_000_u32])
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Original), Just(Reply)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_quick_way_does_what_the_careful_way_does(tcp in any_state(), direction in any_direction(), drawn in drawn()) {
        let segment = near(&tcp, direction, drawn);
        if tcp.admits(direction, &segment) {
            let careful = copy(&tcp);
            prop_assert_eq!(careful.update(direction, &segment, &[]), Update::Valid);
            tcp.advance(direction, &segment);
            prop_assert_eq!(snapshot(&tcp), snapshot(&careful));
        }
    }

    #[test]
    fn what_is_plain_and_valid_takes_the_quick_way(tcp in any_state(), direction in any_direction(), drawn in drawn()) {
        let segment = near(&tcp, direction, drawn);
        let plain = segment.flags & !PSH == ACK && states(&tcp) == [TcpEnd::Established; 2];
        let quick = tcp.admits(direction, &segment);
        let valid = copy(&tcp).update(direction, &segment, &[]) == Update::Valid;
        prop_assert_eq!(quick, plain && valid);
    }

    #[test]
    fn numbers_never_go_back(tcp in any_state(), direction in any_direction(), drawn in drawn()) {
        // Before an end has sent anything its numbers are not its own.
        prop_assume!(states(&tcp).iter().all(|state| *state >= TcpEnd::Established));
        let before = snapshot(&tcp);
        tcp.update(direction, &near(&tcp, direction, drawn), &[]);
        for (old, new) in before.iter().zip(snapshot(&tcp)) {
            prop_assert!(reaches(new.0, old.0) && reaches(new.1, old.1) && new.2 >= old.2 && new.4 >= old.4);
        }
    }

    #[test]
    fn any_segment_after_any_other_is_taken_in(
        first in any::<(u32, u32, u16, u8, u16)>(), rest in proptest::collection::vec((any_direction(), drawn()), 0..40),
        options in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (seq, ack, window, flags, len) = first;
        let first = TcpSegment { seq, ack, window, flags: flags & 0x3f, len: len.into() };
        let tcp = TcpState::begin(&first, &options, false);
        for (direction, drawn) in rest {
            tcp.update(direction, &near(&tcp, direction, drawn), &options);
        }
    }
}

/// An end that keeps to the rules (RFC 9293): it sends what the other end allows, repeats what was lost, and never takes
/// back what it has allowed.
#[derive(Clone, Debug)]
struct Honest {
    /// First number not acknowledged, and first not sent.
    una: u32,
    next: u32,
    /// How far the other end allows.
    allowed: u32,
    /// What comes next from the other end, and how far that is allowed.
    expects: u32,
    allows: u32,
    scale: u32,
}

impl Honest {
    fn send(&mut self, what: u8, len: u32, window: u16) -> TcpSegment {
        let room = self.allowed.wrapping_sub(self.next).cast_signed().max(0).cast_unsigned();
        let (seq, len) = match what {
            // New data.
            0 | 1 => (self.next, len.min(room)),
            // What was not acknowledged, again.
            2 => (self.una, len.min(self.next.wrapping_sub(self.una))),
            // A keep-alive.
            3 => (self.una.wrapping_sub(1), 0),
            _ => (self.next, 0),
        };
        if seq == self.next {
            self.next = self.next.wrapping_add(len);
        }
        let kept = self.allows.wrapping_sub(self.expects).cast_signed().max(0).cast_unsigned();
        let window = u32::from(window).max(kept.div_ceil(1 << self.scale)).min(0xffff);
        self.allows = self.expects.wrapping_add(window << self.scale);
        TcpSegment { seq, ack: self.expects, window: window as u16, flags: ACK, len }
    }

    fn receive(&mut self, segment: &TcpSegment, other_scale: u32) {
        let end = segment.seq.wrapping_add(segment.len);
        if !after(segment.seq, self.expects) && after(end, self.expects) {
            self.expects = end;
        }
        if !after(segment.ack, self.next) && !after(self.una, segment.ack) {
            self.una = segment.ack;
        }
        let allowed = segment.ack.wrapping_add(u32::from(segment.window) << other_scale);
        if after(allowed, self.allowed) {
            self.allowed = allowed;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn who_keeps_to_the_rules_is_never_invalid(
        a in prop_oneof![Just(u32::MAX - 2000), any::<u32>()], b in prop_oneof![Just(u32::MAX - 2000), any::<u32>()],
        scales in proptest::option::of((0..=14_u8, 0..=14_u8)),
        steps in proptest::collection::vec((any_direction(), 0..6_u8, 1..40_000_u32, any::<u16>(), 0..4_u8), 1..200),
    ) {
        let options = scales.map(|(a, b)| [scale_option(a), scale_option(b)]);
        let [of_a, of_b] = options.as_ref().map_or([&[][..]; 2], |[a, b]| [&a[..], &b[..]]);
        let tcp = TcpState::begin(&segment(SYN, a, 0, 0), of_a, false);
        let (a, b) = (a.wrapping_add(1), b.wrapping_add(1));
        prop_assert_eq!(tcp.update(Reply, &segment(SYN | ACK, b.wrapping_sub(1), a, 0), of_b), Update::Valid);
        prop_assert_eq!(tcp.update(Original, &segment(ACK, a, b, 0), &[]), Update::Valid);
        let (scale_a, scale_b) = scales.map_or((0, 0), |(a, b)| (u32::from(a), u32::from(b)));
        let begin = |own: u32, other: u32, scale: u32| Honest {
            una: own, next: own, allowed: own.wrapping_add(1000), expects: other, allows: other.wrapping_add(1000), scale,
        };
        let mut ends = [begin(a, b, scale_a), begin(b, a, scale_b)];
        for (direction, what, len, window, lost) in steps {
            let [original, reply] = &mut ends;
            let (src, dst) = if direction == Original { (original, reply) } else { (reply, original) };
            let segment = src.send(what, len, window);
            prop_assert!(tcp.admits(direction, &segment), "{:?} {:?} {:?}", segment, src, tcp);
            tcp.advance(direction, &segment);
            if lost != 0 {
                dst.receive(&segment, src.scale);
            }
        }
    }
}
