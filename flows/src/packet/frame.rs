//! A frame in its buffer, with room in front for headers to be pushed.

use super::Offload;
use crate::tunnel::TunnelKey;
use std::fmt;

/// Free bytes in front of a received frame: VLAN tags, tunnel headers and a port's own metadata go there.
pub const HEADROOM: usize = 128;
/// Longest frame the switch carries, in bytes: a 64 KiB super-frame with its link headers.
pub const MAX_FRAME_LEN: usize = 65_535 + 32;

/// One frame and its [`Offload`] metadata.
///
/// The buffer is allocated once and reused: [`Frame::reset`] makes it empty again.
pub struct Frame {
    buf: Box<[u8]>,
    start: u32,
    len: u32,
    /// What is left for the output to do.
    pub offload: Offload,
    /// Of a frame received: the tunnel that it arrived by. Of one to be sent: what flows decided of its outer headers.
    pub tunnel: Option<TunnelKey>,
}

impl Frame {
    /// An empty frame with room for `capacity` bytes behind [`HEADROOM`].
    ///
    /// `capacity` is at most [`MAX_FRAME_LEN`]; more is cut to it.
    pub fn with_capacity(capacity: usize) -> Self {
        let buf = vec![0; HEADROOM + capacity.min(MAX_FRAME_LEN)].into_boxed_slice();
        Self { buf, start: HEADROOM as u32, len: 0, offload: Offload::NONE, tunnel: None }
    }

    /// A frame with these bytes and nothing left to do; bytes past [`MAX_FRAME_LEN`] are cut off.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut frame = Self::with_capacity(bytes.len());
        frame.copy_from(&bytes[..bytes.len().min(MAX_FRAME_LEN)]);
        frame
    }

    /// Makes the frame empty, with full headroom.
    #[inline]
    pub fn reset(&mut self) {
        self.start = HEADROOM as u32;
        self.len = 0;
        self.offload = Offload::NONE;
        self.tunnel = None;
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the frame has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the buffer can hold behind the headroom.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.buf.len() - HEADROOM
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start as usize..][..self.len as usize]
    }

    /// The frame's bytes, to change.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start as usize..][..self.len as usize]
    }

    /// Empties the frame and returns its whole room behind the headroom, for a port to receive into; say how much came
    /// with [`Self::set_len`].
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        self.reset();
        &mut self.buf[HEADROOM..]
    }

    /// Sets the length after bytes were written into [`Self::room`]; cut at the room there is.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.buf.len() - self.start as usize) as u32;
    }

    /// Empties the frame and fills it with `bytes`, cut at [`Self::capacity`].
    #[inline]
    pub fn copy_from(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.capacity());
        self.room()[..len].copy_from_slice(&bytes[..len]);
        self.len = len as u32;
    }

    /// Puts `bytes` behind those that are there. False, and nothing changes, when there is no room for all of them.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        let end = self.start as usize + self.len();
        let Some(room) = self.buf.get_mut(end..).and_then(|room| room.get_mut(..bytes.len())) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len() as u32;
        true
    }

    /// Makes this frame a copy of `other`, metadata included. One longer than [`Self::capacity`] takes some of the
    /// headroom, and is cut only where that is not enough.
    pub fn clone_from_frame(&mut self, other: &Self) {
        let len = other.len().min(self.buf.len());
        let start = HEADROOM.min(self.buf.len() - len);
        self.buf[start..start + len].copy_from_slice(&other.bytes()[..len]);
        (self.start, self.len) = (start as u32, len as u32);
        self.offload = other.offload;
        self.tunnel = other.tunnel;
    }

    /// Opens a gap of `count` bytes at `at` by moving the bytes in front of it into the headroom or, where that is too
    /// small, those behind it back. Returns the gap, or `None` (and changes nothing) when the buffer has no room on
    /// either side or `at` lies outside the frame.
    pub fn open_gap(&mut self, at: usize, count: usize) -> Option<&mut [u8]> {
        let (old, len) = (self.start as usize, self.len());
        if at > len {
            return None;
        }
        let Some(start) = old.checked_sub(count) else {
            if count > self.buf.len() - old - len {
                return None;
            }
            self.buf.copy_within(old + at..old + len, old + at + count);
            self.len += count as u32;
            return Some(&mut self.buf[old + at..][..count]);
        };
        self.buf.copy_within(old..old + at, start);
        self.start = start as u32;
        self.len += count as u32;
        Some(&mut self.buf[start + at..][..count])
    }

    /// Removes `count` bytes at `at` by moving the bytes in front of them back. Returns whether there were that many;
    /// if not, nothing changes.
    pub fn close_gap(&mut self, at: usize, count: usize) -> bool {
        if at.checked_add(count).is_none_or(|end| end > self.len()) {
            return false;
        }
        let old = self.start as usize;
        self.buf.copy_within(old..old + at, old + count);
        self.start += count as u32;
        self.len -= count as u32;
        true
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("len", &self.len).field("offload", &self.offload).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_open_and_close_without_losing_bytes() {
        let mut frame = Frame::from_bytes(b"abcdefgh");
        frame.open_gap(2, 3).unwrap().copy_from_slice(b"XYZ");
        assert_eq!(frame.bytes(), b"abXYZcdefgh");
        assert!(frame.close_gap(2, 3));
        assert_eq!(frame.bytes(), b"abcdefgh");
    }

    #[test]
    fn a_copy_of_a_frame_that_has_grown_is_whole() {
        let mut frame = Frame::from_bytes(b"abcdefgh");
        frame.open_gap(0, 5).unwrap().fill(b'.');
        let mut copy = Frame::with_capacity(8);
        copy.clone_from_frame(&frame);
        assert_eq!(copy.bytes(), b".....abcdefgh");
        assert!(copy.open_gap(0, HEADROOM - 5).is_some());
    }

    #[test]
    fn a_gap_larger_than_the_headroom_is_opened_behind() {
        let mut frame = Frame::with_capacity(300);
        frame.copy_from(b"abcdefgh");
        frame.open_gap(3, HEADROOM + 5).unwrap().fill(b'.');
        assert_eq!((&frame.bytes()[..4], &frame.bytes()[HEADROOM + 7..]), (&b"abc."[..], &b".defgh"[..]));
        assert!(frame.close_gap(3, HEADROOM + 5));
        assert_eq!(frame.bytes(), b"abcdefgh");
    }

    #[test]
    fn a_gap_larger_than_all_room_is_refused() {
        let mut frame = Frame::from_bytes(b"abc");
        assert!(frame.open_gap(0, HEADROOM + 1).is_none());
        assert!(frame.open_gap(4, 1).is_none());
        assert!(!frame.close_gap(2, 2));
        assert!(!frame.close_gap(usize::MAX, 2));
        assert_eq!(frame.bytes(), b"abc");
    }
}
