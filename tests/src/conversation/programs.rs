//! Random flows that track connections.
//!
//! # Layout
//! Tables up to [`MARKS`] are stages: a packet comes to one after a `ct`, and the stage does the next or ends. Table
//! [`MARKS`] sends copies to the monitor, whose addresses say what the tracker said of the packet. Table [`LAST`] sends
//! a packet on to the other side.

use super::MONITOR;
use crate::generate::pick;
use crate::generate::program::FlowLine;
use rand::RngExt;
use rand::rngs::StdRng;

/// The table whose copies tell what the tracker said.
pub const MARKS: u8 = 30;
/// The table that sends packets on.
pub const LAST: u8 = 31;

const ZONES: [u16; 4] = [0, 7, 40_000, 300];

/// What kind of copy a frame for the monitor is: the fourth byte of its source address.
pub const KIND: usize = 9;
/// The destination has state, zone, and low bytes of mark and label.
pub const STATE: u8 = 1;
/// The destination has the original source address, or its low half, and port.
pub const SOURCE: u8 = 2;
/// The destination has the original destination address, or its low half, and port.
pub const TARGET: u8 = 3;
/// The destination has the label's upper bytes, and the original protocol.
pub const LABEL: u8 = 4;

fn line(table: u8, priority: u16, matches: &str, actions: &str) -> FlowLine {
    let text = format!("table={table},priority={priority},{matches},actions={actions}");
    FlowLine::read(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A copy to the monitor of this kind, with fields moved to the destination address, lowest first.
fn copy(kind: u8, fields: &[(&str, u8)]) -> String {
    let mut ofs = 0;
    let moves = fields.iter().map(|(field, bits)| {
        let from = ofs;
        ofs += bits;
        let (field, first) = field.split_once(':').unwrap_or((field, "0"));
        let first: u8 = first.parse().unwrap_or_default();
        format!("move:{field}[{first}..{}]->NXM_OF_ETH_DST[{from}..{}],", first + bits - 1, ofs - 1)
    });
    let moves: String = moves.collect();
    format!("clone({moves}load:{kind}->NXM_OF_ETH_SRC[16..23],output:{MONITOR})")
}

/// The flows of [`MARKS`] and [`LAST`].
pub fn frame(hairpin: bool) -> Vec<FlowLine> {
    let state =
        copy(STATE, &[("NXM_NX_CT_STATE", 8), ("NXM_NX_CT_ZONE", 16), ("NXM_NX_CT_MARK", 8), ("NXM_NX_CT_LABEL", 16)]);
    let label = copy(
        LABEL,
        &[("NXM_NX_CT_LABEL:16", 8), ("NXM_NX_CT_LABEL:120", 8), ("NXM_NX_CT_MARK:8", 24), ("NXM_NX_CT_NW_PROTO", 8)],
    );
    let original = |v6: bool| {
        let names =
            if v6 { ["NXM_NX_CT_IPV6_SRC", "NXM_NX_CT_IPV6_DST"] } else { ["NXM_NX_CT_NW_SRC", "NXM_NX_CT_NW_DST"] };
        [
            copy(SOURCE, &[(names[0], 32), ("NXM_NX_CT_TP_SRC", 16)]),
            copy(TARGET, &[(names[1], 32), ("NXM_NX_CT_TP_DST", 16)]),
        ]
        .join(",")
    };
    let to = if hairpin { ["in_port", "in_port"] } else { ["2", "1"] };
    vec![
        line(MARKS, 10, "ip,ct_state=+trk-inv", &format!("{state},{label},{}", original(false))),
        line(MARKS, 10, "ipv6,ct_state=+trk-inv", &format!("{state},{label},{}", original(true))),
        line(MARKS, 1, "", &state),
        line(LAST, 10, "in_port=1", &format!("resubmit(,{MARKS}),output:{}", to[0])),
        line(LAST, 10, "in_port=2", &format!("resubmit(,{MARKS}),output:{}", to[1])),
    ]
}

/// Random flows. Translation is to 192.0.2.0/24 and 2001:db8::/64.
/// With `once`, no zone is tracked twice.
pub fn program(rng: &mut StdRng, once: bool) -> Vec<FlowLine> {
    let mut flows = frame(rng.random_bool(0.1));
    flows.extend(match rng.random_range(0..4) {
        0 => firewall(rng),
        1 => two_zones(rng),
        _ => stages(rng, once),
    });
    flows
}

/// New connections from inside are let in, the rest as the firewall says.
fn firewall(rng: &mut StdRng) -> Vec<FlowLine> {
    let zone = pick(rng, &ZONES);
    let nat = if rng.random_bool(0.6) { ",nat" } else { "" };
    let track = format!("ct(table=1,zone={zone}{nat})");
    let mut flows = vec![line(0, 10, "ip", &track), line(0, 10, "ipv6", &track)];
    for family in ["ip", "ipv6"] {
        let translate = if nat.is_empty() { String::new() } else { translation(rng, family, 0, None) };
        let exec = exec(rng);
        let commit = format!("resubmit(,{MARKS}),ct(commit,table={LAST},zone={zone}{translate}{exec})");
        flows.push(line(1, 20, &format!("{family},ct_state=+trk+new,in_port=1"), &commit));
        flows.push(line(1, 5, &format!("{family},ct_state=+trk+inv"), pick(rng, &["resubmit(,30)", "resubmit(,31)"])));
        flows.push(line(1, 4, &format!("{family},ct_state=+trk+new"), pick(rng, &["resubmit(,30)", "resubmit(,31)"])));
        flows.push(line(1, 3, family, "resubmit(,31)"));
    }
    flows
}

/// Each side has a zone of its own; the source is translated in one, the destination in the other.
fn two_zones(rng: &mut StdRng) -> Vec<FlowLine> {
    let mut flows = Vec::new();
    for family in ["ip", "ipv6"] {
        for (port, [first, second]) in [(1, [1, 2]), (2, [2, 1])] {
            let inside = format!("{family},in_port={port}");
            flows.push(line(0, 10, &inside, &format!("ct(table=1,zone={first},nat)")));
            let translate = translation(rng, family, 0, Some(if port == 1 { "dst" } else { "src" }));
            let exec = exec(rng);
            let commit = format!("ct(commit,zone={first}{translate}{exec},table=2)");
            flows.push(line(1, 10, &format!("{inside},ct_state=+trk+new"), &commit));
            flows.push(line(1, 5, &inside, &format!("resubmit(,{MARKS}),resubmit(,2)")));
            flows.push(line(2, 5, &inside, &format!("resubmit(,{MARKS}),ct(table=3,zone={second},nat)")));
            let translate = translation(rng, family, 1, Some(if port == 1 { "src" } else { "dst" }));
            let commit = format!("ct(commit,zone={second}{translate},table={LAST})");
            flows.push(line(3, 10, &format!("{inside},ct_state=+trk+new"), &commit));
            flows.push(line(3, 5, &inside, &format!("resubmit(,{LAST})")));
        }
    }
    flows
}

/// Stages that do anything. A zone is tracked twice only where nothing is translated: Open vSwitch in user space takes a
/// packet that it has translated for another one then, and a datagram that came in fragments.
fn stages(rng: &mut StdRng, once: bool) -> Vec<FlowLine> {
    let mut flows = Vec::new();
    let count = rng.random_range(1..=4);
    let nat = rng.random_bool(0.6);
    for stage in 0..count {
        let next = if stage + 1 == count { LAST } else { stage + 1 };
        for family in ["ip", "ipv6"] {
            let zones = if nat || once { &ZONES[usize::from(stage)..][..1] } else { &ZONES[..] };
            let step = Step { family, stage, next, zones, nat };
            for priority in 2..rng.random_range(2..6) {
                let matches = format!("{family}{}", condition(rng, family, stage > 0));
                // Open vSwitch does not take a commit of what is invalid.
                let actions = if matches.contains("+inv") { format!("resubmit(,{LAST})") } else { step.actions(rng) };
                flows.push(line(stage, priority, &matches, &actions));
            }
            flows.push(line(stage, 1, family, &step.actions(rng)));
        }
    }
    flows
}

/// Words of a match, each after a comma.
fn condition(rng: &mut StdRng, family: &str, tracked: bool) -> String {
    let mut words = String::new();
    for _ in 0..rng.random_range(1..3) {
        let word = match rng.random_range(0..if tracked { 8 } else { 2 }) {
            0 => pick(rng, &["in_port=1", "in_port=2"]),
            // Of a later fragment of IPv6 the protocol is not known, and fragments had better go the same way.
            1 if family == "ip" => pick(rng, &["nw_proto=6", "nw_proto=17", "nw_ttl=64"]),
            1 => "nw_ttl=64",
            2..=4 => pick(
                rng,
                &[
                    "+new+trk",
                    "+est+trk",
                    "+rpl+trk",
                    "+inv+trk",
                    "+rel+trk",
                    "-new+trk",
                    "+snat",
                    "+dnat",
                    "-rpl-inv+trk",
                    "-trk",
                ],
            ),
            5 => pick(rng, &["ct_mark=0", "ct_mark=5", "ct_mark=0x1/0x1"]),
            6 => pick(rng, &["ct_label=0", "ct_label=0x3/0xff"]),
            _ => pick(rng, &["ct_zone=7", "ct_zone=0"]),
        };
        let word = if word.starts_with(['+', '-']) { format!("ct_state={word}") } else { word.to_owned() };
        let name = word.split('=').next().unwrap_or_default().to_owned();
        if !words.contains(&name) {
            words += &format!(",{word}");
        }
    }
    words
}

/// A stage for one family.
struct Step {
    family: &'static str,
    stage: u8,
    /// The table that comes next.
    next: u8,
    /// Zones that it may track in.
    zones: &'static [u16],
    /// It may translate.
    nat: bool,
}

impl Step {
    fn actions(&self, rng: &mut StdRng) -> String {
        let next = self.next;
        let mut actions = Vec::new();
        if rng.random_bool(0.5) {
            actions.push(format!("resubmit(,{MARKS})"));
        }
        match rng.random_range(0..12) {
            0 => actions.push(format!("ct_clear,resubmit(,{next})")),
            1 => actions.push(format!("resubmit(,{LAST})")),
            2 => {
                // Remembered on the side; the packet goes on without knowing.
                actions.push(self.track(rng, None));
                actions.push(format!("resubmit(,{next})"));
            }
            _ => actions.push(self.track(rng, Some(next))),
        }
        actions.join(",")
    }

    /// A `ct`.
    fn track(&self, rng: &mut StdRng, next: Option<u8>) -> String {
        let zone = pick(rng, self.zones);
        let commit = next.is_none() || rng.random_bool(0.5);
        let mut text = String::from("ct(");
        if commit {
            // Open vSwitch 3.1 does not see that a packet is a reply if its connection is translated,
            // and takes a packet that it knows for another one.
            text += if !self.nat && self.stage == 0 && rng.random_bool(0.2) { "commit,force," } else { "commit," };
        }
        text += &format!("zone={zone}");
        if let Some(next) = next {
            text += &format!(",table={next}");
        }
        if commit {
            // All or none: of two connections whose packets are each other's replies, only Open vSwitch has both.
            if self.nat {
                text += &translation(rng, self.family, self.stage, None);
            }
            text += &exec(rng);
        } else if self.nat && rng.random_bool(0.5) {
            text += ",nat";
        }
        text + ")"
    }
}

/// An `exec` after a comma, or nothing.
fn exec(rng: &mut StdRng) -> String {
    let actions = pick(
        rng,
        &[
            "",
            "",
            "load:5->NXM_NX_CT_MARK[]",
            "set_field:0x1/0x1->ct_mark",
            "load:0x3->NXM_NX_CT_LABEL[0..7]",
            "set_field:0xff0000000000000000000000000000aa->ct_label",
            "load:0x77->NXM_NX_CT_MARK[8..15],load:0x1->NXM_NX_CT_LABEL[127]",
            "move:NXM_OF_IN_PORT[0..7]->NXM_NX_CT_MARK[16..23]",
        ],
    );
    if actions.is_empty() { String::new() } else { format!(",exec({actions})") }
}

/// A `nat` after a comma: of the source or the destination, or at random. Not without: what is committed so, Open
/// vSwitch 3.1 has replies come from the null address. Destinations have no ranges: an end that was not reached would
/// answer from an address that depends on a hash. Each stage has addresses of its own, so that none takes what another
/// chose by a hash for its own.
fn translation(rng: &mut StdRng, family: &str, stage: u8, side: Option<&str>) -> String {
    let side = side.unwrap_or_else(|| pick(rng, &["src", "src", "dst"]));
    let (addresses, ports): (&[&str], &[&str]) = match (family, side) {
        ("ip", "src") => (&["192.0.2.S1", "192.0.2.S1-192.0.2.S9"], &["", "", ":5000-5999", ":33000-60000,random"]),
        ("ip", _) => (&["10.0.3.1", "10.0.3.2"], &["", ":80", ":8080"]),
        (_, "src") => {
            (&["[2001:db8::S1]", "[2001:db8::S1]-[2001:db8::S9]"], &["", "", ":5000-5999", ":33000-60000,hash"])
        }
        _ => (&["[fd00::3:1]", "[fd00::3:2]"], &["", ":80", ":8080"]),
    };
    let (address, port) = (pick(rng, addresses).replace('S', &(stage + 1).to_string()), pick(rng, ports));
    // Without a port, an IPv6 address has no brackets.
    let address = if port.is_empty() { address.replace(['[', ']'], "") } else { address };
    format!(",nat({side}={address}{port})")
}
