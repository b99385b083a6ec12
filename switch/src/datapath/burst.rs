//! One burst, from the bytes to the verdicts.
//!
//! In steps, so that the memory accesses of one frame overlap with those of the next: the keys of all frames; the exact
//! cache's answers for all; the proof of the answers, and a look at the connections that they depend on; then, frame by
//! frame and in order, the counters and the actions. Only the last step can miss, and then translates on the spot, so
//! the frames behind it find the new entry.
//!
//! Frames of one flow come in runs. While they do, a frame is first compared with the entry of the frame before it,
//! which costs less than a hash and a look into the exact cache.

use super::BURST;
use super::cache::megaflow::{Draft, Guards, MegaflowCache, Parts, Plan, UNGUARDED};
use super::execute::Surroundings;
use super::lanes::Fate;
use super::ledger::Ledger;
use super::upcall::{Answer, packet_out, upcall};
use super::worker::{PacketOut, Worker};
use crate::conntrack::{Guard, Segment};
use crate::stats::{Stage, burst_size};
use sluice_flows::key::PacketKey;
use sluice_flows::packet::{Frame, Layers, extract, extract_into};
use sluice_flows::rule::Millis;
use sluice_flows::tunnel::TunnelKey;
use sluice_flows::{DpPort, DropReason, Verdict};

/// Limit of [`Burst::runs`], either way.
const RUNS: i32 = 16;
/// Length of an Ethernet header; a frame shorter than that is no frame.
const ETH_LEN: usize = 14;
/// When the cache is full, one packet in this many is to make an entry of its connection.
const WORTH: u32 = 8;
/// No entry: larger than any entry's number.
const NO_ENTRY: u32 = u32::MAX;
/// Stands for "no port" where a packet-out has none.
pub(crate) const NO_INGRESS: DpPort = DpPort(u32::MAX - 1);

/// What is known of each frame of the burst.
#[derive(Debug)]
pub(super) struct Burst {
    keys: [PacketKey; BURST],
    layers: [Layers; BURST],
    /// The exact cache's answers, or [`NO_ENTRY`].
    entries: [u32; BURST],
    /// Bit N is set when frame N was compared with its entry already, and no entry was changed since.
    proved: u32,
    /// Bit N is set when key N has the words of a tunnel.
    tunneled: u32,
    /// How much the last frames came in runs: above 0, the next is expected to be like the one before.
    runs: i32,
    /// The entry of the last frame.
    last: u32,
}

const _: () = assert!(BURST <= 32, "a bit for each frame");

impl Default for Burst {
    fn default() -> Self {
        Self {
            keys: [PacketKey::ZERO; BURST],
            layers: [Layers::NONE; BURST],
            entries: [NO_ENTRY; BURST],
            proved: 0,
            tunneled: 0,
            runs: 0,
            last: NO_ENTRY,
        }
    }
}

/// How the frames of a burst were answered.
#[derive(Debug, Default)]
struct Answers {
    exact: u64,
    megaflow: u64,
    miss: u64,
    stale: u64,
    /// Of the hits, those of an entry of a connection.
    connection: u64,
}

/// What the worker lends to a run of actions; its parts are borrowed apart.
macro_rules! surroundings {
    ($worker:ident, $index:expr, $now:expr) => {
        Surroundings {
            key: &$worker.burst.keys[$index],
            shared: $worker.shared,
            model: &$worker.model,
            cells: $worker.cells,
            epoch: $worker.epoch,
            now: $now,
        }
    };
}

impl Burst {
    /// Notes whether `found` continues a run. What takes passes does not: many connections agree with it that have, or
    /// are to have, an entry of their own.
    #[inline]
    fn follow(&mut self, found: u32, megaflows: &MegaflowCache) {
        self.runs = if found == self.last { self.runs + 1 } else { (self.runs - RUNS / 4).max(-RUNS) };
        self.last = if megaflows.takes_passes(found) { NO_ENTRY } else { found };
    }
}

impl Worker<'_> {
    /// Runs the first `count` frames, which came in by `port`, to completion.
    pub(super) fn process(&mut self, port: DpPort, count: usize, now: Millis) {
        self.lap(Stage::Receive);
        let bytes = self.read(port, count);
        self.egress.received(port, count);
        self.lap(Stage::Read);
        if self.shared.settings.caches {
            self.look_up(count);
            self.prove(count);
        }
        self.lap(Stage::LookUp);
        let mut answers = Answers::default();
        if self.egress.lanes.witness.is_on() {
            self.answer::<true>(port, count, now, &mut answers);
        } else {
            self.answer::<false>(port, count, now, &mut answers);
        }
        self.lap(Stage::Act);
        self.egress.flush();
        self.account(port, count, now);
        if let Some(cells) = self.egress.lanes.cells(port) {
            cells.rx_packets.add(count as u64);
            cells.rx_bytes.add(bytes);
        }
        self.cells.bursts.add(1);
        self.cells.exact_hits.add(answers.exact);
        self.cells.megaflow_hits.add(answers.megaflow);
        self.cells.misses.add(answers.miss);
        self.cells.stale.add(answers.stale);
        self.cells.connection_hits.add(answers.connection);
        self.cells.bursts_by_size[burst_size(count)].add(1);
        self.lap(Stage::Send);
        self.egress.laps.end(count, self.cells);
    }

    /// Answers each frame of the burst, and does what comes of it; `SEEN` by captures, which are told the rules.
    #[inline]
    fn answer<const SEEN: bool>(&mut self, port: DpPort, count: usize, now: Millis, answers: &mut Answers) {
        for index in 0..count {
            let len = self.egress.frames[index].len();
            if len < ETH_LEN {
                self.egress.fates[index] = Fate::Dropped(DropReason::ParseError);
            } else if self.shared.settings.caches {
                let (entry, plan) = self.cached(index, len as u64, now, answers);
                if SEEN {
                    let rules = &self.megaflows.parts(entry).flow.rules;
                    self.egress.lanes.witness.matched(index, rules);
                }
                self.act(index, entry, plan, now);
            } else {
                self.uncached(port, index, len as u64, now);
                answers.miss += 1;
            }
        }
    }

    #[inline]
    fn lap(&mut self, stage: Stage) {
        self.egress.laps.lap(stage, self.cells);
    }

    /// Reads the keys of all frames. Returns the bytes of all frames.
    #[inline]
    fn read(&mut self, port: DpPort, count: usize) -> u64 {
        let burst = &mut *self.burst;
        let mut bytes = 0;
        let places = burst.keys.iter_mut().zip(&mut burst.layers);
        for (i, (frame, (key, layers))) in self.egress.frames.iter_mut().zip(places).enumerate().take(count) {
            bytes += frame.len() as u64;
            extract_into(frame.bytes(), port.0, key, layers);
            arrive(frame, key, &mut burst.tunneled, 1 << i);
        }
        bytes
    }

    /// Asks the exact cache about all frames.
    #[inline]
    fn look_up(&mut self, count: usize) {
        let burst = &mut *self.burst;
        burst.proved = 0;
        if burst.runs <= 0 {
            // Short loops, so that the CPU fetches what many frames need at a time.
            let mut hashes = [0; BURST];
            for (hash, key) in hashes.iter_mut().zip(&burst.keys).take(count) {
                *hash = self.megaflows.hash(key);
            }
            for (entry, hash) in burst.entries.iter_mut().zip(hashes).take(count) {
                *entry = self.exact.get(hash).unwrap_or(NO_ENTRY);
            }
            for i in 0..count {
                burst.follow(burst.entries[i], &self.megaflows);
            }
            return;
        }
        for i in 0..count {
            let key = &burst.keys[i];
            if burst.runs > 0 && self.megaflows.agrees(burst.last, key) {
                burst.runs = (burst.runs + 1).min(RUNS);
                burst.proved |= 1 << i;
                burst.entries[i] = burst.last;
            } else {
                burst.entries[i] = self.exact.get(self.megaflows.hash(key)).unwrap_or(NO_ENTRY);
                burst.follow(burst.entries[i], &self.megaflows);
            }
        }
    }

    /// Compares all frames with their entries, and touches the connections of those that agree.
    #[inline]
    fn prove(&mut self, count: usize) {
        let burst = &mut *self.burst;
        for (i, (key, entry)) in burst.keys.iter().zip(&burst.entries).take(count).enumerate() {
            if burst.proved & 1 << i == 0 && self.megaflows.agrees(*entry, key) {
                burst.proved |= 1 << i;
            }
        }
        let mut touched = NO_ENTRY;
        for (i, &entry) in burst.entries.iter().enumerate().take(count) {
            if burst.proved & 1 << i != 0 && entry != touched {
                self.megaflows.touch(entry);
                touched = entry;
            }
        }
    }

    /// The entry for a frame, and what it says: from the caches, filling them where they have no answer.
    #[inline]
    fn cached(&mut self, index: usize, len: u64, now: Millis, answers: &mut Answers) -> (u32, Plan) {
        let burst = &*self.burst;
        let mut entry = burst.entries[index];
        let proved = burst.proved & 1 << index != 0;
        if proved && self.megaflows.hot(entry).epoch == self.epoch {
            answers.exact += 1;
        } else {
            entry = self.resolve(index, now, answers);
        }
        let guards = self.megaflows.hot(entry).guards;
        if guards != UNGUARDED {
            if self.admit(index, guards, now) {
                answers.connection += 1;
            } else {
                entry = self.unguarded(index, entry, now);
            }
        }
        let hot = self.megaflows.hot(entry);
        hot.packets += 1;
        hot.bytes += len;
        hot.used = now;
        (entry, hot.plan)
    }

    /// Whether the connections are as they were when the entry with these guards was made. If so, the frame has passed
    /// them.
    #[inline]
    fn admit(&self, index: usize, guards: u32, now: Millis) -> bool {
        let layers = &self.burst.layers[index];
        let segment = Segment::read(self.egress.frames[index].bytes(), layers);
        let segment = segment.as_ref();
        self.megaflows.admit(
            guards,
            |guard| guard.conn.admits(guard.direction, guard.version, segment, now),
            |guard| guard.conn.pass(guard.direction, segment, now),
        )
    }

    /// The entry for a frame of which `guarded` does not hold. If that will never hold again, it goes.
    #[cold]
    fn unguarded(&mut self, index: usize, guarded: u32, now: Millis) -> u32 {
        let key = self.burst.keys[index];
        if !self.megaflows.parts(guarded).guards.all(Guard::is_current) {
            self.discard(guarded);
        }
        let found = self.megaflows.find_unguarded(&key);
        match found.filter(|&entry| self.is_fresh(entry)) {
            Some(entry) => entry,
            None => self.install(&key, found, now),
        }
    }

    /// Does what an entry says.
    #[inline]
    fn act(&mut self, index: usize, entry: u32, plan: Plan, now: Millis) {
        match plan {
            Plan::Output(port) => {
                self.egress.fates[index] = Fate::Waiting;
                self.egress.output(port, index);
            }
            Plan::Drop(reason) => self.egress.fates[index] = Fate::Dropped(reason),
            Plan::Hop(number) => {
                if let Some((hop, port)) = &self.megaflows.list(number).hop {
                    hop.apply(&mut self.egress.frames[index], &self.burst.layers[index]);
                    self.egress.fates[index] = Fate::Waiting;
                    self.egress.output(*port, index);
                }
            }
            Plan::List(number) => {
                let list = self.megaflows.list(number);
                self.egress.fates[index] = first_fate(list.verdict);
                let to = surroundings!(self, index, now);
                self.egress.run((&list.actions, &list.resumes), index, self.burst.layers[index], &to);
            }
            Plan::Passes(number) => self.take_passes(index, entry, number, now),
        }
    }

    /// Does what an entry says that sends the frame through other passes, and makes one entry of them all.
    #[inline(never)]
    fn take_passes(&mut self, index: usize, entry: u32, list: u32, now: Millis) {
        let key = self.burst.keys[index];
        self.taken = self.taken.wrapping_add(1);
        // In a full cache every new entry pushes one out that may be in use.
        let worth = !self.megaflows.is_full() || self.taken.is_multiple_of(WORTH);
        if let Some(mask) = self.megaflows.mask(entry).copied().filter(|_| worth) {
            self.egress.recording.begin(&mask, self.megaflows.parts(entry).flow);
        }
        let list = self.megaflows.list(list);
        self.egress.fates[index] = first_fate(list.verdict);
        let to = surroundings!(self, index, now);
        self.egress.run((&list.actions, &list.resumes), index, self.burst.layers[index], &to);
        let epoch = self.epoch;
        let whole = self.egress.recording.finish(&key);
        self.refresh_after_passes();
        let Some((mask, flow, steps, guards)) = whole else { return };
        self.add(Draft { mask: &mask, key: &key, flow, steps, guards }, epoch, now);
    }

    /// Adds an entry to both caches. Returns its number.
    fn add(&mut self, draft: Draft<'_, PacketKey>, epoch: u64, now: Millis) -> u32 {
        let key = draft.key;
        let ledger = Ledger::new(self.shared, &self.egress.lanes, &self.model);
        self.burst.proved = 0;
        let (entry, evicted) = self.megaflows.install(draft, epoch, now, |entry| ledger.settle(entry));
        self.cells.evictions.add(u64::from(evicted));
        self.exact.insert(self.megaflows.hash(key), entry);
        entry
    }

    /// The entry for a frame that the exact cache had no sure answer for: from the megaflow cache, checked if it was
    /// not yet, or from a translation.
    #[inline(never)]
    fn resolve(&mut self, index: usize, now: Millis, answers: &mut Answers) -> u32 {
        let key = self.burst.keys[index];
        // An earlier frame of the burst may have widened the union of masks, which changes the hash.
        let hash = self.megaflows.hash(&key);
        let known = self.exact.get(hash).filter(|&entry| self.megaflows.agrees(entry, &key));
        let exact = known.is_some();
        let found = known.or_else(|| self.megaflows.find(&key));
        let mut found = found;
        let mut fresh = found.filter(|&entry| self.is_fresh(entry));
        if let Some(entry) = found.filter(|&entry| fresh.is_none() && self.megaflows.hot(entry).guards != UNGUARDED) {
            // One of a connection is not translated anew: its passes are.
            self.discard(entry);
            found = self.megaflows.find_unguarded(&key);
            fresh = found.filter(|&entry| self.is_fresh(entry));
        }
        if let Some(entry) = fresh {
            if exact {
                answers.exact += 1;
            } else {
                answers.megaflow += 1;
                self.exact.insert(hash, entry);
            }
            return entry;
        }
        match found {
            Some(_) => answers.stale += 1,
            None => answers.miss += 1,
        }
        self.install(&key, found, now)
    }

    /// Whether the entry is up to date; if so, it need not be asked again in this epoch.
    fn is_fresh(&mut self, entry: u32) -> bool {
        let Parts { hot, flow, .. } = self.megaflows.parts(entry);
        if hot.epoch != self.epoch {
            if !flow.is_fresh(&self.model, &self.shared.macs) {
                return false;
            }
            (hot.epoch, flow.generation) = (self.epoch, self.model.generation);
        }
        true
    }

    /// Credits and removes an entry.
    fn discard(&mut self, entry: u32) {
        self.burst.proved = 0;
        let ledger = Ledger::new(self.shared, &self.egress.lanes, &self.model);
        ledger.settle(self.megaflows.parts(entry));
        self.megaflows.remove(entry);
    }

    /// Translates the packet and installs the result, in the place of `old` if that is out of date.
    fn install(&mut self, key: &PacketKey, old: Option<u32>, now: Millis) -> u32 {
        // The state before: what changes meanwhile, by this packet's own source too, makes the entry to be checked.
        let epoch = self.epoch;
        let translate = || upcall(self.shared, &self.model, key, super::ledger::ingress(key), now);
        let answer = self.egress.laps.translation(self.cells, translate);
        self.refresh_after(&answer.flow);
        let mask = answer.mask.packet();
        let (mut flow, steps) = answer.numbered(&mut self.egress.passes);
        if let Some(old) = old {
            let same = self.megaflows.mask(old) == Some(&mask);
            let ledger = Ledger::new(self.shared, &self.egress.lanes, &self.model);
            ledger.settle(self.megaflows.parts(old));
            if same {
                let before = self.megaflows.parts(old).flow;
                (flow.packets, flow.bytes) = (before.packets, before.bytes);
            } else {
                self.megaflows.remove(old);
            }
        }
        self.add(Draft { mask: &mask, key, flow, steps, guards: Guards::new() }, epoch, now)
    }

    /// Translates a frame and does what comes of it, leaving no trace in the caches.
    fn uncached(&mut self, port: DpPort, index: usize, len: u64, now: Millis) {
        let translate = || upcall(self.shared, &self.model, &self.burst.keys[index], port, now);
        let answer = self.egress.laps.translation(self.cells, translate);
        self.once(answer, index, self.burst.layers[index], len, now);
    }

    /// Does what comes of a translation with frame `index`, this once.
    fn once(&mut self, answer: Answer, index: usize, layers: Layers, len: u64, now: Millis) {
        self.refresh_after(&answer.flow);
        let (mut flow, steps) = answer.unnumbered();
        self.egress.fates[index] = first_fate(flow.verdict);
        self.egress.lanes.witness.matched(index, &flow.rules);
        self.egress.recording.stop();
        let to = surroundings!(self, index, now);
        self.egress.run((&steps.actions, &steps.resumes), index, layers, &to);
        self.refresh_after_passes();
        let ledger = Ledger::new(self.shared, &self.egress.lanes, &self.model);
        ledger.credit(&mut flow, 1, len, now);
        ledger.credit_drop(&flow, 1, now);
    }

    /// Picks up what translations of other passes changed, so that the next packet sees it.
    fn refresh_after_passes(&mut self) {
        if std::mem::take(&mut self.egress.translated) {
            self.refresh();
        }
    }

    /// Sends a packet of the control side's as if it were a burst of one.
    pub(super) fn send_packet_out(&mut self, packet: &PacketOut, now: Millis) {
        self.egress.frames[0].clone_from_frame(&packet.frame);
        self.egress.ingress = NO_INGRESS;
        let key = &mut self.burst.keys[0];
        let layers = extract(self.egress.frames[0].bytes(), NO_INGRESS.0, key);
        arrive(&mut self.egress.frames[0], key, &mut self.burst.tunneled, 1);
        let len = packet.frame.len();
        let place = (packet.bridge, packet.in_port);
        let answer = packet_out(self.shared, &self.model, key, place, &packet.actions, now).filter(|_| len >= ETH_LEN);
        match answer {
            Some(answer) => self.once(answer, 0, layers, len as u64, now),
            None if len < ETH_LEN => self.egress.fates[0] = Fate::Dropped(DropReason::ParseError),
            None => self.egress.fates[0] = Fate::Dropped(DropReason::NoPort),
        }
        self.egress.flush();
        self.account(NO_INGRESS, 1, now);
    }

    /// Counts each frame of the burst once.
    fn account(&mut self, port: DpPort, count: usize, now: Millis) {
        if self.egress.waiting != 0 {
            self.account_waiting();
        }
        if self.egress.lanes.witness.is_on() {
            self.egress.lanes.witness.finish(&self.egress.fates);
        }
        let forwarded = self.egress.fates[..count].iter().filter(|fate| **fate == Fate::Done).count();
        self.cells.forwarded.add(forwarded as u64);
        if forwarded < count {
            self.account_drops(port, count, now);
        }
        // Last, so that whoever sees a frame received sees what became of it too.
        self.cells.received.add(count as u64);
        self.egress.decided = 0;
    }

    /// Counts the frames of the burst that wait for the rest of their datagram.
    #[cold]
    fn account_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.egress.waiting);
        for (index, fate) in self.egress.fates[..BURST].iter_mut().enumerate() {
            if waiting & 1 << index != 0 {
                *fate = Fate::Held;
            }
        }
        self.cells.held.add(waiting.count_ones().into());
    }

    /// Counts the frames of the burst that were dropped.
    #[cold]
    fn account_drops(&mut self, port: DpPort, count: usize, now: Millis) {
        let mut dropped = 0;
        // Frames that are told apart here, by reason: how many, and the last of them.
        let mut here = [(0, 0); DropReason::COUNT];
        for (index, fate) in self.egress.fates[..count].iter().enumerate() {
            let reason = match *fate {
                Fate::Done | Fate::Held => continue,
                // Its actions sent it nowhere although the verdict was to forward it.
                Fate::Waiting => DropReason::NoPort,
                Fate::Lost(reason) | Fate::Dropped(reason) => reason,
            };
            dropped += 1;
            self.cells.dropped[reason as usize].add(1);
            if self.egress.decided & 1 << index != 0
                && let Some(rule) = self.egress.deciders[index].take()
            {
                let example = Some(&self.burst.keys[index]);
                self.shared.drops[self.index].add(reason, port, Some(&rule), 1, now, example);
                continue;
            }
            // Drops by verdict are told apart by rule when their entry is credited; the others have none.
            if !matches!(fate, Fate::Dropped(_)) || reason == DropReason::ParseError {
                let (packets, last) = &mut here[reason as usize];
                *packets += 1;
                *last = index;
            }
        }
        for (reason, (packets, last)) in DropReason::ALL.iter().zip(here).filter(|(_, (packets, _))| *packets > 0) {
            let example = Some(&self.burst.keys[last]);
            self.shared.drops[self.index].add(*reason, port, None, packets, now, example);
        }
        if let Some(cells) = self.egress.lanes.cells(port) {
            cells.rx_dropped.add(dropped);
        }
    }
}

/// Notes in a frame's key by which tunnel it arrived; `bit` is its place in `tunneled`, which says what was there before.
#[inline]
fn arrive(frame: &mut Frame, key: &mut PacketKey, tunneled: &mut u32, bit: u32) {
    if let Some(tunnel) = frame.tunnel.take() {
        tunnel.write(key);
        *tunneled |= bit;
    } else if *tunneled & bit != 0 {
        TunnelKey::NONE.write(key);
        *tunneled &= !bit;
    }
}

/// What a frame's fate is before its actions are done.
fn first_fate(verdict: Verdict) -> Fate {
    match verdict {
        Verdict::Forward => Fate::Waiting,
        Verdict::Drop(reason) => Fate::Dropped(reason),
    }
}
