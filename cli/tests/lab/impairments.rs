//! What links do to frames besides delaying them, as programs in the hosts feel it: ping's figures and the kernel's
//! counters, beside what the switch says that it did.

use super::Lab;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

fn lab(link: &str) -> Option<Lab> {
    Lab::up(&format!("lab: bad\nlinks:\n  - [h1, s1]\n  - [h2, s2]\n  - {{ends: [s1, s2], name: wan, {link}}}\n"))
}

/// Whether a program that a test needs is there; if not, it says so.
fn has(program: &str, asked: &str) -> bool {
    let found = Command::new(program).arg(asked).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {program} is not installed; `xtask/setup.sh` does that");
    }
    found
}

impl Lab {
    /// What ping in h1 prints of h2, or of another address.
    fn ping(&self, args: &str) -> String {
        let line = format!("lab exec h1 -- ping -n -W 1 {args} 10.0.0.2");
        let output = self.sluice(&line.split_whitespace().collect::<Vec<_>>());
        String::from_utf8(output.stdout).expect("text")
    }

    /// One way of the link wan: from s1, or from s2.
    fn way(&self, from: &str) -> Value {
        let shown: Value = serde_json::from_str(&self.ok("lab link show wan -o json")).expect("one document");
        let ways = shown["links"].as_array().expect("ways");
        ways.iter().find(|way| way["from"] == from).expect("both ways").clone()
    }

    fn count(&self, from: &str, what: &str) -> u64 {
        self.way(from)[what].as_u64().expect("a number")
    }

    /// Bits a second that TCP from h1 to h2 carried over the link, all headers included.
    fn tcp_rate(&self) -> f64 {
        let mut server = self.command(&["lab", "exec", "h2", "--", "iperf3", "-s", "-1"]);
        let mut server = server.stdout(Stdio::null()).spawn().expect("it starts");
        let mut rate = None;
        for _ in 0..50 {
            let client = self.sluice(&"lab exec h1 -- iperf3 -c 10.0.0.2 -t 4 -O 1 -J".split(' ').collect::<Vec<_>>());
            let report: Value = serde_json::from_slice(&client.stdout).unwrap_or_default();
            if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                // A segment of 1448 bytes is a frame of 1518 with its check sequence.
                rate = Some(bits * 1518.0 / 1448.0);
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        _ = server.kill();
        _ = server.wait();
        rate.expect("iperf3 measured")
    }
}

/// The number in front of `what` in ping's summary.
fn told(summary: &str, what: &str) -> u64 {
    let words: Vec<_> = summary.split([' ', ',', '\n']).filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("no `{what}` in {summary}"));
    words[place - 1].trim_start_matches('+').parse().expect("a number")
}

#[track_caller]
fn assert_share(count: u64, of: u64, p: f64) {
    let (mean, deviation) = (of as f64 * p, (of as f64 * p * (1.0 - p)).sqrt());
    assert!((count as f64 - mean).abs() < 4.0 * deviation, "{count} of {of}, not {mean}");
}

#[test]
fn a_delay_is_what_ping_measures() {
    let Some(lab) = lab("delay: 20ms, back: {delay: 10ms}") else { return };
    if !has("ping", "-V") {
        return;
    }
    let said = lab.ping("-c 41 -i 0.01");
    let mut times: Vec<f64> =
        said.lines().filter_map(|line| line.split_once("time=")?.1.split_once(' ')?.0.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(times.len(), 41, "{said}");
    let median = times[times.len() / 2];
    assert!((30.0..30.0 * 1.05 + 0.1).contains(&median), "{median} ms");
}

#[test]
fn losses_are_those_of_the_way_and_the_share_that_was_set_and_follow_from_the_seed() {
    if !has("ping", "-V") {
        return;
    }
    let run = || {
        let lab = lab("loss: 10%, back: {loss: 0%}")?;
        // Neighbours are known before, so that frames are the same in each run.
        let said = lab.ping("-q -f -c 2000");
        let lost = told(&said, "packets") - told(&said, "received");
        assert_share(lost, 2000, 0.1);
        let counted = lab.count("s1", "lost_packets");
        assert_share(counted, lab.count("s1", "sent_packets"), 0.1);
        assert!((lost..lost + 20).contains(&counted), "{lost} pings, {counted} frames");
        assert_eq!(lab.count("s2", "lost_packets"), 0);
        let drops = lab.ok("drops");
        assert!(drops.contains("link_loss"), "{drops}");
        Some(lost)
    };
    let Some(first) = run() else { return };
    // A neighbour's question more or less shifts the numbers of all frames behind it.
    let again = run().expect("as before");
    assert!(first.abs_diff(again) <= 20, "{first} and {again}");
}

#[test]
fn a_rate_is_kept_by_tcp_in_super_frames_and_a_new_one_holds_at_once() {
    let Some(lab) = lab("rate: 20mbit, queue: 100p, delay: 1ms") else { return };
    if !has("iperf3", "--version") {
        return;
    }
    for rate in [20.0, 50.0] {
        lab.ok(&format!("lab link set wan rate={rate}mbit"));
        // A busy machine may be slower than the link, never faster.
        let mut measured = 0.0;
        for _ in 0..3 {
            measured = lab.tcp_rate() / 1e6;
            assert!(measured < rate * 1.03, "{measured} Mbit/s instead of {rate}");
            if measured > rate * 0.97 {
                break;
            }
        }
        assert!(measured > rate * 0.97, "{measured} Mbit/s instead of {rate}");
    }
    assert!(lab.count("s1", "sent_packets") > 10_000, "segments are counted, not super-frames");
}

#[test]
fn a_full_queue_drops_what_comes_last() {
    let Some(lab) = lab("rate: 1mbit, queue: 3p") else { return };
    if !has("ping", "-V") {
        return;
    }
    lab.ping("-q -c 1");
    let said = lab.ping("-q -c 30 -l 30 -s 1400");
    assert!((3..20).contains(&told(&said, "received")), "{said}");
    assert!(lab.count("s1", "queue_full_packets") >= 10);
    assert_eq!(lab.count("s1", "lost_packets"), 0);
    let drops = lab.ok("drops");
    assert!(drops.contains("queue_full"), "{drops}");
    let shown = lab.ok("lab link show wan");
    let way: Vec<_> = shown.lines().nth(1).expect("the first way").split_whitespace().collect();
    assert_eq!((way[5], way[6]), ("1mbit", "0/3p"), "{shown}");
}

#[test]
fn a_host_sees_doubled_frames_and_drops_changed_ones() {
    let Some(lab) = lab("duplicate: 30%, back: {duplicate: 0%}") else { return };
    if !has("ping", "-V") {
        return;
    }
    let said = lab.ping("-q -c 300 -i 0.002");
    assert_eq!(told(&said, "received"), 300, "{said}");
    assert_share(told(&said, "duplicates"), 300, 0.3);
    assert!(lab.count("s1", "duplicated_packets") >= told(&said, "duplicates"));

    lab.ok("lab link set wan duplicate=0% corrupt=100% --from s1");
    let errors = || -> u64 {
        let text = lab.ok("lab exec h2 -- cat /proc/net/snmp");
        let field = |protocol: &str, name: &str| -> u64 {
            let mut lines = text.lines().filter(|line| line.starts_with(protocol));
            let names = lines.next().expect("names").split_whitespace();
            let values = lines.next().expect("values").split_whitespace();
            names.zip(values).find(|(n, _)| *n == name).map_or(0, |(_, value)| value.parse().expect("a number"))
        };
        field("Ip:", "InHdrErrors") + field("Icmp:", "InCsumErrors")
    };
    let before = errors();
    let said = lab.ping("-q -c 50 -i 0.002");
    assert_eq!(told(&said, "received"), 0, "{said}");
    let seen = errors() - before;
    // Some have another version or length now and count as others do.
    assert!((40..=50).contains(&seen), "{seen} of 50 checksums were found wrong");
    assert!(lab.count("s1", "corrupted_packets") >= 50);
}

#[test]
fn frames_overtake_where_that_is_asked_for_and_nowhere_else() {
    let Some(lab) = lab("delay: 30ms, jitter: 5ms") else { return };
    if !has("ping", "-V") {
        return;
    }
    let order = || -> Vec<u64> {
        let said = lab.ping("-c 60 -i 0.002");
        said.lines().filter_map(|line| line.split_once("icmp_seq=")?.1.split_once(' ')?.0.parse().ok()).collect()
    };
    let kept = order();
    assert!(kept.len() == 60 && kept.is_sorted(), "{kept:?}");
    lab.ok("lab link set wan reorder=20%");
    let changed = order();
    assert!(changed.len() == 60 && !changed.is_sorted(), "{changed:?}");
}

#[test]
fn a_partial_change_leaves_the_rest_as_it_was_and_is_saved() {
    let Some(lab) = lab("delay: 5ms, loss: 1%, rate: 50mbit, back: {delay: 7ms}") else { return };
    lab.ok("lab link set wan loss=5% queue=50p");
    lab.ok("lab link set wan rate=0 --from s2");
    let shown = lab.ok("lab link show wan");
    let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][1..7], ["s1>s2", "5ms", "0ms", "5%", "50mbit", "0/50p"], "{shown}");
    assert_eq!(lines[2][1..7], ["s2>s1", "7ms", "0ms", "5%", "-", "-"], "{shown}");
    let wide = lab.ok("lab link show -o wide");
    assert!(wide.contains("DUPLICATE  CORRUPT  REORDER"), "{wide}");
    let saved = lab.ok("lab save");
    let wan = "name: wan, delay: 5ms, loss: 5%, rate: 50mbit, queue: 50p, back: {delay: 7ms, rate: 0}}\n";
    assert!(saved.contains(wan), "{saved}");
    std::fs::write(lab.path().join("saved.yml"), &saved).unwrap();
    lab.ok("lab down");
    lab.ok("lab up saved.yml");
    assert_eq!(lab.ok("lab save"), saved);
}

#[test]
fn links_that_came_up_without_impairments_get_them_while_frames_flow() {
    let Some(lab) = Lab::up("lab: plain\nlinks: [[h1, s1], [s1, s2], [h2, s2]]\n") else { return };
    if !has("ping", "-V") {
        return;
    }
    let kinds = || {
        let listed: Value = serde_json::from_str(&lab.ok("ports -o json")).expect("one document");
        let ports = listed["ports"].as_array().expect("ports").clone();
        ports.iter().map(|port| port["type"].as_str().expect("a kind").to_owned()).collect::<Vec<_>>()
    };
    assert!(!kinds().contains(&"wire".to_owned()), "nothing is paid for what is not asked: {:?}", kinds());
    assert_eq!(lab.ok("lab link show").lines().count(), 1, "no link has impairments");
    // Two thousand packets in flight and on their way while wires are put in: none is lost, twice or late by the switch.
    let line = "lab exec h1 -- ping -n -q -c 2000 -i 0.002 10.0.0.2";
    let pings = lab.command(&line.split(' ').collect::<Vec<_>>()).stdout(Stdio::piped()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(500));
    lab.ok("lab link set h1-s1 delay=2ms");
    lab.ok("lab link set s1-s2 delay=3ms jitter=1ms");
    lab.ok("lab link set s1-s2 delay=9ms --back");
    let said = String::from_utf8(pings.wait_with_output().expect("it ends").stdout).expect("text");
    assert_eq!((told(&said, "received"), told(&said, "packets")), (2000, 2000), "{said}");
    assert!(!said.contains("duplicates"), "{said}");
    // 2 + 3 - 1 there, 9 + 2 - 1 back.
    assert!(lab.shortest_ping() >= Duration::from_millis(14), "{:?}", lab.shortest_ping());
    assert_eq!(kinds().iter().filter(|kind| **kind == "wire").count(), 4);
    assert_eq!(lab.ok("drops").lines().count(), 1, "{}", lab.ok("drops"));

    // The link is one with impairments for every verb from then on.
    let shown = lab.ok("lab link show");
    let lines: Vec<Vec<_>> = shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let ways: Vec<_> = lines.iter().map(|line| line[..4].join(" ")).collect();
    assert_eq!(ways, ["h1-s1 h1>s1 2ms 0ms", "h1-s1 s1>h1 2ms 0ms", "s1-s2 s1>s2 3ms 1ms", "s1-s2 s2>s1 9ms 1ms"]);
    assert!(lab.ok("trace h1 h2 icmp").contains("h1-s1 2ms"), "{}", lab.ok("trace h1 h2 icmp"));
    let out = lab.captured("h1-s1 icmp -c 2 -w host.pcapng");
    assert_eq!(out, "2 packets, 0 lost by capture -> host.pcapng\n");
    lab.ok("lab link down h1-s1");
    assert_eq!(lab.fails("lab ping h1 h2").0, Some(1));
    lab.ok("lab link up h1-s1");
    let graph = lab.ok("lab graph");
    assert!(graph.contains("3/9ms"), "{graph}");
    let saved = lab.ok("lab save");
    assert!(saved.contains("- {ends: [h1, s1], delay: 2ms}\n"), "{saved}");
    assert!(saved.contains("- {ends: [s1, s2], delay: 3ms, jitter: 1ms, back: {delay: 9ms}}\n"), "{saved}");

    // Without impairments again: a wire that carries frames at once, and no word of it in the file.
    lab.ok("lab link set h1-s1 delay=0ms");
    lab.ok("lab link set s1-s2 delay=0ms jitter=0ms");
    lab.ok("lab ping");
    assert!(lab.ok("lab save").contains("- [s1, s2]\n"), "{}", lab.ok("lab save"));
    lab.ok("lab link set s1-s2 loss=100%");
    assert_eq!(lab.fails("lab ping h1 h2").0, Some(1));
}

#[test]
fn every_impairment_can_be_given_to_a_link_that_had_none() {
    let Some(lab) = Lab::up("lab: bad\nlinks: [[h1, s1], [h2, s2], {ends: [s1, s2], name: wan}]\n") else { return };
    if !has("ping", "-V") {
        return;
    }
    lab.ok("lab link set wan loss=100% --from s2");
    assert_eq!(told(&lab.ping("-q -c 3 -i 0.01"), "received"), 0);
    // Nobody has learned who h2 is: what is lost are its answers to that.
    assert!(lab.count("s2", "lost_packets") >= 1 && lab.count("s1", "lost_packets") == 0);
    lab.ok("lab link set wan loss=0% duplicate=100% --from s1");
    lab.ok("lab link set wan loss=0% --back");
    // ping does not wait for the copy of the last one.
    assert!(told(&lab.ping("-q -c 5 -i 0.01"), "duplicates") >= 4);
    lab.ok("lab link set wan duplicate=0% corrupt=100%");
    lab.ping("-q -c 3 -i 0.01");
    assert!(lab.count("s1", "corrupted_packets") >= 1);
    lab.ok("lab link set wan corrupt=0% delay=20ms reorder=100%");
    assert!(lab.shortest_ping() < Duration::from_millis(20), "what overtakes does not wait");
    lab.ok("lab link set wan reorder=0% delay=0ms rate=1mbit queue=2p");
    // A frame of 1442 bytes and its check sequence take 11.6 ms each way.
    let said = lab.ping("-q -c 20 -i 0.03 -s 1400");
    let least: f64 = said.rsplit_once("= ").and_then(|(_, times)| times.split('/').next()?.parse().ok()).expect(&said);
    assert!(least >= 23.0, "{said}");
    lab.ping("-q -f -l 20 -c 40 -s 1400");
    assert!(lab.count("s1", "queue_full_packets") > 0);
}

#[test]
fn routed_links_and_links_of_routers_get_impairments_live() {
    let routers = "lab: plain\nhosts: {h1: {}, h2: {}}\nswitches: {s1: {}}\nrouters: {r1: {}}\n\
        vlans: {a: {id: 5, subnet: 10.1.0.0/24, gateway: r1}, b: {id: 6, subnet: 10.2.0.0/24, gateway: r1}}\n\
        links: [{ends: [h1, s1], access: a}, {ends: [h2, s1], access: b}, {ends: [r1, s1], name: up, trunk: [a, b]}]\n";
    for (file, links) in [(routers, "up"), (&super::OVERLAY.replace(", delay: 5ms", ""), "core")] {
        let Some(lab) = Lab::up(file) else { return };
        lab.ok("lab ping");
        lab.ok(&format!("lab link set {links} delay=6ms"));
        assert!(lab.shortest_ping() >= Duration::from_millis(12), "{:?}", lab.shortest_ping());
        lab.ok(&format!("lab link set {links} delay=16ms --back"));
        assert!(lab.shortest_ping() >= Duration::from_millis(22), "{:?}", lab.shortest_ping());
    }
}

#[test]
fn links_go_down_and_up_and_flap() {
    let Some(lab) =
        Lab::up("lab: net\nlinks: [[h1, s1], {ends: [s1, s2], delay: 1ms}, [h2, s2], [s2, s3], [h3, s3]]\n")
    else {
        return;
    };
    lab.ok("lab ping");
    let state = |link: &str| {
        let shown = lab.ok(&format!("lab link show {link}"));
        shown
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().last().expect("a state").to_owned())
            .collect::<Vec<_>>()
    };
    // A host's, a wire, a patch; and who cannot be reached from h1 without it.
    for (link, unreached) in [("h1-s1", ["h2", "h3"]), ("s1-s2", ["h2", "h3"]), ("s2-s3", ["h3", "h3"])] {
        lab.ok(&format!("lab link down {link}"));
        assert_eq!(state(link), ["down", "down"]);
        assert!(lab.ok("lab link show").contains(link), "a link that is down is shown");
        for host in unreached {
            assert_eq!(lab.fails(&format!("lab ping h1 {host}")).0, Some(1), "{link} is down");
        }
        lab.ok(&format!("lab link up {link}"));
        assert_eq!(state(link), ["up", "up"]);
        lab.ok("lab ping");
    }
    let flapped = lab.ok("lab link flap s1-s2 --times 3 --every 20ms -o json");
    let flapped: Value = serde_json::from_str(&flapped).unwrap();
    assert_eq!((flapped["flaps"].as_u64(), flapped["up"].as_bool()), (Some(3), Some(true)));
    lab.ok("lab ping");

    // What is down is saved so, and comes up down.
    lab.ok("lab link down h1-s1");
    let saved = lab.ok("lab save");
    assert!(saved.contains("- {ends: [h1, s1], down: true}\n"), "{saved}");
    std::fs::write(lab.path().join("saved.yml"), &saved).unwrap();
    lab.ok("lab down");
    lab.ok("lab up saved.yml");
    assert_eq!((state("h1-s1"), lab.ok("lab save")), (vec!["down".to_owned(); 2], saved));
    lab.ok("lab link up h1-s1");
    lab.ok("lab ping");

    // Interrupted, it leaves the link up.
    let mut flap = lab.command(&["lab", "link", "flap", "s1-s2", "--times", "1000"]).spawn().unwrap();
    let down = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        state("s1-s2") == ["down", "down"]
    });
    assert!(down, "it never went down");
    assert!(Command::new("kill").args(["-INT", &flap.id().to_string()]).status().unwrap().success());
    assert!(flap.wait().unwrap().success());
    assert_eq!(state("s1-s2"), ["up", "up"]);
}
