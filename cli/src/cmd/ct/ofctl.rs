//! Connections and limits in the wording of OVS's `dpctl/dump-conntrack`, `dpctl/ct-stats-show` and
//! `dpctl/ct-get-limits`.

use sluice_proto::v1::{Connection, ConnectionTuple, GetConnectionStatsReply, TrafficCount};
use std::fmt::Write;

/// A connection; `more` is OVS's `-m`, `statistics` its `-s`.
pub(super) fn line(c: &Connection, more: bool, statistics: bool) -> String {
    let mut out = proto_name(c.proto);
    for (name, tuple, count) in [("orig", &c.original, c.original_count), ("reply", &c.reply, c.reply_count)] {
        let tuple = tuple.as_ref().map(show_tuple).unwrap_or_default();
        let count = count.filter(|c| statistics && *c != TrafficCount::default());
        let count = count.map(|c| format!(",packets={},bytes={}", c.packets, c.bytes)).unwrap_or_default();
        // Writing to a string cannot fail.
        _ = write!(out, ",{name}=({tuple}{count})");
    }
    if more {
        out.push_str(",id=0");
    }
    if c.zone != 0 {
        _ = write!(out, ",zone={}", c.zone);
    }
    if more {
        out.push_str(",status=0");
    }
    if statistics {
        _ = write!(out, ",timeout={}", c.expires_ms / 1000);
    }
    if c.mark != 0 {
        _ = write!(out, ",mark={}", c.mark);
    }
    if c.label != "0x0" {
        _ = write!(out, ",labels={}", c.label);
    }
    if c.proto == 6 && more {
        out.push_str(&both_ends(c));
    } else if c.proto == 6 {
        _ = write!(out, ",protoinfo=(state={})", c.state);
    }
    if !c.alg.is_empty() {
        _ = write!(out, ",helper={}", c.alg);
    }
    if let Some(parent) = c.parent.as_ref().filter(|_| more) {
        _ = write!(out, ",parent=({})", show_tuple(parent));
    }
    out
}

/// What is known of the two ends of a TCP connection.
fn both_ends(c: &Connection) -> String {
    let scales = (c.window_scale_original, c.window_scale_reply);
    let scale = match (scales.0.unwrap_or(0), scales.1.unwrap_or(0)) {
        (0, 0) => String::new(),
        (original, reply) => format!(",wscale_orig={original},wscale_reply={reply}"),
    };
    let flags = |scale: Option<u32>| if scale.is_some() { "WINDOW_SCALE" } else { "0" };
    format!(
        ",protoinfo=(state_orig={},state_reply={}{scale},flags_orig={},flags_reply={})",
        c.state_original,
        c.state_reply,
        flags(scales.0),
        flags(scales.1)
    )
}

fn show_tuple(tuple: &ConnectionTuple) -> String {
    let ConnectionTuple { src, dst, src_port, dst_port, .. } = tuple;
    match (tuple.icmp_type, tuple.icmp_code) {
        (Some(kind), Some(code)) => format!("src={src},dst={dst},id={src_port},type={kind},code={code}"),
        _ => format!("src={src},dst={dst},sport={src_port},dport={dst_port}"),
    }
}

fn proto_name(proto: u32) -> String {
    let name = match proto {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// The numbers of connections, with TCP's by state for `more`.
pub(super) fn stats(stats: &GetConnectionStatsReply, more: bool) -> String {
    let total: u64 = stats.protocols.iter().map(|p| p.connections).sum();
    let mut out = format!("Connections Stats:\n    Total: {total}");
    let count = |proto| stats.protocols.iter().find(|p| p.proto == proto);
    const NAMED: [(u32, &str); 7] =
        [(6, "TCP"), (17, "UDP"), (136, "UDPLITE"), (132, "SCTP"), (1, "ICMP"), (33, "DCCP"), (2, "IGMP")];
    for (proto, name) in NAMED {
        let Some(of) = count(proto) else { continue };
        _ = write!(out, "\n  {name}: {}", of.connections);
        if proto == 6 && more {
            out.push_str("\n    Conn per TCP states:");
            of.states.iter().for_each(|s| _ = write!(out, "\n\t  [{}]={}", s.state, s.connections));
        }
    }
    // ICMPv6 is counted, but has no line.
    let others = stats.protocols.iter().filter(|p| p.proto != 58 && NAMED.iter().all(|(proto, _)| *proto != p.proto));
    let others: u64 = others.map(|p| p.connections).sum();
    if others > 0 {
        _ = write!(out, "\n  Other: {others}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str, src_port: u32, dst_port: u32) -> Option<ConnectionTuple> {
        Some(ConnectionTuple {
            src: src.to_owned(),
            dst: dst.to_owned(),
            src_port,
            dst_port,
            icmp_type: None,
            icmp_code: None,
        })
    }

    /// A TCP connection with a translated source.
    fn web() -> Connection {
        Connection {
            zone: 5,
            proto: 6,
            original: tuple("10.1.1.1", "10.1.1.2", 1, 2),
            reply: tuple("10.1.1.2", "1.1.1.1", 2, 1),
            state: "ESTABLISHED".to_owned(),
            state_original: "ESTABLISHED".to_owned(),
            state_reply: "SYN_SENT".to_owned(),
            mark: 23,
            label: "0x12345".to_owned(),
            expires_ms: 29_500,
            original_count: Some(TrafficCount { packets: 2, bytes: 108 }),
            reply_count: Some(TrafficCount::default()),
            ..Connection::default()
        }
    }

    /// The lines are what OVS 3.1 prints of these connections, but for its user-space tracker having no counters.
    #[test]
    fn lines_are_worded_as_ovs_words_them() {
        let tuples =
            "tcp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=1,dport=2),reply=(src=10.1.1.2,dst=1.1.1.1,sport=2,dport=1)";
        assert_eq!(
            line(&web(), false, false),
            format!("{tuples},zone=5,mark=23,labels=0x12345,protoinfo=(state=ESTABLISHED)")
        );
        assert_eq!(
            line(&web(), true, false),
            format!(
                "{tuples},id=0,zone=5,status=0,mark=23,labels=0x12345,\
                 protoinfo=(state_orig=ESTABLISHED,state_reply=SYN_SENT,flags_orig=0,flags_reply=0)"
            )
        );
        let counted = tuples.replace("dport=2)", "dport=2,packets=2,bytes=108)");
        let expected = format!("{counted},zone=5,timeout=29,mark=23,labels=0x12345,protoinfo=(state=ESTABLISHED)");
        assert_eq!(line(&web(), false, true), expected);
        let ping = |kind| {
            let icmp = |t: ConnectionTuple| ConnectionTuple { icmp_type: Some(kind), icmp_code: Some(0), ..t };
            tuple("fc00::1", "fc00::2", 7, 0).map(icmp)
        };
        let ping = Connection {
            proto: 58,
            original: ping(128),
            reply: ping(129),
            label: "0x0".to_owned(),
            ..Connection::default()
        };
        assert_eq!(
            line(&ping, false, false),
            "icmpv6,orig=(src=fc00::1,dst=fc00::2,id=7,type=128,code=0),reply=(src=fc00::1,dst=fc00::2,id=7,type=129,code=0)"
        );
    }
}
