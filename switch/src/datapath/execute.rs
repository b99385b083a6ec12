//! Doing what a translation said to a frame of the burst.
//!
//! An output only notes the frame's number in the port's [lane](super::lanes). So a rewrite behind an output must not
//! touch what is waiting: it goes on with a copy. A flood of N ports with nothing rewritten in between copies nothing.
//! A list that works on a copy of the packet ([`DpAction::Clone`], [`DpAction::CheckPktLen`]) makes that copy only when
//! it changes the packet while somebody still needs it as it was.
//!
//! Frames `0..BURST` are those received, the others are for copies. When copies run out, everything waiting is sent
//! and they are free again, but for those that an outer list goes on with.
//!
//! # Super-frames
//! A meter sees a super-frame as one packet of its whole length, as Open vSwitch's do. `CheckPktLen` sees the length
//! that it has on the wire, that of a segment. An output takes it whole only as it was received: one that is under new
//! headers, or of which only a part is to be sent, is cut into segments here.

use super::BURST;
use super::burst::NO_INGRESS;
use super::cache::megaflow::Parts;
use super::cut::{Cutting, NO_MTU};
use super::fragments::Goes;
use super::lanes::{Fate, Lanes};
use super::laps::Laps;
use super::ledger::Ledger;
use super::passes::{Cached, Continuation, Passes};
use super::punt::Budget;
use super::recording::Recording;
use super::reject;
use super::shared::Shared;
use super::upcall::resumed;
use crate::conntrack::Tracked;
use crate::stats::WorkerCells;
use sluice_flows::bridge::Model;
use sluice_flows::datapath::{DpAction, DpCt, PacketIn};
use sluice_flows::key::{FRAME_WORDS, FlowKey, FlowMask, PACKET_WORDS, PacketKey, slot};
use sluice_flows::packet::readdress::Readdress;
use sluice_flows::packet::segment::wire_len;
use sluice_flows::packet::{Frame, Layers, MAX_FRAME_LEN, encap, extract, rewrite};
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::tunnel::TunnelKey;
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;

/// Lists within lists that are followed; flow text allows no more either.
const MAX_NESTED: usize = 64;
/// Passes of one received frame and its copies beyond the first. A table may send a packet through one pass after the
/// other, each with several behind it.
const MAX_PASSES: u32 = 64;
/// Frames for copies: one that each list in a nest of them goes on with, and some to work with.
const COPIES: usize = MAX_NESTED + 8;

/// Where the fate of answers and of copies for mirrors is noted, which are nothing that was received.
pub(super) const ANSWERS: usize = BURST;

/// Stands for no number of [`Egress::tracked`].
const NOT_TRACKED: u16 = u16::MAX;

/// What actions need of the worker besides its frames.
pub(super) struct Surroundings<'a> {
    /// The packet as it arrived.
    pub(super) key: &'a PacketKey,
    pub(super) shared: &'a Shared,
    pub(super) model: &'a Model,
    pub(super) cells: &'a WorkerCells,
    /// Numbers the states of model and MAC table that the worker has seen.
    pub(super) epoch: u64,
    pub(super) now: Millis,
}

/// What one pass does, and where its other passes go on.
pub(super) type Pass<'a> = (&'a [DpAction], &'a [Arc<Continuation>]);

/// The frames of a burst on their way out.
pub(super) struct Egress {
    pub(super) lanes: Lanes,
    /// The port that the frames came in by.
    pub(super) ingress: DpPort,
    /// Those received, then copies.
    pub(super) frames: Vec<Frame>,
    /// Of those received, then of all [answers](ANSWERS).
    pub(super) fates: [Fate; BURST + 1],
    pub(super) next_copy: usize,
    /// The frames that outer lists go on with, outermost first. Copies among them are in the order of their numbers.
    pub(super) held: Vec<u16>,
    pub(super) cutting: Cutting,
    /// Passes that the frame at hand may still take.
    pub(super) passes_left: u32,
    /// What connection tracking said of the frame at hand and its copies.
    tracked: Vec<Tracked>,
    /// The rules that dropped frames in another pass than the first.
    pub(super) deciders: [Option<Arc<Rule>>; BURST],
    /// Bit N is set when frame N has one.
    pub(super) decided: u32,
    /// Bit N is set when frame N waits for the rest of its datagram.
    pub(super) waiting: u32,
    pub(super) passes: Passes,
    pub(super) recording: Recording,
    /// A pass was translated: what that changed has to be picked up.
    pub(super) translated: bool,
    /// Where the time goes.
    pub(super) laps: Laps,
    pub(super) budget: Budget,
    /// For answers to packets that were rejected.
    pub(super) answers: Budget,
}

/// How far a list of actions has got with a packet.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The received frame that it is or is a copy of.
    pub(super) origin: usize,
    /// The frame that it now is.
    pub(super) current: usize,
    pub(super) layers: Layers,
    /// The frame's bytes are needed as they are: it waits to be sent, or an outer list goes on with it.
    pub(super) shared: bool,
    /// The next output sends at most this many bytes.
    pub(super) limit: Option<u32>,
    /// Outputs send IPv4 packets in fragments of at most this many bytes; [`NO_MTU`] for whole ones.
    pub(super) mtu: u16,
    /// What connection tracking said of it, by number; [`NOT_TRACKED`] for nothing.
    pub(super) tracked: u16,
    /// What is done is done as it stands in the list of a pass, so that it can be recorded.
    pub(super) plain: bool,
}

impl Egress {
    pub(super) fn new(worker: usize, budget: Budget, passes: Passes) -> Self {
        Self {
            lanes: Lanes::new(worker),
            ingress: NO_INGRESS,
            frames: (0..BURST + COPIES).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect(),
            fates: [Fate::Waiting; BURST + 1],
            next_copy: BURST,
            held: Vec::with_capacity(MAX_NESTED + 2),
            cutting: Cutting::default(),
            passes_left: 0,
            tracked: Vec::new(),
            deciders: [const { None }; BURST],
            decided: 0,
            waiting: 0,
            passes,
            recording: Recording::default(),
            translated: false,
            laps: Laps::default(),
            budget,
            answers: reject::budget(),
        }
    }

    /// Takes note that the first `count` frames came in by `port`.
    #[inline]
    pub(super) fn received(&mut self, port: DpPort, count: usize) {
        self.ingress = port;
        if self.lanes.witness.is_on() {
            self.lanes.received(port, &self.frames[..count]);
        }
    }

    /// Sends frame `index` as it is to `port`, at the end of the burst.
    #[inline]
    pub(super) fn output(&mut self, port: DpPort, index: usize) {
        self.output_as(port, index, index);
    }

    #[inline]
    pub(super) fn output_as(&mut self, port: DpPort, frame: usize, origin: usize) {
        if !self.lanes.queue(port, frame, origin, &self.frames, &mut self.fates) {
            self.fates[origin].lose(DropReason::NoPort);
        }
    }

    /// Works through a list of actions, with where its other passes go on, with the received frame `origin`.
    pub(super) fn run(&mut self, pass: Pass<'_>, origin: usize, layers: Layers, to: &Surroundings<'_>) {
        self.passes_left = MAX_PASSES;
        let mut at = Place {
            origin,
            current: origin,
            layers,
            shared: false,
            limit: None,
            mtu: NO_MTU,
            tracked: NOT_TRACKED,
            plain: true,
        };
        self.tracked.clear();
        if let Err(reason) = self.list(pass, &mut at, to) {
            self.fates[origin].lose(reason);
        }
    }

    /// Works through a list. An error ends it: the packet is dropped for that reason.
    pub(super) fn list(
        &mut self,
        (mut rest, resumes): Pass<'_>,
        at: &mut Place,
        to: &Surroundings<'_>,
    ) -> Result<(), DropReason> {
        while let Some((action, behind)) = rest.split_first() {
            rest = behind;
            if self.recording.is_on() {
                self.record(action, at);
            }
            let nested: &[DpAction] = match action {
                DpAction::Output(port) => {
                    self.send(*port, at);
                    continue;
                }
                DpAction::Mirror(port) => {
                    self.send_copy(*port, at);
                    continue;
                }
                DpAction::Set(changes) => {
                    self.own(at);
                    for c in changes {
                        rewrite::set_field(&mut self.frames[at.current], &at.layers, c.field, c.value, c.mask);
                    }
                    continue;
                }
                DpAction::Readdress(new) => {
                    self.own(at);
                    new.apply(&mut self.frames[at.current], &at.layers);
                    continue;
                }
                DpAction::Controller(about) => {
                    self.punt(about, at, to);
                    continue;
                }
                DpAction::Tunnel(key) => {
                    self.own(at);
                    self.frames[at.current].tunnel = Some(**key);
                    continue;
                }
                DpAction::Snoop(from) => {
                    let bytes = self.frames[at.current].bytes();
                    to.shared.macs.snoop(from, bytes, &at.layers, to.now);
                    continue;
                }
                DpAction::Truncate(limit) => {
                    at.limit = Some(*limit);
                    continue;
                }
                DpAction::Fragment { mtu, too_long } => {
                    self.keep_to(*mtu, too_long, at, to)?;
                    continue;
                }
                DpAction::Reject => {
                    self.reject(at, to);
                    continue;
                }
                DpAction::Meter(meter) => {
                    if meter.0.admit(self.frames[at.current].len() as u64, to.now) {
                        continue;
                    }
                    return Err(DropReason::Meter);
                }
                DpAction::Drop(reason) => return Err(*reason),
                DpAction::Recirculate(index) => {
                    if let Some(place) = resumes.get(*index as usize) {
                        self.next_pass(place, rest.is_empty(), at, to)?;
                    }
                    continue;
                }
                DpAction::Ct(ask) => match self.track(ask, (rest, resumes), at, to)? {
                    Goes::On => continue,
                    Goes::Later => return Ok(()),
                },
                DpAction::CtClear => {
                    at.tracked = NOT_TRACKED;
                    continue;
                }
                DpAction::Clone(list) => list,
                DpAction::CheckPktLen { len, larger, otherwise } => {
                    if wire_len(&self.frames[at.current]) > usize::from(*len) { larger } else { otherwise }
                }
                headers => {
                    self.own(at);
                    change_headers(headers, &mut self.frames[at.current], &mut at.layers)?;
                    continue;
                }
            };
            if rest.is_empty() {
                // Nobody needs the packet as it was.
                rest = nested;
                at.plain = false;
            } else {
                let plain = std::mem::replace(&mut at.plain, false);
                self.nested((nested, resumes), at, to);
                at.plain = plain;
            }
        }
        Ok(())
    }

    /// Writes an action down that is about to be done.
    #[cold]
    fn record(&mut self, action: &DpAction, at: &Place) {
        match action {
            DpAction::Ct(_) | DpAction::Recirculate(_) if !at.plain => self.recording.stop(),
            // What comes of these is written down when they are done.
            DpAction::Ct(_) | DpAction::Recirculate(_) | DpAction::CtClear => {}
            _ if at.plain => self.recording.action(action),
            _ => {}
        }
    }

    /// Works through a list with a copy of the packet.
    #[inline(never)]
    fn nested(&mut self, list: Pass<'_>, at: &mut Place, to: &Surroundings<'_>) {
        let outcome = if self.held.len() < MAX_NESTED {
            self.held.push(at.current as u16);
            let outcome = self.list(list, &mut Place { shared: true, ..*at }, to);
            at.current = self.release(at.current);
            at.shared = true;
            outcome
        } else {
            Err(DropReason::Loop)
        };
        if let Err(reason) = outcome {
            self.fates[at.origin].lose(reason);
        }
    }

    /// Reads the packet anew and does what comes of it at `place`: with a copy, unless this is the `last` that is done
    /// with it.
    #[cold]
    fn next_pass(
        &mut self,
        place: &Continuation,
        last: bool,
        at: &mut Place,
        to: &Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let Some(left) = self.passes_left.checked_sub(1) else {
            self.recording.stop();
            return Err(DropReason::Loop);
        };
        self.passes_left = left;
        let frame = &self.frames[at.current];
        let len = frame.len() as u64;
        let mut read = PacketKey::ZERO;
        at.layers = extract(frame.bytes(), 0, &mut read);
        let mut key = place.resume.key;
        // The first word is the ingress port and the mark, which no frame has.
        key.0[1..FRAME_WORDS].copy_from_slice(&read.0[1..FRAME_WORDS]);
        let tunnel = TunnelKey::of(to.key).overlaid(&TunnelKey::of_flow(&key), &place.resume.tunnel_written);
        key.0[FRAME_WORDS..PACKET_WORDS].copy_from_slice(&tunnel.0);
        if let Some(tracked) = self.tracked.get(usize::from(at.tracked)) {
            tracked.write(&mut key);
        }
        let Some(pass) = self.look_up(place, (at.origin, &key), len, to) else {
            self.recording.stop();
            return Err(DropReason::NoPort);
        };
        if let Some(reason) = pass.drop
            && self.fates[at.origin] == Fate::Waiting
        {
            self.fates[at.origin] = Fate::Lost(reason);
            self.deciders[at.origin] = pass.rule;
            self.decided |= 1 << at.origin;
        }
        let steps = (&*pass.actions, &*pass.resumes);
        let outcome = if last {
            self.list(steps, at, to)
        } else {
            self.nested(steps, at, to);
            Ok(())
        };
        self.recording.end_pass(last);
        outcome
    }

    /// What is done with a packet that goes on at `place` as `key`: from the cache, or translated now. `None` when the
    /// bridge is gone.
    fn look_up(
        &mut self,
        place: &Continuation,
        (origin, key): (usize, &FlowKey),
        len: u64,
        to: &Surroundings<'_>,
    ) -> Option<Cached> {
        let ledger = Ledger::new(to.shared, &self.lanes, to.model);
        if !to.shared.settings.caches {
            let (mut flow, steps) = resumed(to.shared, to.model, &place.resume, key, to.now)?.unnumbered();
            self.translated = true;
            ledger.credit(&mut flow, 1, len, to.now);
            self.lanes.witness.matched(origin, &flow.rules);
            return Some(Cached::new(&flow, steps.actions.into(), steps.resumes.into()));
        }
        let state = (to.model, to.epoch, &to.shared.macs);
        let found = self.passes.find(place, key, state);
        let index = match found {
            Some(index) => {
                to.cells.pass_hits.add(1);
                index
            }
            None => {
                let translate = || resumed(to.shared, to.model, &place.resume, key, to.now);
                let answer = self.laps.translation(to.cells, translate)?;
                self.translated = true;
                to.cells.pass_misses.add(1);
                let mask = answer.mask;
                let answer = answer.numbered(&mut self.passes);
                let settle = |entry: Parts<'_>| ledger.settle_pass(entry.hot, entry.flow);
                self.passes.install(place, (key, &mask), answer, (to.epoch, to.now), settle)
            }
        };
        if self.lanes.witness.is_on() {
            self.lanes.witness.matched(origin, &self.passes.cache.parts(index).flow.rules);
        }
        let cached = self.passes.hit(index, len, to.now);
        if self.recording.is_on()
            && let Some(mask) = self.passes.cache.mask(index).map(FlowMask::packet)
        {
            self.recording.begin_pass(&mask, self.passes.cache.parts(index).flow);
        }
        Some(cached)
    }

    /// Does what `ct` asks; `rest` is what follows in its list.
    #[inline(never)]
    fn track(&mut self, ask: &DpCt, rest: Pass<'_>, at: &mut Place, to: &Surroundings<'_>) -> Result<Goes, DropReason> {
        if ask.nat.is_some() || ask.alg.is_some() {
            self.own(at);
        }
        let mut translation = None;
        let mut tracked = self.said_of(at);
        let frame = &mut self.frames[at.current];
        let mut key = PacketKey::ZERO;
        at.layers = extract(frame.bytes(), 0, &mut key);
        if key.get(slot::IP_FRAG) != 0 {
            return self.track_fragment(ask, rest, at, to);
        }
        let answer = to.shared.conntrack.track((frame, &at.layers, &key), ask, &mut tracked, to.now);
        if self.recording.is_on() {
            match &answer {
                Ok(_) if ask.nat.is_none() => {}
                Ok(_) => translation = readdress(&key, frame),
                Err(_) => self.recording.stop(),
            }
        }
        at.tracked = self.remember(tracked);
        self.recording.tracked(answer?, translation);
        Ok(Goes::On)
    }

    /// What connection tracking has said of the packet.
    pub(super) fn said_of(&self, at: &Place) -> Tracked {
        self.tracked.get(usize::from(at.tracked)).cloned().unwrap_or_default()
    }

    /// Keeps what connection tracking says, and returns its number.
    pub(super) fn remember(&mut self, tracked: Tracked) -> u16 {
        let number = self.tracked.len().min(usize::from(NOT_TRACKED)) as u16;
        self.tracked.push(tracked);
        number
    }

    /// The frame that was held last, where it now is.
    pub(super) fn release(&mut self, index: usize) -> usize {
        self.held.pop().map_or(index, usize::from)
    }

    /// Sends the packet by `port` as a mirror's copy, which has no part in the packet's fate.
    #[cold]
    fn send_copy(&mut self, port: DpPort, at: &mut Place) {
        let origin = std::mem::replace(&mut at.origin, ANSWERS);
        self.send(port, at);
        at.origin = origin;
    }

    /// Sends the packet by `port`.
    #[inline]
    fn send(&mut self, port: DpPort, at: &mut Place) {
        let frame = &self.frames[at.current];
        let limit = at.limit.take();
        let whole = at.mtu == NO_MTU && limit.is_none_or(|limit| wire_len(frame) <= limit as usize);
        if at.layers.l3_ofs == 0 {
            // Its Ethernet header was taken off.
            self.fates[at.origin].lose(DropReason::ParseError);
        } else if whole && encap::is_plain(frame, &at.layers) {
            self.output_as(port, at.current, at.origin);
            at.shared = true;
        } else {
            self.send_cut(port, at, limit.map_or(usize::MAX, |limit| limit as usize));
        }
    }

    /// Hands the packet to the controllers.
    #[inline(never)]
    pub(super) fn punt(&mut self, about: &PacketIn, at: &Place, to: &Surroundings<'_>) {
        let frame = &self.frames[at.current];
        let admitted = about.meter.as_ref().is_none_or(|meter| meter.0.admit(frame.len() as u64, to.now));
        let taken = admitted && self.budget.take(to.now) && to.shared.punts.hand_over(about, frame);
        let fate = &mut self.fates[at.origin];
        if !taken {
            to.cells.packet_ins_lost.add(1);
        }
        if about.drop.is_some() {
            // The controllers are only told.
        } else if !taken {
            fate.lose(if admitted { DropReason::Overload } else { DropReason::Meter });
        } else if !matches!(fate, Fate::Dropped(_)) {
            *fate = Fate::Done;
        }
    }

    /// Sends everything that waits. Copies are free again.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.lanes.flush(&self.frames, &mut self.fates);
        self.next_copy = BURST;
    }

    /// Makes the packet one that nobody else needs as it is.
    #[inline]
    pub(super) fn own(&mut self, at: &mut Place) {
        if at.shared {
            self.copy(at);
        }
    }

    /// Goes on with a copy of the packet.
    #[inline(never)]
    fn copy(&mut self, at: &mut Place) {
        at.shared = false;
        let full = self.next_copy == self.frames.len();
        self.held.push(at.current as u16);
        let copy = self.fresh();
        at.current = self.release(at.current);
        if full && !self.held.contains(&(at.current as u16)) {
            // It has been sent, and no outer list goes on with it.
            self.next_copy = copy;
            return;
        }
        let (front, back) = self.frames.split_at_mut(copy);
        back[0].clone_from_frame(&front[at.current]);
        at.current = copy;
    }

    /// A frame that nothing waits for. If there was none, everything that waits is sent, and frames that are held are in
    /// other places then.
    pub(super) fn fresh(&mut self) -> usize {
        if self.next_copy == self.frames.len() {
            self.flush();
            let mut last = None;
            for index in &mut self.held {
                if usize::from(*index) < BURST {
                    continue;
                }
                if last != Some(*index) {
                    last = Some(*index);
                    self.frames.swap((*index).into(), self.next_copy);
                    self.next_copy += 1;
                }
                *index = (self.next_copy - 1) as u16;
            }
        }
        self.next_copy += 1;
        self.next_copy - 1
    }
}

/// What gives a packet that was `before` the addresses and ports that the frame has now.
fn readdress(before: &PacketKey, frame: &Frame) -> Option<DpAction> {
    let mut after = PacketKey::ZERO;
    extract(frame.bytes(), 0, &mut after);
    Readdress::between(before, &after).map(|new| DpAction::Readdress(Box::new(new)))
}

/// Puts a header on or takes one off. A header that is not there is left alone, as Open vSwitch does; a packet that a
/// header cannot be put in front of is dropped.
#[inline(never)]
fn change_headers(action: &DpAction, frame: &mut Frame, layers: &mut Layers) -> Result<(), DropReason> {
    let fits = match action {
        DpAction::PushVlan { tpid, tci } => rewrite::push_vlan(frame, layers, *tpid, *tci),
        DpAction::PushMpls { eth_type, lse } => encap::push_mpls(frame, layers, *eth_type, *lse),
        DpAction::PushEthernet { src, dst, eth_type } => encap::push_ethernet(frame, layers, *src, *dst, *eth_type),
        DpAction::PushNsh(header) => encap::push_nsh(frame, layers, header),
        pop => {
            match pop {
                DpAction::PopVlan => _ = rewrite::pop_vlan(frame, layers),
                DpAction::PopMpls(eth_type) => _ = encap::pop_mpls(frame, layers, *eth_type),
                DpAction::PopEthernet => _ = encap::pop_ethernet(frame, layers),
                DpAction::PopNsh => _ = encap::pop_nsh(frame, layers),
                _ => {}
            }
            return Ok(());
        }
    };
    if fits { Ok(()) } else { Err(DropReason::Overload) }
}
