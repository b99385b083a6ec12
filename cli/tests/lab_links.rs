//! Links of a lab: their delays as hosts feel them, shown and changed; what crosses them, captured; all of it saved.
//!
//! The labs live in their own namespaces. Where none can be made, a test says so by name and does nothing. Times are
//! compared with lower bounds alone: a machine may be late, and a wire must not be early.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "lab/impairments.rs"]
mod impairments;

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A folder with a lab that ends also when the test fails.
struct Lab(tempfile::TempDir);

impl Drop for Lab {
    fn drop(&mut self) {
        self.sluice(&["lab", "down", "--all"]);
    }
}

impl Lab {
    /// Brings the lab up that `text` describes; `None` where that is not possible.
    fn up(text: &str) -> Option<Self> {
        let lab = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(lab.path().join("x.yml"), text).expect("the folder is ours");
        let up = lab.sluice(&["lab", "up", "x.yml"]);
        if up.status.code() == Some(77) {
            eprintln!("skipped: no lab can be made here: {}", String::from_utf8_lossy(&up.stderr));
            return None;
        }
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        Some(lab)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        command.env("SLUICE_RUNTIME_DIR", self.path().join("run")).env_remove("SLUICE_SOCKET");
        command
    }

    fn sluice(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command was built")
    }

    /// Standard output of a command that has to work.
    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let output = self.sluice(&line.split_whitespace().collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Exit code and standard error of a command that fails.
    fn fails(&self, line: &str) -> (Option<i32>, String) {
        let output = self.sluice(&line.split_whitespace().collect::<Vec<_>>());
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }

    /// The shortest round trip of any two hosts.
    fn shortest_ping(&self) -> Duration {
        let report: Value = serde_json::from_str(&self.ok("lab ping -o json")).expect("one document");
        let pairs = report["pairs"].as_array().expect("pairs");
        let rtts = pairs.iter().map(|pair| pair["rtt_min_ns"].as_u64().expect("an answer"));
        Duration::from_nanos(rtts.min().expect("some pairs"))
    }

    /// Starts a capture, and returns when it has begun.
    fn capture(&self, line: &str) -> (Child, BufReader<std::process::ChildStderr>) {
        let args: Vec<_> = ["lab", "capture"].into_iter().chain(line.split_whitespace()).collect();
        let mut child = self.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut err = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        err.read_line(&mut said).expect("it says that it has begun");
        assert!(said.starts_with("capturing "), "{said}");
        (child, err)
    }

    /// Captures while hosts ping, and returns what the capture printed.
    fn captured(&self, line: &str) -> String {
        let (mut child, _err) = self.capture(line);
        self.ok("lab ping");
        let mut out = String::new();
        child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("text");
        assert!(child.wait().expect("it ends").success());
        out
    }

    /// What tshark says of these fields; `None` where it is not installed.
    fn tshark(&self, file: &str, fields: &[&str]) -> Option<Vec<String>> {
        if !Command::new("tshark").arg("-v").output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: tshark is not installed; `xtask/setup.sh` does that");
            return None;
        }
        let read = |args: &[&str]| {
            let output = Command::new("tshark").args(["-n", "-r", file]).args(args).current_dir(self.path()).output();
            String::from_utf8(output.expect("it runs").stdout).expect("text")
        };
        assert_eq!(read(&["-Y", "_ws.malformed || _ws.short"]), "", "malformed packets");
        let fields: Vec<_> = fields.iter().flat_map(|field| ["-e", field]).collect();
        let all = read(&[&["-T", "fields", "-E", "separator=|"][..], &fields].concat());
        Some(all.lines().map(str::to_owned).collect())
    }
}

const WAN: &str = "\
lab: wan
seed: 42
links:
  - {ends: [h1, s1], delay: 1ms}
  - {ends: [s1, s2], name: wan, delay: 20ms, back: {delay: 10ms}}
  - [h2, s2]
";

#[test]
fn delays_are_felt_shown_changed_and_saved() {
    let Some(lab) = Lab::up(WAN) else { return };
    assert!(lab.shortest_ping() >= Duration::from_millis(32), "{:?}", lab.shortest_ping());
    let shown = lab.ok("lab link show wan");
    let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["LINK", "DIR", "DELAY", "JITTER", "LOSS", "RATE", "QUEUE", "SENT", "LOST", "STATE"]);
    assert_eq!(lines[1][..7], ["wan", "s1>s2", "20ms", "0ms", "0%", "-", "-"], "{shown}");
    assert_eq!((lines[1][8], lines[1][9]), ("0", "up"), "{shown}");
    assert_eq!(lines[2][..4], ["wan", "s2>s1", "10ms", "0ms"]);
    assert!(lines[1][7].parse::<u64>().unwrap() > 0, "{shown}");
    lab.ok("lab link set wan delay=30ms jitter=1ms");
    lab.ok("lab link set wan delay=50ms --from s2");
    assert!(lab.shortest_ping() >= Duration::from_millis(80), "{:?}", lab.shortest_ping());

    // What is saved comes up as it was, with what was changed.
    let saved = lab.ok("lab save");
    assert!(saved.contains("name: wan, delay: 30ms, jitter: 1ms, back: {delay: 50ms}}\n"), "{saved}");
    assert!(saved.contains("- {ends: [h1, s1], delay: 1ms}\n"), "{saved}");
    let before = lab.ok("lab inspect -o json");
    std::fs::write(lab.path().join("saved.yml"), &saved).unwrap();
    lab.ok("lab down");
    lab.ok("lab up saved.yml");
    assert_eq!(lab.ok("lab save"), saved);
    let hosts = |text: &str| serde_json::from_str::<Value>(text).unwrap()["topology"]["hosts"].clone();
    assert_eq!(hosts(&lab.ok("lab inspect -o json")), hosts(&before));

    for (line, code, text) in [
        ("lab link show wann", 2, "the lab wan has no link named wann"),
        ("lab link set h2-s2 reorder=5%", 2, "without a delay there is nothing to overtake"),
        ("lab link set wan delay=1ms --back --from s2", 2, "cannot be used with"),
        ("lab link set wan queue_bytes=1", 2, "there is no `queue_bytes` to be set; there is delay, jitter, loss"),
        ("lab link set wan reorder=5% delay=0ms", 2, "without a delay there is nothing to overtake"),
        ("lab link down wann", 2, "the lab wan has no link named wann"),
        ("lab link flap wan --times 1001", 2, "1001 is not in 1..=1000"),
        ("lab link set wan delay=soon", 2, "`soon` is not a time like 20ms"),
        ("lab link set wan delay=1ms --from h1", 2, "h1 is no end of the link wan"),
        ("lab capture s9", 2, "one of: h1, h2, s1, s2, h1-s1, wan, h2-s2"),
        ("lab capture s1:9", 2, "one of: s1:1, s1:2"),
    ] {
        let (failed, said) = lab.fails(line);
        assert!(failed == Some(code) && said.contains(text), "{line}: {failed:?} {said}");
    }
}

#[test]
fn links_with_and_without_delay_are_captured_by_name() {
    let Some(lab) = Lab::up("lab: net\nlinks: [[h1, s1], {ends: [s1, s2], delay: 1ms}, [s2, s3], [h2, s3]]\n") else {
        return;
    };
    for (link, about, ways) in [
        ("h1-s1", "link h1-s1: h1:eth0 - s1:1", ["0x00000001", "0x00000002"]),
        ("s1-s2", "link s1-s2: s1:2 - s2:1", ["0x00000002", "0x00000001"]),
        // A patch.
        ("s2-s3", "link s2-s3: s2:2 - s3:1", ["0x00000002", "0x00000001"]),
    ] {
        let out = lab.captured(&format!("{link} icmp -c 2 -w {link}.pcapng"));
        assert_eq!(out, format!("2 packets, 0 lost by capture -> {link}.pcapng\n"));
        let fields = ["frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "ip.src"];
        let Some(packets) = lab.tshark(&format!("{link}.pcapng"), &fields) else { continue };
        for packet in packets {
            // What h1 sends leaves by the first end.
            let way = if packet.ends_with("10.0.0.1") { ways[0] } else { ways[1] };
            assert!(packet.starts_with(&format!("{link}|{about}|{way}|")), "{packet}");
        }
    }
    let out = lab.captured("h2:eth0 icmp -c 2");
    assert!(
        out.lines().all(|line| line.contains("  h2:eth0  h2>s3  ") || line.contains("  h2:eth0  s3>h2  ")),
        "{out}"
    );
    // Every link, and what became of each packet.
    let out = lab.captured("all icmp --point in -c 2");
    assert!(out.lines().count() == 2 && out.lines().all(|line| line.contains("  -> ")), "{out}");
    // All ports of a switch: a packet that crosses it is seen where it comes in and where it goes out.
    let out = lab.captured("s2 icmp,icmp_type=8 -c 2");
    assert!(out.contains("  s2:1  ") && out.contains("  s2:2  "), "{out}");
}

const OVERLAY: &str = "\
lab: overlay
vlans: {red: {id: 5, vni: 100, subnet: 10.5.0.0/24}}
switches: {s1: {}, s2: {}}
hosts: {h1: {}, h2: {}}
links:
  - {ends: [h1, s1], access: red}
  - {ends: [h2, s2], access: red}
  - {ends: [s1, s2], name: core, ips: [192.0.2.1/30, 192.0.2.2/30], mtu: 1550, delay: 5ms}
tunnels: [{name: t1, type: vxlan, ends: [s1, s2], vni: 100, vlans: [red], over: core}]
";

#[test]
fn a_tunnel_s_link_is_captured_as_it_is_or_opened_and_saved() {
    let Some(lab) = Lab::up(OVERLAY) else { return };
    assert!(lab.shortest_ping() >= Duration::from_millis(10), "{:?}", lab.shortest_ping());
    let out = lab.captured("core udp -c 4 -w core.pcapng");
    assert_eq!(out, "4 packets, 0 lost by capture -> core.pcapng (outer VXLAN; --inner strips it)\n");
    if let Some(packets) = lab.tshark("core.pcapng", &["frame.interface_name", "vxlan.vni", "frame.protocols"]) {
        assert!(
            packets.iter().all(|packet| packet.starts_with("core|100|eth:ethertype:ip:udp:vxlan:eth")),
            "{packets:?}"
        );
    }
    let out = lab.captured("core udp -c 2 --inner -w inner.pcapng");
    assert_eq!(out, "2 inner packets, 0 lost by capture -> inner.pcapng (outer VXLAN stripped)\n");
    if let Some(packets) = lab.tshark("inner.pcapng", &["frame.protocols"]) {
        assert!(packets.iter().all(|packet| !packet.contains("vxlan")), "{packets:?}");
    }
    let saved = lab.ok("lab save");
    std::fs::write(lab.path().join("saved.yml"), &saved).unwrap();
    lab.ok("lab down");
    lab.ok("lab up saved.yml");
    assert_eq!(lab.ok("lab save"), saved);
}
