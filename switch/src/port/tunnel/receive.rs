//! Receiving: datagrams from the endpoint's sockets become frames of the tunnel ports that they belong to.

use super::answers::Answers;
use super::demux::{Ingress, Outer, Table};
use super::endpoint::Core;
use super::paths::{Paths, Probes};
use super::senders::protocol;
use super::sys::Socket;
use super::sys::receive::{Arrival, Receiver};
use super::unfinished;
use crate::port::{PortQueue, TxOutcome};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use sluice_flows::packet::Frame;
use sluice_flows::packet::tunnel::merge::{Merger, Pushed};
use sluice_flows::packet::tunnel::{Inner, Payload, Refused, ecn, header};
use sluice_flows::tunnel::TlvMap;
use sluice_flows::{DpPort, DropReason};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

/// Stands for "no port" where what was dropped belongs to none.
const NO_PORT: DpPort = DpPort(u32::MAX - 1);
/// Times that messages are fetched in one call while there is nothing good among them.
const REFILLS: usize = 4;
/// Bursts in a row from one socket before the other is asked, too.
const TURN: u32 = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// One worker's receiving side of an endpoint.
pub(crate) struct ReceiveQueue {
    core: Arc<Core>,
    worker: usize,
    sockets: Vec<Arc<Socket>>,
    answers: Arc<Answers>,
    /// Readable while a socket or the answers are.
    epoll: Epoll,
    receiver: Receiver,
    /// Asked only about what a peer has left unfinished.
    paths: Paths,
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

impl Place {
    /// Goes on to the next message.
    fn next(&mut self) {
        *self = Self { received: self.received, message: self.message + 1, ..Self::default() };
    }
}

/// What a run works with; borrowed apart.
struct Parts<'a> {
    receiver: &'a mut Receiver,
    place: &'a mut Place,
    paths: &'a mut Paths,
    probes: &'a Probes,
    lost: &'a mut Lost,
}

impl ReceiveQueue {
    pub(crate) fn new(core: Arc<Core>, worker: usize) -> io::Result<Self> {
        let (sockets, answers) = (core.receivers[worker].clone(), Arc::clone(&core.answers[worker]));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for fd in sockets.iter().map(|socket| socket.as_fd()).chain([answers.as_fd()]) {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self {
            core,
            worker,
            sockets,
            answers,
            epoll,
            paths: Paths::default(),
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
        let mut run = Run {
            core: &core,
            table: &table,
            tlvs: &tlvs,
            frames,
            count: 0,
            merger: Merger::new(),
            ingress: None,
            last: None,
        };
        let mut refills = 0;
        loop {
            if self.place.message == self.place.received {
                // What is left in the sockets is told by epoll.
                if !run.is_empty() || refills == REFILLS || !self.refill() {
                    break;
                }
                refills += 1;
            }
            let Self { receiver, place, paths, lost, .. } = self;
            if !run.take(Parts { receiver, place, paths, probes: core.probes(self.worker), lost }) {
                break;
            }
        }
        run.finish();
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
    core: &'a Core,
    table: &'a Table,
    tlvs: &'a TlvMap,
    frames: &'a mut [Frame],
    /// Frames that are done.
    count: usize,
    /// What is in the next, which may not be done.
    merger: Merger,
    ingress: Option<DpPort>,
    /// The last answer of the table.
    last: Option<(Outer, Option<Ingress>)>,
}

impl Run<'_> {
    /// Whether there is no frame.
    fn is_empty(&self) -> bool {
        self.count == 0 && self.merger.is_empty()
    }

    /// Makes frames of one message. False when it has something for the next burst: the frames are full, or it belongs
    /// to another port.
    fn take(&mut self, queue: Parts<'_>) -> bool {
        let Parts { receiver, place, paths, probes, lost } = queue;
        let message = place.message;
        let arrival = *place.arrival.get_or_insert_with(|| receiver.arrival(message));
        let Some(bytes) = receiver.bytes_mut(message) else {
            lost.add(NO_PORT, DropReason::ParseError);
            place.next();
            return true;
        };
        let raw_v4 = protocol(self.core.kind).is_some() && arrival.remote.is_ipv4();
        let bytes = if raw_v4 { behind_ipv4(bytes) } else { bytes };
        if bytes.is_empty() {
            lost.add(NO_PORT, DropReason::ParseError);
        }
        let size = if arrival.segment == 0 { bytes.len() } else { arrival.segment };
        while place.offset < bytes.len() {
            let rest = bytes.get_mut(place.offset..).unwrap_or_default();
            let len = size.min(rest.len());
            let mut room = |overhead: usize| {
                let path = paths.mtu((arrival.remote, None), probes, Instant::now()).unwrap_or(0);
                (path as usize).saturating_sub(overhead)
            };
            if !self.datagram(&arrival, &mut rest[..len], &mut room, lost) {
                return false;
            }
            place.offset += len;
        }
        place.next();
        true
    }

    /// Makes a frame of one datagram, or adds it to the last. False when it is for the next burst.
    fn datagram(
        &mut self,
        arrival: &Arrival,
        datagram: &mut [u8],
        room: &mut impl FnMut(usize) -> usize,
        lost: &mut Lost,
    ) -> bool {
        let inner = match header::read(self.core.kind, datagram, self.tlvs) {
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
        let other = !self.is_empty() && self.ingress != Some(ingress.port);
        if self.count == self.frames.len() || other {
            return false;
        }
        let (outer, packet) = datagram.split_at_mut(inner.offset.min(datagram.len()));
        if inner.gbp && !ingress.gbp || !ecn::decapsulate(arrival.tos, packet, inner.payload) {
            lost.add(ingress.port, DropReason::ParseError);
            return true;
        }
        let mut key = inner.key;
        key.set_src(arrival.remote);
        key.set_dst(arrival.local);
        key.set_tos_ttl(arrival.tos, arrival.ttl);
        self.ingress = Some(ingress.port);
        loop {
            let Some(frame) = self.frames.get_mut(self.count) else { return false };
            match self.merger.push(frame, packet, inner.payload, &key) {
                Pushed::Taken => break,
                Pushed::Full => self.finish(),
                Pushed::TooLong => {
                    lost.add(ingress.port, DropReason::ParseError);
                    return true;
                }
            }
        }
        // A datagram that the kernel has not joined with others may be one that it left unfinished.
        if arrival.segment == 0
            && let Some(frame) = self.frames.get_mut(self.count).filter(|frame| !frame.offload.csum_valid)
        {
            let udp = self.core.kind.default_port().map_or(0, |_| UDP_LEN);
            let ip = if arrival.remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
            let front = frame.len() - packet.len().min(frame.len());
            if !unfinished::complete(frame, || room(ip + udp + outer.len()) + front) {
                self.merger = Merger::new();
                lost.add(ingress.port, DropReason::ParseError);
            }
        }
        true
    }

    /// Ends the frame that was begun, if one was.
    fn finish(&mut self) {
        if let Some(frame) = self.frames.get_mut(self.count).filter(|_| !self.merger.is_empty()) {
            self.merger.finish(frame);
            self.count += 1;
        }
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
}

/// What is behind the IPv4 header that raw sockets give.
fn behind_ipv4(bytes: &mut [u8]) -> &mut [u8] {
    let header_len = usize::from(bytes.first().map_or(0, |b| b & 15)) * 4;
    bytes.get_mut(header_len..).unwrap_or_default()
}

fn reason(refused: Refused) -> DropReason {
    match refused {
        Refused::Checksum => DropReason::Checksum,
        _ => DropReason::ParseError,
    }
}
