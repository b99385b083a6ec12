//! Whatever the frame: no panic, and exactly one verdict.

use rand::{Rng, RngExt};
use sluice_flows::DropReason;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload};
use sluice_switch::Config;
use sluice_tests::generate::{model, packet, seeded};
use sluice_tests::switch::{Switch, take_all};

/// A switch of random tables, its outputs emptied after each batch.
fn random_switch(seed: u64, caches: bool) -> Switch {
    let model = model(&mut seeded(seed), 40);
    Switch::of_model(Config { caches, ..Config::default() }, &model)
}

fn drain(switch: &Switch) {
    switch.wait();
    switch.ends.values().for_each(|end| drop(take_all(end)));
}

#[test]
fn frames_of_every_length_class_are_counted_once() {
    let mut switch = random_switch(1, true);
    let mut rng = seeded(2);
    let lengths = (0..=1600).chain((1600..=MAX_FRAME_LEN).step_by(997)).chain([65_535, MAX_FRAME_LEN]);
    for (n, len) in lengths.enumerate() {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        switch.send(1 + (n % 3) as u16, &bytes);
        if n % 64 == 0 {
            drain(&switch);
        }
    }
    drain(&switch);
    switch.check_accounts();
    assert_eq!(switch.dropped(DropReason::ParseError), 14, "frames shorter than an Ethernet header");
}

#[test]
fn sound_frames_cut_at_every_byte_are_counted_once() {
    let mut switch = random_switch(3, true);
    let mut rng = seeded(4);
    for _ in 0..40 {
        let bytes = compose(&packet(&mut rng), &[0xaa; 40]);
        for len in 0..=bytes.len() {
            switch.send(rng.random_range(1..4), &bytes[..len]);
        }
        drain(&switch);
    }
    switch.check_accounts();
}

#[test]
fn mutated_frames_with_random_metadata_are_counted_once() {
    for seed in 0..20 {
        let mut switch = random_switch(100 + seed, seed % 4 != 0);
        let mut rng = seeded(seed);
        for n in 0..400 {
            let mut bytes = compose(&packet(&mut rng), &[0x55; 64]);
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let mut frame = Frame::from_bytes(&bytes);
            if rng.random_bool(0.3) {
                frame.offload = random_offload(&mut rng);
            }
            switch.send_frame(1 + (n % 3) as u16, frame);
            if n % 50 == 0 {
                drain(&switch);
            }
        }
        drain(&switch);
        switch.check_accounts();
    }
}

fn random_offload(rng: &mut impl Rng) -> Offload {
    let kinds = [GsoKind::None, GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp];
    Offload {
        gso: kinds[rng.random_range(0..kinds.len())],
        gso_ecn: rng.random(),
        csum_partial: rng.random(),
        csum_valid: rng.random(),
        gso_size: rng.random(),
        hdr_len: rng.random(),
        csum_start: rng.random_range(0..200),
        csum_offset: rng.random_range(0..40),
    }
}

#[test]
fn a_super_frame_crosses_whole_with_its_metadata() {
    let mut switch = Switch::learning(Config::default(), 2);
    let mut key = FlowKey::ZERO;
    for (slot, value) in [(slot::ETH_SRC, 2), (slot::ETH_DST, 4), (slot::ETH_TYPE, 0x0800), (slot::IP_PROTO, 6)] {
        key.set(slot, value);
    }
    let bytes = compose(&key, &vec![7; 60_000]);
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1448,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    let offload = frame.offload;
    switch.send_frame(1, frame);
    switch.wait();
    let out = switch.take(2);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].bytes(), bytes);
    assert_eq!(out[0].offload, offload);
}
