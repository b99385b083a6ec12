//! Random changes, done to a bridge and to a model made of plain maps: both must agree on what is there, on what is
//! refused, and on why flows went.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Flows of one table by port: where they lead, and the cookie.
#[derive(Clone, Debug, Default, PartialEq)]
struct Simple {
    flows: BTreeMap<u16, (Leads, u64)>,
    groups: BTreeMap<u32, Vec<u32>>,
    meters: BTreeMap<u32, usize>,
    max: Option<u32>,
}

/// What a flow of the model does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leads {
    Port,
    Group(u32),
    Meter(u32),
    /// Learns what has this cookie.
    Learns(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Add(u16, Leads, u64),
    Modify(u16, Leads),
    DeleteCookie(u64),
    AddGroup(u32, Vec<u32>),
    DeleteGroup(Option<u32>),
    Insert(u32, u32),
    Remove(u32, u32),
    AddMeter(u32, usize),
    ModifyMeter(u32, usize),
    DeleteMeter(Option<u32>),
    Limit(u32),
}

fn leads() -> impl Strategy<Value = Leads> {
    prop_oneof![
        Just(Leads::Port),
        (0..3u32).prop_map(Leads::Group),
        (1..3u32).prop_map(Leads::Meter),
        (0..3u64).prop_map(Leads::Learns),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u16, leads(), 0..3u64).prop_map(|(port, leads, cookie)| Step::Add(port, leads, cookie)),
        2 => (0..6u16, leads()).prop_map(|(port, leads)| Step::Modify(port, leads)),
        1 => (0..3u64).prop_map(Step::DeleteCookie),
        2 => (0..3u32, prop::collection::vec(0..4u32, 0..3)).prop_map(|(id, buckets)| Step::AddGroup(id, buckets)),
        1 => prop::option::of(0..3u32).prop_map(Step::DeleteGroup),
        1 => (0..3u32, 0..4u32).prop_map(|(id, bucket)| Step::Insert(id, bucket)),
        1 => (0..3u32, 0..4u32).prop_map(|(id, bucket)| Step::Remove(id, bucket)),
        2 => (1..3u32, 0..3usize).prop_map(|(id, bands)| Step::AddMeter(id, bands)),
        1 => (1..3u32, 0..3usize).prop_map(|(id, bands)| Step::ModifyMeter(id, bands)),
        1 => prop::option::of(1..3u32).prop_map(Step::DeleteMeter),
        1 => (0..6u32).prop_map(Step::Limit),
    ]
}

fn spec(port: u16, leads: Leads, cookie: u64) -> FlowSpec {
    let actions = match leads {
        Leads::Port => vec![output(1)],
        Leads::Group(id) => vec![Action::Group(GroupId(id))],
        Leads::Meter(id) => vec![Action::Meter(MeterId(id)), output(1)],
        Leads::Learns(cookie) => vec![learner(TableId::FIRST, cookie)],
    };
    FlowSpec { cookie, ..flow(port, actions) }
}

impl Step {
    fn change(&self) -> BridgeMod {
        let buckets = |ids: &[u32]| ids.iter().map(|id| bucket(Some(*id), output(1))).collect();
        match self {
            Self::Add(port, leads, cookie) => FlowMod::add(spec(*port, *leads, *cookie)).into(),
            Self::Modify(port, leads) => FlowMod::modify_strict(spec(*port, *leads, 0)).into(),
            Self::DeleteCookie(cookie) => {
                FlowMod::delete(FlowFilter { cookie: *cookie, cookie_mask: u64::MAX, ..FlowFilter::all() }).into()
            }
            Self::AddGroup(id, ids) => all_group(*id, buckets(ids)).into(),
            Self::DeleteGroup(id) => GroupMod::Delete(id.map(GroupId)).into(),
            Self::Insert(id, bucket) => {
                let buckets = buckets(&[*bucket]);
                GroupMod::InsertBuckets { group: GroupId(*id), place: BucketPlace::Last, buckets }.into()
            }
            Self::Remove(id, bucket) => {
                GroupMod::RemoveBuckets { group: GroupId(*id), which: BucketChoice::Id(*bucket) }.into()
            }
            Self::AddMeter(id, bands) => MeterMod::Add(meter(*id, *bands)).into(),
            Self::ModifyMeter(id, bands) => MeterMod::Modify(meter(*id, *bands)).into(),
            Self::DeleteMeter(id) => MeterMod::Delete(id.map(MeterId)).into(),
            Self::Limit(max) => limited(*max, false).into(),
        }
    }
}

impl Simple {
    /// Does the step; `None` when it is refused. How many flows went, by reason.
    fn apply(&mut self, step: &Step) -> Option<BTreeMap<&'static str, usize>> {
        let before = self.flows.clone();
        let mut gone = BTreeMap::new();
        match step {
            Step::Add(port, leads, cookie) => self.put(*port, *leads, *cookie)?,
            Step::Modify(port, leads) => {
                let cookie = self.flows.get(port).map_or(0, |(_, cookie)| *cookie);
                self.put(*port, *leads, cookie)?;
            }
            Step::DeleteCookie(cookie) => self.drop_flows("delete", &mut gone, |_, of| of == *cookie),
            Step::AddGroup(id, buckets) => {
                let distinct = buckets.iter().collect::<std::collections::BTreeSet<_>>().len() == buckets.len();
                if self.groups.contains_key(id) || !distinct {
                    return None;
                }
                self.groups.insert(*id, buckets.clone());
            }
            Step::DeleteGroup(id) => {
                self.groups.retain(|other, _| id.is_some_and(|id| id != *other));
                let groups = self.groups.clone();
                let lost = |leads| matches!(leads, Leads::Group(id) if !groups.contains_key(&id));
                self.drop_flows("group_delete", &mut gone, |leads, _| lost(leads));
            }
            Step::Insert(id, bucket) => {
                let buckets = self.groups.get_mut(id).filter(|all| !all.contains(bucket))?;
                buckets.push(*bucket);
            }
            Step::Remove(id, bucket) => {
                let buckets = self.groups.get_mut(id).filter(|all| all.contains(bucket))?;
                buckets.retain(|b| b != bucket);
            }
            Step::AddMeter(id, bands) | Step::ModifyMeter(id, bands) => {
                let there = matches!(step, Step::ModifyMeter(..));
                if *bands == 0 || self.meters.contains_key(id) != there {
                    return None;
                }
                self.meters.insert(*id, *bands);
            }
            Step::DeleteMeter(id) => {
                self.meters.retain(|other, _| id.is_some_and(|id| id != *other));
                let meters = self.meters.clone();
                let lost = |leads| matches!(leads, Leads::Meter(id) if !meters.contains_key(&id));
                self.drop_flows("meter_delete", &mut gone, |leads, _| lost(leads));
            }
            Step::Limit(max) => self.max = Some(*max).filter(|max| *max != 0),
        }
        self.drop_orphans(before, &mut gone);
        Some(gone)
    }

    fn put(&mut self, port: u16, leads: Leads, cookie: u64) -> Option<()> {
        let there = match leads {
            Leads::Group(id) => self.groups.contains_key(&id),
            Leads::Meter(id) => self.meters.contains_key(&id),
            _ => true,
        };
        let full = self.max.is_some_and(|max| self.flows.len() >= max as usize) && !self.flows.contains_key(&port);
        if !there || full {
            return None;
        }
        self.flows.insert(port, (leads, cookie));
        Some(())
    }

    fn drop_flows(
        &mut self,
        reason: &'static str,
        gone: &mut BTreeMap<&'static str, usize>,
        goes: impl Fn(Leads, u64) -> bool,
    ) {
        let count = self.flows.len();
        self.flows.retain(|_, (leads, cookie)| !goes(*leads, *cookie));
        if count != self.flows.len() {
            *gone.entry(reason).or_insert(0) += count - self.flows.len();
        }
    }

    /// Cookies that a flow learned before and none does now take their flows with them, until nothing changes.
    fn drop_orphans(&mut self, mut before: BTreeMap<u16, (Leads, u64)>, gone: &mut BTreeMap<&'static str, usize>) {
        let learned = |flows: &BTreeMap<u16, (Leads, u64)>| -> Vec<u64> {
            flows
                .values()
                .filter_map(|(l, _)| if let Leads::Learns(cookie) = l { Some(*cookie) } else { None })
                .collect()
        };
        loop {
            let now = self.flows.clone();
            let lost: Vec<_> = learned(&before).into_iter().filter(|cookie| !learned(&now).contains(cookie)).collect();
            if lost.is_empty() {
                return;
            }
            before = now;
            self.drop_flows("delete", gone, |_, cookie| lost.contains(&cookie));
        }
    }
}

/// The bridge as the model would say it.
fn simple(bridge: &Bridge, max: Option<u32>) -> Simple {
    let leads = |rule: &Rule| match &rule.spec.actions[0] {
        Action::Group(id) => Leads::Group(id.0),
        Action::Meter(id) => Leads::Meter(id.0),
        Action::Learn(learn) => Leads::Learns(learn.cookie),
        _ => Leads::Port,
    };
    let port = |rule: &Rule| rule.spec.matches.field(Field::UdpDst).0 as u16;
    Simple {
        flows: bridge.tables.iter().map(|r| (port(r), (leads(r), r.spec.cookie))).collect(),
        groups: bridge.groups.keys().map(|id| (id.0, bucket_ids(bridge, id.0))).collect(),
        meters: bridge.meters.iter().map(|(id, meter)| (id.0, meter.spec.bands.len())).collect(),
        max,
    }
}

proptest! {
    #[test]
    fn a_bridge_agrees_with_plain_maps(steps in prop::collection::vec(step(), 1..60)) {
        let (mut bridge, mut model) = (bridge(), Simple::default());
        for step in steps {
            let expected = model.apply(&step);
            let done = bridge.apply(&step.change(), T1);
            prop_assert_eq!(done.is_ok(), expected.is_some(), "{:?}: {:?}", step, done);
            if let (Ok(applied), Some(expected)) = (done, expected) {
                let mut gone = BTreeMap::new();
                for (_, reason) in applied.removed {
                    *gone.entry(reason.name()).or_insert(0) += 1;
                }
                prop_assert_eq!(gone, expected, "{:?}", step);
            }
            prop_assert_eq!(simple(&bridge, model.max), model.clone(), "{:?}", step);
        }
    }
}
