use super::super::testing::{Ends, Tcp, V4, V6, commit, look, pass};
use super::*;
use crate::conntrack::tcp::{ACK, FIN, PSH, SYN};
use sluice_flows::action::{CtAlg, Nat};
use sluice_flows::key::PacketKey;
use sluice_flows::packet::{Frame, extract};

const NOW: Millis = Millis(0);

/// The packet as tables would see it, untracked.
fn key_of(frame: &Frame) -> FlowKey {
    let mut key = PacketKey::ZERO;
    extract(frame.bytes(), 0, &mut key);
    FlowKey::from(&key)
}

/// Puts a frame through the tracker, and checks that it is told what a trace was told before. Gives the state.
#[track_caller]
fn follow(tracker: &Tracker, mut frame: Frame, ask: &DpCt) -> u8 {
    let foretold = tracker.peek(&key_of(&frame), ask, NOW);
    let mut tracked = Tracked::default();
    pass(tracker, &mut frame, ask, &mut tracked, NOW).unwrap();
    let mut key = key_of(&frame);
    tracked.write(&mut key);
    match foretold {
        CtKnown::Connection { key: foretold, told } => assert_eq!(*foretold, key, "{told}"),
        CtKnown::New => assert_eq!(tracked.state & (CT_NEW | CT_EST | CT_REL), CT_NEW),
        CtKnown::Unsaid(what) => panic!("{what}"),
    }
    tracked.state
}

fn nat(direction: NatDirection, to: &str, port: u16) -> Option<Nat> {
    let to = to.parse().unwrap();
    Some(Nat { direction: Some(direction), addresses: Some((to, to)), ports: Some((port, port)), ..Nat::default() })
}

fn tcp(ends: Ends, flags: u8, seq: u32, ack: u32) -> Frame {
    ends.tcp(&Tcp::new(flags, seq, ack))
}

#[test]
fn a_trace_is_told_what_the_packet_is_told() {
    for ends in [V4, V6] {
        let tracker = Tracker::default();
        let ask = DpCt { mark: Some((5, 0xf)), label: Some((1 << 70, 1 << 70)), ..commit(5) };
        follow(&tracker, tcp(ends, SYN, 100, 0), &ask);
        follow(&tracker, tcp(ends, SYN, 100, 0), &ask);
        follow(&tracker, tcp(ends.back(), SYN | ACK, 500, 101), &look(5));
        follow(&tracker, tcp(ends, SYN, 100, 0), &ask);
        follow(&tracker, tcp(ends, ACK, 101, 501), &look(5));
        follow(&tracker, tcp(ends.back(), ACK, 501, 101), &look(5));
        let other_bits = DpCt { mark: Some((0xa0, 0xf0)), ..commit(5) };
        follow(&tracker, tcp(ends, ACK, 101, 501), &other_bits);
        follow(&tracker, ends.udp(4), &ask);
        let force = DpCt { force: true, ..commit(5) };
        follow(&tracker, ends.back().udp(4), &force);
    }
}

#[test]
fn a_syn_behind_the_end_begins_anew_and_a_flow_without_flags_goes_on() {
    let tracker = Tracker::default();
    let unsaid = |ends: Ends| {
        let mut key = key_of(&tcp(ends, ACK, 0, 0));
        key.set(slot::TCP_FLAGS, 0);
        match tracker.peek(&key, &look(5), NOW) {
            CtKnown::Connection { key, .. } => key.get(slot::CT_STATE) as u8,
            other => panic!("{other:?}"),
        }
    };
    follow(&tracker, tcp(V4, SYN, 100, 0), &commit(5));
    assert_eq!(unsaid(V4), CT_TRK | CT_NEW, "a SYN again");
    assert_eq!(unsaid(V4.back()), CT_TRK | CT_EST | CT_RPL);
    follow(&tracker, tcp(V4.back(), SYN | ACK, 500, 101), &look(5));
    assert_eq!(unsaid(V4), CT_TRK | CT_EST);
    follow(&tracker, tcp(V4, ACK | FIN, 101, 501), &look(5));
    follow(&tracker, tcp(V4.back(), ACK | FIN, 501, 102), &look(5));
    follow(&tracker, tcp(V4, ACK, 102, 502), &look(5));
    assert_eq!(unsaid(V4), CT_TRK | CT_EST);
    follow(&tracker, tcp(V4, SYN, 9000, 0), &commit(5));
}

#[test]
fn translated_packets_are_foretold_as_they_will_be() {
    let apply = DpCt { nat: Some(Nat::default()), ..look(5) };
    let tracker = Tracker::default();
    let ask = DpCt { nat: nat(NatDirection::Src, "192.0.2.9", 5000), ..commit(5) };
    follow(&tracker, V4.udp(4), &ask);
    assert_ne!(follow(&tracker, V4.udp(4), &ask) & CT_SNAT, 0);
    let answer = Ends { src: V4.dst, dst: "192.0.2.9".parse().unwrap(), src_port: 80, dst_port: 5000 };
    assert_ne!(follow(&tracker, answer.udp(4), &apply) & CT_DNAT, 0);
    assert_eq!(follow(&tracker, answer.udp(4), &look(5)) & CT_DNAT, 0, "nobody asked for it");
    let tracker = Tracker::default();
    let ask = DpCt { nat: nat(NatDirection::Dst, "2001:db8::99", 8080), ..commit(5) };
    follow(&tracker, V6.udp(4), &ask);
    let answer = Ends { src: "2001:db8::99".parse().unwrap(), dst: V6.src, src_port: 8080, dst_port: 1000 };
    assert_ne!(follow(&tracker, answer.udp(4), &apply) & CT_SNAT, 0);
}

#[test]
fn an_announced_connection_is_foretold_as_related() {
    let tracker = Tracker::default();
    let control = Ends { dst_port: 21, ..V4 };
    let ask = DpCt { alg: Some(CtAlg::Ftp), mark: Some((6, !0)), ..commit(5) };
    follow(&tracker, tcp(control, SYN, 100, 0), &ask);
    follow(&tracker, tcp(control.back(), SYN | ACK, 500, 101), &ask);
    let mut message = control.tcp_message(&Tcp::new(PSH | ACK, 101, 501));
    message.extend(b"PORT 10,0,0,1,19,137\r\n");
    follow(&tracker, control.frame(6, &message), &ask);
    let data = Ends { src_port: 20, dst_port: 19 * 256 + 137, ..V4.back() };
    let other = DpCt { mark: Some((1, 1)), ..commit(5) };
    assert_ne!(follow(&tracker, tcp(data, SYN, 1, 0), &look(5)) & CT_REL, 0);
    assert_ne!(follow(&tracker, tcp(data, SYN, 1, 0), &other) & CT_REL, 0);
    follow(&tracker, tcp(data.back(), SYN | ACK, 9, 2), &other);
}

#[test]
fn what_a_flow_cannot_say_is_not_made_up() {
    let tracker = Tracker::default();
    let echo = key_of(&V4.echo(false, 7));
    assert!(matches!(tracker.peek(&echo, &look(5), NOW), CtKnown::Unsaid(_)));
    assert!(matches!(tracker.peek(&FlowKey::ZERO, &look(5), NOW), CtKnown::Unsaid(_)));
}
