//! One fragment: which datagram it is of, and which bytes of it.

use sluice_flows::packet::{Frame, GsoKind, L3, Layers, checksum};
use sluice_flows::rule::Millis;

/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
const IPV6_LEN: usize = 40;
/// Length of an IPv6 fragment header.
const FRAGMENT_LEN: usize = 8;
/// IPv6 next-header numbers of what may stand in front of a fragment header, and of the fragment header.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// The longest IPv4 packet and the longest IPv6 payload.
pub(super) const MAX_LEN: usize = 65_535;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) src: [u8; 16],
    pub(super) dst: [u8; 16],
    pub(super) id: u32,
    /// Of IPv4; RFC 8200, 4.5 does not count it.
    pub(super) proto: u8,
    pub(super) v6: bool,
    pub(super) zone: u16,
    /// Tells the branches of a packet's way apart that ask in the same zone.
    pub(super) place: u64,
}

/// One fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its first byte behind the headers, in the datagram.
    pub(super) start: usize,
    /// Behind its last byte.
    pub(super) end: usize,
    /// No other comes behind it.
    pub(super) last: bool,
    /// Where its bytes are in the frame.
    pub(super) data: usize,
    /// Where its IP header is in the frame.
    pub(super) l3: usize,
    /// Length of the packet as IP has it, headers included.
    pub(super) packet_len: usize,
    pub(super) v6: bool,
}

impl Piece {
    /// Bytes of the datagram that it carries.
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Its bytes of the datagram.
    pub(super) fn bytes<'a>(&self, frame: &'a Frame) -> &'a [u8] {
        frame.bytes().get(self.data..self.data + self.len()).unwrap_or_default()
    }

    /// Reads a fragment. `None` for one that cannot be part of any datagram: without bytes, ending where no other can
    /// go on, reaching past the longest datagram, with a wrong header checksum; and for a super-frame.
    pub(super) fn read(frame: &Frame, layers: &Layers, zone: u16, place: u64) -> Option<(Key, Self)> {
        if frame.offload.gso != GsoKind::None {
            return None;
        }
        let l3 = usize::from(layers.l3_ofs);
        let packet = frame.bytes().get(l3..)?;
        let (key, piece) = match layers.l3 {
            L3::Ipv4 => ipv4(packet)?,
            L3::Ipv6 => ipv6(packet)?,
            _ => return None,
        };
        let sound = piece.end > piece.start && (piece.last || piece.len().is_multiple_of(8)) && piece.end <= MAX_LEN;
        sound.then_some((Key { zone, place, ..key }, Self { data: piece.data + l3, l3, ..piece }))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_be_bytes(*pair)))
}

/// An IPv4 fragment (RFC 791, 3.1).
fn ipv4(packet: &[u8]) -> Option<(Key, Piece)> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let header = packet.get(..header_len)?;
    let ip = header.first_chunk::<IPV4_LEN>()?;
    let (packet_len, flags) = (be16(ip, 2)?, be16(ip, 6)?);
    if !checksum::verify(header, 0) || packet_len < header_len || packet.len() < packet_len {
        return None;
    }
    let address = |at: usize| {
        let mut wide = [0; 16];
        wide[..4].copy_from_slice(&ip[at..at + 4]);
        wide
    };
    let key =
        Key { src: address(12), dst: address(16), id: be16(ip, 4)? as u32, proto: ip[9], v6: false, zone: 0, place: 0 };
    let start = (flags & 0x1fff) * 8;
    let end = start + packet_len - header_len;
    let piece = Piece { start, end, last: flags & 0x2000 == 0, data: header_len, l3: 0, packet_len, v6: false };
    Some((key, piece))
}

/// An IPv6 fragment (RFC 8200, 4.5).
fn ipv6(packet: &[u8]) -> Option<(Key, Piece)> {
    let ip = packet.first_chunk::<IPV6_LEN>()?;
    let packet_len = IPV6_LEN + be16(ip, 4)?;
    let packet = packet.get(..packet_len)?;
    let mut at = IPV6_LEN;
    let mut next = ip[6];
    // Every step goes at least eight bytes on.
    while next != FRAGMENT {
        let header = packet.get(at..)?.first_chunk::<8>()?;
        at += match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(header[1]) + 1) * 8,
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => return None,
        };
        next = header[0];
    }
    let header = packet.get(at..)?.first_chunk::<FRAGMENT_LEN>()?;
    let (src, dst) = ip[8..].split_first_chunk::<16>()?;
    let id = u32::from_be_bytes(*header.last_chunk()?);
    let key = Key { src: *src, dst: *dst.first_chunk()?, id, proto: 0, v6: true, zone: 0, place: 0 };
    let offset_flags = be16(header, 2)?;
    let (start, data) = (offset_flags & 0xfff8, at + FRAGMENT_LEN);
    let end = start + packet_len - data;
    Some((key, Piece { start, end, last: offset_flags & 1 == 0, data, l3: 0, packet_len, v6: true }))
}

/// A fragment that waits.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) frame: Frame,
    pub(super) piece: Piece,
    pub(super) origin: super::Origin,
}

/// The fragments of one datagram that are there.
#[derive(Debug)]
pub(super) struct Incomplete {
    /// In the order of their arrival.
    pub(super) parts: Vec<Part>,
    /// Numbers of the parts in the order of their bytes; no two overlap.
    order: Vec<u16>,
    /// Bytes of the datagram that are there.
    have: usize,
    /// Bytes of the whole datagram, once its last fragment is there.
    total: Option<usize>,
    /// It will never be whole: fragments overlapped.
    pub(super) rejected: bool,
    /// Its age among all: the larger, the younger.
    pub(super) number: u64,
    pub(super) expires: Millis,
}

/// What a fragment is to the others of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// One more; its place in the order of bytes.
    New(usize),
    /// With it the datagram is whole.
    Completes(usize),
    /// The same bytes were there already.
    Duplicate,
    /// It does not go together with those that are there.
    Overlap,
}

impl Incomplete {
    pub(super) const fn new(number: u64, expires: Millis) -> Self {
        Self { parts: Vec::new(), order: Vec::new(), have: 0, total: None, rejected: false, number, expires }
    }

    /// How `piece` of `frame` goes together with the others.
    pub(super) fn fit(&self, piece: &Piece, frame: &Frame) -> Fit {
        let at = self.order.partition_point(|&number| self.parts[usize::from(number)].piece.start < piece.start);
        let neighbour = |at: usize| self.order.get(at).map(|&number| &self.parts[usize::from(number)]);
        if let Some(same) = neighbour(at).filter(|p| (p.piece.start, p.piece.end) == (piece.start, piece.end)) {
            let equal = same.piece.last == piece.last && same.piece.bytes(&same.frame) == piece.bytes(frame);
            return if equal { Fit::Duplicate } else { Fit::Overlap };
        }
        let before = at.checked_sub(1).and_then(neighbour).map_or(0, |part| part.piece.end);
        let after = neighbour(at).map_or(usize::MAX, |part| part.piece.start);
        let outside = match self.total {
            Some(total) => piece.last || piece.end > total,
            None => piece.last && at < self.order.len(),
        };
        if before > piece.start || after < piece.end || outside {
            return Fit::Overlap;
        }
        let total = if piece.last { Some(piece.end) } else { self.total };
        if total == Some(self.have + piece.len()) { Fit::Completes(at) } else { Fit::New(at) }
    }

    /// Adds a fragment whose place in the order of bytes is `at`.
    pub(super) fn add(&mut self, at: usize, part: Part) {
        self.have += part.piece.len();
        if part.piece.last {
            self.total = Some(part.piece.end);
        }
        self.order.insert(at, self.parts.len() as u16);
        self.parts.push(part);
    }

    /// It will never be whole. Returns what was there.
    pub(super) fn give_up(&mut self) -> Vec<Part> {
        self.rejected = true;
        self.order = Vec::new();
        std::mem::take(&mut self.parts)
    }

    /// The whole datagram as one packet under the headers of its first fragment; the fragment that completes it, not
    /// among the parts, has its place in the order of bytes at `at`. `None` if it is longer than IP can say.
    pub(super) fn assemble(&self, at: usize, piece: &Piece, frame: &Frame) -> Option<Frame> {
        let part = |number: &u16| {
            let part = &self.parts[usize::from(*number)];
            (&part.piece, &part.frame)
        };
        let (before, after) = self.order.split_at_checked(at)?;
        let all = before.iter().map(part).chain([(piece, frame)]).chain(after.iter().map(part));
        let (first, head) = all.clone().next()?;
        let total = self.have + piece.len();
        let packet_len = first.data - first.l3 + total;
        let mut whole = Frame::with_capacity(first.data + total);
        let room = whole.room();
        room.get_mut(..first.data)?.copy_from_slice(head.bytes().get(..first.data)?);
        for (piece, frame) in all.clone() {
            room.get_mut(first.data + piece.start..first.data + piece.end)?.copy_from_slice(piece.bytes(frame));
        }
        set_lengths(room.get_mut(first.l3..first.data)?, packet_len, first.v6)?;
        whole.set_len(first.data + total);
        whole.offload = head.offload;
        whole.offload.csum_valid = all.clone().all(|(_, frame)| frame.offload.csum_valid);
        Some(whole)
    }
}

/// Makes the headers in front of the first fragment's bytes those of a whole packet of `packet_len` bytes. An IPv6
/// fragment header stays, and says that the packet is whole (RFC 6946). `None` if it is too long.
fn set_lengths(headers: &mut [u8], packet_len: usize, v6: bool) -> Option<()> {
    if !v6 {
        let len = u16::try_from(packet_len).ok()?;
        headers.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
        // Do-not-fragment and the reserved bit stay.
        headers[6] &= 0xc0;
        headers[7] = 0;
        headers[10..12].fill(0);
        let sum = checksum::checksum(headers);
        headers.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = u16::try_from(packet_len.checked_sub(IPV6_LEN)?).ok()?;
        headers.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
        let at = headers.len().checked_sub(FRAGMENT_LEN)?;
        headers.get_mut(at + 2..at + 4)?.fill(0);
    }
    Some(())
}

/// Gives a fragment what became of the whole packet: its addresses, and this fragment's part of its bytes.
/// `first` is where the whole packet has its bytes.
pub(super) fn hand_down(whole: &Frame, first: &Piece, piece: &Piece, frame: &mut Frame) -> Option<()> {
    let content = whole.bytes().get(first.data + piece.start..first.data + piece.end)?;
    let header = whole.bytes().get(first.l3..)?;
    let bytes = frame.bytes_mut();
    bytes.get_mut(piece.data..piece.data + piece.len())?.copy_from_slice(content);
    let own = bytes.get_mut(piece.l3..)?;
    if !piece.v6 {
        let (new, old) = (header.get(12..20)?.first_chunk::<8>()?, own.get_mut(..20)?);
        let before = u64::from_be_bytes(*old[12..].first_chunk()?);
        let diff = checksum::diff(before.into(), u64::from_be_bytes(*new).into());
        let sum = checksum::update(u16::from_be_bytes([old[10], old[11]]), diff);
        old[10..12].copy_from_slice(&sum.to_be_bytes());
        old[12..20].copy_from_slice(new);
    } else {
        own.get_mut(8..IPV6_LEN)?.copy_from_slice(header.get(8..IPV6_LEN)?);
    }
    Some(())
}
