//! What all workers and the control side share.

use super::drops::Drops;
use super::handover::Handover;
use super::indirection::Steering;
use super::punt::Punts;
use crate::clock::Clock;
use crate::conntrack::Tracker;
use crate::control::{State, Waiting};
use crate::event::Events;
use crate::mac_table::MacTable;
use crate::stats::WorkerCells;
use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;
use sluice_flows::DpPort;
use sluice_flows::bridge::Model;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a worker tells the control side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// A port's device is gone for good.
    Gone(DpPort),
    /// A port was added whose interface is still to be set up.
    New,
    /// Something that packets do to the tables waits.
    Effects,
    /// The switch is ending.
    Stop,
}

/// How workers work; fixed at the start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// CPU of each worker; empty leaves them to the scheduler.
    pub(crate) pin: Vec<usize>,
    /// How long they ask in vain at most before they sleep.
    pub(crate) spin: Duration,
    /// Without, every packet is translated: the oracle that cached results are compared with.
    pub(crate) caches: bool,
    /// Slots of each worker's exact cache.
    pub(crate) exact_slots: usize,
    /// Entries of each worker's megaflow cache.
    pub(crate) megaflow_limit: usize,
    /// Milliseconds without a packet until a megaflow goes.
    pub(crate) megaflow_idle: u64,
    /// Packets a second that each worker hands to controllers.
    pub(crate) packet_in_rate: u64,
    /// How they share out what they receive.
    pub(crate) steering: Steering,
}

/// What all workers and the control side share.
pub(crate) struct Shared {
    pub(crate) model: ArcSwap<Model>,
    pub(crate) macs: MacTable,
    pub(crate) conntrack: Tracker,
    pub(crate) events: Events,
    pub(crate) punts: Punts,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    /// The same in ticks of the CPU's counter, if it has one.
    pub(crate) started_ticks: Option<u64>,
    pub(crate) cells: Box<[CachePadded<WorkerCells>]>,
    pub(crate) drops: Box<[Drops]>,
    /// Frames that workers hand on.
    pub(crate) handover: Handover,
    pub(crate) notices: Sender<Notice>,
    /// What the control side changes. Workers only ever try to lock it.
    pub(crate) state: Mutex<State>,
    pub(crate) waiting: Waiting,
    pub(crate) settings: Settings,
}
