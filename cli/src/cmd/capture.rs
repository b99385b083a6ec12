//! `sluice capture`: what crosses ports of a running switch and what becomes of it, as lines or as a pcapng file.
//!
//! The same recording serves `sluice lab capture`, which knows ports by the names of links and nodes, and
//! [`extcap`](super::extcap), which Wireshark calls.

mod file;
mod inner;
mod sink;
mod wireshark;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::matching;
use crate::output::{Exit, Format, Output};
use clap::{Args, ValueEnum};
use file::Writer;
use sink::{Sink, Tally};
use sluice_proto::v1::capture_request::Point as At;
use sluice_proto::v1::{CaptureRequest, ListPortsRequest};
use sluice_switch::port::{parse_time, show_time};
use std::time::{Duration, Instant};
use wireshark::Wireshark;

/// What ends a capture when nothing else is said: so many packets, or so much time.
const BY_DEFAULT: (u64, Duration) = (1000, Duration::from_secs(60));
/// Stands for all ports.
pub(crate) const ALL: &str = "all";

/// Arguments of `sluice capture`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice capture tap1                           one line a packet, with what became of it
  sluice capture tap1,tap2 -w both.pcapng       into a file, as tcpdump and Wireshark read it
  sluice capture tap1 'tcp,tcp_dst=80' -c 20    20 packets that this matches
  sluice capture all --dropped                  what is dropped at any port: why, and by whose rule
  sluice capture tap1 -c 0 -t 0 -w long.pcapng  until Ctrl-C
  sluice capture tap1 --wireshark               live
  sluice capture tap1 -w - | wireshark -k -i -  the same by hand, or by ssh from another machine
  sluice capture --pod shop/web-7f9 'tcp'       a Pod's port, on its node of a cluster
In a file the comment of each packet says its verdict, to be filtered by:
  tshark -r both.pcapng -Y 'frame.comment contains \"verdict=drop reason=rule_drop\"'
  tshark -r both.pcapng -Y 'frame.comment contains \"np:shop/db\"'    the owner of a rule on its way
A MATCH is a list of OVS's words, all of which have to be true: 'tcp,nw_src=10.0.0.0/8'. Besides:
  src=h1 dst=10.0.0.0/8 host=h2    who sends it, whom it is for, or either: an address, a network,
                                   a node of the lab, NAMESPACE/POD or svc:NAMESPACE/SERVICE
  sport=80 dport=80 port=80        of TCP, UDP or SCTP
  '!icmp' '!dport=22'              what is not so; quoted, since shells have a use for !
A super-frame is written whole, as it crossed, with a second comment that says so.
As Wireshark's extcap, which lists switches and labs as interfaces:
  ln -s \"$(which sluice)\" ~/.local/lib/wireshark/extcap/sluice-extcap
  (before Wireshark 4.2: ~/.config/wireshark/extcap/sluice-extcap)")]
pub(crate) struct Capture {
    /// The ports, with commas between, or `all`; with --pod the MATCH
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
    /// Only packets that this matches, in the words of `sluice capture --help`
    #[arg(value_name = "MATCH", default_value = "", hide_default_value = true)]
    matches: String,
    /// Only packets that are dropped
    #[arg(long)]
    dropped: bool,
    /// Where to look: at what the ports receive (in), at what they send (out), or both
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = Point::Both)]
    point: Point,
    /// Write a pcapng file; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<String>,
    /// Open Wireshark, and show there what comes
    #[arg(long, conflicts_with = "write")]
    wireshark: bool,
    /// End after this many packets, 0 for never [default: 1000; never in Wireshark]
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// End after this time, such as 500ms, 30s or 10m, 0 for never [default: 60s; never in Wireshark]
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Keep this many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    snaplen: u32,
    /// Take off outer headers of VXLAN, Geneve, GRE and IP tunnels
    #[arg(long)]
    inner: bool,
    /// Say only what is wrong.
    #[arg(skip)]
    quiet: bool,
}

/// Where packets are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Point {
    In,
    Out,
    #[default]
    Both,
}

fn time(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let whole = |unit: char, scale: u64| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(scale).filter(|seconds| *seconds <= 86_400).map(Duration::from_secs)
    };
    let time = parse_time(text).or_else(|| whole('s', 1)).or_else(|| whole('m', 60)).or_else(|| whole('h', 3600));
    time.ok_or_else(|| "expected a time like 500ms or 30s or 10m, up to a day, or 0".to_owned())
}

impl How {
    /// Without an end, into `path`, which another program reads.
    pub(crate) fn live(matches: String, (dropped, point, inner): (bool, Point, bool), path: String) -> Self {
        Self {
            matches,
            dropped,
            point,
            write: Some(path),
            wireshark: false,
            count: Some(0),
            time: Some(Duration::ZERO),
            snaplen: 0,
            inner,
            quiet: true,
        }
    }

    /// After how many packets and how much time to end; `None` for never.
    fn bounds(&self) -> (Option<u64>, Option<Duration>) {
        let (count, time) = if self.wireshark { (0, Duration::ZERO) } else { BY_DEFAULT };
        let (count, time) = (self.count.unwrap_or(count), self.time.unwrap_or(time));
        ((count > 0).then_some(count), (!time.is_zero()).then_some(time))
    }

    fn talk(&self, text: String, out: &mut Output) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { Ok(out.talk(text)?) }
    }

    fn point(&self) -> At {
        match self.point {
            Point::Both => At::Unspecified,
            Point::In => At::In,
            Point::Out => At::Out,
        }
    }
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
    let client = Client::connect(&args.target)?;
    let labels = labels(&client, &args.ports)?;
    record(&client, &labels, &args.how, out)
}

/// The ports that are meant, with commas between, or all of a switch.
///
/// # Errors
/// The switch does not say which ports it has.
pub(crate) fn labels(client: &Client, ports: &str) -> Result<Vec<Label>, Failure> {
    let names = if ports == ALL { all(client)? } else { ports.split(',').map(str::to_owned).collect() };
    let label = |port: String| Label {
        name: port.clone(),
        about: format!("port {port} of the switch"),
        ways: ["in", "out"].map(str::to_owned),
        port,
    };
    Ok(names.into_iter().map(label).collect())
}

/// All ports of a switch but its patches, which are slower while they are looked at.
///
/// # Errors
/// The switch does not answer.
pub(crate) fn all(client: &Client) -> Result<Vec<String>, Failure> {
    let parts = client.collect(client.ports().list_ports(ListPortsRequest::default()))?;
    let specs = parts.into_iter().flat_map(|part| part.ports).filter_map(|port| port.spec);
    Ok(specs.filter(|spec| spec.r#type != "patch").map(|spec| spec.name).collect())
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

/// Records what crosses the ports until there is enough, or Ctrl-C.
///
/// # Errors
/// What the switch says, and what cannot be written.
pub(crate) fn record(client: &Client, labels: &[Label], how: &How, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let mut wireshark = None;
    let mut sink = match &how.write {
        _ if how.wireshark => {
            let (opened, to) = Wireshark::open()?;
            wireshark = Some(opened);
            Sink::File { writer: Writer::pipe("Wireshark", to, labels)?, path: "Wireshark".to_owned() }
        }
        Some(path) => Sink::File { writer: Writer::create(path, labels)?, path: path.clone() },
        None if format == Format::Json => Sink::Json,
        None => Sink::Lines,
    };
    let words = matching::read(&how.matches, client)?;
    let request = CaptureRequest {
        ports: labels.iter().map(|label| label.port.clone()).collect(),
        r#match: words.plain(),
        conditions: words.conditions()?,
        snaplen: how.snaplen,
        point: how.point().into(),
        dropped: how.dropped,
    };
    let mut stream = client.call(client.captures().capture(request))?;
    let mut tally = Tally::of(labels.len());
    let (count, time) = how.bounds();
    let most = count.unwrap_or(u64::MAX);
    let mut end = client.end_after(time)?;
    if let Some(wireshark) = wireshark {
        end = wireshark.end_with(end);
    }
    let mut begun = None;
    while tally.packets < most
        && let Some(reply) = client.next_before(&mut stream, &mut end)?
    {
        if begun.is_none() {
            begun = Some(Instant::now());
            let names: Vec<_> = labels.iter().map(|label| label.name.as_str()).collect();
            how.talk(format!("capturing {}{}; Ctrl-C ends it", names.join(", "), bounded(count, time)), out)?;
        }
        tally.take(&reply, labels, (how.inner, most), &mut sink, out)?;
        sink.flush(out)?;
    }
    if how.time.is_none() && begun.zip(time).is_some_and(|(begun, time)| begun.elapsed() >= time) {
        out.talk(format!("ended after {} s; -t 0 goes on until Ctrl-C", BY_DEFAULT.1.as_secs()))?;
    } else if how.count.is_none() && tally.packets == most {
        out.talk(format!("ended after {} packets; -c 0 goes on until Ctrl-C", BY_DEFAULT.0))?;
    }
    sink.finish(&tally, how, format, out)
}

/// What ends a capture by itself, for a person.
fn bounded(count: Option<u64>, time: Option<Duration>) -> String {
    let count = count.map(|count| format!("{count} packet{}", if count == 1 { "" } else { "s" }));
    let bounds: Vec<_> = count.into_iter().chain(time.map(show_time)).collect();
    if bounds.is_empty() { String::new() } else { format!(" for {} at most", bounds.join(" or ")) }
}
