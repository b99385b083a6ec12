//! Mirrors: random programs with a mirror in front make the same copies as in OVS.
//!
//! Patch ports are left out of what is selected, since OVS does not mirror them, and so is `check_pkt_larger`, behind whose first
//! way OVS makes no copy any more. RSPAN is, because OVS sends to its ports in the order of a hash.

use crate::case::{Packet, compare};
use crate::ovs::Ovs;
use crate::{Count, install, rare};
use rand::RngExt;
use sluice_flows::bridge::{BridgeId, Model, VlanId};
use sluice_flows::key::FlowKey;
use sluice_flows::mirror::{MirrorOutput, MirrorSpec};
use sluice_tests::events::Switch;
use sluice_tests::generate::language::{FEW, Version, program, with_arrival};
use sluice_tests::generate::{packet, seeded};
use sluice_tests::ovs::Daemons;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Programs for each mirror.
const PROGRAMS: u64 = 4;
/// Packets for each.
const PACKETS: usize = 50;

/// A mirror in both languages, of ports of the first bridge by their numbers.
struct Case {
    all: bool,
    src: &'static [u16],
    dst: &'static [u16],
    vlans: &'static [u16],
    output: u16,
    snaplen: Option<u16>,
}

const CASES: [Case; 5] = [
    Case { all: true, src: &[], dst: &[], vlans: &[], output: 3, snaplen: None },
    Case { all: false, src: &[1, 2], dst: &[], vlans: &[], output: 3, snaplen: Some(80) },
    Case { all: false, src: &[], dst: &[1, 2, 3], vlans: &[], output: 5, snaplen: None },
    Case { all: false, src: &[], dst: &[1, 2], vlans: &[], output: 3, snaplen: None },
    Case { all: false, src: &[1, 2, 3], dst: &[1, 2], vlans: &[0, 1], output: 3, snaplen: None },
];

impl Case {
    /// Arguments of `ovs-vsctl` that make it the only mirror.
    fn vsctl(&self) -> Vec<String> {
        let mut args = vec!["clear bridge br0 mirrors".to_owned()];
        let named: BTreeSet<_> = self.src.iter().chain(self.dst).chain([&self.output]).collect();
        args.extend(named.into_iter().map(|no| format!("-- --id=@p{no} get port b0p{no}")));
        args.push("-- --id=@m create mirror name=m".to_owned());
        let ports = |ports: &[u16]| ports.iter().map(|no| format!("@p{no}")).collect::<Vec<_>>().join(",");
        for (column, value) in [("select-src-port", ports(self.src)), ("select-dst-port", ports(self.dst))] {
            if !value.is_empty() {
                args.push(format!("{column}={value}"));
            }
        }
        if !self.vlans.is_empty() {
            let vlans: Vec<_> = self.vlans.iter().map(u16::to_string).collect();
            args.push(format!("select-vlan={}", vlans.join(",")));
        }
        args.extend(self.snaplen.map(|len| format!("snaplen={len}")));
        args.push(format!("select-all={} output-port=@p{} -- set bridge br0 mirrors=@m", self.all, self.output));
        args.join(" ").split(' ').map(str::to_owned).collect()
    }

    fn add_to(&self, model: &mut Model) {
        let names = |ports: &[u16]| ports.iter().map(|no| Arc::from(format!("p{no}"))).collect();
        let spec = MirrorSpec {
            name: "m".into(),
            select_all: self.all,
            select_src_port: names(self.src),
            select_dst_port: names(self.dst),
            select_vlan: self.vlans.iter().filter_map(|id| VlanId::new(*id)).collect(),
            output: MirrorOutput::Port(format!("p{}", self.output).into()),
            snaplen: self.snaplen,
        };
        let bridge = model.bridges.get_mut(&BridgeId(0)).expect("a first bridge");
        Arc::make_mut(bridge).set_mirror(spec).expect("a good mirror");
    }
}

/// Whether a packet makes a copy.
fn is_copied(model: &Model, key: &FlowKey) -> bool {
    let stats = &model.bridges[&BridgeId(0)].mirrors[0].stats;
    let mut switch = Switch::new(model, 0);
    switch.process(key);
    switch.translations.iter().any(|(_, made)| made.buckets.iter().any(|counted| Arc::ptr_eq(counted, stats)))
}

#[test]
fn mirrors_make_the_copies_that_they_make_in_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut ovs = Ovs::start();
    let mut failures = Vec::new();
    for (number, mirror) in CASES.iter().enumerate() {
        ovs.vsctl(&mirror.vsctl());
        let (mut copied, mut compared) = (0, 0);
        for seed in 0..PROGRAMS {
            let mut rng = seeded(1000 * (number as u64 + 1) + seed);
            let rules = rng.random_range(5..20);
            let mut few: [FlowKey; FEW] = std::array::from_fn(|_| {
                let key = packet(&mut rng);
                with_arrival(&mut rng, key)
            });
            few[0] = rare(&mut rng);
            let version = Version::OpenFlow15;
            let mut made = program(&mut rng, version, rules, &few);
            let checks = |action: &String| action.contains("check_pkt_larger");
            made.program.flows.iter_mut().for_each(|flows| flows.retain(|flow| !flow.actions.iter().any(checks)));
            install(&mut ovs, version, &mut made, &mut Count::default());
            let mut model = made.program.model().expect("what OVS takes");
            mirror.add_to(&mut model);
            let lasting = made.program.flows.iter().flatten().any(|f| f.actions.iter().any(|a| a.starts_with("learn")));
            for n in 0..PACKETS {
                let packet = Packet::random(&mut rng, &few, !lasting);
                let outcome = compare(&mut ovs, &model, &packet);
                compared += usize::from(!outcome.excused);
                copied += usize::from(is_copied(&model, &packet.key));
                if let Some(difference) = outcome.difference {
                    let flows: Vec<_> = made.program.flows.iter().flatten().map(ToString::to_string).collect();
                    failures.push(format!(
                        "mirror {number}, seed {seed}, packet {n}: {}\n{difference}\n{}\n{}",
                        packet.flow,
                        flows.join("\n"),
                        difference.trace
                    ));
                    break;
                }
            }
        }
        println!("mirror {number}: {copied} copied, {compared} compared");
        assert!(compared > 100, "{compared} packets compared");
        if mirror.output != 5 {
            assert!(copied > 10, "only {copied} packets were copied");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
