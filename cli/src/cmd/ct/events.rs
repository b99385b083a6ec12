//! `sluice ct events`.

use super::chosen;
use super::show::{Row, label_text, mark_text, nat_text, proto_name, tuple_text};
use crate::client::{Client, Target};
use crate::cmd::events::time_of_day;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::connection_event::Kind;
use sluice_proto::v1::{Connection, WatchConnectionsRequest};

/// Arguments of `sluice ct events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct events -f                      what happens to connections, until Ctrl-C
  sluice ct events -f zone=5,tcp           to some of them
  sluice ct events -f -o json              one JSON object a line
  sluice ct events -n 1                    wait for the next event and end")]
pub(super) struct Events {
    /// Of which connections, in the words of `sluice ct --help`; of all if not given
    #[arg(value_name = "MATCH")]
    matches: Vec<String>,
    /// Go on until interrupted
    #[arg(short, long, required_unless_present = "count")]
    follow: bool,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "follow")]
    count: Option<usize>,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Line {
    sequence: u64,
    time_unix_ns: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Row>,
}

/// Runs the verb.
pub(super) fn run(args: &Events, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let request = WatchConnectionsRequest { filter: chosen(&args.matches, &client)? };
    let mut stream = client.call(client.connections().watch_connections(request))?;
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        let Some(event) = client.next(&mut stream)? else { break };
        left -= 1;
        let mut connection = event.connection.unwrap_or_default();
        let mut line = Line {
            sequence: event.sequence,
            time_unix_ns: event.time_unix_ns,
            event: "unknown",
            reason: None,
            count: None,
            connection: None,
        };
        match event.kind {
            Some(Kind::Added(_)) => line.event = "new",
            Some(Kind::Replied(_)) => line.event = "replied",
            Some(Kind::Marked(marks)) => {
                line.event = "marked";
                (connection.mark, connection.label) = (marks.mark, marks.label);
            }
            Some(Kind::Ended(ended)) => (line.event, line.reason) = ("ended", Some(ended.reason)),
            Some(Kind::Lost(lost)) => (line.event, line.count) = ("lost", Some(lost.count)),
            None => {}
        }
        if format == Format::Json {
            line.connection = line.count.is_none().then(|| connection.into());
            out.json(&line)?;
        } else {
            out.line(text(&line, &connection))?;
        }
        out.flush()?;
    }
    Ok(Exit::Yes)
}

/// The event as a line for a person.
fn text(line: &Line, c: &Connection) -> String {
    let time = time_of_day(line.time_unix_ns);
    if let Some(count) = line.count {
        return format!("{time}  lost  {count} events, read too slowly");
    }
    let tuple = c.original.as_ref().map(tuple_text).unwrap_or_default();
    let mut out = format!("{time}  {:<7}  zone {}  {}  {tuple}", line.event, c.zone, proto_name(c.proto));
    let named = |name: &str, text: String| if text.is_empty() { text } else { format!("{name} {text}") };
    let state = if line.event == "ended" { String::new() } else { c.state.clone() };
    let counts = || {
        let (sent, answered) = (c.original_count.unwrap_or_default(), c.reply_count.unwrap_or_default());
        format!("{}/{} packets", sent.packets, answered.packets)
    };
    let reason = line.reason.as_ref().map(|reason| format!("{reason} after {}", counts())).unwrap_or_default();
    for detail in [nat_text(c), state, named("mark", mark_text(c)), named("label", label_text(c)), reason] {
        if !detail.is_empty() {
            out.push_str("  ");
            out.push_str(&detail);
        }
    }
    out
}
