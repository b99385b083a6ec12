//! `sluice capture`: what crosses ports of a running switch, as lines or as a pcapng file.
//!
//! The same recording serves `sluice lab capture`, which knows ports by the names of links and nodes.

mod file;
mod inner;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::output::{Exit, Format, Output};
use clap::Args;
use file::Writer;
use serde::Serialize;
use sluice_flows::key::{FlowKey, PacketKey};
use sluice_flows::packet::extract;
use sluice_flows::text::{Names, show_packet};
use sluice_flows::tunnel::TunnelKind;
use sluice_proto::v1::captured_frame::Direction;
use sluice_proto::v1::{CaptureReply, CaptureRequest, CapturedFrame};
use sluice_switch::port::parse_time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Arguments of `sluice capture`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice capture tap1                           one line a packet, until Ctrl-C
  sluice capture tap1,tap2 -w both.pcapng       into a file, as tcpdump and Wireshark read it
  sluice capture tap1 'tcp,tcp_dst=80' -c 20    20 packets that this matches
  sluice capture tap1 -w - | wireshark -k -i -  live
  sluice capture --pod shop/web-7f9 'tcp'       a Pod's port, on its node of a cluster
A super-frame is written whole, as it crossed, with a comment that says so.")]
pub(crate) struct Capture {
    /// The ports, with commas between; with --pod the MATCH
    #[arg(value_name = "PORT,..", required_unless_present = "pod", default_value = "", hide_default_value = true)]
    ports: String,
    /// The port of this Pod instead, on its node
    #[arg(long, value_name = "NS/POD")]
    pod: Option<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    target: Target,
}

/// What to record, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct How {
    /// Only packets that this matches, in the syntax of flows
    #[arg(value_name = "MATCH", default_value = "", hide_default_value = true)]
    matches: String,
    /// Write a pcapng file; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<String>,
    /// End after this many packets
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// End after this time, such as 500ms or 30s
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Keep this many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    snaplen: u32,
    /// Take off outer headers of VXLAN, Geneve, GRE and IP tunnels
    #[arg(long)]
    inner: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| "expected a time like 500ms or 30s, up to 60s".to_owned())
}

/// A port as a recording calls it.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// The port's name in the switch.
    pub(crate) port: String,
    /// Its name in the recording.
    pub(crate) name: String,
    /// What it is, for a person.
    pub(crate) about: String,
    /// What a frame that the port received is called, then one that it sent.
    pub(crate) ways: [String; 2],
}

/// Runs the verb.
pub(crate) fn run(args: &Capture, out: &mut Output) -> Result<Exit, Failure> {
    if let Some(pod) = &args.pod {
        return of_pod(args, pod, out);
    }
    let labels = args.ports.split(',').map(|port| Label {
        port: port.to_owned(),
        name: port.to_owned(),
        about: format!("port {port} of the switch"),
        ways: ["in", "out"].map(str::to_owned),
    });
    record(&Client::connect(&args.target)?, &labels.collect::<Vec<_>>(), &args.how, out)
}

/// Records what crosses a Pod's port. The only word that may stand there is the match.
fn of_pod(args: &Capture, pod: &str, out: &mut Output) -> Result<Exit, Failure> {
    if !args.how.matches.is_empty() {
        return Err(Failure::usage("ports, or --pod: not both").next(format!("sluice capture --pod {pod} [MATCH]")));
    }
    let client = Client::connect_for(&args.target, Some(pod))?;
    let port = kube::find_pod(&client, pod)?.spec.unwrap_or_default().port;
    let name = pod.strip_prefix("pod:").unwrap_or(pod).to_owned();
    let about = format!("port {port} of the switch, of the Pod {name}");
    let label = Label { port, name, about, ways: ["from", "to"].map(str::to_owned) };
    let how = How { matches: args.ports.clone(), ..args.how.clone() };
    record(&client, &[label], &how, out)
}

/// A packet of a recording: a frame, or what was in it.
struct Packet<'a> {
    frame: &'a CapturedFrame,
    bytes: &'a [u8],
    len: u32,
}

/// What was recorded so far.
#[derive(Default, Serialize)]
struct Tally {
    packets: u64,
    lost: u64,
    super_frames: u64,
    #[serde(skip)]
    tunnels: BTreeSet<&'static str>,
}

/// Where packets go.
enum Sink {
    File { writer: Writer, path: String },
    Lines,
    Json,
}

/// Records what crosses the ports until there is enough, or Ctrl-C.
///
/// # Errors
/// What the switch says, and what cannot be written.
pub(crate) fn record(client: &Client, labels: &[Label], how: &How, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let mut sink = match &how.write {
        Some(path) => Sink::File { writer: Writer::create(path, labels)?, path: path.clone() },
        None if format == Format::Json => Sink::Json,
        None => Sink::Lines,
    };
    let request = CaptureRequest {
        ports: labels.iter().map(|label| label.port.clone()).collect(),
        r#match: how.matches.clone(),
        snaplen: how.snaplen,
    };
    let mut stream = client.call(client.captures().capture(request))?;
    let mut tally = Tally::default();
    let most = how.count.unwrap_or(u64::MAX);
    let mut end = client.end_after(how.time)?;
    let mut begun = false;
    while tally.packets < most
        && let Some(reply) = client.next_before(&mut stream, &mut end)?
    {
        if !begun {
            begun = true;
            let names: Vec<_> = labels.iter().map(|label| label.name.as_str()).collect();
            out.talk(format!("capturing {}; Ctrl-C ends it", names.join(", ")))?;
        }
        take(&reply, labels, how, &mut tally, &mut sink, out)?;
        sink.flush(out)?;
    }
    sink.finish(&tally, how.inner, format, out)
}

/// Takes the packets of a reply.
fn take(
    reply: &CaptureReply,
    labels: &[Label],
    how: &How,
    tally: &mut Tally,
    sink: &mut Sink,
    out: &mut Output,
) -> Result<(), Failure> {
    let most = how.count.unwrap_or(u64::MAX);
    tally.lost = reply.lost;
    for frame in &reply.frames {
        let Some(label) = labels.get(frame.port as usize) else { continue };
        let found = inner::open(frame);
        tally.tunnels.extend(found.as_ref().map(|(kind, _)| shown(*kind)));
        let packets: Vec<_> = match &found {
            Some((_, packets)) if how.inner => {
                packets.iter().map(|bytes| Packet { frame, bytes, len: bytes.len() as u32 }).collect()
            }
            _ => vec![Packet { frame, bytes: &frame.frame, len: frame.frame_len }],
        };
        for packet in packets.into_iter().take(usize::try_from(most - tally.packets).unwrap_or(usize::MAX)) {
            tally.packets += 1;
            tally.super_frames += u64::from(packet.is_super_frame());
            sink.put(&packet, label, out)?;
        }
        if tally.packets == most {
            break;
        }
    }
    Ok(())
}

/// A tunnel's kind as people write it.
fn shown(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Vxlan => "VXLAN",
        TunnelKind::Geneve => "Geneve",
        TunnelKind::Gre => "GRE",
        other => other.name(),
    }
}

impl Packet<'_> {
    /// Whether it is to be cut into several when it leaves the machine.
    fn is_super_frame(&self) -> bool {
        // What was in a tunnel has been cut.
        self.frame.segment_len > 0 && self.bytes.len() == self.frame.frame.len()
    }

    fn way<'a>(&self, label: &'a Label) -> &'a str {
        &label.ways[usize::from(self.frame.direction() == Direction::Sent)]
    }

    /// Its headers, as flows are written.
    fn headers(&self) -> String {
        let mut key = PacketKey::ZERO;
        extract(self.bytes, 0, &mut key);
        show_packet(&FlowKey::from(&key), Names::NONE).to_string()
    }
}

/// A packet as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    time_unix_ns: u64,
    port: &'a str,
    way: &'a str,
    len_bytes: u32,
    segment_bytes: u32,
    packet: String,
}

impl Sink {
    fn put(&mut self, packet: &Packet<'_>, label: &Label, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::File { writer, .. } => writer.put(packet)?,
            Self::Lines => {
                let time = super::events::time_of_day(packet.frame.time_unix_ns);
                let (name, way, len) = (&label.name, packet.way(label), packet.len);
                out.line(format!("{time}  {name}  {way}  {len} bytes  {}", packet.headers()))?;
            }
            Self::Json => out.json(&Line {
                time_unix_ns: packet.frame.time_unix_ns,
                port: &label.port,
                way: packet.way(label),
                len_bytes: packet.len,
                segment_bytes: if packet.is_super_frame() { packet.frame.segment_len } else { 0 },
                packet: packet.headers(),
            })?,
        }
        Ok(())
    }

    /// What was written can be read by others.
    fn flush(&mut self, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::File { writer, .. } => writer.flush(),
            Self::Lines | Self::Json => Ok(out.flush()?),
        }
    }

    /// Says what was recorded.
    fn finish(self, tally: &Tally, inner: bool, format: Format, out: &mut Output) -> Result<Exit, Failure> {
        let said = tally.said(inner);
        match self {
            Self::File { path, .. } if path == "-" => out.talk(said)?,
            Self::File { .. } if format == Format::Json => out.json(tally)?,
            Self::File { path, .. } => {
                let notes = tally.notes(inner);
                let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
                out.line(format!("{said} -> {path}{notes}"))?;
            }
            Self::Lines | Self::Json => out.talk(said)?,
        }
        Ok(Exit::Yes)
    }
}

impl Tally {
    fn said(&self, inner: bool) -> String {
        let what = if inner { "inner packet" } else { "packet" };
        let plural = if self.packets == 1 { "" } else { "s" };
        format!("{} {what}{plural}, {} lost by capture", self.packets, self.lost)
    }

    /// What a reader of the file should know.
    fn notes(&self, inner: bool) -> Vec<String> {
        let tunnels = self.tunnels.iter().copied().collect::<Vec<_>>().join(" and ");
        let mut notes = Vec::new();
        match (self.tunnels.is_empty(), inner) {
            (false, false) => notes.push(format!("outer {tunnels}; --inner strips it")),
            (false, true) => notes.push(format!("outer {tunnels} stripped")),
            (true, _) => {}
        }
        if self.super_frames > 0 {
            let plural = if self.super_frames == 1 { "" } else { "s" };
            notes.push(format!("{} super-frame{plural} written whole", self.super_frames));
        }
        notes
    }
}
