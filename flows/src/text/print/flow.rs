//! Printing flows as `dump-flows` does.

use super::action::table;
use super::{List, matching, show_actions};
use crate::rule::{DEFAULT_PRIORITY, FlowSpec, Millis, Rule, TableId};
use crate::text::Names;
use std::fmt;

/// The figures of a flow in a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Milliseconds since it was added.
    pub duration_ms: u64,
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted.
    pub bytes: u64,
    /// Seconds since its last packet, or since it was added.
    pub idle_age: u64,
    /// Seconds since it was last modified, or added.
    pub hard_age: u64,
}

impl FlowStats {
    /// The figures of `rule` at `now`.
    pub fn of(rule: &Rule, now: Millis) -> Self {
        Self {
            duration_ms: now.since(rule.created),
            packets: rule.stats.packets(),
            bytes: rule.stats.bytes(),
            idle_age: now.since(rule.stats.used().max(rule.created)) / 1000,
            hard_age: now.since(rule.modified) / 1000,
        }
    }
}

/// A flow as `dump-flows` prints it, without the blank that `ovs-ofctl` begins its lines with; without `stats` as
/// `dump-flows --no-stats` does.
///
/// The owner is not in it: this is OVS's language and no more.
pub fn show_flow<'a>(spec: &'a FlowSpec, stats: Option<FlowStats>, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        if stats.is_some() || spec.cookie != 0 {
            write!(f, "cookie={:#x}, ", spec.cookie)?;
        }
        if let Some(stats) = stats {
            write!(f, "duration={}s, ", seconds(stats.duration_ms))?;
        }
        if stats.is_some() || spec.table != TableId::FIRST || names.table_name(spec.table).is_some() {
            write!(f, "table={}, ", table(spec.table, names))?;
        }
        if let Some(stats) = stats {
            write!(f, "n_packets={}, n_bytes={}, ", stats.packets, stats.bytes)?;
        }
        write_timeouts(f, spec)?;
        if let Some(stats) = stats {
            write!(f, "idle_age={}, ", stats.idle_age)?;
            if stats.hard_age != stats.duration_ms / 1000 {
                write!(f, "hard_age={}, ", stats.hard_age)?;
            }
        }
        let any = spec.matches.is_any() && spec.priority == DEFAULT_PRIORITY;
        let mut list = List::new(f);
        if spec.priority != DEFAULT_PRIORITY {
            list.item(format_args!("priority={}", spec.priority))?;
        }
        matching::write(&mut list, &spec.matches.value(), &spec.matches.mask(), matching::Reader::Flow, names)?;
        write!(f, "{}actions={}", if any { "" } else { " " }, show_actions(&spec.actions, names))
    })
}

fn write_timeouts(f: &mut fmt::Formatter<'_>, spec: &FlowSpec) -> fmt::Result {
    if spec.idle_timeout != 0 {
        write!(f, "idle_timeout={}, ", spec.idle_timeout)?;
    }
    if spec.hard_timeout != 0 {
        write!(f, "hard_timeout={}, ", spec.hard_timeout)?;
    }
    let flags = [
        (spec.send_flow_rem, "send_flow_rem "),
        (spec.no_packet_counts, "no_packet_counts "),
        (spec.no_byte_counts, "no_byte_counts "),
    ];
    for (_, word) in flags.iter().filter(|(set, _)| *set) {
        f.write_str(word)?;
    }
    if spec.importance != 0 {
        write!(f, "importance={}, ", spec.importance)?;
    }
    Ok(())
}

/// Milliseconds as seconds, with three decimals unless it is whole seconds.
fn seconds(ms: u64) -> impl fmt::Display {
    fmt::from_fn(move |f| match (ms / 1000, ms % 1000) {
        (whole, 0) => write!(f, "{whole}"),
        (whole, rest) => write!(f, "{whole}.{rest:03}"),
    })
}
