//! A super-frame cut for a train of tunnel datagrams, its payload left where it is.
//!
//! A tunnel's socket takes a train as one message: `UDP_SEGMENT` has the kernel cut it at every so many bytes, so all
//! datagrams but the last have one length. A [`Cutter`] gives the pieces of that message one segment at a time: the
//! headers, which it writes into the caller's scratch memory (the tunnel's header, then those inside, with lengths,
//! identifications, sequence numbers, flags and whole checksums of their own), and the payload as a slice of the frame.
//!
//! # Limits
//! What fits one message (65,507 bytes over IPv4, and so many datagrams) is the caller's to count: a train may end after
//! any segment, and the next go on.

use super::ecn::ip_at;
use super::header::Payload;
use crate::packet::Frame;
use crate::packet::layers::ETH_LEN;
use crate::packet::segment::{SegmentError, Segmenter};

#[cfg(test)]
mod tests;

/// What a frame is to a tunnel that carries IP alone: the IP packet behind its Ethernet header. `None` for a frame with
/// VLAN tags, which would be lost, and for what is not IP.
#[inline]
pub fn ip_payload(frame: &[u8]) -> Option<Payload> {
    ip_at(frame, Payload::Ethernet).filter(|(at, _)| *at == ETH_LEN).map(|(_, version)| version)
}

/// A frame on its way into a tunnel. One that is no super-frame is one segment, its checksum completed.
#[derive(Debug)]
pub struct Cutter<'a> {
    segments: Segmenter<'a>,
    header: &'a [u8],
}

impl<'a> Cutter<'a> {
    /// Segments of `frame`, each behind `header`. Of an IP `payload` (see [`ip_payload`]), the Ethernet header is left
    /// out.
    ///
    /// # Errors
    /// [`SegmentError`], for metadata that does not fit the frame's bytes.
    pub fn new(frame: &'a Frame, header: &'a [u8], payload: Payload) -> Result<Self, SegmentError> {
        let start = if payload == Payload::Ethernet { 0 } else { ETH_LEN };
        if start > frame.len() {
            return Err(SegmentError::Headers);
        }
        Ok(Self { segments: Segmenter::without(start, frame)?, header })
    }

    /// Scratch bytes that each segment takes.
    #[inline]
    pub fn headers_len(&self) -> usize {
        self.header.len() + self.segments.headers_len()
    }

    /// Length of every segment but the last, which is not longer: tunnel header, headers inside and payload.
    #[inline]
    pub fn segment_len(&self) -> usize {
        self.header.len() + self.segments.max_len()
    }

    /// Segments there are in all; at least one.
    #[inline]
    pub fn segments(&self) -> usize {
        self.segments.segments()
    }

    /// Writes the headers of the next segment to the start of `scratch`. Returns their length, which is
    /// [`Self::headers_len`], and the payload that goes behind them; `None` after the last segment.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`] when `scratch` is too short; trying again with more gives the same segment.
    #[inline]
    pub fn next(&mut self, scratch: &mut [u8]) -> Result<Option<(usize, &'a [u8])>, SegmentError> {
        let (header, rest) = scratch.split_at_mut_checked(self.header.len()).ok_or(SegmentError::NoRoom)?;
        let piece = self.segments.next_piece(rest)?;
        header.copy_from_slice(self.header);
        Ok(piece.map(|(len, payload)| (header.len() + len, payload)))
    }
}
