//! Printing meters as `ovs-ofctl -O OpenFlow15 dump-meters` and `meter-stats` do.

use crate::action::MeterId;
use crate::meter::{Meter, MeterSpec, MeterUnit};
use crate::rule::Millis;
use crate::text::parse::VIRTUAL_METERS;
use std::fmt;

/// The number of a meter, or the word for a virtual one.
fn meter_id(id: MeterId) -> impl fmt::Display {
    fmt::from_fn(move |f| match VIRTUAL_METERS.iter().find(|(_, virtual_id)| *virtual_id == id) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{id}"),
    })
}

/// A meter as `dump-meters` prints it: a line, then one for each band. It reads back.
///
/// The owner is not in it: this is OVS's language and no more.
pub fn show_meter(meter: &MeterSpec) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let unit = match meter.unit {
            MeterUnit::Kbps => "kbps",
            MeterUnit::Pktps => "pktps",
        };
        write!(f, "meter={} {unit}", meter_id(meter.id))?;
        for (flag, name) in [(meter.burst, "burst"), (meter.stats, "stats")] {
            if flag {
                write!(f, " {name}")?;
            }
        }
        f.write_str(" bands=")?;
        meter.bands.iter().try_for_each(|band| {
            write!(f, "\ntype=drop rate={}", band.rate)?;
            if meter.burst { write!(f, " burst_size={}", band.burst_size) } else { Ok(()) }
        })
    })
}

/// A meter's counters at `now` as `meter-stats` prints them: a line, then one for each band. `flows` is the number of
/// flows that go through the meter.
pub fn show_meter_stats(meter: &Meter, flows: usize, now: Millis) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let (packets, bytes) = meter.came();
        let age = now.since(meter.created);
        write!(f, "meter:{} flow_count:{flows} ", meter_id(meter.spec.id))?;
        write!(f, "packet_in_count:{packets} byte_in_count:{bytes} ")?;
        write!(f, "duration:{}.{:03}s bands:", age / 1000, age % 1000)?;
        meter
            .dropped()
            .enumerate()
            .try_for_each(|(index, (packets, bytes))| write!(f, "\n{index}: packet_count:{packets} byte_count:{bytes}"))
    })
}
