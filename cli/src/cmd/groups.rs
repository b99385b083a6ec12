//! `sluice groups`: several lists of actions under one number.

use super::bundle::{Common, Kind, apply, lines, texts};
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::Watch;
use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_proto::v1::group_mod::Command;
use sluice_proto::v1::{Bucket, Group, ListGroupsRequest};
use std::fmt::Write;

/// Arguments of `sluice groups`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice groups                                     every group with its buckets and counters
  sluice groups add 'group_id=1,type=select,bucket=output:2,bucket=output:3'
  sluice flows add 'tcp,tp_dst=80 actions=group:1'
  sluice groups insert-buckets 1 'bucket=weight:50,actions=output:4'
  sluice groups remove-buckets 1 last
  sluice groups del 1                               and the flows that send to it"
)]
pub(crate) struct Groups {
    #[command(flatten)]
    show: Show,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How to show them.
#[derive(Debug, Args)]
struct Show {
    /// Name ports instead of numbering them
    #[arg(long)]
    names: bool,
    /// Counters instead of buckets, with -o ofctl: as `ovs-ofctl dump-group-stats` prints them
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
    /// Show groups with their owners and counters
    Dump(Dump),
    /// Add groups, all or none
    Add(Add),
    /// Give a group another type and other buckets
    Mod(Mod),
    /// Delete a group and the flows that send to it
    Del(Del),
    /// Add buckets to a group
    InsertBuckets(InsertBuckets),
    /// Remove buckets from a group
    RemoveBuckets(RemoveBuckets),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups dump 1
  sluice groups dump -w                       again every second
  sluice groups dump -o ofctl > backup.groups what `groups add --file` reads
  sluice groups dump -o ofctl --stats         as `ovs-ofctl dump-group-stats` prints them")]
struct Dump {
    /// Only the group with this number
    group: Option<u32>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups add 'group_id=1,type=all,bucket=output:2,bucket=output:3'
  sluice groups add 'group_id=2,type=select,bucket=weight:9,actions=output:2,bucket=output:3'
  sluice groups add 'group_id=3,type=ff,bucket=watch_port:2,actions=output:2'
  sluice groups add --file pipeline.groups    one a line; `modify ...` and `delete ...` work too")]
struct Add {
    /// Groups in OVS's syntax
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    groups: Vec<String>,
    /// Read them from a file, or from standard input if it is `-`
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups mod 'group_id=1,type=select,bucket=bucket_id:0,actions=output:2'
  sluice groups mod --may-create 'group_id=7,type=indirect,bucket=output:2'
Buckets that keep their number keep their counters.")]
struct Mod {
    /// The group as it is to be, in OVS's syntax
    group: String,
    /// Add it when there is none
    #[arg(long)]
    may_create: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups del 1
  sluice groups del --all")]
struct Del {
    /// Its number
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    group: Option<u32>,
    /// Every group of the bridge
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups insert-buckets 1 'bucket=weight:100,actions=output:4'
  sluice groups insert-buckets 1 --at first 'bucket=bucket_id:9,weight:1,actions=output:4'
  sluice groups insert-buckets 1 --at 3 'bucket=output:4'      behind the bucket with number 3
A bucket of a select group has weight 0, and so is never chosen, unless it says one.")]
struct InsertBuckets {
    /// The group's number
    group: u32,
    /// Buckets in OVS's syntax: bucket=...
    #[arg(required = true)]
    buckets: Vec<String>,
    /// Where: `first`, `last`, or the number of the bucket that they go behind
    #[arg(long, value_name = "WHERE", default_value = "last")]
    at: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice groups remove-buckets 1 last
  sluice groups remove-buckets 1 3            the bucket with number 3
  sluice groups remove-buckets 1 all")]
struct RemoveBuckets {
    /// The group's number
    group: u32,
    /// Which: `first`, `last`, `all`, or a bucket's number
    which: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Answer {
    groups: Vec<Row>,
}

/// A group in JSON.
#[derive(Serialize)]
pub(crate) struct Row {
    group: u32,
    r#type: String,
    text: String,
    owner: String,
    flows: u64,
    packets: u64,
    bytes: u64,
    duration_ms: u64,
    buckets: Vec<BucketRow>,
}

#[derive(Serialize)]
struct BucketRow {
    bucket: u32,
    weight: u32,
    actions: String,
    packets: u64,
    bytes: u64,
}

impl From<Group> for Row {
    fn from(g: Group) -> Self {
        Self {
            group: g.id,
            r#type: g.r#type,
            text: g.group.trim().to_owned(),
            owner: g.owner,
            flows: g.ref_count,
            packets: g.packets,
            bytes: g.bytes,
            duration_ms: g.duration_ms,
            buckets: g.buckets.into_iter().map(BucketRow::from).collect(),
        }
    }
}

impl From<Bucket> for BucketRow {
    fn from(b: Bucket) -> Self {
        Self { bucket: b.id, weight: b.weight, actions: b.actions, packets: b.packets, bytes: b.bytes }
    }
}

/// Runs the verb.
pub(crate) fn run(args: Groups, out: &mut Output) -> Result<Exit, Failure> {
    let change = |command, text: String| texts(&[text], Kind::Group(command));
    let (common, changes) = match args.verb {
        None => return dump(&Dump { group: None, show: args.show }, out),
        Some(Verb::Dump(args)) => return dump(&args, out),
        Some(Verb::Add(Add { groups, file: None, common })) => {
            (common, texts(&groups, Kind::Group(Command::AsWritten))?)
        }
        Some(Verb::Add(Add { file: Some(file), common, .. })) => {
            let changes = lines(&file, Kind::Group(Command::AsWritten), common.owner.as_deref())?;
            (common, changes)
        }
        Some(Verb::Mod(Mod { group, may_create, common })) => {
            let command = if may_create { Command::AddOrModify } else { Command::Modify };
            (common, change(command, group)?)
        }
        Some(Verb::Del(Del { group, common, .. })) => {
            let text = group.map(|id| format!("group_id={id}")).unwrap_or_default();
            (common, change(Command::Delete, text)?)
        }
        Some(Verb::InsertBuckets(InsertBuckets { group, buckets, at, common })) => {
            let text = format!("group_id={group},command_bucket_id={at},{}", buckets.join(","));
            (common, change(Command::InsertBuckets, text)?)
        }
        Some(Verb::RemoveBuckets(RemoveBuckets { group, which, common })) => {
            (common, change(Command::RemoveBuckets, format!("group_id={group},command_bucket_id={which}"))?)
        }
    };
    apply(common, Kind::Group(Command::AsWritten), changes, None, out)
}

fn dump(args: &Dump, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json, Format::Ofctl])?;
    let show = &args.show;
    let client = Client::connect(&show.target)?;
    show.watch.run(out, |out| {
        let request =
            ListGroupsRequest { bridge: show.bridge.bridge.clone(), group: args.group, port_names: show.names };
        let parts = client.collect(client.groups().list_groups(request))?;
        let groups: Vec<_> = parts.into_iter().flat_map(|part| part.groups).collect();
        if groups.is_empty() {
            match args.group {
                Some(id) => out.talk(format!("there is no group {id}"))?,
                None => out.talk("there are no groups")?,
            }
        }
        match format {
            Format::Json => out.json(&Answer { groups: groups.into_iter().map(Row::from).collect() })?,
            Format::Ofctl if show.stats => {
                out.line("OFPST_GROUP reply (OF1.5) (xid=0x6):")?;
                groups.iter().try_for_each(|group| out.line(stats(group)))?;
            }
            Format::Ofctl => {
                out.line("OFPST_GROUP_DESC reply (OF1.5) (xid=0x2):")?;
                groups.iter().try_for_each(|group| out.line(format!(" {}", group.group.trim())))?;
            }
            _ => out.table(&table(&groups, format == Format::Wide))?,
        }
        Ok(Exit::Yes)
    })
}

/// One row for each bucket; the first one's has what is said of the group.
pub(crate) fn table(groups: &[Group], wide: bool) -> Table {
    let mut header: Vec<Cell> = vec![Cell::right("GROUP"), "TYPE".into(), "OWNER".into(), Cell::right("FLOWS")];
    header.extend(["PKTS", "BUCKET", "WEIGHT", "PKTS"].map(Cell::right));
    if wide {
        header.extend(["BYTES", "AGE"].map(Cell::right));
    }
    header.push("ACTIONS".into());
    let mut table = Table::new(header);
    for group in groups {
        let mut about: Vec<Cell> = vec![Cell::right(group.id.to_string()), group.r#type.as_str().into()];
        about.push(group.owner.as_str().into());
        about.extend([group.ref_count, group.packets].map(|n| Cell::right(n.to_string())));
        let mut age = format!("{} s", group.duration_ms / 1000);
        if group.buckets.is_empty() {
            table.row(about.drain(..).chain(["-".into()]));
        }
        for bucket in &group.buckets {
            let mut row = std::mem::replace(&mut about, vec![Cell::from(""); 5]);
            let weight = if group.r#type == "select" { bucket.weight.to_string() } else { "-".to_owned() };
            row.extend([bucket.id.to_string(), weight, bucket.packets.to_string()].map(Cell::right));
            if wide {
                row.extend([bucket.bytes.to_string(), std::mem::take(&mut age)].map(Cell::right));
            }
            let actions = if bucket.actions.is_empty() { "drop" } else { &bucket.actions };
            row.push(actions.into());
            table.row(row);
        }
    }
    table
}

/// A group's counters as `ovs-ofctl dump-group-stats` prints them.
fn stats(group: &Group) -> String {
    let Group { id, ref_count, packets, bytes, duration_ms, .. } = group;
    let (s, ms) = (duration_ms / 1000, duration_ms % 1000);
    let mut out =
        format!(" group_id={id},duration={s}.{ms:03}s,ref_count={ref_count},packet_count={packets},byte_count={bytes}");
    for (index, bucket) in group.buckets.iter().enumerate() {
        // Writing to a string cannot fail.
        _ = write!(out, ",bucket{index}:packet_count={},byte_count={}", bucket.packets, bucket.bytes);
    }
    out
}
