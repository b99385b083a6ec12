//! The same packets with cached answers and without.

use super::super::Segment;
use super::super::tcp::{ACK, FIN, PSH, RST, SYN};
use super::super::testing::{Ends, Tcp, V4, V6, commit, look, pass};
use super::*;
use proptest::prelude::*;
use sluice_flows::packet::extract;
use std::collections::HashMap;

/// What a packet is told that a flow can match on.
type Answer = (u8, u32, u128);

/// A tracker, and answers of it that hold as long as their guards do, by what a cache knows packets by.
#[derive(Default)]
struct Cached {
    tracker: Tracker,
    answers: HashMap<(u8, bool), (Guard, Answer)>,
    hits: u32,
}

impl Cached {
    /// What a packet is told; by an answer that is there, if it holds.
    fn told(&mut self, frame: &mut Frame, known_by: (u8, bool), ask: &DpCt, now: Millis) -> Answer {
        let mut key = PacketKey::ZERO;
        let layers = extract(frame.bytes(), 0, &mut key);
        let segment = Segment::read(frame.bytes(), &layers);
        if let Some((guard, answer)) = self.answers.get(&known_by).filter(|_| ask.mark.is_none()) {
            let Guard { conn, direction, version } = guard;
            if conn.admits(*direction, *version, segment.as_ref(), now) {
                conn.pass(*direction, segment.as_ref(), now);
                conn.count(*direction, 1, frame.len() as u64);
                self.hits += 1;
                return *answer;
            }
        }
        let (answer, repeat) = told(&self.tracker, frame, ask, now);
        if let Repeat::Guarded(guard) = repeat {
            self.answers.insert(known_by, (guard, answer));
        }
        answer
    }
}

fn told(tracker: &Tracker, frame: &mut Frame, ask: &DpCt, now: Millis) -> (Answer, Repeat) {
    let mut tracked = Tracked::default();
    let repeat = pass(tracker, frame, ask, &mut tracked, now).unwrap();
    ((tracked.state, tracked.mark, tracked.label), repeat)
}

/// One packet: protocol, direction, what kind of it, two numbers, how long after the last, and whether it writes a mark.
type Step = (u8, bool, u8, i16, i16, u16, Option<u8>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let near = || prop_oneof![3 => Just(0_i16), 1 => -40..40_i16, 1 => any::<i16>()];
    let wait = prop_oneof![6 => 0..20_u16, 1 => 900..1100_u16, 1 => any::<u16>()];
    let mark = proptest::option::weighted(0.05, any::<u8>());
    proptest::collection::vec((0..4_u8, any::<bool>(), 0..24_u8, near(), near(), wait, mark), 1..120)
}

/// The frame of a step. Numbers of TCP are near those that the ends have sent so far.
fn frame((proto, reply, kind, seq, ack, ..): Step, sent: &mut [u32; 2]) -> Frame {
    let ends = if proto == 3 { V6 } else { V4 };
    let ends = if reply { ends.back() } else { ends };
    match proto {
        0 | 3 => ends.udp(usize::from(kind)),
        1 => sctp(ends, reply, kind),
        _ => {
            let (own, other) = (usize::from(reply), usize::from(!reply));
            let flags = match kind {
                0 => SYN,
                1 => SYN | ACK,
                2 => FIN | ACK,
                3 => RST,
                4 => FIN,
                5..12 => ACK,
                _ => ACK | PSH,
            };
            let len = if flags & PSH != 0 { usize::from(kind) } else { 0 };
            let number = sent[own].wrapping_add_signed(seq.into());
            let tcp = Tcp { len, ..Tcp::new(flags, number, sent[other].wrapping_add_signed(ack.into())) };
            if seq == 0 {
                sent[own] = number.wrapping_add(len as u32 + u32::from(flags & (SYN | FIN) != 0));
            }
            ends.tcp(&tcp)
        }
    }
}

/// A packet of an association whose tags are 7 and 9.
fn sctp(ends: Ends, reply: bool, kind: u8) -> Frame {
    let tag = if reply { 7 } else { 9 };
    let announced = |tag: u8| [&[0, 0, 0, tag][..], &[0; 12]].concat();
    match kind {
        0 => ends.sctp(0, &[(1, 0, &announced(if reply { 9 } else { 7 }))]),
        1 => ends.sctp(tag, &[(2, 0, &announced(if reply { 9 } else { 7 }))]),
        2 => ends.sctp(tag, &[(10, 0, &[])]),
        3 => ends.sctp(tag, &[(11, 0, &[])]),
        4 => ends.sctp(tag + 1, &[(0, 3, &[0; 12])]),
        5 => ends.sctp(tag, &[(kind, 0, &[])]),
        _ => ends.sctp(tag, &[(3, 0, &[0; 12]), (if kind == 6 { 7 } else { 0 }, 3, &[0; 12])]),
    }
}

/// Handshakes, so that most sequences are about established connections.
const HANDSHAKES: [Step; 9] = [
    (1, false, 0, 0, 0, 0, None),
    (1, true, 1, 0, 0, 0, None),
    (1, false, 2, 0, 0, 0, None),
    (1, true, 3, 0, 0, 0, None),
    (2, false, 0, 0, 0, 0, None),
    (2, true, 1, 0, 0, 0, None),
    (2, false, 5, 0, 0, 0, None),
    (0, false, 5, 0, 0, 0, None),
    (0, true, 5, 0, 0, 0, None),
];

#[test]
fn handshakes_lead_to_cached_answers() {
    let mut cached = Cached::default();
    let mut sent = [100, 500];
    let data = [0, 1, 2].map(|proto| (proto, false, 20, 0, 0, 0, None));
    for step in HANDSHAKES.into_iter().chain(data).chain(data) {
        cached.told(&mut frame(step, &mut sent), (step.0, step.1), &commit(5), Millis(0));
    }
    assert_eq!(cached.hits, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn caches_never_show(steps in steps(), established: bool) {
        let (mut cached, uncached) = (Cached::default(), Tracker::default());
        let (mut sent, mut now) = ([u32::MAX - 20, 500], 0);
        let before = HANDSHAKES.into_iter().filter(|_| established);
        for step in before.chain(steps) {
            now += u64::from(step.5);
            let mut frame = frame(step, &mut sent);
            let ask = DpCt { mark: step.6.map(|mark| (mark.into(), 0xff)), ..commit(5) };
            let expected = told(&uncached, &mut frame, &ask, Millis(now)).0;
            prop_assert_eq!(cached.told(&mut frame, (step.0, step.1), &ask, Millis(now)), expected, "{:?}", step);
        }
        // What is remembered is the same too.
        for ends in [V4, V6] {
            for mut frame in [ends.udp(1), sctp(ends, false, 9), ends.tcp(&Tcp::new(SYN | FIN, 0, 0))] {
                let conns = [&cached.tracker, &uncached].map(|tracker| {
                    let mut tracked = Tracked::default();
                    pass(tracker, &mut frame, &look(5), &mut tracked, Millis(now)).unwrap();
                    tracked.conn.map(|(conn, _)| {
                        let counted = [Direction::Original, Direction::Reply].map(|direction| conn.counted(direction));
                        (counted, conn.seen(), conn.state(), format!("{:?}", conn.protocol))
                    })
                });
                prop_assert_eq!(&conns[0], &conns[1]);
            }
        }
    }
}
