//! Interfaces that other programs attached, taken over and given back: the reference plugins `bridge` and `ptp` with `host-local`, run
//! as a container runtime runs them, in a network namespace that stands for the machine.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::{
    AttachRequest, AttachmentKey, AttachmentSpec, DetachRequest, InlineDevice, NetworkSpec, attachment_spec,
};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

const PLUGINS: &str = "/usr/lib/cni";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked before patience is at its end, 50 ms apart.
const LOOKS: usize = 600;

/// A machine: the calling thread's network namespace, and a folder for all files.
struct Machine {
    folder: PathBuf,
    plugin: &'static str,
    daemon: Option<Child>,
}

/// A container's namespace, reached by a path as long as this is there.
struct Container {
    id: String,
    file: File,
    /// What the plugin said of it.
    result: Value,
}

impl Machine {
    fn socket(&self) -> PathBuf {
        self.folder.join("s.sock")
    }

    fn start(&mut self) {
        let before = self.log().matches("ready socket=").count();
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluiced"));
        command.arg("--socket").arg(self.socket()).env_remove("NOTIFY_SOCKET").env_remove("SLUICED_CONFIG");
        self.daemon = Some(command.stderr(log).stdout(Stdio::null()).spawn().expect("the daemon was built"));
        wait("the daemon is ready", || self.log().matches("ready socket=").count() > before);
    }

    fn end(&mut self, signal: Signal) {
        let mut child = self.daemon.take().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn call<T>(&self, ask: impl AsyncFnOnce(AttachmentServiceClient<Channel>) -> Result<T, tonic::Status>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).unwrap();
            ask(AttachmentServiceClient::new(endpoint.connect().await.unwrap())).await
        });
        result.unwrap_or_else(|status| panic!("{status:?}\n{}", self.log()))
    }

    /// What the plugin is told of the network.
    fn network(&self) -> Value {
        json!({
            "cniVersion": "0.4.0", "name": "n", "type": self.plugin, "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": 1400,
            "ipam": {
                "type": "host-local", "dataDir": self.folder.join("ipam"),
                "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
            }
        })
    }

    /// Runs the plugin; what it prints, or its complaint.
    fn plugin(&self, command: &str, container: &Container) -> Result<Value, String> {
        let mut network = self.network();
        if command != "ADD" {
            network["prevResult"] = container.result.clone();
        }
        let mut child = Command::new(Path::new(PLUGINS).join(self.plugin))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(network.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
        } else {
            Err(format!("{command}: {text}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn add(&self, id: &str) -> Container {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let mut container = Container { id: id.to_owned(), file: made.join().unwrap(), result: Value::Null };
        container.result = self.plugin("ADD", &container).unwrap_or_else(|error| panic!("{error}"));
        container.run("ip link set lo up");
        container
    }

    fn attach(&self, container: &Container) {
        let request = AttachRequest {
            network: Some(NetworkSpec {
                name: "n".into(),
                bridge: "br0".into(),
                kind: "cni".into(),
                ..NetworkSpec::default()
            }),
            attachment: Some(AttachmentSpec {
                network: "n".into(),
                container_id: container.id.clone(),
                ifname: "eth0".into(),
                port: container.port(),
                device: Some(attachment_spec::Device::Inline(InlineDevice { interface: container.host_end() })),
                mac: container.mac(),
                addresses: container.addresses(),
                ..AttachmentSpec::default()
            }),
        };
        self.call(async |mut client| client.attach(request).await);
    }

    fn detach(&self, container: &Container) -> bool {
        let (container_id, ifname) = (container.id.clone(), "eth0".to_owned());
        let key = AttachmentKey { network: "n".into(), container_id, ifname };
        self.call(async |mut client| client.detach(DetachRequest { key: Some(key) }).await).into_inner().found
    }

    /// All that the machine's kernel says of interfaces that are not the switch's bridge, without indexes, timers, and the
    /// numbers that a bridge gives its ports.
    fn state(&self) -> String {
        let orders = [
            "ip -d -o link",
            "ip -o addr show",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "bridge -d vlan",
            "ip neigh show nud permanent",
            "ip neigh show proxy",
        ];
        // Not every kernel has VLANs of bridges.
        let said = orders.map(|words| {
            let text = run(None, words).unwrap_or_default();
            let mut lines: Vec<_> = text.lines().filter(|line| !line.contains("br0")).map(plain).collect();
            lines.sort();
            format!("# {words}\n{}", lines.join("\n"))
        });
        said.join("\n")
    }
}

/// A line of `ip` without what differs each time.
fn plain(line: &str) -> String {
    const PASSING: [&str; 7] =
        ["gc_timer", "hello_timer", "forward_delay_timer", "port_id", "port_no", "designated_port", "tcn_timer"];
    let (mut words, mut rest) = (Vec::new(), line.split_whitespace().peekable());
    while let Some(word) = rest.next() {
        let is_index = words.is_empty() && word.trim_end_matches(':').parse::<u32>().is_ok();
        if PASSING.contains(&word) {
            rest.next();
        } else if !is_index && word != "nodad" {
            words.push(word);
        }
    }
    words.join(" ")
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Container {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    fn port(&self) -> String {
        format!("sl{:0>12}", self.id)
    }

    fn interface(&self, inside: bool) -> &Value {
        let interfaces = self.result["interfaces"].as_array().unwrap();
        let named = |i: &&Value| i["name"].as_str().unwrap().starts_with(if inside { "eth0" } else { "veth" });
        interfaces.iter().find(|i| named(i) && i["sandbox"].as_str().is_some_and(|s| !s.is_empty()) == inside).unwrap()
    }

    fn host_end(&self) -> String {
        self.interface(false)["name"].as_str().unwrap().to_owned()
    }

    fn mac(&self) -> String {
        self.interface(true)["mac"].as_str().unwrap().to_owned()
    }

    /// With their prefixes, IPv4's first.
    fn addresses(&self) -> Vec<String> {
        self.result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
    }

    fn address(&self, family: usize) -> String {
        self.addresses()[family].split('/').next().unwrap().to_owned()
    }

    fn run(&self, words: &str) -> String {
        run(Some(self), words).unwrap_or_else(|error| panic!("{words}: {error}"))
    }
}

/// What a program prints, in the machine or in a container.
fn run(within: Option<&Container>, words: &str) -> Result<String, String> {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    let output = match within {
        None => command.output(),
        Some(container) => thread::scope(|scope| {
            let there = || {
                setns(&container.file, CloneFlags::CLONE_NEWNET).unwrap();
                command.output()
            };
            scope.spawn(there).join().unwrap()
        }),
    };
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}

fn wait(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if there() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not in time");
}

/// Whether a ping is answered, if not the first then a later one.
fn reaches(from: Option<&Container>, to: &str) -> bool {
    run(from, &format!("ping -n -q -c 1 -W 2 {to}")).is_ok()
        || run(from, &format!("ping -n -q -c 3 -i 0.3 -W 2 {to}")).is_ok()
}

/// Runs `test` on a thread with a network namespace of its own, for each plugin.
fn with_each_plugin(test: fn(Machine)) {
    for plugin in ["bridge", "ptp"] {
        if !Path::new(PLUGINS).join(plugin).exists() {
            eprintln!("skipped: there is no {PLUGINS}/{plugin}; the package containernetworking-plugins has it");
            return;
        }
        let run = move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                let folder = tempfile::tempdir().unwrap();
                for (setting, value) in
                    [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/accept_dad", "0")]
                {
                    fs::write(format!("/proc/sys/net/{setting}"), value).unwrap();
                }
                machine_runs("ip link set lo up");
                test(Machine { folder: folder.path().to_owned(), plugin, daemon: None });
            }
            Err(Errno::EPERM) => eprintln!("skipped: only root may make a network namespace"),
            Err(error) => panic!("cannot make a network namespace: {error}"),
        };
        thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn machine_runs(words: &str) {
    run(None, words).unwrap_or_else(|error| panic!("{words}: {error}"));
}

/// Everybody reaches everybody.
fn all_is_well(machine: &Machine, containers: [&Container; 2], when: &str) {
    let [a, b] = containers;
    for (family, gateway) in ["10.88.0.1", "fd88::1"].into_iter().enumerate() {
        let at = |what: &str| {
            format!("{} {when}: {what}, family {family}\n{}\n{}", machine.plugin, machine.state(), machine.log())
        };
        assert!(reaches(Some(a), gateway), "{}", at("the gateway"));
        assert!(reaches(Some(a), &b.address(family)), "{}", at("another container"));
        assert!(reaches(Some(b), &a.address(family)), "{}", at("the container from another"));
        assert!(reaches(None, &a.address(family)), "{}", at("the container from the machine"));
    }
}

/// A connection from the container to the machine that stays.
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    fn new(container: &Container, gateway: &str) -> Self {
        let listener = TcpListener::bind((gateway, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let near = thread::scope(|scope| {
            let there = || {
                setns(&container.file, CloneFlags::CLONE_NEWNET).unwrap();
                TcpStream::connect_timeout(&to, PATIENCE).unwrap()
            };
            scope.spawn(there).join().unwrap()
        });
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { near, far }
    }

    /// A megabyte each way.
    fn works(&self) {
        for (mut from, mut to) in [(&self.near, &self.far), (&self.far, &self.near)] {
            let sent: Vec<u8> = (0..1 << 20).map(|n: u32| n as u8).collect();
            let mut got = vec![0; sent.len()];
            thread::scope(|scope| {
                scope.spawn(|| from.write_all(&sent).unwrap());
                to.read_exact(&mut got).unwrap();
            });
            assert!(got == sent, "the stream's bytes changed on their way");
        }
    }
}

#[test]
fn containers_of_other_plugins_go_on_through_the_switch_and_are_given_back_as_they_were() {
    with_each_plugin(|mut machine| {
        machine.start();
        let containers = ["1", "2"].map(|id| machine.add(id));
        let [a, b] = containers.each_ref();
        // What a careful administrator might have added.
        machine_runs(&format!(
            "ip route add 192.0.2.0/24 via {} dev {} metric 7",
            a.address(0),
            main_link(&machine, a)
        ));
        machine_runs(&format!("sysctl -qw net.ipv4.conf.{}.proxy_arp_pvlan=1", a.host_end()));
        all_is_well(&machine, [a, b], "at first");
        let connection = Connection::new(a, "10.88.0.1");
        connection.works();
        let before = machine.state();

        machine.attach(a);
        machine.attach(b);
        connection.works();
        all_is_well(&machine, [a, b], "taken");
        for container in [a, b] {
            match (machine.plugin, machine.plugin("CHECK", container)) {
                // It wants the host's interface to be the container's other end, which is the switch's now.
                ("bridge", Err(error)) => assert!(error.contains("CNI veth created for bridge"), "{error}"),
                (plugin, result) => _ = result.unwrap_or_else(|error| panic!("{plugin}: {error}")),
            }
        }
        assert_eq!(
            run(None, &format!("sysctl -n net.ipv4.conf.{}.proxy_arp_pvlan", a.host_end())).unwrap().trim(),
            "1"
        );
        // The guard: nothing with another's address.
        a.run("ip addr add 10.88.0.99/32 dev eth0");
        assert!(
            run(Some(a), "ping -n -q -c 2 -i 0.2 -W 1 -I 10.88.0.99 10.88.0.1").is_err(),
            "a foreign source passes"
        );
        a.run("ip addr del 10.88.0.99/32 dev eth0");

        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            machine.end(signal);
            machine.start();
            wait("it is taken up again", || {
                machine.log().matches("taken up").count() > 0 && reaches(Some(a), "10.88.0.1")
            });
            all_is_well(&machine, [a, b], "after a restart");
            connection.works();
        }

        assert!(machine.detach(a) && machine.detach(b));
        assert!(!machine.detach(a), "it is detached");
        connection.works();
        all_is_well(&machine, [a, b], "given back");
        let after = machine.state();
        assert!(before == after, "before:\n{before}\n\nafter:\n{after}");

        for container in [a, b] {
            machine.plugin("CHECK", container).unwrap_or_else(|error| panic!("{}: {error}", machine.plugin));
            machine.plugin("DEL", container).unwrap_or_else(|error| panic!("{}: {error}", machine.plugin));
        }
        let links = run(None, "ip -o link").unwrap();
        assert!(
            !links.contains("veth") && !links.contains("sl0") && !links.contains(": si") && !links.contains(": sj"),
            "{links}"
        );
        machine.end(Signal::SIGTERM);
    });
}

#[test]
fn what_was_interrupted_is_finished_or_undone() {
    with_each_plugin(|mut machine| {
        let containers = ["1", "2"].map(|id| machine.add(id));
        let [a, b] = containers.each_ref();
        machine.start();
        all_is_well(&machine, [a, b], "at first");
        machine.end(Signal::SIGTERM);
        let before = machine.state();
        let begun = || {
            let (end, name, words) = (end_of(&a.port()), a.host_end(), format!("{}:n:1:eth0", a.host_end()));
            machine_runs(&format!("ip link add {end} type veth peer name sjwaiting"));
            machine_runs(&format!("ip link set {end} alias sluice-inline-end:{words}"));
            machine_runs(&format!("ip link set {name} alias sluice-inline:{words}"));
        };
        // Killed while the new pair was made: the next start gives back.
        begun();
        machine.start();
        assert_eq!(machine.state(), before, "{}", machine.log());
        all_is_well(&machine, [a, b], "undone");

        // The same, and attached again.
        begun();
        machine.attach(a);
        all_is_well(&machine, [a, b], "finished");

        // Killed when all was done, but for the record.
        machine.end(Signal::SIGKILL);
        fs::remove_dir_all(machine.folder.join("s.state")).unwrap();
        machine.start();
        assert!(machine.detach(a), "{}", machine.log());
        let after = machine.state();
        assert!(before == after, "before:\n{before}\n\nafter:\n{after}");
        all_is_well(&machine, [a, b], "given back");

        // The container goes while the switch is away: nothing of it is left after the next start.
        machine.attach(a);
        machine.end(Signal::SIGKILL);
        for container in [a, b] {
            machine.plugin("DEL", container).unwrap_or_else(|error| panic!("{}: {error}", machine.plugin));
        }
        machine.start();
        wait("what took its place is gone", || !run(None, "ip -o link").unwrap().contains("veth"));
        assert!(!machine.detach(a));
    });
}

/// The name of the switch's end of the new pair, by the name of the port.
fn end_of(port: &str) -> String {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("si{:012x}", port.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) & 0xffff_ffff_ffff)
}

/// The interface of the machine that a container's addresses are behind.
fn main_link(machine: &Machine, container: &Container) -> String {
    if machine.plugin == "bridge" { "cni0".to_owned() } else { container.host_end() }
}
