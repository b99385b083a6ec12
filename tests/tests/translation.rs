//! Translation against its oracle, and the soundness of its mask, on seeded random programs and packets.

#![expect(clippy::expect_used, reason = "a panic is a failed test")]

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::datapath::{DpAction, Effect, Translation};
use sluice_flows::field::Field;
use sluice_flows::key::{CT_EST, CT_TRK, FRAME_WORDS, FlowKey, PACKET_WORDS, PIPELINE_WORD, slot};
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::text::{Names, show_datapath_actions, show_flow};
use sluice_flows::translate::{NoMacs, NoTrace, translate};
use sluice_flows::{DpPort, DropReason, Verdict};
use sluice_tests::events::{Event, Switch, tidied};
use sluice_tests::generate::language::{FEW, Version, packet_like, program, with_arrival};
use sluice_tests::generate::{packet, seeded};
use sluice_tests::interpreter::interpret;

const PROGRAMS: u64 = 300;
const PACKETS: usize = 50;
/// What the connection tracker says of every packet.
const TRACKED: u8 = CT_TRK | CT_EST;

/// A program as a model, and packets that its flows match more often than others.
fn model(rng: &mut StdRng, seed: u64) -> (Model, [FlowKey; FEW]) {
    let rules = rng.random_range(5..30);
    let few = std::array::from_fn(|_| {
        let key = packet(rng);
        with_arrival(rng, key)
    });
    let version = if seed.is_multiple_of(4) { Version::OpenFlow10 } else { Version::OpenFlow15 };
    let made = program(rng, version, rules, &few);
    (made.program.model().expect("what was read once reads again"), few)
}

/// Programs to try: more in the nightly run.
fn programs() -> u64 {
    std::env::var("SLUICE_PROGRAMS").map_or(PROGRAMS, |value| value.parse().expect("a number of programs"))
}

fn rules(model: &Model, results: &[(FlowKey, Translation)]) -> Vec<(BridgeId, TableId, u16)> {
    let bridge_of = |rule: &std::sync::Arc<sluice_flows::rule::Rule>| {
        let same = |id: &BridgeId| {
            let tables = &model.bridges[id].tables;
            let found = tables.get_strict(rule.spec.table, rule.spec.priority, &rule.spec.matches);
            found.is_some_and(|found| std::sync::Arc::ptr_eq(found, rule))
        };
        model.bridges.keys().copied().find(same).expect("rules are of some bridge")
    };
    let all = results.iter().flat_map(|(_, result)| &result.rules);
    let mut all: Vec<_> = all.map(|rule| (bridge_of(rule), rule.spec.table, rule.spec.priority)).collect();
    all.sort();
    all
}

fn learned(results: &[(FlowKey, Translation)]) -> Vec<FlowSpec> {
    let effects = results.iter().flat_map(|(_, result)| &result.effects);
    let specs = effects.filter_map(|effect| match effect {
        Effect::Learn(learned) => Some(FlowSpec { owner: sluice_flows::Owner::user(), ..learned.spec.clone() }),
        Effect::FinTimeout { .. } => None,
    });
    specs.collect()
}

/// The rules that matched, and the datapath actions, for people.
fn walked(results: &[(FlowKey, Translation)]) -> String {
    let pass = |(key, result): &(FlowKey, Translation)| {
        let rules = result.rules.iter().map(|rule| show_flow(&rule.spec, None, Names::NONE).to_string() + "\n");
        format!("{}{}\n", rules.collect::<String>(), show_datapath_actions(&result.actions, key, |_| None))
    };
    results.iter().map(pass).collect()
}

fn leaves(event: &Event) -> bool {
    match event {
        Event::Output { .. } => true,
        Event::Copy(inner) => inner.iter().any(leaves),
        Event::Length { larger, otherwise, .. } => larger.iter().chain(otherwise).any(leaves),
        _ => false,
    }
}

#[test]
fn random_programs_do_to_packets_what_the_oracle_does() {
    let (mut sent, mut looped, mut resumed, mut made) = (0, 0, 0, 0);
    for seed in 0..programs() {
        let mut rng = seeded(seed);
        let (model, few) = model(&mut rng, seed);
        for n in 0..PACKETS {
            let packet = packet_like(&mut rng, &few);
            let mut switch = Switch::new(&model, TRACKED);
            let events = switch.process(&packet);
            let first = &switch.translations[0].1;
            let place =
                || format!("seed {seed}, packet {n}: {}", sluice_tests::generate::words::packet(&packet).join(","));
            let Some(fate) = interpret(&model, &packet, TRACKED) else {
                assert_eq!(first.verdict, Verdict::Drop(DropReason::Loop), "{}", place());
                looped += 1;
                continue;
            };
            let events = tidied(events);
            assert_eq!(events, tidied(fate.events), "{}\n{}", place(), walked(&switch.translations));
            let mut theirs = fate.rules;
            theirs.sort();
            assert_eq!(rules(&model, &switch.translations), theirs, "{}", place());
            if switch.translations.len() == 1 {
                assert_eq!(learned(&switch.translations), fate.learned, "{}", place());
            }
            let left = events.iter().any(leaves);
            assert!(!left || switch.translations.iter().any(|(_, t)| t.verdict == Verdict::Forward), "{}", place());
            sent += usize::from(left);
            resumed += usize::from(switch.translations.len() > 1);
            made += fate.learned.len();
        }
    }
    let all = programs() as usize * PACKETS;
    assert!(sent > all / 5, "only {sent} of {all} packets went anywhere: the tables test nothing");
    assert!(looped > 0 && looped < all / 2, "{looped} of {all} packets went round in circles");
    assert!(resumed > all / 100, "only {resumed} of {all} packets went through the tracker");
    assert!(made > all / 100, "only {made} flows were made by {all} packets");
}

fn run(model: &Model, packet: &FlowKey) -> Translation {
    translate(model, &NoMacs, DpPort(packet.get(slot::IN_PORT) as u32), packet, &mut NoTrace)
}

#[test]
fn bits_outside_the_mask_never_change_the_result() {
    for seed in 0..programs() {
        let mut rng = seeded(seed);
        let (model, few) = model(&mut rng, seed);
        for n in 0..PACKETS {
            let packet = packet_like(&mut rng, &few);
            let result = run(&model, &packet);
            // Some other packet's bits, or random ones, or a single flipped bit: wherever the mask does not look.
            let mut other = match n % 4 {
                0 => packet_like(&mut rng, &few),
                1 => FlowKey(std::array::from_fn(|_| rng.next_u64())),
                2 => FlowKey(packet.0.map(|word| !word)),
                _ => {
                    let mut flipped = packet;
                    flipped.0[rng.random_range(1..packet.0.len())] ^= 1 << rng.random_range(0..64);
                    flipped
                }
            };
            for (i, word) in other.0.iter_mut().enumerate() {
                *word = packet.0[i] & result.mask.0[i] | *word & !result.mask.0[i];
            }
            // No packet brings pipeline fields along, and all that come by a port are of Ethernet.
            other.0[PIPELINE_WORD..].copy_from_slice(&packet.0[PIPELINE_WORD..]);
            other.set(slot::PACKET_TYPE, packet.get(slot::PACKET_TYPE));
            // Only packets that went through the tracker have anything of it.
            if packet.get(slot::CT_STATE) == 0 || other.get(slot::CT_STATE) == 0 {
                other.0[PACKET_WORDS..PIPELINE_WORD].copy_from_slice(&packet.0[PACKET_WORDS..PIPELINE_WORD]);
            }
            // Whether packets have a tunnel is the ingress port's business.
            if packet.get(slot::TUN_DST) == 0 && packet.get(slot::TUN_IPV6_DST) == 0 {
                other.0[FRAME_WORDS..PACKET_WORDS].copy_from_slice(&packet.0[FRAME_WORDS..PACKET_WORDS]);
            }
            let again = run(&model, &other);
            let place = || format!("seed {seed}, packet {n}\n{packet:?}\n{other:?}\n{:?}", result.mask);
            assert_eq!(plain(&again.actions), plain(&result.actions), "{}", place());
            assert_eq!(again.verdict, result.verdict, "{}", place());
            assert!(same(&again.rules, &result.rules), "other rules: {}", place());
            assert!(same(&again.buckets, &result.buckets), "other buckets: {}", place());
            assert_eq!(format!("{:?}", again.effects), format!("{:?}", result.effects), "{}", place());
            assert_eq!(again.resumes.len(), result.resumes.len(), "{}", place());
        }
    }
}

/// The actions without what controllers are told of a packet's mark and connection: a packet that comes by a port has
/// none.
fn plain(actions: &[DpAction]) -> Vec<DpAction> {
    let mut actions = actions.to_vec();
    for action in &mut actions {
        match action {
            DpAction::Controller(sent) => {
                let told =
                    |(field, _): &&(Field, u128)| (FRAME_WORDS..PACKET_WORDS).contains(&field.slot().word.into());
                sent.metadata = sent.metadata.iter().filter(told).copied().collect();
            }
            DpAction::Clone(list) => *list = plain(list).into(),
            DpAction::CheckPktLen { larger, otherwise, .. } => {
                (*larger, *otherwise) = (plain(larger).into(), plain(otherwise).into());
            }
            _ => {}
        }
    }
    actions
}

/// Whether two lists hold the same things, not only equal ones.
fn same<T>(a: &[std::sync::Arc<T>], b: &[std::sync::Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| std::sync::Arc::ptr_eq(a, b))
}
