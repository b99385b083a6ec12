//! Through the firewall: what inside may begin, what outside may ask for, and what is told of the rest.

use crate::STREAM;
use crate::labs::{CHATTER, FIREWALL, dropped_by, firewall, owner};
use crate::programs::ping;
use sluice_flows::DropReason;
use sluice_switch::Clock;
use sluice_switch::conntrack::{CtSettings, SettingsError, TimeoutClass};
use sluice_tests::host::{Host, Kind, PATIENCE};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::programs;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::{a_closed_port_is_told, datagrams, ping_until_answered, stream, stream_to};
use sluice_tests::variant;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Time passes, longer than any connection lives without a packet.
fn days_pass(lan: &Lan, clock: &Clock) {
    clock.advance(10 * 86_400_000);
    // The workers' next rounds begin after this, and so at the new time.
    wait_until("the workers have been asked", || lan.datapath.sync_stats());
}

/// The owner of the rule that drops what outside asks for in vain.
fn no_service() -> String {
    owner(FIREWALL[0], "table=2, priority=0 ")
}

fn both(host: &Host) -> [IpAddr; 2] {
    [host.v4, host.v6]
}

#[test]
fn inside_begins_what_it_likes() {
    if skipped("inside_begins_what_it_likes") {
        return;
    }
    for kind in Kind::ALL {
        let lan = firewall(kind, Clock::monotonic());
        let [client, server, outside] = [1, 2, 3].map(|n| lan.host(n));
        for to in both(outside) {
            ping_until_answered(client, to);
            ping(&client.netns, to, 1000);
            datagrams(client, outside, to, [0, 1, 1400, 1452]);
            stream(client, outside, to, STREAM);
            // The error about it comes back.
            a_closed_port_is_told(server, to);
        }
        lan.check_accounts(&CHATTER);
    }
}

#[test]
fn outside_reaches_the_services_that_are_named() {
    if skipped("outside_reaches_the_services_that_are_named") {
        return;
    }
    let lan = firewall(variant::port(), Clock::monotonic());
    let [server, outside] = [2, 3].map(|n| lan.host(n));
    for to in both(server) {
        ping(&outside.netns, to, 56);
        stream_to(outside, (to, 80).into(), server.listen(to, 80), STREAM);
        let far = server.udp_at((to, 53).into());
        let near = outside.udp(to);
        near.send_to(b"who is who?", (to, 53)).unwrap();
        let mut buffer = [0; 100];
        let (len, from) = far.recv_from(&mut buffer).unwrap();
        far.send_to(&buffer[..len], from).unwrap();
        assert_eq!(near.recv(&mut buffer).unwrap(), len);
    }
    assert_eq!(dropped_by(&lan, &no_service()), 0);
    lan.check_accounts(&CHATTER);
}

#[test]
fn what_outside_may_not_ask_for_is_dropped_by_a_rule_that_has_a_name() {
    if skipped("what_outside_may_not_ask_for_is_dropped_by_a_rule_that_has_a_name") {
        return;
    }
    let lan = firewall(variant::port(), Clock::monotonic());
    let [client, server, outside] = [1, 2, 3].map(|n| lan.host(n));
    for to in both(server).into_iter().chain(both(client)) {
        // Whatever the server listens on.
        let _listener = if to == server.v4 || to == server.v6 { server } else { client }.listen(to, 22);
        let before = dropped_by(&lan, &no_service());
        let attempt = outside.netns.run(|| TcpStream::connect_timeout(&(to, 22).into(), Duration::from_millis(300)));
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::TimedOut);
        outside.udp(to).send_to(b"anyone?", (to, 7000)).unwrap();
        wait_until("both are dropped", || dropped_by(&lan, &no_service()) >= before + 2);
    }
    // The client may not even be pinged.
    for to in both(client) {
        let (code, output) = programs::run(&outside.netns, &["ping", "-n", "-c", "1", "-W", "0.3", &to.to_string()]);
        assert_eq!(code, Some(1), "{output}");
    }
    let last = lan
        .datapath
        .drops()
        .into_iter()
        .find(|drop| drop.rule.as_ref().is_some_and(|rule| rule.spec.owner.text() == no_service()));
    let last = last.unwrap();
    assert_eq!(last.reason, DropReason::RuleDrop);
    assert!(last.example.is_some());
}

/// A connection from the client to outside, which both ends use.
fn connected(lan: &Lan, to: IpAddr) -> (TcpStream, TcpStream) {
    let listener = lan.host(3).listen(to, 0);
    let address = listener.local_addr().unwrap();
    let near = lan.host(1).netns.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    let (far, _) = listener.accept().unwrap();
    for (from, to) in [(&near, &far), (&far, &near)] {
        to.set_read_timeout(Some(PATIENCE)).unwrap();
        speak(from, to);
    }
    (near, far)
}

/// A word from one end to the other.
fn speak(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"word").unwrap();
    let mut got = [0; 4];
    to.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"word");
}

/// Whether the host's kernel waits for no acknowledgement.
fn is_acknowledged(host: &Host) -> bool {
    let files = ["tcp", "tcp6"].map(|name| format!("/proc/thread-self/net/{name}"));
    let text = host.netns.run(|| files.map(|file| fs::read_to_string(file).unwrap()).concat());
    let queues = text.lines().filter_map(|line| line.split_whitespace().nth(4)?.split_once(':'));
    queues.filter(|(sent, _)| sent.chars().all(|c| c.is_ascii_digit())).all(|(sent, _)| sent == "00000000")
}

/// The connection from inside is not known any more: outside cannot go on with it, but inside can, and then what was lost
/// comes again.
fn is_picked_up_from_inside_only(lan: &Lan, near: &TcpStream, mut far: &TcpStream) {
    let before = dropped_by(lan, &no_service());
    far.write_all(b"late").unwrap();
    wait_until("what comes from outside is dropped", || dropped_by(lan, &no_service()) > before);
    near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    { near }.read(&mut [0; 4]).unwrap_err();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    speak(near, far);
    let mut got = [0; 4];
    { near }.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"late");
    speak(far, near);
}

#[test]
fn a_connection_idle_past_its_timeout_is_picked_up_from_inside_only() {
    if skipped("a_connection_idle_past_its_timeout_is_picked_up_from_inside_only") {
        return;
    }
    let clock = Clock::manual();
    let lan = firewall(variant::port(), clock.clone());
    for to in both(lan.host(3)) {
        let (near, far) = connected(&lan, to);
        // Nobody has anything more to say: an acknowledgement from inside would be the beginning of a connection.
        wait_until("everything is acknowledged", || [1, 3].iter().all(|n| is_acknowledged(lan.host(*n))));
        days_pass(&lan, &clock);
        is_picked_up_from_inside_only(&lan, &near, &far);
    }
}

#[test]
fn a_zone_may_have_a_timeout_of_its_own() {
    if skipped("a_zone_may_have_a_timeout_of_its_own") {
        return;
    }
    let lan = firewall(variant::port(), Clock::monotonic());
    let (near, far) = connected(&lan, lan.host(3).v4);
    wait_until("everything is acknowledged", || [1, 3].iter().all(|n| is_acknowledged(lan.host(*n))));
    let seconds = |seconds: u32| {
        let change = |settings: &mut CtSettings| {
            settings.zones.entry(1).or_default().timeouts.insert(TimeoutClass::TcpEstablished, seconds);
            Ok::<_, SettingsError>(())
        };
        lan.datapath.set_connection_settings(change).unwrap();
    };
    seconds(1);
    wait_until("the connection has expired", || lan.datapath.connections_len() == 0);
    assert_eq!(lan.datapath.connection_counters().expired, 1);
    // What inside picks up lives as long as others do.
    seconds(86_400);
    is_picked_up_from_inside_only(&lan, &near, &far);
}

#[test]
fn datagrams_from_outside_pass_only_while_the_connection_is_known() {
    if skipped("datagrams_from_outside_pass_only_while_the_connection_is_known") {
        return;
    }
    let clock = Clock::manual();
    let lan = firewall(variant::port(), clock.clone());
    for to in both(lan.host(3)) {
        let (near, far) = (lan.host(1).udp(to), lan.host(3).udp(to));
        near.send_to(b"ask", far.local_addr().unwrap()).unwrap();
        let (_, from) = far.recv_from(&mut [0; 8]).unwrap();
        far.send_to(b"answer", from).unwrap();
        near.recv(&mut [0; 8]).unwrap();
        days_pass(&lan, &clock);
        let before = dropped_by(&lan, &no_service());
        far.send_to(b"late", from).unwrap();
        wait_until("what comes late is dropped", || dropped_by(&lan, &no_service()) > before);
        heard_nothing(&near);
    }
}

fn heard_nothing(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_reset_from_either_end_comes_to_the_other() {
    if skipped("a_reset_from_either_end_comes_to_the_other") {
        return;
    }
    let lan = firewall(variant::port(), Clock::monotonic());
    for to in both(lan.host(3)) {
        for from_inside in [true, false] {
            let (near, far) = connected(&lan, to);
            let (gone, mut other) = if from_inside { (near, far) } else { (far, near) };
            // What was not read makes the end that goes say so.
            other.write_all(b"unread").unwrap();
            gone.peek(&mut [0; 6]).unwrap();
            drop(gone);
            assert_eq!(other.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
    lan.check_accounts(&CHATTER);
}
