//! `sluice meters`: limits to the rate of packets or bits.

use super::bundle::{Common, Kind, apply, lines, texts};
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use crate::watch::Watch;
use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_proto::v1::meter_mod::Command;
use sluice_proto::v1::{ListMetersRequest, Meter};
use std::fmt::Write;

/// Arguments of `sluice meters`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice meters                                     every meter with its counters
  sluice meters add 'meter=1,kbps,bands=type=drop,rate=50000'
  sluice flows add 'ip,nw_src=10.0.0.7 actions=meter:1,NORMAL'
  sluice meters mod 'meter=1,kbps,bands=type=drop,rate=100000'
  sluice meters del 1                               and the flows that go through it"
)]
pub(crate) struct Meters {
    #[command(flatten)]
    show: Show,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How to show them.
#[derive(Debug, Args)]
struct Show {
    /// Counters instead of bands, with -o ofctl: as `ovs-ofctl meter-stats` prints them
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show meters with their owners and counters
    Dump(Dump),
    /// Add meters, all or none
    Add(Add),
    /// Give a meter other bands; it counts from 0
    Mod(Mod),
    /// Delete a meter and the flows that go through it
    Del(Del),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice meters dump 1
  sluice meters dump -w                       again every second
  sluice meters dump -o ofctl                 as `ovs-ofctl dump-meters` prints them
  sluice meters dump -o ofctl --stats         as `ovs-ofctl meter-stats` prints them")]
struct Dump {
    /// Only the meter with this number
    meter: Option<u32>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice meters add 'meter=1,kbps,bands=type=drop,rate=50000'
  sluice meters add 'meter=2,pktps,burst,bands=type=drop,rate=1000,burst_size=200'
  sluice meters add --file pipeline.meters    one a line; `modify ...` and `delete ...` work too
Rates are in kbit/s (1000 bits) or packets/s.")]
struct Add {
    /// Meters in OVS's syntax
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    meters: Vec<String>,
    /// Read them from a file, or from standard input if it is `-`
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice meters mod 'meter=1,kbps,bands=type=drop,rate=100000'")]
struct Mod {
    /// The meter as it is to be, in OVS's syntax
    meter: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice meters del 1
  sluice meters del --all")]
struct Del {
    /// Its number
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    meter: Option<u32>,
    /// Every meter of the bridge
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Answer {
    meters: Vec<Row>,
}

/// A meter in JSON.
#[derive(Serialize)]
struct Row {
    meter: u32,
    text: String,
    owner: String,
    flows: u64,
    packets: u64,
    bytes: u64,
    dropped_packets: u64,
    dropped_bytes: u64,
    duration_ms: u64,
    bands: Vec<Band>,
}

/// Of rates and burst sizes, one unit is there.
#[derive(Serialize)]
struct Band {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_kbps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_pktps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_kbit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_packets: Option<u32>,
    dropped_packets: u64,
    dropped_bytes: u64,
}

impl From<Meter> for Row {
    fn from(m: Meter) -> Self {
        let kbps = is_kbps(&m);
        let of = |kilobits: bool, value: u32| (kbps == kilobits).then_some(value);
        let bands = m.bands.iter().map(|b| Band {
            rate_kbps: of(true, b.rate),
            rate_pktps: of(false, b.rate),
            burst_kbit: of(true, b.burst_size),
            burst_packets: of(false, b.burst_size),
            dropped_packets: b.packets,
            dropped_bytes: b.bytes,
        });
        Self {
            meter: m.id,
            bands: bands.collect(),
            dropped_packets: m.bands.iter().map(|b| b.packets).sum(),
            dropped_bytes: m.bands.iter().map(|b| b.bytes).sum(),
            text: m.meter.trim().to_owned(),
            owner: m.owner,
            flows: m.flows,
            packets: m.packets,
            bytes: m.bytes,
            duration_ms: m.duration_ms,
        }
    }
}

/// Whether the meter counts bits rather than packets.
fn is_kbps(meter: &Meter) -> bool {
    meter.meter.split([' ', ',', '\n']).any(|word| word == "kbps")
}

/// Runs the verb.
pub(crate) fn run(args: Meters, out: &mut Output) -> Result<Exit, Failure> {
    let (common, changes) = match args.verb {
        None => return dump(&Dump { meter: None, show: args.show }, out),
        Some(Verb::Dump(args)) => return dump(&args, out),
        Some(Verb::Add(Add { meters, file: None, common })) => (common, texts(&meters, Kind::Meter(Command::Add))?),
        Some(Verb::Add(Add { file: Some(file), common, .. })) => {
            let changes = lines(&file, Kind::Meter(Command::Add), common.owner.as_deref())?;
            (common, changes)
        }
        Some(Verb::Mod(Mod { meter, common })) => (common, texts(&[meter], Kind::Meter(Command::Modify))?),
        Some(Verb::Del(Del { meter, common, .. })) => {
            let text = meter.map(|id| format!("meter={id}")).unwrap_or_default();
            (common, texts(&[text], Kind::Meter(Command::Delete))?)
        }
    };
    apply(common, Kind::Meter(Command::Add), changes, None, out)
}

fn dump(args: &Dump, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json, Format::Ofctl])?;
    let show = &args.show;
    let client = Client::connect(&show.target)?;
    show.watch.run(out, |out| {
        let request = ListMetersRequest { bridge: show.bridge.bridge.clone(), meter: args.meter };
        let parts = client.collect(client.meters().list_meters(request))?;
        let meters: Vec<_> = parts.into_iter().flat_map(|part| part.meters).collect();
        if meters.is_empty() {
            match args.meter {
                Some(id) => out.talk(format!("there is no meter {id}"))?,
                None => out.talk("there are no meters")?,
            }
        }
        match format {
            Format::Json => out.json(&Answer { meters: meters.into_iter().map(Row::from).collect() })?,
            Format::Ofctl => ofctl(&meters, show.stats, out)?,
            _ => out.table(&table(&meters, format == Format::Wide))?,
        }
        Ok(Exit::Yes)
    })
}

/// One row for each band; the first one's has what is said of the meter.
fn table(meters: &[Meter], wide: bool) -> Table {
    let mut header: Vec<Cell> = vec![Cell::right("METER"), "OWNER".into()];
    header.extend(["FLOWS", "PKTS", "BYTES", "RATE", "BURST", "DROPPED"].map(Cell::right));
    if wide {
        header.push(Cell::right("AGE"));
    }
    let mut table = Table::new(header);
    for meter in meters {
        let units = if is_kbps(meter) { ("kbit/s", "kbit") } else { ("pkts/s", "pkts") };
        let mut about: Vec<Cell> = vec![Cell::right(meter.id.to_string()), meter.owner.as_str().into()];
        about.extend([meter.flows, meter.packets, meter.bytes].map(|n| Cell::right(n.to_string())));
        let mut age = format!("{} s", meter.duration_ms / 1000);
        if meter.bands.is_empty() {
            table.row(about.drain(..).chain([Cell::right("any")]));
        }
        for band in &meter.bands {
            let mut row = std::mem::replace(&mut about, vec![Cell::from(""); 5]);
            row.push(Cell::right(format!("{} {}", band.rate, units.0)));
            row.push(Cell::right(match band.burst_size {
                0 => "-".to_owned(),
                size => format!("{size} {}", units.1),
            }));
            let tone = if band.packets > 0 { Tone::Bad } else { Tone::Plain };
            row.push(Cell::right(band.packets.to_string()).tone(tone));
            if wide {
                row.push(Cell::right(std::mem::take(&mut age)));
            }
            table.row(row);
        }
    }
    table
}

/// Meters as `ovs-ofctl dump-meters` prints them, or their counters as `ovs-ofctl meter-stats` does.
fn ofctl(meters: &[Meter], stats: bool, out: &mut Output) -> Result<(), Failure> {
    let heading = if stats { "OFPST_METER" } else { "OFPST_METER_CONFIG" };
    out.line(format!("{heading} reply (OF1.5) (xid=0x2):"))?;
    for meter in meters {
        let text = if stats { counters(meter) } else { meter.meter.trim_end().to_owned() };
        out.line(text)?;
        out.line("")?;
    }
    Ok(())
}

fn counters(meter: &Meter) -> String {
    let Meter { id, flows, packets, bytes, duration_ms, .. } = meter;
    let (s, ms) = (duration_ms / 1000, duration_ms % 1000);
    let mut out = format!(
        "meter:{id} flow_count:{flows} packet_in_count:{packets} byte_in_count:{bytes} duration:{s}.{ms:03}s bands:"
    );
    for (index, band) in meter.bands.iter().enumerate() {
        // Writing to a string cannot fail.
        _ = write!(out, "\n{index}: packet_count:{} byte_count:{}", band.packets, band.bytes);
    }
    out
}
