//! The other way: a train of packets that came out of a tunnel, made one super-frame again.
//!
//! What the sender cut, and the kernel handed over in one piece (`UDP_GRO`), goes through the switch as one frame, with
//! the metadata that a guest would give it: segments of one size, checksum partial. Cutting it again gives the segments
//! as they came, but for their IPv4 identifications where those stood still, which they may when no router fragments.
//!
//! A [`Merger`] is given packets in order and holds the frame that they go to. Packets go into one frame when
//!
//! - they are TCP or UDP, directly behind an Ethernet header with its tags and an IP header without options or
//!   extension headers, no fragments, with nothing behind the datagram;
//! - their checksums are right, each of them;
//! - all headers are equal, TTL, TOS, TCP options, acknowledgement and window too, but for lengths, checksums,
//!   identifications (which count up, or stand still under "do not fragment") and sequence numbers, which continue;
//! - TCP flags are ACK alone; PSH and FIN on the last and CWR on the first are allowed;
//! - all carry as many bytes as the first, the last fewer at most, and the whole stays within what IP can say;
//! - they have the same tunnel key.
//!
//! Any other packet is a frame of its own, as it came.

use super::ecn::ip_at;
use super::header::Payload;
use crate::field::{IP_PROTO_TCP, IP_PROTO_UDP};
use crate::packet::layers::{ETH_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN, UDP_LEN, be16, be32, bytes_at};
use crate::packet::{Frame, GsoKind, Offload, checksum};
use crate::tunnel::TunnelKey;

#[cfg(test)]
mod tests;

/// Longest IP datagram of a super-frame, in bytes.
const MAX_DATAGRAM: usize = 65_535;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
/// Flags that the last segment alone may have.
const LAST: u8 = FIN | PSH;

/// What became of a packet that was given to a [`Merger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in the frame.
    Taken,
    /// It belongs into another frame: finish this one, and give the packet again with the next.
    Full,
    /// It is longer than the frame's capacity. The frame is as it was.
    TooLong,
}

/// Packets on their way to being one frame.
#[derive(Clone, Debug, Default)]
pub struct Merger {
    run: Run,
}

/// What the frame holds.
#[derive(Clone, Debug, Default)]
enum Run {
    /// Nothing.
    #[default]
    Empty,
    /// One packet that nothing can be added to.
    Single,
    /// One or more segments.
    Segments(Segments),
}

/// Segments in a frame whose headers are those of the first.
#[derive(Clone, Debug)]
struct Segments {
    shape: Shape,
    /// Length of the Ethernet header that was put in front of what came.
    front: usize,
    /// Payload bytes of the first.
    size: usize,
    count: u32,
    /// Payload bytes of all.
    payload: usize,
    /// The IPv4 identification of the last, and what it grows by from one to the next once that is known.
    id: u16,
    step: Option<u16>,
    /// Flags of the last.
    last: u8,
    /// More may follow.
    open: bool,
}

/// Where the headers of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    version: Payload,
    tcp: bool,
    l3: usize,
    l4: usize,
    payload: usize,
}

impl Merger {
    /// With no frame begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to finish.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self.run, Run::Empty)
    }

    /// Puts the packet that a tunnel's packet carried into `out`: as a new frame when none was begun, else behind those
    /// already there. An IP `payload` gets an Ethernet header of zero addresses. The frame's tunnel is `key`.
    #[inline]
    pub fn push(&mut self, out: &mut Frame, packet: &[u8], payload: Payload, key: &TunnelKey) -> Pushed {
        match &mut self.run {
            Run::Empty => self.begin(out, packet, payload, key),
            Run::Single => Pushed::Full,
            Run::Segments(segments) => {
                if out.tunnel.as_ref() == Some(key) && segments.add(out, packet, payload) {
                    Pushed::Taken
                } else {
                    Pushed::Full
                }
            }
        }
    }

    /// A new frame.
    fn begin(&mut self, out: &mut Frame, packet: &[u8], payload: Payload, key: &TunnelKey) -> Pushed {
        if packet.len() > out.capacity() {
            return Pushed::TooLong;
        }
        out.copy_from(packet);
        let front = if payload == Payload::Ethernet { 0 } else { ETH_LEN };
        if let Some(eth) = out.open_gap(0, front)
            && let Some((addresses, eth_type)) = eth.split_last_chunk_mut()
        {
            addresses.fill(0);
            *eth_type = payload.eth_type().to_be_bytes();
        }
        out.tunnel = Some(*key);
        self.run = Run::Single;
        if let Some(shape) = Shape::of(packet, payload)
            && shape.verify(packet)
        {
            out.offload.csum_valid = true;
            self.run = Segments::first(packet, shape, front).map_or(Run::Single, Run::Segments);
        }
        Pushed::Taken
    }

    /// Completes the frame in `out`, which can be sent then, and forgets it. Nothing happens when none was begun.
    #[inline]
    pub fn finish(&mut self, out: &mut Frame) {
        if let Run::Segments(segments) = std::mem::take(&mut self.run)
            && segments.count > 1
        {
            segments.finish(out);
        }
    }
}

impl Shape {
    /// The headers of a packet that can be in a super-frame; whether its checksums are right is another question.
    #[inline]
    fn of(packet: &[u8], payload: Payload) -> Option<Self> {
        let (l3, version) = ip_at(packet, payload)?;
        let ip = packet.get(l3..)?;
        let (l4, proto, len) = if version == Payload::Ipv4 {
            let whole = be16(ip, 6) & 0x3fff == 0 && ip.first() == Some(&0x45);
            (l3 + IPV4_LEN, *ip.get(9).filter(|_| whole)?, usize::from(be16(ip, 2)))
        } else {
            (l3 + IPV6_LEN, *ip.get(6)?, IPV6_LEN + usize::from(be16(ip, 4)))
        };
        let message = packet.get(l4..)?;
        let tcp = proto == IP_PROTO_TCP;
        let header_len = match proto {
            IP_PROTO_TCP => usize::from(*message.get(12)? >> 4) * 4,
            IP_PROTO_UDP => UDP_LEN,
            _ => return None,
        };
        let sound = len == ip.len()
            && header_len >= if tcp { TCP_LEN } else { UDP_LEN }
            && header_len <= message.len()
            // Without a checksum there is none to verify, and none to be left partial.
            && (tcp || usize::from(be16(message, 4)) == message.len() && be16(message, 6) != 0);
        sound.then_some(Self { version, tcp, l3, l4, payload: l4 + header_len })
    }

    /// Whether the checksums are right.
    #[inline]
    fn verify(&self, packet: &[u8]) -> bool {
        let (Some(header), Some(message)) = (packet.get(self.l3..self.l4), packet.get(self.l4..)) else {
            return false;
        };
        let header_sound = self.version != Payload::Ipv4 || checksum::verify(header, 0);
        header_sound && checksum::verify(message, self.pseudo(packet, message.len()))
    }

    /// The sum of the pseudo-header of a message of `len` bytes.
    #[inline]
    fn pseudo(&self, packet: &[u8], len: usize) -> u16 {
        let (l3, proto) = (self.l3, if self.tcp { IP_PROTO_TCP } else { IP_PROTO_UDP });
        if self.version == Payload::Ipv4 {
            checksum::pseudo_v4(bytes_at(packet, l3 + 12), bytes_at(packet, l3 + 16), proto, len as u16)
        } else {
            checksum::pseudo_v6(bytes_at(packet, l3 + 8), bytes_at(packet, l3 + 24), proto, len as u32)
        }
    }

    /// Whether two packets of this shape have equal headers, but for what changes from one segment to the next.
    #[inline]
    fn same_headers(&self, a: &[u8], b: &[u8]) -> bool {
        let equal = |from: usize, to: usize| matches!((a.get(from..to), b.get(from..to)), (Some(a), Some(b)) if a == b);
        let Self { l3, l4, .. } = *self;
        let ip = if self.version == Payload::Ipv4 {
            equal(l3, l3 + 2) && equal(l3 + 6, l3 + 10) && equal(l3 + 12, l4)
        } else {
            equal(l3, l3 + 4) && equal(l3 + 6, l4)
        };
        // Of TCP: ports, acknowledgement number, header length, window and urgent pointer, options.
        let tcp = || equal(l4 + 8, l4 + 13) && equal(l4 + 14, l4 + 16) && equal(l4 + 18, self.payload);
        equal(0, l3) && ip && equal(l4, l4 + 4) && (!self.tcp || tcp())
    }

    /// TCP flags; 0 for UDP.
    #[inline]
    fn flags(&self, packet: &[u8]) -> u8 {
        if self.tcp { packet.get(self.l4 + 13).copied().unwrap_or_default() } else { 0 }
    }

    /// The IPv4 identification; 0 for IPv6.
    #[inline]
    fn id(&self, packet: &[u8]) -> u16 {
        if self.version == Payload::Ipv4 { be16(packet, self.l3 + 4) } else { 0 }
    }
}

impl Segments {
    /// What begins with this packet; `None` when nothing can follow it.
    fn first(packet: &[u8], shape: Shape, front: usize) -> Option<Self> {
        let size = packet.len() - shape.payload;
        let flags = shape.flags(packet);
        let plain = !shape.tcp || flags & !(ECE | CWR) == ACK;
        (plain && size > 0).then(|| Self {
            shape,
            front,
            size,
            count: 1,
            payload: size,
            id: shape.id(packet),
            step: None,
            last: flags,
            open: true,
        })
    }

    /// Puts a packet behind the others in `out`, if it continues them.
    #[inline]
    fn add(&mut self, out: &mut Frame, packet: &[u8], payload: Payload) -> bool {
        let shape = self.shape;
        if !self.open || Shape::of(packet, payload) != Some(shape) {
            return false;
        }
        let Some(first) = out.bytes().get(self.front..) else { return false };
        let Some(body) = packet.get(shape.payload..).filter(|body| !body.is_empty()) else { return false };
        let (first_flags, flags) = (shape.flags(first), shape.flags(packet));
        let continues = first_flags & !CWR == flags & !LAST
            && (!shape.tcp
                || be32(packet, shape.l4 + 4) == be32(first, shape.l4 + 4).wrapping_add(self.payload as u32));
        let fits = body.len() <= self.size && shape.payload - shape.l3 + self.payload + body.len() <= MAX_DATAGRAM;
        let Some(step) = self.step_to(packet) else { return false };
        let merged = continues && fits && shape.same_headers(first, packet) && shape.verify(packet) && out.extend(body);
        if merged {
            self.count += 1;
            self.payload += body.len();
            (self.id, self.step) = (shape.id(packet), Some(step));
            self.last = flags;
            self.open = body.len() == self.size && flags & LAST == 0;
        }
        merged
    }

    /// What the identification grows by up to this packet; `None` when it may not.
    #[inline]
    fn step_to(&self, packet: &[u8]) -> Option<u16> {
        let step = self.shape.id(packet).wrapping_sub(self.id);
        let dont_fragment = self.shape.version != Payload::Ipv4 || be16(packet, self.shape.l3 + 6) & 0x4000 != 0;
        let allowed = step == 1 || step == 0 && dont_fragment;
        (allowed && self.step.is_none_or(|known| known == step)).then_some(step)
    }

    /// Headers and metadata of a super-frame.
    fn finish(&self, out: &mut Frame) {
        let Shape { version, tcp, l3, l4, payload } = self.shape;
        let Some(bytes) = out.bytes_mut().get_mut(self.front..) else { return };
        let message_len = bytes.len().saturating_sub(l4);
        let pseudo = self.shape.pseudo(bytes, message_len);
        if version == Payload::Ipv4 {
            put16(bytes, l3 + 2, bytes.len().saturating_sub(l3) as u16);
            put16(bytes, l3 + 10, 0);
            put16(bytes, l3 + 10, checksum::checksum(bytes.get(l3..l4).unwrap_or_default()));
        } else {
            put16(bytes, l3 + 4, message_len as u16);
        }
        if !tcp {
            put16(bytes, l4 + 4, message_len as u16);
        } else if let Some(flags) = bytes.get_mut(l4 + 13) {
            *flags |= self.last & LAST;
        }
        let csum_offset = if tcp { 16 } else { 6 };
        put16(bytes, l4 + csum_offset, pseudo);
        let gso = match (tcp, version) {
            (false, _) => GsoKind::Udp,
            (true, Payload::Ipv4) => GsoKind::Tcp4,
            (true, _) => GsoKind::Tcp6,
        };
        let gso_ecn = self.shape.flags(bytes) & CWR != 0;
        out.offload = Offload {
            gso,
            gso_ecn,
            csum_partial: true,
            csum_valid: false,
            gso_size: self.size as u16,
            hdr_len: (self.front + payload) as u16,
            csum_start: (self.front + l4) as u16,
            csum_offset: csum_offset as u16,
        };
    }
}

/// Writes a number at `at`, if there is room.
#[inline]
fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}
