//! The control side: the one place where the model is changed, and what programs call.
//!
//! # How a change reaches the workers
//! The model is an immutable value. A change is made to a copy (which shares what did not change) under one lock, then
//! published; workers pick it up between bursts. A bundle of flow changes is one such step, so no packet sees half of
//! it. Nothing here waits for a packet, and no packet waits for anything here.
//!
//! # Threads
//! [`Datapath`] may be called from any thread. One maintenance thread expires flows and MAC addresses and watches
//! devices. All of it is plain threads and channels: an async caller runs calls that wait for workers
//! ([`Datapath::sync_stats`], [`Datapath::remove_port`], dumps) where blocking is allowed.

mod bridges;
mod capture;
mod changes;
mod conntrack;
mod effects;
mod endpoints;
mod error;
mod hands;
mod keep;
mod lending;
mod limits;
mod links;
mod maintenance;
mod mirrors;
mod numbers;
mod ports;
mod reading;
mod splice;
mod tunnels;
mod wires;

pub use bridges::FailMode;
pub use capture::Capture;
pub use changes::{BundleResult, Made, OtherChanges};
pub(crate) use effects::Waiting;
pub use error::ControlError;
pub use keep::{ConnectionKeeper, ResumeError, Resumed};
pub(crate) use ports::Closing;
pub use ports::{PortChange, PortInfo, PortRequest};
pub use splice::{Far, Splice};
pub use tunnels::TunnelInfo;

use crate::attach::Attachments;
use crate::clock::Clock;
use crate::conntrack::Tracker;
use crate::datapath::{Handover, Notice, Settings, Shared, Steering, WorkerHandle, spawn};
use crate::event::Events;
use crate::host::Gateways;
use crate::host::gateway::GatewayConfig;
use crate::mac_table::{MacSettings, MacTable};
use crate::router::Routers;
use arc_swap::ArcSwap;
use crossbeam::channel::unbounded;
use endpoints::OpenEndpoint;
use numbers::Numbers;
use ports::PortState;
use sluice_flows::DpPort;
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::tunnel::TlvMap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the data path is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// CPU of each worker; those without one are left to the scheduler.
    pub pin: Vec<usize>,
    /// For how long at most a worker goes on asking its ports after the last frame before it sleeps; for less where it does not
    /// expect the next one so soon, or others want the CPU. 0 sleeps at once.
    pub spin: Duration,
    /// Without caches every packet is translated: slow, and what cached results are compared with in tests.
    pub caches: bool,
    /// Slots of each worker's exact cache at most, 8 bytes each; it begins with 65,536 and doubles while it is half full.
    pub exact_slots: usize,
    /// Entries of each worker's megaflow cache, about 500 bytes each.
    pub megaflow_limit: usize,
    /// Milliseconds without a packet until a megaflow goes.
    pub megaflow_idle: u64,
    /// Packets a second that each worker hands to controllers at most.
    pub packet_in_rate: u64,
    /// How workers share out what they receive.
    pub steering: Steering,
    /// MAC learning.
    pub macs: MacSettings,
    /// The clock for timeouts and ages.
    pub clock: Clock,
}

impl Default for Config {
    /// One worker that spins for 100 us at most, 1,048,576 exact slots, 200,000 megaflows of 10 s (OVS's figures), 1000 packet-ins a
    /// second.
    fn default() -> Self {
        Self {
            workers: 1,
            pin: Vec::new(),
            spin: Duration::from_micros(100),
            caches: true,
            exact_slots: 1 << 20,
            megaflow_limit: 200_000,
            megaflow_idle: 10_000,
            packet_in_rate: 1000,
            steering: Steering::default(),
            macs: MacSettings::default(),
            clock: Clock::monotonic(),
        }
    }
}

/// A running data path. Clones are the same one; it ends with [`Datapath::shutdown`] or with the last of them.
#[derive(Clone)]
pub struct Datapath {
    inner: Arc<Inner>,
}

/// A data path that may be gone.
pub(crate) struct WeakDatapath(Weak<Inner>);

impl WeakDatapath {
    /// The data path, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Datapath> {
        self.0.upgrade().map(|inner| Datapath { inner })
    }
}

struct Inner {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    routers: Routers,
    gateways: Gateways,
    attachments: Attachments,
}

/// What the control side alone knows.
#[derive(Default)]
pub(crate) struct State {
    /// The model to be changed next; the published one is a clone of it.
    model: Model,
    ports: BTreeMap<DpPort, PortState>,
    /// Of each bridge that has had a port go.
    numbers: BTreeMap<BridgeId, Numbers>,
    endpoints: Vec<OpenEndpoint>,
    tlvs: TlvMap,
    lent: Vec<lending::Lent>,
    ended: bool,
}

impl Datapath {
    /// The gateways that were asked for, with their bridges, sorted by bridge and VLAN.
    pub fn gateways(&self) -> Vec<(String, GatewayConfig)> {
        self.inner.gateways.all()
    }

    /// What decides which gateways there are.
    pub(crate) fn gateway_state(&self) -> &Gateways {
        &self.inner.gateways
    }

    /// Starts the workers, with no bridge yet.
    ///
    /// # Errors
    /// [`ControlError::Worker`].
    pub fn start(config: Config) -> Result<Self, ControlError> {
        let count = config.workers.max(1);
        let (notices, receiver) = unbounded();
        let shared = Arc::new(Shared {
            model: ArcSwap::from_pointee(Model::default()),
            macs: MacTable::new(config.macs),
            conntrack: Tracker::default(),
            events: Events::default(),
            punts: Default::default(),
            clock: config.clock,
            started: Instant::now(),
            started_ticks: crate::ticks::ticks(),
            cells: (0..count).map(|_| Default::default()).collect(),
            drops: (0..count).map(|_| Default::default()).collect(),
            handover: Handover::new(count),
            notices,
            state: Mutex::default(),
            waiting: Waiting::default(),
            settings: Settings {
                pin: config.pin,
                spin: config.spin,
                caches: config.caches,
                exact_slots: config.exact_slots,
                megaflow_limit: config.megaflow_limit,
                megaflow_idle: config.megaflow_idle,
                packet_in_rate: config.packet_in_rate,
                steering: config.steering,
            },
        });
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            match spawn(Arc::clone(&shared), worker) {
                Ok(handle) => workers.push(handle),
                Err(source) => {
                    workers.iter().for_each(WorkerHandle::stop);
                    return Err(ControlError::Worker { worker, source });
                }
            }
        }
        let inner = Arc::new(Inner {
            shared,
            workers,
            maintenance: Mutex::new(None),
            routers: Routers::default(),
            gateways: Gateways::default(),
            attachments: Attachments::default(),
        });
        let thread = maintenance::spawn(Arc::downgrade(&inner), receiver)
            .map_err(|source| ControlError::Worker { worker: count, source })?;
        *inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Self { inner })
    }

    /// Ends workers and threads and closes every port. Later calls fail with [`ControlError::Ending`] or find nothing.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    /// The model as it is now.
    pub fn model(&self) -> Arc<Model> {
        self.inner.shared.model.load_full()
    }

    /// The routers.
    pub(crate) fn routers(&self) -> &Routers {
        &self.inner.routers
    }

    /// The networks of containers, and the attachments to them.
    pub(crate) fn attachments(&self) -> &Attachments {
        &self.inner.attachments
    }

    /// What finds this data path as long as it is there.
    pub(crate) fn downgrade(&self) -> WeakDatapath {
        WeakDatapath(Arc::downgrade(&self.inner))
    }

    /// The clock that the switch's times are told by.
    pub fn clock(&self) -> &Clock {
        &self.inner.shared.clock
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state for a change.
    fn lock_for_change(&self) -> Result<MutexGuard<'_, State>, ControlError> {
        let state = self.lock();
        if state.ended { Err(ControlError::Ending) } else { Ok(state) }
    }

    /// Makes the changed model the one in force. Returns its generation.
    fn publish(&self, state: &mut State) -> u64 {
        self.shared.publish(state)
    }

    fn shutdown(&self) {
        self.routers.end();
        let ports = {
            let mut state = self.lock();
            state.ended = true;
            state.model = Model { generation: state.model.generation, ..Model::default() };
            std::mem::take(&mut state.ports)
        };
        self.workers.iter().for_each(WorkerHandle::stop);
        // The workers have let go of their queues.
        ports::close(ports.into_values().collect());
        // Without a receiver the thread has ended already.
        _ = self.shared.notices.send(Notice::Stop);
        let thread = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            // One that panicked has told so on stderr.
            _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}
