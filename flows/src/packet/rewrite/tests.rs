use super::{pop_vlan, push_vlan};
use crate::key::PacketKey;
use crate::packet::testing::*;
use crate::packet::{Frame, Layers, extract};

fn layers(frame: &Frame) -> Layers {
    let mut key = PacketKey::ZERO;
    extract(frame.bytes(), 1, &mut key)
}

#[test]
fn tags_come_and_go_in_front_and_take_offsets_along() {
    let packet = ipv4(17, &udp(b"data"));
    let mut frame = Frame::from_bytes(&eth(&[], 0x0800, &packet));
    frame.offload.csum_partial = true;
    frame.offload.csum_start = 34;
    let (bare, offload) = (layers(&frame), frame.offload);
    let mut at = bare;
    assert!(push_vlan(&mut frame, &mut at, 0x8100, 0x3005));
    assert!(push_vlan(&mut frame, &mut at, 0x88a8, 0x0064));
    assert_eq!(frame.bytes(), eth(&[(0x88a8, 0x0064), (0x8100, 0x2005)], 0x0800, &packet));
    assert_eq!(at, layers(&frame));
    assert_eq!(frame.offload.csum_start, 42);
    assert!(pop_vlan(&mut frame, &mut at));
    assert!(pop_vlan(&mut frame, &mut at));
    assert_eq!(frame.bytes(), eth(&[], 0x0800, &packet));
    assert_eq!((at, frame.offload), (bare, offload));
    assert!(!pop_vlan(&mut frame, &mut at));
}
