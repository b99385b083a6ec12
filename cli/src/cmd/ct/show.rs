//! Connections as rows of a table and as JSON.

use crate::output::{Cell, Table, Tone};
use serde::Serialize;
use sluice_proto::v1::{Connection, ConnectionTuple};

/// A connection in JSON.
#[derive(Serialize)]
pub(super) struct Row {
    zone: u32,
    proto: u32,
    original: Shown,
    reply: Shown,
    snat: bool,
    dnat: bool,
    state: String,
    state_original: Option<String>,
    state_reply: Option<String>,
    replied: bool,
    mark: u32,
    label: String,
    owner: String,
    mark_owners: Vec<String>,
    label_owners: Vec<String>,
    original_packets: u64,
    original_bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    age_ms: u64,
    idle_ms: u64,
    expires_ms: u64,
    parent: Option<Shown>,
    alg: Option<String>,
}

impl From<Connection> for Row {
    fn from(c: Connection) -> Self {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        let counts = |count: Option<sluice_proto::v1::TrafficCount>| count.map_or((0, 0), |c| (c.packets, c.bytes));
        let (original_packets, original_bytes) = counts(c.original_count);
        let (reply_packets, reply_bytes) = counts(c.reply_count);
        Self {
            zone: c.zone,
            proto: c.proto,
            original: c.original.unwrap_or_default().into(),
            reply: c.reply.unwrap_or_default().into(),
            snat: c.snat,
            dnat: c.dnat,
            state: c.state,
            state_original: some(c.state_original),
            state_reply: some(c.state_reply),
            replied: c.replied,
            mark: c.mark,
            label: c.label,
            owner: c.owner,
            mark_owners: c.mark_owners,
            label_owners: c.label_owners,
            original_packets,
            original_bytes,
            reply_packets,
            reply_bytes,
            age_ms: c.age_ms,
            idle_ms: c.idle_ms,
            expires_ms: c.expires_ms,
            parent: c.parent.map(Shown::from),
            alg: some(c.alg),
        }
    }
}

/// What a packet shows, in JSON; of ICMP an identifier, type and code in the place of ports.
#[derive(Serialize)]
struct Shown {
    src: String,
    dst: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rest {
    Ports { src_port: u32, dst_port: u32 },
    Icmp { icmp_id: u32, icmp_type: u32, icmp_code: u32 },
}

impl From<ConnectionTuple> for Shown {
    fn from(tuple: ConnectionTuple) -> Self {
        let ConnectionTuple { src, dst, src_port, dst_port, icmp_type, icmp_code } = tuple;
        let rest = match icmp_type.zip(icmp_code) {
            Some((icmp_type, icmp_code)) => Rest::Icmp { icmp_id: src_port, icmp_type, icmp_code },
            None => Rest::Ports { src_port, dst_port },
        };
        Self { src, dst, rest }
    }
}

/// The protocol's name in flows, or its number.
pub(crate) fn proto_name(proto: u32) -> String {
    match proto {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// Address and port, as they are written together.
pub(crate) fn end(address: &str, port: u32) -> String {
    match (port, address.contains(':')) {
        (0, _) => address.to_owned(),
        (port, true) => format!("[{address}]:{port}"),
        (port, false) => format!("{address}:{port}"),
    }
}

/// `10.0.0.1:4000 > 10.0.0.2:80`.
pub(super) fn tuple_text(tuple: &ConnectionTuple) -> String {
    if tuple.icmp_type.is_some() {
        return format!("{} > {} id {}", tuple.src, tuple.dst, tuple.src_port);
    }
    format!("{} > {}", end(&tuple.src, tuple.src_port), end(&tuple.dst, tuple.dst_port))
}

/// What ends are translated to: `src -> 1.1.1.1:7000`. Empty if none is.
pub(super) fn nat_text(c: &Connection) -> String {
    let reply = c.reply.clone().unwrap_or_default();
    let is_icmp = reply.icmp_type.is_some();
    let port = |port| if is_icmp { 0 } else { port };
    let src = c.snat.then(|| format!("src -> {}", end(&reply.dst, port(reply.dst_port))));
    let dst = c.dnat.then(|| format!("dst -> {}", end(&reply.src, port(reply.src_port))));
    [src, dst].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A value with the owners that it stands for; empty for none.
fn marked(value: &str, owners: &[String]) -> String {
    if owners.is_empty() { value.to_owned() } else { format!("{value} ({})", owners.join(", ")) }
}

pub(super) fn mark_text(c: &Connection) -> String {
    if c.mark == 0 { String::new() } else { marked(&format!("{:#x}", c.mark), &c.mark_owners) }
}

pub(super) fn label_text(c: &Connection) -> String {
    if c.label == "0x0" { String::new() } else { marked(&c.label, &c.label_owners) }
}

/// A time of which the largest unit says enough.
pub(super) fn duration(ms: u64) -> String {
    match ms / 1000 {
        s if s < 600 => format!("{s} s"),
        s if s < 36_000 => format!("{} min", s / 60),
        s if s < 864_000 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// The table; columns in which nothing stands are left out unless it is `wide`.
pub(super) fn table(all: &[Connection], wide: bool) -> Table {
    let any = |text: fn(&Connection) -> String| wide || all.iter().any(|c| !text(c).is_empty());
    let (nat, mark, label) = (any(nat_text), any(mark_text), any(label_text));
    let mut header: Vec<Cell> = vec![Cell::right("ZONE"), "PROTO".into(), "CONNECTION".into()];
    for (name, is_shown) in [("NAT", nat), ("STATE", true), ("MARK", mark), ("LABEL", label), ("OWNER", true)] {
        if is_shown {
            header.push(name.into());
        }
    }
    header.extend(["PKTS", "BYTES", "AGE"].map(Cell::right));
    if wide {
        header.push(Cell::right("IDLE"));
    }
    header.push(Cell::right("EXPIRES"));
    if wide {
        header.extend(["ALG", "PARENT"].map(Cell::from));
    }
    let mut table = Table::new(header);
    let dash = |text: String| Cell::from(if text.is_empty() { "-".to_owned() } else { text });
    for c in all {
        let original = c.original.clone().unwrap_or_default();
        let mut row: Vec<Cell> = vec![Cell::right(c.zone.to_string()), proto_name(c.proto).into()];
        row.push(tuple_text(&original).into());
        if nat {
            row.push(dash(nat_text(c)));
        }
        row.push(Cell::from(c.state.as_str()).tone(if c.replied { Tone::Plain } else { Tone::Warn }));
        if mark {
            row.push(dash(mark_text(c)));
        }
        if label {
            row.push(dash(label_text(c)));
        }
        row.push(dash(c.owner.clone()));
        let (sent, answered) = (c.original_count.unwrap_or_default(), c.reply_count.unwrap_or_default());
        row.push(Cell::right(format!("{}/{}", sent.packets, answered.packets)));
        row.push(Cell::right(format!("{}/{}", sent.bytes, answered.bytes)));
        row.push(Cell::right(duration(c.age_ms)));
        if wide {
            row.push(Cell::right(duration(c.idle_ms)));
        }
        row.push(Cell::right(duration(c.expires_ms)));
        if wide {
            row.push(dash(c.alg.clone()));
            row.push(dash(c.parent.as_ref().map(tuple_text).unwrap_or_default()));
        }
        table.row(row);
    }
    table
}
