//! The verbs besides the lab, as processes: what they print and how they end, offline and against a switch that runs in
//! the test's own process with memory ports.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "verbs/bench.rs"]
mod bench;
#[path = "verbs/capture.rs"]
mod capture;
#[path = "verbs/ct.rs"]
mod ct;
#[path = "verbs/groups.rs"]
mod groups;
#[path = "verbs/perf.rs"]
mod perf;
#[path = "verbs/policies.rs"]
mod policies;
#[path = "verbs/relay.rs"]
mod relay;
#[path = "verbs/services.rs"]
mod services;
mod terminal;
#[path = "verbs/top.rs"]
mod top;

use sluice_flows::PortNo;
use sluice_switch::api::{self, Running};
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::{Config, Datapath, FailMode, PortDevice, PortRequest};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn sluice(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    // No lab of this machine, and no setting of this user, may get in the way.
    command.args(args).current_dir(folder).env("SLUICE_RUNTIME_DIR", folder.join("run")).env_remove("SLUICE_SOCKET");
    command.env("HOME", folder).env_remove("KUBECONFIG");
    command
}

fn run(folder: &Path, args: &[&str], stdin: &str) -> Said {
    let mut child = sluice(folder, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built");
    // A command that does not read its input may have ended.
    _ = child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends").into()
}

/// A switch with the bridge `br0`, without flows, with the memory ports p1 and p2.
struct Switch {
    datapath: Datapath,
    _server: Running,
    ends: Vec<MemHandle>,
    folder: tempfile::TempDir,
}

/// A port in memory that a bridge has got, and its other end.
fn added(datapath: &Datapath, name: &str, number: PortNo) -> MemHandle {
    let (port, end) = MemPort::new(name, &MemOptions::default()).expect("memory is there");
    let request = PortRequest { number: Some(number), ..PortRequest::new(name, PortDevice::Device(Box::new(port))) };
    datapath.add_port("br0", request).expect("a new port");
    end
}

impl Switch {
    fn start() -> Self {
        let datapath = Datapath::start(Config::default()).expect("workers start");
        datapath.add_bridge("br0", FailMode::Secure).expect("a first bridge");
        let ends = (1..=2).map(|no| added(&datapath, &format!("p{no}"), PortNo(no))).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let server = api::spawn(datapath.clone(), &folder.path().join("s.sock")).expect("a free socket");
        Self { datapath, _server: server, ends, folder }
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Said {
        let args: Vec<_> = args.iter().copied().chain(["--socket", "s.sock"]).collect();
        run(self.folder.path(), &args, stdin)
    }

    /// Standard output of a command that has to work.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
        said.out
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("the folder is ours");
    }

    /// Has port `p1` receive this frame, and waits until it was counted.
    fn receive(&self, frame: &[u8]) {
        let counted = || self.datapath.worker_stats().iter().map(|w| w.received).sum::<u64>();
        let before = counted();
        assert!(self.ends[0].inject(frame));
        for _ in 0..20_000 {
            if counted() > before {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the frame was not received in twenty seconds");
    }
}

/// An ARP request from 02:00:00:00:00:01.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    frame
}

/// A UDP packet over IPv4 from 10.0.0.1 to 10.0.0.2, without a checksum (RFC 768).
fn udp(src_port: u16, dst_port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([src_port, dst_port].iter().flat_map(|port| port.to_be_bytes()));
    frame.extend([0, 8, 0, 0]);
    frame
}

const FLOWS: &str = "\
# two tables
priority=100,ip,nw_dst=10.0.0.0/8 actions=dec_ttl,resubmit(,1)   # everything of ours
priority=0 actions=drop
table=1,tcp,tp_dst=80,owner=svc:shop/web actions=mod_vlan_vid:10,output:2
";

#[test]
fn an_offline_trace_walks_the_tables_and_ends_with_the_datapath_actions() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.flows"), FLOWS).unwrap();
    let packet = "in_port=1,tcp,nw_dst=10.1.1.1,nw_ttl=64,tp_dst=80";
    let said = run(folder.path(), &["trace", "--flows", "t.flows", "--ports", "1,2", packet], "");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let steps: Vec<_> = said.out.lines().filter(|l| l.contains("  [")).map(str::trim).collect();
    assert_eq!(
        steps,
        ["0. ip,nw_dst=10.0.0.0/8, priority 100  [file:t.flows:2]", "1. tcp,tp_dst=80, priority 32768  [svc:shop/web]"]
    );
    let last = said.out.lines().last();
    assert_eq!(last, Some("Datapath actions: set(ipv4(ttl=63)),push_vlan(vid=10,pcp=0),2"));
}

#[test]
fn an_offline_trace_in_json_is_one_line_for_each_packet_on_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.flows"), FLOWS).unwrap();
    let packets = "in_port=1,tcp,nw_dst=10.1.1.1,nw_ttl=64,tp_dst=80\n\n# not a packet\nin_port=2,arp\n";
    let said = run(folder.path(), &["trace", "--flows", "t.flows", "--ports", "1,2", "-o", "json", "-"], packets);
    assert_eq!(said.code, Some(3), "{said:?}");
    let lines: Vec<serde_json::Value> = said.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut first = lines[0].clone();
    let passes = first.as_object_mut().and_then(|fields| fields.remove("passes")).unwrap();
    let kinds: Vec<_> =
        passes[0]["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!(&kinds[..3], ["bridge", "table", "action"]);
    assert_eq!(passes[0]["steps"][1]["rule"]["owner"], "file:t.flows:2");
    assert_eq!(
        first,
        serde_json::json!({
            "v": 1,
            "packet": "in_port=1,tcp,nw_dst=10.1.1.1,nw_ttl=64,tp_dst=80",
            "verdict": "forward",
            "reason": null,
            "rule": {"table": 1, "priority": 32768, "match": "tcp,tp_dst=80", "cookie": 0, "owner": "svc:shop/web"},
            "outputs": [{
                "port": 2,
                "set": {"nw_ttl": 63, "vlans": [10]},
                "tags": [{"tpid": 0x8100, "vid": 10, "pcp": 0}],
            }],
            "megaflow": "recirc_id=0,eth,tcp,in_port=1,vlan_tci=0x0000,vlan_tci1=0x0000,nw_dst=10.0.0.0/8,nw_ttl=64,nw_frag=no,tp_dst=80",
            "datapath_actions": "set(ipv4(ttl=63)),push_vlan(vid=10,pcp=0),2",
        })
    );
    let dropped = &lines[1];
    assert_eq!((&dropped["verdict"], &dropped["reason"]), (&"drop".into(), &"rule_drop".into()));
    assert_eq!((&dropped["rule"]["owner"], &dropped["datapath_actions"]), (&"file:t.flows:3".into(), &"drop".into()));
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_cannot_be_traced_is_said_with_the_usage_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.flows"), FLOWS).unwrap();
    std::fs::write(folder.path().join("bad.flows"), "actions=drop\nip,nw_dts=1 actions=drop\n").unwrap();
    std::fs::write(folder.path().join("groups.flows"), "actions=group:7\n").unwrap();
    for (args, want) in [
        (&["trace", "--flows", "t.flows", "in_port=1,tpc"][..], "packet 1 of 1: column 11: `tpc`"),
        (&["trace", "--flows", "bad.flows", "in_port=1"], "bad.flows:2:4: `nw_dts`"),
        (&["trace", "--flows", "none.flows", "in_port=1"], "cannot read none.flows: No such file"),
        (&["trace", "--flows", "t.flows", "--groups", "g", "in_port=1"], "cannot read g: No such file"),
        (&["trace", "--flows", "groups.flows", "in_port=1"], "flow 1: there is no group 7"),
        (&["trace", "--flows", "t.flows", "--ct-next", "est", "in_port=1"], "say trk,est"),
        (&["trace", "--flows", "t.flows", "--ports", "0", "in_port=1"], "a port's number is 1 to 65279, or LOCAL"),
        (&["trace"], "required"),
        (&["flows", "dump", "-o", "yaml"], "possible values"),
        (&["flows", "del"], "required"),
    ] {
        let said = run(folder.path(), args, "");
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(said.err.contains(want), "{args:?}: {}", said.err);
    }
}

#[test]
fn without_a_switch_every_verb_says_where_it_looked_and_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    for verb in [
        &["status"][..],
        &["flows", "dump"],
        &["flows", "add", "actions=drop"],
        &["ports"],
        &["fdb"],
        &["drops"],
        &["bridges"],
        &["events", "-f"],
        &["trace", "in_port=1"],
        &["packet-out", "00"],
    ] {
        let args: Vec<_> = verb.iter().copied().chain(["--socket", "none.sock"]).collect();
        let said = run(folder.path(), &args, "");
        assert_eq!((said.code, said.out.as_str()), (Some(69), ""), "{verb:?}");
        assert!(said.err.starts_with("error: no switch listens on none.sock\n  next: sluice lab up "), "{}", said.err);
    }
    let said = run(folder.path(), &["trace", "h1", "h2"], "");
    assert_eq!((said.code, said.err.lines().next()), (Some(69), Some("error: no lab is running")));
}

#[test]
fn the_environment_names_the_socket() {
    let switch = Switch::start();
    let output = sluice(switch.folder.path(), &["bridges"]).env("SLUICE_SOCKET", "s.sock").output().unwrap();
    assert_eq!(Said::from(output).out, "BRIDGE  PORTS  FLOWS  FDB\nbr0         2      0    0\n");
}

#[test]
fn flows_are_added_dumped_compared_replaced_and_deleted() {
    let switch = Switch::start();
    switch.write("t.flows", FLOWS);
    assert_eq!(switch.out(&["flows", "add", "--file", "t.flows"]), "3 added, 0 modified, 0 deleted, 0 unchanged\n");
    assert_eq!(
        switch.out(&["flows", "dump"]),
        "\
TABLE   PRIO  MATCH                 ACTIONS                   OWNER           PKTS  BYTES   LAST
    0    100  ip,nw_dst=10.0.0.0/8  dec_ttl,resubmit(,1)      file:t.flows:2     0      0  never
    0      0  any                   drop                      file:t.flows:3     0      0  never
    1  32768  tcp,tp_dst=80         mod_vlan_vid:10,output:2  svc:shop/web       0      0  never
"
    );
    let ofctl = " priority=100,ip,nw_dst=10.0.0.0/8 actions=dec_ttl,resubmit(,1)
 priority=0 actions=drop
 table=1, tcp,tp_dst=80 actions=mod_vlan_vid:10,output:2
";
    assert_eq!(switch.out(&["flows", "dump", "-o", "ofctl", "--no-stats"]), ofctl);
    assert_eq!(switch.out(&["flows", "diff", "t.flows"]), "");

    // What was dumped can be put back, and changes nothing.
    let said = switch.run_with(&["flows", "replace", "--file", "-"], ofctl);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "0 added, 0 modified, 0 deleted, 3 unchanged\n"));

    switch.write("new.flows", "priority=0 actions=NORMAL\nudp actions=drop\n");
    let said = switch.run(&["flows", "diff", "new.flows"]);
    let diff = "\
+udp actions=drop
-priority=100,ip,nw_dst=10.0.0.0/8 actions=dec_ttl,resubmit(,1)
-priority=0 actions=drop
+priority=0 actions=NORMAL
-table=1, tcp,tp_dst=80 actions=mod_vlan_vid:10,output:2
";
    assert_eq!((said.code, said.out.as_str()), (Some(1), diff));
    let dry = switch.out(&["flows", "replace", "--file", "new.flows", "--dry-run"]);
    assert_eq!(dry, "would be: 1 added, 1 modified, 2 deleted, 0 unchanged\n");
    let did = switch.out(&["flows", "replace", "--file", "new.flows"]);
    assert_eq!(did, "1 added, 1 modified, 2 deleted, 0 unchanged\n");
    assert_eq!(switch.out(&["flows", "del", "--strict", "priority=1"]), "0 deleted\n");
    assert_eq!(switch.out(&["flows", "del", "--strict", "priority=0"]), "1 deleted\n");
    assert_eq!(switch.out(&["flows", "del", "--all"]), "1 deleted\n");
    let said = switch.run(&["flows", "dump", "tcp"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), "no flow is selected\n"));
}

#[test]
fn a_dump_in_ofctls_words_has_counters_and_times() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "cookie=0x5,idle_timeout=60,arp actions=output:p2"]);
    switch.receive(&arp());
    let out = switch.out(&["flows", "dump", "-o", "ofctl"]);
    let (header, line) = out.split_once('\n').unwrap();
    assert_eq!(header, "NXST_FLOW reply (xid=0x4):");
    let (start, rest) = line.split_once("s, table=0, ").unwrap();
    assert!(start.starts_with(" cookie=0x5, duration="), "{line}");
    assert_eq!(rest, "n_packets=1, n_bytes=42, idle_timeout=60, idle_age=0, arp actions=output:2\n");
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["flows", "dump", "-o", "json"])).unwrap();
    let flow = &json["flows"][0];
    assert_eq!((&json["v"], &flow["packets"], &flow["owner"]), (&1.into(), &1.into(), &"user".into()));
    assert!(switch.out(&["flows", "dump", "--names"]).contains("output:p2"));
}

#[test]
fn a_bad_flow_is_named_with_its_line_and_nothing_is_added() {
    let switch = Switch::start();
    switch.write("bad.flows", "actions=drop\n\nip,nw_dts=10.0.0.1 actions=drop\n");
    let said = switch.run(&["flows", "add", "--file", "bad.flows"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.starts_with("error: bad.flows:3: column 4: `nw_dts`: "), "{}", said.err);
    assert!(said.err.contains("did you mean `nw_dst`?"), "{}", said.err);
    assert_eq!(switch.out(&["bridges"]).lines().nth(1), Some("br0         2      0    0"));
}

#[test]
fn a_trace_of_the_running_switch_names_ports_and_rule() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "--owner", "np:shop/deny", "tcp actions=drop"]);
    switch.out(&["flows", "add", "udp actions=output:p2"]);
    let said = switch.run(&["trace", "in_port=p1,tcp"]);
    assert_eq!(said.code, Some(3));
    assert!(said.out.contains(" 0. tcp, priority 32768  [np:shop/deny]\n"), "{}", said.out);
    assert_eq!(said.out.lines().last(), Some("Datapath actions: drop"));
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["trace", "-o", "json", "in_port=1,udp"])).unwrap();
    let want = serde_json::json!([{"port": 2, "name": "p2", "bridge": "br0", "set": {}, "tags": []}]);
    assert_eq!(json["outputs"], want);
    let said = switch.run(&["trace", "in_port=7,udp"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(2), "error: there is no port 7; ports of bridge br0: 1 (p1), 2 (p2)\n")
    );
}

#[test]
fn a_trace_offline_says_what_a_trace_of_the_running_switch_says() {
    let switch = Switch::start();
    switch.write("t.flows", FLOWS);
    switch.out(&["flows", "add", "--file", "t.flows"]);
    for packet in
        ["in_port=p1,tcp,nw_dst=10.1.1.1,nw_ttl=64,tp_dst=80", "in_port=2,arp", "in_port=p2,ip,nw_dst=10.0.0.9"]
    {
        for more in [&[][..], &["-v"], &["--no-names"]] {
            let live = switch.run(&[&["trace"], more, &[packet]].concat());
            let ports = ["trace", "--flows", "t.flows", "--ports", "1=p1,2=p2"];
            let offline = run(switch.folder.path(), &[&ports[..], more, &[packet]].concat(), "");
            assert_eq!((live.code, live.err.as_str()), (offline.code, offline.err.as_str()), "{packet} {more:?}");
            let walks = [live.out, offline.out].map(|out| without_datapath_numbers(&out));
            assert_eq!(walks[0], walks[1], "{packet} {more:?}");
        }
    }
}

/// A walk without its last line if that says an output: a switch numbers its datapath's ports as it likes.
fn without_datapath_numbers(walk: &str) -> String {
    let ends_with_port = |line: &&str| line.starts_with("Datapath actions: ") && line.ends_with(char::is_numeric);
    walk.lines().filter(|line| !ends_with_port(line) || line.ends_with("p2")).collect::<Vec<_>>().join("\n")
}

const CT_FLOWS: &str = "\
tcp actions=ct(table=1,zone=7)
table=1,tcp,ct_state=+trk+new actions=group:1
table=1,tcp,ct_state=+trk+est actions=meter:3,output:2
";

#[test]
fn an_offline_trace_follows_connection_tracking_by_the_script_through_groups_and_meters() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name, text| std::fs::write(folder.path().join(name), text).unwrap();
    write("t.flows", CT_FLOWS);
    write("t.groups", "group_id=1,type=all,bucket=output:2,bucket=dec_ttl,output:3\n");
    write("t.meters", "# one meter\nmeter=3,pktps,bands=type=drop,rate=10\n");
    let files = ["trace", "--flows", "t.flows", "--groups", "t.groups", "--meters", "t.meters"];
    let trace = |more: &[&str]| {
        let said = run(folder.path(), &[&files[..], more, &["in_port=1,tcp,nw_ttl=64"]].concat(), "");
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        said.out
    };
    let new = trace(&[]);
    assert!(new.contains("resume conntrack with default ct_state=trk|new"), "{new}");
    assert_eq!(new.lines().last(), Some("Datapath actions: 2,set(ipv4(ttl=63)),3"));
    let known = trace(&["--ct-next", "trk,est"]);
    assert!(known.contains("recirc(0x1) - resume conntrack with ct_state=est|trk\n"), "{known}");
    assert_eq!(known.lines().last(), Some("Datapath actions: meter(3),2"));
    let json: serde_json::Value = serde_json::from_str(&trace(&["-o", "json"])).unwrap();
    let ports: Vec<_> = json["outputs"].as_array().unwrap().iter().map(|out| out["port"].as_u64().unwrap()).collect();
    assert_eq!((ports, json["passes"].as_array().unwrap().len()), (vec![2, 3], 2));
    assert_eq!(json["passes"][0]["datapath_actions"], "ct(zone=7),recirc(0x1)");
    assert_eq!(json["datapath_actions"], "2,set(ipv4(ttl=63)),3");
}

#[test]
fn ports_are_shown_added_changed_and_removed() {
    let switch = Switch::start();
    switch.out(&["ports", "add", "n1", "--type", "null", "--number", "9", "--access", "10"]);
    switch.out(&["ports", "set", "n1", "--trunk", "10,20", "--native", "5", "--down"]);
    assert_eq!(
        switch.out(&["ports"]),
        "\
BRIDGE  NO  NAME  TYPE    STATE       VLAN                  MAC   MTU  RX  TX  DROPS
br0      1  p1    memory  up          trunk all             -    1500   0   0      0
br0      2  p2    memory  up          trunk all             -    1500   0   0      0
br0      9  n1    null    down (set)  trunk 10,20 native 5  -    1500   0   0      0
"
    );
    switch.out(&["ports", "del", "n1"]);
    let said = switch.run(&["ports", "del", "n1"]);
    assert_eq!((said.code, said.err.contains("there is no port \"n1\"")), (Some(1), true), "{said:?}");
    let said = switch.run(&["ports", "set", "p1"]);
    assert_eq!((said.code, said.err.contains("nothing to change")), (Some(2), true), "{said:?}");
}

#[test]
fn drops_status_and_addresses_tell_what_happened() {
    let switch = Switch::start();
    switch.out(&[
        "flows",
        "add",
        "priority=5,dl_dst=ff:ff:ff:ff:ff:ff,arp_op=2,arp actions=drop",
        "arp actions=NORMAL",
    ]);
    switch.receive(&arp());
    let fdb = switch.out(&["fdb"]);
    assert_eq!(fdb.lines().nth(1), Some("br0     p1       0  02:00:00:00:00:01  0 s"));
    assert_eq!(switch.out(&["fdb", "flush"]), "1 addresses forgotten\n");
    switch.out(&["flows", "replace", "--file", "-"]);
    switch.receive(&arp());
    let drops = switch.out(&["drops"]);
    assert!(drops.lines().nth(1).unwrap().starts_with("no_rule  br0     p1    -      1   "), "{drops}");
    assert!(drops.contains("\nno_rule: No rule matched in a table"), "{drops}");
    assert_eq!(switch.out(&["drops", "--by", "port"]), "PORT    PKTS\nbr0/p1     1\n");
    let status = switch.out(&["status"]);
    assert!(status.contains("bridges: 1, ports: 2, flows: 0, learned addresses: 0"), "{status}");
    assert!(status.contains("2 received, 1 forwarded, 1 dropped (no_rule 1)"), "{status}");
    switch.ends[1].vanish();
    let said = (0..100)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            switch.run(&["status"])
        })
        .find(|said| said.code != Some(0));
    let said = said.expect("the loss is noticed");
    assert_eq!(said.code, Some(5));
    let line: Vec<_> = said.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line.join(" "), "ports bad 1 of 2 up; device gone: p2");
}

#[test]
fn events_are_told_as_they_happen() {
    let switch = Switch::start();
    let mut watcher = sluice(switch.folder.path(), &["events", "-n", "1", "-o", "json", "--socket", "s.sock"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The watcher may not be there yet: change something until it has seen a change.
    for n in 0..200 {
        if watcher.try_wait().unwrap().is_some() {
            break;
        }
        switch.out(&["flows", "add", &format!("priority={n} actions=drop")]);
    }
    let said = Said::from(watcher.wait_with_output().unwrap());
    let event: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&event["event"], &event["bridge"], &event["added"]),
        (&"flows_changed".into(), &"br0".into(), &1.into())
    );
}

#[test]
fn a_packet_out_is_sent() {
    let switch = Switch::start();
    let hex: String = arp().iter().map(|b| format!("{b:02x}")).collect();
    switch.out(&["packet-out", "--actions", "output:p2", &hex]);
    let sent = (0..20_000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        switch.ends[1].take()
    });
    assert_eq!(sent.expect("it leaves in twenty seconds").bytes(), arp());
    let said = switch.run(&["packet-out", "0g"]);
    assert_eq!((said.code, said.err.as_str()), (Some(2), "error: `g` is no hexadecimal digit, in the frame\n"));
}

#[test]
fn what_changes_something_answers_programs_in_json_too() {
    let switch = Switch::start();
    switch.write("hits.flows", "priority=7,udp actions=drop\n");
    for (args, key) in [
        (&["flows", "add", "priority=7,tcp actions=drop"][..], "added"),
        (&["flows", "replace", "--file", "hits.flows"], "deleted"),
        (&["flows", "del", "udp"], "deleted"),
        (&["fdb", "flush"], "flushed"),
        (&["ports", "add", "n1", "--type", "null"], "ports"),
        (&["ports", "set", "n1", "--down"], "changed"),
        (&["ports", "del", "n1"], "deleted"),
        (&["bridges", "add", "br1", "--no-local-port"], "added"),
        (&["bridges", "del", "br1"], "deleted"),
        (&["packet-out", "--actions", "output:2", "ffffffffffff0200000000010806"], "sent_bytes"),
    ] {
        let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
        let answer: serde_json::Value = serde_json::from_str(&switch.out(&args)).unwrap();
        assert_eq!((&answer["v"], answer[key].is_null()), (&1.into(), false), "{args:?}: {answer}");
    }
}

#[test]
fn a_fault_in_a_file_is_shown_in_its_line_by_every_verb_that_reads_it() {
    let switch = Switch::start();
    switch.write("bad.flows", "tcp actions=drop\n\nudp actions=dorp\n");
    for args in [
        &["flows", "add", "--file", "bad.flows"][..],
        &["flows", "replace", "--file", "bad.flows"],
        &["flows", "diff", "bad.flows"],
        &["trace", "--flows", "bad.flows", "tcp"],
    ] {
        let said = switch.run(args);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {said:?}");
        assert!(
            said.err.contains("bad.flows:3:") && said.err.ends_with("            ^^^^\n"),
            "{args:?}: {}",
            said.err
        );
    }
    assert_eq!(switch.out(&["flows", "dump", "-o", "ofctl", "--no-stats"]), "");
}

#[test]
fn something_else_behind_the_socket_is_told_from_a_switch() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("s.sock")).unwrap();
    // Every connection is greeted in another protocol and closed.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for args in [&["flows", "dump"][..], &["events", "-f"], &["status"], &["flows", "add", "actions=drop"]] {
        let args: Vec<_> = args.iter().copied().chain(["--socket", "s.sock"]).collect();
        let said = run(folder.path(), &args, "");
        assert_eq!((said.code, said.out.as_str()), (Some(69), ""), "{args:?}: {said:?}");
        assert!(said.err.starts_with("error: ") && said.err.contains("s.sock"), "{args:?}: {}", said.err);
    }
}
