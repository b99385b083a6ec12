//! Keeping to an MTU: which packets are too long, and cutting IPv4 packets into fragments (RFC 791, 2.3 and 3.2).
//!
//! [`fit`] says what is to be done with a packet, a [`Fragmenter`] writes its fragments, one at a time into a frame that
//! the caller reuses.
//!
//! - A super-frame counts by the longest of its segments; it is cut into those before they are cut into fragments.
//! - All fragments but the last carry as many multiples of eight bytes as the MTU allows.
//! - The first carries all options, the others those that say that they are to be copied.
//! - A packet that is a fragment itself is cut further; offsets count on from its own.
//! - Headers in front of the IP header are repeated, padding behind the packet is dropped.

use super::layers::be16;
use super::rewrite::datagram_end;
use super::segment::wire_len;
use super::{Frame, GsoKind, L3, Layers, Offload, checksum};
use crate::key::PacketKey;

#[cfg(test)]
mod tests;

const IPV4_LEN: usize = 20;
/// The bits of bytes 6 and 7 of an IPv4 header: don't fragment, more fragments, and the offset.
const DF: u16 = 0x4000;
const MF: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Option types: end of the list, padding, and the bit of those that every fragment carries.
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_COPIED: u8 = 0x80;
/// Most bytes of options in a header.
const MAX_OPTIONS: usize = 40;

/// What an MTU makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is short enough, or no IP packet.
    Whole,
    /// It is longer and may be cut.
    Cut,
    /// It is longer and may not be cut.
    TooLong,
}

/// What becomes of the packet of a frame where IP packets of at most `mtu` bytes pass.
pub fn fit(frame: &Frame, layers: &Layers, mtu: u16) -> Fit {
    let bytes = frame.bytes();
    let at = usize::from(layers.l3_ofs);
    if at == 0 || !matches!(layers.l3, L3::Ipv4 | L3::Ipv6) {
        return Fit::Whole;
    }
    let end = if frame.offload.gso == GsoKind::None { datagram_end(bytes, layers) } else { wire_len(frame) };
    if end.saturating_sub(at) <= usize::from(mtu) {
        return Fit::Whole;
    }
    match layers.l3 {
        L3::Ipv4 if be16(bytes, at + 6) & DF == 0 => Fit::Cut,
        _ => Fit::TooLong,
    }
}

/// An IPv4 packet on its way to being cut.
#[derive(Debug)]
pub struct Fragmenter<'a> {
    /// What is in front of the IP header.
    link: &'a [u8],
    header: [u8; IPV4_LEN],
    options: Options,
    /// What is behind the IP header.
    payload: &'a [u8],
    mtu: usize,
    /// Bytes of payload already written.
    done: usize,
    finished: bool,
}

/// Options of a header: their bytes, and how many.
#[derive(Clone, Copy, Debug)]
struct Options([u8; MAX_OPTIONS], usize);

impl Options {
    fn of(bytes: &[u8]) -> Self {
        let mut all = [OPTION_END; MAX_OPTIONS];
        let len = bytes.len().min(MAX_OPTIONS);
        all[..len].copy_from_slice(&bytes[..len]);
        Self(all, len)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }

    /// Those that every fragment carries, filled up to whole words. What is behind a length that cannot be is left out.
    fn copied(&self) -> Self {
        let mut kept = Self([OPTION_END; MAX_OPTIONS], 0);
        let mut rest = self.bytes();
        while let [kind, behind @ ..] = rest {
            let len = match *kind {
                OPTION_END => break,
                OPTION_NOP => 1,
                _ => usize::from(behind.first().copied().unwrap_or(0)).max(2),
            };
            let Some((option, next)) = rest.split_at_checked(len) else { break };
            if kind & OPTION_COPIED != 0 {
                kept.0[kept.1..kept.1 + len].copy_from_slice(option);
                kept.1 += len;
            }
            rest = next;
        }
        kept.1 = kept.1.next_multiple_of(4);
        kept
    }
}

impl<'a> Fragmenter<'a> {
    /// Looks at a frame with an IPv4 packet that is no super-frame. A packet that fits into `mtu` bytes comes out as one.
    /// `None` if there is no IPv4 packet, or `mtu` has no room for its header and eight bytes.
    pub fn new(frame: &'a Frame, mtu: u16) -> Option<Self> {
        let bytes = frame.bytes();
        let layers = super::extract(bytes, 0, &mut PacketKey::default());
        let at = usize::from(layers.l3_ofs);
        if layers.l3 != L3::Ipv4 || at == 0 {
            return None;
        }
        let header = *bytes.get(at..)?.first_chunk::<IPV4_LEN>()?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let end = datagram_end(bytes, &layers).min(bytes.len());
        let payload = bytes.get(at + header_len..end)?;
        let options = Options::of(bytes.get(at + IPV4_LEN..at + header_len)?);
        let mtu = usize::from(mtu);
        if mtu < header_len + 8 {
            return None;
        }
        Some(Self { link: &bytes[..at], header, options, payload, mtu, done: 0, finished: false })
    }

    /// Writes the next fragment into `out`, whose content and metadata it replaces. False, with `out` untouched, when
    /// everything was written or `out` has no room.
    pub fn next_into(&mut self, out: &mut Frame) -> bool {
        if self.finished {
            return false;
        }
        let options = if self.done == 0 { self.options } else { self.options.copied() };
        let header_len = IPV4_LEN + options.1;
        let rest = self.payload.get(self.done..).unwrap_or_default();
        let last = header_len + rest.len() <= self.mtu;
        let room = (self.mtu - header_len) / 8 * 8;
        let payload = if last { rest } else { rest.get(..room).unwrap_or(rest) };
        let ip_len = header_len + payload.len();
        let len = self.link.len() + ip_len;
        if len > out.capacity() {
            return false;
        }
        let mut header = self.header;
        let flags = be16(&self.header, 6);
        // Offsets of packets that cannot be so long are cut like any that run over.
        let offset = (flags & OFFSET).wrapping_add((self.done / 8) as u16) & OFFSET;
        let more = if last { flags & MF } else { MF };
        header[0] = 0x40 | (header_len / 4) as u8;
        header[2..4].copy_from_slice(&(ip_len as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        header[10..12].fill(0);
        let sum = !checksum::add(checksum::sum(&header), checksum::sum(options.bytes()));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut room = &mut out.room()[..len];
        for part in [self.link, &header, options.bytes(), payload] {
            let (here, behind) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = behind;
        }
        out.set_len(len);
        out.offload = Offload::NONE;
        self.done += payload.len();
        self.finished = last;
        true
    }
}
