//! Which worker does which share of the frames that one worker receives: a table of buckets by a hash of the flow, as devices with
//! several queues have it, and the rule by which buckets move.
//!
//! # The rule
//! A worker does all that it receives itself as long as it keeps up: to hand a frame on costs both sides, and the sleeping one is
//! to be woken. It looks at the loads of all workers every [`INTERVAL`]:
//!
//! - It was busy for [`SATURATED`] of two intervals, and another worker for no more than [`HAS_TIME`]: some buckets go to the one
//!   with most time, those with most frames first, and no more than a quarter of the difference. A bucket that has more than half of
//!   it stays: it would only change who is saturated.
//! - A worker that does some for it is saturated, or does not take what it is sent, and this one has time: some buckets
//!   come back, and for [`REST`] intervals none goes there.
//! - It could do all itself and still have time, for [`CALM`] intervals: some buckets come back.

use std::time::Duration;

/// Buckets of a table.
pub(super) const BUCKETS: usize = 128;
/// How often loads are looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// Buckets that move at a time.
const MOST: usize = 8;
/// Share of its time from which on a worker cannot do more.
const SATURATED: f32 = 0.9;
/// Share of its time up to which a worker can do more.
const HAS_TIME: f32 = 0.8;
/// Share of its time up to which a worker may be expected to be busy with what comes back.
const AT_EASE: f32 = 0.6;
/// Intervals in which a worker has to be at ease.
const CALM: u32 = 10;
/// Intervals in which nothing goes to a worker that had too much.
const REST: u32 = 100;

/// How frames are shared out among workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// The worker that receives a frame does all with it.
    Off,
    /// A worker that does not keep up hands on flows to those that have time.
    #[default]
    ByLoad,
    /// For tests: flows are always spread, and some go to another worker every 10 ms.
    Restless,
}

/// Buckets that are to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The other worker.
    pub(super) worker: usize,
    /// They come back from it; else they go there.
    pub(super) back: bool,
    buckets: [u8; MOST],
    count: usize,
}

impl Move {
    fn new(worker: usize, back: bool) -> Self {
        Self { worker, back, buckets: [0; MOST], count: 0 }
    }

    /// False when it is full.
    fn add(&mut self, bucket: usize) -> bool {
        let Some(place) = self.buckets.get_mut(self.count) else { return false };
        *place = bucket as u8;
        self.count += 1;
        true
    }

    fn some(self) -> Option<Self> {
        (self.count > 0).then_some(self)
    }

    fn buckets(&self) -> impl Iterator<Item = usize> {
        self.buckets.iter().take(self.count).map(|bucket| usize::from(*bucket))
    }
}

/// The table of one worker.
pub(super) struct Indirection {
    own: usize,
    steering: Steering,
    /// Who does what is in a bucket.
    to: [u16; BUCKETS],
    /// Frames of each bucket in this interval.
    frames: [u32; BUCKETS],
    /// Buckets that others do.
    away: usize,
    /// Frames are counted: the worker was saturated in the last interval.
    counts: bool,
    /// Intervals in which it was at ease.
    calm: u32,
    /// Intervals for which nothing goes to each worker.
    rests: Vec<u32>,
    /// The next bucket of a restless table.
    next: usize,
    /// For tests alone: decides which worker gets the next.
    turn: usize,
}

impl Indirection {
    /// The table of worker `own` of so many, which does all itself.
    pub(super) fn new(own: usize, workers: usize, steering: Steering) -> Self {
        Self {
            own,
            steering,
            to: [own as u16; BUCKETS],
            frames: [0; BUCKETS],
            away: 0,
            counts: false,
            calm: 0,
            rests: vec![0; workers],
            next: 0,
            turn: 0,
        }
    }

    /// Whether frames are to be looked up.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.counts || self.away > 0
    }

    /// Counts a frame whose flow has this hash. Returns which worker does the rest.
    #[inline]
    pub(super) fn look_up(&mut self, hash: u32) -> usize {
        let bucket = hash as usize % BUCKETS;
        self.frames[bucket] = self.frames[bucket].wrapping_add(1);
        self.to[bucket].into()
    }

    /// Moves buckets: from now on their frames go where they are then.
    pub(super) fn carry_out(&mut self, what: &Move) {
        let to = if what.back { self.own } else { what.worker };
        for bucket in what.buckets() {
            self.to[bucket] = to as u16;
        }
        self.away = self.to.iter().filter(|to| usize::from(**to) != self.own).count();
    }

    /// Ends an interval: which buckets are to move now, by the load of each worker, 0 to 1.
    pub(super) fn decide(&mut self, loads: &[f32]) -> Option<Move> {
        self.rests.iter_mut().for_each(|rest| *rest = rest.saturating_sub(1));
        let own = loads.get(self.own).copied().unwrap_or_default();
        let counted = self.counts;
        let decision = match self.steering {
            Steering::Off => None,
            Steering::Restless => self.stir(loads.len()),
            Steering::ByLoad => self
                .relieve(own, loads)
                .or_else(|| if own >= SATURATED && counted { self.hand_on(own, loads) } else { self.take_back(own) }),
        };
        self.counts = self.steering == Steering::ByLoad && own >= SATURATED;
        self.frames.fill(0);
        decision
    }

    fn does(&self, bucket: usize) -> usize {
        self.to[bucket].into()
    }

    /// Frames of this interval that `worker` did for this one.
    fn frames_of(&self, worker: usize) -> u64 {
        let of = self.to.iter().zip(&self.frames).filter(|(to, _)| usize::from(**to) == worker);
        of.map(|(_, frames)| u64::from(*frames)).sum()
    }

    /// The buckets that `worker` does, those with most frames first.
    fn busiest_of(&self, worker: usize) -> impl Iterator<Item = usize> {
        let mut buckets: [usize; BUCKETS] = std::array::from_fn(|bucket| bucket);
        buckets.sort_unstable_by_key(|bucket| std::cmp::Reverse(self.frames[*bucket]));
        buckets.into_iter().filter(move |bucket| self.does(*bucket) == worker)
    }

    /// Takes buckets back from a worker that has too much.
    fn relieve(&mut self, own: f32, loads: &[f32]) -> Option<Move> {
        let worker = (0..loads.len())
            .filter(|worker| *worker != self.own && loads[*worker] >= SATURATED && self.to.contains(&(*worker as u16)))
            .max_by(|a, b| loads[*a].total_cmp(&loads[*b]))?;
        if own > HAS_TIME {
            return None;
        }
        if let Some(rest) = self.rests.get_mut(worker) {
            *rest = REST;
        }
        let mut back = Move::new(worker, true);
        for bucket in self.busiest_of(worker) {
            if !back.add(bucket) {
                break;
            }
        }
        back.some()
    }

    /// Hands buckets on to the worker with most time.
    fn hand_on(&mut self, own: f32, loads: &[f32]) -> Option<Move> {
        self.calm = 0;
        let worker = (0..loads.len())
            .filter(|worker| *worker != self.own && loads[*worker] <= HAS_TIME && self.rests[*worker] == 0)
            .min_by(|a, b| loads[*a].total_cmp(&loads[*b]))?;
        let mine = self.frames_of(self.own) as f32;
        let difference = mine * (own - loads[worker]) / own;
        let (mut room, mut away) = (difference / 4.0, Move::new(worker, false));
        for bucket in self.busiest_of(self.own) {
            let frames = self.frames[bucket] as f32;
            // One that is too much for a quarter may go alone.
            let fits = frames <= room || away.count == 0 && frames <= difference / 2.0;
            if frames == 0.0 || fits && !away.add(bucket) {
                break;
            }
            if fits {
                room -= frames;
            }
        }
        away.some()
    }

    /// Takes buckets back if the worker can do all itself.
    fn take_back(&mut self, own: f32) -> Option<Move> {
        let (mine, all) = (self.frames_of(self.own), self.frames.iter().map(|n| u64::from(*n)).sum::<u64>());
        // Without frames of its own it is not known what one costs; then as many as are in it say how much it is.
        let expected = if all == 0 { 0.0 } else { own * all as f32 / mine.max(all / BUCKETS as u64).max(1) as f32 };
        self.calm = if self.away > 0 && expected < AT_EASE { self.calm + 1 } else { 0 };
        if self.calm < CALM {
            return None;
        }
        let worker = self.to.iter().map(|to| usize::from(*to)).find(|to| *to != self.own)?;
        let mut back = Move::new(worker, true);
        for bucket in (0..BUCKETS).filter(|bucket| self.does(*bucket) == worker) {
            if !back.add(bucket) {
                break;
            }
        }
        back.some()
    }

    /// The next buckets of a restless table: each goes round all workers.
    fn stir(&mut self, workers: usize) -> Option<Move> {
        let first = self.does(self.next);
        let mut what = match first == self.own {
            true => {
                // Not in step with the buckets, so that each comes to every worker.
                self.turn = self.turn.wrapping_mul(5).wrapping_add(1);
                Move::new((self.own + 1 + (self.turn >> 4) % (workers - 1).max(1)) % workers, false)
            }
            false => Move::new(first, true),
        };
        for _ in 0..BUCKETS {
            if self.does(self.next) != first || !what.add(self.next) {
                break;
            }
            // Not in step with the length of a move, so that buckets part.
            self.next = (self.next + 3) % BUCKETS;
        }
        what.some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends intervals with these loads, in which each bucket has the frames that `frames` says, and carries out what is decided.
    fn run(table: &mut Indirection, loads: &[f32], intervals: u32, frames: impl Fn(u32) -> u32) -> Vec<Move> {
        let mut moves = Vec::new();
        for _ in 0..intervals {
            for bucket in 0..BUCKETS as u32 {
                for _ in 0..frames(bucket) {
                    assert!(table.look_up(bucket) < loads.len());
                }
            }
            if let Some(what) = table.decide(loads) {
                table.carry_out(&what);
                moves.push(what);
            }
        }
        moves
    }

    /// The table of worker 0 of `workers`.
    fn table(workers: usize) -> Indirection {
        Indirection::new(0, workers, Steering::ByLoad)
    }

    #[test]
    fn a_worker_that_keeps_up_or_is_alone_saturated_for_a_moment_does_all_itself() {
        let mut table = table(2);
        assert_eq!(run(&mut table, &[0.89, 0.0], 1000, |_| 3), []);
        assert!(!table.is_on());
        assert_eq!(run(&mut table, &[1.0, 0.0], 1, |_| 3), []);
        assert!(table.is_on(), "frames are counted first");
        assert_eq!(run(&mut table, &[0.5, 0.0], 1, |_| 3), []);
        assert!(!table.is_on());
    }

    #[test]
    fn nothing_goes_to_a_worker_without_time() {
        let mut table = table(3);
        assert_eq!(run(&mut table, &[1.0, 0.81, 1.0], 1000, |_| 3), []);
        let moves = run(&mut table, &[1.0, 0.81, 0.8], 2, |_| 3);
        assert!(!moves.is_empty() && moves.iter().all(|what| what.worker == 2 && !what.back));
    }

    #[test]
    fn a_few_buckets_go_at_a_time_those_with_most_frames_first_and_no_more_than_a_quarter_of_the_difference() {
        let mut table = table(2);
        let moves = run(&mut table, &[1.0, 0.0], 2, |bucket| bucket);
        assert_eq!(moves.len(), 1);
        assert_eq!(moves[0].buckets().collect::<Vec<_>>(), (120..128).rev().collect::<Vec<_>>());
        assert_eq!(table.away, MOST);
        let mut table = self::table(2);
        let moves = run(&mut table, &[1.0, 0.0], 2, |bucket| u32::from(bucket < 10));
        assert_eq!(moves[0].buckets().count(), 2, "of ten flows two are less than a quarter, and three are more");
    }

    #[test]
    fn a_flow_that_would_only_saturate_another_worker_stays() {
        let mut table = table(2);
        assert_eq!(run(&mut table, &[1.0, 0.0], 100, |bucket| u32::from(bucket == 5)), []);
        let moves =
            run(&mut table, &[1.0, 0.0], 2, |bucket| if bucket == 5 { 60 } else { 40 * u32::from(bucket == 9) });
        assert_eq!(moves.iter().flat_map(Move::buckets).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn what_is_too_much_for_another_comes_back_and_stays_for_a_while() {
        let mut table = table(2);
        run(&mut table, &[1.0, 0.0], 5, |_| 3);
        let away = table.away;
        assert!(away > 0);
        assert_eq!(run(&mut table, &[0.85, 1.0], 5, |_| 3), [], "there is no time for it here either");
        let moves = run(&mut table, &[0.6, 1.0], 1, |_| 3);
        assert!(moves.len() == 1 && moves[0].back && table.away + MOST == away, "{moves:?}");
        assert_eq!(run(&mut table, &[1.0, 0.0], REST - 1, |_| 3), []);
        assert!(!run(&mut table, &[1.0, 0.0], 1, |_| 3).is_empty());
    }

    #[test]
    fn everything_comes_back_when_there_is_less_to_do_and_not_before() {
        let mut table = table(2);
        run(&mut table, &[1.0, 0.0], 9, |_| 3);
        assert!(table.away >= 40);
        let away = table.away;
        assert_eq!(run(&mut table, &[0.5, 0.3], 100, |_| 3), [], "with all of it, it would be near saturation");
        assert_eq!(run(&mut table, &[0.2, 0.1], CALM - 1, |_| 3), []);
        assert_eq!(table.away, away);
        run(&mut table, &[0.2, 0.1], 20, |_| 3);
        assert!(table.away == 0 && !table.is_on());
        // Nothing comes at all.
        run(&mut table, &[1.0, 0.0], 9, |_| 3);
        run(&mut table, &[0.0, 0.0], 30, |_| 0);
        assert!(!table.is_on());
    }

    #[test]
    fn loads_settle_and_flows_stay_where_they_are() {
        // What comes takes one and a half workers; to hand on costs a tenth.
        let mut table = table(2);
        let (mut last, mut moves) = (0, 0);
        for interval in 0..1000 {
            let away = table.away as f32 / BUCKETS as f32;
            let loads = [(1.5 * (1.0 - away) + 0.15 * away).min(1.0), (1.5 * away).min(1.0)];
            if !run(&mut table, &loads, 1, |_| 3).is_empty() {
                (last, moves) = (interval, moves + 1);
            }
        }
        assert!((0.35..0.6).contains(&(table.away as f32 / BUCKETS as f32)), "{}", table.away);
        assert!(last < 20 && moves < 20, "{moves} moves until {last}");
    }

    #[test]
    fn a_restless_table_takes_every_bucket_to_every_worker_and_back() {
        let mut table = Indirection::new(1, 3, Steering::Restless);
        let mut seen = [[false; 3]; BUCKETS];
        for _ in 0..2000 {
            run(&mut table, &[0.0; 3], 1, |_| 1);
            seen.iter_mut().zip(&table.to).for_each(|(seen, to)| seen[usize::from(*to)] = true);
        }
        assert!(seen.iter().all(|seen| seen.iter().all(|seen| *seen)), "{seen:?}");
    }
}
