//! A machine with `sluiced`, `sluice docker` and `dockerd`, and an outside.

use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Programs that the machine is made of.
const NEEDED: [&str; 7] = ["dockerd", "docker", "containerd", "runc", "busybox", "bash", "nft"];
/// Where they are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin";
/// Times that a command is tried, 0.1 s apart.
const TRIES: usize = 150;

/// Programs that run all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    Sluiced,
    Driver,
    Dockerd,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::Sluiced => "sluiced",
            Self::Driver => "driver",
            Self::Dockerd => "dockerd",
        }
    }
}

/// The machine; all of it ends when it is dropped.
pub(crate) struct Machine {
    /// `unshare`, which takes everything with it.
    child: Child,
    /// The first process inside.
    init: u32,
    folder: TempDir,
    /// What Docker's control groups are called.
    groups: String,
    /// More arguments of `dockerd`.
    dockerd: &'static str,
}

impl Machine {
    /// A machine where all three run. `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, "--bridge=none")
    }

    /// As [`new`](Self::new), with these arguments of `dockerd`.
    pub(crate) fn with(test: &str, dockerd: &'static str) -> Option<Self> {
        let machine = Self::bare(test, dockerd)?;
        machine.start(Daemon::Sluiced);
        machine.start(Daemon::Driver);
        machine.start(Daemon::Dockerd);
        machine.ok("docker import /run/image.tar box");
        Some(machine)
    }

    /// A machine where nothing runs yet.
    pub(crate) fn bare(test: &str, dockerd: &'static str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if skipped(test) {
            return None;
        }
        if let Some(reason) = in_the_way() {
            _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/machine.sh");
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "bash"])
            .arg(script)
            .arg(folder.path());
        command.env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "machine.sh gave up");
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let groups = format!("/sluice-docker-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Some(Self { child, init, folder, groups, dockerd })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--target", &self.init.to_string(), "sh", "-c", line]);
        command.env("PATH", format!("{}:{PATH}", programs().display())).env("DOCKER_HOST", "unix:///run/docker.sock");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a line of shell: whether it ended with 0, and what it printed.
    pub(crate) fn run(&self, line: &str) -> (bool, String) {
        let output = self.command(&format!("exec 2>&1; {line}")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a line of shell that is to work, and returns what it printed.
    pub(crate) fn ok(&self, line: &str) -> String {
        let (good, output) = self.run(line);
        assert!(good, "{line}\n{output}\n{}", self.logs());
        output
    }

    /// Runs a line of shell that is to fail, and returns what it printed.
    pub(crate) fn fails(&self, line: &str) -> String {
        let (good, output) = self.run(line);
        assert!(!good, "{line}: it worked\n{output}");
        output
    }

    /// Runs a line of shell again and again until it works.
    pub(crate) fn comes_to(&self, line: &str) -> String {
        for _ in 0..TRIES {
            if let (true, output) = self.run(line) {
                return output;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.ok(line)
    }

    /// Runs a line of shell outside.
    pub(crate) fn outside(&self, line: &str) -> String {
        self.ok(&format!("nsenter --net --target $(cat /run/outside) sh -c '{line}'"))
    }

    /// Starts a program, and waits until it is ready.
    pub(crate) fn start(&self, daemon: Daemon) {
        let name = daemon.name();
        let line = match daemon {
            Daemon::Sluiced => "sluiced --state /var/lib/sluice/switch".to_owned(),
            Daemon::Driver => "sluice docker".to_owned(),
            Daemon::Dockerd => format!(
                "dockerd --host unix:///run/docker.sock --exec-root /run/docker --exec-opt native.cgroupdriver=cgroupfs \
                 --cgroup-parent {} --oom-score-adjust 0 {}",
                self.groups, self.dockerd
            ),
        };
        let log = self.log_file(name);
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(&format!("echo $$ >/run/{name}.pid; exec {line}"));
        // It ends with the machine, or by `stop` and `kill`; whoever entered the namespaces for it waits for that.
        drop(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.comes_to(match daemon {
            Daemon::Sluiced => "sluice status",
            Daemon::Driver => "test -S /run/docker/plugins/sluice.sock",
            Daemon::Dockerd => "docker version",
        });
    }

    /// Ends a program with a signal, and waits until it is gone.
    pub(crate) fn end(&self, daemon: Daemon, signal: &str) {
        let name = daemon.name();
        self.ok(&format!("kill -{signal} $(cat /run/{name}.pid)"));
        self.comes_to(&format!("! kill -0 $(cat /run/{name}.pid)"));
    }

    /// Ends a program and starts it again.
    pub(crate) fn restart(&self, daemon: Daemon, signal: &str) {
        self.end(daemon, signal);
        if daemon == Daemon::Dockerd {
            // Its containerd ends by itself after a kill.
            self.run("kill -9 $(cat /run/docker/containerd/containerd.pid); rm -f /run/docker.pid");
        }
        self.start(daemon);
    }

    /// The containers' processes and what watches over each, so that all of it can be killed.
    pub(crate) fn processes(&self) -> String {
        let containers = self.ok("docker inspect -f '{{.State.Pid}}' $(docker ps -q)").replace('\n', " ");
        let shims = self.ok(&format!("for p in {containers}; do grep PPid /proc/$p/status | tr -dc 0-9; echo; done"));
        let containerd = self.ok("cat /run/docker/containerd/containerd.pid");
        format!("{} {containers} {containerd}", shims.replace('\n', " "))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.log_file(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("# {name}\n{}\n", lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        ["sluiced", "driver", "dockerd"].map(tail).concat()
    }

    /// Starts a container that sleeps.
    pub(crate) fn sleeper(&self, name: &str, options: &str) {
        self.ok(&format!("docker run -d --name {name} {options} box sleep 1000"));
    }

    /// Three pings from a container, all of which are answered.
    pub(crate) fn ping(&self, from: &str, to: &str) {
        self.ok(&format!("docker exec {from} ping -c 3 -i 0.2 -w 10 {to}"));
    }

    /// A ping from a container that is not answered.
    pub(crate) fn no_ping(&self, from: &str, to: &str) {
        self.fails(&format!("docker exec {from} ping -c 1 -W 1 {to}"));
    }

    /// Fails if anything of the driver is left on the machine; all networks have been removed.
    pub(crate) fn is_clean(&self) {
        let state = self.ok("cd /var/lib/sluice/docker; ls networks endpoints; ls ../switch 2>/dev/null | cat");
        let files: Vec<_> = state.lines().filter(|line| line.contains(".json")).collect();
        assert!(files.is_empty(), "{files:?} is left");
        let links = self.ok("ip -o link | grep -E ': s[lpv]' || true");
        assert!(links.is_empty(), "{links} is left");
        let rules = self.ok("nft list ruleset 2>/dev/null | grep -i sluice || true");
        assert!(rules.is_empty(), "{rules} is left");
        let bridges = self.ok("sluice bridges; sluice ports");
        assert!(!bridges.contains("sl-") && !bridges.contains("sl0"), "{bridges}");
        let status = self.ok("sluice docker status -o json");
        assert!(status.contains(r#""networks":[]"#), "{status}");
        let flows = self.ok("sluice flows dump --bridge br0 -o ofctl");
        assert!(!flows.contains("container:"), "{flows}");
    }
}

/// Why Docker cannot run here.
fn in_the_way() -> Option<String> {
    let there = |program: &str| PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
    if let Some(missing) = NEEDED.iter().find(|program| !there(program)) {
        return Some(format!("there is no {missing}; xtask/setup.sh installs docker.io and what it needs"));
    }
    if !programs().join("sluiced").exists() || !programs().join("sluice").exists() {
        return Some("sluiced and sluice are not built; `cargo build` makes them".to_owned());
    }
    let groups = Path::new("/sys/fs/cgroup");
    let there = [groups.join("pids/tasks"), groups.join("cgroup.controllers")].iter().any(|path| path.exists());
    (!there).then(|| "no control groups are mounted on /sys/fs/cgroup".to_owned())
}

/// Where our programs are: beside the folder of the suites.
fn programs() -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    suite.parent().and_then(Path::parent).unwrap().to_owned()
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        // What was inside takes a moment to end; until then its groups cannot be removed.
        let roots: Vec<_> = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()).collect();
        let roots = || roots.iter().map(|root| root.join(&self.groups[1..])).filter(|path| path.is_dir());
        wait_until("Docker's control groups are gone", || {
            roots().for_each(|path| remove(&path));
            roots().next().is_none()
        });
    }
}

/// Removes a control group and those below it, where nothing runs any more.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    _ = fs::remove_dir(group);
}
