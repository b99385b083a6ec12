//! One case: a program and a packet, what OVS makes of them and what we do.

use crate::odp::Trace;
use crate::ovs::Ovs;
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::action::Action;
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::datapath::{Effect, Translation};
use sluice_flows::field::Field;
use sluice_flows::key::{CT_EST, CT_NEW, CT_RPL, CT_TRK, FRAG_LATER, FlowKey, PacketKey, Slot, VLAN_PRESENT, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::extract;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{Names, parse_flow, show_datapath_actions, show_flow};
use sluice_flows::{DpPort, DropReason, PortNo, Verdict};
use sluice_tests::events::{Event, STAGES, Switch, Wire, tidied};
use sluice_tests::generate::language::{Version, packet_like};
use sluice_tests::generate::program::Program;
use sluice_tests::generate::{PORTS, dp_port, words};
use sluice_tests::interpreter;
use std::fmt::{self, Write};

/// What the connection tracker is made to say of every packet, in both languages.
pub(crate) const CT_STATES: [(&str, u8); 3] =
    [("trk,new", CT_TRK | CT_NEW), ("trk,est", CT_TRK | CT_EST), ("trk,est,rpl", CT_TRK | CT_EST | CT_RPL)];

/// A packet in both languages.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// What we translate.
    pub(crate) key: FlowKey,
    /// The flow string that OVS is given.
    pub(crate) flow: String,
    /// The frame that OVS is given beside it, in hexadecimal.
    pub(crate) frame: Option<String>,
    /// Which of [`CT_STATES`] the tracker says.
    pub(crate) ct: usize,
}

impl Packet {
    /// A packet that OVS gets as a flow string.
    pub(crate) fn of(key: FlowKey, ct: usize) -> Self {
        Self { flow: words::packet(&key).join(","), frame: None, key, ct }
    }

    /// A packet that OVS gets as a frame.
    pub(crate) fn framed(in_port: u32, bytes: &[u8], ct: usize) -> Self {
        let mut read = PacketKey::ZERO;
        extract(bytes, in_port, &mut read);
        let frame = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { key: FlowKey::from(&read), flow: format!("in_port={in_port}"), frame: Some(frame), ct }
    }

    /// A random packet, often one of `few`: as a flow string that OVS can read, or as a frame if they may be.
    pub(crate) fn random(rng: &mut StdRng, few: &[FlowKey], frames: bool) -> Self {
        let key = loop {
            let key = packet_like(rng, few);
            // OVS takes what stands behind the IP header of a later ICMP fragment for an ICMP header, and writes there.
            let icmp = matches!(key.get(slot::IP_PROTO), 1 | 58);
            let two = key.get(slot::INNER_VLAN_TCI) != 0 || !matches!(key.get(slot::VLAN_TPID), 0 | 0x8100);
            if !(icmp && key.get(slot::IP_FRAG) as u8 & FRAG_LATER != 0) && (frames || !two) {
                break key;
            }
        };
        let ct = rng.random_range(0..CT_STATES.len());
        // A flow string can say one tag of TPID 0x8100 and no more.
        let sayable = key.get(slot::INNER_VLAN_TCI) == 0 && matches!(key.get(slot::VLAN_TPID), 0 | 0x8100);
        let frame = key.packet().0[15..].iter().all(|word| *word == 0) && !mpls(&key);
        if sayable && (!frames || !frame || rng.random_bool(0.5)) {
            return Self::of(key, ct);
        }
        Self::framed(key.get(slot::IN_PORT) as u32, &compose(&key, &[0; 32]), ct)
    }
}

fn mpls(key: &FlowKey) -> bool {
    matches!(key.get(slot::ETH_TYPE), 0x8847 | 0x8848)
}

/// A program and a packet.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) version: Version,
    pub(crate) program: Program,
    pub(crate) packet: Packet,
}

/// What is different, for people.
#[derive(Debug)]
pub(crate) struct Difference {
    theirs: String,
    ours: String,
    /// All that OVS says.
    pub(crate) trace: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OVS:    {}\nSluice: {}", self.theirs, self.ours)
    }
}

/// What came of a packet on both sides.
#[derive(Default)]
pub(crate) struct Outcome {
    /// It left by some port, the controller's aside.
    pub(crate) sent: bool,
    /// It went round in circles.
    pub(crate) looped: bool,
    /// It went through the connection tracker, or on in other passes.
    pub(crate) resumed: bool,
    /// Flows that it made were compared.
    pub(crate) learned: bool,
    /// OVS may do otherwise for a reason that is known: it was not compared.
    pub(crate) excused: bool,
    /// What is different.
    pub(crate) difference: Option<Difference>,
}

/// Gives the packet to OVS, which has the program already, and to us.
pub(crate) fn compare(ovs: &mut Ovs, model: &Model, packet: &Packet) -> Outcome {
    let (state, bits) = CT_STATES[packet.ct];
    let mut switch = Switch::new(model, bits);
    let events = switch.process(&packet.key);
    let first = &switch.translations[0].1;
    let looped = switch.translations.iter().any(|(_, t)| t.verdict == Verdict::Drop(DropReason::Loop));
    let sent = switch.translations.iter().any(|(_, t)| t.verdict == Verdict::Forward);
    let text = match ovs.trace(&packet.flow, state, packet.frame.as_deref()) {
        Ok(text) => text,
        Err(error) => error,
    };
    let trace = Trace::read(&text);
    let theirs = trace.events(&packet.key, bits).and_then(|events| renumbered(ovs, events));
    let unordered = switch.translations.iter().any(|(_, t)| floods(t));
    let view = View { blind: left_alone(&packet.key, &events), unordered };
    // When the second bridge goes round in circles, OVS gives up the walk there, and the first goes on.
    let crossed = switch.translations.iter().any(|(_, t)| !t.patched.is_empty());
    let peer_loop = looped && (crossed || enters_peer(model, first));
    let endless = switch.translations.len() >= STAGES;
    let (actions, made) = (trace.actions().to_string(), shown(&switch));
    // Four faults of OVS, which the page on compatibility describes.
    let leaks_meter =
        crossed && made.contains("clone(meter(") && actions.contains("meter(") && !actions.contains("clone(");
    let forks_at_end = actions.contains("check_pkt_len(") && !made.contains("check_pkt_len(");
    let leaks_reason = crossed && actions.contains("reason=3") && !made.contains("reason=3");
    let truncs = |list: &str| list.matches("trunc(").count();
    let leaks_trunc = text.contains("between protected ports") && truncs(&actions) > truncs(&made);
    let leaks = leaks_meter || leaks_reason || leaks_trunc;
    let excused = peer_loop || endless || leaks || forks_at_end || loses_tags(model, &packet.key, bits);
    let same = match &theirs {
        Ok(theirs) => {
            let [theirs, ours] = [theirs, &events].map(|events| {
                let there = without_down(events);
                view.normal(&tidied(if unordered { copies_first(there) } else { there }))
            });
            looped == trace.failed && view.same(&theirs, &ours)
        }
        Err(_) => false,
    };
    let difference = (!same && !excused).then(|| Difference {
        theirs: match theirs {
            Ok(_) => format!("{}{}", trace.actions(), if trace.failed { " (failed)" } else { "" }),
            Err(error) => format!("{} ({error})", trace.actions()),
        },
        ours: shown(&switch),
        trace: text.clone(),
    });
    Outcome { sent, looped, excused, difference, learned: false, resumed: switch.translations.len() > 1 }
}

/// The events of a flood, copies first: whether a copy is the last of them, and so no copy at all, is OVS's hash order.
fn copies_first(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| !matches!(event, Event::Copy(_)));
    events
}

/// Our datapath actions of every pass.
pub(crate) fn shown(switch: &Switch<'_>) -> String {
    let passes = switch.translations.iter();
    let passes = passes.map(|(key, t)| format!("{} ({})", show_datapath_actions(&t.actions, key, |_| None), t.verdict));
    passes.collect::<Vec<_>>().join(" | ")
}

/// Compares the first flow that the packet makes: OVS is told to do what it does for a packet, and has the flow then.
pub(crate) fn compare_learned(ovs: &mut Ovs, model: &Model, packet: &Packet) -> Outcome {
    let mut switch = Switch::new(model, CT_STATES[packet.ct].1);
    switch.process(&packet.key);
    let ours = switch.translations[0].1.effects.iter().find_map(|effect| match effect {
        Effect::Learn(learned) => Some(&learned.spec),
        Effect::FinTimeout { .. } => None,
    });
    let Some(ours) = ours else { return Outcome::default() };
    let text = match ovs.trace(&packet.flow, CT_STATES[packet.ct].0, Some("-generate")) {
        Ok(text) => text,
        Err(error) => error,
    };
    let trace = Trace::read(&text);
    let theirs = trace.learned.first().copied().unwrap_or("nothing learned");
    let read = read_learned(theirs);
    let same = read.as_ref().is_ok_and(|theirs| {
        let plain = |spec: &FlowSpec| FlowSpec { owner: sluice_flows::Owner::user(), generation: 0, ..spec.clone() };
        plain(theirs) == plain(ours)
    });
    let difference = (!same).then(|| Difference {
        theirs: theirs.to_owned() + &read.err().map(|e| format!(" ({e})")).unwrap_or_default(),
        ours: show_flow(ours, None, Names::NONE).to_string(),
        trace: text.clone(),
    });
    Outcome { learned: true, difference, ..Outcome::default() }
}

/// A flow as a trace of OVS says that it was made.
fn read_learned(text: &str) -> Result<FlowSpec, String> {
    let (head, actions) = text.split_once("actions=").unwrap_or((text, "drop"));
    let head = head.replace(" idle=", " idle_timeout=").replace(" hard=", " hard_timeout=");
    let text = format!("{} actions={actions}", head.trim_end());
    parse_flow(&text, Names::NONE).map(|read| read.value).map_err(|error| error.to_string())
}

/// The events with the ports and meters of the model.
fn renumbered(ovs: &Ovs, events: Vec<Event>) -> Result<Vec<Event>, String> {
    let all = events.into_iter().map(|event| {
        Ok(match event {
            Event::Output { port, max_len, packet } => {
                let number = ovs.port(port.0).ok_or_else(|| format!("no port has the number {}", port.0))?;
                Event::Output { port: DpPort(number), max_len, packet }
            }
            Event::Meter(number) => Event::Meter(Ovs::meter(number).1),
            Event::Controller { reason, controller, max_len, cookie, meter, packet } => {
                let meter = meter.map(|number| Ovs::meter(number).1);
                Event::Controller { reason, controller, max_len, cookie, meter, packet }
            }
            Event::Copy(inner) => Event::Copy(renumbered(ovs, inner)?),
            Event::Length { len, larger, otherwise } => {
                Event::Length { len, larger: renumbered(ovs, larger)?, otherwise: renumbered(ovs, otherwise)? }
            }
            other => other,
        })
    });
    all.collect()
}

/// How events are looked at, so that what does not matter does not show.
struct View {
    /// Fields that are not compared.
    blind: &'static [Slot],
    /// OVS floods in hash order.
    unordered: bool,
}

impl View {
    /// The events in an order that does not depend on OVS's. Ports that get the same packet one after the other are
    /// sorted; all events if the packet is flooded, as others may come in between through a patch port.
    fn normal(&self, events: &[Event]) -> Vec<Event> {
        let mut all: Vec<Event> = events.iter().map(|event| self.seen(event)).collect();
        if self.unordered {
            all.sort();
        } else {
            all.chunk_by_mut(alike).for_each(<[Event]>::sort);
        }
        all
    }

    fn seen(&self, event: &Event) -> Event {
        match event.clone() {
            Event::Output { port, max_len, packet } => Event::Output { port, max_len, packet: self.wire(packet) },
            Event::Controller { reason, controller, max_len, cookie, meter, packet } => {
                Event::Controller { reason, controller, max_len, cookie, meter, packet: self.wire(packet) }
            }
            Event::Ct { request, packet } => Event::Ct { request, packet: self.wire(packet) },
            Event::Copy(inner) => Event::Copy(self.normal(&inner)),
            Event::Length { len, larger, otherwise } => {
                Event::Length { len, larger: self.normal(&larger), otherwise: self.normal(&otherwise) }
            }
            other => other,
        }
    }

    fn wire(&self, mut wire: Wire) -> Wire {
        for slot in self.blind {
            let mut key = FlowKey::ZERO;
            key.0[..wire.0.len()].copy_from_slice(&wire.0);
            key.set(*slot, 0);
            wire.0.copy_from_slice(&key.packet().0);
        }
        wire
    }

    /// Whether both sides do the same, as far as theirs was followed.
    fn same(&self, theirs: &[Event], ours: &[Event]) -> bool {
        let lost = |event: &Event| *event == Event::Lost;
        if let Some(end) = theirs.iter().position(lost) {
            return self.unordered || ours.len() >= end && self.same(&theirs[..end], &ours[..end]);
        }
        theirs.len() == ours.len()
            && theirs.iter().zip(ours).all(|(a, b)| match (a, b) {
                (Event::Copy(a), Event::Copy(b)) => self.same(a, b),
                (
                    Event::Length { len: a, larger: a_larger, otherwise: a_otherwise },
                    Event::Length { len: b, larger: b_larger, otherwise: b_otherwise },
                ) => a == b && self.same(a_larger, b_larger) && self.same(a_otherwise, b_otherwise),
                (a, b) => a == b,
            })
    }
}

/// The events without what is sent to ports that are down: OVS leaves it to the datapath to drop it.
fn without_down(events: &[Event]) -> Vec<Event> {
    let down = [dp_port(0, PORTS), dp_port(1, PORTS)];
    let up = events.iter().filter(|event| !matches!(event, Event::Output { port, .. } if down.contains(port)));
    let all = up.map(|event| match event {
        Event::Copy(inner) => Event::Copy(without_down(inner)),
        Event::Length { len, larger, otherwise } => {
            Event::Length { len: *len, larger: without_down(larger), otherwise: without_down(otherwise) }
        }
        other => other.clone(),
    });
    all.collect()
}

fn alike(a: &Event, b: &Event) -> bool {
    match (a, b) {
        (Event::Output { packet: a, max_len: None, .. }, Event::Output { packet: b, max_len: None, .. }) => a == b,
        _ => false,
    }
}

/// Whether any rule on the packet's way, or a group that it may go through, may have sent it to several ports at once.
fn floods(translation: &Translation) -> bool {
    translation.rules.iter().any(|rule| many(&rule.spec.actions))
}

fn many(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Output(port) => matches!(*port, PortNo::FLOOD | PortNo::ALL | PortNo::NORMAL),
        Action::OutputField(_) => true,
        Action::Clone(list) | Action::WriteActions(list) => many(list),
        _ => false,
    })
}

/// Whether a rule of the second bridge matched.
fn enters_peer(model: &Model, translation: &Translation) -> bool {
    let peer = model.bridge(BridgeId(1));
    let there = |spec: &FlowSpec| {
        peer.is_some_and(|bridge| bridge.tables.get_strict(spec.table, spec.priority, &spec.matches).is_some())
    };
    translation.rules.iter().any(|rule| there(&rule.spec))
}

/// Whether OVS loses tags of this packet that we keep: of two tags, it takes off one that NORMAL meets with VLAN 0 and
/// priority 0, or that a write to the TCI empties, and all tags behind that one.
fn loses_tags(model: &Model, packet: &FlowKey, ct_state: u8) -> bool {
    let empty = |tci: u128| tci & u128::from(VLAN_PRESENT) == 0 || tci == VLAN_PRESENT.into();
    interpreter::at_implied_pops(model, packet, ct_state).iter().any(|key| {
        let (outer, inner) = (key.get(slot::VLAN_TCI), key.get(slot::INNER_VLAN_TCI));
        inner != 0 && (empty(outer) || empty(inner))
    })
}

/// The fields of an ARP packet whose opcode has become 0: OVS leaves it alone.
fn left_alone(packet: &FlowKey, events: &[Event]) -> &'static [Slot] {
    let arp = matches!(packet.get(slot::ETH_TYPE), 0x0806 | 0x8035);
    if arp && events.iter().any(without_opcode) {
        &[slot::IP_PROTO, slot::IP_SRC, slot::IP_DST, slot::ARP_SHA, slot::ARP_THA]
    } else {
        &[]
    }
}

fn without_opcode(event: &Event) -> bool {
    match event {
        Event::Output { packet, .. } | Event::Controller { packet, .. } | Event::Ct { packet, .. } => {
            packet.0[usize::from(Field::ArpOp.slot().word)] >> Field::ArpOp.slot().shift == 0
        }
        Event::Copy(inner) => inner.iter().any(without_opcode),
        Event::Length { larger, otherwise, .. } => larger.iter().chain(otherwise).any(without_opcode),
        Event::Meter(_) | Event::Lost => false,
    }
}
