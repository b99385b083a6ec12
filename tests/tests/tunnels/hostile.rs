//! What anybody may send to a tunnel's UDP port. Each datagram becomes one frame of the port that it is for, or one
//! drop that is counted.

use super::Receiving;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_flows::DropReason;
use sluice_flows::tunnel::TunnelKind;
use sluice_tests::netns::skipped;

const PEER: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";
const STRANGER: &str = "127.0.0.9";
const VXLAN: u16 = 4789;
const GENEVE: u16 = 6081;
/// Datagrams of random bytes, of each kind.
const COUNT: usize = 2000;
const PORTS: [(u32, Option<&str>, u64); 3] = [(1, Some(PEER), 10), (2, Some(OTHER), 20), (3, None, 30)];

/// A frame that is not IP, with this inside.
fn frame(body: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5], body].concat()
}

fn vxlan(vni: u32, inner: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], inner].concat()
}

/// Geneve with these options and as many bytes of options as the header says.
fn geneve(vni: u32, len: u8, options: &[u8], inner: &[u8]) -> Vec<u8> {
    [&[len / 4, 0, 0x65, 0x58], &(vni << 8).to_be_bytes()[..], options, inner].concat()
}

#[test]
fn truncated_datagrams_are_counted_drops() {
    if skipped("truncated_datagrams_are_counted_drops") {
        return;
    }
    let mut receiving = Receiving::new(TunnelKind::Vxlan, &PORTS);
    let peer = receiving.peer(PEER, VXLAN);
    let whole = vxlan(10, &frame(b""));
    for len in 0..=whole.len() {
        peer.send(&whole[..len]).unwrap();
    }
    receiving.wait_for(whole.len() + 1);
    assert_eq!(receiving.seen.iter().map(|seen| &seen.bytes[..]).collect::<Vec<_>>(), [&frame(b"")[..]]);
    assert_eq!(receiving.dropped(DropReason::ParseError), whole.len() as u32);
}

#[test]
fn a_packet_comes_in_by_the_port_of_its_network_and_peer_or_not_at_all() {
    if skipped("a_packet_comes_in_by_the_port_of_its_network_and_peer_or_not_at_all") {
        return;
    }
    let mut receiving = Receiving::new(TunnelKind::Vxlan, &PORTS);
    let vnis = [10, 20, 30, 0, 11, 0x0a_0000, 0xff_ffff];
    let mut wanted = Vec::new();
    for (n, address) in [PEER, OTHER, STRANGER].into_iter().enumerate() {
        let peer = receiving.peer(address, VXLAN);
        for vni in vnis {
            let inner = frame(&[n as u8, vni as u8]);
            peer.send(&vxlan(vni, &inner)).unwrap();
            let port =
                PORTS.iter().find(|(_, remote, key)| *key == u64::from(vni) && remote.unwrap_or(address) == address);
            wanted.extend(port.map(|(no, ..)| (*no, u64::from(vni), address.parse().ok(), inner)));
        }
        receiving.wait_for(vnis.len() * (n + 1));
    }
    let seen: Vec<_> =
        receiving.seen.iter().map(|seen| (seen.port, seen.key.id(), seen.key.src(), seen.bytes.clone())).collect();
    assert_eq!(seen, wanted);
    assert_eq!(receiving.dropped(DropReason::TunnelDown) as usize, 3 * vnis.len() - wanted.len());
}

#[test]
fn every_bit_of_a_vxlan_header_counts() {
    if skipped("every_bit_of_a_vxlan_header_counts") {
        return;
    }
    let mut receiving = Receiving::new(TunnelKind::Vxlan, &PORTS);
    let peer = receiving.peer(PEER, VXLAN);
    for bit in 0..64 {
        let mut bytes = vxlan(10, &frame(b""));
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        peer.send(&bytes).unwrap();
    }
    receiving.wait_for(64);
    // Flags and reserved bits; the bits of the VNI lead to networks that are not there.
    assert_eq!(receiving.dropped(DropReason::ParseError), 40);
    assert_eq!(receiving.dropped(DropReason::TunnelDown), 24);
}

#[test]
fn what_is_nested_is_unpacked_once() {
    if skipped("what_is_nested_is_unpacked_once") {
        return;
    }
    let mut receiving = Receiving::new(TunnelKind::Vxlan, &PORTS);
    let peer = receiving.peer(PEER, VXLAN);
    let mut inner = frame(b"core");
    for _ in 0..50 {
        // Ethernet, IPv4 and UDP to the same port, for another network.
        let len = (inner.len() + 8 + 28) as u16;
        let [a, b] = len.to_be_bytes();
        let [c, d] = (len - 20).to_be_bytes();
        let ip =
            [0x45, 0, a, b, 0, 0, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 3, 127, 0, 0, 1, 0x80, 0, 0x12, 0xb5, c, d, 0, 0];
        let eth = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        inner = [&eth[..], &ip, &vxlan(20, &inner)].concat();
    }
    peer.send(&vxlan(10, &inner)).unwrap();
    receiving.wait_for(1);
    let seen = &receiving.seen[0];
    assert_eq!((seen.port, seen.key.id(), &seen.bytes), (1, 10, &inner));
}

#[test]
fn options_that_overrun_are_counted_drops() {
    if skipped("options_that_overrun_are_counted_drops") {
        return;
    }
    let mut receiving = Receiving::new(TunnelKind::Geneve, &PORTS);
    let peer = receiving.peer(PEER, GENEVE);
    let refused = [
        // More options than there are bytes.
        geneve(10, 252, &[], &frame(b"")),
        // An option past the end of the options, the frame's bytes being there to be read.
        geneve(10, 4, &[0, 1, 2, 31], &frame(&[0; 200])),
        geneve(10, 8, &[0, 1, 2, 0, 0, 1, 2, 1], &frame(&[0; 200])),
        // One that must be understood.
        geneve(10, 4, &[0, 1, 0x82, 0], &frame(b"")),
    ];
    for bytes in &refused {
        peer.send(bytes).unwrap();
    }
    peer.send(&geneve(10, 4, &[0, 1, 2, 0], &frame(b"sound"))).unwrap();
    receiving.wait_for(refused.len() + 1);
    assert_eq!(receiving.seen.iter().map(|seen| &seen.bytes[..]).collect::<Vec<_>>(), [&frame(b"sound")[..]]);
    assert_eq!(receiving.dropped(DropReason::ParseError), refused.len() as u32);
}

#[test]
fn random_bytes_are_frames_of_their_network_or_counted_drops() {
    if skipped("random_bytes_are_frames_of_their_network_or_counted_drops") {
        return;
    }
    for (kind, port) in [(TunnelKind::Vxlan, VXLAN), (TunnelKind::Geneve, GENEVE)] {
        let mut receiving = Receiving::new(kind, &PORTS);
        let peer = receiving.peer(PEER, port);
        let mut random = StdRng::seed_from_u64(6);
        for sent in 1..=COUNT {
            let mut bytes: Vec<u8> = (0..random.random_range(0..200)).map(|_| random.random()).collect();
            // Half of them look right at first.
            let start = if kind == TunnelKind::Vxlan { vxlan(10, &[]) } else { geneve(10, 4, &[], &[]) };
            if random.random() && bytes.len() >= start.len() {
                bytes[..start.len()].copy_from_slice(&start);
            }
            peer.send(&bytes).unwrap();
            if sent % 50 == 0 {
                receiving.wait_for(sent);
            }
        }
        assert!(receiving.seen.iter().all(|seen| (seen.port, seen.key.id()) == (1, 10)));
        assert!(!receiving.seen.is_empty() && receiving.dropped(DropReason::ParseError) > 0);
    }
}
