//! Sending: frames of a tunnel port become datagrams of the endpoint's sockets.

use super::TunnelOptions;
use super::burst::{Datagram, Sending};
use super::endpoint::Core;
use super::outer::{Outer, around};
use super::paths::Paths;
use super::senders::Outside;
use super::sys::Family;
use super::sys::send::Store;
use super::too_big;
use crate::port::{PortQueue, TxOutcome, fit};
use sluice_flows::packet::tunnel::cut::Cutter;
use sluice_flows::packet::{Frame, GsoKind};
use sluice_flows::tunnel::{TlvMap, TunnelKey};
use sluice_flows::{DpPort, DropReason};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Length of the longest IP packet: what a path with a larger MTU, as loopback has, can still not carry.
const MAX_IP: u32 = 65_535;

/// Bytes of headers inside that a frame may have, if they have to be written anew.
const HEADERS_MAX: usize = 2048;

/// One worker's sending side of a tunnel port.
pub(crate) struct TransmitQueue {
    core: Arc<Core>,
    options: TunnelOptions,
    port: DpPort,
    worker: usize,
    mtu: Arc<AtomicU32>,
    paths: Paths,
    store: Store,
    scratch: Box<[u8]>,
    answering: too_big::Budget,
    /// The kernel cuts trains on the way to this port's peers.
    cuts: bool,
}

/// What is to be done with a frame.
struct Plan {
    outer: Outer,
    outside: Outside,
    /// Several of its datagrams can go to the kernel as one.
    trains: bool,
}

impl TransmitQueue {
    pub(crate) fn new(
        core: Arc<Core>,
        options: TunnelOptions,
        port: DpPort,
        worker: usize,
        mtu: Arc<AtomicU32>,
    ) -> Self {
        let scratch = vec![0; HEADERS_MAX].into_boxed_slice();
        let (paths, store, answering) = (Paths::default(), Store::new(), too_big::Budget::new());
        Self { core, options, port, worker, mtu, paths, store, scratch, answering, cuts: true }
    }

    /// Tells the sender of a frame that it is too long, as if the answer had come in by this port.
    fn answer(&mut self, frame: &Frame, tlvs: &TlvMap, now: Instant) {
        let Ok(outer) = around(&self.options, frame, tlvs) else { return };
        // If the kernel has refused it, it knows more by now than when it was asked.
        self.paths.forget(outer.ends());
        let Some(path) = self.paths.mtu(outer.ends(), self.core.probes(self.worker), now) else { return };
        let room = (path.min(MAX_IP) as usize + outer.stripped).saturating_sub(outer.overhead());
        let room = room.min(fit::link_len(frame.bytes()) + self.mtu.load(Ordering::Relaxed) as usize);
        let Some(mut answer) = too_big::answer(frame, room) else { return };
        let (remote, local) = outer.ends();
        let mut key = TunnelKey::NONE;
        key.set_id(outer.id);
        key.set_src(remote);
        if let Some(local) = local {
            key.set_dst(local);
        }
        answer.tunnel = Some(key);
        if let Some(answers) = self.core.answers.get(self.worker) {
            answers.push(self.port, answer);
        }
    }
}

impl PortQueue for TransmitQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn rx_burst(&mut self, _frames: &mut [Frame]) -> io::Result<usize> {
        Ok(0)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let count = frames.len().min(outcomes.len());
        let (frames, outcomes) = (&frames[..count], &mut outcomes[..count]);
        outcomes.fill(TxOutcome::Sent);
        let core = Arc::clone(&self.core);
        let (tlvs, now) = (core.tlvs.load(), Instant::now());
        let mtu = self.mtu.load(Ordering::Relaxed);
        let mut sending = Sending::new(&mut self.store, outcomes, &mut self.cuts);
        for (index, frame) in frames.iter().enumerate() {
            let planned = plan(&self.options, frame, &tlvs, |outer| {
                let path = self.paths.mtu(outer.ends(), core.probes(self.worker), now);
                Some((path?.min(MAX_IP) as usize, mtu as usize))
            });
            let sent = planned.and_then(|plan| {
                let socket = core.senders.get(plan.outside, plan.outer.hash, self.worker);
                sending.by(socket.ok_or(DropReason::TunnelDown)?);
                put(&mut sending, index, frame, &plan, &mut self.scratch)
            });
            if let Err(reason) = sent {
                sending.drop_frame(index, reason);
            }
        }
        sending.flush();
        for (index, frame) in frames.iter().enumerate() {
            if outcomes[index] == TxOutcome::Dropped(DropReason::MtuExceeded) && self.answering.take(now) {
                self.answer(frame, &tlvs, now);
            }
        }
    }
}

/// What is to be done with a frame. `mtus` tells the path's MTU and the port's, `None` without a route.
fn plan(
    options: &TunnelOptions,
    frame: &Frame,
    tlvs: &TlvMap,
    mtus: impl FnOnce(&Outer) -> Option<(usize, usize)>,
) -> Result<Plan, DropReason> {
    let outer = around(options, frame, tlvs)?;
    let (path, mtu) = mtus(&outer).ok_or(DropReason::TunnelDown)?;
    let longest = fit::longest(frame);
    let fits = longest + outer.overhead() <= path + outer.stripped;
    if fit::too_long(frame, mtu as u32) || !fits && options.df && !too_big::may_be_cut(frame, longest) {
        return Err(DropReason::MtuExceeded);
    }
    let udp = options.port.is_some();
    let csum = options.csum.unwrap_or(true) || !udp;
    let family = Family::of(outer.departure.to.ip());
    let outside = Outside { family, csum, df: options.df && fits };
    Ok(Plan { outer, outside, trains: udp && csum && fits })
}

/// Adds the datagrams of a frame: its segments, or the frame itself, with their checksums.
fn put<'f>(
    sending: &mut Sending<'_, 'f, '_>,
    index: usize,
    frame: &'f Frame,
    plan: &Plan,
    scratch: &mut [u8],
) -> Result<(), DropReason> {
    let Plan { outer, trains, .. } = plan;
    let header_len = outer.header_len();
    let mut add = |headers: &[u8], payload: &'f [u8]| {
        let datagram = Datagram {
            frame: index,
            departure: &outer.departure,
            len: header_len + headers.len() + payload.len(),
            headers: header_len + headers.len(),
            trains: *trains,
        };
        let batch = sending.datagram(&datagram).ok_or(DropReason::ParseError)?;
        let (header, inside) = batch.header(datagram.headers).split_at_mut(header_len);
        inside.copy_from_slice(headers);
        outer.write(header, [headers, payload]);
        batch.payload(payload);
        Ok(())
    };
    if frame.offload.gso == GsoKind::None && !frame.offload.csum_partial {
        return add(&[], &frame.bytes()[outer.stripped..]);
    }
    let mut cutter = Cutter::new(frame, &[], outer.payload).map_err(|_| DropReason::ParseError)?;
    while let Some((headers_len, payload)) = cutter.next(scratch).map_err(|_| DropReason::ParseError)? {
        add(&scratch[..headers_len], payload)?;
    }
    Ok(())
}
