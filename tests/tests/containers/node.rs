//! A node: containerd, podman, `sluiced` and its plugin in namespaces of their own, and an outside behind a veth pair.

use sluice_tests::host::wait_for_carrier;
use sluice_tests::image;
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::switch::wait_until;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// The image that containers are made of.
pub(crate) const IMAGE: &str = "localhost/busybox:1";
/// The node's address outside, and the outside's.
pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.10";
/// Where the suite's own pieces lie.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers");
/// Where programs are, the node's own first.
const PATH: &str = "/opt/cni/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the tests need that a machine may lack, and Debian's packages of it.
const PROGRAMS: [(&str, &str); 6] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/sbin/nft", "nftables"),
];

/// A machine that containers run on.
pub(crate) struct Node {
    folder: TempDir,
    /// The process outside of the node's namespaces that made them; it ends with the node.
    made: Child,
    /// The node's first process, as the machine numbers it.
    init: u32,
    pub(crate) outside: Netns,
    switch: Mutex<Option<Child>>,
    containerd: Option<Child>,
}

/// Where a program of this workspace is: beside the folder of the suites.
pub(crate) fn built(name: &str) -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    suite.parent().and_then(Path::parent).unwrap().join(name)
}

impl Node {
    /// A node with its plugin in `/opt/cni/bin`; nothing runs yet. `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        let missing = PROGRAMS.iter().find(|(program, _)| !Path::new(program).exists());
        let unbuilt = ["sluiced", "sluice-cni"].into_iter().find(|name| !built(name).exists());
        if let Some(reason) = missing
            .map(|(_, package)| format!("needs Debian's {package}"))
            .or_else(|| unbuilt.map(|name| format!("{name} is not built; `cargo build --workspace --bins` makes it")))
        {
            _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount", "--net", "--uts", "--mount-proc", "--kill-child=KILL"]);
        command.arg("sh").arg(format!("{FOLDER}/node.sh")).arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(folder.path().join("log")).unwrap());
        let made = command.spawn().unwrap();
        wait_until("the node is up", || folder.path().join("run/node-is-up").exists());
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", made.id())).unwrap();
        let init: u32 = children.trim().parse().unwrap();
        let netns = Netns::of_process(init).unwrap();
        let outside = Netns::new().unwrap();
        netns.add_veth("up0", &outside, "eth0").unwrap();
        for (side, link, address) in [(&netns, "up0", NODE), (&outside, "eth0", OUTSIDE)] {
            side.set_up(link, true).unwrap();
            side.add_address(link, ip(address), 24).unwrap();
        }
        wait_for_carrier(&[(&netns, "up0"), (&outside, "eth0")]);
        let node = Self { folder, made, init, outside, switch: Mutex::default(), containerd: None };
        fs::copy(built("sluice-cni"), node.path("opt/cni/bin/sluice-cni")).unwrap();
        Some(node)
    }

    /// A file of the node's, as the machine sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// The configuration list of the network that runtimes use.
    pub(crate) fn configure(&self, conflist: &str) {
        fs::write(self.path("etc/cni/net.d/10-sluice.conflist"), conflist).unwrap();
    }

    /// A program in the node, to be started. It is killed with the process that is seen here, which is only its parent.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--net", "--uts", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL"]).args(words);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("HOME", "/root").stdin(Stdio::null());
        command
    }

    /// Runs a program in the node to its end, which comes within 60 seconds.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(&[&["timeout", "60"], words].concat()).output().unwrap()
    }

    /// What a program in the node prints, which ends with 0.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?} ended with {}:\n{text}{errors}\n{}", output.status, self.log());
        text
    }

    /// A server's process, with what it says in a file of this name.
    fn spawn(&self, name: &str, words: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.path(name)).unwrap();
        self.command(words).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What `sluiced` said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("sluiced.log")).unwrap_or_default()
    }

    /// Starts `sluiced` without any configuration, and waits until it is ready.
    pub(crate) fn start_switch(&self) {
        let before = self.log().matches("ready socket=").count();
        let path = built("sluiced");
        let child = self.spawn("sluiced.log", &[path.to_str().unwrap()]);
        *self.switch.lock().unwrap() = Some(child);
        let is_ready = || self.log().matches("ready socket=").count() > before;
        let ended = || self.switch.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        wait_until("sluiced is ready, or has ended", || is_ready() || ended());
        assert!(is_ready(), "sluiced did not start:\n{}", self.log());
    }

    /// Kills `sluiced` without a warning.
    pub(crate) fn kill_switch(&self) {
        self.kill_all("sluiced", self.switch.lock().unwrap().take());
    }

    /// Kills `sluiced` and starts it again.
    pub(crate) fn restart_switch(&self) {
        self.kill_switch();
        self.start_switch();
    }

    /// What the switch has: attachments, bridges with the number of their ports, flows, gateways.
    pub(crate) fn switch_state(&self) -> String {
        let sluice = built("sluice");
        let say = |verb: &[&str]| self.say(&[&[sluice.to_str().unwrap()], verb].concat());
        let state = [&["cni", "list"][..], &["flows", "dump", "-o", "ofctl", "--no-stats"], &["gateway"]].map(say);
        // Without the last column: the host may have been heard before the gateway gave its interface a MAC address.
        let bridges = say(&["bridges"]);
        let bridges =
            bridges.lines().map(|line| line.trim_end().rsplit_once(' ').map_or(line, |(rest, _)| rest.trim_end()));
        [state.concat(), bridges.collect::<Vec<_>>().join("\n")].concat()
    }

    /// The MAC addresses that the switch has learned, with the ports that they are behind.
    pub(crate) fn learned(&self) -> String {
        self.say(&[built("sluice").to_str().unwrap(), "fdb"])
    }

    /// Starts containerd and waits until it answers.
    pub(crate) fn start_containerd(&mut self) {
        self.containerd = Some(self.spawn("containerd.log", &["containerd"]));
        wait_until("containerd answers", || self.run(&["ctr", "version"]).status.success());
    }

    /// Kills containerd without a warning; containers go on.
    pub(crate) fn kill_containerd(&mut self) {
        let containerd = self.containerd.take();
        self.kill_all("containerd", containerd);
    }

    /// Kills the process of this very name in the node, and waits until it is gone: `started` ends with it.
    fn kill_all(&self, name: &str, started: Option<Child>) {
        assert!(self.run(&["pkill", "-KILL", "-x", name]).status.success(), "there is a {name}");
        _ = started.map(|mut started| started.wait());
    }

    /// Makes the image, with these programs of the machine's in it, and gives it to containerd.
    pub(crate) fn load_image(&self, programs: &[&str]) {
        let path = self.path("image.tar");
        image::write(&path, IMAGE, programs).unwrap();
        self.say(&["ctr", "images", "import", path.to_str().unwrap()]);
    }

    /// The control group below which this node's containers are, in every hierarchy.
    fn group(&self) -> String {
        format!("sluice-node-{}", self.made.id())
    }

    /// The control group of a container of this name.
    pub(crate) fn cgroup(&self, name: &str) -> String {
        format!("/{}/{name}", self.group())
    }

    /// Runs an operation of the plugin's that is about no container, which succeeds.
    pub(crate) fn plugin(&self, operation: &str, config: &str) {
        let mut command = self.command(&["sluice-cni"]);
        command.env("CNI_COMMAND", operation).env("CNI_PATH", "/opt/cni/bin");
        let file = self.path("stdin");
        fs::write(&file, config).unwrap();
        let output = command.stdin(File::open(file).unwrap()).output().unwrap();
        assert!(output.status.success(), "{operation}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// A container that containerd runs with the node's network, to be started: it ends with the program.
    pub(crate) fn container(&self, id: &str, words: &[&str]) -> Command {
        let group = self.cgroup(id);
        self.command(&[&["ctr", "run", "--rm", "--cni", "--cgroup", &group, IMAGE, id], words].concat())
    }

    /// Starts a container that stays, and waits until programs can be run in it.
    pub(crate) fn start_container(&self, id: &str, words: &[&str]) -> Container<'_> {
        let log = File::create(self.path(&format!("{id}.log"))).unwrap();
        let child = self.container(id, words).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let container = Container { node: self, id: id.to_owned(), child: Some(child) };
        wait_until(&format!("container {id} runs"), || container.run(&["true"]).status.success());
        container
    }

    /// All that attachments leave traces in: links, addresses, routes, rules, nftables, and the plugin's and the switch's files.
    /// Two things stay by design: the store of addresses, and the gateway's hardware address on the bridge.
    pub(crate) fn traces(&self) -> String {
        let say = |words: &str| format!("# {words}\n{}", self.say(&words.split(' ').collect::<Vec<_>>()));
        let files = "find /var/lib/cni /var/lib/sluice /run/sluice -type f -not -name addresses.*";
        let all = [
            "ip -br link",
            "ip -br addr show scope global",
            "ip route show table all type unicast",
            "ip -6 route show table all proto 83",
            "ip rule",
            "nft list ruleset",
            files,
        ];
        let is_mac = |word: &&str| word.len() == 17 && word.split(':').count() == 6;
        let said = all.map(say).concat();
        said.lines()
            .map(|line| line.split(' ').filter(|word| !is_mac(word)).collect::<Vec<_>>().join(" ") + "\n")
            .collect()
    }
}

/// Kills a process and waits for it.
fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        _ = child.kill();
        _ = child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The kernel ends all that runs in the node with its first process.
        _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.init as i32), nix::sys::signal::Signal::SIGKILL);
        _ = self.made.wait();
        end(self.switch.lock().unwrap().take());
        end(self.containerd.take());
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_group(&hierarchy.path().join(self.group()));
        }
    }
}

/// Removes a control group with those below it, which nobody is in any more.
fn remove_group(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_group(&below.path());
    }
    _ = fs::remove_dir(group);
}

/// A running container; ended when dropped.
pub(crate) struct Container<'a> {
    node: &'a Node,
    id: String,
    child: Option<Child>,
}

impl Container<'_> {
    /// Runs a program in the container to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let exec = format!("e{}", unique());
        self.node.run(&[&["ctr", "task", "exec", "--exec-id", &exec, &self.id], words].concat())
    }

    /// What a program in the container prints, which ends with 0.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {words:?} ended with {}:\n{text}", self.id, output.status);
        text
    }

    /// The address of its `eth0`, without the prefix.
    pub(crate) fn address(&self) -> String {
        let text = self.say(&["ip", "-4", "-o", "addr", "show", "eth0"]);
        let word = text.split_whitespace().find(|word| word.contains('/')).unwrap_or_else(|| panic!("{text}"));
        word.split('/').next().unwrap().to_owned()
    }

    /// Lets it run, without the `ctr` that waits for its end and would then say DEL.
    pub(crate) fn leave(mut self) {
        end(self.child.take());
    }

    /// Ends it as an operator would, and waits until its network is gone.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        _ = self.node.run(&["ctr", "task", "kill", "--signal", "KILL", &self.id]);
        _ = child.wait();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// A number that no other call got.
pub(crate) fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
