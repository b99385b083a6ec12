//! One case: two tables and a packet, what OVS makes of them and what we do.

use crate::odp;
use crate::ovs::{BRIDGES, Ovs};
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::action::Action;
use sluice_flows::bridge::Model;
use sluice_flows::datapath::Translation;
use sluice_flows::key::{FRAG_LATER, FlowKey, PacketKey, Slot, VLAN_PRESENT, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::extract;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{Names, show_datapath_actions, show_flow, show_packet};
use sluice_flows::translate::{NoMacs, NoTrace, translate};
use sluice_flows::{DpPort, DropReason, PortNo, Verdict};
use sluice_tests::generate::{self, Dialect, PORTS, dp_port, model_of};
use sluice_tests::interpreter::{self, Sent};
use std::fmt::{self, Write};

/// Flows of both bridges.
pub(crate) type Flows = [Vec<FlowSpec>; BRIDGES as usize];

/// A packet in both languages.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// What we translate.
    pub(crate) key: FlowKey,
    /// The flow string that OVS is given.
    flow: String,
    /// The frame that OVS is given beside it, in hexadecimal.
    frame: Option<String>,
}

impl Packet {
    /// A random packet, often one of `few`: as a flow string that OVS can read, or as a frame.
    pub(crate) fn random(rng: &mut StdRng, few: &[FlowKey]) -> Self {
        let key = loop {
            let key = generate::packet_like(rng, few);
            // OVS takes what stands behind the IP header of a later ICMP fragment for an ICMP header, and writes there.
            let icmp = matches!(key.get(slot::IP_PROTO), 1 | 58);
            if !(icmp && key.get(slot::IP_FRAG) as u8 & FRAG_LATER != 0) {
                break key;
            }
        };
        // A flow string can say one tag of TPID 0x8100 and no more.
        let sayable = key.get(slot::INNER_VLAN_TCI) == 0 && matches!(key.get(slot::VLAN_TPID), 0 | 0x8100);
        if sayable && rng.random_bool(0.5) {
            return Self { flow: flow_string(&key), frame: None, key };
        }
        let in_port = key.get(slot::IN_PORT);
        let frame = compose(&key, &[0; 32]);
        let mut read = PacketKey::ZERO;
        extract(&frame, in_port as u32, &mut read);
        let key = FlowKey::from(&read);
        let frame = frame.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { key, flow: format!("in_port={in_port}"), frame: Some(frame) }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", show_packet(&self.key, Names::NONE))?;
        match &self.frame {
            Some(frame) => write!(f, "\n  as the frame {frame}"),
            None => write!(f, "\n  as the flow  {}", self.flow),
        }
    }
}

/// The packet as we print it, in the words that OVS reads packets in: of those for ports it takes the generic ones for
/// TCP only, and the words for a second tag that it prints it does not read.
fn flow_string(key: &FlowKey) -> String {
    let text = show_packet(key, Names::NONE).to_string();
    let protocol = text.split(',').next().unwrap_or_default().trim_end_matches('6').to_owned();
    let kind = key.get(slot::TP_SRC);
    let words = text.split(',').filter_map(|word| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let name = match (name, protocol.as_str()) {
            ("vlan_tci1", _) => return None,
            ("nd_tll", _) if kind == 135 => return None,
            ("nd_sll", _) if kind == 136 => return None,
            ("tp_src", "udp" | "sctp") => format!("{protocol}_src"),
            ("tp_dst", "udp" | "sctp") => format!("{protocol}_dst"),
            ("icmp_type", "icmp") if text.starts_with("icmp6") => "icmpv6_type".to_owned(),
            ("icmp_code", "icmp") if text.starts_with("icmp6") => "icmpv6_code".to_owned(),
            _ => return Some(word.to_owned()),
        };
        Some(format!("{name}={value}"))
    });
    words.collect::<Vec<_>>().join(",")
}

/// Two tables and a packet.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) dialect: Dialect,
    pub(crate) flows: Flows,
    pub(crate) packet: Packet,
}

/// What is different, for people.
#[derive(Debug)]
pub(crate) struct Difference {
    theirs: String,
    ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OVS:    {}\nSluice: {}", self.theirs, self.ours)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, flows) in self.flows.iter().enumerate() {
            writeln!(f, "flows of br{i} ({:?}):", self.dialect)?;
            for line in lines(flows) {
                writeln!(f, "  {line}")?;
            }
        }
        write!(f, "packet: {}", self.packet)
    }
}

/// Flows as OVS reads them.
pub(crate) fn lines(flows: &[FlowSpec]) -> Vec<String> {
    flows.iter().map(|flow| show_flow(flow, None, Names::NONE).to_string()).collect()
}

/// What came of a packet on both sides.
pub(crate) struct Outcome {
    /// It left by some port, the controller's aside.
    pub(crate) sent: bool,
    /// It went round in circles.
    pub(crate) looped: bool,
    /// OVS may do otherwise for a reason that is known: it was not compared.
    pub(crate) excused: bool,
    /// What is different.
    pub(crate) difference: Option<Difference>,
}

/// Gives the packet to OVS, which has the flows already, and to us.
pub(crate) fn compare(ovs: &mut Ovs, flows: &Flows, packet: &Packet) -> Outcome {
    let model = model_of(flows, true);
    let ours = translate(&model, &NoMacs, DpPort(packet.key.get(slot::IN_PORT) as u32), &packet.key, &mut NoTrace);
    let looped = ours.verdict == Verdict::Drop(DropReason::Loop);
    let sent = ours.verdict == Verdict::Forward;
    let (theirs, theirs_text) = match ovs.trace(&packet.flow, packet.frame.as_deref()) {
        Ok(trace) => read_trace(ovs, &trace, &packet.key),
        Err(error) => (Err(error.clone()), error),
    };
    let unordered = floods(&ours);
    let mine = interpreter::apply(&ours.actions, &packet.key);
    let blind = left_alone(&packet.key, &mine);
    let normal = |sent: Vec<Sent>| normal(without(sent, blind), unordered);
    let mine = normal(mine);
    let theirs_loop = theirs_text.contains("Translation failed");
    // When the second bridge goes round in circles, OVS gives up the walk there, and the first goes on.
    let peer_loop = looped && ours.rules.iter().any(|rule| flows[1].contains(&rule.spec));
    let excused = peer_loop || loses_tags(&model, &packet.key);
    let same = excused || looped == theirs_loop && theirs.is_ok_and(|theirs| normal(theirs) == mine);
    let difference = (!same).then(|| Difference {
        theirs: theirs_text,
        ours: format!("{} ({})", show_datapath_actions(&ours.actions, &packet.key, |_| None), ours.verdict),
    });
    Outcome { sent, looped, excused, difference }
}

/// What left according to a trace of OVS, and the lines that say so.
fn read_trace(ovs: &Ovs, trace: &str, packet: &FlowKey) -> (Result<Vec<Sent>, String>, String) {
    const ACTIONS: &str = "Datapath actions: ";
    let last = trace.lines().find_map(|line| line.strip_prefix(ACTIONS)).unwrap_or("");
    let failed = trace.lines().find(|line| line.starts_with("Translation failed")).unwrap_or("");
    let sent = odp::apply(last, packet).and_then(|sent| {
        let known = sent.into_iter().map(|(port, key)| match port {
            DpPort(0) => Ok((port, key)),
            DpPort(number) => match ovs.port(number) {
                Some(port) => Ok((DpPort(port), key)),
                None => Err(format!("no port has the datapath number {number}")),
            },
        });
        known.collect()
    });
    // OVS leaves it to the datapath to drop what is sent to a port that is down.
    let down = [dp_port(0, PORTS), dp_port(1, PORTS)];
    let sent = sent.map(|sent: Vec<Sent>| sent.into_iter().filter(|(port, _)| !down.contains(port)).collect());
    (sent, format!("{last} {failed}"))
}

/// Whether any rule on the packet's way may have sent it to several ports at once.
fn floods(translation: &Translation) -> bool {
    let many = |port: &PortNo| matches!(*port, PortNo::FLOOD | PortNo::ALL | PortNo::NORMAL);
    translation.rules.iter().flat_map(|rule| rule.spec.actions.iter()).any(|action| match action {
        Action::Output(port) => many(port),
        Action::OutputField(_) => true,
        _ => false,
    })
}

/// Whether OVS loses tags of this packet that we keep: of two tags, it takes off one that NORMAL meets with VLAN 0 and
/// priority 0, or that a write to the TCI empties, and all tags behind that one.
fn loses_tags(model: &Model, packet: &FlowKey) -> bool {
    let empty = |tci: u128| tci & u128::from(VLAN_PRESENT) == 0 || tci == VLAN_PRESENT.into();
    interpreter::at_implied_pops(model, packet).iter().any(|key| {
        let (outer, inner) = (key.get(slot::VLAN_TCI), key.get(slot::INNER_VLAN_TCI));
        inner != 0 && (empty(outer) || empty(inner))
    })
}

/// The fields of an ARP packet whose opcode has become 0: OVS leaves it alone.
fn left_alone(packet: &FlowKey, sent: &[Sent]) -> &'static [Slot] {
    let arp = matches!(packet.get(slot::ETH_TYPE), 0x0806 | 0x8035);
    if arp && sent.iter().any(|(_, key)| key.get(slot::IP_PROTO) == 0) {
        &[slot::IP_PROTO, slot::IP_SRC, slot::IP_DST, slot::ARP_SHA, slot::ARP_THA]
    } else {
        &[]
    }
}

fn without(mut sent: Vec<Sent>, slots: &[Slot]) -> Vec<Sent> {
    for slot in slots {
        sent.iter_mut().for_each(|(_, key)| key.set(*slot, 0));
    }
    sent
}

/// What left in an order that does not depend on OVS's: it floods in hash order. Ports that get the same packet one
/// after the other are sorted; all of them if the packet is flooded, as other packets may come in between through a
/// patch port.
fn normal(mut sent: Vec<Sent>, unordered: bool) -> Vec<Sent> {
    if unordered {
        sent.sort_by_key(|(port, key)| (key.0, *port));
    } else {
        sent.chunk_by_mut(|(_, a), (_, b)| a == b).for_each(|run| run.sort_by_key(|(port, _)| *port));
    }
    sent
}
