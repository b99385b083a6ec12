//! What would happen to one packet, as programs read it.

use serde::Serialize;
use serde_json::{Map, Value};
use sluice_proto::v1::{TraceOutput, TracePass, TraceReply, TraceRule, TraceStep};

/// What would happen to one packet, as every way to ask prints it.
#[derive(Debug, Serialize)]
pub(super) struct Traced {
    /// The packet as it was typed.
    packet: String,
    verdict: String,
    pub(super) reason: Option<String>,
    pub(super) rule: Option<Rule>,
    /// Of all passes, in order.
    pub(super) outputs: Vec<Out>,
    megaflow: String,
    datapath_actions: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learned: Vec<String>,
    passes: Vec<Pass>,
    #[serde(skip)]
    pub(super) walk: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Rule {
    pub(super) table: u32,
    pub(super) priority: u32,
    pub(super) r#match: String,
    cookie: u64,
    pub(super) owner: String,
    #[serde(skip)]
    pub(super) actions: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Out {
    pub(super) port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<String>,
    /// What differs from the packet that came in; tags as `vlans`, the list of their VLAN IDs, the outer one first.
    pub(super) set: Map<String, Value>,
    /// Every VLAN tag, the outer one first.
    tags: Vec<Tag>,
    /// What has to be true of the packet's length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    when: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_len_bytes: Option<u32>,
    /// The packet as it is there, without a port.
    #[serde(skip)]
    pub(super) packet: String,
}

#[derive(Debug, Serialize)]
struct Tag {
    tpid: u32,
    vid: u32,
    pcp: u32,
}

/// One pass through the tables.
#[derive(Debug, Serialize)]
pub(super) struct Pass {
    #[serde(skip_serializing_if = "String::is_empty")]
    cause: String,
    packet: String,
    steps: Vec<Step>,
    final_flow: String,
    megaflow: String,
    verdict: String,
    reason: Option<String>,
    datapath_actions: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    depth: u32,
    kind: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Rule>,
    /// What the lookup looked at beyond its rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    read: String,
}

impl Traced {
    /// What a switch, or the tables of a file, say of the packet that was typed as `packet`.
    pub(super) fn new(packet: &str, reply: TraceReply) -> Self {
        Self {
            packet: packet.to_owned(),
            verdict: reply.verdict,
            reason: reason(reply.reason),
            rule: reply.rule.map(Rule::from),
            outputs: reply.outputs.into_iter().map(Out::from).collect(),
            megaflow: reply.megaflow,
            datapath_actions: reply.datapath_actions,
            learned: reply.learned,
            passes: reply.passes.into_iter().map(Pass::from).collect(),
            walk: reply.walk,
        }
    }

    /// The same without the names of the bridge and of its ports, which mean nothing where there is only a file.
    pub(super) fn without_names(mut self) -> Self {
        for out in &mut self.outputs {
            (out.name, out.bridge) = (None, None);
        }
        self
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.verdict == "drop"
    }

    /// Every pass through the tables, in order.
    pub(super) fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// What stands behind `kind` in the owner of the last rule that it matched with such an owner.
    pub(super) fn rule_owner(&self, kind: &str) -> Option<&str> {
        let steps = self.passes.iter().flat_map(|pass| &pass.steps).rev();
        steps.filter_map(|step| step.rule.as_ref()).find_map(|rule| rule.owner.strip_prefix(kind))
    }
}

impl Pass {
    /// What happened, in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The packet as it begins.
    pub(super) fn packet(&self) -> &str {
        &self.packet
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.verdict == "drop"
    }
}

fn reason(name: String) -> Option<String> {
    Some(name).filter(|name| !name.is_empty())
}

impl From<TraceRule> for Rule {
    fn from(rule: TraceRule) -> Self {
        let TraceRule { table, priority, r#match, cookie, owner, actions } = rule;
        Self { table, priority, r#match, cookie, owner, actions }
    }
}

impl From<TraceOutput> for Out {
    fn from(output: TraceOutput) -> Self {
        let tags: Vec<_> = output.vlans.into_iter().map(|t| Tag { tpid: t.tpid, vid: t.vid, pcp: t.pcp }).collect();
        let mut set: Map<_, _> = output.set.into_iter().map(|f| (f.field, number_or_text(f.value))).collect();
        if output.vlans_changed {
            set.insert("vlans".to_owned(), tags.iter().map(|t| t.vid).collect());
        }
        Self {
            port: output.port,
            name: Some(output.port_name),
            bridge: Some(output.bridge),
            set,
            tags,
            when: output.when,
            max_len_bytes: output.max_len,
            packet: output.packet,
        }
    }
}

impl From<TracePass> for Pass {
    fn from(pass: TracePass) -> Self {
        Self {
            cause: pass.cause,
            packet: pass.packet,
            steps: pass.steps.into_iter().map(Step::from).collect(),
            final_flow: pass.final_flow,
            megaflow: pass.megaflow,
            verdict: pass.verdict,
            reason: reason(pass.reason),
            datapath_actions: pass.datapath_actions,
        }
    }
}

impl From<TraceStep> for Step {
    fn from(step: TraceStep) -> Self {
        let TraceStep { depth, kind, text, table, rule, read } = step;
        Self { depth, kind, text, table, rule: rule.map(Rule::from), read }
    }
}

/// A value as JSON has it: numbers raw, the rest as flows print it.
fn number_or_text(value: String) -> Value {
    value.parse::<u64>().map_or(Value::String(value), Value::from)
}
