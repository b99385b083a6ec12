//! What a replay does at its best: on a shared machine other times tell what the neighbours do.

use crate::acl;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::compose::compose;
use sluice_flows::rule::FlowSpec;
use sluice_switch::ControlError;
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, Measured, Replay};
use std::error::Error;
use std::time::Duration;

const WINDOWS: usize = 8;
const WINDOW: Duration = Duration::from_millis(250);
const WARMUP: Duration = Duration::from_millis(300);

/// Frames a second of a worker's own time on its CPU; 0 where the system does not tell.
pub fn rate(measured: &Measured) -> f64 {
    measured.packets_per_cpu_second().unwrap_or_default()
}

/// Replays frames of so many flows (see [`acl::packets`]), 60 bytes each, through these rules, by a worker on each of these CPUs: the
/// window of time with the best [`rate`].
///
/// # Errors
/// The workers cannot be started, or a rule is refused.
pub fn best(cpus: &[usize], rules: &[FlowSpec], flows: usize) -> Result<Measured, Box<dyn Error>> {
    measure(cpus, rules, flows, rate, Replay::begin)
}

/// As [`best`], but that the first worker alone receives, and the others do what it hands on: the window in which most frames went
/// through on the clock on the wall, since how much each worker has to do differs.
///
/// # Errors
/// As there.
pub fn best_on_one_queue(cpus: &[usize], rules: &[FlowSpec], flows: usize) -> Result<Measured, Box<dyn Error>> {
    measure(cpus, rules, flows, Measured::packets_per_second, Replay::begin_on_one_queue)
}

fn measure(
    cpus: &[usize],
    rules: &[FlowSpec],
    flows: usize,
    rate: impl Fn(&Measured) -> f64,
    begin: impl Fn(&Replay, Recording) -> Result<(), ControlError>,
) -> Result<Measured, Box<dyn Error>> {
    let replay = Replay::start_on(cpus)?;
    replay.datapath().apply_bundle(BRIDGE, &rules.iter().cloned().map(FlowMod::add).collect::<Vec<_>>())?;
    begin(&replay, Recording::from_frames(acl::packets(flows).iter().map(|key| compose(key, &[b'x'; 18]))))?;
    replay.measure(WARMUP);
    let windows = (0..WINDOWS).map(|_| replay.measure(WINDOW));
    let best = windows.max_by(|a, b| rate(a).total_cmp(&rate(b))).ok_or("no windows")?;
    replay.shutdown();
    Ok(best)
}
