//! The lab, run as a user runs it: the built command, in a runtime folder of its own.
//!
//! Labs made here live in their own namespaces and touch nothing of the machine. Tests that need what a machine may not
//! have say so by name and do nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "lab/dhcp.rs"]
mod dhcp;
#[path = "lab/machine.rs"]
mod machine;
#[path = "lab/mirror.rs"]
mod mirror;
#[path = "lab/network.rs"]
mod network;
#[path = "lab/shell.rs"]
mod shell;
mod terminal;
#[path = "lab/tests.rs"]
mod tests;
#[path = "lab/uplink.rs"]
mod uplink;

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that is only a matter of time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user with a runtime folder of their own. What is left running is taken down at the end.
struct User {
    folder: tempfile::TempDir,
    program: PathBuf,
    uid: Option<u32>,
    /// A command that runs the program somewhere else.
    through: Vec<String>,
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl User {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, program: PathBuf::from(env!("CARGO_BIN_EXE_sluice")), uid: None, through: Vec::new() }
    }

    /// A user without any privilege, with a copy of the program that they can read.
    fn without_privilege() -> Self {
        let mut user = Self::new();
        let program = user.folder.path().join("sluice");
        // By another process: a copy made here would be open for writing in whatever child another test starts
        // meanwhile, and could not be run ("text file busy").
        assert!(Command::new("cp").arg(&user.program).arg(&program).status().unwrap().success());
        let runtime = user.runtime();
        fs::create_dir(&runtime).unwrap();
        std::os::unix::fs::chown(&runtime, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(user.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        (user.program, user.uid) = (program, Some(65534));
        user
    }

    fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = self.program.as_os_str();
        let mut words = self.through.iter().map(|word| word.as_ref()).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).args(args).current_dir(self.folder.path()).env("SLUICE_RUNTIME_DIR", self.runtime());
        command.env_remove("NO_COLOR").stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn run(&self, line: &str) -> Said {
        let output = self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line}: {said:#?}");
        said.out
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let value: Value = serde_json::from_str(&self.ok(line)).unwrap();
        assert_eq!(value["v"], 1, "{line}");
        value
    }

    #[track_caller]
    fn fails(&self, line: &str, code: i32, parts: &[&str]) {
        let said = self.run(line);
        assert_eq!(said.code, code, "{line}: {said:#?}");
        for part in parts {
            assert!(said.err.contains(part), "{line}: no {part:?} in {}", said.err);
        }
    }

    /// Brings up the lab of this file.
    #[track_caller]
    fn up(&self, file: &str, options: &str) {
        fs::write(self.folder.path().join("lab.yml"), file).unwrap();
        self.ok(&format!("lab up lab.yml {options}"));
    }

    /// Asserts how many pairs reach each other, and that no packet of theirs is lost.
    #[track_caller]
    fn reaches(&self, hosts: &str, pairs: u64) {
        let ping = self.json(&format!("lab ping {hosts} -o json"));
        assert_eq!((ping["reachable"].as_u64(), ping["lost"].as_u64()), (Some(pairs), Some(0)), "{ping}");
    }

    fn state(&self, lab: &str) -> Value {
        let text = fs::read(self.runtime().join("labs").join(lab).join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.command(&["lab", "down", "--all"]).output();
    }
}

/// What the machine has of a running lab: its supervisor, and the namespaces.
struct Traces {
    supervisor: i64,
    namespaces: BTreeSet<u64>,
}

impl Traces {
    fn of(user: &User, lab: &str) -> Self {
        let state = user.state(lab);
        let supervisor = state["supervisor"]["pid"].as_i64().unwrap();
        let hosts = state["namespaces"].as_array().unwrap();
        let mut namespaces: BTreeSet<_> = hosts.iter().map(|n| n["inode"].as_u64().unwrap()).collect();
        for kind in ["net", "pid", "mnt", "ipc"] {
            namespaces.insert(fs::metadata(format!("/proc/{supervisor}/ns/{kind}")).unwrap().ino());
        }
        Self { supervisor, namespaces }
    }

    /// Processes that are in one of the namespaces or hold one open.
    fn holders(&self) -> Vec<String> {
        let mut holders = Vec::new();
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let name = process.file_name().into_string().unwrap();
            if !name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let links = ["ns", "fd"].map(|folder| fs::read_dir(process.path().join(folder)));
            let inodes = links.into_iter().flatten().flatten().filter_map(|link| {
                let target = fs::read_link(link.ok()?.path()).ok()?;
                let (_, inode) = target.to_str()?.strip_suffix(']')?.split_once(":[")?;
                inode.parse::<u64>().ok()
            });
            if inodes.into_iter().any(|inode| self.namespaces.contains(&inode)) {
                holders.push(name);
            }
        }
        holders
    }

    #[track_caller]
    fn are_gone(&self) {
        let start = Instant::now();
        while !self.holders().is_empty() || is_running(self.supervisor) {
            assert!(start.elapsed() < PATIENCE, "left: processes {:?}", self.holders());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_running(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

fn kill(pid: i64) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether this test can run; says why not.
fn is_root(test: &str) -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("skipped: {test}: needs root");
    }
    root
}

fn interfaces() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// The whole life of a lab of two hosts, joined by `attach`.
fn live(user: &User, attach: &str) {
    let before = interfaces();
    let up = user.ok(&format!("lab up --topo single,2 --attach {attach}"));
    let table = "\
NODE  PORT  PEER  ADDRESS      MAC                VLAN
h1    eth0  s1:1  10.0.0.1/24  02:00:00:00:00:01  -
h2    eth0  s1:2  10.0.0.2/24  02:00:00:00:00:02  -
";
    assert!(up.starts_with("single: up in ") && up.contains("   2 hosts, 1 switch, 2 links   seed 1"), "{up}");
    assert!(up.ends_with(table), "{up}");
    assert!(user.ok("lab inspect").ends_with(table));
    let ping = user.ok("lab ping");
    assert!(ping.ends_with("2/2 pairs reachable, 0 packets lost\n"), "{ping}");
    let pairs = user.json("lab ping -c 3 -o json")["pairs"].as_array().unwrap().clone();
    assert!(pairs.iter().all(|p| p["received"] == 3 && p["rtt_min_ns"].as_u64() > Some(0)), "{pairs:?}");

    assert_eq!(user.run("lab exec h1 -- false").code, 1);
    // Otherwise the terminal's Ctrl-C would not reach the command.
    assert_eq!(user.ok("lab exec h1 -- grep SigBlk /proc/self/status"), "SigBlk:\t0000000000000000\n");
    assert_eq!(user.run("lab exec h1 -- no-such-command").code, 127);
    assert_eq!(user.ok("lab exec h2 -- cat /proc/sys/kernel/hostname"), "h2\n");
    assert_eq!(user.ok("lab exec h1 -- ls /sys/class/net"), "eth0\nlo\n");
    assert_eq!(user.ok("lab exec h1 -- cat /sys/class/net/eth0/address"), "02:00:00:00:00:01\n");
    let all = user.ok("lab exec all -- cat /proc/sys/kernel/hostname");
    assert_eq!(all.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["h1: h1", "h2: h2"]));

    let inspected = user.json("lab inspect -o json");
    assert_eq!(inspected["attachment"], attach);
    assert_eq!(inspected["topology"]["hosts"][1]["interfaces"][0]["mac"], "02:00:00:00:00:02");
    let listed = user.json("lab ls -o json");
    assert_eq!((&listed["labs"][0]["name"], &listed["labs"][0]["state"]), (&"single".into(), &"running".into()));

    let socket = inspected["socket"].as_str().unwrap();
    assert_eq!(fs::metadata(socket).unwrap().mode() & 0o777, 0o600);
    // A client that stays connected does not keep the lab from ending.
    let _client = UnixStream::connect(socket).unwrap();

    let traces = Traces::of(user, "single");
    assert!(!traces.holders().is_empty());
    let down = user.ok("lab down");
    assert_eq!(down, "single: removed 2 namespaces, 2 links, 1 switch; nothing left behind\n");
    assert!(!is_running(traces.supervisor), "down waits for the end");
    traces.are_gone();
    assert_eq!(fs::read_dir(user.runtime().join("labs")).unwrap().count(), 0);
    assert_eq!(interfaces(), before);
}

#[test]
fn a_lab_of_taps_lives_and_leaves_nothing() {
    if is_root("a_lab_of_taps_lives_and_leaves_nothing") {
        live(&User::new(), "tap");
    }
}

#[test]
fn a_lab_of_veths_lives_and_leaves_nothing() {
    if is_root("a_lab_of_veths_lives_and_leaves_nothing") {
        live(&User::new(), "veth");
    }
}

#[test]
fn a_lab_needs_no_privilege() {
    const NAME: &str = "a_lab_needs_no_privilege";
    if !is_root(NAME) {
        return;
    }
    let user = User::without_privilege();
    let said = user.run("lab up --topo single,2 --attach veth");
    if said.code == 77 {
        assert!(said.err.contains("why: ") && said.err.contains("next: "), "{said:#?}");
        return eprintln!("skipped: {NAME}: {}", said.err.lines().next().unwrap_or_default());
    }
    assert!(said.code == 0 && said.out.contains("rootless"), "{said:#?}");
    user.ok("lab down");
    live(&user, "veth");
}

#[test]
fn ipv6_and_several_switches_work_at_once() {
    if !is_root("ipv6_and_several_switches_work_at_once") {
        return;
    }
    let user = User::new();
    let file =
        "lab: six\ndefaults: {subnet6: 'fd00::/64', mtu: 9000}\nlinks: [[h1, s1], [s1, s2], [h2, s2], [h3, s2]]\n";
    fs::write(user.folder.path().join("six.lab.yml"), file).unwrap();
    user.ok("lab up");
    let ping = user.json("lab ping -o json");
    assert_eq!((ping["reachable"].as_u64(), ping["lost"].as_u64()), (Some(12), Some(0)), "{ping}");
    assert_eq!(user.ok("lab exec h3 -- cat /sys/class/net/eth0/mtu"), "9000\n");
}

#[test]
fn a_rule_of_the_file_is_in_force() {
    if !is_root("a_rule_of_the_file_is_in_force") {
        return;
    }
    let user = User::new();
    let file = "\
lab: rules
hosts: {h1: {}, h2: {}}
switches:
  s1:
    rules:
      - {name: no-ping, match: \"icmp,icmp_type=8,in_port=h1\", action: drop}
links: [[h1, s1], [h2, s1]]
";
    fs::write(user.folder.path().join("rules.yml"), file).unwrap();
    user.ok("lab up rules.yml");
    let said = user.run("lab ping -o json");
    assert_eq!(said.code, 1, "a lost packet is a no: {said:#?}");
    let ping: Value = serde_json::from_str(&said.out).unwrap();
    let received: Vec<_> = ping["pairs"].as_array().unwrap().iter().map(|p| (&p["from"], &p["received"])).collect();
    assert_eq!(received, [(&"h1".into(), &0.into()), (&"h2".into(), &1.into())]);
    assert!(user.run("lab ping").out.contains("lost"));
}

#[test]
fn a_killed_supervisor_leaves_only_a_folder_which_gc_removes() {
    if !is_root("a_killed_supervisor_leaves_only_a_folder_which_gc_removes") {
        return;
    }
    let user = User::new();
    let before = interfaces();
    user.ok("lab up --topo single,3");
    let mut inside = user.command(&["lab", "exec", "h1", "--", "sh", "-c", "echo started; exec sleep 1000"]);
    let mut inside = inside.stdout(Stdio::piped()).spawn().unwrap();
    inside.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    let traces = Traces::of(&user, "single");
    kill(traces.supervisor);
    assert_eq!(inside.wait().unwrap().code(), Some(137), "the kernel ends what runs in the lab");
    traces.are_gone();
    assert_eq!(interfaces(), before);

    user.fails("lab ping", 69, &["no lab is running", "next: sluice lab up"]);
    assert_eq!(user.json("lab ls -o json")["labs"][0]["state"], "dead");
    user.ok("lab gc --dry-run");
    assert!(user.runtime().join("labs/single").is_dir());
    let gc = user.ok("lab gc");
    assert!(gc.starts_with(&format!("single: the supervisor (process {}) is gone", traces.supervisor)), "{gc}");
    assert_eq!(fs::read_dir(user.runtime().join("labs")).unwrap().count(), 0);
    assert!(user.run("lab gc").err.contains("nothing to clean up"));
}

#[test]
fn a_name_is_free_again_when_its_supervisor_was_killed() {
    if !is_root("a_name_is_free_again_when_its_supervisor_was_killed") {
        return;
    }
    let user = User::new();
    user.ok("lab up --topo single,1 --name again");
    user.fails("lab up --topo single,1 --name again", 1, &["the name again is taken", "next: sluice lab down again"]);
    let first = Traces::of(&user, "again");
    assert!(is_running(first.supervisor), "a refused `up` leaves the running lab alone");
    kill(first.supervisor);
    first.are_gone();
    user.ok("lab up --topo single,1 --name again");
    assert_ne!(Traces::of(&user, "again").supervisor, first.supervisor);
}

#[test]
fn gc_and_down_touch_no_process_that_only_has_the_number() {
    if !is_root("gc_and_down_touch_no_process_that_only_has_the_number") {
        return;
    }
    let user = User::new();
    user.ok("lab up --topo single,1 --name other");
    let traces = Traces::of(&user, "other");
    let folder = user.runtime().join("labs/other");
    let mut state = user.state("other");
    state["supervisor"]["start_ticks"] = (state["supervisor"]["start_ticks"].as_u64().unwrap() + 1).into();
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
    user.ok("lab gc");
    assert!(is_running(traces.supervisor));
    kill(traces.supervisor);
    traces.are_gone();
}

#[test]
fn several_labs_are_told_apart_by_name() {
    if !is_root("several_labs_are_told_apart_by_name") {
        return;
    }
    let user = User::new();
    user.ok("lab up --topo single,1 --name one");
    user.ok("lab up --topo single,2 --name two");
    user.fails("lab ping", 2, &["more than one lab is running: one, two", "--lab NAME"]);
    user.ok("lab ping --lab two");
    user.fails("lab exec --lab two h9 -- true", 2, &["has no host named h9", "one of: h1, h2"]);
    user.fails("lab exec --lab two s1 -- true", 2, &["s1 is a switch"]);
    user.fails("lab ping --lab three", 69, &["no lab named three", "running: one, two"]);
    user.ok("lab down --all");
    assert_eq!(user.json("lab ls -o json")["labs"], Value::Array(Vec::new()));
}

#[test]
fn a_topology_with_mistakes_makes_nothing() {
    let user = User::new();
    fs::write(user.folder.path().join("bad.yml"), "lab: bad\nlnks: []\nlinks: [[h1, s1]]\nuplink: {}\n").unwrap();
    let known = ["bad.yml:2: unknown key `lnks`", "did you mean `links`?", "bad.yml:4: the uplink needs `switch:`"];
    user.fails("lab up bad.yml", 2, &known);
    user.fails("lab up", 2, &["bad.yml:2"]);
    user.fails("lab up missing.yml", 2, &["cannot read missing.yml", "next: "]);
    user.fails("lab up --topo star,3", 2, &["star,3", "single,HOSTS"]);
    user.fails("lab up --topo single,2 --name Bad", 2, &["cannot name a lab"]);
    assert!(!user.runtime().exists());
}

#[test]
fn verbs_without_a_lab_say_what_to_do() {
    let user = User::new();
    for line in ["lab ping", "lab inspect", "lab exec h1 -- true", "lab sh h1", "lab down"] {
        user.fails(line, 69, &["error: no lab is running", "next: sluice lab up --topo single,2"]);
    }
    user.fails("lab down nobody", 69, &["there is no lab named nobody"]);
    user.fails("lab ping -o ofctl", 2, &["does not write `-o ofctl`"]);
    assert!(user.run("lab ls").err.contains("no labs"));
    assert!(!user.runtime().exists(), "asking makes no folder");
}

#[test]
fn a_user_who_may_make_no_namespaces_is_told_why() {
    const NAME: &str = "a_user_who_may_make_no_namespaces_is_told_why";
    if !is_root(NAME) {
        return;
    }
    let user = User::new();
    // In a user namespace where nobody is mapped, no further one can be made.
    let mut command = Command::new("unshare");
    command.arg("--user").arg(&user.program).args(["lab", "up", "--topo", "single,1"]);
    let Ok(output) = command.env("SLUICE_RUNTIME_DIR", user.runtime()).output() else {
        return eprintln!("skipped: {NAME}: there is no unshare command");
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(77), "{said}");
    for part in ["error: the kernel does not give a user namespace", "why: ", "next: "] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(fs::read_dir(user.runtime().join("labs")).unwrap().count(), 0);
}

#[test]
fn a_runtime_folder_of_somebody_else_is_not_used() {
    if !is_root("a_runtime_folder_of_somebody_else_is_not_used") {
        return;
    }
    let user = User::new();
    fs::create_dir(user.runtime()).unwrap();
    fs::set_permissions(user.runtime(), fs::Permissions::from_mode(0o777)).unwrap();
    user.fails("lab up --topo single,1", 1, &["is not safe to use", "SLUICE_RUNTIME_DIR"]);
}

#[test]
fn completions_and_manual_pages_come_from_the_tree() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = user.ok(&format!("completion {shell}"));
        assert!(script.contains("inspect") && !script.contains("supervise"), "{shell}");
    }
    user.ok("man pages");
    let page = |name: &str| fs::read_to_string(user.folder.path().join("pages").join(name)).unwrap();
    assert!(page("sluice-lab-up.1").contains("sluice lab up office.yml"));
    assert!(!Path::new(&user.folder.path().join("pages/sluice-lab-supervise.1")).exists());
}
