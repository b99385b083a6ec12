//! What becomes of the frames of a burst, for the captures of a worker.
//!
//! A copy is told with the packet's verdict, which is known at the end of the burst. Until then copies lie in buffers that
//! are used again for the next burst, beside notes of the rules that each frame matched and the ports it was sent to. So a
//! frame that in the end nobody wants to see costs no allocation. Without a capture the worker asks once a burst, and
//! once for each list of frames that it sends, whether there is one.

use super::BURST;
use super::capture::{Captured, CapturedVerdict, Direction, Probe, ROOM, Writer};
use super::execute::ANSWERS;
use super::lanes::Fate;
use crate::port::TxOutcome;
use sluice_flows::packet::{Frame, Offload};
use sluice_flows::rule::Rule;
use sluice_flows::{DpPort, DropReason};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Outputs that are noted of a burst at most: those of frames that are flooded to very many ports are not all told.
const OUTPUTS: usize = 4096;
/// Rules that are noted of a frame at most; the last ones count.
const RULES: usize = 64;

/// A copy whose verdict is not known yet.
#[derive(Debug)]
struct Pending {
    writer: Arc<Writer>,
    port: usize,
    direction: Direction,
    time: Duration,
    /// The received frame that it is or comes of.
    origin: usize,
    /// Where its bytes are.
    bytes: Range<usize>,
    len: usize,
    offload: Offload,
}

/// A frame that was sent.
#[derive(Debug)]
struct Sent {
    origin: usize,
    port: DpPort,
    lost: Option<DropReason>,
}

/// What a worker remembers of a burst while there are captures.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// There is a capture at some port.
    on: bool,
    /// Some capture looks at what is sent: any frame may come to be copied.
    all: bool,
    /// Bit N is set when what becomes of frame N is to be noted.
    watched: u64,
    pending: Vec<Pending>,
    bytes: Vec<u8>,
    sent: Vec<Sent>,
    /// The rules that each frame matched.
    rules: Vec<Vec<Arc<Rule>>>,
}

impl Witness {
    /// Whether there is a capture.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Takes note of all captures that there are now.
    pub(super) fn look<'a>(&mut self, probes: impl Iterator<Item = &'a Probe>) {
        *self = Self::default();
        for probe in probes {
            self.on = true;
            self.all |= probe.writer.sight.sent;
        }
        if self.on {
            self.rules.resize_with(BURST + 1, Vec::new);
        }
        self.watched = if self.all { u64::MAX } else { 0 };
    }

    /// Copies what a port has received, for those who look there.
    #[cold]
    pub(super) fn received(&mut self, probes: &[Probe], frames: &[Frame]) {
        let time = now();
        for probe in probes.iter().filter(|probe| probe.writer.sight.received) {
            for (origin, frame) in frames.iter().enumerate().filter(|(_, frame)| probe.writer.wants(frame)) {
                self.watched |= 1 << origin;
                self.keep(probe, (origin, frame), Direction::Received, time);
            }
        }
    }

    /// Notes rules that a frame has matched.
    #[cold]
    pub(super) fn matched(&mut self, origin: usize, rules: &[Arc<Rule>]) {
        if self.watched & 1 << origin != 0
            && let Some(known) = self.rules.get_mut(origin)
        {
            let room = RULES.saturating_sub(known.len()).min(rules.len());
            known.extend_from_slice(&rules[rules.len() - room..]);
        }
    }

    /// Notes what `port` has sent, and copies it for those who look there.
    #[cold]
    pub(super) fn sent(
        &mut self,
        port: DpPort,
        probes: &[Probe],
        origins: impl Iterator<Item = usize>,
        frames: &[&Frame],
        outcomes: &[TxOutcome],
    ) {
        let time = now();
        for ((origin, frame), outcome) in origins.zip(frames).zip(outcomes) {
            let lost = match outcome {
                TxOutcome::Sent | TxOutcome::Held => None,
                TxOutcome::Dropped(reason) => Some(*reason),
            };
            if self.watched & 1 << origin != 0 && self.sent.len() < OUTPUTS {
                self.sent.push(Sent { origin, port, lost });
            }
            for probe in probes {
                let sight = &probe.writer.sight;
                if sight.sent && sight.dropped == lost.is_some() && probe.writer.wants(frame) {
                    self.keep(probe, (origin, frame), Direction::Sent, time);
                }
            }
        }
    }

    fn keep(&mut self, probe: &Probe, (origin, frame): (usize, &Frame), direction: Direction, time: Duration) {
        let bytes = &frame.bytes()[..frame.len().min(probe.writer.sight.snaplen)];
        let start = self.bytes.len();
        if start + bytes.len() > ROOM as usize {
            return probe.writer.lose(probe.port);
        }
        self.bytes.extend_from_slice(bytes);
        self.pending.push(Pending {
            writer: Arc::clone(&probe.writer),
            port: probe.port,
            direction,
            time,
            origin,
            bytes: start..self.bytes.len(),
            len: frame.len(),
            offload: frame.offload,
        });
    }

    /// Hands over the copies of the burst, of which all is known now, and forgets it.
    #[cold]
    pub(super) fn finish(&mut self, fates: &[Fate; BURST + 1]) {
        for copy in &self.pending {
            let verdict = verdict(copy.origin, fates);
            let sight = &copy.writer.sight;
            let dropped = matches!(verdict, CapturedVerdict::Dropped(_));
            if sight.dropped && copy.direction == Direction::Received && !dropped
                || !copy.writer.reserve(copy.port, copy.bytes.len())
            {
                continue;
            }
            copy.writer.put(Captured {
                port: copy.port,
                direction: copy.direction,
                time: copy.time,
                bytes: self.bytes.get(copy.bytes.clone()).unwrap_or_default().into(),
                len: copy.len,
                offload: copy.offload,
                verdict,
                outputs: outputs(&self.sent, copy.origin),
                rules: self.rules.get(copy.origin).map_or_else(Box::default, |rules| rules.as_slice().into()),
            });
        }
        self.pending.clear();
        self.bytes.clear();
        self.sent.clear();
        self.rules.iter_mut().for_each(Vec::clear);
        self.watched = if self.all { u64::MAX } else { 0 };
    }
}

fn verdict(origin: usize, fates: &[Fate; BURST + 1]) -> CapturedVerdict {
    if origin == ANSWERS {
        return CapturedVerdict::Answer;
    }
    match fates.get(origin) {
        Some(Fate::Done) => CapturedVerdict::Forwarded,
        Some(Fate::Held) => CapturedVerdict::Waits,
        Some(Fate::Lost(reason) | Fate::Dropped(reason)) => CapturedVerdict::Dropped(*reason),
        // Its actions sent it nowhere although the verdict was to forward it.
        Some(Fate::Waiting) | None => CapturedVerdict::Dropped(DropReason::NoPort),
    }
}

/// Where a frame was sent, each port once. A frame that lost some of its pieces at a port was lost there.
fn outputs(sent: &[Sent], origin: usize) -> Box<[(DpPort, Option<DropReason>)]> {
    let mut ports: Vec<(DpPort, Option<DropReason>)> = Vec::new();
    for Sent { port, lost, .. } in sent.iter().filter(|sent| sent.origin == origin) {
        match ports.iter_mut().find(|(known, _)| known == port) {
            Some((_, known)) => *known = known.or(*lost),
            None => ports.push((*port, *lost)),
        }
    }
    ports.into()
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
