//! What the switch answers itself: for the gateway's addresses and for the service's, to the byte as Open vSwitch does.

use crate::labs::{BALANCER, GATEWAY};
use crate::ovs::Ovs;
use crate::scripts::{Ours, PORTS, Plays};
use sluice_flows::packet::checksum::{add, pseudo_v6, sum};
use sluice_tests::conversation::{Event, Views};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Who asks.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x42];

/// Who has this address?
fn arp(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC].concat();
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(to.octets());
    frame
}

/// The same in IPv6.
fn solicitation(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = to.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(to.octets());
    message.extend([1, 1]);
    message.extend(MAC);
    let check = !add(pseudo_v6(from.octets(), group.octets(), 58, message.len() as u32), sum(&message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = [&[0x33, 0x33, 0xff, a, b, c][..], &MAC, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(from.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// An echo request to the gateway.
fn echo(from: &str, to: &str) -> Vec<u8> {
    let v6 = from.contains(':');
    let (proto, kind) = if v6 { (58, 128) } else { (1, 8) };
    let talk = format!("{proto} {from} 7 {to} 7 1 1").parse().unwrap();
    let Ok(Event::Send(packet)) = format!("send 0 > icmp type={kind} code=0 seq=1 len=56").parse() else {
        panic!("this is a packet");
    };
    let mut frame = Views::new(&[talk]).render(0, &packet);
    frame[..6].copy_from_slice(&[0x0e, 0, 0, 0, 0, 1]);
    frame
}

/// Each question is answered, by the port that it came by, and in the same way by both switches.
fn are_answered(files: &[&str], questions: &[(u16, Vec<u8>)]) {
    let Some(mut ovs) = Ovs::start(files, PORTS) else { return };
    let mut ours = Ours::start(files, &[], true);
    for (port, question) in questions {
        // Twice: the second is answered by a cache.
        for _ in 0..2 {
            let answer = ours.send(*port, question);
            assert_eq!(answer.len(), 1, "one answer to {question:02x?}");
            assert_eq!((answer[0].0, &answer[0].1[..6]), (*port, &question[6..12]));
            assert_eq!(answer, ovs.send(*port, question), "our answer and Open vSwitch's to {question:02x?}");
        }
    }
}

#[test]
fn the_gateway_answers_for_its_addresses_as_open_vswitch_does() {
    let (v4, v6) = (|text: &str| text.parse::<Ipv4Addr>().unwrap(), |text: &str| text.parse::<Ipv6Addr>().unwrap());
    are_answered(
        &GATEWAY,
        &[
            (1, arp(v4("192.168.1.10"), v4("192.168.1.1"))),
            (2, arp(v4("192.168.1.11"), v4("192.168.1.1"))),
            (3, arp(v4("203.0.113.254"), v4("203.0.113.1"))),
            (1, solicitation(v6("fd00:1::10"), v6("fd00:1::1"))),
            (3, solicitation(v6("2001:db8:1::fe"), v6("2001:db8:1::1"))),
            (1, echo("192.168.1.10", "192.168.1.1")),
            (1, echo("fd00:1::10", "fd00:1::1")),
        ],
    );
}

#[test]
fn the_service_is_answered_for_as_by_open_vswitch() {
    let (v4, v6) = (|text: &str| text.parse::<Ipv4Addr>().unwrap(), |text: &str| text.parse::<Ipv6Addr>().unwrap());
    are_answered(
        &BALANCER,
        &[
            (1, arp(v4("10.0.0.1"), v4("10.0.0.100"))),
            (2, arp(v4("10.0.0.11"), v4("10.0.0.101"))),
            (1, solicitation(v6("fd00::1"), v6("fd00::100"))),
            (2, solicitation(v6("fd00::11"), v6("fd00::101"))),
        ],
    );
}
