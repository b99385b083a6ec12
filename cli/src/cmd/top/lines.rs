//! The lines of a view: words and counters of two samples, as people and programs are shown them.

use super::Tab;
use super::sample::{Counted, Packet, Sample};
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::collections::HashMap;

/// A column of a view.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Its name in JSON, with its unit.
    pub(super) key: &'static str,
    of: Of,
}

/// What stands in a column.
#[derive(Clone, Copy)]
enum Of {
    /// A word, by its place.
    Word(usize),
    /// A counter as it is, by its place.
    Total(usize),
    /// By how much a counter grew in a second.
    Rate(usize),
    /// The same of bytes, in bits.
    Bits(usize),
    /// Of microseconds: their share of the time that went by, in per cent.
    Busy(usize),
}

/// What stands in a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Word(String),
    Number(f64),
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) values: Vec<Value>,
    /// A packet to trace.
    pub(super) packet: Option<Packet>,
}

const fn word(title: &'static str, key: &'static str, at: usize) -> Column {
    Column { title, key, of: Of::Word(at) }
}
const fn total(title: &'static str, key: &'static str, at: usize) -> Column {
    Column { title, key, of: Of::Total(at) }
}
const fn rate(title: &'static str, key: &'static str, at: usize) -> Column {
    Column { title, key, of: Of::Rate(at) }
}
const fn bits(title: &'static str, key: &'static str, at: usize) -> Column {
    Column { title, key, of: Of::Bits(at) }
}

const PORTS: &[Column] = &[
    word("BRIDGE", "bridge", 0),
    word("NO", "no", 1),
    word("NAME", "name", 2),
    word("TYPE", "type", 3),
    word("STATE", "state", 4),
    rate("RX/s", "rx_packets_per_s", 0),
    bits("RX bit/s", "rx_bits_per_s", 1),
    rate("TX/s", "tx_packets_per_s", 2),
    bits("TX bit/s", "tx_bits_per_s", 3),
    rate("DROPS/s", "drops_per_s", 4),
];
const FLOWS: &[Column] = &[
    word("BRIDGE", "bridge", 0),
    word("TABLE", "table", 1),
    word("PRIO", "priority", 2),
    rate("PKTS/s", "packets_per_s", 0),
    bits("bit/s", "bits_per_s", 1),
    total("PKTS", "packets", 0),
    word("OWNER", "owner", 3),
    word("MATCH", "match", 4),
    word("ACTIONS", "actions", 5),
];
const DROPS: &[Column] = &[
    rate("PKTS/s", "packets_per_s", 0),
    total("PKTS", "packets", 0),
    word("REASON", "reason", 0),
    word("PORT", "port", 1),
    word("OWNER", "owner", 2),
    word("RULE", "rule", 3),
    word("LAST PACKET", "last_packet", 4),
];
const CONNECTIONS: &[Column] = &[
    word("PROTO", "protocol", 0),
    word("SOURCE", "source", 1),
    word("DESTINATION", "destination", 2),
    word("ANSWERS FROM", "answers_from", 3),
    word("STATE", "state", 4),
    rate("PKTS/s", "packets_per_s", 0),
    bits("bit/s", "bits_per_s", 1),
    total("PKTS", "packets", 0),
    word("ZONE", "zone", 5),
    word("OWNER", "owner", 6),
];
const WORKERS: &[Column] = &[
    word("WORKER", "worker", 0),
    Column { title: "BUSY %", key: "busy_percent", of: Of::Busy(1) },
    rate("PKTS/s", "packets_per_s", 0),
    rate("EXACT/s", "exact_hits_per_s", 2),
    rate("MEGA/s", "megaflow_hits_per_s", 3),
    rate("MISS/s", "misses_per_s", 4),
    rate("SLEEPS/s", "parks_per_s", 5),
    total("EXACT", "exact_entries", 6),
    total("MEGA", "megaflow_entries", 7),
];

impl Tab {
    /// All, in the order of their keys.
    pub(super) const ALL: [Self; 5] = [Self::Ports, Self::Flows, Self::Drops, Self::Connections, Self::Workers];

    /// What it is called.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ports => "Ports",
            Self::Flows => "Flows",
            Self::Drops => "Drops",
            Self::Connections => "Connections",
            Self::Workers => "Workers",
        }
    }

    /// Its columns.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Ports => PORTS,
            Self::Flows => FLOWS,
            Self::Drops => DROPS,
            Self::Connections => CONNECTIONS,
            Self::Workers => WORKERS,
        }
    }

    /// The column that it is sorted by at first, largest first.
    pub(super) const fn order(self) -> usize {
        match self {
            Self::Ports | Self::Connections => 6,
            Self::Flows => 3,
            Self::Drops => 0,
            Self::Workers => 1,
        }
    }
}

impl Column {
    /// Whether numbers stand in it.
    pub(super) const fn is_number(&self) -> bool {
        !matches!(self.of, Of::Word(_))
    }
}

impl Value {
    /// As people read it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Number(number) => short(*number),
        }
    }

    pub(super) fn json(&self) -> Json {
        match self {
            Self::Word(word) => word.as_str().into(),
            // More digits than a clock of microseconds gives are none.
            Self::Number(number) => ((number * 1000.0).round() / 1000.0).into(),
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Word(a), Self::Word(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => a.cmp(b),
            },
            (Self::Number(_), Self::Word(_)) => Ordering::Less,
            (Self::Word(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

/// A number in few digits: `0`, `12`, `3.4`, `12.3k`, `1.2M`.
fn short(number: f64) -> String {
    let (mut number, mut unit) = (number, "");
    for next in ["k", "M", "G", "T"] {
        if number < 1000.0 {
            break;
        }
        (number, unit) = (number / 1000.0, next);
    }
    if number.fract().abs() < 0.05 || number >= 100.0 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

/// The lines of a sample, with what has happened since another one of the same view.
pub(super) fn lines(before: Option<&Sample>, now: &Sample) -> Vec<Line> {
    let before = before.filter(|before| before.tab == now.tab);
    let seconds = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
    let known: HashMap<&str, &Counted> =
        before.into_iter().flat_map(|before| &before.rows).map(|row| (row.key.as_str(), row)).collect();
    let columns = now.tab.columns();
    let line = |row: &Counted| {
        let then = known.get(row.key.as_str());
        // What began meanwhile began at nothing; a counter that is smaller belongs to another thing of the same name.
        let grown = |at: usize| {
            let counter = |of: &Counted| of.counters.get(at).copied().unwrap_or_default();
            let since = then.map_or(0, |then| counter(then));
            if seconds > 0.0 { counter(row).saturating_sub(since) as f64 / seconds } else { 0.0 }
        };
        let value = |column: &Column| match column.of {
            Of::Word(at) => Value::Word(row.words.get(at).cloned().unwrap_or_default()),
            Of::Total(at) => Value::Number(row.counters.get(at).copied().unwrap_or_default() as f64),
            Of::Rate(at) => Value::Number(grown(at)),
            Of::Bits(at) => Value::Number(grown(at) * 8.0),
            Of::Busy(at) => Value::Number((grown(at) / 10_000.0).min(100.0)),
        };
        Line { values: columns.iter().map(value).collect(), packet: row.packet.clone() }
    };
    now.rows.iter().map(line).collect()
}

impl Line {
    /// Sorts by a column; those that are equal there by all other numbers, largest first, and then by words.
    pub(super) fn sort(lines: &mut [Self], column: usize, is_descending: bool) {
        lines.sort_by(|a, b| {
            let by = |at: usize| a.values.get(at).zip(b.values.get(at)).map_or(Ordering::Equal, |(a, b)| a.order(b));
            let first = if is_descending { by(column).reverse() } else { by(column) };
            let is_number = |at: &usize| matches!(a.values.get(*at), Some(Value::Number(_)));
            let numbers = (0..a.values.len()).filter(is_number).map(|at| by(at).reverse());
            let words = (0..a.values.len()).filter(|at| !is_number(at)).map(by);
            first.then_with(|| numbers.chain(words).find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
        });
    }

    /// Whether a word is in it, whatever its case.
    pub(super) fn has(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        self.values.iter().any(|value| matches!(value, Value::Word(text) if text.to_lowercase().contains(&word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::{GetStatsReply, GetStatusReply};
    use std::time::{Duration, Instant};

    fn sample(at: Instant, rows: &[(&str, [u64; 2])]) -> Sample {
        let row = |(name, counters): &(&str, [u64; 2])| Counted {
            key: (*name).to_owned(),
            words: vec!["br0".to_owned(), "0".to_owned(), "10".to_owned(), (*name).to_owned()],
            counters: counters.to_vec(),
            packet: None,
        };
        let rows = rows.iter().map(row).collect();
        Sample { at, tab: Tab::Flows, status: GetStatusReply::default(), stats: GetStatsReply::default(), rows }
    }

    fn rates(lines: &[Line]) -> Vec<(String, String)> {
        lines.iter().map(|line| (line.values[6].text(), line.values[3].text())).collect()
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let now = Instant::now();
        let before = sample(now, &[("a", [100, 1000]), ("gone", [7, 7]), ("again", [500, 0])]);
        let after = sample(now + Duration::from_secs(2), &[("a", [300, 3000]), ("new", [10, 0]), ("again", [3, 0])]);
        let lines = lines(Some(&before), &after);
        let of = |name: &str, rate: &str| (name.to_owned(), rate.to_owned());
        assert_eq!(rates(&lines), [of("a", "100"), of("new", "5"), of("again", "0")]);
        assert_eq!(lines[0].values[4], Value::Number(8000.0), "bits of bytes");
        assert_eq!(super::lines(None, &after)[0].values[3], Value::Number(0.0), "nothing is known of the time before");
    }

    #[test]
    fn lines_are_sorted_by_numbers_and_words_and_found_by_words() {
        let now = Instant::now();
        let sample = sample(now, &[("b", [5, 0]), ("a", [5, 0]), ("C", [50, 0])]);
        let mut all = lines(None, &sample);
        Line::sort(&mut all, 5, true);
        assert_eq!(all.iter().map(|line| line.values[6].text()).collect::<Vec<_>>(), ["C", "a", "b"]);
        Line::sort(&mut all, 6, false);
        assert_eq!(all.iter().map(|line| line.values[6].text()).collect::<Vec<_>>(), ["C", "a", "b"]);
        assert!(all[0].has("c") && !all[1].has("c") && all[1].has("BR0"));
        let word = |text: &str| Value::Word(text.to_owned());
        assert!(word("9").order(&word("10")).is_lt() && word("p10").order(&word("p9")).is_lt());
    }

    #[test]
    fn numbers_have_few_digits() {
        let all = [0.0, 3.44, 12.0, 999.4, 1500.0, 12_345.0, 1_000_000.0, 2.5e9].map(short);
        assert_eq!(all, ["0", "3.4", "12", "999", "1.5k", "12.3k", "1M", "2.5G"]);
    }
}
