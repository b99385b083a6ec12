//! Labs with a host that gets copies of what passes a switch.

use super::*;
use std::io::{BufRead, BufReader};

/// What tcpdump sees at a host while `meanwhile` is done, until it has seen `count` packets of ICMP.
fn seen(user: &User, host: &str, count: usize, meanwhile: impl FnOnce()) -> Vec<String> {
    let count = count.to_string();
    let args = ["lab", "exec", host, "--", "timeout", "20", "tcpdump", "-i", "eth0", "-nn", "-q", "-t", "-l"];
    let mut command = user.command(&[&args[..], &["-c", &count, "icmp"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(talk.read_line(&mut line).unwrap() > 0, "tcpdump does not listen");
    }
    meanwhile();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Who sent to whom, and what.
fn told(lines: &[String]) -> Vec<String> {
    let what = |line: &String| line.split(", id").next().unwrap_or_default().to_owned();
    lines.iter().map(what).collect()
}

#[test]
fn a_host_sees_each_frame_that_passes_the_switch_once_and_has_no_part_in_it() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        println!("skipped: there is no tcpdump");
        return;
    }
    let user = User::new();
    // By a port, and by a wire that has a bridge at its end.
    for link in ["[h9, s1]", "{ends: [s1, h9], delay: 2ms}"] {
        let file = format!(
            "lab: watch\nswitches: {{s1: {{mirror: h9}}}}\nhosts: {{h1: {{}}, h2: {{}}, h9: {{}}}}\n\
             links: [[h1, s1], [h2, s1], {link}]\n"
        );
        user.up(&file, "");
        // h9 has no address and is in no pair.
        user.reaches("", 2);
        user.fails("lab ping h1 h9", 2, &["h9 has no address"]);
        let lines = seen(&user, "h9", 4, || _ = user.ok("lab exec h1 -- ping -q -c 2 -i 0.2 -W 5 10.0.0.2"));
        let (there, back) = ("IP 10.0.0.1 > 10.0.0.2: ICMP echo request", "IP 10.0.0.2 > 10.0.0.1: ICMP echo reply");
        assert_eq!(told(&lines), [there, back, there, back]);
        let mirrors = user.json("mirrors -o json");
        assert_eq!(mirrors["mirrors"][0]["output_port"], "h9", "{mirrors}");
        assert!(mirrors["mirrors"][0]["packets"].as_u64().unwrap() >= 4, "{mirrors}");
        let trace = user.ok("trace h1 h2 icmp");
        assert!(trace.starts_with("DELIVERED") && !trace.lines().next().unwrap().contains("h9"), "{trace}");
        assert!(user.ok("lab save watch").contains("s1: {mirror: h9}"));
        user.ok("mirrors del s1 --bridge s1");
        assert!(user.ok("mirrors -o json").contains("\"mirrors\":[]"));
        user.ok("lab down");
    }
}

#[test]
fn a_mirror_that_cannot_be_is_refused_with_its_line() {
    let user = User::new();
    let lab = |mirror: &str, host: &str| {
        format!(
            "lab: watch\nswitches: {{s1: {{mirror: {mirror}}}, s2: {{}}}}\nhosts: {{h1: {{}}, h9: {host}}}\n\
             links: [[h1, s1], [h9, s2], [s1, s2]]\n"
        )
    };
    for (file, said) in [
        (lab("h8", "{}"), "lab.yml:2: mirror: there is no host `h8`; did you mean `h1`?"),
        (lab("s2", "{}"), "lab.yml:2: mirror: there is no host `s2`"),
        (lab("h9", "{}"), "lab.yml:2: mirror: no link joins `h9` and s1"),
        (lab("h1", "{}").replace("h1: {}", "h1: {ip: 10.0.0.9}"), "ip: eth0 of `h1` is where s1 sends copies"),
    ] {
        fs::write(user.folder.path().join("lab.yml"), file).unwrap();
        let told = user.run("lab validate lab.yml");
        assert!(told.code == 1 && told.out.contains(said), "no {said:?} in {told:#?}");
    }
}
