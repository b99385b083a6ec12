use super::compose;
use crate::key::{FRAG_ANY, FRAG_LATER, FlowKey, PacketKey, Slot, slot};
use crate::packet::extract;
use crate::packet::testing::{canonical_key, canonical_payload, check};
use proptest::prelude::*;

fn key(slots: &[(Slot, u128)]) -> FlowKey {
    let mut key = FlowKey::ZERO;
    for (slot, value) in slots {
        key.set(*slot, *value);
    }
    key
}

#[test]
fn an_udp_flow_becomes_these_bytes() {
    let key = key(&[
        (slot::ETH_DST, 0x0200_0000_0001),
        (slot::ETH_SRC, 0x0200_0000_0002),
        (slot::VLAN_TCI, 0x3005),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_SRC, 0x0a00_0001),
        (slot::IP_DST, 0x0a00_0002),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (slot::TP_SRC, 1000),
        (slot::TP_DST, 2000),
    ]);
    let want = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0x20, 5, 8, 0][..],
        &[0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x66, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2],
        &[0x03, 0xe8, 0x07, 0xd0, 0, 10, 0x77, 0xb6, b'h', b'i'],
    ];
    assert_eq!(compose(&key, b"hi"), want.concat());
}

#[test]
fn an_empty_key_becomes_an_802_3_frame() {
    assert_eq!(compose(&FlowKey::ZERO, b"hi"), [&[0; 12][..], &[0, 5, 0, 0, 3, b'h', b'i']].concat());
}

#[test]
fn an_802_3_length_never_becomes_a_type() {
    assert_eq!(compose(&FlowKey::ZERO, &[0; 3000])[12..14], [0x05, 0xff]);
}

#[test]
fn a_payload_too_long_for_ip_is_cut() {
    let payload = vec![0; 70_000];
    for eth_type in [0x0800, 0x86dd] {
        let key = key(&[(slot::ETH_TYPE, eth_type), (slot::IP_PROTO, 6), (slot::IP_FRAG, FRAG_ANY.into())]);
        let mut read = PacketKey::ZERO;
        let layers = extract(&compose(&key, &payload), 0, &mut read);
        assert_ne!(layers.payload_ofs, 0, "{eth_type:x}");
    }
}

#[test]
fn fragments_of_both_ip_versions_read_back() {
    for (eth_type, later_proto) in [(0x0800, 17), (0x86dd, 44)] {
        for frag in [FRAG_ANY, FRAG_ANY | FRAG_LATER] {
            let later = frag & FRAG_LATER != 0;
            let mut key = key(&[(slot::ETH_TYPE, eth_type), (slot::IP_FRAG, frag.into()), (slot::IP_PROTO, 17)]);
            if later {
                key.set(slot::IP_PROTO, later_proto);
            } else {
                key.set(slot::TP_DST, 53);
            }
            let mut read = PacketKey::ZERO;
            extract(&compose(&key, b"data"), 0, &mut read);
            assert_eq!(read, key.packet());
        }
    }
}

proptest! {
    #[test]
    fn reading_a_composed_frame_gives_the_key_back(key in canonical_key(), payload in canonical_payload()) {
        let mut read = PacketKey([u64::MAX; crate::key::PACKET_WORDS]);
        extract(&compose(&key, &payload), key.get(slot::IN_PORT) as u32, &mut read);
        prop_assert_eq!(read, key.packet());
    }

    #[test]
    fn composed_checksums_verify(key in canonical_key(), payload in canonical_payload()) {
        let frame = compose(&key, &payload);
        let mut read = PacketKey::ZERO;
        let layers = extract(&frame, 0, &mut read);
        prop_assert_eq!(check(&frame, &layers), Ok(()));
    }

    #[test]
    fn any_key_becomes_a_frame(words: [u64; crate::key::KEY_WORDS], payload in canonical_payload()) {
        let frame = compose(&FlowKey(words), &payload);
        prop_assert_eq!(&frame, &compose(&FlowKey(words), &payload));
        prop_assert!(frame.len() >= 14);
    }
}
