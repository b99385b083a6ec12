//! `sluice events`.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_proto::v1::{Event, FlowRemoved, WatchEventsRequest, event};

/// Arguments of `sluice events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice events -f                who changes what, as it happens, until Ctrl-C
  sluice events -f -o json        one JSON object a line
  sluice events -n 1              wait for the next event and end")]
pub(crate) struct Events {
    /// Go on until interrupted
    #[arg(short, long, required_unless_present = "count")]
    follow: bool,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "follow")]
    count: Option<usize>,
    /// Only events of this bridge
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    bridge: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Line {
    sequence: u64,
    time_unix_ns: u64,
    bridge: String,
    event: &'static str,
    #[serde(flatten)]
    data: Value,
}

/// Runs the verb.
pub(crate) fn run(args: &Events, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let mut stream = client.call(client.events().watch_events(WatchEventsRequest { bridge: args.bridge.clone() }))?;
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        let Some(event) = client.next(&mut stream)? else { break };
        left -= 1;
        let (name, text, data) = describe(&event);
        match format {
            Format::Json => out.json(&Line {
                sequence: event.sequence,
                time_unix_ns: event.time_unix_ns,
                bridge: event.bridge,
                event: name,
                data,
            })?,
            _ => {
                let bridge = if event.bridge.is_empty() { "-" } else { &event.bridge };
                out.line(format!("{}  {bridge}  {name}  {text}", time_of_day(event.time_unix_ns)).trim_end())?;
            }
        }
        out.flush()?;
    }
    Ok(Exit::Yes)
}

/// Time of day in UTC, to the millisecond.
pub(super) fn time_of_day(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000;
    let s = ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}Z", s / 3600 % 24, s / 60 % 60, s % 60, ms % 1000)
}

/// Name, text and data of an event.
fn describe(event: &Event) -> (&'static str, String, Value) {
    use event::Kind;
    match &event.kind {
        Some(Kind::BridgeAdded(_)) => ("bridge_added", String::new(), json!({})),
        Some(Kind::BridgeRemoved(_)) => ("bridge_removed", String::new(), json!({})),
        Some(Kind::PortAdded(p)) => {
            ("port_added", format!("{} ({})", p.port, p.number), json!({"port": p.port, "number": p.number}))
        }
        Some(Kind::PortRemoved(p)) => {
            ("port_removed", format!("{} ({})", p.port, p.number), json!({"port": p.port, "number": p.number}))
        }
        Some(Kind::PortChanged(p)) => {
            let state = match (p.gone, p.up) {
                (true, _) => "its device is gone",
                (false, true) => "up",
                (false, false) => "down",
            };
            let data = json!({"port": p.port, "number": p.number, "up": p.up, "gone": p.gone});
            ("port_changed", format!("{} ({}) {state}", p.port, p.number), data)
        }
        Some(Kind::FlowsChanged(f)) => {
            let data = json!({
                "added": f.added, "modified": f.modified, "deleted": f.deleted,
                "model_generation": f.model_generation,
            });
            ("flows_changed", format!("{} added, {} modified, {} deleted", f.added, f.modified, f.deleted), data)
        }
        Some(Kind::FlowRemoved(removed)) => flow(removed),
        Some(Kind::MacLearned(m)) => {
            let data = json!({"mac": m.mac, "vlan": m.vlan, "port": m.port, "moved": m.moved});
            let how = if m.moved { " (moved)" } else { "" };
            ("mac_learned", format!("{} vlan {} at {}{how}", m.mac, m.vlan, m.port), data)
        }
        Some(Kind::MacAged(m)) => {
            ("mac_aged", format!("{} vlan {}", m.mac, m.vlan), json!({"mac": m.mac, "vlan": m.vlan, "port": m.port}))
        }
        Some(Kind::AttachmentsChanged(c)) => {
            ("attachments_changed", format!("of network {}", c.network), json!({"network": c.network}))
        }
        Some(Kind::Lost(l)) => ("lost", format!("{} events, read too slowly", l.count), json!({"count": l.count})),
        None => ("unknown", "of a later version".to_owned(), json!({})),
    }
}

fn flow(removed: &FlowRemoved) -> (&'static str, String, Value) {
    let f = removed.flow.clone().unwrap_or_default();
    let comma = if f.r#match.is_empty() { "" } else { "," };
    let text = format!(
        "table={},priority={}{comma}{} of {}: {}, {} packets",
        f.table, f.priority, f.r#match, f.owner, removed.reason, f.packets
    );
    let data = json!({
        "reason": removed.reason, "table": f.table, "priority": f.priority, "match": f.r#match,
        "actions": f.actions, "owner": f.owner, "packets": f.packets, "bytes": f.bytes,
    });
    ("flow_removed", text, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_wraps_at_midnight() {
        assert_eq!(time_of_day(86_400_000_000_000 + 3_723_004_000_000), "01:02:03.004Z");
    }
}
