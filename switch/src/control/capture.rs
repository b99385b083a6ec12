//! Captures: copies of what crosses ports, for as long as somebody holds the [`Capture`].

use super::hands::when_done;
use super::{ControlError, Datapath};
use crate::datapath::{Captured, Command, Copies, Probe, Sight, capture};
use sluice_flows::key::FRAME_WORDS;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ports of one capture at most.
const MAX_PORTS: usize = 256;

/// A running capture. It ends when this is dropped.
pub struct Capture {
    datapath: Datapath,
    id: u64,
    copies: Copies,
}

impl Capture {
    /// The next copy; `None` when no frame came for so long.
    pub fn next(&self, patience: Duration) -> Option<Captured> {
        self.copies.next(patience)
    }

    /// Frames of each port that were to be copied and were not because this was not read fast enough, since the start.
    pub fn lost(&self) -> impl Iterator<Item = u64> {
        self.copies.lost()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let inner = &self.datapath.inner;
        for worker in &inner.workers {
            worker.send(Command::EndCapture { id: self.id });
        }
        // At the end of the switch there is nothing left to restore.
        if let Ok(mut state) = inner.lock_for_change() {
            inner.end_lending(&mut state, self.id);
        }
    }
}

impl Datapath {
    /// Captures what crosses these ports, by name, from when this returns: the packets that `sight` says.
    /// [`Captured::port`] counts in the order of `ports`.
    ///
    /// # Errors
    /// [`ControlError::UnknownPort`], and [`ControlError::Capture`] for what cannot be captured: a patch without its other
    /// end, too many ports, and a match on what is not in the packet.
    pub fn capture(&self, ports: &[String], sight: &Sight) -> Result<Capture, ControlError> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let refused = |why: String| Err(ControlError::Capture { why });
        // The first word is the ingress port and the mark.
        let beside = |(word, _, mask): (usize, u64, u64)| mask != 0 && !(1..FRAME_WORDS).contains(&word);
        if sight.all_matches().flat_map(sluice_flows::Match::words).any(beside) {
            return refused("its match may only look at what is in the packet, not at ports or metadata".to_owned());
        }
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return refused(format!("it takes 1 to {MAX_PORTS} ports, not {}", ports.len()));
        }
        let mut state = self.inner.lock_for_change()?;
        let found = ports.iter().map(|name| state.port_named(name)).collect::<Result<Vec<_>, _>>()?;
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let (writer, copies) = capture(id, sight.clone(), ports.len());
        // From here on what was begun is ended by dropping it.
        let begun = Capture { datapath: self.clone(), id, copies };
        for port in &found {
            let lent = if state.patch(*port).is_some() { self.inner.lend_wire(&mut state, id, *port) } else { Ok(()) };
            if let Err(error) = lent {
                drop(state);
                return Err(error);
            }
        }
        when_done(|done| {
            for (port, dp) in found.into_iter().enumerate() {
                for worker in &self.inner.workers {
                    let probe = Probe { port, writer: Arc::clone(&writer) };
                    worker.send(Command::Capture { port: dp, probe, done: done.clone() });
                }
            }
            drop(state);
        });
        Ok(begun)
    }
}
