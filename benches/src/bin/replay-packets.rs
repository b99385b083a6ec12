//! `replay-packets CASE FLOWS PACKETS` replays frames of so many flows through the flows of a case (`cases::named`) by one worker, until
//! at least so many have gone through, and prints how many did. What that took is told by whoever runs it, as a profiler does.

use sluice_benches::{acl, cases};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::compose::compose;
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, Replay};
use std::error::Error;
use std::time::Duration;

/// How often the counter is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [case, flows, packets] = args.as_slice() else { return Err("usage: replay-packets CASE FLOWS PACKETS".into()) };
    let rules = cases::named(case).ok_or("no such case")?;
    let (flows, packets): (usize, u64) = (flows.parse()?, packets.parse()?);
    let replay = Replay::start(None)?;
    replay.datapath().apply_bundle(BRIDGE, &rules.into_iter().map(FlowMod::add).collect::<Vec<_>>())?;
    replay.begin(Recording::from_frames(acl::packets(flows).iter().map(|key| compose(key, &[b'x'; 18]))))?;
    let forwarded = || replay.datapath().worker_stats().iter().map(|worker| worker.forwarded).sum::<u64>();
    while forwarded() < packets {
        std::thread::sleep(LOOK_EVERY);
    }
    replay.shutdown();
    println!("{}", forwarded());
    Ok(())
}
