//! Where a worker's time goes: one burst in [`EVERY`] is timed stage by stage, so that it costs the others nothing.

use crate::stats::{Stage, WorkerCells};
use crate::ticks::ticks;

/// One burst in this many is timed.
const EVERY: u64 = 8;

/// The watch of one worker.
#[derive(Debug, Default)]
pub(super) struct Laps {
    /// When the stage began, in ticks; `None` when nothing is timed.
    since: Option<u64>,
}

impl Laps {
    /// A burst may come now.
    #[inline]
    pub(super) fn begin(&mut self, cells: &WorkerCells) {
        self.since = if cells.bursts.get().is_multiple_of(EVERY) { ticks() } else { None };
    }

    /// A stage is over, and the next one begins.
    #[inline]
    pub(super) fn lap(&mut self, stage: Stage, cells: &WorkerCells) {
        if let Some(since) = self.since {
            self.since = ticks();
            cells.stages[stage as usize].add(self.since.unwrap_or(since).saturating_sub(since));
        }
    }

    /// The burst, of so many frames, is over.
    #[inline]
    pub(super) fn end(&mut self, count: usize, cells: &WorkerCells) {
        if self.since.take().is_some() {
            cells.timed_packets.add(count as u64);
        }
    }

    /// Translates, which counts apart from the stage that it is in.
    pub(super) fn translation<T>(&mut self, cells: &WorkerCells, translate: impl FnOnce() -> T) -> T {
        let begin = ticks();
        let out = translate();
        if let (Some(begin), Some(end)) = (begin, ticks()) {
            let spent = end.saturating_sub(begin);
            cells.translation.add(spent);
            self.since = self.since.map(|since| since.saturating_add(spent));
        }
        out
    }
}
