//! `sluice log`: which connections policies accept and which packets they drop, as it happens, by the names that Kubernetes has.
//!
//! Nothing is done for it on a packet's way. Accepted connections are what the connection tracker tells of new ones, whose labels
//! have the rules that accepted them; drops are what the switch counts of them anyway, read once a second, with the last packet of each
//! port and rule for all of that second. So a line of drops may stand for several senders behind one port.
//!
//! # Limits
//! A reader that is too slow loses records, which one line counts; `--rate` bounds the lines of a second likewise. An accepted connection
//! is told by each node that it begins or ends on, with the rules of that end. What no rule was asked about is not told.

mod names;
mod record;
mod source;

use crate::client::{Client, Reach, Target};
use crate::cmd::events::time_of_day;
use crate::cmd::policy::owner;
use crate::failure::Failure;
use crate::kube::Cluster;
use crate::output::{Exit, Format, Output};
use clap::{Args, ValueEnum};
use names::Names;
use record::{Record, Verdict};
use serde_json::json;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Arguments of `sluice log`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice log -f                         what policies decide that are annotated sluice.dev/log
  sluice log -f --all                   what any policy decides
  sluice log -f --policy shop/db        what one decides
  sluice log -f --pod shop/web-7f9      of one Pod
  sluice log -f --all --verdict drop    only what is dropped
  sluice log -n 1 --all -o json         wait for the next record and end

A line is: time, from, to, protocol, ALLOW or DROP, the rules, packets. Drops are added up for a
second, by port and rule, with the last packet's ends.")]
pub(crate) struct Log {
    /// Go on until interrupted
    #[arg(short, long, required_unless_present = "count")]
    follow: bool,
    /// End after this many records
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "follow")]
    count: Option<usize>,
    /// What this policy decides: NS/NAME, cnp:NAME, anp:NAME or banp:NAME
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// What any policy decides, annotated or not; so it is where no API server is asked
    #[arg(long, conflicts_with = "policy")]
    all: bool,
    /// To or from this Pod: NS/POD
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// Only what is allowed, or what is dropped
    #[arg(long, value_enum, value_name = "VERDICT")]
    verdict: Option<Wanted>,
    /// At most so many lines a second; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 500)]
    rate: u32,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    Allow,
    #[value(alias = "deny")]
    Drop,
}

/// Records that wait to be told.
const WAITING: usize = 4096;
/// How often drops are read.
const EVERY: Duration = Duration::from_secs(1);

/// What a node tells.
enum Told {
    Record(Record),
    /// So many were lost on the way here.
    Lost(u64),
    /// It tells no more, and why.
    Ended(Option<String>, Failure),
}

/// Runs the verb.
pub(crate) fn run(args: &Log, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let policy = args.policy.as_deref().map(owner::named).transpose()?;
    let (sender, receiver) = sync_channel(WAITING);
    let (nodes, names) = start(args, sender)?;
    Teller { args, policy, json: format == Format::Json, names, second: 0, lines: 0, lost: 0 }
        .tell(&receiver, nodes, out)
}

/// Starts to listen to each switch that is meant, in threads that end with the process. Says how many there are, and who is who.
fn start(args: &Log, sender: SyncSender<Told>) -> Result<(usize, Names), Failure> {
    let follow = |node: Option<String>, connect: Box<dyn FnOnce() -> Result<Client, Failure> + Send>| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let ended = connect().and_then(|client| source::follow(&client, node.as_deref(), &sender));
            if let Err(failure) = ended {
                // Nobody listens any more if this is not taken.
                _ = sender.send(Told::Ended(node, failure));
            }
        });
    };
    match args.target.reach()? {
        Reach::Socket(socket) => {
            let names = Names::of_switch(Client::connect_to(socket.clone())?)?;
            follow(None, Box::new(move || Client::connect_to(socket)));
            Ok((1, names))
        }
        Reach::Cluster(cluster) => {
            let members = cluster.chosen(args.target.cluster.node.as_deref())?;
            let names = Names::of_cluster(cluster.clone())?;
            let count = members.len();
            for member in members {
                let cluster: Cluster = cluster.clone();
                let node = Some(member.node.clone());
                follow(node, Box::new(move || cluster.connect(member.ready()?)));
            }
            Ok((count, names))
        }
    }
}

/// What is told, and how much of it.
struct Teller<'a> {
    args: &'a Log,
    policy: Option<String>,
    json: bool,
    names: Names,
    /// The second that is counted, since the beginning.
    second: u64,
    /// Lines in it.
    lines: u32,
    /// Records that were not told.
    lost: u64,
}

impl Teller<'_> {
    fn tell(mut self, receiver: &Receiver<Told>, mut nodes: usize, out: &mut Output) -> Result<Exit, Failure> {
        let begin = Instant::now();
        let mut left = self.args.count.unwrap_or(usize::MAX);
        let all = nodes;
        let mut last = None;
        while left > 0 && nodes > 0 {
            let told = receiver.recv_timeout(EVERY);
            let second = begin.elapsed().as_secs();
            if second != self.second {
                (self.second, self.lines) = (second, 0);
                self.tell_lost(out)?;
            }
            match told {
                Ok(Told::Record(record)) => left -= usize::from(self.record(&record, out)?),
                Ok(Told::Lost(count)) => self.lost = self.lost.saturating_add(count),
                Ok(Told::Ended(node, failure)) => {
                    nodes -= 1;
                    if let Some(node) = node {
                        out.talk(format!("{node}: {failure}"))?;
                    }
                    last = Some(failure);
                }
                // Nothing for a second.
                Err(_) => {}
            }
        }
        self.tell_lost(out)?;
        match last {
            Some(failure) if nodes == 0 => Err(failure),
            Some(_) => {
                out.talk(format!("{nodes}/{all} nodes answered"))?;
                Ok(Exit::Partial)
            }
            None => Ok(Exit::Yes),
        }
    }

    /// Tells a record if it is wanted; whether it did.
    fn record(&mut self, record: &Record, out: &mut Output) -> Result<bool, Failure> {
        let verdict = match record.verdict {
            Verdict::Allow => Wanted::Allow,
            Verdict::Drop => Wanted::Drop,
        };
        if self.args.verdict.is_some_and(|wanted| wanted != verdict) {
            return Ok(false);
        }
        let policies: Vec<String> = record.by.iter().flat_map(|owner| owner::policies(owner)).collect();
        let is_wanted = match &self.policy {
            Some(policy) => policies.contains(policy),
            None => self.args.all || self.names.is_logged(&policies),
        };
        if !is_wanted {
            return Ok(false);
        }
        let (from, to) = (self.names.of(record.source), self.names.of(record.destination));
        let pod = self.args.pod.as_ref().map(|pod| pod.strip_prefix("pod:").unwrap_or(pod));
        if pod.is_some_and(|pod| from != pod && to != pod) {
            return Ok(false);
        }
        if self.args.rate > 0 && self.lines >= self.args.rate {
            self.lost = self.lost.saturating_add(1);
            return Ok(false);
        }
        self.lines += 1;
        if self.json {
            out.json(&record.json(&from, &to))?;
        } else {
            out.line(record.line(&from, &to))?;
        }
        out.flush()?;
        Ok(true)
    }

    /// Tells in one line what was lost since the last such line.
    fn tell_lost(&mut self, out: &mut Output) -> Result<(), Failure> {
        let lost = std::mem::take(&mut self.lost);
        if lost == 0 {
            return Ok(());
        }
        if self.json {
            out.json(&json!({ "lost": lost }))?;
        } else {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            out.line(format!("{}  lost  {lost} records: they came too fast", time_of_day(now)))?;
        }
        out.flush()?;
        Ok(())
    }
}
