//! What is on its way to one worker at an end.

use super::super::alarm::Alarm;
use super::super::line::Line;
use sluice_flows::packet::Frame;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames of a link with a rate come one by one, and waking for each costs more than the frame: a worker that received
/// some sleeps at least so long, in nanoseconds.
const REST: u64 = 50_000;

#[derive(Debug)]
pub(super) struct Lane {
    /// Set to when the first frame is due, as soon as a receiver came for nothing.
    pub(super) alarm: Alarm,
    state: Mutex<LaneState>,
}

#[derive(Debug, Default)]
pub(super) struct LaneState {
    line: Line,
    /// Frames that overtake those of the line.
    ahead: Line,
    /// Frames that were lost on the way, and are to be counted where they would have arrived.
    lost: u32,
    /// Whether the frames come at a rate.
    pub(super) paced: bool,
    /// Before that, nobody is woken for frames that come at a rate.
    rest: u64,
    /// What the timer is set to; it stays readable from then on until it is set anew.
    set: Option<u64>,
}

impl Lane {
    /// # Errors
    /// The system has no descriptor left for a timer.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { alarm: Alarm::new()?, state: Mutex::default() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the descriptor become readable when the first frame is due, for a receiver that came for nothing.
    pub(super) fn wait(&self, state: &mut LaneState, now: u64) {
        let due = state.due(now);
        self.alarm.set(&mut state.set, due);
    }

    /// As [`Self::wait`], if frames that were put on the lane are due before what the receiver waits for.
    pub(super) fn wake(&self, state: &mut LaneState, now: u64) {
        if let Some(due) = state.due(now).filter(|due| state.set.is_none_or(|set| *due < set)) {
            self.alarm.set(&mut state.set, Some(due));
        }
    }
}

impl LaneState {
    /// Whether there is nothing to receive, and will not be.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.ahead.is_empty()
    }

    /// When there is something for a receiver.
    fn due(&self, now: u64) -> Option<u64> {
        let first = self.line.due().into_iter().chain(self.ahead.due()).min();
        let first = if self.paced { first.map(|due| due.max(self.rest)) } else { first };
        if self.lost > 0 { Some(first.map_or(now, |due| due.min(now))) } else { first }
    }

    /// Puts a copy of `frame` on the lane, behind the others or behind those that overtake them.
    #[inline]
    pub(super) fn push(&mut self, frame: &Frame, due: u64, ahead: bool) {
        if ahead { self.ahead.push(frame, due) } else { self.line.push(frame, due) }
    }

    /// Notes that a frame was lost.
    pub(super) fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// Frames that were lost since the last call.
    pub(super) fn take_lost(&mut self) -> u32 {
        std::mem::take(&mut self.lost)
    }

    /// Takes the frames off that are due at `now`, first those that were due first. Returns how many they are, and how
    /// many bytes they were pushed with.
    pub(super) fn receive(&mut self, now: u64, frames: &mut [Frame]) -> (usize, u64) {
        let (mut count, mut bytes) = (0, 0);
        while let Some(frame) = frames.get_mut(count)
            && let Some(len) = self.pop(now, frame)
        {
            count += 1;
            bytes += u64::from(len);
        }
        if count > 0 && self.paced {
            self.rest = now.saturating_add(REST);
        }
        (count, bytes)
    }

    #[inline]
    fn pop(&mut self, now: u64, frame: &mut Frame) -> Option<u32> {
        let is_first = |ahead: u64| self.line.due().is_none_or(|due| ahead < due);
        let line = if self.ahead.due().is_some_and(is_first) { &mut self.ahead } else { &mut self.line };
        line.pop(now, frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::packet::MAX_FRAME_LEN;

    fn received(state: &mut LaneState, now: u64) -> Vec<u8> {
        let mut frames: Vec<_> = (0..10).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
        let (count, bytes) = state.receive(now, &mut frames);
        assert_eq!(bytes, count as u64 * 60);
        frames[..count].iter().map(|frame| frame.bytes()[0]).collect()
    }

    fn push(state: &mut LaneState, number: u8, due: u64, ahead: bool) {
        state.push(&Frame::from_bytes(&[number; 60]), due, ahead);
    }

    #[test]
    fn a_frame_that_is_reordered_overtakes_those_that_are_on_their_way_and_no_other_does() {
        let mut state = LaneState::default();
        for (number, due, ahead) in [(1, 200, false), (2, 190, false), (3, 110, true), (4, 105, true), (5, 300, false)]
        {
            push(&mut state, number, due, ahead);
        }
        assert_eq!(state.due(0), Some(110));
        assert_eq!(received(&mut state, 109), [0_u8; 0]);
        assert_eq!(received(&mut state, 110), [3, 4], "order is kept among those that overtake");
        assert_eq!(received(&mut state, 200), [1, 2]);
        assert_eq!(received(&mut state, 1000), [5]);
        assert!(state.is_empty() && state.due(0).is_none());
    }

    #[test]
    fn frames_due_together_come_as_they_were_sent() {
        let mut state = LaneState::default();
        push(&mut state, 1, 100, false);
        push(&mut state, 2, 100, true);
        assert_eq!(received(&mut state, 100), [1, 2]);
    }

    #[test]
    fn a_loss_is_told_at_once_whether_frames_are_under_way_or_not() {
        let mut state = LaneState::default();
        state.lose();
        assert_eq!(state.due(50), Some(50));
        push(&mut state, 1, 100, false);
        assert_eq!((state.due(50), state.take_lost(), state.take_lost()), (Some(50), 1, 0));
        assert_eq!(state.due(50), Some(100));
    }

    #[test]
    fn a_receiver_of_frames_at_a_rate_rests_and_others_do_not() {
        for (paced, next) in [(false, 101), (true, 100 + REST)] {
            let mut state = LaneState { paced, ..LaneState::default() };
            push(&mut state, 1, 100, false);
            assert_eq!(state.due(0), Some(100));
            assert_eq!(received(&mut state, 100), [1]);
            push(&mut state, 2, 101, false);
            assert_eq!(state.due(100), Some(next));
        }
    }
}
