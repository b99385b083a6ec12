//! One worker's queue of a WireGuard port.

use super::Shared;
use super::identity::Initiator;
use super::key::PublicKey;
use super::peer::{COOKIE, DATA, INITIATION, OVERHEAD, Opened, Peer, RESPONSE, Sealed, To};
use super::sys::{Received, UdpSocket};
use super::table::Table;
use super::train::{MAX_LEN, Train};
use crate::port::{PortQueue, TxOutcome, fit};
use arc_swap::{ArcSwap, Cache};
use sluice_flows::packet::segment::Segmenter;
use sluice_flows::packet::tunnel::Payload;
use sluice_flows::packet::tunnel::merge::{Merger, Pushed};
use sluice_flows::packet::tunnel::{cut, ecn};
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_flows::tunnel::TunnelKey;
use sluice_flows::{DpPort, DropReason};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Length of the Ethernet header that the pipeline sees.
const ETH_LEN: usize = 14;
/// Bytes received by one call.
const RX_SIZE: usize = 65_535;
/// Calls to receive in one burst, whatever comes of them.
const RX_CALLS: usize = 64;
/// Packets are padded to multiples of this, as far as the MTU goes.
const PADDING: usize = 16;

/// A packet that was decrypted: its length and version, and the tunnel that it came by.
type Held = (usize, Payload, TunnelKey);

/// What one step of receiving came to.
enum Next {
    Packet(Held),
    /// Nothing for the pipeline, but there may be more.
    Other,
    End,
}

/// One worker's queue.
pub(super) struct Queue {
    shared: Arc<Shared>,
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    socket: Arc<UdpSocket>,
    mtu: Arc<AtomicU32>,
    rx: Incoming,
    /// A packet that was decrypted.
    packet: Box<[u8]>,
    /// It is not in a frame yet, because the burst had no room for one more.
    held: Option<Held>,
    /// Makes frames of packets.
    merger: Merger,
    train: Train,
    /// A packet that is to be encrypted.
    scratch: Frame,
    /// Messages dropped since the worker last asked, by reason.
    dropped: [u32; DropReason::COUNT],
}

/// What was received and is not all looked at yet.
struct Incoming {
    bytes: Box<[u8]>,
    about: Option<Received>,
    at: usize,
}

impl Incoming {
    /// Where the next datagram is.
    fn next(&mut self) -> Option<(Received, Range<usize>)> {
        let about = self.about.filter(|about| self.at < about.len)?;
        let start = self.at;
        self.at = (start + about.segment.max(1)).min(about.len);
        Some((about, start..self.at))
    }
}

impl Queue {
    pub(super) fn new(shared: &Arc<Shared>, socket: &Arc<UdpSocket>, mtu: Arc<AtomicU32>) -> Self {
        Self {
            shared: Arc::clone(shared),
            table: Cache::new(Arc::clone(&shared.table)),
            socket: Arc::clone(socket),
            mtu,
            rx: Incoming { bytes: vec![0; RX_SIZE].into_boxed_slice(), about: None, at: 0 },
            packet: vec![0; RX_SIZE].into_boxed_slice(),
            held: None,
            merger: Merger::new(),
            train: Train::new(),
            scratch: Frame::with_capacity(MAX_FRAME_LEN),
            dropped: [0; DropReason::COUNT],
        }
    }

    /// Decrypts a datagram into the packet buffer. Length and version of the packet and the tunnel that it came by; `None`
    /// for what was for the protocol alone.
    fn open(
        &mut self,
        table: &Table,
        about: Received,
        at: Range<usize>,
        now: Instant,
    ) -> Result<Option<Held>, DropReason> {
        let Self { rx, packet: out, train, socket, .. } = self;
        let message = rx.bytes.get(at).unwrap_or_default();
        let sender;
        let (peer, to) = match message.first() {
            Some(&INITIATION) => {
                sender = initiator(socket, table, about, message)?;
                let Some((identity, public)) = &sender else { return Ok(None) };
                (table.peer(*identity, public).ok_or(DropReason::Checksum)?, To::Keys(*identity, public))
            }
            Some(&kind @ (RESPONSE | COOKIE | DATA)) => {
                let at = if kind == RESPONSE { 8 } else { 4 };
                let index = message.get(at..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::ParseError)?;
                let (peer, link) = table.receiver(u32::from_le_bytes(*index)).ok_or(DropReason::TunnelDown)?;
                (peer, To::Index(link))
            }
            _ => return Err(DropReason::ParseError),
        };
        let mut state = peer.lock();
        let before = state.endpoint;
        let opened = state.open(to, about.from, message, out, now);
        if let Opened::Answer(len) = opened {
            // What cannot be sent is asked for again.
            _ = socket.send(&out[..len], None, 0, about.from);
        }
        while let Some(len) = state.release(train.room()) {
            _ = socket.send(&train.room()[..len], None, 0, about.from);
        }
        let after = state.endpoint;
        drop(state);
        if let Some(after) = after.filter(|_| before != after) {
            table.moved(peer, before.map(|before| before.ip()), after.ip());
        }
        let len = match opened {
            Opened::Packet(len) => len,
            Opened::Answer(_) | Opened::Nothing => return Ok(None),
            Opened::Dropped(reason) => return Err(reason),
        };
        let packet = out.get_mut(..len).unwrap_or_default();
        let (payload, source, _) = addresses(packet).ok_or(DropReason::ParseError)?;
        if table.behind(source).is_none_or(|owner| owner.number != peer.number) {
            return Err(DropReason::SpoofGuard);
        }
        if !ecn::decapsulate(about.tos, packet, payload) {
            // Congestion on the way, and the packet inside could not say so: the loss tells it.
            return Err(DropReason::Overload);
        }
        Ok(Some((len, payload, arrived(peer, about))))
    }

    /// The next packet that came in, if any.
    fn next(&mut self, table: &Table, calls: &mut usize, now: Instant) -> Next {
        let Some((about, at)) = self.rx.next() else {
            if *calls == RX_CALLS {
                return Next::End;
            }
            *calls += 1;
            return match self.socket.receive(&mut self.rx.bytes) {
                Ok(about) => {
                    (self.rx.about, self.rx.at) = (Some(about), 0);
                    Next::Other
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => Next::End,
                // An error that some datagram sent before has come to: the socket goes on.
                Err(_) => Next::Other,
            };
        };
        match self.open(table, about, at, now) {
            Ok(Some(held)) => Next::Packet(held),
            Ok(None) => Next::Other,
            Err(reason) => {
                self.dropped[reason as usize] += 1;
                Next::Other
            }
        }
    }

    /// Encrypts frame number `number` into the train, which is sent when it is full.
    fn seal(
        &mut self,
        table: &Table,
        frame: &Frame,
        number: usize,
        outcomes: &mut [TxOutcome],
    ) -> Result<(), DropReason> {
        let mtu = self.mtu.load(Ordering::Relaxed);
        if fit::too_long(frame, mtu) {
            return Err(DropReason::MtuExceeded);
        }
        if cut::ip_payload(frame.bytes()).is_none() {
            return Err(DropReason::ParseError);
        }
        let packet = frame.bytes().get(ETH_LEN..).unwrap_or_default();
        let (payload, _, destination) = addresses(packet).ok_or(DropReason::ParseError)?;
        let inner = ecn::tos_ttl(packet, payload).map_or(0, |(tos, _)| tos);
        let tos = ecn::encapsulate(0, inner);
        let said = frame.tunnel.and_then(|tunnel| tunnel.dst()).and_then(|address| table.at(address));
        let peer = said.or_else(|| table.behind(destination)).ok_or(DropReason::NoRoute)?;
        let mut segments = Segmenter::new(frame).map_err(|_| DropReason::ParseError)?;
        let mut state = peer.lock();
        let to = state.endpoint.ok_or(DropReason::TunnelDown)?;
        while segments.next_into(&mut self.scratch).map_err(|_| DropReason::ParseError)? {
            let packet = padded(&mut self.scratch, mtu as usize);
            let len = packet.len() + OVERHEAD;
            if len > MAX_LEN {
                return Err(DropReason::MtuExceeded);
            }
            if !self.train.takes(len, to, tos) {
                self.train.flush(&self.socket, outcomes);
            }
            match state.seal(packet, self.train.room()) {
                Sealed::Data(len) => self.train.push(len, to, tos, number),
                Sealed::Waits(len) | Sealed::Dropped(_, len) if len > 0 => {
                    _ = self.socket.send(&self.train.room()[..len], None, 0, to);
                }
                Sealed::Dropped(reason, _) => return Err(reason),
                Sealed::Waits(_) => {}
            }
        }
        Ok(())
    }
}

impl PortQueue for Queue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let (table, now) = (Arc::clone(self.table.load()), Instant::now());
        let (mut count, mut calls) = (0, 0);
        while count < frames.len() {
            let held = match self.held.take() {
                Some(held) => held,
                None => match self.next(&table, &mut calls, now) {
                    Next::Packet(held) => held,
                    Next::Other => continue,
                    Next::End => break,
                },
            };
            let (len, payload, tunnel) = held;
            let packet = self.packet.get(..len).unwrap_or_default();
            match self.merger.push(&mut frames[count], packet, payload, &tunnel) {
                Pushed::Taken => {}
                Pushed::TooLong => self.dropped[DropReason::ParseError as usize] += 1,
                Pushed::Full => {
                    self.merger.finish(&mut frames[count]);
                    self.held = Some(held);
                    count += 1;
                }
            }
        }
        if !self.merger.is_empty()
            && let Some(frame) = frames.get_mut(count)
        {
            self.merger.finish(frame);
            count += 1;
        }
        Ok(count)
    }

    fn rx_dropped(&mut self) -> Option<(DpPort, DropReason, u32)> {
        let reason = DropReason::ALL.iter().find(|reason| self.dropped[**reason as usize] != 0)?;
        let count = std::mem::take(&mut self.dropped[*reason as usize]);
        Some((DpPort(self.shared.number.load(Ordering::Relaxed)), *reason, count))
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let table = Arc::clone(self.table.load());
        for (number, frame) in frames.iter().enumerate().take(outcomes.len()) {
            outcomes[number] = TxOutcome::Sent;
            if let Err(reason) = self.seal(&table, frame, number, outcomes) {
                outcomes[number] = TxOutcome::Dropped(reason);
            }
        }
        self.train.flush(&self.socket, outcomes);
    }
}

/// Who sent an initiation: identity and public key. `None` when it was answered with a cookie.
fn initiator(
    socket: &UdpSocket,
    table: &Table,
    about: Received,
    message: &[u8],
) -> Result<Option<(u64, PublicKey)>, DropReason> {
    for identity in &table.identities {
        match identity.initiator(about.from.ip(), message) {
            Initiator::Peer(public) => return Ok(Some((identity.number, public))),
            Initiator::Cookie(cookie) => {
                // Whoever is in earnest asks again.
                _ = socket.send(&cookie, None, 0, about.from);
                return Ok(None);
            }
            Initiator::Other => {}
            Initiator::Bad => break,
        }
    }
    Err(DropReason::Checksum)
}

/// The tunnel that a packet from `peer` arrived by.
fn arrived(peer: &Peer, about: Received) -> TunnelKey {
    let mut tunnel = TunnelKey::NONE;
    tunnel.set_src(about.from.ip());
    tunnel.set_id(peer.number.into());
    tunnel.set_tos_ttl(about.tos, 0);
    tunnel
}

/// Version, source and destination of an IP packet; `None` if it is none.
#[inline]
fn addresses(packet: &[u8]) -> Option<(Payload, IpAddr, IpAddr)> {
    let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes));
    let v6 = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
    match packet.first()? >> 4 {
        4 => Some((Payload::Ipv4, v4(12)?, v4(16)?)),
        6 => Some((Payload::Ipv6, v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// The packet in a frame, padded with zeros so that its length tells less; never past the MTU.
#[inline]
fn padded(frame: &mut Frame, mtu: usize) -> &[u8] {
    let (old, len) = (frame.len(), frame.len().saturating_sub(ETH_LEN));
    let padded = len.next_multiple_of(PADDING).min(mtu.max(len));
    frame.set_len(ETH_LEN + padded);
    if let Some(padding) = frame.bytes_mut().get_mut(old..) {
        padding.fill(0);
    }
    frame.bytes().get(ETH_LEN..).unwrap_or_default()
}
