//! A machine with containers and an outside.

pub(crate) use sluice_tests::daemon::Daemon as Running;
use sluice_tests::daemon::sluiced;
use sluice_tests::host::{PATIENCE, wait_for_carrier};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs;
use sluice_tests::switch::wait_until;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The bridge and its containers, up to the gateway.
pub(crate) const PORTS: &str = "\
[bridges.br0.ports.c1]
type = \"af-packet\"
[bridges.br0.ports.c2]
type = \"af-packet\"
";
/// The gateway, without masquerade.
pub(crate) const GATEWAY: &str = "\
[bridges.br0.gateway]
addresses = [\"10.77.0.1/24\", \"fd77::1/64\"]
";
/// The masquerade.
pub(crate) const MASQUERADE: &str = "[bridges.br0.gateway.masquerade]\n";

/// The gateway's addresses, IPv4's first, as with all that follow.
pub(crate) const OWN: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// The link's.
pub(crate) const LINK: [&str; 2] = ["169.254.77.2", "fd73:6c75:6963::2"];
/// The machine's outside addresses.
pub(crate) const MACHINE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The server's.
pub(crate) const SERVER: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// A machine, the containers on its bridge, and a server outside.
pub(crate) struct Machine {
    pub(crate) netns: Netns,
    pub(crate) outside: Netns,
    containers: [Netns; 2],
    folder: TempDir,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Machine {
    /// The namespaces and the veth pairs between them; nothing runs yet. `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        if !sluiced().exists() {
            _ = writeln!(io::stderr(), "skipped: {test}: sluiced is not built; `cargo build` makes it");
            return None;
        }
        let [netns, outside, a, b] = [(); 4].map(|()| {
            let netns = Netns::new().unwrap();
            set(&netns, "ipv6/conf/default/accept_dad", "0");
            set(&netns, "ipv4/icmp_ratelimit", "0");
            set(&netns, "ipv6/icmp/ratelimit", "0");
            netns
        });
        let machine = Self { netns, outside, containers: [a, b], folder: tempfile::tempdir().unwrap() };
        machine.wire();
        Some(machine)
    }

    fn wire(&self) {
        for (n, container) in (1_u8..).zip(&self.containers) {
            let port = format!("c{n}");
            self.netns.add_veth(&port, container, "eth0").unwrap();
            for (netns, link) in [(container, "eth0"), (&self.netns, port.as_str())] {
                netns.set_up(link, true).unwrap();
            }
            wait_for_carrier(&[(container, "eth0"), (&self.netns, &port)]);
            for (address, length, own) in [(format!("10.77.0.1{n}"), 24, OWN[0]), (format!("fd77::1{n}"), 64, OWN[1])] {
                container.add_address("eth0", ip(&address), length).unwrap();
                let any = if own.contains(':') { "::" } else { "0.0.0.0" };
                container.add_route(ip(any), 0, ip(own)).unwrap();
            }
        }
        self.netns.add_veth("up0", &self.outside, "eth0").unwrap();
        for (netns, link, addresses) in [(&self.netns, "up0", MACHINE), (&self.outside, "eth0", SERVER)] {
            netns.set_up(link, true).unwrap();
            for (address, length) in addresses.into_iter().zip([24, 64]) {
                netns.add_address(link, ip(address), length).unwrap();
            }
        }
        wait_for_carrier(&[(&self.netns, "up0"), (&self.outside, "eth0")]);
        // The kernel calls a new link's state unknown until it has looked.
        wait_until("every link is up", || self.say(&["ip", "link"]).matches("state UP").count() == 3);
    }

    /// Container `n`, 1 or 2.
    pub(crate) fn container(&self, n: usize) -> &Netns {
        &self.containers[n - 1]
    }

    fn config(&self, parts: &[&str]) -> PathBuf {
        let path = self.folder.path().join("sluiced.toml");
        let socket = self.folder.path().join("switch.sock");
        fs::write(&path, format!("socket = \"{}\"\n{}", socket.display(), parts.concat())).unwrap();
        path
    }

    /// The file that a running switch would read.
    pub(crate) fn write(&self, parts: &[&str]) {
        self.config(parts);
    }

    fn command(&self, parts: &[&str]) -> Command {
        let mut command = Command::new(sluiced());
        command.arg("--config").arg(self.config(parts)).stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Starts `sluiced` with a file of these parts, and waits until it is ready and the containers are joined.
    pub(crate) fn start(&self, parts: &[&str]) -> Running {
        let path = self.folder.path().join("log");
        let command = self.command(parts);
        Running::start(&self.netns, command, path)
    }

    /// Starts `sluiced`, which is to fail: its exit code and what it says.
    pub(crate) fn fail(&self, parts: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(parts);
        let output = self.netns.run(|| command.output()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What a program prints on the machine.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        run(&self.netns, words)
    }

    /// What `ip` and `nft` say of the machine.
    pub(crate) fn state(&self) -> String {
        let say = |words: &str| format!("# {words}\n{}", self.say(&words.split(' ').collect::<Vec<_>>()));
        [
            "ip -d addr",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "ip -6 rule",
            "ip neigh show nud permanent",
            "nft list ruleset",
        ]
        .map(say)
        .concat()
    }
}

/// Sets a setting of a namespace's kernel below `net`.
pub(crate) fn set(netns: &Netns, path: &str, value: &str) {
    netns.run(|| fs::write(format!("/proc/sys/net/{path}"), value)).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// What a program prints, which ends with 0.
pub(crate) fn run(netns: &Netns, words: &[&str]) -> String {
    let (code, output) = programs::run(netns, words);
    assert!(code == Some(0), "{words:?} ended with {code:?}:\n{output}");
    output
}

/// A listener.
pub(crate) fn listen(netns: &Netns, address: &str) -> (TcpListener, SocketAddr) {
    let listener = netns.run(|| TcpListener::bind((ip(address), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) fn connect(from: &Netns, to: SocketAddr) -> TcpStream {
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap_or_else(|e| panic!("{to}: {e}"));
    patient(&stream);
    stream
}

pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

pub(crate) fn udp(netns: &Netns, address: &str) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((ip(address), 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Three pings, all of which are answered.
pub(crate) fn ping(netns: &Netns, to: &str) {
    let output = run(netns, &["ping", "-n", "-c", "3", "-i", "0.1", "-W", "5", to]);
    assert!(output.contains(" 3 received"), "{output}");
}
