//! What the sender of a rejected packet is told, at once: that nobody takes it in.
//!
//! - TCP: a reset (RFC 9293, 3.10.7.1). With an acknowledgement its sequence number is what that expects; without one it
//!   is 0, and all of the segment is acknowledged. A reset is never answered.
//! - SCTP: an ABORT (RFC 9260, 8.4). To an INIT it has the initiate tag, to anything else the packet's own verification
//!   tag and the T bit. Nothing that ends an association, or could be the answer to an answer, is answered: ABORT,
//!   SHUTDOWN COMPLETE, COOKIE ACK, an error "stale cookie".
//! - Everything else: destination unreachable, port unreachable (RFC 1122, 3.2.2.1; RFC 4443, 3.1), if the sender
//!   [may be told](About::may_tell).
//!
//! The answer goes back where the packet came from: addresses of frame and packet swapped, the same VLAN tags. It comes
//! from the address, and quotes the addresses and ports, that the packet *arrived* with, whatever flows and address
//! translation have made of them since.
//!
//! # Limits
//! - TCP segments and SCTP packets with a wrong checksum, or in fragments, are not answered.
//! - Of a datagram in fragments, ports that were translated before are quoted as they are now: no single fragment tells
//!   what they were.
//! - A packet that is no IP, or arrived under labels, is not answered.

use super::answer::{About, CONTROL, Headers, IcmpError, LinkHeader, TOS};
use super::layers::{be16, be32};
use super::readdress::{Ends, Readdress};
use super::rewrite::datagram_end;
use super::{Frame, GsoKind, L4, Layers, checksum, extract};
use crate::field::{IP_PROTO_SCTP, IP_PROTO_TCP};
use crate::key::{PacketKey, slot};

#[cfg(test)]
mod tests;

/// What is quoted of a packet is not longer than this, with its link header.
const QUOTED: usize = 1280;
const TCP_LEN: usize = 20;
const SCTP_LEN: usize = 12;
/// TCP's flags.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// SCTP's chunk types.
const INIT: u8 = 1;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
/// Cause code "stale cookie".
const STALE_COOKIE: u16 = 3;
/// Least length of an INIT chunk.
const INIT_LEN: usize = 20;
/// In an ABORT: the verification tag is the sender's own.
const T_BIT: u8 = 1;

/// Writes the answer to the packet in `frame`, which arrived with the key `arrived`, into `out`. False if it gets none;
/// what is in `out` then says nothing.
pub fn answer(frame: &Frame, arrived: &PacketKey, out: &mut Frame) -> bool {
    answered(frame, arrived, out).is_some()
}

fn answered(frame: &Frame, arrived: &PacketKey, out: &mut Frame) -> Option<()> {
    let mut key = PacketKey::ZERO;
    let layers = extract(frame.bytes(), 0, &mut key);
    let (now, was) = (Ends::of(&key)?, Ends::of(arrived)?);
    let proto = key.get(slot::IP_PROTO) as u8;
    if now.src.is_ipv4() != was.src.is_ipv4() || arrived.get(slot::IP_PROTO) as u8 != proto {
        return None;
    }
    let About { icmp, is_later_fragment, .. } = About::read(&key, &layers)?;
    let about = About { icmp, is_later_fragment, ..About::read(arrived, &layers)? };
    if !about.may_tell(false) {
        return None;
    }
    let is_fragment = key.get(slot::IP_FRAG) != 0;
    let end = match frame.offload.gso {
        GsoKind::None => datagram_end(frame.bytes(), &layers).min(frame.len()),
        _ => frame.len(),
    };
    let headers = Headers { link: LinkHeader::back(arrived), src: was.dst, dst: was.src, tos: 0, identification: None };
    if matches!(proto, IP_PROTO_TCP | IP_PROTO_SCTP) {
        let message = frame.bytes().get(usize::from(layers.l4_ofs)..end).filter(|_| !is_fragment)?;
        let whole = Whole { message, now: Headers { src: now.src, dst: now.dst, ..headers }, frame, layers: &layers };
        let ports = [was.dst_port.to_be_bytes(), was.src_port.to_be_bytes()];
        return match layers.l4 {
            L4::Tcp => tcp(&whole, ports, &headers, out),
            L4::Sctp => sctp(&whole, ports, &headers, out),
            _ => None,
        };
    }
    // Of fragments the key says no ports, or only those of one of them.
    let was = if is_fragment { Ends { src_port: now.src_port, dst_port: now.dst_port, ..was } } else { was };
    let start = usize::from(layers.l3_ofs);
    out.copy_from(frame.bytes().get(..end.min(start + QUOTED))?);
    out.offload = frame.offload;
    if let Some(before) = Readdress::new(proto, &now, &was) {
        before.apply(out, &layers);
    }
    let (error, tos) = match was.src.is_ipv4() {
        true => (IcmpError { kind: 3, code: 3, word: [0; 4] }, key.get(slot::IP_TOS) as u8 & TOS | CONTROL),
        false => (IcmpError { kind: 1, code: 4, word: [0; 4] }, CONTROL),
    };
    let is_made = out.close_gap(0, start) && Headers { tos, ..headers }.error(error, out);
    is_made.then_some(())
}

/// A message that is all there.
struct Whole<'a> {
    message: &'a [u8],
    /// Between the addresses that it shows now.
    now: Headers,
    frame: &'a Frame,
    layers: &'a Layers,
}

impl Whole<'_> {
    /// Whether nobody has completed the checksum yet, or somebody vouches for it.
    fn is_trusted(&self) -> bool {
        let offload = &self.frame.offload;
        offload.csum_partial || offload.csum_valid || offload.gso != GsoKind::None
    }
}

fn tcp(whole: &Whole<'_>, [src, dst]: [[u8; 2]; 2], headers: &Headers, out: &mut Frame) -> Option<()> {
    let segment = whole.message;
    let pseudo = whole.now.pseudo(IP_PROTO_TCP, segment.len());
    if whole.layers.routed || !whole.is_trusted() && !checksum::verify(segment, pseudo) {
        return None;
    }
    let header = segment.first_chunk::<TCP_LEN>()?;
    let flags = header[13];
    if flags & RST != 0 {
        return None;
    }
    let (seq, ack, flags) = if flags & ACK != 0 {
        (be32(header, 8), 0, RST)
    } else {
        let payload = segment.len().checked_sub(usize::from(header[12] >> 4) * 4)?;
        let len = payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, be32(header, 4).wrapping_add(len), RST | ACK)
    };
    let mut reset = [0; TCP_LEN];
    reset[..2].copy_from_slice(&src);
    reset[2..4].copy_from_slice(&dst);
    reset[4..8].copy_from_slice(&seq.to_be_bytes());
    reset[8..12].copy_from_slice(&ack.to_be_bytes());
    (reset[12], reset[13]) = ((TCP_LEN as u8 / 4) << 4, flags);
    let sum = !checksum::add(checksum::sum(&reset), headers.pseudo(IP_PROTO_TCP, TCP_LEN));
    reset[16..18].copy_from_slice(&sum.to_be_bytes());
    out.copy_from(&reset);
    headers.enclose(out, IP_PROTO_TCP).then_some(())
}

fn sctp(whole: &Whole<'_>, [src, dst]: [[u8; 2]; 2], headers: &Headers, out: &mut Frame) -> Option<()> {
    if !whole.is_trusted() && !checksum::verify_sctp(whole.message) {
        return None;
    }
    let (tag, flags) = aborted_with(whole.message)?;
    let mut abort = [0; SCTP_LEN + 4];
    abort[..2].copy_from_slice(&src);
    abort[2..4].copy_from_slice(&dst);
    abort[4..8].copy_from_slice(&tag.to_be_bytes());
    abort[SCTP_LEN..].copy_from_slice(&[ABORT, flags, 0, 4]);
    let crc = checksum::sctp(&abort);
    abort[8..12].copy_from_slice(&crc);
    out.copy_from(&abort);
    headers.enclose(out, IP_PROTO_SCTP).then_some(())
}

/// Verification tag and flags of the ABORT that answers a packet; `None` if it gets none.
fn aborted_with(packet: &[u8]) -> Option<(u32, u8)> {
    let (header, mut chunks) = packet.split_first_chunk::<SCTP_LEN>()?;
    let tag = be32(header, 4);
    if *chunks.first()? == INIT {
        let initiate = be32(chunks, 4);
        let is_sound = tag == 0 && initiate != 0 && chunks.len() >= INIT_LEN;
        return is_sound.then_some((initiate, 0));
    }
    while let Some(chunk) = chunks.first_chunk::<4>() {
        let len = usize::from(be16(chunk, 2));
        let ends = match chunk[0] {
            ABORT | SHUTDOWN_COMPLETE | COOKIE_ACK | INIT => true,
            ERROR => be16(chunks, 4) == STALE_COOKIE,
            _ => false,
        };
        if ends || len < 4 {
            return None;
        }
        // The last one need not be padded.
        chunks = chunks.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    (tag != 0).then_some((tag, T_BIT))
}
