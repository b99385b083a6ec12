//! Connections as messages.

use super::owners::Owners;
use crate::Datapath;
use crate::conntrack::{Conn, ConnState, Direction, TcpEnd, Tuple};
use sluice_flows::rule::Millis;
use sluice_proto::v1::{Connection, ConnectionTuple, TrafficCount};

/// A label as the API has it.
pub(super) fn label_text(label: u128) -> String {
    format!("{label:#x}")
}

/// A connection as it is.
pub(super) fn connection(conn: &Conn, datapath: &Datapath, owners: &Owners, now: Millis) -> Connection {
    let count = |direction| {
        let (packets, bytes) = conn.counted(direction);
        Some(TrafficCount { packets, bytes })
    };
    let (mark, label, owner) = {
        let marks = conn.marks();
        (marks.mark, marks.label, marks.owner.clone())
    };
    let state = conn.state();
    let end = |index: usize| match state {
        ConnState::Tcp(ends) => ends.get(index).copied().map(TcpEnd::name).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let [scale_original, scale_reply] = conn.window_scales();
    let expires = if conn.is_alive() { datapath.connection_expires(conn) } else { Millis(0) };
    Connection {
        zone: conn.original.zone.into(),
        proto: conn.original.proto.into(),
        original: Some(tuple(&conn.original)),
        reply: Some(tuple(&conn.reply)),
        snat: conn.is_snat(),
        dnat: conn.is_dnat(),
        state: state.name().to_owned(),
        state_original: end(0),
        state_reply: end(1),
        replied: state.is_replied(),
        mark,
        label: label_text(label),
        owner: owner.map_or_else(String::new, |owner| owner.to_string()),
        mark_owners: owners.of_mark(mark),
        label_owners: owners.of_label(label),
        original_count: count(Direction::Original),
        reply_count: count(Direction::Reply),
        age_ms: now.since(conn.created),
        idle_ms: now.since(conn.seen()),
        expires_ms: expires.since(now),
        parent: conn.parent.as_ref().map(|parent| tuple(&parent.original)),
        alg: conn.alg().unwrap_or_default().to_owned(),
        window_scale_original: scale_original.map(u32::from),
        window_scale_reply: scale_reply.map(u32::from),
    }
}

fn tuple(tuple: &Tuple) -> ConnectionTuple {
    let is_icmp = tuple.is_icmp();
    ConnectionTuple {
        src: tuple.src().to_string(),
        dst: tuple.dst().to_string(),
        src_port: tuple.src_port.into(),
        dst_port: if is_icmp { 0 } else { tuple.dst_port.into() },
        icmp_type: is_icmp.then(|| tuple.icmp_type().into()),
        icmp_code: is_icmp.then(|| tuple.icmp_code().into()),
    }
}
