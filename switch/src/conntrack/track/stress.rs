//! Several workers at one connection.

use super::super::tcp::{ACK, FIN, PSH, SYN, TcpEnd};
use super::super::testing::{Ends, Tcp, V4, commit, look, once, pass, words};
use super::super::{ConnState, Segment};
use super::*;
use sluice_flows::packet::extract;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

/// Bytes in a segment, and segments that may be on their way.
const LEN: u32 = 100;
const ALLOWED: u32 = 8;
/// Segments that each worker sends.
const SENT: u32 = 3000;

/// What an end has sent and the other end has got, in segments. Only what has been tracked is got, as the tracker stands
/// between the two.
#[derive(Default)]
struct Stream {
    next: u32,
    /// Everything up to here has been tracked.
    got: u32,
    /// Tracked too, behind a gap.
    ahead: BTreeSet<u32>,
    /// How far segments are allowed by an acknowledgement that has been tracked.
    allowed: u32,
}

impl Stream {
    fn tracked(&mut self, index: u32) {
        self.ahead.insert(index);
        while self.ahead.remove(&self.got) {
            self.got += 1;
        }
    }
}

/// First sequence numbers of the two directions; both wrap on the way.
const FIRST: [u32; 2] = [u32::MAX - 50_000, u32::MAX - 7];

struct Connection {
    tracker: Tracker,
    streams: [Mutex<Stream>; 2],
}

impl Connection {
    fn established() -> Self {
        let streams = [(); 2].map(|()| Mutex::new(Stream { allowed: ALLOWED, ..Stream::default() }));
        let connection = Self { tracker: Tracker::default(), streams };
        let [a, b] = FIRST;
        for (ends, flags, seq, ack) in [
            (V4, SYN, a.wrapping_sub(1), 0),
            (V4.back(), SYN | ACK, b.wrapping_sub(1), a),
            (V4, ACK, a, b),
            (V4.back(), ACK, b, a),
        ] {
            let (tracked, _) = once(&connection.tracker, connection.frame(ends, flags, seq, ack, 0), &commit(5));
            assert_ne!(words(tracked.state), "inv");
        }
        connection
    }

    fn frame(&self, ends: Ends, flags: u8, seq: u32, ack: u32, len: u32) -> Frame {
        ends.tcp(&Tcp { window: (ALLOWED * LEN) as u16, len: len as usize, ..Tcp::new(flags, seq, ack) })
    }

    fn ends(direction: Direction) -> Ends {
        if direction == Direction::Original { V4 } else { V4.back() }
    }

    /// One worker's segments of a direction: data where it is allowed, else an acknowledgement.
    fn send(&self, direction: Direction) {
        let (own, other) = (direction as usize, direction.opposite() as usize);
        let mut guard: Option<Guard> = None;
        for turn in 0..SENT {
            let got = self.streams[other].lock().unwrap().got;
            let (index, len) = {
                let mut stream = self.streams[own].lock().unwrap();
                let room = stream.next < stream.allowed;
                let index = stream.next;
                stream.next += u32::from(room);
                (index, if room { LEN } else { 0 })
            };
            let (seq, ack) = (FIRST[own].wrapping_add(index * LEN), FIRST[other].wrapping_add(got * LEN));
            let frame = self.frame(Self::ends(direction), if len > 0 { ACK | PSH } else { ACK }, seq, ack, len);
            let numbers = self.numbers();
            self.track(frame, direction, &mut guard, turn % 2 == 0);
            for (old, new) in numbers.iter().flatten().zip(self.numbers().iter().flatten()) {
                assert!(new.wrapping_sub(*old).cast_signed() >= 0, "{direction:?} went back from {old} to {new}");
            }
            if len > 0 {
                self.streams[own].lock().unwrap().tracked(index);
            }
            let mut stream = self.streams[other].lock().unwrap();
            stream.allowed = stream.allowed.max(got + ALLOWED);
        }
    }

    /// Has a frame taken in, as a cached answer does or by asking the tracker.
    fn track(&self, mut frame: Frame, direction: Direction, guard: &mut Option<Guard>, quick: bool) {
        if let Some(guard) = guard.as_ref().filter(|_| quick) {
            let mut key = PacketKey::ZERO;
            let layers = extract(frame.bytes(), 0, &mut key);
            let segment = Segment::read(frame.bytes(), &layers);
            if guard.conn.admits(direction, guard.version, segment.as_ref(), Millis(0)) {
                return guard.conn.pass(direction, segment.as_ref(), Millis(0));
            }
        }
        let mut tracked = Tracked::default();
        let repeat = pass(&self.tracker, &mut frame, &look(5), &mut tracked, Millis(0)).unwrap();
        let expected = if direction == Direction::Original { "est" } else { "est rpl" };
        assert_eq!(words(tracked.state), expected, "{frame:?} {:?}", tracked.conn);
        // Not if a mark was written just then.
        if let Repeat::Guarded(new) = repeat {
            *guard = Some(new);
        }
    }

    /// What forces everybody the long way, and what must not count.
    fn disturb(&self, stop: &AtomicBool) {
        let mut mark = 0;
        while !stop.load(Ordering::Relaxed) {
            mark += 1;
            let ask = DpCt { mark: Some((mark, !0)), ..look(5) };
            let stray = self.frame(V4, ACK, FIRST[0].wrapping_add(1 << 30), FIRST[1], 1);
            let (tracked, _) = once(&self.tracker, stray, &ask);
            assert_eq!((words(tracked.state).as_str(), tracked.mark), ("inv", mark));
            thread::yield_now();
        }
    }

    fn numbers(&self) -> [[u32; 2]; 2] {
        let (tracked, _) = once(&self.tracker, self.frame(V4, SYN | FIN, 0, 0, 0), &look(5));
        let conn = tracked.conn.unwrap().0;
        let Protocol::Tcp(tcp) = &conn.protocol else { panic!("TCP") };
        tcp.ends.each_ref().map(|end| [end.seq_lo(), end.seq_hi()])
    }
}

#[test]
fn workers_at_both_directions_of_a_connection_never_lose_it() {
    let connection = Connection::established();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| connection.disturb(&stop));
        let workers = [Direction::Original, Direction::Reply, Direction::Original, Direction::Reply].map(|direction| {
            scope.spawn({
                let connection = &connection;
                move || connection.send(direction)
            })
        });
        let ended = workers.map(|worker| worker.join());
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    let sent = connection.streams.each_ref().map(|stream| stream.lock().unwrap().got);
    assert!(sent.iter().all(|sent| *sent > ALLOWED), "nothing moved: {sent:?}");
    let [a, b] = [0, 1].map(|end| FIRST[end].wrapping_add(sent[end] * LEN));
    assert_eq!(connection.numbers().map(|[lo, _]| lo), [a, b], "the numbers are where the data ends");
    let mut conn = None;
    for (ends, flags, seq, ack) in [
        // A FIN needs room for a byte.
        (V4, ACK, a, b),
        (V4.back(), ACK, b, a),
        (V4, FIN | ACK, a, b),
        (V4.back(), FIN | ACK, b, a.wrapping_add(1)),
        (V4, ACK, a.wrapping_add(1), b.wrapping_add(1)),
    ] {
        let frame = connection.frame(ends, flags, seq, ack, 0);
        let (tracked, _) = once(&connection.tracker, frame, &look(5));
        assert!(words(tracked.state).starts_with("est"), "{flags:#x}");
        conn = tracked.conn;
    }
    assert_eq!(conn.unwrap().0.state(), ConnState::Tcp([TcpEnd::FinWait2; 2]));
}

#[test]
fn workers_that_commit_at_once_get_the_same_connection() {
    const WORKERS: u16 = 4;
    for round in 0..100 {
        let tracker = Tracker::default();
        let barrier = Barrier::new(WORKERS.into());
        let ends = Ends { src_port: 1000 + round, ..V4 };
        let conns: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (tracker, barrier) = (&tracker, &barrier);
                    scope.spawn(move || {
                        let frame = if worker % 2 == 0 { ends.udp(4) } else { ends.back().udp(4) };
                        barrier.wait();
                        once(tracker, frame, &commit(5)).0
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(tracker.table.len(), 1);
        let first = &conns[0].conn.as_ref().unwrap().0;
        assert!(conns.iter().all(|tracked| Arc::ptr_eq(&tracked.conn.as_ref().unwrap().0, first)));
        let counted = first.counted(Direction::Original).0 + first.counted(Direction::Reply).0;
        assert_eq!(counted, u64::from(WORKERS), "each packet once");
        assert!(conns.iter().any(|tracked| words(tracked.state) == "new"));
    }
}
