//! Packets made by hand, for what a kernel's stack never does. Each script is played to our switch and, where it is
//! installed, to Open vSwitch with the same files.

use crate::labs::{BALANCER, FIREWALL, GATEWAY};
use crate::ovs::Ovs;
use crate::sctp::set_tags;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::text::{Names, parse_flow};
use sluice_switch::{Clock, Config, FailMode};
use sluice_tests::conversation::{Conversation, Event, Views};
use sluice_tests::lan::example_mods;
use sluice_tests::switch::Switch;

/// Ports of a switch that scripts are played to.
pub(crate) const PORTS: u16 = 4;

/// A switch that frames are put into one by one.
pub(crate) trait Plays {
    /// Puts a frame in: what comes out, and by which ports.
    fn send(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)>;
    /// Time passes, in milliseconds.
    fn wait(&mut self, millis: u64);
}

/// Our switch.
pub(crate) struct Ours {
    switch: Switch,
    clock: Clock,
}

impl Ours {
    /// The switch with these files, and more flows.
    pub(crate) fn start(files: &[&str], flows: &[&str], caches: bool) -> Self {
        let clock = Clock::manual();
        let mut switch = Switch::start(Config { clock: clock.clone(), caches, ..Config::default() });
        switch.bridge("br0", PORTS, FailMode::Secure);
        let more = flows.iter().map(|flow| FlowMod::add(parse_flow(flow, &Names::default()).unwrap().value).into());
        let mods: Vec<_> = files.iter().flat_map(|file| example_mods(file)).chain(more).collect();
        switch.datapath.apply_bundle("br0", &mods).unwrap();
        Self { switch, clock }
    }
}

impl Plays for Ours {
    fn send(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        self.switch.send(port, frame);
        self.switch.wait();
        let taken = (1..=PORTS).flat_map(|no| self.switch.take(no).into_iter().map(move |frame| (no, frame)));
        taken.map(|(no, frame)| (no, frame.bytes().to_vec())).collect()
    }

    fn wait(&mut self, millis: u64) {
        self.clock.advance(millis);
        // The worker's next round begins after this, and so at the new time.
        self.switch.sync();
    }
}

/// Plays a script. Its first line says who talks, as [`Conversation`] reads it; then `wait MILLIS`, or a packet of the
/// opener (`>`) or the answerer (`<`), which is to arrive at the other end if the line ends with `ok`, and nowhere if
/// it ends with `lost`.
fn play(who: &str, switch: &mut dyn Plays, script: &str, hops: fn(u16) -> Option<[u8; 6]>) {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let talk: Conversation = lines.next().unwrap().parse().unwrap();
    let mut views = Views::new(std::slice::from_ref(&talk));
    for (number, line) in lines.enumerate() {
        let (text, wanted) = line.rsplit_once(' ').unwrap();
        let text = if line.starts_with("wait") { line.to_owned() } else { format!("send 0 {text}") };
        match text.parse().unwrap() {
            Event::Wait(millis) => switch.wait(millis),
            other @ (Event::Flow(_) | Event::Flush) => panic!("not in a script: {other}"),
            Event::Send(packet) => {
                let port = views.port(&packet);
                let mut frame = views.render(number as u16, &packet);
                set_tags(&mut frame, packet.reply);
                if let Some(hop) = hops(port) {
                    frame[..6].copy_from_slice(&hop);
                }
                let other = if packet.reply { talk.near } else { talk.far };
                let out = switch.send(port, &frame);
                let there: Vec<_> = out.iter().filter(|(no, _)| *no == other).collect();
                assert_eq!(there.len(), usize::from(wanted == "ok"), "{who}, line {}: {line}\n{script}", number + 2);
                for (_, frame) in there {
                    views.delivered(&packet, frame);
                }
            }
        }
    }
}

/// Plays scripts, each to switches of its own, where Open vSwitch only forgets the connections in between.
fn play_all(files: &[&str], flows: &[&str], scripts: &[&str], hops: fn(u16) -> Option<[u8; 6]>) {
    // The oracle first: what it does not do is no fault of ours.
    if let Some(mut ovs) = Ovs::start(files, PORTS) {
        ovs.add_flows(flows);
        for script in scripts {
            ovs.forget();
            play("Open vSwitch", &mut ovs, script, hops);
        }
    }
    for script in scripts {
        play_to_ours(files, flows, script, hops);
    }
}

/// Plays a script to our switch, with caches and without.
fn play_to_ours(files: &[&str], flows: &[&str], script: &str, hops: fn(u16) -> Option<[u8; 6]>) {
    for caches in [true, false] {
        play("Sluice", &mut Ours::start(files, flows, caches), script, hops);
    }
}

/// Everybody is a neighbour.
fn no_hops(_: u16) -> Option<[u8; 6]> {
    None
}

/// The gateway's address on each side.
fn gateway_hops(port: u16) -> Option<[u8; 6]> {
    Some([0x0e, 0, 0, 0, 0, if port == 3 { 2 } else { 1 }])
}

/// The same script in IPv6.
fn in_ipv6(script: &str) -> String {
    let mut script = script.to_owned();
    for (v4, v6) in [
        (" 10.0.0.", " fd00::"),
        ("192.168.1.", "fd00:1::"),
        ("203.0.113.", "2001:db8:1::"),
        ("198.51.100.", "2001:db8:2::"),
        ("error type=3 code=1 ", "error type=1 code=0 "),
        ("error type=3 code=4 ", "error type=2 code=0 "),
    ] {
        script = script.replace(v4, v6);
    }
    script
}

/// Plays the scripts through the firewall, in both families.
fn through_the_firewall(scripts: &[&str]) {
    let both: Vec<String> = scripts.iter().flat_map(|script| [(*script).to_owned(), in_ipv6(script)]).collect();
    play_all(&FIREWALL, &[], &both.iter().map(String::as_str).collect::<Vec<_>>(), no_hops);
}

/// The same, through the gateway.
fn through_the_gateway(scripts: &[&str]) {
    let both: Vec<String> = scripts.iter().flat_map(|script| [(*script).to_owned(), in_ipv6(script)]).collect();
    play_all(&GATEWAY, &[], &both.iter().map(String::as_str).collect::<Vec<_>>(), gateway_hops);
}

/// The same, through the load balancer. The client and the first backend have the first backend.
fn through_the_balancer(scripts: &[&str]) {
    let remember = |clients: &str| {
        format!("table=4,priority=200,{clients},tp_dst=80 actions=load:1->NXM_NX_REG1[],load:2->NXM_NX_REG0[]")
    };
    let flows = [
        "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.100",
        "tcp,nw_src=10.0.0.11,nw_dst=10.0.0.100",
        "tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::100",
        "tcp6,ipv6_src=fd00::11,ipv6_dst=fd00::100",
    ];
    let flows = flows.map(remember);
    let flows = flows.each_ref().map(String::as_str);
    let both: Vec<String> = scripts.iter().flat_map(|script| [(*script).to_owned(), in_ipv6(script)]).collect();
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    play_all(&BALANCER, &flows, &both, |_| Some([0x0e, 0, 0, 0, 0, 0x64]));
}

/// A connection, closed by both ends.
const CLOSED: &str = "6 10.0.0.1 40000 10.0.0.3 80 1 3
    > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
    < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
    > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
    > tcp flags=PA seq=1001 ack=5001 win=60000 len=100 ok
    < tcp flags=A seq=5001 ack=1101 win=60000 len=500 ok
    > tcp flags=FA seq=1101 ack=5501 win=60000 len=0 ok
    < tcp flags=FA seq=5501 ack=1102 win=60000 len=0 ok
    > tcp flags=A seq=1102 ack=5502 win=60000 len=0 ok
";

#[test]
fn a_port_in_time_wait_may_be_used_again() {
    let again = "> tcp flags=S seq=900000 ack=0 win=60000 len=0 ok
        < tcp flags=SA seq=70000 ack=900001 win=60000 len=0 ok
        > tcp flags=A seq=900001 ack=70001 win=60000 len=0 ok
        < tcp flags=PA seq=70001 ack=900001 win=60000 len=10 ok";
    // From outside not, at once or later.
    let outside = "< tcp flags=S seq=900000 ack=0 win=60000 len=0 lost
        wait 100000
        < tcp flags=S seq=900000 ack=0 win=60000 len=0 lost";
    let scripts = [again, outside].map(|end| format!("{CLOSED}{end}"));
    through_the_firewall(&scripts.each_ref().map(String::as_str));
}

#[test]
fn what_outside_says_after_time_wait_is_nothing_to_inside() {
    let late = format!(
        "{CLOSED}wait 46000
        < tcp flags=A seq=5502 ack=1102 win=60000 len=0 lost
        < tcp flags=PA seq=5502 ack=1102 win=60000 len=10 lost"
    );
    through_the_firewall(&[&late]);
}

#[test]
fn a_half_open_connection_is_forgotten() {
    through_the_firewall(&[
        "6 10.0.0.1 40000 10.0.0.3 80 1 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        wait 31000
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 lost",
        "6 10.0.0.1 40000 10.0.0.3 80 1 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        wait 20000
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        wait 20000
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
        wait 31000
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 lost",
    ]);
}

#[test]
fn one_end_that_lost_its_half_is_set_right_by_the_other() {
    // The client starts anew with the same port; the server, which knows the old connection, acknowledges that; the
    // client resets it, and begins again.
    through_the_firewall(&["6 10.0.0.1 40000 10.0.0.3 80 1 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
        > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
        < tcp flags=A seq=5001 ack=1001 win=60000 len=0 ok
        > tcp flags=R seq=1001 ack=0 win=0 len=0 ok
        > tcp flags=S seq=700000 ack=0 win=60000 len=0 ok
        < tcp flags=SA seq=80000 ack=700001 win=60000 len=0 ok
        > tcp flags=A seq=700001 ack=80001 win=60000 len=0 ok"]);
}

/// Open vSwitch takes the second SYN as a beginning without noting its sequence number, and then calls the rest
/// invalid; so this is played to our switch alone.
#[test]
fn both_ends_may_open_at_once() {
    for script in [
        // Outside may not begin, even towards who has just begun; but it answers that as well.
        "6 10.0.0.1 40000 10.0.0.3 50000 1 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        < tcp flags=S seq=5000 ack=0 win=60000 len=0 lost
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
        > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
        < tcp flags=PA seq=5001 ack=1001 win=60000 len=100 ok",
        // With the web server it may.
        "6 10.0.0.2 80 10.0.0.3 50000 2 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        < tcp flags=S seq=5000 ack=0 win=60000 len=0 ok
        > tcp flags=SA seq=1000 ack=5001 win=60000 len=0 ok
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
        > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
        < tcp flags=PA seq=5001 ack=1001 win=60000 len=100 ok
        > tcp flags=PA seq=1001 ack=5101 win=60000 len=100 ok
        < tcp flags=FA seq=5101 ack=1101 win=60000 len=0 ok
        > tcp flags=FA seq=1101 ack=5102 win=60000 len=0 ok
        < tcp flags=A seq=5102 ack=1102 win=60000 len=0 ok",
    ] {
        for script in [script.to_owned(), in_ipv6(script)] {
            play_to_ours(&FIREWALL, &[], &script, no_hops);
        }
    }
}

#[test]
fn segments_outside_the_window_are_lost() {
    through_the_firewall(&["6 10.0.0.1 40000 10.0.0.3 80 1 3
        > tcp flags=S seq=1000 ack=0 win=1000 len=0 ok
        < tcp flags=SA seq=5000 ack=1001 win=1000 len=0 ok
        > tcp flags=A seq=1001 ack=5001 win=1000 len=0 ok
        < tcp flags=PA seq=5001 ack=1001 win=1000 len=500 ok
        < tcp flags=PA seq=905001 ack=1001 win=1000 len=500 lost
        < tcp flags=R seq=905001 ack=0 win=0 len=0 lost
        < tcp flags=PA seq=5501 ack=901001 win=1000 len=10 lost
        < tcp flags=PA seq=5501 ack=1001 win=1000 len=10 ok
        > tcp flags=A seq=1001 ack=5511 win=1000 len=0 ok"]);
}

#[test]
fn a_reset_connection_carries_nothing_more() {
    through_the_firewall(&["6 10.0.0.1 40000 10.0.0.3 80 1 3
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
        < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
        > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
        < tcp flags=R seq=5001 ack=0 win=0 len=0 ok
        wait 31000
        < tcp flags=PA seq=5001 ack=1001 win=60000 len=10 lost"]);
}

#[test]
fn nothing_but_a_beginning_begins() {
    let refused = |flags: &str| {
        format!("6 10.0.0.1 40000 10.0.0.3 80 1 3\n> tcp flags={flags} seq=1000 ack=77 win=60000 len=0 lost")
    };
    let scripts: Vec<_> = ["SA", "SF", "SR", "F", ""].into_iter().map(refused).collect();
    through_the_firewall(&scripts.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn errors_come_back_to_who_caused_them_and_others_do_not() {
    through_the_firewall(&["17 10.0.0.1 40000 10.0.0.3 9 1 3
        > udp len=10 ok
        < error type=3 code=1 about=last len=60 ok
        < error type=3 code=1 about=stranger len=60 lost
        < udp len=10 ok"]);
    through_the_gateway(&["17 192.168.1.10 40000 198.51.100.10 9 1 3
        > udp len=1000 ok
        < error type=3 code=4 about=last len=60 ok
        < error type=3 code=1 about=stranger len=60 lost
        < udp len=10 ok
        > error type=3 code=1 about=last len=60 ok"]);
}

#[test]
fn sctp_associations_pass_from_init_to_shutdown() {
    // INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, DATA, SACK, SHUTDOWN, SHUTDOWN ACK, SHUTDOWN COMPLETE.
    let association = "132 CLIENT 40000 SERVER 5000 1 3
        < sctp chunk=3 len=12 lost
        > sctp chunk=1 len=16 ok
        < sctp chunk=2 len=24 ok
        > sctp chunk=10 len=8 ok
        < sctp chunk=11 len=0 ok
        > sctp chunk=0 len=100 ok
        < sctp chunk=3 len=12 ok
        < sctp chunk=0 len=1000 ok
        > sctp chunk=3 len=12 ok
        > sctp chunk=7 len=4 ok
        < sctp chunk=8 len=0 ok
        > sctp chunk=14 len=0 ok";
    let between = |client: &str, server: &str| association.replace("CLIENT", client).replace("SERVER", server);
    through_the_firewall(&[&between("10.0.0.1", "10.0.0.3")]);
    through_the_gateway(&[&between("192.168.1.10", "198.51.100.10")]);
}

#[test]
fn a_connection_that_says_nothing_for_too_long_is_picked_up_from_inside_only() {
    let silent = |wait: &str| {
        format!(
            "6 10.0.0.1 40000 10.0.0.3 80 1 3
            > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
            < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
            > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
            > tcp flags=PA seq=1001 ack=5001 win=60000 len=4 ok
            < tcp flags=A seq=5001 ack=1005 win=60000 len=0 ok
            < tcp flags=PA seq=5001 ack=1005 win=60000 len=4 ok
            > tcp flags=A seq=1005 ack=5005 win=60000 len=0 ok
            {wait}
            "
        )
    };
    let lost = "< tcp flags=PA seq=5005 ack=1005 win=60000 len=4 lost
        > tcp flags=PA seq=1005 ack=5005 win=60000 len=4 ok
        < tcp flags=PA seq=5005 ack=1009 win=60000 len=4 ok";
    let kept = "< tcp flags=PA seq=5005 ack=1005 win=60000 len=4 ok";
    let scripts = [silent("wait 864000000") + lost, silent("wait 86400001") + lost, silent("wait 86399000") + kept];
    through_the_firewall(&scripts.each_ref().map(String::as_str));
}

#[test]
fn datagrams_keep_a_connection_while_they_come() {
    through_the_gateway(&["17 192.168.1.10 40000 198.51.100.10 53 1 3
        < udp len=10 lost
        > udp len=10 ok
        wait 20000
        < udp len=10 ok
        wait 20000
        < udp len=10 ok
        wait 20000
        > udp len=10 ok
        wait 31000
        < udp len=10 lost"]);
}

/// A connection in which everybody speaks, and is told of errors.
const TALK: &str = "
    > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
    > tcp flags=S seq=1000 ack=0 win=60000 len=0 ok
    < tcp flags=SA seq=5000 ack=1001 win=60000 len=0 ok
    > tcp flags=A seq=1001 ack=5001 win=60000 len=0 ok
    > tcp flags=PA seq=1001 ack=5001 win=60000 len=1000 ok
    < error type=3 code=4 about=last len=60 ok
    < tcp flags=PA seq=5001 ack=2001 win=60000 len=1000 ok
    > error type=3 code=4 about=last len=60 ok
    > tcp flags=FA seq=2001 ack=6001 win=60000 len=0 ok
    < tcp flags=FA seq=6001 ack=2002 win=60000 len=0 ok
    > tcp flags=A seq=2002 ack=6002 win=60000 len=0 ok
    > tcp flags=S seq=900000 ack=0 win=60000 len=0 ok";

#[test]
fn a_client_talks_with_its_backend_and_a_backend_with_itself() {
    let client = format!("6 10.0.0.1 40000 10.0.0.100 80 1 2{TALK}");
    let itself = format!("6 10.0.0.11 40000 10.0.0.100 80 2 2{TALK}");
    through_the_balancer(&[&client, &itself]);
}

#[test]
fn the_service_has_one_port_and_backends_no_other_name() {
    through_the_balancer(&[
        "6 10.0.0.1 40000 10.0.0.100 22 1 2
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 lost",
        "17 10.0.0.1 40000 10.0.0.100 80 1 2
        > udp len=10 lost",
        "6 10.0.0.1 40000 10.0.0.101 8080 1 2
        > tcp flags=S seq=1000 ack=0 win=60000 len=0 lost",
    ]);
}
