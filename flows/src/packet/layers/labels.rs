//! What Open vSwitch's `ofproto/trace` reads of MPLS, NSH and neighbour discovery, frame by frame.

use super::{L3, Layers, extract, extract_into, innermost};
use crate::key::{FRAME_WORDS, PACKET_WORDS, PacketKey, Slot, slot};
use crate::packet::testing::*;

fn read(frame: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey([u64::MAX; PACKET_WORDS]);
    let layers = extract(frame, 0, &mut key);
    (key, layers)
}

/// The words behind the Ethernet header's.
fn behind_ethernet(frame: &[u8]) -> (Vec<u64>, L3) {
    let (key, layers) = read(frame);
    (key.0[4..FRAME_WORDS].to_vec(), layers.l3)
}

fn words(slots: &[(Slot, u128)]) -> Vec<u64> {
    let mut key = PacketKey::ZERO;
    slots.iter().for_each(|(slot, value)| key.set(*slot, *value));
    key.0[4..FRAME_WORDS].to_vec()
}

#[test]
fn labels_are_read_to_the_bottom_of_the_stack_or_the_third() {
    let labels = |bytes: &[u8]| behind_ethernet(&eth(&[(0x8100, 5)], 0x8847, bytes));
    let lse = slot::MPLS_LSE;
    let three = [0, 6, 0x40, 0x40, 0, 7, 0x40, 0x41, 0, 8, 0x40, 0x42, 0, 9, 0x41, 0x43];
    assert_eq!(labels(&[0, 6, 0x41, 0x40, 0x45, 0, 0, 0]), (words(&[(lse, 0x0006_4140)]), L3::Mpls));
    let all = [(lse, 0x0006_4040), (slot::MPLS_LSE_1, 0x0007_4041), (slot::MPLS_LSE_2, 0x0008_4042)];
    assert_eq!(labels(&three), (words(&all), L3::Mpls));
    assert_eq!(labels(&three[..10]), (words(&all[..2]), L3::Mpls));
    assert_eq!(labels(&three[..3]), (words(&[]), L3::None));
    assert_eq!(behind_ethernet(&eth(&[], 0x8848, &three[..4])), (words(&all[..1]), L3::Mpls));
}

#[test]
fn an_nsh_header_counts_when_version_and_length_are_sound() {
    const CONTEXT: [u8; 16] = [1; 16];
    let nsh = |base: [u8; 4], rest: &[u8]| {
        behind_ethernet(&eth(&[], 0x894f, &[&base[..], &[0, 0, 0x0a, 0xff], rest].concat()))
    };
    let base = |md_type, np| {
        let fields = [(slot::NSH_FLAGS, 1), (slot::NSH_TTL, 63), (slot::NSH_PATH, 0xaff)];
        [&fields[..], &[(slot::NSH_MDTYPE, md_type), (slot::NSH_NP, np)]].concat()
    };
    let with_context = [&base(1, 1)[..], &[(slot::NSH_CONTEXT, u128::from_be_bytes(CONTEXT))]].concat();
    assert_eq!(nsh([0x1f, 0xc6, 1, 1], &CONTEXT), (words(&with_context), L3::Nsh));
    assert_eq!(nsh([0x1f, 0xc6, 1, 1], &CONTEXT[1..]), (words(&[]), L3::None));
    assert_eq!(nsh([0x1f, 0xc5, 1, 1], &CONTEXT), (words(&[]), L3::None));
    assert_eq!(nsh([0x1f, 0xc4, 2, 3], &CONTEXT), (words(&base(2, 3)), L3::Nsh));
    assert_eq!(nsh([0x1f, 0xc2, 0xf5, 3], &CONTEXT), (words(&base(0xf5, 3)), L3::Nsh));
    assert_eq!(nsh([0x1f, 0xc0, 3, 3], &CONTEXT), (words(&base(3, 3)), L3::Nsh));
    assert_eq!(nsh([0x5f, 0xc2, 5, 3], &CONTEXT), (words(&[]), L3::None));
}

#[test]
fn the_first_link_layer_address_gives_the_option_type() {
    const S: [u8; 8] = [1, 1, 0x0a, 0, 0, 0, 0, 1];
    const T: [u8; 8] = [2, 1, 0x0a, 0, 0, 0, 0, 2];
    const NONCE: [u8; 8] = [14, 1, 0, 0, 0, 0, 0, 1];
    const ZERO: [u8; 8] = [1, 1, 0, 0, 0, 0, 0, 0];
    const LONG: [u8; 16] = [1, 2, 0x0a, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let read = |options: &[&[u8]]| {
        let mut message = nd(136, 0, &options.concat());
        message[4..8].copy_from_slice(&[0xe0, 0, 0, 1]);
        let key = read(&eth(&[], 0x86dd, &ipv6(58, &message))).0;
        assert_eq!(key.get(slot::ND_RESERVED), 0xe000_0001);
        (key.get(slot::ND_OPTIONS_TYPE), key.get(slot::ARP_SHA), key.get(slot::ARP_THA), key.get(slot::ND_TARGET) != 0)
    };
    let (s, t) = (0x0a00_0000_0001, 0x0a00_0000_0002);
    assert_eq!(read(&[&S]), (1, s, 0, true));
    assert_eq!(read(&[&NONCE, &T, &S]), (2, s, t, true));
    assert_eq!(read(&[&S, &S]), (1, 0, 0, false));
    assert_eq!(read(&[&NONCE]), (0, 0, 0, true));
    assert_eq!(read(&[&ZERO, &T]), (1, 0, t, true));
    assert_eq!(read(&[&LONG, &T]), (2, 0, t, true));
    assert_eq!(read(&[&ZERO, &S]), (1, s, 0, true));
}

#[test]
fn the_reserved_field_needs_no_target() {
    let message = [135, 0, 0, 0, 1, 2, 3, 4, 5];
    let key = read(&eth(&[], 0x86dd, &ipv6(58, &message))).0;
    assert_eq!((key.get(slot::ND_RESERVED), key.get(slot::ND_TARGET)), (0x0102_0304, 0));
    let other = read(&eth(&[], 0x86dd, &ipv6(58, &[134, 0, 0, 0, 1, 2, 3, 4]))).0;
    assert_eq!(other.get(slot::ND_RESERVED), 0);
}

#[test]
fn tunnel_headers_in_a_key_are_kept_by_who_asks_for_that() {
    let mut key = PacketKey([u64::MAX; PACKET_WORDS]);
    extract_into(&eth(&[], 0x0800, &[]), 0, &mut key, &mut Layers::default());
    assert!(key.0[FRAME_WORDS..].iter().all(|word| *word == u64::MAX));
    assert!(key.0[3..FRAME_WORDS].iter().all(|word| *word == 0));
}

#[test]
fn the_innermost_packet_is_found_behind_labels_and_nsh() {
    let packet = ipv4(6, &tcp(2, &[], b"data"));
    let labels = [&[0, 6, 0x40, 0x40, 0, 7, 0x41, 0x40][..], &packet].concat();
    let under_labels = innermost(&eth(&[], 0x8847, &labels), &mut PacketKey::default());
    assert_eq!((under_labels.l3, under_labels.l3_ofs, under_labels.l4_ofs), (L3::Ipv4, 22, 42));
    let frame = eth(&[(0x8100, 5)], 0x8847, &labels);
    let nsh = [&[0x0f, 0xc2, 2, 3, 0, 0, 0, 0][..], &frame].concat();
    let deep = innermost(&eth(&[], 0x894f, &nsh), &mut PacketKey::default());
    assert_eq!((deep.l3, deep.l3_ofs, deep.l4_ofs), (L3::Ipv4, 14 + 8 + 18 + 8, 14 + 8 + 18 + 8 + 20));
    let endless = [&[0, 0, 0, 0][..]; 500].concat();
    assert_eq!(innermost(&eth(&[], 0x8847, &endless), &mut PacketKey::default()).l3, L3::Mpls);
    let nested = [&[0x0f, 0xc2, 2, 4, 0, 0, 0, 0][..]; 200].concat();
    assert_eq!(innermost(&eth(&[], 0x894f, &nested), &mut PacketKey::default()).l3, L3::Nsh);
}
