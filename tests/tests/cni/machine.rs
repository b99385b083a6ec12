//! A machine with a switch and a plugin, and containers.

use serde_json::{Value, json};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs;
use sluice_tests::switch::wait_until;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Where programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine; what runs on it ends with it.
pub(crate) struct Machine {
    pub(crate) netns: Netns,
    folder: TempDir,
    switch: Option<Child>,
}

/// A container: an ID and a namespace.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) netns: Netns,
}

/// Where a program of this workspace is: beside the folder of the suites.
fn built(name: &str) -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    suite.parent().and_then(Path::parent).unwrap().join(name)
}

impl Container {
    pub(crate) fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), netns: Netns::new().unwrap() }
    }

    /// What a program in it prints.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let (code, text) = programs::run(&self.netns, words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        text
    }

    /// Whether it gets an answer to a ping.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        programs::run(&self.netns, &["ping", "-c", "1", "-W", "5", address]).0 == Some(0)
    }
}

impl Machine {
    /// A machine with a running switch; `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        if let Some(name) = ["sluiced", "sluice-cni"].into_iter().find(|name| !built(name).exists()) {
            _ = writeln!(
                io::stderr(),
                "skipped: {test}: {name} is not built; `cargo build --workspace --bins` makes it"
            );
            return None;
        }
        let mut machine = Self { netns: Netns::new().unwrap(), folder: tempfile::tempdir().unwrap(), switch: None };
        machine.start_switch();
        Some(machine)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("switch.sock")
    }

    pub(crate) fn start_switch(&mut self) {
        let log = self.folder().join("log");
        let mut command = Command::new(built("sluiced"));
        command.arg("--socket").arg(self.socket()).env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        self.switch = Some(self.netns.run(|| command.spawn()).unwrap());
        let ready = || fs::read_to_string(&log).unwrap_or_default().contains("ready socket=");
        wait_until("sluiced is ready", ready);
    }

    /// Ends the switch without a chance to clean up.
    pub(crate) fn kill_switch(&mut self) {
        let mut switch = self.switch.take().unwrap();
        switch.kill().unwrap();
        switch.wait().unwrap();
    }

    /// The configuration of network `n`, with more keys or other values.
    pub(crate) fn config(&self, more: &Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "sluice-cni", "bridge": "br0", "socket": self.socket(),
            "dataDir": self.folder().join("data"),
            "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]], "dataDir": self.folder().join("host-local")},
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// The plugin as a runtime starts it, to be given its standard input.
    pub(crate) fn plugin(&self, command: &str, container: &Container) -> Command {
        let mut plugin = Command::new(built("sluice-cni"));
        plugin.env_clear().env("PATH", PATH).env("CNI_COMMAND", command).env("CNI_CONTAINERID", &container.id);
        plugin.env("CNI_NETNS", container.netns.path()).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        plugin
    }

    /// Starts a plugin in the machine's namespace, with its standard input.
    pub(crate) fn spawn(&self, mut plugin: Command, config: &Value) -> Child {
        let mut child = self.netns.run(|| plugin.spawn()).unwrap();
        _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
        child
    }

    /// Calls the plugin.
    pub(crate) fn call(&self, command: &str, container: &Container, config: &Value) -> Output {
        self.spawn(self.plugin(command, container), config).wait_with_output().unwrap()
    }

    /// Calls the plugin, which succeeds: what it answers, or null.
    pub(crate) fn does(&self, command: &str, container: &Container, config: &Value) -> Value {
        let output = self.call(command, container, config);
        let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command} {}: {said}{log}\n{}", container.id, self.log());
        if said.is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() }
    }

    /// Calls the plugin, which fails: its answer.
    pub(crate) fn fails(&self, command: &str, container: &Container, config: &Value) -> Value {
        let output = self.call(command, container, config);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{command} {}: {said}", container.id);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// What containers leave on a machine: interfaces, the switch's records, locks.
    pub(crate) fn traces(&self) -> String {
        let (_, links) = programs::run(&self.netns, &["ip", "-br", "link"]);
        let mut links: Vec<&str> = links.lines().filter_map(|l| l.split_whitespace().next()).collect();
        links.sort_unstable();
        let mut all = format!("{links:?}");
        for folder in ["switch.state", "data/locks"] {
            for entry in fs::read_dir(self.folder().join(folder)).into_iter().flatten() {
                let path = entry.unwrap().path();
                let inside = fs::read_dir(&path).map(Iterator::count).unwrap_or(1);
                if inside > 0 {
                    all += &format!(" {}", path.display());
                }
            }
        }
        all
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(switch) = &mut self.switch {
            _ = switch.kill();
            _ = switch.wait();
        }
    }
}
