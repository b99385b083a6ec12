//! Connections through address translation, real ones between kernels, go on when the switch is ended or killed and started again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use sluice_tests::daemon::{Daemon, sluiced};
use sluice_tests::host::{PATIENCE, wait_for_carrier};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::switch::wait_until;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What the client connects to, and nobody has.
const SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];
/// The client's addresses and the server's.
const ADDRESSES: [[&str; 2]; 2] = [["10.77.0.11", "fd77::11"], ["10.77.0.12", "fd77::12"]];
/// The port of the Service; the server has another.
const PORT: u16 = 80;

/// A machine with a switch, and a client and a server behind its ports.
struct Machine {
    netns: Netns,
    ends: [Netns; 2],
    folder: TempDir,
}

impl Machine {
    /// `None` where it cannot be made, which is said.
    fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        if !sluiced().exists() {
            _ = writeln!(io::stderr(), "skipped: {test}: sluiced is not built; `cargo build` makes it");
            return None;
        }
        let [netns, client, server] = [(); 3].map(|()| {
            let netns = Netns::new().unwrap();
            netns.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).unwrap();
            netns
        });
        let machine = Self { netns, ends: [client, server], folder: tempfile::tempdir().unwrap() };
        for (n, end) in machine.ends.iter().enumerate() {
            let port = format!("c{}", n + 1);
            machine.netns.add_veth(&port, end, "eth0").unwrap();
            for (netns, link) in [(end, "eth0"), (&machine.netns, port.as_str())] {
                netns.set_up(link, true).unwrap();
            }
            wait_for_carrier(&[(end, "eth0"), (&machine.netns, &port)]);
            for (address, len) in ADDRESSES[n].into_iter().zip([24, 64]) {
                end.add_address("eth0", ip(address), len).unwrap();
            }
        }
        for (service, server) in SERVICE.into_iter().zip(ADDRESSES[1]) {
            let len = if service.contains(':') { 128 } else { 32 };
            machine.ends[0].add_route(ip(service), len, ip(server)).unwrap();
        }
        Some(machine)
    }

    /// The file of the connections that are kept.
    fn kept(&self) -> PathBuf {
        self.folder.path().join("connections")
    }

    /// Starts the switch, which translates the Service's addresses to the server's with `port`.
    fn start(&self, port: u16) -> Daemon {
        let [v4, v6] = ADDRESSES[1];
        let to = |address: &str| format!("ct(commit,zone=5,nat(dst={address}:{port}),table=2)");
        let flows = [
            "priority=9,arp actions=NORMAL".to_owned(),
            "priority=9,icmp6 actions=NORMAL".to_owned(),
            "priority=5,ip actions=ct(zone=5,nat,table=1)".to_owned(),
            "priority=5,ipv6 actions=ct(zone=5,nat,table=1)".to_owned(),
            format!("table=1,priority=9,ct_state=+new+trk,tcp,nw_dst={} actions={}", SERVICE[0], to(v4)),
            format!(
                "table=1,priority=9,ct_state=+new+trk,tcp6,ipv6_dst={} actions={}",
                SERVICE[1],
                to(&format!("[{v6}]"))
            ),
            "table=1,priority=0 actions=resubmit(,2)".to_owned(),
            "table=2,in_port=c1 actions=output:c2".to_owned(),
            "table=2,in_port=c2 actions=output:c1".to_owned(),
        ];
        let file = self.folder.path().join("sluiced.toml");
        let ports = "[bridges.br0.ports.c1]\ntype = \"af-packet\"\n[bridges.br0.ports.c2]\ntype = \"af-packet\"\n";
        fs::write(&file, format!("[bridges.br0]\nflows = {flows:?}\n{ports}")).unwrap();
        let mut command = Command::new(sluiced());
        command.arg("--config").arg(&file).arg("--socket").arg(self.folder.path().join("switch.sock"));
        command.arg("--keep-connections").arg(self.kept()).stdin(Stdio::null());
        Daemon::start(&self.netns, command, self.folder.path().join("log"))
    }

    /// A connection to the Service, in both directions, and the port that its server has.
    fn connections(&self, listeners: &[TcpListener]) -> Vec<[TcpStream; 2]> {
        let pair = |(service, listener): (&str, &TcpListener)| {
            let to = SocketAddr::new(ip(service), PORT);
            let client = self.ends[0].run(|| TcpStream::connect_timeout(&to, PATIENCE));
            let client = client.unwrap_or_else(|error| panic!("{to}: {error}\n{}", self.log()));
            let (server, _) = listener.accept().unwrap();
            [client, server]
        };
        let pairs: Vec<_> = SERVICE.into_iter().zip(listeners).map(pair).collect();
        for stream in pairs.iter().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        pairs
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// Both ends of a connection; `order` is who speaks first. What they say is answered.
fn talk(machine: &Machine, pair: &mut [TcpStream; 2], order: [usize; 2]) {
    for from in order {
        let mut heard = [0; 5];
        let said = pair[from].write_all(b"hello").and_then(|()| pair[1 - from].read_exact(&mut heard));
        said.unwrap_or_else(|error| panic!("from end {from}, first {}: {error}\n{}", order[0], machine.log()));
        assert_eq!(&heard, b"hello");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn translated_connections_outlive_an_ended_switch_and_a_killed_one_whoever_speaks_first() {
    let Some(machine) = Machine::new("kept_connections") else { return };
    let listeners: Vec<_> = ADDRESSES[1]
        .into_iter()
        .map(|address| machine.ends[1].run(|| TcpListener::bind((ip(address), 7000))).unwrap())
        .collect();
    let mut switch = machine.start(7000);
    let mut pairs = machine.connections(&listeners);
    for pair in &mut pairs {
        talk(&machine, pair, [0, 1]);
    }
    for (killed, order) in [(false, [1, 0]), (false, [0, 1]), (true, [1, 0]), (true, [0, 1])] {
        if killed {
            // It writes them every second: these have to be in the file.
            let is_kept = |pair: &[TcpStream; 2]| {
                let port = format!(",{}]", pair[0].local_addr().unwrap().port());
                fs::read_to_string(machine.kept()).unwrap().lines().any(|line| line.contains(&port))
            };
            wait_until("the connections are written down", || pairs.iter().all(is_kept));
            switch.crash();
        } else {
            _ = switch.end();
        }
        // New connections lead elsewhere, so that it is the kept ones that say where these go.
        switch = machine.start(7001);
        for pair in &mut pairs {
            talk(&machine, pair, order);
        }
    }
    _ = switch.end();
}
