//! `sluice capture`: the file as tshark reads it, lines, filters, ends.

use super::{Said, Switch, arp, sluice};
use sluice_flows::packet::{Frame, GsoKind, Offload, checksum};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// A capture that has begun.
struct Capture {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
}

impl Capture {
    fn of(switch: &Switch, args: &[&str]) -> Self {
        let args: Vec<_> = ["capture"].iter().chain(args).copied().chain(["--socket", "s.sock"]).collect();
        let mut command = sluice(switch.folder.path(), &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command was built");
        let mut err = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        err.read_line(&mut line).expect("it says that it has begun");
        assert!(line.starts_with("capturing "), "{line}");
        Self { child, err }
    }

    fn end(mut self) -> Said {
        let mut said = Said { code: None, out: String::new(), err: String::new() };
        let mut out = self.child.stdout.take().expect("it is piped");
        out.read_to_string(&mut said.out).expect("text");
        self.err.read_to_string(&mut said.err).expect("text");
        said.code = self.child.wait().expect("it ends").code();
        said
    }
}

fn has_tshark() -> bool {
    let there = Command::new("tshark").arg("-v").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: tshark is not installed; `xtask/setup.sh` does that");
    }
    there
}

/// What tshark says of these fields of each packet; a packet that it finds malformed is a failure.
fn tshark(switch: &Switch, file: &str, fields: &[&str]) -> Vec<String> {
    let read = |args: &[&str]| {
        let output =
            Command::new("tshark").args(["-n", "-r", file]).args(args).current_dir(switch.folder.path()).output();
        let output = output.expect("tshark runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let malformed = read(&["-Y", "_ws.malformed || _ws.short"]);
    assert_eq!(malformed, "", "malformed packets");
    let fields: Vec<_> = fields.iter().flat_map(|field| ["-e", field]).collect();
    read(&[&["-T", "fields", "-E", "separator=|"][..], &fields].concat()).lines().map(str::to_owned).collect()
}

/// An Ethernet frame with an IPv4 packet of this protocol.
fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let len = (20 + payload.len()) as u16;
    frame.extend([0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let sum = checksum::checksum(&frame[14..]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame.extend(payload);
    frame
}

fn udp(dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0xc0, 0, (dst >> 8) as u8, dst as u8];
    datagram.extend([((payload.len() + 8) >> 8) as u8, (payload.len() + 8) as u8, 0, 0]);
    datagram.extend(payload);
    ipv4(17, &datagram)
}

/// A VXLAN packet of network 100 with this frame inside.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    udp(4789, &[&[8, 0, 0, 0, 0, 0, 100, 0][..], inner].concat())
}

#[test]
fn a_file_has_the_ports_as_interfaces_and_both_directions() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "in_port=1 actions=output:2"]);
    let capture = Capture::of(&switch, &["p1,p2", "-w", "x.pcapng", "-c", "4"]);
    switch.receive(&arp());
    switch.receive(&udp(9, b"hello"));
    let said = capture.end();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "4 packets, 0 lost by capture -> x.pcapng\n"), "{said:?}");
    if !has_tshark() {
        return;
    }
    let fields = ["frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "frame.len"];
    let mut seen = tshark(&switch, "x.pcapng", &fields);
    seen.sort();
    let line = |port: &str, way: &str, len: usize| format!("{port}|port {port} of the switch|{way}|{len}");
    let (arp, datagram) = (arp().len(), udp(9, b"hello").len());
    let (first, second) = (arp.max(datagram), arp.min(datagram));
    let mut want = Vec::new();
    for (port, way) in [("p1", "0x00000001"), ("p2", "0x00000002")] {
        want.extend([line(port, way, first), line(port, way, second)]);
    }
    want.sort();
    assert_eq!(seen, want);
    // Times are whole nanoseconds of this century.
    for time in tshark(&switch, "x.pcapng", &["frame.time_epoch"]) {
        let (seconds, fraction) = time.split_once('.').expect("a fraction");
        assert!(seconds.parse::<u64>().expect("a number") > 1_500_000_000 && fraction.len() == 9, "{time}");
    }
}

#[test]
fn a_tunnel_is_recorded_as_it_is_or_opened() {
    let switch = Switch::start();
    let inner = ipv4(1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let capture = Capture::of(&switch, &["p1", "-w", "outer.pcapng", "-c", "2"]);
    let opened = Capture::of(&switch, &["p1", "-w", "inner.pcapng", "-c", "2", "--inner"]);
    switch.receive(&vxlan(&inner));
    switch.receive(&arp());
    let (said, opened) = (capture.end(), opened.end());
    assert_eq!(said.out, "2 packets, 0 lost by capture -> outer.pcapng (outer VXLAN; --inner strips it)\n");
    assert_eq!(opened.out, "2 inner packets, 0 lost by capture -> inner.pcapng (outer VXLAN stripped)\n");
    if !has_tshark() {
        return;
    }
    let [outer, plain] = &tshark(&switch, "outer.pcapng", &["vxlan.vni", "frame.protocols"])[..] else { panic!() };
    assert!(outer.starts_with("100|eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp"), "{outer}");
    assert_eq!(plain, "|eth:ethertype:arp");
    let [stripped, plain] = &tshark(&switch, "inner.pcapng", &["frame.len", "frame.protocols"])[..] else { panic!() };
    assert!(stripped.starts_with(&format!("{}|eth:ethertype:ip:icmp", inner.len())), "{stripped}");
    assert!(plain.ends_with("|eth:ethertype:arp"), "what is in no tunnel stays: {plain}");
}

#[test]
fn a_super_frame_is_whole_says_so_and_is_not_malformed() {
    let switch = Switch::start();
    let capture = Capture::of(&switch, &["p1", "-w", "x.pcapng", "-c", "1"]);
    let mut tcp = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    tcp.resize(20 + 9000, 7);
    let mut frame = Frame::from_bytes(&ipv4(6, &tcp));
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1400,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    assert!(switch.ends[0].inject_frame(0, frame));
    let said = capture.end();
    assert_eq!(said.out, "1 packet, 0 lost by capture -> x.pcapng (1 super-frame written whole)\n");
    if has_tshark() {
        let seen = tshark(&switch, "x.pcapng", &["frame.len", "tcp.len", "frame.comment"]);
        let [seen] = &seen[..] else { panic!("{seen:?}") };
        assert!(seen.starts_with("9054|9000|verdict=drop reason=no_rule"), "{seen}");
        assert!(seen.contains("super-frame: leaves the machine in segments of 1400 bytes"), "{seen}");
    }
}

#[test]
fn each_datagram_of_a_udp_super_frame_is_opened_by_itself() {
    let switch = Switch::start();
    let capture = Capture::of(&switch, &["p1", "-w", "x.pcapng", "-c", "2", "--inner"]);
    let inner = |n: u8| [&[8, 0, 0, 0, 0, 0, 100, 0][..], &udp(9, &[n; 100])].concat();
    let all: Vec<_> = (1..=3).flat_map(inner).collect();
    let mut frame = Frame::from_bytes(&udp(4789, &all));
    frame.offload = Offload { gso: GsoKind::Udp, gso_size: inner(1).len() as u16, ..Offload::NONE };
    assert!(switch.ends[0].inject_frame(0, frame));
    // No more than was asked for, although one frame held three.
    assert_eq!(capture.end().out, "2 inner packets, 0 lost by capture -> x.pcapng (outer VXLAN stripped)\n");
    if has_tshark() {
        let want = ["01", "02"].map(|n| n.repeat(100));
        assert_eq!(tshark(&switch, "x.pcapng", &["udp.payload"]), want);
    }
}

#[test]
fn without_a_file_each_packet_is_a_line_and_a_match_selects() {
    let switch = Switch::start();
    let capture = Capture::of(&switch, &["p1", "udp,udp_dst=9", "-c", "1"]);
    switch.receive(&arp());
    switch.receive(&udp(9, b"hello"));
    let said = capture.end();
    let words: Vec<_> = said.out.split_whitespace().collect();
    assert_eq!(words[1..5], ["p1", "in", "47", "bytes"], "{said:?}");
    assert!(words[5].starts_with("udp,") && words[5].contains("nw_dst=192.0.2.2"), "{said:?}");
    assert_eq!(said.err, "1 packet, 0 lost by capture\n");
    // By either end, by either port, and by what a packet is not.
    for chosen in ["host=192.0.2.2,port=9", "dst=192.0.2.0/24,!dport=53,!arp", "udp,!tp_dst=53", "!arp,!port=53"] {
        let capture = Capture::of(&switch, &["p1", chosen, "-c", "1"]);
        switch.receive(&arp());
        switch.receive(&udp(53, b"hello"));
        switch.receive(&udp(9, b"hello"));
        let said = capture.end();
        assert!(said.out.lines().count() == 1 && said.out.contains("tp_dst=9"), "{chosen}: {said:?}");
    }
    let capture = Capture::of(&switch, &["p1", "host=10.0.0.2", "-c", "1"]);
    switch.receive(&udp(9, b"hello"));
    switch.receive(&arp());
    assert!(capture.end().out.contains("arp,"), "ARP asks for addresses too");
    let capture = Capture::of(&switch, &["p1", "-c", "1", "-o", "json"]);
    switch.receive(&arp());
    let said = capture.end();
    let line: serde_json::Value = serde_json::from_str(&said.out).expect("one document");
    assert_eq!(
        (line["v"].as_u64(), line["port"].as_str(), line["len_bytes"].as_u64()),
        (Some(1), Some("p1"), Some(42))
    );
}

#[test]
fn a_capture_ends_by_its_time_or_by_an_interrupt_with_the_file_whole() {
    let switch = Switch::start();
    let capture = Capture::of(&switch, &["p1", "-w", "x.pcapng", "-t", "100ms"]);
    assert_eq!(capture.end().out, "0 packets, 0 lost by capture -> x.pcapng\n");
    let capture = Capture::of(&switch, &["p1", "-w", "y.pcapng"]);
    switch.receive(&arp());
    for _ in 0..20_000 {
        if std::fs::metadata(switch.folder.path().join("y.pcapng")).is_ok_and(|file| file.len() > 200) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let child = nix::unistd::Pid::from_raw(capture.child.id() as i32);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let said = capture.end();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "1 packet, 0 lost by capture -> y.pcapng\n"), "{said:?}");
}

#[test]
fn each_packet_s_comment_says_its_verdict_and_tshark_filters_by_it() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "priority=1,in_port=1 actions=output:2"]);
    switch.out(&["flows", "add", "--owner", "np:shop/db#1", "priority=2,udp,udp_dst=9 actions=drop"]);
    let capture = Capture::of(&switch, &["p1,p2", "-w", "x.pcapng", "-c", "3"]);
    let dropped = Capture::of(&switch, &["all", "--dropped", "-c", "1"]);
    let lines = Capture::of(&switch, &["p1", "--point", "in", "-c", "2", "-o", "json"]);
    switch.receive(&arp());
    switch.receive(&udp(9, b"hello"));
    assert_eq!(capture.end().out, "3 packets, 0 lost by capture -> x.pcapng\n");
    let said = dropped.end();
    assert!(
        said.out.contains("udp,") && said.out.trim_end().ends_with("DROPPED rule_drop by np:shop/db#1"),
        "{said:?}"
    );
    let lines = lines.end();
    let told: Vec<serde_json::Value> =
        lines.out.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect();
    assert_eq!((told[0]["verdict"].as_str(), told[0]["to"][0].as_str()), (Some("forward"), Some("p2")));
    assert_eq!((told[1]["verdict"].as_str(), told[1]["reason"].as_str()), (Some("drop"), Some("rule_drop")));
    assert_eq!(told[1]["owners"], serde_json::json!(["np:shop/db#1"]));
    if !has_tshark() {
        return;
    }
    let mut seen = tshark(&switch, "x.pcapng", &["frame.interface_name", "frame.comment"]);
    seen.sort();
    let rule = "owner=user owners=user rule=table=0,priority=1,in_port=1";
    assert_eq!(
        seen,
        [
            "p1|verdict=drop reason=rule_drop owner=np:shop/db#1 owners=np:shop/db#1 rule=table=0,priority=2,udp,tp_dst=9".to_owned(),
            format!("p1|verdict=forward to=p2 {rule}"),
            format!("p2|verdict=forward to=p2 {rule}"),
        ]
    );
    for (filter, packets) in [("np:shop/db", 1), ("verdict=forward to=p2", 2), ("reason=rule_drop", 1), ("p9", 0)] {
        let filter = format!("frame.comment contains \"{filter}\"");
        let output = Command::new("tshark")
            .args(["-n", "-r", "x.pcapng", "-Y", &filter])
            .current_dir(switch.folder.path())
            .output()
            .expect("tshark runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), packets, "{filter}");
    }
}

#[test]
fn wireshark_is_opened_with_what_comes_or_it_is_said_what_to_do_without() {
    let switch = Switch::start();
    let folder = switch.folder.path();
    let args = ["capture", "p1", "udp,udp_dst=9", "--wireshark", "--socket", "s.sock"];
    let output = sluice(folder, &args).env("PATH", folder).output().expect("it was built");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    let pipe = "sluice capture p1 udp,udp_dst=9 --socket s.sock -w - | wireshark -k -i -";
    assert!(err.contains("no `wireshark` on this machine") && err.contains(pipe), "{err}");
    // One that is closed after some bytes: the capture ends with it, though no other packet comes.
    switch.write("wireshark", "#!/bin/sh\necho \"$@\" > args\nexec /usr/bin/head -c 100 > seen\n");
    let script = folder.join("wireshark");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let output = sluice(folder, &args).env("PATH", folder).output().expect("it was built");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(std::fs::read_to_string(folder.join("args")).expect("it ran"), "-k -i -\n");
    let seen = std::fs::read(folder.join("seen")).expect("it ran");
    assert_eq!(seen[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a section of pcapng");
}

#[test]
fn wireshark_finds_the_switch_as_an_interface_and_captures_there() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "in_port=1 actions=output:2"]);
    let folder = switch.folder.path();
    let extcap = |args: &[&str]| {
        let output = sluice(folder, args).env("SLUICE_SOCKET", "s.sock").output().expect("it was built");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let interfaces = extcap(&["--extcap-interfaces", "--extcap-version=4.0"]);
    assert!(interfaces.starts_with("extcap {version="), "{interfaces}");
    assert!(interfaces.contains("interface {value=sluice}{display="), "{interfaces}");
    let dlts = extcap(&["--extcap-dlts", "--extcap-interface", "sluice"]);
    assert_eq!(dlts, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
    let config = extcap(&["--extcap-config", "--extcap-interface", "sluice"]);
    assert!(config.contains("value {arg=0}{value=p2}{display=p2 (port p2)}{default=false}"), "{config}");
    let filter = |text| extcap(&["--capture", "--extcap-interface", "sluice", "--extcap-capture-filter", text]);
    assert_eq!(filter("tcp,tcp_dst=80"), "");
    assert!(filter("tpc").contains("tpc"), "what is wrong with it");
    // As Wireshark does: a FIFO, and an end by SIGTERM.
    let fifo = folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("the folder is ours");
    let args = ["--capture", "--extcap-interface", "sluice", "--fifo", "fifo", "--extcap-capture-filter", "udp"];
    let args = [&args[..], &["--at", "p1", "--point", "in", "--dropped", "false"]].concat();
    let mut child = sluice(folder, &args).env("SLUICE_SOCKET", "s.sock").spawn().expect("it was built");
    let mut reader = std::fs::File::open(&fifo).expect("it is written to");
    let mut head = vec![0; 24];
    reader.read_exact(&mut head).expect("the file's beginning");
    let mut all = Vec::new();
    let reading = std::thread::spawn(move || reader.read_to_end(&mut all).map(|_| all));
    for _ in 0..20 {
        switch.receive(&arp());
        switch.receive(&udp(9, b"hello"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    child.wait().expect("it ends");
    head.extend(reading.join().expect("it reads").expect("it reads"));
    std::fs::write(folder.join("x.pcapng"), head).expect("the folder is ours");
    if has_tshark() {
        let seen = tshark(&switch, "x.pcapng", &["udp.dstport", "frame.comment"]);
        assert!(!seen.is_empty() && seen.iter().all(|line| line.starts_with("9|verdict=forward to=p2")), "{seen:?}");
    }
}

#[test]
fn tshark_captures_by_the_link_in_its_folder_of_extcaps() {
    if !has_tshark() {
        return;
    }
    let switch = Switch::start();
    switch.out(&["flows", "add", "in_port=1 actions=output:2"]);
    let folder = switch.folder.path();
    // Where Wireshark looks since 4.2, and before.
    for extcaps in [".local/lib/wireshark/extcap", ".config/wireshark/extcap"] {
        let extcaps = folder.join(extcaps);
        std::fs::create_dir_all(&extcaps).expect("the folder is ours");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), extcaps.join("sluice-extcap")).expect("ours");
    }
    let tshark = |args: &[&str]| {
        let mut command = Command::new("tshark");
        command.args(args).current_dir(folder).env("HOME", folder).env_remove("XDG_CONFIG_HOME");
        command.env("SLUICE_SOCKET", folder.join("s.sock")).env("SLUICE_RUNTIME_DIR", folder.join("run"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let listed = tshark(&["-D"]).output().expect("tshark runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|line| line.contains(". sluice (Sluice: the switch of this machine)")), "{listed}");
    let fields = ["-T", "fields", "-e", "udp.dstport", "-e", "frame.comment"];
    let args = [&["-n", "-l", "-i", "sluice", "-f", "udp", "-c", "2"][..], &fields].concat();
    let mut child = tshark(&args).spawn().expect("tshark runs");
    for _ in 0..600 {
        if child.try_wait().expect("it is ours").is_some() {
            break;
        }
        switch.receive(&udp(9, b"hello"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    _ = child.kill();
    let output = child.wait_with_output().expect("it ends");
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(seen.lines().count(), 2, "{output:?}");
    assert!(seen.lines().all(|line| line.starts_with("9\tverdict=forward to=p2")), "{output:?}");
}

#[test]
fn what_cannot_be_captured_is_said_with_what_to_do() {
    let switch = Switch::start();
    for (args, code, text) in [
        (&["capture", "p9"][..], 1, "there is no port \"p9\"; `sluice ports` lists those there are"),
        (&["capture", "p1", "in_port=1"], 2, "its match may only look at what is in the packet"),
        (&["capture", "p1", "tpc"], 2, "tpc"),
        (&["capture", "p1", "host=h1"], 2, "`h1` is no address, and the switch is no lab's"),
        (&["capture", "p1", "src=shop/web"], 1, "no Pod shop/web is attached to this switch"),
        (&["capture", "p1", "dst=10.0.0.0/33"], 2, "10.0.0.0/33"),
        (&["capture", "p1", "port=http"], 2, "http"),
        (&["capture", "p1", "!tp_dst=9"], 2, "`!tp_dst=9` says nothing"),
        (&["capture", "p1", "!hots=1.1.1.1"], 2, "did you mean `host`?"),
        (&["capture", "p1", "-w", "no/such/folder"], 1, "cannot write no/such/folder"),
        (&["capture", "p1", "-t", "soon"], 2, "expected a time like 500ms or 30s"),
    ] {
        let said = switch.run(args);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(text), "{said:?}");
    }
}
