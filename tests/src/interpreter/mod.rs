//! The oracle of translation: walks the tables with one concrete packet, by recursion and linear search, with no mask,
//! no cache and none of translation's code. Slow and obvious.
//!
//! What hashes decide is not known here: programs for it have groups, bundles and multipaths whose choices come to the
//! same. The connection tracker says of every packet what it is told to say.

mod fields;
mod groups;
mod learn;
mod output;

use crate::events::{Event, Packet, STAGES, ct_request};
use sluice_flows::action::{Action, Ct, CtZone};
use sluice_flows::bridge::{Bridge, BridgeId, Model};
use sluice_flows::datapath::DpCt;
use sluice_flows::field::{Field, Prereq};
use sluice_flows::key::{CT_TRK, FRAME_WORDS, FlowKey, PACKET_WORDS, PIPELINE_WORD, slot};
use sluice_flows::rule::{FlowSpec, Rule, TableId};
use sluice_flows::{DpPort, PortNo};
use std::sync::Arc;

/// Jumps and nesting that a packet may make before it is dropped whole.
const MAX_JUMPS: u32 = 4096;
const MAX_DEPTH: u32 = 64;

/// What becomes of a packet.
#[derive(Debug, Default)]
pub struct Fate {
    /// What happens to it, in order.
    pub events: Vec<Event>,
    /// Rules that matched, in order: bridge, table, priority.
    pub rules: Vec<(BridgeId, TableId, u16)>,
    /// Flows that it makes, in order.
    pub learned: Vec<FlowSpec>,
}

/// What the tables of the model do with a packet that came in by a datapath port of the first bridge; `None` if it goes
/// round in circles.
pub fn interpret(model: &Model, packet: &FlowKey, ct_state: u8) -> Option<Fate> {
    let mut run = Run::new(model, packet, ct_state);
    run.pipeline().ok()?;
    Some(run.fate)
}

/// The packet as it is each time that something other than `pop_vlan` may take a tag off: NORMAL, and a write that clears
/// the tag-present bit of the TCI.
pub fn at_implied_pops(model: &Model, packet: &FlowKey, ct_state: u8) -> Vec<FlowKey> {
    let mut run = Run::new(model, packet, ct_state);
    let _ = run.pipeline();
    run.implied_pops
}

struct TooFar;

/// Where the actions stand that are done: what a packet to the controller is told with.
#[derive(Clone, Copy)]
struct At<'a> {
    table: u8,
    rule: Option<&'a FlowSpec>,
    /// In the action set, or in a bucket.
    reason: Option<u8>,
}

struct Run<'a> {
    model: &'a Model,
    bridge: &'a Bridge,
    ct_state: u8,
    packet: Packet,
    /// `skb_priority` of the packet when it came.
    priority: u128,
    stack: Vec<u128>,
    action_set: Vec<Action>,
    fate: Fate,
    implied_pops: Vec<FlowKey>,
    exit: bool,
    /// Passes made so far.
    passes: usize,
    jumps: u32,
    depth: u32,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, packet: &FlowKey, ct_state: u8) -> Self {
        let dp = DpPort(packet.get(slot::IN_PORT) as u32);
        let (bridge, port) = model.port(dp).expect("packets come by ports that there are");
        let mut key = *packet;
        key.set(slot::IN_PORT, port.no.0.into());
        key.set(Field::ActsetOutput.slot(), PortNo::UNSET.0.into());
        Self {
            model,
            bridge,
            ct_state,
            priority: key.get(slot::SKB_PRIORITY),
            packet: Packet::new(key),
            stack: Vec::new(),
            action_set: Vec::new(),
            fate: Fate::default(),
            implied_pops: Vec::new(),
            exit: false,
            passes: 1,
            jumps: 0,
            depth: 0,
        }
    }

    /// The first table and what comes after it, then the action set.
    fn pipeline(&mut self) -> Result<(), TooFar> {
        self.table(0, None, true)?;
        self.run_action_set()
    }

    fn key(&self) -> &FlowKey {
        &self.packet.key
    }

    fn table(&mut self, table: u8, lookup: Option<FlowKey>, deepens: bool) -> Result<(), TooFar> {
        if self.depth >= MAX_DEPTH || self.jumps >= MAX_JUMPS {
            return Err(TooFar);
        }
        let mut lookup = lookup.unwrap_or(*self.key());
        if self.has(Prereq::Ip) && self.key().get(slot::IP_FRAG) != 0 {
            // Tables do not see the ports of any fragment.
            lookup.set(slot::TP_SRC, 0);
            lookup.set(slot::TP_DST, 0);
        }
        let Some(rule) = find(self.bridge, table, &lookup) else { return Ok(()) };
        self.fate.rules.push((self.bridge.id, rule.spec.table, rule.spec.priority));
        self.jumps += 1;
        self.depth += u32::from(deepens);
        let at = At { table, rule: Some(&rule.spec), reason: None };
        self.actions(&rule.spec.actions, at)?;
        self.depth -= u32::from(deepens);
        Ok(())
    }

    fn actions(&mut self, actions: &[Action], at: At<'_>) -> Result<(), TooFar> {
        for (i, action) in actions.iter().enumerate() {
            match action {
                Action::CheckPktLarger { len, dst } => {
                    return self.branches(*len, *dst, &actions[i + 1..], at);
                }
                Action::DecTtl(controllers) if self.has(Prereq::Ip) => match self.key().get(slot::IP_TTL) {
                    0 | 1 => return self.ttl_expired(controllers, at),
                    ttl => self.packet.key.set(slot::IP_TTL, ttl - 1),
                },
                Action::DecMplsTtl if self.has(Prereq::Mpls) => match self.key().get(Field::MplsTtl.slot()) {
                    0 | 1 => return self.ttl_expired(&[], at),
                    ttl => self.packet.key.set(Field::MplsTtl.slot(), ttl - 1),
                },
                Action::Group(id) if !self.bridge.groups.contains_key(id) => return Ok(()),
                Action::Controller(options) if options.pause => self.exit = true,
                _ => self.action(action, at)?,
            }
            if self.exit {
                break;
            }
        }
        Ok(())
    }

    /// An action after which the list goes on, unless it says otherwise.
    fn action(&mut self, action: &Action, at: At<'_>) -> Result<(), TooFar> {
        match action {
            Action::Output(port) => self.output(*port, at)?,
            Action::OutputField(source) => {
                let port = self.subfield(*source);
                self.output(PortNo(u16::try_from(port).unwrap_or(PortNo::NONE.0)), at)?;
            }
            Action::OutputTruncated { port, max_len } => self.output_truncated(*port, *max_len),
            Action::Controller(options) => self.send_to_controller(options, at),
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue, at)?,
            Action::Group(id) => self.group(*id, at)?,
            Action::Bundle(bundle) => self.bundle(bundle, at)?,
            Action::GotoTable(next) => self.table(next.get(), None, false)?,
            Action::Resubmit { port, table: next, ct, .. } => {
                let next = next.map_or(at.table, TableId::get);
                if let Some(lookup) = self.resubmitted(*port, *ct) {
                    self.table(next, Some(lookup), next <= at.table)?;
                }
            }
            Action::Clone(list) => {
                let outer = (self.packet.clone(), self.stack.clone(), self.action_set.clone());
                let before = std::mem::take(&mut self.fate.events);
                self.actions(list, at)?;
                self.run_action_set()?;
                let inner = std::mem::replace(&mut self.fate.events, before);
                crate::events::copy(&mut self.fate.events, inner);
                (self.packet, self.stack, self.action_set) = outer;
                self.exit = false;
            }
            Action::Exit => self.exit = true,
            Action::Meter(id) => {
                if self.bridge.meters.contains_key(id) {
                    self.fate.events.push(Event::Meter(id.0));
                }
            }
            Action::Ct(ct) => self.track(ct)?,
            Action::CtClear => self.clear_tracking(),
            Action::WriteActions(list) => self.write_actions(list),
            Action::ClearActions => {
                self.action_set.clear();
                self.packet.key.set(Field::ActsetOutput.slot(), PortNo::UNSET.0.into());
            }
            Action::Learn(learn) => self.learn(learn),
            other => self.change(other),
        }
        Ok(())
    }

    /// The key that a resubmit looks up with; none if it does nothing.
    fn resubmitted(&self, port: Option<PortNo>, ct: bool) -> Option<FlowKey> {
        let mut key = *self.key();
        if let Some(port) = port {
            key.set(Field::InPort.slot(), port.0.into());
        }
        if ct {
            if key.get(slot::CT_NW_PROTO) == 0 || !self.has(Prereq::Ip) {
                return None;
            }
            let mut pairs = vec![
                (slot::IP_PROTO, slot::CT_NW_PROTO),
                (slot::TP_SRC, slot::CT_TP_SRC),
                (slot::TP_DST, slot::CT_TP_DST),
            ];
            pairs.extend(if self.has(Prereq::Ipv4) {
                [(slot::IP_SRC, slot::CT_NW_SRC), (slot::IP_DST, slot::CT_NW_DST)]
            } else {
                [(slot::IPV6_SRC, slot::CT_IPV6_SRC), (slot::IPV6_DST, slot::CT_IPV6_DST)]
            });
            for (a, b) in pairs {
                let (x, y) = (key.get(a), key.get(b));
                key.set(a, y);
                key.set(b, x);
            }
        }
        Some(key)
    }

    /// The rest of the list and the action set, for packets longer than `len` and for others.
    fn branches(
        &mut self,
        len: u16,
        dst: sluice_flows::action::Subfield,
        rest: &[Action],
        at: At<'_>,
    ) -> Result<(), TooFar> {
        if rest.is_empty() {
            return Ok(());
        }
        let outer = (self.packet.clone(), self.stack.clone(), self.action_set.clone(), self.exit);
        let mut branch = |larger: u128| {
            (self.packet, self.stack, self.action_set, self.exit) = outer.clone();
            let before = std::mem::take(&mut self.fate.events);
            self.set(dst.field, larger << dst.ofs, dst.mask());
            self.actions(rest, at)?;
            self.run_action_set()?;
            Ok(std::mem::replace(&mut self.fate.events, before))
        };
        let (larger, otherwise) = (branch(1)?, branch(0)?);
        (self.packet, self.stack, self.action_set, self.exit) = outer;
        self.fate.events.push(Event::Length { len, larger, otherwise });
        Ok(())
    }

    fn track(&mut self, ct: &Ct) -> Result<(), TooFar> {
        let zone = match ct.zone {
            CtZone::Number(zone) => zone,
            CtZone::Field(source) => self.subfield(source) as u16,
        };
        let (mut mark, mut label) = (None, None);
        for action in &ct.exec {
            let (field, value, mask) = match action {
                Action::SetField { field, value, mask } => (*field, *value, *mask),
                Action::Load { value, dst } => (dst.field, *value << dst.ofs, dst.mask()),
                Action::Move { src, dst } => (dst.field, self.subfield(*src) << dst.ofs, dst.mask()),
                other => panic!("{other:?} within ct"),
            };
            let mask = mask & field.slot().max();
            let into: &mut Option<(u128, u128)> = if field == Field::CtMark { &mut mark } else { &mut label };
            let (old, known) = into.unwrap_or_default();
            *into = Some((old & !mask | value & mask, known | mask));
        }
        let asked = DpCt {
            commit: ct.commit,
            force: ct.force,
            zone,
            mark: mark.map(|(value, mask)| (value as u32, mask as u32)),
            label,
            nat: ct.nat,
            alg: ct.alg,
            owner: None,
        };
        self.fate.events.push(Event::Ct { request: ct_request(&asked), packet: self.packet.wire() });
        if ct.table.is_some() && self.passes >= STAGES {
            self.fate.events.push(Event::Lost);
        } else if let Some(table) = ct.table {
            self.passes += 1;
            let outer = (self.packet.clone(), self.stack.clone(), self.action_set.clone());
            let (jumps, depth) = (std::mem::take(&mut self.jumps), std::mem::take(&mut self.depth));
            let before = std::mem::take(&mut self.fate.events);
            self.packet.track(&asked, self.ct_state);
            // The passes of a copy have bounds of their own: one that goes round in circles is dropped alone.
            let went = self.table(table.get(), None, false).and_then(|()| self.run_action_set());
            let inner = std::mem::replace(&mut self.fate.events, before);
            if went.is_ok() {
                crate::events::copy(&mut self.fate.events, inner);
            }
            (self.packet, self.stack, self.action_set) = outer;
            (self.jumps, self.depth, self.exit) = (jumps, depth, false);
        }
        self.clear_tracking();
        Ok(())
    }

    fn clear_tracking(&mut self) {
        let first = usize::from(slot::CT_STATE.word);
        let key = &mut self.packet.key;
        let kept = key.get(slot::DP_HASH);
        key.0[first..first + 8].fill(0);
        key.set(slot::DP_HASH, kept);
    }

    /// Whether the tracker says what the connection's first packet was.
    fn tracked(&self) -> bool {
        let inv = sluice_flows::key::CT_INV;
        self.key().get(slot::CT_STATE) as u8 & (CT_TRK | inv) == CT_TRK
    }

    /// What another bridge does not see.
    fn forget_pipeline(&mut self) {
        self.packet.key.0[FRAME_WORDS..PACKET_WORDS].fill(0);
        self.packet.key.0[PIPELINE_WORD..].fill(0);
        self.packet.key.set(Field::ActsetOutput.slot(), PortNo::UNSET.0.into());
        self.clear_tracking();
    }
}

/// The rule of a table for a packet, conjunctions included.
fn find<'a>(bridge: &'a Bridge, table: u8, key: &FlowKey) -> Option<&'a Arc<Rule>> {
    let is_clause = |rule: &Rule| rule.spec.actions.iter().any(|action| matches!(action, Action::Conjunction(_)));
    let of_table = || bridge.tables.iter().filter(|rule| rule.spec.table.get() == table);
    let hard = |key: &FlowKey| {
        let matching = of_table().filter(|rule| !is_clause(rule) && rule.spec.matches.matches(key));
        matching.max_by_key(|rule| rule.spec.priority)
    };
    let best = hard(key);
    let clauses: Vec<_> = of_table().filter(|rule| is_clause(rule) && rule.spec.matches.matches(key)).collect();
    let mut priorities: Vec<u16> = clauses.iter().map(|rule| rule.spec.priority).collect();
    priorities.sort_unstable_by(|a, b| b.cmp(a));
    priorities.dedup();
    for priority in priorities {
        if best.is_some_and(|rule| rule.spec.priority > priority) {
            break;
        }
        let at = clauses.iter().filter(|rule| rule.spec.priority == priority);
        let parts: Vec<_> = at
            .flat_map(|rule| rule.spec.actions.iter())
            .filter_map(|action| if let Action::Conjunction(part) = action { Some(*part) } else { None })
            .collect();
        let mut ids: Vec<u32> = parts.iter().map(|part| part.id).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let of_id = || parts.iter().filter(|part| part.id == id);
            let clauses = of_id().next().map_or(0, |part| part.clauses);
            if !(0..clauses).all(|clause| of_id().any(|part| part.clause == clause)) {
                continue;
            }
            let mut with_id = *key;
            with_id.set(slot::CONJ_ID, id.into());
            if let Some(rule) = hard(&with_id) {
                return Some(rule);
            }
        }
    }
    best
}
