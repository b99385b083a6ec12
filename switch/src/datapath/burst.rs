//! One burst, from the bytes to the verdicts.
//!
//! Three passes, so that the memory accesses of one frame overlap with those of the next: keys and hashes of all
//! frames; the exact cache's answers for all; then, frame by frame and in order, the proof of the answer, the
//! counters, and the actions. Only the third pass can miss, and then translates on the spot, so the frames behind it
//! find the new entry.

use super::BURST;
use super::cache::megaflow::Plan;
use super::execute::{Fate, PuntTo};
use super::ledger::Ledger;
use super::upcall::{packet_out, upcall};
use super::worker::{PacketOut, Worker};
use sluice_flows::key::PacketKey;
use sluice_flows::packet::{Layers, extract};
use sluice_flows::rule::Millis;
use sluice_flows::{DpPort, DropReason, Verdict};

/// Length of an Ethernet header; a frame shorter than that is no frame.
const ETH_LEN: usize = 14;
/// No entry: larger than any entry's number.
const NO_ENTRY: u32 = u32::MAX;
/// Stands for "no port" where a packet-out has none.
const NO_INGRESS: DpPort = DpPort(u32::MAX - 1);

/// What is known of each frame of the burst.
#[derive(Debug)]
pub(super) struct Burst {
    keys: [PacketKey; BURST],
    layers: [Layers; BURST],
    hashes: [u64; BURST],
    entries: [u32; BURST],
}

impl Default for Burst {
    fn default() -> Self {
        Self {
            keys: [PacketKey::ZERO; BURST],
            layers: [Layers::NONE; BURST],
            hashes: [0; BURST],
            entries: [NO_ENTRY; BURST],
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
}

impl Worker<'_> {
    /// Runs the first `count` frames, which came in by `port`, to completion.
    pub(super) fn process(&mut self, port: DpPort, count: usize, now: Millis) {
        let bytes = self.read(port, count);
        let mut answers = Answers::default();
        for index in 0..count {
            let len = self.egress.frames[index].len();
            if len < ETH_LEN {
                self.egress.fates[index] = Fate::Dropped(DropReason::ParseError);
            } else if self.shared.settings.caches {
                self.cached(index, len as u64, now, &mut answers);
            } else {
                self.uncached(port, index, len as u64, now);
                answers.miss += 1;
            }
        }
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
    }

    /// Reads the keys of all frames and asks the exact cache about them. Returns the bytes of all frames.
    fn read(&mut self, port: DpPort, count: usize) -> u64 {
        let burst = &mut *self.burst;
        let mut bytes = 0;
        for (i, frame) in self.egress.frames[..count.min(BURST)].iter().enumerate() {
            bytes += frame.len() as u64;
            burst.layers[i] = extract(frame.bytes(), port.0, &mut burst.keys[i]);
            burst.hashes[i] = self.megaflows.hash(&burst.keys[i]);
        }
        for (entry, hash) in burst.entries.iter_mut().zip(&burst.hashes).take(count) {
            *entry = self.exact.get(*hash).unwrap_or(NO_ENTRY);
        }
        bytes
    }

    /// Answers a frame from the caches, filling them where they have no answer.
    #[inline]
    fn cached(&mut self, index: usize, len: u64, now: Millis, answers: &mut Answers) {
        let key = &self.burst.keys[index];
        let entry = self.burst.entries[index];
        if let Some(hot) = self.megaflows.check(entry, key)
            && hot.epoch == self.epoch
        {
            hot.packets += 1;
            hot.bytes += len;
            hot.used = now;
            answers.exact += 1;
            let plan = hot.plan;
            return self.act(index, entry, plan, now);
        }
        let entry = self.resolve(index, now, answers);
        let hot = self.megaflows.hot(entry);
        hot.packets += 1;
        hot.bytes += len;
        hot.used = now;
        let plan = hot.plan;
        self.act(index, entry, plan, now);
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
            Plan::List => {
                let flow = self.megaflows.flow(entry);
                self.egress.fates[index] = first_fate(flow.verdict);
                let to = PuntTo { punts: &self.shared.punts, cells: self.cells, now };
                self.egress.run(&flow.actions, index, self.burst.layers[index], &to);
            }
        }
    }

    /// The entry for a frame that the exact cache had no sure answer for: from the megaflow cache, checked if it was
    /// not yet, or from a translation.
    #[inline(never)]
    fn resolve(&mut self, index: usize, now: Millis, answers: &mut Answers) -> u32 {
        let key = self.burst.keys[index];
        // An earlier frame of the burst may have widened the union of masks, which changes the hash.
        let hash = self.megaflows.hash(&key);
        let known = self.exact.get(hash).filter(|&entry| self.megaflows.check(entry, &key).is_some());
        let exact = known.is_some();
        let found = known.or_else(|| self.megaflows.find(&key));
        let fresh = found.filter(|&entry| self.is_fresh(entry));
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
        let (hot, flow) = self.megaflows.both(entry);
        if hot.epoch != self.epoch {
            let macs = &self.shared.macs;
            let same = |(slot, version): &(u16, u32)| macs.version(*slot) == *version;
            if flow.generation != self.model.generation || !flow.macs.iter().all(same) {
                return false;
            }
            hot.epoch = self.epoch;
        }
        true
    }

    /// Translates the packet and installs the result, in the place of `old` if that is out of date.
    fn install(&mut self, key: &PacketKey, old: Option<u32>, now: Millis) -> u32 {
        // The state before: what changes meanwhile, by this packet's own source too, makes the entry to be checked.
        let epoch = self.epoch;
        let (mask, mut flow) = upcall(self.shared, &self.model, key, super::ledger::ingress(key), now);
        self.refresh_macs();
        let ledger = Ledger { shared: self.shared, lanes: &self.egress.lanes, worker: self.index };
        if let Some(old) = old {
            let (hot, before) = self.megaflows.both(old);
            ledger.settle(hot, before);
            (flow.packets, flow.bytes) = (before.packets, before.bytes);
            if !self.megaflows.is_for(old, &mask) {
                (flow.packets, flow.bytes) = (0, 0);
                self.megaflows.remove(old);
            }
        }
        let (entry, evicted) =
            self.megaflows.install(&mask, key, flow, epoch, now, |hot, flow| ledger.settle(hot, flow));
        self.cells.evictions.add(u64::from(evicted));
        self.exact.insert(self.megaflows.hash(key), entry);
        entry
    }

    /// Translates a frame and does what comes of it, leaving no trace in the caches.
    fn uncached(&mut self, port: DpPort, index: usize, len: u64, now: Millis) {
        let (_, mut flow) = upcall(self.shared, &self.model, &self.burst.keys[index], port, now);
        self.egress.fates[index] = first_fate(flow.verdict);
        let to = PuntTo { punts: &self.shared.punts, cells: self.cells, now };
        self.egress.run(&flow.actions, index, self.burst.layers[index], &to);
        let ledger = Ledger { shared: self.shared, lanes: &self.egress.lanes, worker: self.index };
        ledger.credit(&mut flow, 1, len, now);
    }

    /// Sends a packet of the control side's as if it were a burst of one.
    pub(super) fn send_packet_out(&mut self, packet: &PacketOut, now: Millis) {
        self.egress.frames[0].clone_from_frame(&packet.frame);
        let key = &mut self.burst.keys[0];
        let layers = extract(self.egress.frames[0].bytes(), NO_INGRESS.0, key);
        let len = packet.frame.len();
        let place = (packet.bridge, packet.in_port);
        let flow = packet_out(self.shared, &self.model, key, place, &packet.actions, now).filter(|_| len >= ETH_LEN);
        match flow {
            Some(mut flow) => {
                self.egress.fates[0] = first_fate(flow.verdict);
                let to = PuntTo { punts: &self.shared.punts, cells: self.cells, now };
                self.egress.run(&flow.actions, 0, layers, &to);
                let ledger = Ledger { shared: self.shared, lanes: &self.egress.lanes, worker: self.index };
                ledger.credit(&mut flow, 1, len as u64, now);
            }
            None if len < ETH_LEN => self.egress.fates[0] = Fate::Dropped(DropReason::ParseError),
            None => self.egress.fates[0] = Fate::Dropped(DropReason::NoPort),
        }
        self.egress.flush();
        self.account(NO_INGRESS, 1, now);
        self.refresh_macs();
    }

    /// Counts each frame of the burst once.
    fn account(&mut self, port: DpPort, count: usize, now: Millis) {
        let mut forwarded = 0;
        for (index, fate) in self.egress.fates[..count].iter().enumerate() {
            let reason = match *fate {
                Fate::Done => {
                    forwarded += 1;
                    continue;
                }
                Fate::Dropped(reason) => reason,
                // Its actions sent it nowhere although the verdict was to forward it.
                Fate::Waiting => DropReason::NoPort,
                Fate::Lost(reason) => reason,
            };
            self.cells.dropped[reason as usize].add(1);
            // Drops by verdict are told apart by rule when their entry is credited; these have no entry or no say in it.
            let by_entry = matches!(fate, Fate::Dropped(reason) if *reason != DropReason::ParseError);
            if !by_entry {
                let example = Some(&self.burst.keys[index]);
                self.shared.drops[self.index].add(reason, port, None, 1, now, example);
            }
        }
        self.cells.received.add(count as u64);
        self.cells.forwarded.add(forwarded);
        let dropped = count as u64 - forwarded;
        if dropped > 0
            && let Some(cells) = self.egress.lanes.cells(port)
        {
            cells.rx_dropped.add(dropped);
        }
    }
}

/// What a frame's fate is before its actions are done.
fn first_fate(verdict: Verdict) -> Fate {
    match verdict {
        Verdict::Forward => Fate::Waiting,
        Verdict::Drop(reason) => Fate::Dropped(reason),
    }
}
