//! One host's echo requests and their answers.

use super::Pair;
use sluice_switch::echo::Echo;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Requests that one host has outstanding.
const WINDOW: usize = 8;

/// Sends requests from the network namespace that it was opened in.
pub(super) struct Pinger {
    echo: Echo,
    /// Oldest first.
    waiting: VecDeque<Request>,
    sequence: u16,
    timeout: Duration,
}

/// A request that waits for its answer.
struct Request {
    sequence: u16,
    pair: usize,
    sent: Instant,
}

impl Pinger {
    /// Opens raw sockets for the versions of IP that are wanted (IPv4, IPv6), in the calling thread's namespace.
    pub(super) fn open(wanted: [bool; 2], timeout: Duration) -> io::Result<Self> {
        Ok(Self { echo: Echo::open(wanted)?, waiting: VecDeque::new(), sequence: 0, timeout })
    }

    /// Sends `count` requests for each pair and waits until every one is answered or lost.
    pub(super) fn run(&mut self, pairs: &mut [Pair], count: u16) -> io::Result<()> {
        let len = pairs.len();
        let mut plan = (0..count).flat_map(|_| 0..len).peekable();
        while plan.peek().is_some() || !self.waiting.is_empty() {
            while self.waiting.len() < WINDOW {
                let Some(pair) = plan.next() else { break };
                self.send(pairs, pair);
            }
            self.wait()?;
            self.receive(pairs)?;
            let (now, timeout) = (Instant::now(), self.timeout);
            self.waiting.retain(|request| now.duration_since(request.sent) < timeout);
        }
        Ok(())
    }

    fn send(&mut self, pairs: &mut [Pair], at: usize) {
        let pair = &mut pairs[at];
        self.sequence = self.sequence.wrapping_add(1);
        pair.sent += 1;
        let now = Instant::now();
        match self.echo.send(pair.address, self.sequence) {
            Ok(()) => self.waiting.push_back(Request { sequence: self.sequence, pair: at, sent: now }),
            Err(error) => pair.error = Some(error.to_string()),
        }
    }

    /// Waits for an answer, or until the oldest request is lost.
    fn wait(&self) -> io::Result<()> {
        let Some(oldest) = self.waiting.front() else { return Ok(()) };
        self.echo.wait((oldest.sent + self.timeout).saturating_duration_since(Instant::now()))
    }

    /// Takes the answers that are there.
    fn receive(&mut self, pairs: &mut [Pair]) -> io::Result<()> {
        let waiting = &mut self.waiting;
        self.echo.receive(|sequence| {
            let at = waiting.iter().position(|request| request.sequence == sequence);
            if let Some(request) = at.and_then(|at| waiting.remove(at)) {
                pairs[request.pair].answered(request.sent.elapsed());
            }
        })
    }
}
