//! The whole account of one packet, which an offline trace and a trace of a running switch print alike.

use super::{Exit, effective, exits, show_walk};
use crate::bridge::Model;
use crate::datapath::Translation;
use crate::key::{FlowKey, slot};
use crate::port::DpPort;
use crate::rule::Rule;
use crate::text::{Names, show_datapath_actions, show_megaflow, show_packet};
use crate::translate::{MacLookup, TraceLog, translate};
use crate::verdict::Verdict;
use std::fmt::Write;
use std::sync::Arc;

/// The account of one packet.
#[derive(Clone, Debug)]
pub struct Report {
    /// The packet as it came in; its `in_port` is the OpenFlow number.
    pub packet: FlowKey,
    /// The packet as a flow.
    pub flow: String,
    /// The walk through the tables, one step a line. Its last line starts with `Datapath actions: `.
    pub walk: String,
    /// What became of the packet.
    pub verdict: Verdict,
    /// The rule that decided: the last that matched.
    pub rule: Option<Arc<Rule>>,
    /// Where it leaves, in order.
    pub exits: Vec<Exit>,
    /// The flow that stands for every packet of which all this is true.
    pub megaflow: String,
    /// What is done to it in the wording of OVS's datapath, without changes that have no effect on this very packet;
    /// `drop` when there is nothing.
    pub datapath_actions: String,
}

impl Report {
    /// Traces the packet `key` that comes in by `ingress`. Nothing is learned, counted or sent. Ports are written by
    /// name where `names` is true, else by number, and in the datapath actions by the datapath's number.
    pub fn trace(model: &Model, macs: &impl MacLookup, ingress: DpPort, key: &FlowKey, names: bool) -> Self {
        let mut log = TraceLog::default();
        let translation = translate(model, macs, ingress, key, &mut log);
        Self::new(model, ingress, key, &translation, &log, names)
    }

    /// The account of a translation that was made with `log` as its sink; see [`Report::trace`].
    pub fn new(
        model: &Model,
        ingress: DpPort,
        key: &FlowKey,
        translation: &Translation,
        log: &TraceLog,
        names: bool,
    ) -> Self {
        let entry = model.ports.get(&ingress);
        let mut packet = *key;
        packet.set(slot::IN_PORT, entry.map_or(0, |(_, no)| no.0.into()));
        let bridge = entry.filter(|_| names).and_then(|(bridge, _)| model.bridge(*bridge));
        let words = bridge.map(|bridge| Names::of_bridge(bridge)).unwrap_or_default();
        let actions = effective(&translation.actions, &packet);
        let name = |dp| model.port(dp).filter(|_| names).map(|(_, port)| &*port.name);
        let mut report = Self {
            packet,
            flow: show_packet(&packet, &words).to_string(),
            walk: String::new(),
            verdict: translation.verdict,
            rule: translation.decider().cloned(),
            exits: exits(model, &translation.actions, &packet),
            megaflow: show_megaflow(&packet, &translation.mask, &words).to_string(),
            datapath_actions: show_datapath_actions(&actions, &packet, name).to_string(),
        };
        report.walk = report.tell(model, log, names);
        report
    }

    fn tell(&self, model: &Model, log: &TraceLog, names: bool) -> String {
        let mut out = format!("Flow: {}\n{}", self.flow, show_walk(model, log, names));
        // Writing to a string cannot fail.
        _ = write!(out, "Megaflow: {}\nVerdict: {}", self.megaflow, self.verdict);
        if let Verdict::Drop(reason) = self.verdict {
            _ = write!(out, ":{}", reason.explanation());
        }
        _ = write!(out, "\nDatapath actions: {}", self.datapath_actions);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{Bridge, BridgeId, BridgePort, VlanMode};
    use crate::port::PortNo;
    use crate::rule::Millis;
    use crate::table::Tables;
    use crate::text::{parse_flow_file, parse_packet};
    use crate::translate::NoMacs;
    use crate::verdict::DropReason;

    /// A bridge `br0` with ports 1 to 3 (datapath numbers are port numbers) and the flows of this file.
    fn model(flows: &str) -> Model {
        let id = BridgeId(0);
        let mut tables = Tables::default();
        for change in parse_flow_file("t.flows", flows, &Names::new()).unwrap().value {
            tables.apply(&change, Millis(0)).unwrap();
        }
        let mut model = Model::default();
        let mut bridge = Bridge { tables, ..Bridge::new(id, "br0") };
        for no in 1..=3 {
            let (no, dp) = (PortNo(no), DpPort(no.into()));
            let name = format!("p{no}").into();
            let port = BridgePort { no, name, dp, vlan: VlanMode::default(), up: true, no_flood: false, peer: None };
            bridge.ports.insert(no, Arc::new(port));
            model.ports.insert(dp, (id, no));
        }
        model.bridges.insert(id, Arc::new(bridge));
        model
    }

    fn trace(flows: &str, packet: &str, names: bool) -> Report {
        let key = parse_packet(packet, &Names::new()).unwrap();
        Report::trace(&model(flows), &NoMacs, DpPort(key.get(slot::IN_PORT) as u32), &key, names)
    }

    #[test]
    fn the_walk_ends_with_megaflow_verdict_and_datapath_actions() {
        let flows = "ip,nw_dst=10.0.0.0/8 actions=mod_dl_dst:02:00:00:00:00:02,dec_ttl,output:2";
        let report = trace(flows, "in_port=1,tcp,dl_dst=02:00:00:00:00:02,nw_dst=10.1.2.3,nw_ttl=64,tp_dst=80", false);
        let (lines, want) = (report.walk.lines().rev().take(3).collect::<Vec<_>>(), report.datapath_actions.as_str());
        // The destination is what it was, so setting it does nothing here.
        assert_eq!(want, "set(ipv4(ttl=63)),2");
        assert_eq!(lines[0], format!("Datapath actions: {want}"));
        assert_eq!(lines[1], "Verdict: forward");
        assert!(lines[2].starts_with("Megaflow: recirc_id=0,eth,ip,in_port=1,"), "{}", report.walk);
        assert!(report.walk.starts_with("Flow: tcp,in_port=1,"), "{}", report.walk);
        assert!(report.walk.contains("priority 32768  [file:t.flows:1]"), "{}", report.walk);
        assert_eq!(report.exits.len(), 1);
    }

    #[test]
    fn a_drop_says_its_reason() {
        for (flows, packet, reason) in [
            ("ip actions=drop", "in_port=1,ip", DropReason::RuleDrop),
            ("arp actions=output:2", "in_port=1,ip", DropReason::NoRule),
            ("actions=output:2", "in_port=7,ip", DropReason::NoPort),
        ] {
            let report = trace(flows, packet, false);
            assert_eq!(report.verdict, Verdict::Drop(reason));
            assert_eq!(report.walk.lines().last(), Some("Datapath actions: drop"), "{}", report.walk);
            assert!(report.walk.contains(&format!("\nVerdict: drop ({reason}): ")), "{}", report.walk);
        }
    }

    #[test]
    fn ports_are_named_when_that_is_asked_for() {
        let report = trace("in_port=1 actions=output:2", "in_port=1", true);
        assert_eq!(report.datapath_actions, "p2");
        assert!(report.walk.contains(" 0. in_port=p1, priority 32768"), "{}", report.walk);
    }
}
