//! Receiving: datagrams from the endpoint's sockets become frames of the tunnel ports that they belong to.

use super::answers::Answers;
use super::demux::{Ingress, Outer, Table};
use super::endpoint::Core;
use super::senders::protocol;
use super::sys::Socket;
use super::sys::receive::{Arrival, Receiver};
use crate::port::{PortQueue, TxOutcome};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use sluice_flows::packet::Frame;
use sluice_flows::packet::tunnel::{Inner, Payload, Refused, ecn, header};
use sluice_flows::tunnel::{TlvMap, TunnelKind};
use sluice_flows::{DpPort, DropReason};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Stands for "no port" where what was dropped belongs to none.
const NO_PORT: DpPort = DpPort(u32::MAX - 1);
/// Bursts in a row from one socket before the other is asked, too.
const TURN: u32 = 8;
const ETH_LEN: usize = 14;

/// One worker's receiving side of an endpoint.
pub(crate) struct ReceiveQueue {
    core: Arc<Core>,
    sockets: Vec<Arc<Socket>>,
    answers: Arc<Answers>,
    /// Readable while a socket or the answers are.
    epoll: Epoll,
    receiver: Receiver,
    /// The socket that is asked first, and how often it has been.
    turn: (usize, u32),
    place: Place,
    ingress: Option<DpPort>,
    lost: Lost,
}

/// Where the queue stands in the messages of the last burst.
#[derive(Default)]
struct Place {
    received: usize,
    message: usize,
    /// What is known of the message, once it was looked at.
    arrival: Option<Arrival>,
    /// Bytes of it that were handed out.
    offset: usize,
}

/// Drops by port and reason, until they are asked for.
#[derive(Default)]
struct Lost(Vec<(DpPort, DropReason, u32)>);

impl Lost {
    fn add(&mut self, port: DpPort, reason: DropReason) {
        match self.0.iter_mut().find(|(p, r, _)| (*p, *r) == (port, reason)) {
            Some((.., count)) => *count += 1,
            None => self.0.push((port, reason, 1)),
        }
    }
}

impl ReceiveQueue {
    pub(crate) fn new(core: Arc<Core>, sockets: Vec<Arc<Socket>>, answers: Arc<Answers>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for fd in sockets.iter().map(|socket| socket.as_fd()).chain([answers.as_fd()]) {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self {
            core,
            sockets,
            answers,
            epoll,
            receiver: Receiver::new(),
            turn: (0, 0),
            place: Place::default(),
            ingress: None,
            lost: Lost::default(),
        })
    }

    /// Gets the next messages. False when there are none.
    fn refill(&mut self) -> bool {
        let (first, times) = self.turn;
        for n in 0..self.sockets.len() {
            let index = (first + n) % self.sockets.len();
            // What a socket says of an earlier message is of no interest to the next.
            let received = self.receiver.receive(&self.sockets[index]).unwrap_or(0);
            if received > 0 {
                let times = if n == 0 { times + 1 } else { 0 };
                self.turn = if times < TURN { (index, times) } else { (index + 1, 0) };
                self.place = Place { received, ..Place::default() };
                return true;
            }
        }
        false
    }
}

impl PortQueue for ReceiveQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.0.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let Some(first) = frames.first_mut() else { return Ok(0) };
        if let Some((port, answer)) = self.answers.pop() {
            first.clone_from_frame(&answer);
            self.ingress = Some(port);
            return Ok(1);
        }
        self.ingress = None;
        let core = Arc::clone(&self.core);
        let (table, tlvs) = (core.table.load(), core.tlvs.load());
        let mut run = Run { kind: core.kind, table: &table, tlvs: &tlvs, frames, count: 0, ingress: None, last: None };
        loop {
            if self.place.message == self.place.received && (run.count > 0 || !self.refill()) {
                break;
            }
            if !run.take(&self.receiver, &mut self.place, &mut self.lost) {
                break;
            }
        }
        self.ingress = run.ingress;
        Ok(run.count)
    }

    fn ingress(&self) -> Option<DpPort> {
        self.ingress
    }

    fn rx_dropped(&mut self) -> Option<(DpPort, DropReason, u32)> {
        self.lost.0.pop()
    }

    fn tx_burst(&mut self, _frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        outcomes.fill(TxOutcome::Dropped(DropReason::NoPort));
    }
}

/// Frames of one port in the making.
struct Run<'a> {
    kind: TunnelKind,
    table: &'a Table,
    tlvs: &'a TlvMap,
    frames: &'a mut [Frame],
    count: usize,
    ingress: Option<DpPort>,
    /// The last answer of the table.
    last: Option<(Outer, Option<Ingress>)>,
}

impl Run<'_> {
    /// Makes frames of one message. False when it has something for the next burst: the frames are full, or it belongs
    /// to another port.
    fn take(&mut self, receiver: &Receiver, place: &mut Place, lost: &mut Lost) -> bool {
        let Some(mut bytes) = receiver.bytes(place.message) else {
            lost.add(NO_PORT, DropReason::ParseError);
            *place = Place { received: place.received, message: place.message + 1, ..Place::default() };
            return true;
        };
        let message = place.message;
        let arrival = *place.arrival.get_or_insert_with(|| receiver.arrival(message));
        if protocol(self.kind).is_some() && arrival.remote.is_ipv4() {
            bytes = behind_ipv4(bytes);
        }
        let size = if arrival.segment == 0 { bytes.len() } else { arrival.segment };
        loop {
            let rest = bytes.get(place.offset..).unwrap_or_default();
            let datagram = rest.get(..size).unwrap_or(rest);
            if !self.datagram(&arrival, datagram, lost) {
                return false;
            }
            place.offset += datagram.len();
            if datagram.is_empty() || place.offset >= bytes.len() {
                break;
            }
        }
        *place = Place { received: place.received, message: place.message + 1, ..Place::default() };
        true
    }

    /// Makes a frame of one datagram. False when it is for the next burst.
    fn datagram(&mut self, arrival: &Arrival, datagram: &[u8], lost: &mut Lost) -> bool {
        let inner = match header::read(self.kind, datagram, self.tlvs) {
            Ok(inner) => inner,
            Err(refused) => {
                lost.add(self.ingress.unwrap_or(NO_PORT), reason(refused));
                return true;
            }
        };
        let Some(ingress) = self.find(arrival, &inner) else {
            lost.add(NO_PORT, DropReason::TunnelDown);
            return true;
        };
        if inner.gbp && !ingress.gbp {
            lost.add(ingress.port, DropReason::ParseError);
            return true;
        }
        if self.count == self.frames.len() || self.ingress.is_some_and(|port| port != ingress.port) {
            return false;
        }
        if self.fill(arrival, &inner, datagram.get(inner.offset..).unwrap_or_default()) {
            self.ingress = Some(ingress.port);
            self.count += 1;
        } else {
            lost.add(ingress.port, DropReason::ParseError);
        }
        true
    }

    /// The port that a datagram belongs to.
    fn find(&mut self, arrival: &Arrival, inner: &Inner) -> Option<Ingress> {
        let outer = Outer {
            remote: arrival.remote,
            local: arrival.local,
            key: inner.key.id(),
            layer3: inner.payload != Payload::Ethernet,
        };
        match self.last {
            Some((last, found)) if last == outer => found,
            _ => {
                let found = self.table.find(&outer);
                self.last = Some((outer, found));
                found
            }
        }
    }

    /// Fills the next frame. False when what is inside must be dropped.
    fn fill(&mut self, arrival: &Arrival, inner: &Inner, packet: &[u8]) -> bool {
        let Some(frame) = self.frames.get_mut(self.count) else { return false };
        let link_len = if inner.payload == Payload::Ethernet { 0 } else { ETH_LEN };
        let room = frame.room();
        let Some(place) = room.get_mut(link_len..link_len + packet.len()) else { return false };
        place.copy_from_slice(packet);
        if link_len > 0 {
            room[..link_len].fill(0);
            room[link_len - 2..link_len].copy_from_slice(&inner.payload.eth_type().to_be_bytes());
        }
        frame.set_len(link_len + packet.len());
        if !ecn::decapsulate(arrival.tos, frame.bytes_mut(), Payload::Ethernet) {
            return false;
        }
        let mut key = inner.key;
        key.set_src(arrival.remote);
        key.set_dst(arrival.local);
        key.set_tos_ttl(arrival.tos, arrival.ttl);
        frame.tunnel = Some(key);
        true
    }
}

/// What is behind the IPv4 header that raw sockets give.
fn behind_ipv4(bytes: &[u8]) -> &[u8] {
    let header_len = usize::from(bytes.first().map_or(0, |b| b & 15)) * 4;
    bytes.get(header_len..).unwrap_or_default()
}

fn reason(refused: Refused) -> DropReason {
    match refused {
        Refused::Checksum => DropReason::Checksum,
        _ => DropReason::ParseError,
    }
}
