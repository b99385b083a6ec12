//! What tunnels cost beside the sockets: headers written and read, super-frames cut and merged, flows hashed.
//!
//! None of it allocates ([`stage`]). Frames lie in memory that the second-level cache holds. Cutting copies no payload but sums it; merging sums and
//! copies it once.

mod stage;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::tunnel::cut::Cutter;
use sluice_flows::packet::tunnel::merge::{Merger, Pushed};
use sluice_flows::packet::tunnel::{MAX_HEADER_LEN, Params, Payload, ecn, entropy, read, write};
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload, checksum};
use sluice_flows::tunnel::{Tlv, TlvMap, TunnelKey, TunnelKind};
use stage::stage;
use std::hint::black_box;

/// TCP payload of a segment in a tunnel whose path has an MTU of 1500.
const SIZE: u16 = 1398;
/// Payload of the super-frame: as many whole segments as IP can say.
const PAYLOAD: usize = SIZE as usize * 46;

const TLVS: TlvMap = {
    let mut map = TlvMap([None; 8]);
    map.0[0] = Some(Tlv { class: 0x0104, kind: 1 });
    map
};

/// A TCP frame with the metadata of a super-frame.
fn super_frame(v6: bool) -> Frame {
    let mut key = FlowKey::ZERO;
    key.set(slot::ETH_DST, 0x0200_0000_0001);
    key.set(slot::ETH_SRC, 0x0200_0000_0002);
    key.set(slot::ETH_TYPE, if v6 { 0x86dd } else { 0x0800 });
    key.set(slot::IP_PROTO, 6);
    key.set(slot::IP_SRC, 0x0a00_0001);
    key.set(slot::IP_DST, 0x0a00_0002);
    key.set(slot::IPV6_SRC, 0xfd << 120 | 1);
    key.set(slot::IPV6_DST, 0xfd << 120 | 2);
    key.set(slot::IP_TTL, 64);
    key.set(slot::TP_SRC, 40_000);
    key.set(slot::TP_DST, 80);
    key.set(slot::TCP_FLAGS, 0x10);
    let payload: Vec<u8> = (0..PAYLOAD).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut frame = Frame::from_bytes(&compose(&key, &payload));
    frame.offload = Offload {
        gso: if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 },
        gso_size: SIZE,
        csum_partial: true,
        csum_start: if v6 { 54 } else { 34 },
        csum_offset: 16,
        ..Offload::NONE
    };
    frame
}

fn params(kind: TunnelKind) -> Params<'static> {
    Params { kind, payload: Payload::Ethernet, keyed: true, checksum: false, gbp: true, tlvs: &TLVS }
}

fn key() -> TunnelKey {
    let mut key = TunnelKey::NONE;
    key.set_id(0x1234);
    key.set_gbp(7, 0);
    key.set_option(0, 9);
    key
}

/// A train as `UDP_GRO` gives it: a buffer of datagrams of one length.
fn train(frame: &Frame) -> (Vec<u8>, usize) {
    let mut header = [0; MAX_HEADER_LEN];
    let len = write(&key(), &params(TunnelKind::Vxlan), &mut header);
    let Ok(mut cutter) = Cutter::new(frame, &header[..len], Payload::Ethernet) else { return (Vec::new(), 1) };
    let (mut scratch, mut train) = (vec![0; cutter.headers_len()], Vec::new());
    while let Ok(Some((len, payload))) = cutter.next(&mut scratch) {
        train.extend_from_slice(&scratch[..len]);
        train.extend_from_slice(payload);
    }
    (train, cutter.segment_len())
}

fn bench_headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-header");
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre] {
        let (key, params) = (key(), params(kind));
        let mut out = [0; MAX_HEADER_LEN];
        stage(&mut group, "write", kind, || write(black_box(&key), &params, black_box(&mut out)));
        let len = write(&key, &params, &mut out);
        let bytes = [&out[..len], &super_frame(false).bytes()[..60]].concat();
        stage(&mut group, "read", kind, || read(kind, black_box(&bytes), &TLVS).map(|inner| black_box(inner).offset));
    }
    group.finish();
}

fn bench_inner(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-inner");
    for (name, v6) in [("tcp4", false), ("tcp6", true)] {
        let frame = super_frame(v6);
        let mut bytes = frame.bytes()[..100].to_vec();
        stage(&mut group, "hash", name, || entropy::flow_hash(black_box(&bytes), Payload::Ethernet));
        stage(&mut group, "tos-ttl", name, || ecn::tos_ttl(black_box(&bytes), Payload::Ethernet));
        stage(&mut group, "decapsulate", name, || {
            ecn::decapsulate(black_box(1), black_box(&mut bytes), Payload::Ethernet)
        });
    }
    group.finish();
}

fn bench_trains(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-train");
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    for (name, v6) in [("tcp4", false), ("tcp6", true)] {
        let frame = super_frame(v6);
        let mut scratch = vec![0; 16 * 1024];
        stage(&mut group, "cut", name, || {
            let Ok(mut cutter) = Cutter::new(black_box(&frame), &[8; 8], Payload::Ethernet) else { return 0 };
            let mut at = 0;
            while let Ok(Some((len, payload))) = cutter.next(&mut scratch[at..]) {
                black_box(payload);
                at += len;
            }
            at
        });
        let (bytes, len) = train(&frame);
        let mut out = Frame::with_capacity(MAX_FRAME_LEN);
        let mut merger = Merger::new();
        stage(&mut group, "merge", name, || {
            for datagram in black_box(&bytes).chunks(len) {
                let Ok(inner) = read(TunnelKind::Vxlan, datagram, &TLVS) else { return false };
                let packet = &datagram[inner.offset..];
                if merger.push(&mut out, packet, inner.payload, &inner.key) != Pushed::Taken {
                    return false;
                }
            }
            merger.finish(&mut out);
            out.offload.gso != GsoKind::None
        });
        assert_eq!(out.offload.gso, frame.offload.gso, "the train was not merged");
    }
    group.finish();
}

fn bench_sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel-sum");
    for len in [64, usize::from(SIZE), 8_900] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        stage(&mut group, "sum", len, || checksum::sum(black_box(&bytes)));
    }
    group.finish();
}

criterion_group!(benches, bench_headers, bench_inner, bench_trains, bench_sum);
criterion_main!(benches);
