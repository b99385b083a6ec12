//! A worker: one thread that polls its queues of all ports and runs what it receives to completion.
//!
//! # Hot, spinning, parked
//! A queue that gave frames is *hot*: it is polled directly, without asking the kernel whether it can be read, until it
//! gives nothing. The other queues are asked about together, by epoll: whenever no hot queue gave half a burst (there is
//! time), else every [`ASK_EVERY`] rounds. When no queue is hot the worker goes on asking for as long as it
//! expects a frame ([`super::spin`]), then parks in epoll. A frame wakes it, or the control side by an eventfd. A parked worker
//! with cached entries wakes itself every quarter of a second to credit and expire them; with empty caches it sleeps until it
//! is woken.

use super::burst::Burst;
use super::cache::exact::ExactCache;
use super::cache::megaflow::{Flow, Hot, MegaflowCache, Parts};
use super::capture::Probe;
use super::execute::Egress;
use super::ledger::Ledger;
use super::passes::Passes;
use super::poll::{Poller, Wake};
use super::punt::Budget;
use super::shape::Reshape;
use super::shared::{Notice, Shared};
use super::spin::Spin;
use super::steering::Hands;
use super::{BURST, MegaflowStats};
use crate::port::PortQueue;
use crate::stats::{PortCounters, WorkerCells};
use arc_swap::{ArcSwap, Cache};
use crossbeam::channel::{Receiver, Sender, unbounded};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use sluice_flows::action::Action;
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::key::{FlowKey, FlowMask};
use sluice_flows::packet::Frame;
use sluice_flows::rule::Millis;
use sluice_flows::{DpPort, PortNo};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds of full bursts after which the queues that are not hot are asked about.
const ASK_EVERY: u64 = 16;
/// Every entry is credited, and expired if it is time, at least twice in this many milliseconds.
const SWEEP_MS: u64 = 500;
/// Exit status of a process that a panic has ended, as Rust has it.
const EXIT_PANIC: i32 = 101;
/// Milliseconds between two sorts of the subtables.
const SORT_MS: u64 = 1000;
/// Times that a queue may be reported as readable and give nothing before it is left alone for a while.
const EMPTY_WAKES: u32 = 256;

/// Rounds of bursts that are received at most from patches that are lent: more than they hold.
pub(super) const DRAIN: usize = 8192;

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Take a port, and watch its queue as soon as the model has it.
    AddPort {
        /// Its number.
        port: DpPort,
        /// This worker's queue; `None` for a patch port.
        queue: Option<Box<dyn PortQueue>>,
        /// Its counters.
        counters: Arc<PortCounters>,
        /// It is in no bridge: the socket by which tunnel ports receive.
        shared: bool,
    },
    /// Finish what other workers were given to do with frames so far.
    Settle {
        /// Ports to receive no more from.
        ports: Arc<[DpPort]>,
        /// Told when done.
        done: Sender<()>,
    },
    /// Let go of a port; its queue is dropped before `done` is told.
    RemovePort {
        /// Its number.
        port: DpPort,
        /// Told when done.
        done: Sender<()>,
    },
    /// Copy what crosses a port.
    Capture {
        /// Its number.
        port: DpPort,
        /// Takes the copies.
        probe: Probe,
        /// Told when done.
        done: Sender<()>,
    },
    /// End a capture.
    EndCapture {
        /// Its number.
        id: u64,
    },
    /// Give a queue to a patch port, which the model is to send to for a while.
    LendPatch {
        /// Its number.
        port: DpPort,
        /// This worker's queue.
        queue: Box<dyn PortQueue>,
        /// Its counters.
        counters: Arc<PortCounters>,
        /// Told when done.
        done: Sender<()>,
    },
    /// Take the queue of a patch port away, which the model does not send to any more, once it is empty.
    ReturnPatch {
        /// Its number.
        port: DpPort,
        /// Told when done.
        done: Sender<()>,
    },
    /// Give queues to both ends of a patch for good, before the model sends to them.
    SplicePatch {
        /// The ends.
        ends: [WireEnd; 2],
        /// Told when done.
        done: Sender<()>,
    },
    /// Hold a port to limits of its rate, or no longer.
    Shape {
        /// Its number.
        port: DpPort,
        /// What to do.
        change: Reshape,
    },
    /// Credit everything that was counted.
    Sync {
        /// Told when done.
        done: Sender<()>,
    },
    /// Send a packet.
    PacketOut(Box<PacketOut>),
    /// Tell every megaflow.
    Megaflows {
        /// Takes them.
        reply: Sender<Vec<MegaflowStats>>,
    },
    /// Forget the caches.
    Flush {
        /// Told when done.
        done: Sender<()>,
    },
    /// End.
    Stop,
}

/// An end of a patch that becomes that of a wire.
pub(crate) struct WireEnd {
    /// Its number.
    pub(crate) port: DpPort,
    /// This worker's queue.
    pub(crate) queue: Box<dyn PortQueue>,
}

/// A packet to send as a bridge's actions say.
pub(crate) struct PacketOut {
    pub(crate) bridge: BridgeId,
    pub(crate) in_port: PortNo,
    pub(crate) frame: Frame,
    pub(crate) actions: Box<[Action]>,
}

/// How the control side reaches a worker.
pub(crate) struct WorkerHandle {
    commands: Sender<Command>,
    wake: Wake,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WorkerHandle {
    /// Gives the worker a command. One that has ended drops it, and with it the channel that it was to answer by.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.wake.wake();
        }
    }

    /// Makes the worker look at the model.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// Ends the worker and waits for it.
    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // One that panicked has ended the process.
            _ = thread.join();
        }
    }
}

/// Starts worker `index`.
pub(crate) fn spawn(shared: Arc<Shared>, index: usize) -> io::Result<WorkerHandle> {
    let (commands, receiver) = unbounded();
    let poller = Poller::new()?;
    let wake = poller.wake();
    shared.handover.wake_by(index, poller.wake());
    let cpu = shared.settings.pin.get(index).copied();
    let body = move || {
        if let Some(cpu) = cpu {
            pin(index, cpu);
        }
        let work = || Worker::new(&shared, index, poller, receiver).run();
        // Nothing that the worker had is looked at afterwards.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            end_process(index);
        }
    };
    let thread = std::thread::Builder::new().name(format!("sluice-w{index}")).spawn(body)?;
    Ok(WorkerHandle { commands, wake, thread: Mutex::new(Some(thread)) })
}

/// Ends the process because worker `index` panicked: a switch without one is deaf to the frames that it would receive,
/// and whoever supervises the process sees only that it runs. The state that the panic left cannot be trusted, so the
/// worker is not started anew.
fn end_process(index: usize) -> ! {
    tracing::error!(worker = index, "the worker panicked, see stderr for where; the switch ends");
    std::process::exit(EXIT_PANIC)
}

/// How often this thread was made to leave its CPU so far; 0 if the kernel does not say.
fn times_made_to_leave() -> u64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches().try_into().unwrap_or(0))
}

/// Binds this thread to `cpu`; where that is not possible it runs anywhere, as if not asked.
fn pin(worker: usize, cpu: usize) {
    let mut set = CpuSet::new();
    if let Err(error) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
        tracing::warn!(worker, cpu, %error, "cannot pin the worker; it runs on any CPU");
    }
}

/// What a worker works with. Its parts are borrowed apart.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) index: usize,
    pub(super) cells: &'a WorkerCells,
    latest: Cache<&'a ArcSwap<Model>, Arc<Model>>,
    /// The model in force until the next round.
    pub(super) model: Arc<Model>,
    macs_epoch: u64,
    /// Numbers the states of model and MAC table that were seen.
    pub(super) epoch: u64,
    pub(super) exact: ExactCache,
    pub(super) megaflows: MegaflowCache,
    pub(super) egress: Egress,
    pub(super) burst: Box<Burst>,
    /// Packets that took other passes than the first.
    pub(super) taken: u32,
    pub(super) poller: Poller,
    pub(super) commands: Receiver<Command>,
    pub(super) hot: Vec<DpPort>,
    /// Ports that the model does not have yet.
    pending: Vec<DpPort>,
    /// Ports left alone until the next sweep because they are reported and give nothing.
    resting: Vec<DpPort>,
    /// Patch ports that have a queue for a while.
    pub(super) lent: Vec<DpPort>,
    /// What it shares out among other workers; `None` when it is alone.
    pub(super) hands: Option<Box<Hands>>,
    /// When the last part of a sweep and the last sort were.
    swept: Millis,
    sorted: Millis,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, index: usize, poller: Poller, commands: Receiver<Command>) -> Self {
        let now = shared.clock.now();
        let settings = &shared.settings;
        Self {
            shared,
            index,
            cells: &shared.cells[index],
            latest: Cache::new(&shared.model),
            model: shared.model.load_full(),
            macs_epoch: shared.macs.epoch(),
            epoch: 1,
            exact: ExactCache::new(settings.exact_slots),
            megaflows: MegaflowCache::new(settings.megaflow_limit),
            egress: Egress::new(index, Budget::new(settings.packet_in_rate, now), Passes::new(settings.megaflow_limit)),
            burst: Box::default(),
            taken: 0,
            poller,
            commands,
            hot: Vec::new(),
            pending: Vec::new(),
            resting: Vec::new(),
            lent: Vec::new(),
            hands: Hands::new(index, shared.cells.len(), settings.steering),
            swept: now,
            sorted: now,
        }
    }

    fn run(mut self) {
        let mut round = 0_u64;
        let (mut busy_since, mut busy) = (None, Duration::ZERO);
        let mut spin = Spin::new(self.shared.settings.spin);
        loop {
            round += 1;
            self.cells.rounds.add(1);
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    return self.sweep(usize::MAX);
                }
                self.obey(command);
            }
            self.catch_up();
            let start = Instant::now();
            if let Some(since) = busy_since.take() {
                busy += start.duration_since(since);
                self.cells.busy_us.set(busy.as_micros() as u64);
            }
            let now = self.shared.clock.at(start);
            let (received, most) = self.poll(now);
            if received > 0 {
                busy_since = Some(start);
                spin.came(start);
            }
            self.tick(now);
            if self.hands.is_some() {
                self.steer(start, received == 0);
            }
            if self.hot.is_empty() {
                if spin.goes_on(start, times_made_to_leave) {
                    self.ask(Some(Duration::ZERO));
                } else if self.commands.is_empty() && self.falls_asleep() {
                    self.park();
                    self.shared.handover.awakes(self.index);
                    spin.slept();
                }
            } else if most < BURST / 2 || round.is_multiple_of(ASK_EVERY) {
                self.ask(Some(Duration::ZERO));
            }
        }
    }

    /// Polls every hot queue once, and then the other workers. Returns how many frames came, and how many from whoever gave most.
    fn poll(&mut self, now: Millis) -> (usize, usize) {
        let (mut total, mut most) = (0, 0);
        let mut i = 0;
        while let Some(&port) = self.hot.get(i)
            && self.may_receive()
        {
            self.egress.laps.begin(self.cells);
            let (ingress, received) = self.receive(port, now);
            if received == 0 {
                self.hot.swap_remove(i);
                continue;
            }
            i += 1;
            // What came behind a change is done as that says, also if it was published since the round began. What lent patches
            // have under way is not to be overtaken, so there the round's beginning counts.
            if self.lent.is_empty() {
                self.refresh();
            }
            let left = self.hand_on(port, ingress, received);
            if left > 0 {
                self.process(ingress, left, now);
            }
            total += received;
            most = most.max(received);
        }
        if self.hands.is_some() {
            let (others, largest) = self.take_over(now);
            (total, most) = (total + others, most.max(largest));
        }
        (total, most)
    }

    /// Fills the burst from one queue. Returns by which port the frames came in, and how many. A queue that gives nothing
    /// is not hot any more.
    pub(super) fn receive(&mut self, port: DpPort, now: Millis) -> (DpPort, usize) {
        let Some(lane) = self.egress.lanes.get_mut(port) else { return (port, 0) };
        let Some(queue) = &mut lane.queue else { return (port, 0) };
        let received = queue.rx_burst(&mut self.egress.frames[..BURST]);
        while let Some((ingress, reason, count)) = queue.rx_dropped() {
            self.cells.received.add(count.into());
            self.cells.dropped[reason as usize].add(count.into());
            self.shared.drops[self.index].add(reason, ingress, None, count.into(), now, None);
        }
        match received {
            Ok(0) => {
                lane.hot = false;
                lane.empty_wakes = if queue.worked() { 0 } else { lane.empty_wakes + 1 };
                if lane.empty_wakes > EMPTY_WAKES {
                    lane.empty_wakes = 0;
                    lane.armed = false;
                    self.resting.push(port);
                    if let Some(fd) = queue.rx_fd() {
                        self.poller.remove(fd);
                    }
                }
                (port, 0)
            }
            Ok(received) => {
                lane.empty_wakes = 0;
                (queue.ingress().unwrap_or(port), received.min(BURST))
            }
            Err(error) => {
                lane.hot = false;
                lane.armed = false;
                if let Some(fd) = queue.rx_fd() {
                    self.poller.remove(fd);
                }
                tracing::warn!(port = port.0, %error, "the port's device is gone");
                // Without a receiver the switch is ending.
                _ = self.shared.notices.send(Notice::Gone(port));
                (port, 0)
            }
        }
    }

    /// Asks which queues can be read; those become hot. Returns whether anything was reported.
    fn ask(&mut self, timeout: Option<Duration>) -> bool {
        let (lanes, hot) = (&mut self.egress.lanes, &mut self.hot);
        self.poller.wait(timeout, |port| {
            if let Some(lane) = lanes.get_mut(port)
                && lane.armed
                && !lane.hot
            {
                lane.hot = true;
                hot.push(port);
            }
        })
    }

    fn park(&mut self) {
        self.cells.parks.add(1);
        let cached = self.megaflows.len() + self.egress.passes.cache.len();
        let busy = cached > 0 || !self.resting.is_empty() || self.shared.conntrack.fragments.len() > 0;
        let timeout = busy.then_some(Duration::from_millis(SWEEP_MS / 2));
        if !self.ask(timeout) {
            self.sweep(usize::MAX);
        }
    }

    /// Picks up what a translation may have changed, so that the next packet sees it.
    pub(super) fn refresh_after(&mut self, flow: &Flow) {
        if flow.side.effects().is_empty() {
            self.refresh_macs();
        } else {
            self.refresh();
        }
    }

    /// Picks up the model and the MAC table's state.
    pub(super) fn refresh(&mut self) {
        let latest = self.latest.load();
        if latest.generation != self.model.generation {
            self.model = Arc::clone(latest);
            self.epoch += 1;
            self.arm();
        }
        self.refresh_macs();
    }

    /// Notes when cached entries have to be compared with the MAC table again.
    pub(super) fn refresh_macs(&mut self) {
        let macs = self.shared.macs.epoch();
        if macs != self.macs_epoch {
            self.macs_epoch = macs;
            self.epoch += 1;
        }
    }

    /// Watches the queues of those pending ports that the model now has. So no frame is received before the model says
    /// what to do with it.
    fn arm(&mut self) {
        let mut i = 0;
        while let Some(&port) = self.pending.get(i) {
            if self.model.port(port).is_none() {
                i += 1;
                continue;
            }
            self.pending.swap_remove(i);
            self.watch(port);
        }
    }

    pub(super) fn watch(&mut self, port: DpPort) {
        let Some(lane) = self.egress.lanes.get_mut(port) else { return };
        let Some(fd) = lane.queue.as_ref().and_then(|q| q.rx_fd()) else { return };
        match self.poller.add(fd, port) {
            Ok(()) => lane.armed = true,
            Err(error) => tracing::warn!(port = port.0, %error, "cannot watch the port's queue; it receives nothing"),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::AddPort { port, queue, counters, shared } => {
                let watched = queue.is_some();
                self.egress.lanes.insert(port, queue, counters);
                if shared {
                    self.watch(port);
                } else if watched {
                    self.pending.push(port);
                    self.arm();
                }
            }
            Command::Settle { ports, done } => self.settle(&ports, done),
            Command::RemovePort { port, done } => {
                self.remove_port(port);
                _ = done.send(());
            }
            Command::Capture { port, probe, done } => {
                self.egress.lanes.add_probe(port, probe);
                _ = done.send(());
            }
            Command::EndCapture { id } => self.egress.lanes.remove_probes(id),
            Command::LendPatch { port, queue, counters, done } => {
                self.egress.lanes.insert(port, Some(queue), counters);
                self.lent.push(port);
                self.watch(port);
                _ = done.send(());
            }
            Command::ReturnPatch { port, done } => {
                self.return_patch(port);
                _ = done.send(());
            }
            Command::SplicePatch { ends, done } => {
                self.splice_patch(ends);
                _ = done.send(());
            }
            Command::Shape { port, change } => self.reshape(port, change),
            Command::Sync { done } => {
                self.reap_fragments(self.shared.clock.now());
                self.sweep(usize::MAX);
                _ = done.send(());
            }
            Command::PacketOut(packet) => {
                self.catch_up();
                let now = self.shared.clock.now();
                self.send_packet_out(&packet, now);
            }
            Command::Megaflows { reply } => _ = reply.send(self.megaflow_stats()),
            Command::Flush { done } => {
                self.sweep(usize::MAX);
                self.exact.clear();
                self.megaflows.clear();
                self.egress.passes.clear();
                self.publish();
                _ = done.send(());
            }
            Command::Stop => {}
        }
    }

    /// Picks up what changed, between two bursts. What patches that are lent have under way goes first, by the model that
    /// it was sent by, so that nothing overtakes it when they are patches again.
    pub(super) fn catch_up(&mut self) {
        if !self.lent.is_empty() && self.latest.load().generation != self.model.generation {
            self.drain_lent();
        }
        self.refresh();
    }

    /// Takes what patches that are lent have under way.
    fn drain_lent(&mut self) {
        let now = self.shared.clock.now();
        for _ in 0..DRAIN {
            let mut got = 0;
            for i in 0..self.lent.len() {
                let (ingress, received) = self.receive(self.lent[i], now);
                if received > 0 {
                    self.process(ingress, received, now);
                }
                got += received;
            }
            if got == 0 {
                break;
            }
        }
        // Those that gave nothing last are polled when they are reported.
        let lent = &self.lent;
        self.hot.retain(|port| !lent.contains(port));
    }

    /// Gives both ends of a patch queues. Of one that is lent, what is under way goes first; captures go on.
    fn splice_patch(&mut self, ends: [WireEnd; 2]) {
        self.drain_lent();
        for WireEnd { port, queue } in ends {
            for list in [&mut self.hot, &mut self.resting, &mut self.lent] {
                list.retain(|p| *p != port);
            }
            let Some(lane) = self.egress.lanes.get_mut(port) else { continue };
            (lane.armed, lane.hot) = (false, false);
            let lent = lane.queue.replace(queue);
            if let Some(fd) = lent.as_ref().and_then(|queue| queue.rx_fd()) {
                self.poller.remove(fd);
            }
            self.watch(port);
        }
    }

    fn return_patch(&mut self, port: DpPort) {
        self.catch_up();
        for list in [&mut self.hot, &mut self.pending, &mut self.resting, &mut self.lent] {
            list.retain(|p| *p != port);
        }
        let Some(lane) = self.egress.lanes.get_mut(port) else { return };
        (lane.armed, lane.hot) = (false, false);
        let queue = lane.queue.take();
        if let Some(fd) = queue.as_ref().and_then(|queue| queue.rx_fd()) {
            self.poller.remove(fd);
        }
    }

    /// Receives no more from a port.
    pub(super) fn ignore(&mut self, port: DpPort) {
        for list in [&mut self.hot, &mut self.pending, &mut self.resting] {
            list.retain(|p| *p != port);
        }
        let Some(lane) = self.egress.lanes.get_mut(port) else { return };
        lane.hot = false;
        if let Some(fd) = lane.queue.as_ref().and_then(|queue| queue.rx_fd()).filter(|_| lane.armed) {
            self.poller.remove(fd);
        }
        lane.armed = false;
    }

    fn remove_port(&mut self, port: DpPort) {
        for list in [&mut self.hot, &mut self.pending, &mut self.resting, &mut self.lent] {
            list.retain(|p| *p != port);
        }
        // What its entries counted must be credited while its counters are there.
        self.sweep(usize::MAX);
        let Some(lane) = self.egress.lanes.remove(port) else { return };
        if let Some(fd) = lane.queue.as_ref().and_then(|q| q.rx_fd()).filter(|_| lane.armed) {
            self.poller.remove(fd);
        }
        self.shared.drops[self.index].forget(port);
    }

    /// Does what is due by the clock, a part of it at a time.
    fn tick(&mut self, now: Millis) {
        self.reap_fragments(now);
        let passed = now.since(self.swept);
        if passed > 0 {
            let size = self.megaflows.size().max(self.egress.passes.cache.size()) as u64;
            let part = (size.saturating_mul(passed) / (SWEEP_MS / 2)).min(size) as usize + 32;
            self.sweep(part);
        }
        // Asked on its own: a worker that wakes from parking has just swept, and still has to watch resting ports again.
        if now.since(self.sorted) >= SORT_MS {
            self.sorted = now;
            self.megaflows.sort();
            self.egress.passes.sort();
            for port in std::mem::take(&mut self.resting) {
                self.watch(port);
            }
        }
    }

    /// Credits what the next `count` entries counted, and removes those that no packet used for long.
    fn sweep(&mut self, count: usize) {
        // Entries are compared with the tables as they are.
        self.catch_up();
        let now = self.shared.clock.now();
        self.swept = now;
        let idle = self.shared.settings.megaflow_idle;
        let ledger = Ledger::new(self.shared, &self.egress.lanes, &self.model);
        let mut removed = self.megaflows.sweep(count, |entry| {
            let keep = now.since(entry.hot.used) < idle && entry.guards.all(|guard| guard.conn.is_alive());
            ledger.settle(entry);
            keep
        });
        removed += self.egress.passes.cache.sweep(count, |Parts { hot, flow, .. }| {
            ledger.settle_pass(hot, flow);
            now.since(hot.used) < idle
        });
        self.cells.expired.add(removed as u64);
        self.publish();
    }

    fn publish(&self) {
        self.cells.exact_entries.set(self.exact.len() as u64);
        self.cells.megaflow_entries.set(self.megaflows.len() as u64);
        self.cells.pass_entries.set(self.egress.passes.cache.len() as u64);
        self.cells.megaflow_masks.set(self.megaflows.masks() as u64);
    }

    fn megaflow_stats(&self) -> Vec<MegaflowStats> {
        let mut all = Vec::with_capacity(self.megaflows.len() + self.egress.passes.cache.len());
        let stats = |hot: &Hot, flow: &Flow, actions| MegaflowStats {
            worker: self.index,
            key: FlowKey::ZERO,
            mask: FlowMask::ZERO,
            actions,
            verdict: flow.verdict,
            packets: flow.packets + hot.packets,
            bytes: flow.bytes + hot.bytes,
            used: hot.used,
            rule: flow.rules.last().cloned(),
        };
        self.megaflows.for_each(|hot, flow, key, mask, actions| {
            all.push(MegaflowStats { key: key.into(), mask: mask.into(), ..stats(hot, flow, actions) });
        });
        self.egress.passes.cache.for_each(|hot, flow, key, mask, actions| {
            all.push(MegaflowStats { key: *key, mask: *mask, ..stats(hot, flow, actions) });
        });
        all
    }
}
