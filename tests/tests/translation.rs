//! Translation against its oracle, and the soundness of its mask, on seeded random tables and packets.

use rand::{Rng, RngExt};
use sluice_flows::bridge::Model;
use sluice_flows::datapath::Translation;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::translate::{NoMacs, NoTrace, translate};
use sluice_flows::{DpPort, DropReason, Verdict};
use sluice_tests::generate::{model, packet, seeded};
use sluice_tests::interpreter::{apply, interpret};

const TABLES: u64 = 1_000;
const PACKETS: usize = 50;

fn run(model: &Model, packet: &FlowKey) -> Translation {
    translate(model, &NoMacs, DpPort(packet.get(slot::IN_PORT) as u32), packet, &mut NoTrace)
}

#[test]
fn a_thousand_random_tables_do_to_fifty_packets_what_the_oracle_does() {
    let (mut sent_something, mut looped) = (0, 0);
    for seed in 0..TABLES {
        let mut rng = seeded(seed);
        let rules = rng.random_range(5..30);
        let model = model(&mut rng, rules);
        for n in 0..PACKETS {
            let packet = packet(&mut rng);
            let result = run(&model, &packet);
            match interpret(&model, &packet) {
                None => {
                    assert_eq!(result.verdict, Verdict::Drop(DropReason::Loop), "seed {seed}, packet {n}");
                    looped += 1;
                }
                Some(sent) => {
                    assert_eq!(apply(&result.actions, &packet), sent, "seed {seed}, packet {n}: {result:#?}");
                    let left = sent.iter().any(|(port, _)| port.0 != 0);
                    assert!(!left || result.verdict == Verdict::Forward, "seed {seed}, packet {n}");
                    sent_something += usize::from(left);
                }
            }
        }
    }
    let all = TABLES as usize * PACKETS;
    assert!(sent_something > all / 5, "only {sent_something} of {all} packets went anywhere: the tables test nothing");
    assert!(looped > 0 && looped < all / 2, "{looped} of {all} packets went round in circles");
}

#[test]
fn bits_outside_the_mask_never_change_the_result() {
    for seed in 0..TABLES {
        let mut rng = seeded(seed);
        let rules = rng.random_range(5..30);
        let model = model(&mut rng, rules);
        for n in 0..PACKETS {
            let packet = packet(&mut rng);
            let result = run(&model, &packet);
            // Some other packet's bits, or random ones, or a single flipped bit: wherever the mask does not look.
            let mut other = match n % 3 {
                0 => sluice_tests::generate::packet(&mut rng),
                1 => FlowKey(std::array::from_fn(|_| rng.next_u64())),
                _ => {
                    let mut flipped = packet;
                    flipped.0[rng.random_range(1..packet.0.len())] ^= 1 << rng.random_range(0..64);
                    flipped
                }
            };
            for (i, word) in other.0.iter_mut().enumerate() {
                *word = packet.0[i] & result.mask.0[i] | *word & !result.mask.0[i];
            }
            let again = run(&model, &other);
            assert_eq!(
                again.actions, result.actions,
                "seed {seed}, packet {n}\n{packet:?}\n{other:?}\n{:?}",
                result.mask
            );
            assert_eq!(again.verdict, result.verdict, "seed {seed}, packet {n}");
        }
    }
}
