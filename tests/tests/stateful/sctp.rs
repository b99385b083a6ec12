//! SCTP, of which not every kernel has a stack: associations made by hand, over the hosts' own interfaces.

use crate::labs::{CHATTER, firewall, gateway_alone};
use sluice_flows::packet::checksum::sctp;
use sluice_switch::Clock;
use sluice_tests::conversation::{Conversation, Event, Views};
use sluice_tests::host::{Capture, Kind};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;

/// An association from INIT to SHUTDOWN COMPLETE, with data both ways.
const ASSOCIATION: [&str; 11] = [
    "> sctp chunk=1 len=16",
    "< sctp chunk=2 len=24",
    "> sctp chunk=10 len=8",
    "< sctp chunk=11 len=0",
    "> sctp chunk=0 len=1000",
    "< sctp chunk=3 len=12",
    "< sctp chunk=0 len=1000",
    "> sctp chunk=3 len=12",
    "> sctp chunk=7 len=4",
    "< sctp chunk=8 len=0",
    "> sctp chunk=14 len=0",
];
/// Where the transport header of a frame without IP options begins.
const L4: [usize; 2] = [34, 54];
const SCTP: u8 = 132;

/// The verification tags that packets towards the opener and the answerer carry.
const TAGS: [u32; 2] = [0x0c11_e171, 0x05e1_7e12];
/// Bytes of the common header.
const HEADER: usize = 12;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// Gives an SCTP packet the tags of an association: an INIT carries none, and INIT and INIT ACK announce those of the
/// packets to come. A frame of another protocol is left as it is.
pub(crate) fn set_tags(frame: &mut [u8], reply: bool) {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (proto, l4) = if v6 { (frame[20], L4[1]) } else { (frame[23], L4[0]) };
    if proto != SCTP {
        return;
    }
    let packet = &mut frame[l4..];
    let kind = packet[HEADER];
    let tag = if kind == INIT { 0 } else { TAGS[usize::from(!reply)] };
    packet[4..8].copy_from_slice(&tag.to_be_bytes());
    if matches!(kind, INIT | INIT_ACK) {
        packet[HEADER + 4..HEADER + 8].copy_from_slice(&TAGS[usize::from(reply)].to_be_bytes());
    }
    packet[8..12].fill(0);
    let sum = sctp(packet);
    packet[8..12].copy_from_slice(&sum);
}

/// The SCTP packet with this frame's payload that came, if it has. Payloads differ by type and length.
fn arrived(capture: &mut Capture, sent: &[u8], l4: usize) -> Option<Vec<u8>> {
    let is_it = |bytes: &[u8]| {
        let proto = bytes.get(if l4 == L4[0] { 23 } else { 20 });
        bytes[12..14] == sent[12..14] && proto == Some(&SCTP) && bytes.get(l4 + HEADER..) == Some(&sent[l4 + HEADER..])
    };
    capture.take().into_iter().map(|frame| frame.bytes().to_vec()).find(|bytes| is_it(bytes))
}

/// Every packet of the association arrives, with its checksum right.
fn associate(lan: &Lan, talk: &str, hops: Option<[[u8; 6]; 2]>) {
    let talk: Conversation = talk.parse().unwrap();
    let l4 = L4[usize::from(talk.opener.addr.is_ipv6())];
    let mut views = Views::new(std::slice::from_ref(&talk));
    let mut ends = [talk.near, talk.far].map(|no| lan.host(no as u8).capture());
    for (number, line) in ASSOCIATION.iter().enumerate() {
        let Event::Send(packet) = format!("send 0 {line}").parse().unwrap() else { panic!("{line} is no packet") };
        let mut frame = views.render(number as u16, &packet);
        set_tags(&mut frame, packet.reply);
        let from = usize::from(packet.reply);
        if let Some(hops) = hops {
            frame[..6].copy_from_slice(&hops[from]);
        }
        assert!(ends[from].send(&frame), "{line}");
        let mut there = None;
        wait_until(line, || {
            there = arrived(&mut ends[1 - from], &frame, l4);
            there.is_some()
        });
        let there = there.unwrap();
        let mut bare = there[l4..].to_vec();
        bare[8..12].fill(0);
        assert_eq!(there[l4 + 8..l4 + 12], sctp(&bare), "the checksum of {line}");
        views.delivered(&packet, &there);
    }
}

#[test]
fn associations_pass_the_firewall_from_init_to_shutdown() {
    if skipped("associations_pass_the_firewall_from_init_to_shutdown") {
        return;
    }
    for kind in Kind::ALL {
        let lan = firewall(kind, Clock::monotonic());
        // Addresses that the hosts' kernels know nothing of.
        associate(&lan, "132 10.0.0.201 40000 10.0.0.203 5000 1 3", None);
        associate(&lan, "132 fd00::201 40000 fd00::203 5000 1 3", None);
        lan.check_accounts(&CHATTER);
    }
}

#[test]
fn associations_pass_the_gateway_from_init_to_shutdown() {
    if skipped("associations_pass_the_gateway_from_init_to_shutdown") {
        return;
    }
    let hops = Some([[0x0e, 0, 0, 0, 0, 1], [0x0e, 0, 0, 0, 0, 2]]);
    for kind in Kind::ALL {
        let lan = gateway_alone(kind, 1);
        associate(&lan, "132 192.168.1.201 40000 198.51.100.203 5000 1 3", hops);
        associate(&lan, "132 fd00:1::201 40000 2001:db8:2::203 5000 1 3", hops);
        // Another host with the same port has to give way, which changes the checksum.
        associate(&lan, "132 192.168.1.202 40000 198.51.100.203 5000 2 3", hops);
        associate(&lan, "132 fd00:1::202 40000 2001:db8:2::203 5000 2 3", hops);
        lan.check_accounts(&CHATTER);
    }
}
