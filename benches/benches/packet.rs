//! What the packet code costs per frame: reading the key, writing a field, summing, cutting.
//!
//! None of it allocates ([`stage`]). Frames lie in memory that the first-level cache holds, 32 at a time, as a burst does. Times are per frame.

mod stage;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, PacketKey, Slot, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::readdress::Readdress;
use sluice_flows::packet::rewrite::{pop_vlan, push_vlan, set_field};
use sluice_flows::packet::segment::Segmenter;
use sluice_flows::packet::{Frame, GsoKind, Layers, MAX_FRAME_LEN, Offload, checksum, extract};
use stage::stage;
use std::hint::black_box;

const BURST: usize = 32;

/// A burst of frames of one kind, each from another port or address.
fn burst(slots: &[(Slot, u128)], payload: &[u8]) -> Vec<Vec<u8>> {
    (0..BURST as u128)
        .map(|i| {
            let mut key = FlowKey::ZERO;
            key.set(slot::ETH_DST, 0x0200_0000_0001);
            key.set(slot::ETH_SRC, 0x0200_0000_0100 + i);
            key.set(slot::IP_SRC, 0x0a00_0000 + i);
            key.set(slot::IP_DST, 0x0a01_0000);
            key.set(slot::IPV6_SRC, 0xfd << 120 | i);
            key.set(slot::IPV6_DST, 0xfd << 120 | 1 << 32);
            key.set(slot::IP_TTL, 64);
            for (slot, value) in slots {
                key.set(*slot, *value);
            }
            if matches!(key.get(slot::IP_PROTO), 6 | 17) {
                key.set(slot::TP_SRC, 1024 + i);
                key.set(slot::TP_DST, 80);
                key.set(slot::TCP_FLAGS, 0x10);
            }
            compose(&key, payload)
        })
        .collect()
}

const IPV4: (Slot, u128) = (slot::ETH_TYPE, 0x0800);
const IPV6: (Slot, u128) = (slot::ETH_TYPE, 0x86dd);
const TCP: (Slot, u128) = (slot::IP_PROTO, 6);
const UDP: (Slot, u128) = (slot::IP_PROTO, 17);
const TAG: (Slot, u128) = (slot::VLAN_TCI, 0x1064);

fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let nd = [IPV6, (slot::IP_PROTO, 58), (slot::TP_SRC, 135), (slot::ND_TARGET, 9), (slot::ARP_SHA, 7)];
    let mut kinds = vec![
        ("udp4", burst(&[IPV4, UDP], &[0; 18])),
        ("tcp4", burst(&[IPV4, TCP], &[0; 6])),
        ("vlan-tcp4", burst(&[TAG, IPV4, TCP], &[0; 6])),
        ("tcp6", burst(&[IPV6, TCP], &[0; 6])),
        ("icmp", burst(&[IPV4, (slot::IP_PROTO, 1), (slot::TP_SRC, 8)], &[0; 18])),
        ("arp", burst(&[(slot::ETH_TYPE, 0x0806), (slot::IP_PROTO, 1), (slot::ARP_SHA, 7)], &[])),
        ("nd", burst(&nd, &[])),
    ];
    let mut all: Vec<Vec<u8>> = kinds.iter().flat_map(|(_, frames)| frames.clone()).collect();
    // A fixed shuffle: a mix that a branch predictor can learn only as far as it can learn 224 frames.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        all.swap(i, (state >> 33) as usize % (i + 1));
    }
    kinds.push(("mix", all));
    kinds
}

fn bench_extract(c: &mut Criterion) {
    let mut group = c.benchmark_group("extract");
    for (name, frames) in kinds() {
        let mut read = vec![(PacketKey::ZERO, Layers::NONE); frames.len()];
        group.throughput(Throughput::Elements(frames.len() as u64));
        stage(&mut group, "burst", name, || {
            for (frame, (key, layers)) in frames.iter().zip(&mut read) {
                *layers = extract(frame, 1, key);
            }
            black_box(&mut read);
        });
    }
    group.finish();
}

fn bench_set_field(c: &mut Criterion) {
    let mut group = c.benchmark_group("set_field");
    group.throughput(Throughput::Elements(BURST as u64));
    let cases = [
        ("tcp4/eth_dst", burst(&[IPV4, TCP], &[0; 6]), Field::EthDst),
        ("tcp4/ip_dst", burst(&[IPV4, TCP], &[0; 6]), Field::IpDst),
        ("tcp4/nw_ttl", burst(&[IPV4, TCP], &[0; 6]), Field::IpTtl),
        ("tcp4/tcp_dst", burst(&[IPV4, TCP], &[0; 6]), Field::TcpDst),
        ("udp4/ip_src", burst(&[IPV4, UDP], &[0; 18]), Field::IpSrc),
        ("tcp6/ipv6_dst", burst(&[IPV6, TCP], &[0; 6]), Field::Ipv6Dst),
        ("vlan-tcp4/vlan_vid", burst(&[TAG, IPV4, TCP], &[0; 6]), Field::VlanVid),
    ];
    for (name, frames, field) in cases {
        let mut frames = frames_with_layers(&frames);
        let mut value = 0u128;
        stage(&mut group, "burst", name, || {
            value = value.wrapping_add(1);
            for (frame, layers) in &mut frames {
                black_box(set_field(frame, layers, black_box(field), value, u128::MAX));
            }
        });
    }
    let mut frames = frames_with_layers(&burst(&[IPV4, TCP], &[0; 6]));
    stage(&mut group, "burst", "tcp4/push_vlan, pop_vlan", || {
        for (frame, layers) in &mut frames {
            black_box(push_vlan(frame, layers, 0x8100, black_box(5)));
            black_box(pop_vlan(frame, layers));
        }
    });
    group.finish();
}

/// Address translation in one step, and as the sets that it stands for: a source with its port, as source NAT does, and
/// both ends.
fn bench_readdress(c: &mut Criterion) {
    let mut group = c.benchmark_group("readdress");
    group.throughput(Throughput::Elements(BURST as u64));
    let sctp = [IPV4, (slot::IP_PROTO, 132), (slot::TP_SRC, 1024), (slot::TP_DST, 80)];
    for (name, frames) in [
        ("tcp4", burst(&[IPV4, TCP], &[0; 6])),
        ("udp4", burst(&[IPV4, UDP], &[0; 18])),
        ("tcp6", burst(&[IPV6, TCP], &[0; 6])),
        ("sctp4, 1400 B", burst(&sctp, &[0x5a; 1400])),
    ] {
        for (ends, both) in [("src", false), ("src and dst", true)] {
            let mut frames: Vec<(Frame, Layers, Readdress)> = frames_with_layers(&frames)
                .into_iter()
                .filter_map(|(frame, layers)| {
                    let new = translated(frame.bytes(), both)?;
                    Some((frame, layers, new))
                })
                .collect();
            stage(&mut group, &format!("{name}/{ends}"), "apply", || {
                for (frame, layers, new) in &mut frames {
                    black_box(new.apply(frame, layers));
                }
            });
            let mut frames: Vec<_> =
                frames.into_iter().map(|(frame, layers, new)| (frame, layers, new.changes())).collect();
            stage(&mut group, &format!("{name}/{ends}"), "set_field", || {
                for (frame, layers, changes) in &mut frames {
                    for c in black_box(&*changes) {
                        black_box(set_field(frame, layers, c.field, c.value, c.mask));
                    }
                }
            });
        }
    }
    group.finish();
}

/// A translation of the source of this frame, or of both ends.
fn translated(bytes: &[u8], both: bool) -> Option<Readdress> {
    let mut before = PacketKey::default();
    extract(bytes, 1, &mut before);
    let mut after = before;
    let v6 = before.get(slot::ETH_TYPE) == 0x86dd;
    let (src, dst) = if v6 { (slot::IPV6_SRC, slot::IPV6_DST) } else { (slot::IP_SRC, slot::IP_DST) };
    after.set(src, 0xc000_0201);
    after.set(slot::TP_SRC, 40_000);
    if both {
        after.set(dst, 0xc000_0202);
        after.set(slot::TP_DST, 8080);
    }
    Readdress::between(&before, &after)
}

fn frames_with_layers(frames: &[Vec<u8>]) -> Vec<(Frame, Layers)> {
    frames
        .iter()
        .map(|bytes| {
            let layers = extract(bytes, 1, &mut PacketKey::default());
            (Frame::from_bytes(bytes), layers)
        })
        .collect()
}

fn bench_checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20usize, 64, 1500, 65_535] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        stage(&mut group, "sum", len, || checksum::sum(black_box(&bytes)));
    }
    group.finish();
}

fn bench_segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    let bytes = burst(&[IPV4, TCP], &vec![0x5a; 64_000]).swap_remove(0);
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1448,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    let mut out = Frame::with_capacity(MAX_FRAME_LEN);
    group.throughput(Throughput::Bytes(frame.len() as u64));
    stage(&mut group, "tcp4", "64 kB by 1448", || {
        if let Ok(mut segmenter) = Segmenter::new(&frame) {
            while let Ok(true) = segmenter.next_into(&mut out) {
                black_box(out.bytes());
            }
        }
    });
    group.finish();
}

criterion_group!(benches, bench_extract, bench_set_field, bench_readdress, bench_checksum, bench_segment);
criterion_main!(benches);
