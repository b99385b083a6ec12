//! Workers under full load: frames replayed from memory without end, through the whole data path, into a null port.
//!
//! Port 1 gives the frames, each copied into a buffer of the worker's as a device's driver would, and takes any; port 2
//! discards what it is sent. So flows that send what comes in by port 1 to port 2 are measured, and nothing else: no
//! device, no system call. Several workers share the frames by flow, as the queues of a device do.
//!
//! # Figures
//! Packets a second are those of the clock on the wall. Cycles are those of the time-stamp counter, as Open vSwitch
//! counts them, while the workers were on a CPU: where others use that CPU too, packets a second suffer and cycles a
//! packet hardly do.

use crate::port::{NullPort, PcapPort, Recording};
use crate::stats::WorkerStats;
use crate::ticks::ticks;
use crate::{Config, ControlError, Datapath, FailMode, PortDevice, PortRequest};
use sluice_flows::{DropReason, PortNo};
use std::fs;
use std::time::{Duration, Instant};

/// The bridge whose flows are measured.
pub const BRIDGE: &str = "br0";
/// The port that the frames come in by.
pub const IN_PORT: PortNo = PortNo(1);
/// The port that discards what it is sent.
pub const OUT_PORT: PortNo = PortNo(2);
/// MTU of both ports: the longest IP packet, so that no frame is too long.
const MTU: u32 = 65_535;
/// What the workers' threads are called, before their numbers.
const WORKER: &str = "sluice-w";

/// A data path with the bridge [`BRIDGE`]. It ends with [`Self::shutdown`] or when it is dropped.
pub struct Replay {
    datapath: Datapath,
}

impl Replay {
    /// Starts a worker on `cpu`, or wherever it may run; the bridge has no ports yet.
    ///
    /// # Errors
    /// [`ControlError::Worker`].
    pub fn start(cpu: Option<usize>) -> Result<Self, ControlError> {
        Self::start_with(Config { pin: cpu.into_iter().collect(), ..Config::default() })
    }

    /// Starts a worker on each of these CPUs; the bridge has no ports yet.
    ///
    /// # Errors
    /// [`ControlError::Worker`].
    pub fn start_on(cpus: &[usize]) -> Result<Self, ControlError> {
        Self::start_with(Config { workers: cpus.len(), pin: cpus.to_vec(), ..Config::default() })
    }

    /// Starts workers like this; the bridge has no ports yet.
    ///
    /// # Errors
    /// [`ControlError::Worker`].
    pub fn start_with(config: Config) -> Result<Self, ControlError> {
        let datapath = Datapath::start(config)?;
        datapath.add_bridge(BRIDGE, FailMode::Secure)?;
        Ok(Self { datapath })
    }

    /// The data path, for the flows.
    pub const fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Adds both ports. From now on the frames go round.
    ///
    /// # Errors
    /// Those of [`Datapath::add_port`], and of the system when it has no descriptor left.
    pub fn begin(&self, frames: Recording) -> Result<(), ControlError> {
        self.begin_by(PcapPort::repeating("in", frames, MTU).map_err(ControlError::Port)?)
    }

    /// As [`Self::begin`], but that the first worker alone receives: what others do, it has handed on.
    ///
    /// # Errors
    /// As there.
    pub fn begin_on_one_queue(&self, frames: Recording) -> Result<(), ControlError> {
        self.begin_by(PcapPort::repeating("in", frames, MTU).map_err(ControlError::Port)?.on_one_queue())
    }

    fn begin_by(&self, input: PcapPort) -> Result<(), ControlError> {
        let output = PortDevice::Device(Box::new(NullPort::new("out", MTU)));
        // The workers must find the way out when the first frame comes.
        self.datapath.add_port(BRIDGE, PortRequest { number: Some(OUT_PORT), ..PortRequest::new("out", output) })?;
        let input = PortDevice::Device(Box::new(input));
        self.datapath.add_port(BRIDGE, PortRequest { number: Some(IN_PORT), ..PortRequest::new("in", input) })?;
        Ok(())
    }

    /// What the workers do from now on, for so long.
    pub fn measure(&self, time: Duration) -> Measured {
        let before = self.now();
        std::thread::sleep(time);
        Measured { before, after: self.now() }
    }

    /// Ends the workers.
    pub fn shutdown(&self) {
        self.datapath.shutdown();
    }

    fn now(&self) -> Moment {
        let stats = self.datapath.worker_stats();
        Moment { wall: Instant::now(), cpu: cpu_time(stats.len()), ticks: ticks(), stats }
    }
}

/// The state at one time.
#[derive(Clone, Debug)]
struct Moment {
    wall: Instant,
    /// CPU time that the workers have had.
    cpu: Option<Duration>,
    /// The time-stamp counter.
    ticks: Option<u64>,
    stats: Vec<WorkerStats>,
}

/// What the workers did in a span of time.
#[derive(Clone, Debug)]
pub struct Measured {
    before: Moment,
    after: Moment,
}

impl Measured {
    /// How long it was.
    pub fn wall(&self) -> Duration {
        self.after.wall.duration_since(self.before.wall)
    }

    /// How long of that the workers were on a CPU, together. `None` where the system does not tell.
    pub fn cpu(&self) -> Option<Duration> {
        self.after.cpu?.checked_sub(self.before.cpu?)
    }

    /// How fast the CPU's time-stamp counter is, in ticks a second. `None` where there is none.
    pub fn tsc_hz(&self) -> Option<f64> {
        let ticks = self.after.ticks?.checked_sub(self.before.ticks?)?;
        Some(ticks as f64 / self.wall().as_secs_f64())
    }

    /// What a counter of the workers' grew by, together.
    pub fn grown(&self, counter: impl Fn(&WorkerStats) -> u64) -> u64 {
        let count = |moment: &Moment| moment.stats.iter().map(&counter).sum::<u64>();
        count(&self.after).saturating_sub(count(&self.before))
    }

    /// Frames that went through the data path.
    pub fn packets(&self) -> u64 {
        self.grown(|stats| stats.received)
    }

    /// Of these, those that left by a port.
    pub fn forwarded(&self) -> u64 {
        self.grown(|stats| stats.forwarded)
    }

    /// Of these, those dropped, by reason.
    pub fn dropped(&self) -> Vec<(DropReason, u64)> {
        let count = |&reason: &DropReason| (reason, self.grown(|stats| stats.dropped[reason as usize]));
        DropReason::ALL.iter().map(count).filter(|(_, packets)| *packets > 0).collect()
    }

    /// Frames a second.
    pub fn packets_per_second(&self) -> f64 {
        self.packets() as f64 / self.wall().as_secs_f64()
    }

    /// Frames a second of a worker's own time on its CPU.
    pub fn packets_per_cpu_second(&self) -> Option<f64> {
        Some(self.packets() as f64 / self.cpu()?.as_secs_f64())
    }

    /// Ticks of the time-stamp counter for each frame. `None` if no frame came, or the system does not tell.
    pub fn cycles_per_packet(&self) -> Option<f64> {
        let cycles = self.cpu().unwrap_or_else(|| self.wall()).as_secs_f64() * self.tsc_hz()?;
        (self.packets() > 0).then(|| cycles / self.packets() as f64)
    }

    /// Which share of the frames a counter counted, 0 to 1.
    pub fn share(&self, counter: impl Fn(&WorkerStats) -> u64) -> f64 {
        match self.packets() {
            0 => 0.0,
            packets => self.grown(counter) as f64 / packets as f64,
        }
    }
}

/// CPU time that the so many workers of this process have had. `None` if there are others too, or the system does not tell.
fn cpu_time(workers: usize) -> Option<Duration> {
    let (mut found, mut nanos) = (0, 0);
    for task in fs::read_dir("/proc/self/task").ok()? {
        let path = task.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim().strip_prefix(WORKER).is_some_and(|number| number.parse::<usize>().is_ok()) {
            let stat = fs::read_to_string(path.join("schedstat")).ok()?;
            nanos += stat.split_whitespace().next()?.parse::<u64>().ok()?;
            found += 1;
        }
    }
    (found == workers).then(|| Duration::from_nanos(nanos))
}
