//! The way of one packet from host to host: a trace for each bridge that it comes to by a wire or a tunnel.

use super::super::json::Out;
use super::super::{Traced, ask};
use super::{Endpoint, Fate};
use crate::client::Client;
use crate::failure::Failure;
use crate::lab::{self, Crossing, State};
use sluice_flows::explain::Options;
use std::collections::VecDeque;

/// Most traces of one packet. A packet that is flooded goes many ways, and one that is in a loop goes for ever.
const MAX_HOPS: usize = 64;

/// A trace of the packet where it came in, and how it came there.
struct Hop {
    traced: Traced,
    bridge: String,
    /// Port that it came in by.
    port: u16,
    /// The hop before, and the way from there.
    from: Option<(usize, Crossing)>,
}

/// Every trace of a packet, in order.
pub(super) struct Path {
    hops: Vec<Hop>,
    /// The hop in which it gets to where it should.
    last: Option<usize>,
    /// The links of the two hosts, where they are wires.
    ways: [Option<String>; 2],
    /// It goes straight to the other host, not to a gateway.
    direct: bool,
}

impl Path {
    /// Traces the packet from bridge to bridge.
    pub(super) fn follow(
        client: &Client,
        state: &State,
        from: &Endpoint,
        to: &Endpoint,
        packet: &str,
        options: &Options,
    ) -> Result<Self, Failure> {
        let crossings = lab::crossings(&state.topology);
        let (first, end) = ((from.switch.clone(), from.port), (to.switch.clone(), to.port));
        let way = |found: Option<&Crossing>| found.map(|c| c.way.clone());
        let ways = [way(crossings.iter().find(|c| c.to == first)), way(crossings.iter().find(|c| c.from == end))];
        let direct = packet.contains(&format!("dl_dst={}", to.mac));
        let mut path = Self { hops: Vec::new(), last: None, ways, direct };
        let mut due = VecDeque::from([(first.0.clone(), first.1, packet.to_owned(), None)]);
        while let Some((bridge, port, packet, from)) = due.pop_front() {
            let Some(traced) = ask(client, &bridge, &[packet], options)?.pop() else { break };
            let index = path.hops.len();
            for out in &traced.outputs {
                let Some(crossing) = crossings.iter().find(|c| !c.to_host && is_at(out, &c.from)) else {
                    continue;
                };
                if index + due.len() + 1 < MAX_HOPS {
                    let ((bridge, port), packet) = (crossing.to.clone(), &out.packet);
                    let packet = format!("in_port={port},{packet}");
                    due.push_back((bridge, port, packet, Some((index, crossing.clone()))));
                }
            }
            let arrives = traced.outputs.iter().any(|out| is_at(out, &end));
            path.hops.push(Hop { traced, bridge, port, from });
            if arrives {
                path.last = path.last.or(Some(index));
            }
        }
        Ok(path)
    }

    /// Whether the packet gets to where it should; `None` if it is dropped on every way.
    pub(super) fn arrives(&self) -> Option<bool> {
        let dropped = self.hops.iter().any(|hop| hop.traced.is_dropped());
        if self.last.is_none() && dropped { None } else { Some(self.last.is_some()) }
    }

    /// What becomes of the packet, in a word.
    pub(super) fn fate(&self) -> Fate {
        let dropped = self.hops.iter().find(|hop| hop.traced.is_dropped()).filter(|_| self.last.is_none());
        match dropped {
            Some(hop) => Fate::Dropped {
                reason: hop.traced.reason.clone().unwrap_or_default(),
                rule: hop.traced.rule.as_ref().map(|rule| (rule.owner.clone(), rule.priority)),
            },
            None if self.last.is_some() => Fate::Arrives,
            None => Fate::Elsewhere,
        }
    }

    /// The bridges that it comes to, in order, with those behind patches.
    pub(super) fn bridges(&self) -> Vec<String> {
        // Until it is where it should be: what is flooded goes on elsewhere.
        let hops = self.hops.iter().take(self.last.map_or(self.hops.len(), |last| last + 1));
        let lines = hops.flat_map(|hop| hop.traced.walk.lines());
        let mut bridges = Vec::new();
        for name in lines.filter_map(|line| line.trim().strip_prefix("bridge(\"")?.strip_suffix("\")")) {
            if !bridges.iter().any(|known| known == name) {
                bridges.push(name.to_owned());
            }
        }
        bridges
    }

    /// The traces.
    pub(super) fn into_traced(self) -> Vec<Traced> {
        self.hops.into_iter().map(|hop| hop.traced).collect()
    }

    /// The answer in one line.
    pub(super) fn headline(&self, from: &Endpoint, to: &Endpoint) -> String {
        match self.last.and_then(|last| self.hops.get(last).map(|hop| (last, hop))) {
            Some((_, hop)) if hop.from.is_none() && self.ways == [None, None] => delivered(hop, from, to),
            Some((last, _)) => self.crossed(last, from, to),
            None => self.lost(from, to),
        }
    }

    /// The packet came over wires or tunnels.
    fn crossed(&self, last: usize, from: &Endpoint, to: &Endpoint) -> String {
        let mut parts = vec![to.host.clone()];
        parts.extend(self.ways[1].clone());
        let mut leaves: Option<&Crossing> = None;
        let mut next = self.hops.get(last);
        // Every hop comes from one before it.
        while let Some(hop) = next {
            parts.push(self.station(hop, leaves, from, to));
            parts.extend(hop.from.iter().map(|(_, crossing)| crossing.way.clone()));
            leaves = hop.from.as_ref().map(|(_, crossing)| crossing);
            next = hop.from.as_ref().and_then(|(index, _)| self.hops.get(*index));
        }
        parts.extend(self.ways[0].clone());
        parts.push(from.host.clone());
        parts.reverse();
        format!("DELIVERED  {}", parts.join(" -> "))
    }

    /// A bridge on the way: how the packet came there, and why it left as it did: `s1 [port 1, vlan red, learned h2 via
    /// t1]`.
    fn station(&self, hop: &Hop, leaves: Option<&Crossing>, from: &Endpoint, to: &Endpoint) -> String {
        let mut notes = Vec::new();
        match hop.from.as_ref().map(|(_, crossing)| crossing.tunnel.as_ref()) {
            Some(Some(number)) => notes.push(format!("decap{number}")),
            _ => notes.push(format!("port {}", hop.port)),
        }
        if hop.from.is_none() {
            notes.extend(from.vlan.as_ref().map(|vlan| format!("vlan {vlan}")));
        }
        if let Some(crossing) = leaves {
            let walk = &hop.traced.walk;
            let how = if self.direct && walk.contains("forwarding to learned port") {
                format!("learned {} ", to.host)
            } else if walk.contains("flooding") {
                "flooded ".to_owned()
            } else {
                String::new()
            };
            notes.push(format!("{how}via {}", crossing.name));
        }
        format!("{} [{}]", hop.bridge, notes.join(", "))
    }

    fn lost(&self, from: &Endpoint, to: &Endpoint) -> String {
        let several = self.hops.len() > 1;
        if let Some(hop) = self.hops.iter().find(|hop| hop.traced.is_dropped()) {
            let reason = hop.traced.reason.as_deref().unwrap_or("drop");
            let at = if several { format!(" at {}", hop.bridge) } else { String::new() };
            return format!("DROPPED  {} -> {}: {reason}{at}{}", from.host, to.host, by(hop));
        }
        let Some(hop) = self.hops.last() else { return format!("NOT DELIVERED  {} -> {}", from.host, to.host) };
        let ways = ways(hop);
        let ways = if ways.is_empty() { "the controller".to_owned() } else { ways.join(", ") };
        format!("NOT DELIVERED  {} -> {ways}, not to {}{}", from.host, to.host, by(hop))
    }
}

fn is_at(out: &Out, (bridge, port): &(String, u16)) -> bool {
    out.port == u32::from(*port) && out.bridge.as_ref() == Some(bridge)
}

/// The rule that decided.
fn by(hop: &Hop) -> String {
    match &hop.traced.rule {
        Some(rule) => format!(" by {} (table {}, priority {})", rule.owner, rule.table, rule.priority),
        None => String::new(),
    }
}

fn ways(hop: &Hop) -> Vec<String> {
    let way = |out: &Out| format!("{}:{}", out.bridge.as_deref().unwrap_or("-"), out.port);
    hop.traced.outputs.iter().map(way).collect()
}

/// The packet crossed patches only.
fn delivered(hop: &Hop, from: &Endpoint, to: &Endpoint) -> String {
    let others = match hop.traced.outputs.len() {
        1 => String::new(),
        n => format!(" (flooded to {n} ports)"),
    };
    let (a, b) = (format!("{}:{}", from.switch, from.port), format!("{}:{}", to.switch, to.port));
    format!("DELIVERED  {} -> {a} -> {b} -> {}{others}{}", from.host, to.host, by(hop))
}
