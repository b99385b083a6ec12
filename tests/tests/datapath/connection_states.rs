//! TCP and SCTP in one lookup: what caches answer is what the tracker would say of the states.

use super::connections::{firewall, send};
use sluice_flows::packet::checksum;
use sluice_switch::Config;
use sluice_tests::switch::Switch;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// An IPv4 frame from port 1 to port 2 of the switch, or back, between 10.0.0.1:1000 and 10.0.0.2:80.
fn frame(back: bool, proto: u8, rest: &[u8]) -> Vec<u8> {
    let ends: [([u8; 4], u16); 2] = [([10, 0, 0, 1], 1000), ([10, 0, 0, 2], 80)];
    let [(src, src_port), (dst, dst_port)] = if back { [ends[1], ends[0]] } else { ends };
    let mut message = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    message.extend(rest);
    if proto == 132 {
        let crc = checksum::sctp(&message);
        message[8..12].copy_from_slice(&crc);
    } else {
        let pseudo = checksum::pseudo_v4(src, dst, proto, message.len() as u16);
        let sum = !checksum::add(checksum::sum(&message), pseudo);
        message[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    let mut ip = vec![0x45, 0, 0, (20 + message.len()) as u8, 0, 0, 0, 0, 64, proto, 0, 0];
    ip.extend([src, dst].concat());
    let sum = checksum::checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip, &message].concat()
}

fn tcp(back: bool, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut rest = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    rest.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    rest.extend(payload);
    frame(back, 6, &rest)
}

/// An SCTP packet of chunks without flags: kind and value, whose length is a multiple of four.
fn sctp(back: bool, tag: u32, chunks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut rest = [tag.to_be_bytes(), [0; 4]].concat();
    for (kind, value) in chunks {
        rest.extend([*kind, 0, 0, 4 + value.len() as u8]);
        rest.extend(*value);
    }
    frame(back, 132, &rest)
}

/// Sends a frame in by the port of its direction. Whether it came out by the other.
fn passes(switch: &mut Switch, back: bool, frame: &[u8]) -> bool {
    let out = send(switch, if back { 2 } else { 1 }, frame);
    out == if back { [1, 0] } else { [0, 1] }
}

fn hits(switch: &Switch) -> u64 {
    switch.datapath.sync_stats();
    switch.datapath.worker_stats()[0].cache.connection_hits
}

#[test]
fn data_within_the_windows_takes_one_lookup_and_nothing_else_does() {
    let mut switch = firewall(Config::default());
    let mut pass = |back, flags, seq, ack, payload: &[u8]| {
        let before = hits(&switch);
        let passed = passes(&mut switch, back, &tcp(back, flags, seq, ack, payload));
        (passed, hits(&switch) > before)
    };
    assert!(pass(false, SYN, 99, 0, b"").0);
    assert!(pass(true, SYN | ACK, 499, 100, b"").0);
    assert!(pass(false, ACK, 100, 500, b"").0);
    // Twice each, so that what is asked for is known.
    for turn in 0..3 {
        pass(false, ACK, 100 + turn * 4, 500 + turn * 4, b"abcd");
        pass(true, ACK, 500 + turn * 4, 104 + turn * 4, b"efgh");
    }
    assert_eq!(pass(false, ACK, 112, 512, b"abcd"), (true, true));
    assert_eq!(pass(true, ACK, 512, 116, b""), (true, true));
    assert_eq!(pass(false, ACK, 1 << 30, 512, b"abcd"), (false, false), "far outside");
    assert_eq!(pass(false, ACK, 116, 512, b"abcd"), (true, true), "that did no harm");
    assert_eq!(pass(false, FIN | ACK, 120, 512, b""), (true, false));
    assert_eq!(pass(true, ACK, 512, 121, b"ijkl"), (true, false), "closing");
    assert_eq!(pass(true, FIN | ACK, 516, 121, b""), (true, false));
    assert_eq!(pass(false, ACK, 121, 517, b""), (true, false));
    assert_eq!(pass(true, SYN, 9000, 0, b""), (false, false), "the other end may not begin");
}

#[test]
fn sctp_data_with_the_right_tag_takes_one_lookup() {
    let mut switch = firewall(Config::default());
    let announced = |tag: u32| [&tag.to_be_bytes()[..], &[0; 12]].concat();
    let mut pass = |back, tag, chunks: &[(u8, &[u8])]| {
        let before = hits(&switch);
        let passed = passes(&mut switch, back, &sctp(back, tag, chunks));
        (passed, hits(&switch) > before)
    };
    assert!(!pass(false, 9, &[(0, &[0; 16])]).0, "DATA before the association");
    assert!(pass(false, 0, &[(1, &announced(7))]).0);
    assert!(pass(true, 7, &[(2, &announced(9))]).0);
    assert!(pass(false, 9, &[(10, &[1; 20])]).0);
    assert!(pass(true, 7, &[(11, &[])]).0);
    for _ in 0..3 {
        assert!(pass(false, 9, &[(0, &[0; 16])]).0);
        assert!(pass(true, 7, &[(3, &[0; 12])]).0);
    }
    assert_eq!(pass(false, 9, &[(3, &[0; 12]), (0, &[0; 16])]), (true, true));
    assert_eq!(pass(true, 7, &[(4, &[0; 8])]), (true, true), "HEARTBEAT");
    assert_eq!(pass(false, 7, &[(0, &[0; 16])]), (false, false), "a wrong tag");
    assert_eq!(pass(false, 9, &[(3, &[0; 12]), (7, &[0; 4])]), (true, false), "SHUTDOWN");
    assert_eq!(pass(true, 7, &[(8, &[])]), (true, false));
    assert_eq!(pass(false, 9, &[(14, &[])]), (true, false));
}
