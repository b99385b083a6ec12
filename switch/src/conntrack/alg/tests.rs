//! Whole conversations of control connections.

use super::super::conn::{Conn, PlainState, Protocol};
use super::super::tcp::{ACK, SYN};
use super::super::testing::{Ends, Tcp, commit, look, pass};
use super::super::tuple::{Direction, Tuple};
use super::super::{Tracked, Tracker};
use super::testing::{Parts, TestSegment, is_sound, parts, verify};
use super::*;
use sluice_flows::action::{Nat, NatDirection};
use sluice_flows::datapath::DpCt;
use sluice_flows::key::{CT_NEW, CT_REL, CT_RPL, CT_TRK, PacketKey, slot};
use sluice_flows::packet::extract;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};

const NOW: Millis = Millis(1000);

/// A control connection of a client at 10.0.0.1 to a server at 10.0.0.2 port 21.
struct Control {
    conn: Arc<Conn>,
    expectations: Expectations,
    /// Whether text and numbers are translated.
    translate: bool,
    v6: bool,
    /// The sequence number of the next line.
    next: Cell<u32>,
}

fn address(text: &str, v6: bool) -> IpAddr {
    let v4: Ipv4Addr = text.parse().unwrap();
    if v6 { v4.to_ipv6_mapped().into() } else { v4.into() }
}

impl Control {
    /// The server sees the client as `client`; the client sees the server as `server`.
    fn new(client: &str, server: &str, v6: bool) -> Self {
        let own = Tuple::new(3, 6, address("10.0.0.1", v6), address("10.0.0.2", v6)).with_ports(40_000, 21);
        let original = own.with_dst(address(server, v6));
        let reply = own.reversed().unwrap().with_dst(address(client, v6));
        let protocol = Protocol::Plain(PlainState::default());
        let conn =
            Conn::new(original, reply, protocol, None, NOW).with_helper(Helper::new(Some(CtAlg::Ftp), &original));
        conn.marks().mark = 77;
        Self { conn: Arc::new(conn), expectations: Expectations::default(), translate: true, v6, next: Cell::new(100) }
    }

    /// Sends a segment, and returns what becomes of it.
    fn send(&self, direction: Direction, seq: u32, ack: u32, payload: &[u8]) -> Result<Parts, Box<Frame>> {
        let segment = TestSegment { seq, ack, v6: self.v6, ..TestSegment::v4(payload) };
        let (mut frame, layers) = segment.frame();
        let conn = (&self.conn, direction);
        if !follow((&mut frame, &layers), conn, &self.expectations, self.translate, NOW) {
            return Err(Box::new(frame));
        }
        verify(&frame);
        Ok(parts(&frame))
    }

    fn say(&self, direction: Direction, line: &str) -> String {
        let parts = self.send(direction, self.next.get(), 200, line.as_bytes()).unwrap();
        self.next.set(self.next.get() + 100);
        String::from_utf8(parts.payload).unwrap()
    }

    /// The tuples of a data connection from port `from` that comes to `to` on the side of `direction`'s sender.
    fn data(&self, direction: Direction, from: u16, to: u16) -> Option<(Tuple, Tuple)> {
        let first = self.conn.tuple(direction.opposite()).with_ports(from, to);
        let expected = self.expectations.find(&first, NOW)?;
        assert!(Arc::ptr_eq(&expected.parent, &self.conn) && expected.mark == 77);
        Some((first, expected.replies(&first).next()?))
    }
}

use Direction::{Original, Reply};

#[test]
fn a_translated_client_announces_the_address_that_the_server_knows() {
    let control = Control::new("192.168.200.100", "10.0.0.2", false);
    assert_eq!(control.say(Original, "PORT 10,0,0,1,4,210\r\n"), "PORT 192,168,200,100,4,210\r\n");
    assert_eq!(control.say(Original, "EPRT |1|10.0.0.1|999|\r\n"), "EPRT |1|192.168.200.100|999|\r\n");
    let (first, reply) = control.data(Original, 20, 1234).unwrap();
    assert_eq!((first.src(), first.dst()), (address("10.0.0.2", false), address("192.168.200.100", false)));
    assert_eq!(reply, Tuple::new(3, 6, address("10.0.0.1", false), first.src()).with_ports(1234, 20));
    let line = "227 Entering Passive Mode (10,0,0,2,4,210).\r\n";
    assert_eq!(control.say(Reply, line), line, "the server is not translated");
    let (first, reply) = control.data(Reply, 50_000, 1234).unwrap();
    assert_eq!(first, control.conn.original.with_ports(50_000, 1234));
    assert_eq!(reply, control.conn.reply.with_ports(1234, 50_000), "but the client is");
}

#[test]
fn a_translated_server_announces_the_address_that_the_client_knows() {
    let control = Control::new("10.0.0.1", "172.16.0.1", false);
    let line = control.say(Reply, "227 Entering Passive Mode (10,0,0,2,4,210).\r\n");
    assert_eq!(line, "227 Entering Passive Mode (172,16,0,1,4,210).\r\n");
    let line = "229 Entering Extended Passive Mode (|||1235|)\r\n";
    assert_eq!(control.say(Reply, line), line);
    for port in [1234, 1235] {
        let (first, reply) = control.data(Reply, 50_000, port).unwrap();
        assert_eq!((first.dst(), reply.src()), (address("172.16.0.1", false), address("10.0.0.2", false)));
        assert_eq!((reply.src_port, reply.dst_port), (port, 50_000));
    }
    assert_eq!(control.say(Original, "PORT 10,0,0,1,4,210\r\n"), "PORT 10,0,0,1,4,210\r\n");
    let (first, reply) = control.data(Original, 20, 1234).unwrap();
    assert_eq!((first.src(), reply.dst()), (address("10.0.0.2", false), address("172.16.0.1", false)));
}

#[test]
fn ipv6_is_as_ipv4() {
    let control = Control::new("192.168.200.100", "10.0.0.2", true);
    let line = control.say(Original, "EPRT |2|::ffff:10.0.0.1|1234|\r\n");
    assert_eq!(line, "EPRT |2|::ffff:192.168.200.100|1234|\r\n");
    let (_, reply) = control.data(Original, 20, 1234).unwrap();
    assert_eq!(reply.src(), address("10.0.0.1", true));
    control.say(Reply, "229 Entering Extended Passive Mode (|||1235|)\r\n");
    assert!(control.data(Reply, 50_000, 1235).is_some());
}

#[test]
fn without_translation_nothing_is_written_but_the_connection_is_expected() {
    let control = Control { translate: false, ..Control::new("192.168.200.100", "10.0.0.2", false) };
    assert_eq!(control.say(Original, "PORT 10,0,0,1,4,210\r\n"), "PORT 10,0,0,1,4,210\r\n");
    assert!(control.data(Original, 20, 1234).is_some());
}

#[test]
fn who_names_somebody_else_or_something_impossible_is_invalid_and_expects_nothing() {
    let control = Control::new("192.168.200.100", "172.16.0.1", false);
    for (direction, line) in [
        (Original, "PORT 10,0,0,2,4,210\r\n"),
        (Original, "EPRT |1|10.0.0.3|1234|\r\n"),
        (Reply, "227 Entering Passive Mode (10,0,0,1,4,210)\r\n"),
        (Original, "PORT 10,0,0,1,999,210\r\n"),
    ] {
        let frame = control.send(direction, 1, 1, line.as_bytes()).unwrap_err();
        assert_eq!(parts(&frame).payload, line.as_bytes(), "and is left alone");
        assert!(control.data(direction, 20, 1234).is_none(), "{line}");
    }
    assert!(control.say(Original, "PORT 192,168,200,100,4,210\r\n").starts_with("PORT 192"), "its other address");
    assert!(control.data(Original, 20, 1234).is_some());
}

#[test]
fn numbers_move_behind_what_was_rewritten_and_retransmissions_are_as_the_first_time() {
    let control = Control::new("192.168.200.100", "10.0.0.2", false);
    let line = b"PORT 10,0,0,1,4,210\r\n";
    let (sent, grown) = (line.len() as u32, b"192,168,200,100".len() as u32 - b"10,0,0,1".len() as u32);
    let first = control.send(Original, 5000, 9000, line).unwrap();
    assert_eq!((first.seq, first.ack), (5000, 9000));
    let ack = 5000 + sent + grown;
    let answer = control.send(Reply, 9000, ack, b"200 Fine\r\n").unwrap();
    assert_eq!((answer.seq, answer.ack), (9000, 5000 + sent));
    let second = control.send(Original, 5000 + sent, 9010, line).unwrap();
    assert_eq!((second.seq, second.ack, second.payload), (5000 + sent + grown, 9010, first.payload.clone()));
    let again = control.send(Original, 5000, 9000, line).unwrap();
    assert_eq!((again.seq, again.payload), (first.seq, first.payload));
    let third = control.send(Original, 5000 + 2 * sent, 9010, b"LIST\r\n").unwrap();
    assert_eq!(third.seq, 5000 + 2 * (sent + grown));
    let answer = control.send(Reply, 9010, third.seq + 6, b"").unwrap();
    assert_eq!(answer.ack, 5000 + 2 * sent + 6);
    let Some(helper) = &control.conn.helper else { panic!("no helper") };
    let mut segment = TcpSegment { seq: 9010, ack: third.seq, window: 0, flags: 0x10, len: 0 };
    helper.acknowledges(Reply, &mut segment);
    assert_eq!(segment.ack, 5000 + 2 * sent, "what the tracker compares with");
}

#[test]
fn two_clients_behind_one_address_get_two_ports() {
    let b = Control::new("192.168.200.100", "10.0.0.2", false);
    let original = b.conn.original.with_src(address("10.0.0.3", false));
    let protocol = Protocol::Plain(PlainState::default());
    let a = Conn::new(original, b.conn.reply.with_ports(21, 40_001), protocol, None, NOW);
    let a = Arc::new(a.with_helper(Helper::new(Some(CtAlg::Ftp), &original)));
    let (mut frame, layers) = TestSegment::v4(b"PORT 10,0,0,3,4,210\r\n").frame();
    assert!(follow((&mut frame, &layers), (&a, Original), &b.expectations, true, NOW));
    assert!(parts(&frame).payload.ends_with(b",4,210\r\n"));
    assert_eq!(b.say(Original, "PORT 10,0,0,1,4,210\r\n"), "PORT 192,168,200,100,4,211\r\n");
    assert_eq!(b.say(Original, "PORT 10,0,0,1,4,210\r\n"), "PORT 192,168,200,100,4,211\r\n", "repeated");
    let (_, reply) = b.data(Original, 20, 1235).unwrap();
    assert_eq!(reply.src_port, 1234);
}

#[test]
fn the_oldest_announcement_of_a_connection_makes_room_and_its_end_ends_all() {
    let control = Control::new("10.0.0.1", "10.0.0.2", false);
    for port in 1..=MOST_EACH + 1 {
        control.say(Original, &format!("PORT 10,0,0,1,0,{port}\r\n"));
    }
    let open: Vec<bool> = (1..=MOST_EACH as u16 + 1).map(|port| control.data(Original, 20, port).is_some()).collect();
    assert_eq!(open, [&[false][..], &[true; MOST_EACH]].concat());
    control.conn.end();
    assert!(control.data(Original, 20, 2).is_none());
}

#[test]
fn a_tftp_server_may_answer_from_any_port() {
    let original = Tuple::new(3, 17, address("10.0.0.1", false), address("10.0.0.2", false)).with_ports(40_000, 69);
    let reply = original.reversed().unwrap().with_dst(address("192.168.0.9", false)).with_ports(69, 50_000);
    let conn = Conn::new(original, reply, Protocol::Plain(PlainState::default()), None, NOW);
    let conn = Arc::new(conn.with_helper(Helper::new(Some(CtAlg::Tftp), &original)));
    let expectations = Expectations::default();
    let (mut frame, layers) = TestSegment::v4(b"").frame();
    let first = reply.with_ports(3000, 50_000);
    assert!(follow((&mut frame, &layers), (&conn, Reply), &expectations, true, NOW));
    assert!(expectations.find(&first, NOW).is_none());
    assert!(follow((&mut frame, &layers), (&conn, Original), &expectations, true, NOW));
    let expected = expectations.find(&first, NOW).unwrap();
    assert_eq!(expected.replies(&first).next(), Some(original.with_ports(40_000, 3000)));
}

#[test]
fn a_helper_is_remembered_for_its_own_protocol_only() {
    let tcp = Tuple::new(0, 6, address("10.0.0.1", false), address("10.0.0.2", false)).with_ports(1, 2121);
    let udp = Tuple::new(0, 17, address("10.0.0.1", false), address("10.0.0.2", false)).with_ports(1, 69);
    assert_eq!(Helper::new(Some(CtAlg::Ftp), &tcp).map(|helper| helper.alg()), Some(CtAlg::Ftp));
    assert!(Helper::new(Some(CtAlg::Ftp), &udp).is_none() && Helper::new(Some(CtAlg::Tftp), &tcp).is_none());
    assert!(Helper::new(None, &tcp).is_none());
}

/// What one end has sent, and how far the other has got it.
#[derive(Default)]
struct Sent {
    /// Payloads, with the sequence numbers that they have on both sides.
    lines: Vec<(Vec<u8>, u32, Parts)>,
    /// Lines that the other end has acknowledged.
    got: usize,
}

/// Lines that are rewritten, grow, shrink or stay, and others.
fn line(direction: Direction, kind: u8, port: u16) -> String {
    let [high, low] = port.max(1).to_be_bytes();
    match (direction, kind % 4) {
        (Original, 0) => format!("PORT 10,0,0,1,{high},{low}\r\n"),
        (Original, 1) => format!("EPRT |1|10.0.0.1|{}|\r\n", port.max(1)),
        (Reply, 0) => format!("227 Entering Passive Mode (10,0,0,2,{high},{low})\r\n"),
        (Reply, 1) => format!("229 Entering Extended Passive Mode (|||{}|)\r\n", port.max(1)),
        (_, kind) => "x".repeat(usize::from(kind) * 7) + "\r\n",
    }
}

proptest::proptest! {
    /// Headers and text with some bytes changed, and frames that are cut off.
    #[test]
    fn broken_frames_do_no_harm(
        v6: bool, partial: bool, cut in 0usize..20,
        changes in proptest::collection::vec((0usize..130, proptest::prelude::any::<u8>()), 0..5),
    ) {
        let control = Control::new("192.168.200.100", "172.16.0.1", v6);
        let line: &[u8] = if v6 { b"EPRT |2|::ffff:10.0.0.1|1234|\r\n" } else { b"PORT 10,0,0,1,4,210\r\n" };
        let (frame, _) = TestSegment { v6, partial, ..TestSegment::v4(line) }.frame();
        let mut bytes = frame.bytes()[..frame.len() - cut.saturating_sub(10)].to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let mut broken = Frame::from_bytes(&bytes);
        broken.offload = frame.offload;
        let layers = extract(broken.bytes(), 1, &mut PacketKey::default());
        let sound = rewrite::segment(&broken, &layers).is_some();
        let good = sound && layers.l4_ofs == frame.offload.csum_start.max(if v6 { 54 } else { 34 }) && is_sound(&broken);
        for direction in [Original, Reply] {
            let packet = (&mut broken, &layers);
            _ = follow(packet, (&control.conn, direction), &control.expectations, true, NOW);
            proptest::prop_assert!(!good || is_sound(&broken));
        }
        proptest::prop_assert!(sound || broken.bytes() == bytes, "not a segment");
    }

    /// Both ends talk at once, repeat themselves, and acknowledge what they got; some of it is lost behind the switch.
    #[test]
    fn both_ends_understand_each_other_whatever_is_repeated(
        addresses in (proptest::bool::ANY, proptest::bool::ANY), starts: [u32; 2],
        steps in proptest::collection::vec(proptest::prelude::any::<(bool, u8, u16, u8)>(), 1..60),
    ) {
        let client = if addresses.0 { "192.168.200.100" } else { "9.9.9.9" };
        let server = if addresses.1 { "172.16.100.100" } else { "9.9.9.8" };
        let control = Control::new(client, server, false);
        let mut sent = [Sent::default(), Sent::default()];
        for (reply, kind, port, again) in steps {
            let direction = if reply { Reply } else { Original };
            let (own, other) = (direction as usize, direction.opposite() as usize);
            let after = |parts: &Parts| parts.seq.wrapping_add(parts.payload.len() as u32);
            // What this end acknowledges, in the numbers that it saw, and what that is to who sent it.
            let heard = sent[other].got.checked_sub(1).map(|last| &sent[other].lines[last]);
            let ack = heard.map_or(starts[other], |(_, _, parts)| after(parts));
            let acked = heard.map_or(starts[other], |(line, seq, _)| seq.wrapping_add(line.len() as u32));
            let repeated = sent[own].lines.len().checked_sub(1 + usize::from(again % 12));
            if let Some((payload, seq, parts)) = repeated.filter(|_| again % 12 < 6).map(|n| &sent[own].lines[n]) {
                let repeated = control.send(direction, *seq, ack, payload).unwrap();
                proptest::prop_assert_eq!((repeated.seq, &repeated.payload), (parts.seq, &parts.payload));
                proptest::prop_assert_eq!(repeated.ack, acked);
                continue;
            }
            let payload = line(direction, kind, port).into_bytes();
            let last = sent[own].lines.last();
            let seq = last.map_or(starts[own], |(line, seq, _)| seq.wrapping_add(line.len() as u32));
            let expected = last.map_or(starts[own], |(_, _, parts)| after(parts));
            let parts = control.send(direction, seq, ack, &payload).unwrap();
            proptest::prop_assert_eq!((parts.seq, parts.ack), (expected, acked), "no gap and no overlap");
            sent[own].lines.push((payload, seq, parts));
            if again < 200 {
                sent[own].got = sent[own].lines.len();
            }
        }
    }
}

/// Puts a frame through the tracker: what it said, and addresses and ports of the frame as it left.
fn track(tracker: &Tracker, mut frame: Frame, ask: &DpCt) -> (Tracked, (IpAddr, u16, IpAddr, u16)) {
    let mut tracked = Tracked::default();
    pass(tracker, &mut frame, ask, &mut tracked, NOW).unwrap();
    let mut key = PacketKey::ZERO;
    extract(frame.bytes(), 0, &mut key);
    let address = |slot| IpAddr::from(Ipv4Addr::from_bits(key.get(slot) as u32));
    let port = |slot| key.get(slot) as u16;
    (tracked, (address(slot::IP_SRC), port(slot::TP_SRC), address(slot::IP_DST), port(slot::TP_DST)))
}

#[test]
fn each_of_two_clients_behind_one_address_gets_the_data_that_it_asked_for() {
    let tracker = Tracker::default();
    let (server, outside) = (address("10.0.0.2", false), address("192.168.0.9", false));
    let clients = ["10.0.0.1", "10.0.0.3"].map(|text| address(text, false));
    let nat = Nat { direction: Some(NatDirection::Src), addresses: Some((outside, outside)), ..Nat::default() };
    for (mark, client) in (1..).zip(clients) {
        let ask = DpCt { alg: Some(CtAlg::Ftp), nat: Some(nat), mark: Some((mark, !0)), ..commit(5) };
        let ends = Ends { src: client, dst: server, src_port: 40_000, dst_port: 21 };
        let (_, (_, port, ..)) = track(&tracker, ends.tcp(&Tcp::new(SYN, 0, 0)), &ask);
        let back = Ends { src: server, dst: outside, src_port: 21, dst_port: port };
        track(&tracker, back.tcp(&Tcp::new(SYN | ACK, 0, 1)), &ask);
        let mut message = ends.tcp_message(&Tcp::new(ACK, 1, 1));
        message.extend(format!("PORT {},4,210\r\n", client.to_string().replace('.', ",")).bytes());
        track(&tracker, ends.frame(6, &message), &ask);
    }
    let bare = Some(Nat::default());
    // The first one's port as it was, and the one nearby that the second one was given.
    for (mark, (client, port)) in (1..).zip(clients.into_iter().zip([1234, 1235])) {
        let first = Ends { src: server, dst: outside, src_port: 20, dst_port: port };
        let syn = || first.tcp(&Tcp::new(SYN, 0, 0));
        let (tracked, left) = track(&tracker, syn(), &DpCt { nat: bare, ..look(5) });
        assert_eq!((tracked.state, tracked.mark, left.2), (CT_TRK | CT_NEW | CT_REL, mark, outside));
        assert_eq!(tracked.original.unwrap().dst_port, 21, "its parent's");
        let ask = DpCt { nat: bare, alg: Some(CtAlg::Ftp), mark: Some((9, !0)), ..commit(5) };
        let (tracked, left) = track(&tracker, syn(), &ask);
        assert_eq!((tracked.state & CT_REL, tracked.mark, left), (CT_REL, mark, (server, 20, client, 1234)));
        let conn = tracked.conn.unwrap().0;
        assert!(conn.parent.is_some() && conn.helper.is_none());
        let back = Ends { src: client, dst: server, src_port: 1234, dst_port: 20 };
        let (tracked, left) = track(&tracker, back.tcp(&Tcp::new(SYN | ACK, 0, 1)), &ask);
        assert_eq!(tracked.state & (CT_REL | CT_RPL), CT_REL | CT_RPL);
        assert_eq!(left, (outside, port, server, 20));
    }
    let other = Ends { src: server, dst: outside, src_port: 20, dst_port: 1236 };
    assert_eq!(track(&tracker, other.tcp(&Tcp::new(SYN, 0, 0)), &look(5)).0.state, CT_TRK | CT_NEW);
}
