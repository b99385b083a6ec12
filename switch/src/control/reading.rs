//! Reading: counters, tables, events, traces. And packet-out, which changes nothing either.

use super::ports::no_port;
use super::{ControlError, Datapath};
use crate::datapath::{Command, MegaflowStats, PacketIn, PacketOut, receive};
use crate::event::{Event, EventKind};
use crate::mac_table::MacEntry;
use crate::stats::{DropGroup, WorkerStats};
use crate::ticks::ticks;
use crossbeam::channel::{Receiver, bounded};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::action::Action;
use sluice_flows::bridge::BridgeId;
use sluice_flows::datapath::{Resume, Translation};
use sluice_flows::key::FlowKey;
use sluice_flows::packet::Frame;
use sluice_flows::translate::{TraceSink, translate_resumed};
use sluice_flows::{DpPort, DropReason, PortNo};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a dump waits for workers that are busy.
const PATIENCE: Duration = Duration::from_millis(100);

impl Datapath {
    /// Asks all workers to credit what they have counted, and waits for them, at most 100 ms. Counters of rules lag by
    /// up to half a second otherwise. Returns whether all answered.
    pub fn sync_stats(&self) -> bool {
        let nothing: Arc<[DpPort]> = Arc::default();
        (self.inner.workers.len() < 2 || self.ask_all(|done| Command::Settle { ports: Arc::clone(&nothing), done }))
            && self.ask_all(|done| Command::Sync { done })
    }

    /// Forgets all cached results; the next packets are translated. Returns whether all workers answered in 100 ms.
    pub fn flush_caches(&self) -> bool {
        self.ask_all(|done| Command::Flush { done })
    }

    /// Counters of every worker, by number.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        let shared = &self.inner.shared;
        let uptime = shared.started.elapsed();
        let ticks = ticks().zip(shared.started_ticks).map_or(0, |(now, then)| now.saturating_sub(then));
        let read = |(i, cells): (usize, &crossbeam::utils::CachePadded<crate::stats::WorkerCells>)| {
            let mut stats = cells.read(i);
            stats.uptime_us = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
            stats.timing.ticks_hz = ticks as f64 / uptime.as_secs_f64().max(f64::MIN_POSITIVE);
            stats
        };
        shared.cells.iter().enumerate().map(read).collect()
    }

    /// Drops by reason, ingress port and rule, most first. Up to date after [`Self::sync_stats`].
    pub fn drops(&self) -> Vec<DropGroup> {
        let mut all = HashMap::with_hasher(RandomState::default());
        self.inner.shared.drops.iter().for_each(|d| d.collect(&mut all));
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by_key(|group: &DropGroup| (std::cmp::Reverse(group.packets), group.reason, group.ingress));
        all
    }

    /// Counts a packet that came in by `port`, was handed to a router, and found no room there.
    pub(crate) fn count_drop(&self, reason: DropReason, port: DpPort) {
        let shared = &self.inner.shared;
        if let Some(drops) = shared.drops.first() {
            drops.add(reason, port, None, 1, shared.clock.now(), None);
        }
    }

    /// The learned addresses of a bridge, in the order of VLAN and address.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn fdb(&self, bridge: &str) -> Result<Vec<MacEntry>, ControlError> {
        Ok(self.inner.shared.macs.entries(self.bridge(bridge)?.id))
    }

    /// Number of learned addresses, over all bridges.
    pub fn fdb_len(&self) -> usize {
        self.inner.shared.macs.len()
    }

    /// Forgets the learned addresses of a bridge. Returns how many.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn flush_fdb(&self, bridge: &str) -> Result<usize, ControlError> {
        Ok(self.inner.shared.macs.flush(self.bridge(bridge)?.id, None))
    }

    /// The megaflows of one worker, or of all.
    pub fn megaflows(&self, worker: Option<usize>) -> Vec<MegaflowStats> {
        let workers = self.inner.workers.iter().enumerate();
        let asked: Vec<_> = workers
            .filter(|(i, _)| worker.is_none_or(|only| only == *i))
            .map(|(_, handle)| {
                let (reply, answer) = bounded(1);
                handle.send(Command::Megaflows { reply });
                answer
            })
            .collect();
        // A worker that has ended drops its end of the channel.
        asked.into_iter().filter_map(|answer| answer.recv_timeout(10 * PATIENCE).ok()).flatten().collect()
    }

    /// Events from now on. One that reads too slowly loses events, and is told how many; at most `depth` wait.
    pub fn events(&self, depth: usize) -> Receiver<Event> {
        self.inner.shared.events.subscribe(depth)
    }

    /// Tells whoever subscribed.
    pub(crate) fn publish_event(&self, bridge: Option<BridgeId>, kind: EventKind) {
        self.inner.shared.events.publish(bridge, kind);
    }

    /// Packets handed to controllers from now on, at most `depth` waiting.
    pub fn packet_ins(&self, depth: usize) -> Receiver<PacketIn> {
        self.inner.shared.punts.subscribe(depth)
    }

    /// Packets that the flows of routers hand over.
    pub(crate) fn router_packets(&self, depth: usize) -> Receiver<PacketIn> {
        let is_for_routers = |about: &sluice_flows::datapath::PacketIn| {
            sluice_flows::router::PuntKind::from_userdata(&about.userdata).is_some()
        };
        self.inner.shared.punts.subscribe_to(depth, is_for_routers)
    }

    /// What would happen to a packet that comes in by `ingress`. Nothing is sent, counted or learned.
    pub fn trace(&self, ingress: DpPort, key: &FlowKey, sink: &mut impl TraceSink) -> Translation {
        receive(&self.model(), &self.inner.shared.macs, key, ingress, sink)
    }

    /// What would happen to a packet that goes on at `resume` and by then is `key`. `None` if its bridge is gone.
    pub fn trace_resumed(&self, resume: &Resume, key: &FlowKey, sink: &mut impl TraceSink) -> Option<Translation> {
        translate_resumed(&self.model(), &self.inner.shared.macs, resume, key, sink)
    }

    /// Sends a packet as if it had come in by `in_port` of the bridge and a rule had these actions
    /// (`[Action::Output(PortNo::TABLE)]` sends it through the tables). Returns before it is sent.
    ///
    /// # Errors
    /// When there is no such bridge, or it has no such port; numbers with a meaning of their own, such as
    /// [`PortNo::NONE`], will do.
    pub fn packet_out(
        &self,
        bridge: &str,
        in_port: PortNo,
        frame: Frame,
        actions: impl Into<Box<[Action]>>,
    ) -> Result<(), ControlError> {
        let bridge = self.bridge(bridge)?;
        if in_port.is_ordinary() && !bridge.ports.contains_key(&in_port) {
            return Err(no_port(&bridge, &in_port.to_string()));
        }
        let bridge = bridge.id;
        let worker = self.inner.workers.first().ok_or(ControlError::Ending)?;
        worker.send(Command::PacketOut(Box::new(PacketOut { bridge, in_port, frame, actions: actions.into() })));
        Ok(())
    }

    /// Gives every worker a command and waits for the answers, [`PATIENCE`] in all.
    fn ask_all(&self, command: impl Fn(crossbeam::channel::Sender<()>) -> Command) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let (done, answers) = bounded(self.inner.workers.len());
        for worker in &self.inner.workers {
            worker.send(command(done.clone()));
        }
        drop(done);
        (0..self.inner.workers.len()).all(|_| answers.recv_deadline(deadline).is_ok())
    }
}
