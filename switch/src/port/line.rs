//! Frames in the order in which they come out, each with the time from which it may.
//!
//! Bytes lie behind one another in a ring, so a frame takes the room that it has bytes, be it 60 or 65,000. Both rings
//! grow by doubling; who pushes keeps what is in them within bounds. Time is an argument.

use sluice_flows::packet::{Frame, Offload};
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Line {
    records: VecDeque<Record>,
    bytes: VecDeque<u8>,
    /// When the last frame pushed is due: none behind it is due earlier.
    last: u64,
}

#[derive(Debug)]
struct Record {
    due: u64,
    len: u32,
    offload: Offload,
}

impl Line {
    /// Whether no frame is under way.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// When the first frame is due.
    #[inline]
    pub(crate) fn due(&self) -> Option<u64> {
        self.records.front().map(|record| record.due)
    }

    /// Puts a copy of `frame` behind the others; it is due at `due`, or with the one before it if that is later.
    pub(crate) fn push(&mut self, frame: &Frame, due: u64) {
        self.last = self.last.max(due);
        self.records.push_back(Record { due: self.last, len: frame.len() as u32, offload: frame.offload });
        self.bytes.extend(frame.bytes());
    }

    /// Takes the first frame off if it is due at `now`. Returns the length that it was pushed with.
    pub(crate) fn pop(&mut self, now: u64, frame: &mut Frame) -> Option<u32> {
        let record = self.records.pop_front_if(|record| record.due <= now)?;
        let len = record.len as usize;
        let (front, back) = self.bytes.as_slices();
        let split = front.len().min(len);
        let room = frame.room();
        // A frame without room for all takes what it can: the ring must stay in step.
        let (first, second) = (split.min(room.len()), len.min(room.len()).saturating_sub(split));
        room[..first].copy_from_slice(&front[..first]);
        room[first..first + second].copy_from_slice(&back[..second]);
        frame.set_len(first + second);
        frame.offload = record.offload;
        self.bytes.drain(..len);
        Some(record.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::packet::MAX_FRAME_LEN;

    fn frame(len: usize, fill: u8) -> Frame {
        Frame::from_bytes(&vec![fill; len])
    }

    #[test]
    fn a_frame_comes_out_when_it_is_due_and_not_before() {
        let mut line = Line::default();
        let mut out = Frame::with_capacity(MAX_FRAME_LEN);
        line.push(&frame(60, 1), 100);
        assert_eq!(line.due(), Some(100));
        assert_eq!(line.pop(99, &mut out), None);
        assert_eq!(line.pop(100, &mut out), Some(60));
        assert_eq!(out.bytes(), [1; 60]);
        assert!(line.is_empty() && line.pop(u64::MAX, &mut out).is_none());
    }

    #[test]
    fn no_frame_overtakes_another() {
        let mut line = Line::default();
        let mut out = Frame::with_capacity(MAX_FRAME_LEN);
        for (fill, due) in [(1, 300), (2, 100), (3, 200), (4, 400)] {
            line.push(&frame(60, fill), due);
        }
        assert_eq!(line.pop(299, &mut out), None);
        let mut order = Vec::new();
        while line.pop(300, &mut out).is_some() {
            order.push(out.bytes()[0]);
        }
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(line.due(), Some(400));
    }

    #[test]
    fn bytes_and_metadata_survive_the_ring_s_seam() {
        let mut line = Line::default();
        let mut out = Frame::with_capacity(MAX_FRAME_LEN);
        let mut waiting = VecDeque::new();
        for round in 0..500_u32 {
            let len = (round * 7919 % 3000) as usize;
            let mut sent = frame(len, round as u8);
            sent.offload.gso_size = round as u16;
            line.push(&sent, 0);
            waiting.push_back((len, round));
            while waiting.len() > 3 {
                assert!(line.pop(0, &mut out).is_some());
                let (len, round) = waiting.pop_front().unwrap();
                assert_eq!(out.bytes(), vec![round as u8; len]);
                assert_eq!(out.offload.gso_size, round as u16);
            }
        }
    }

    #[test]
    fn a_frame_with_too_little_room_is_cut_and_the_next_is_whole() {
        let mut line = Line::default();
        line.push(&frame(500, 1), 0);
        line.push(&frame(60, 2), 0);
        let mut small = Frame::with_capacity(100);
        assert_eq!((line.pop(0, &mut small), small.bytes()), (Some(500), &[1; 100][..]));
        assert_eq!((line.pop(0, &mut small), small.bytes()), (Some(60), &[2; 60][..]));
    }
}
