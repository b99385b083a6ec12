//! Flow tables and groups as text, in parts that can be left out one by one: what is given to Open vSwitch, and read by
//! us into a model.

use super::{PATCH, PORTS, dp_port};
use sluice_flows::action::{GroupId, MeterId};
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model, VlanMode};
use sluice_flows::field::Field;
use sluice_flows::group::{Bucket, Group, GroupKind, Selection};
use sluice_flows::meter::{Meter, MeterBand, MeterSpec, MeterUnit};
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::text::{Names, parse_actions, parse_flow};
use sluice_flows::{Owner, PortNo};
use std::fmt::{self, Display};
use std::sync::Arc;

/// Meters of each bridge: 1 to this.
pub const METERS: u32 = 2;
/// Bridges of a program.
pub const BRIDGES: usize = 2;

/// One flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowLine {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Words of its match, and `cookie=` and the like.
    pub matches: Vec<String>,
    /// Its actions.
    pub actions: Vec<String>,
}

impl Display for FlowLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table={},priority={}", self.table, self.priority)?;
        self.matches.iter().try_for_each(|word| write!(f, ",{word}"))?;
        match self.actions[..] {
            [] => f.write_str(",actions=drop"),
            _ => write!(f, ",actions={}", self.actions.join(",")),
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLine {
    /// Its number.
    pub id: u32,
    /// `all`, `select`, `indirect` or `ff`.
    pub kind: String,
    /// Words such as `selection_method=hash`.
    pub options: Vec<String>,
    /// Its buckets.
    pub buckets: Vec<BucketLine>,
}

/// One bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketLine {
    /// Words such as `weight:1`.
    pub options: Vec<String>,
    /// Its actions.
    pub actions: Vec<String>,
}

impl Display for GroupLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group_id={},type={}", self.id, self.kind)?;
        self.options.iter().try_for_each(|word| write!(f, ",{word}"))?;
        for bucket in &self.buckets {
            f.write_str(",bucket=")?;
            bucket.options.iter().try_for_each(|word| write!(f, "{word},"))?;
            match bucket.actions[..] {
                [] => f.write_str("actions=drop")?,
                _ => write!(f, "actions={}", bucket.actions.join(","))?,
            }
        }
        Ok(())
    }
}

/// The parts of a list between the commas outside parentheses.
pub fn parts(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn actions(text: &str) -> Vec<String> {
    parts(text).filter(|action| *action != "drop").map(str::to_owned).collect()
}

impl FlowLine {
    /// Takes a flow's text apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let (head, list) = text.split_once("actions=").ok_or_else(|| format!("no actions: {text}"))?;
        let mut line = Self { priority: 0x8000, actions: actions(list), ..Self::default() };
        for word in parts(head) {
            let number = |text: &str| text.parse::<u16>().map_err(|_| format!("no number: {word}"));
            match word.split_once('=') {
                Some(("table", n)) => line.table = number(n)? as u8,
                Some(("priority", n)) => line.priority = number(n)?,
                _ => line.matches.push(word.to_owned()),
            }
        }
        Ok(line)
    }
}

impl GroupLine {
    /// Takes a group's text apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut buckets = text.split(",bucket=");
        let mut line = Self { id: 0, kind: String::new(), options: Vec::new(), buckets: Vec::new() };
        for word in parts(buckets.next().unwrap_or_default()) {
            match word.split_once('=') {
                Some(("group_id", n)) => line.id = n.parse().map_err(|_| format!("no number: {word}"))?,
                Some(("type", kind)) => line.kind = kind.to_owned(),
                _ => line.options.push(word.to_owned()),
            }
        }
        for bucket in buckets {
            let (head, list) = bucket.split_once("actions=").ok_or_else(|| format!("no actions: {bucket}"))?;
            let options = parts(head).map(str::to_owned).collect();
            line.buckets.push(BucketLine { options, actions: actions(list) });
        }
        Ok(line)
    }

    /// The group as a model has it.
    ///
    /// # Errors
    /// The word that is not known.
    pub fn group(&self) -> Result<Group, String> {
        let kind = match self.kind.as_str() {
            "all" => GroupKind::All,
            "select" => GroupKind::Select,
            "indirect" => GroupKind::Indirect,
            "ff" | "fast_failover" => GroupKind::FastFailover,
            other => return Err(format!("no kind of group: {other}")),
        };
        let buckets: Result<Vec<_>, _> = (0..).zip(&self.buckets).map(|(id, line)| line.bucket(id)).collect();
        Ok(Group {
            id: GroupId(self.id),
            kind,
            selection: self.selection()?,
            buckets: buckets?.into(),
            owner: Owner::user(),
            created: Millis(0),
            stats: Arc::default(),
        })
    }

    fn selection(&self) -> Result<Selection, String> {
        let mut selection = Selection::Default;
        for word in &self.options {
            if let Some(param) = word.strip_prefix("selection_method_param=") {
                let value = param.parse().map_err(|_| format!("no number: {word}"))?;
                match &mut selection {
                    Selection::Hash { param, .. } | Selection::DpHash { param } => *param = value,
                    Selection::Default => return Err(format!("no method before {word}")),
                }
            } else if let Some(names) = word.strip_prefix("fields(") {
                let names = parts(names.trim_end_matches(')'));
                let known = |name: &str| Field::from_name(name).ok_or_else(|| format!("no field: {name}"));
                let list: Result<Box<[_]>, _> = names.map(|n| known(n).map(|f| (f, f.slot().max()))).collect();
                let Selection::Hash { fields, .. } = &mut selection else { return Err(format!("no hash: {word}")) };
                *fields = list?;
            } else {
                selection = match word.as_str() {
                    "selection_method=hash" => Selection::Hash { param: 0, fields: Box::default() },
                    "selection_method=dp_hash" => Selection::DpHash { param: 0 },
                    _ => return Err(format!("unknown word of a group: {word}")),
                };
            }
        }
        Ok(selection)
    }
}

impl BucketLine {
    fn bucket(&self, id: u32) -> Result<Bucket, String> {
        let list = parse_actions(&self.actions.join(","), Names::NONE).map_err(|e| e.to_string())?;
        let actions = Arc::from(list.to_vec());
        let (weight, stats) = (1, Arc::default());
        let mut bucket = Bucket { id, weight, watch_port: None, watch_group: None, actions, stats };
        for word in &self.options {
            let (name, number) = word.split_once([':', '=']).ok_or_else(|| format!("unknown word: {word}"))?;
            let number: u32 = number.parse().map_err(|_| format!("no number: {word}"))?;
            match name {
                "bucket_id" => bucket.id = number,
                "weight" => bucket.weight = number as u16,
                "watch_port" => bucket.watch_port = Some(PortNo(number as u16)),
                "watch_group" => bucket.watch_group = Some(GroupId(number)),
                _ => return Err(format!("unknown word of a bucket: {word}")),
            }
        }
        Ok(bucket)
    }
}

/// The flows and groups of two bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Flows of each bridge.
    pub flows: [Vec<FlowLine>; BRIDGES],
    /// Groups of each bridge.
    pub groups: [Vec<GroupLine>; BRIDGES],
}

impl Program {
    /// The program as a model: of two bridges with [`PORTS`] trunk ports each and their own ports, joined by a patch,
    /// with the meters 1 to [`METERS`]. The datapath number of port P of bridge B is 10 x B + P.
    ///
    /// # Errors
    /// What we do not take of it.
    pub fn model(&self) -> Result<Model, String> {
        let mut model = bare_model(true);
        for ((id, flows), groups) in [BridgeId(0), BridgeId(1)].into_iter().zip(&self.flows).zip(&self.groups) {
            let mut bridge = Bridge::clone(model.bridge(id).ok_or("bridges are there")?);
            for line in flows {
                let text = line.to_string();
                let flow = parse_flow(&text, Names::NONE).map_err(|e| format!("{text}: {e}"))?;
                bridge.tables.insert(Arc::new(Rule::new(flow.value, Millis(0))));
            }
            for line in groups {
                let group = line.group().map_err(|e| format!("{line}: {e}"))?;
                bridge.groups.insert(group.id, Arc::new(group));
            }
            model.bridges.insert(id, Arc::new(bridge));
        }
        Ok(model)
    }
}

/// A model as of [`Program::model`], without flows and groups; without the bridges' own ports unless `local`.
pub(super) fn bare_model(local: bool) -> Model {
    let mut model = Model::default();
    for id in [BridgeId(0), BridgeId(1)] {
        let ports = (1..=PORTS).chain(local.then_some(PortNo::LOCAL.0)).map(|no| bridge_port(id, no));
        let ports = ports.map(|p| (p.no, Arc::new(p))).collect();
        let meters = (1..=METERS).map(|n| (MeterId(n), Arc::new(meter(n)))).collect();
        let bridge = Bridge { ports, meters, ..Bridge::new(id, format!("br{}", id.0)) };
        model.ports.extend(bridge.ports.values().map(|p| (p.dp, (id, p.no))));
        model.bridges.insert(id, Arc::new(bridge));
    }
    model
}

fn meter(id: u32) -> Meter {
    let bands = vec![MeterBand { rate: 1000, burst_size: 0 }];
    let (unit, owner) = (MeterUnit::Pktps, Owner::user());
    Meter::new(MeterSpec { id: MeterId(id), unit, burst: false, stats: false, bands, owner }, Millis(0))
}

/// Whether a generated model's port with this number is protected.
pub const fn is_protected(no: u16) -> bool {
    matches!(no, 2 | 3)
}

fn bridge_port(bridge: BridgeId, no: u16) -> BridgePort {
    let peer = match (bridge.0, no) {
        (0, PATCH) => Some((BridgeId(1), PortNo(1))),
        (1, 1) => Some((BridgeId(0), PortNo(PATCH))),
        _ => None,
    };
    BridgePort {
        no: PortNo(no),
        name: format!("p{no}").into(),
        dp: dp_port(bridge.0, no),
        vlan: VlanMode::default(),
        up: no != PORTS,
        no_flood: no == 3,
        protected: is_protected(no),
        peer,
        tunnel: None,
    }
}
