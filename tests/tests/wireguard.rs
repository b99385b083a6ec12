//! WireGuard ports between hosts: against wireguard-go, an implementation by others, and against each other.
//!
//! The hosts' kernels are the oracle for what crosses; wireguard-go and `wg` for the protocol. Where namespaces or these
//! programs are missing, the cases say that they are skipped.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use sluice_flows::DropReason;
use sluice_flows::text::{Names, parse_flow};
use sluice_switch::port::wireguard::{PublicKey, SecretKey, WireguardOptions, WireguardPort};
use sluice_switch::{Config, FailMode, PortChange, PortDevice, PortRequest};
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs::{Running, run};
use sluice_tests::switch::{Switch, wait_until};
use sluice_tests::traffic::{datagrams, ping_until_answered, stream, stream_to};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Bytes of a stream, each way.
const STREAM: usize = 2 << 20;
const MTU: u32 = 1420;

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, n.into())
}

/// A switch with a WireGuard port, and a host behind a TAP.
struct Site {
    switch: Switch,
    host: Host,
}

impl Site {
    /// Site number `n`, its UDP port in `under`. The other site is number `far`.
    fn new(under: &Netns, n: u8, far: u8, options: &[(&str, &str)]) -> Self {
        let options = WireguardOptions::parse(options.iter().copied()).unwrap();
        let wg = under.run(|| WireguardPort::open("wg0", &options, 2)).unwrap();
        let (host, tap) = Host::with_addresses([2, 0, 0, 0, 0, n], v4(n), v6(n), Kind::Tap, MTU, 2);
        let switch = Switch::start(Config { workers: 2, ..Config::default() });
        switch.datapath.add_bridge("br0", FailMode::Secure).unwrap();
        for (name, port) in [("wg0", PortDevice::Device(Box::new(wg))), ("tap", PortDevice::Device(tap))] {
            switch.datapath.add_port("br0", PortRequest::new(name, port)).unwrap();
        }
        let flows = [
            format!("in_port=1,actions=mod_dl_dst:02:00:00:00:00:{n:02x},output:2"),
            "in_port=2,ip,actions=output:1".to_owned(),
            "in_port=2,ipv6,actions=output:1".to_owned(),
        ];
        switch.add_flows(flows.map(|flow| parse_flow(&flow, Names::NONE).unwrap().value));
        for address in [IpAddr::from(v4(far)), v6(far).into()] {
            host.netns.add_neighbour(LINK, address, [2, 0, 0, 0, 0, far]).unwrap();
        }
        Self { switch, host }
    }

    fn set(&self, options: &[(&str, &str)]) {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let change = PortChange { options, ..PortChange::default() };
        self.switch.datapath.set_port("br0", "wg0", &change).unwrap();
    }
}

/// Two namespaces joined by a veth pair, 192.0.2.N and 2001:db8::N in each.
fn underlay() -> [Netns; 2] {
    let ends = [Netns::new().unwrap(), Netns::new().unwrap()];
    ends[0].add_veth("u0", &ends[1], "u0").unwrap();
    for (n, end) in (1..).zip(&ends) {
        end.add_address("u0", Ipv4Addr::new(192, 0, 2, n).into(), 24).unwrap();
        end.add_address("u0", Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(), 64).unwrap();
        end.set_up("u0", true).unwrap();
    }
    ends
}

/// wireguard-go in a namespace, as site number 2.
struct Go {
    netns: Netns,
    name: &'static str,
    folder: TempDir,
    _running: Running,
}

impl Go {
    /// `name` is that of its interface, unique among all that run at once: its control socket has no namespace.
    fn new(netns: &Netns, name: &'static str, secret: &SecretKey) -> Self {
        // What one that was killed has left behind.
        _ = std::fs::remove_file(format!("/var/run/wireguard/{name}.sock"));
        let running = Running::start(netns, &["wireguard-go", "-f", name]);
        wait_until("wireguard-go listens", || run(netns, &["wg", "show", name]).0 == Some(0));
        let go = Self { netns: netns.clone(), name, folder: TempDir::new().unwrap(), _running: running };
        let key = go.file("key", secret);
        go.run(&["wg", "set", name, "listen-port", "51820", "private-key", &key]);
        go.run(&["ip", "address", "add", "10.99.0.2/24", "dev", name]);
        go.run(&["ip", "address", "add", "fd99::2/64", "dev", name, "nodad"]);
        go.run(&["ip", "link", "set", name, "mtu", "1420", "up"]);
        go
    }

    fn file(&self, name: &str, secret: &SecretKey) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, secret.reveal()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn peer(&self, public: PublicKey, more: &[&str]) {
        let public = public.to_string();
        let words = ["wg", "set", self.name, "peer", &public, "allowed-ips", "10.99.0.1/32,fd99::1/128"];
        self.run(&[&words[..], more].concat());
    }

    fn run(&self, words: &[&str]) -> String {
        let (code, text) = run(&self.netns, words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        text
    }

    fn ping(&self, to: &str) {
        self.run(&["ping", "-c", "3", "-i", "0.2", "-W", "5", to]);
    }

    /// A TCP stream that this side begins.
    fn stream(&self, host: &Host, to: IpAddr) {
        let listener = host.netns.run(|| TcpListener::bind((to, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let mut near = self.netns.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(20))).unwrap();
        let sent: Vec<u8> = (0..STREAM).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let far = thread::spawn(move || {
            let mut got = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
            assert!(got == expected, "the stream arrives as it was sent");
        });
        near.write_all(&sent).unwrap();
        drop(near);
        far.join().unwrap();
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.name));
    }
}

fn lacking(test: &str) -> bool {
    let missing = ["wireguard-go", "wg"].into_iter().find(|program| !Path::new("/usr/bin").join(program).exists());
    if let Some(program) = missing {
        // Not eprintln!, whose output the test runner keeps to itself when a test passes.
        _ = writeln!(std::io::stderr(), "skipped: {test}: there is no {program}");
    }
    skipped(test) || missing.is_some()
}

fn secrets() -> (SecretKey, SecretKey) {
    (SecretKey::generate().unwrap(), SecretKey::generate().unwrap())
}

#[test]
fn wireguard_go_and_we_understand_each_other() {
    if lacking("wireguard_go_and_we_understand_each_other") {
        return;
    }
    // Who begins, a secret that they share, and the outer family.
    for (name, we_begin, shared, outer) in [("slg0", true, true, "192.0.2"), ("slg1", false, false, "[2001:db8:")] {
        let [ours, theirs] = underlay();
        let (secret, other) = secrets();
        let preshared = SecretKey::generate().unwrap();
        let go = Go::new(&theirs, name, &other);
        let at = |n: u8| {
            if outer.starts_with('[') { format!("[2001:db8::{n}]:51820") } else { format!("{outer}.{n}:51820") }
        };
        let (key, public, psk) = (secret.reveal(), other.public().to_string(), preshared.reveal());
        let far = at(2);
        let mut options = vec![
            ("private_key", key.as_str()),
            ("peer.go.public_key", &public),
            ("peer.go.allowed_ips", "10.99.0.2,fd99::2"),
        ];
        if we_begin {
            options.push(("peer.go.endpoint", &far));
        }
        if shared {
            options.push(("peer.go.preshared_key", &psk));
        }
        let site = Site::new(&ours, 1, 2, &options);
        let (near, file) = (at(1), go.file("psk", &preshared));
        let mut more = Vec::new();
        if !we_begin {
            more.extend(["endpoint", near.as_str()]);
        }
        if shared {
            more.extend(["preshared-key", file.as_str()]);
        }
        go.peer(secret.public(), &more);
        if we_begin {
            ping_until_answered(&site.host, v4(2).into());
            ping_until_answered(&site.host, v6(2).into());
        }
        go.ping("10.99.0.1");
        go.ping("fd99::1");
        for to in [IpAddr::from(v4(2)), v6(2).into()] {
            let listener = theirs.run(|| TcpListener::bind((to, 0))).unwrap();
            stream_to(&site.host, listener.local_addr().unwrap(), listener, STREAM);
        }
        go.stream(&site.host, v4(1).into());
        go.stream(&site.host, v6(1).into());
        for reason in [DropReason::Checksum, DropReason::SpoofGuard, DropReason::TunnelDown] {
            assert_eq!(site.switch.dropped(reason), 0, "{reason}");
        }
    }
}

#[test]
fn either_end_may_move() {
    if lacking("either_end_may_move") {
        return;
    }
    let [ours, theirs] = underlay();
    let (secret, other) = secrets();
    let go = Go::new(&theirs, "slg2", &other);
    let (key, public) = (secret.reveal(), other.public().to_string());
    let site = Site::new(
        &ours,
        1,
        2,
        &[
            ("private_key", &key),
            ("peer.go.public_key", &public),
            ("peer.go.allowed_ips", "10.99.0.2,fd99::2"),
            ("peer.go.endpoint", "192.0.2.2:51820"),
        ],
    );
    go.peer(secret.public(), &[]);
    ping_until_answered(&site.host, v4(2).into());
    let remote = || {
        let ports = site.switch.datapath.tunnels(Some("br0"), None).unwrap();
        ports.iter().flat_map(|port| port.peers.iter().map(|(peer, _)| peer.remote)).collect::<Vec<_>>()
    };
    assert_eq!(remote(), [Some("192.0.2.2".parse().unwrap())]);
    // As behind a NAT that has given the flow another port.
    go.run(&["wg", "set", "slg2", "listen-port", "51999"]);
    go.ping("10.99.0.1");
    ping_until_answered(&site.host, v4(2).into());
    run(&ours, &["ip", "address", "add", "192.0.2.4/24", "dev", "u0"]);
    run(&ours, &["ip", "address", "del", "192.0.2.1/24", "dev", "u0"]);
    run(&ours, &["ip", "address", "replace", "192.0.2.4/24", "dev", "u0"]);
    ping_until_answered(&site.host, v4(2).into());
    let shown = go.run(&["wg", "show", "slg2", "endpoints"]);
    assert!(shown.contains("192.0.2.4:51820"), "{shown}");
}

#[test]
fn two_switches_change_their_keys_under_traffic() {
    if skipped("two_switches_change_their_keys_under_traffic") {
        return;
    }
    let under = underlay();
    let (a, b) = secrets();
    let site = |n: u8, secret: &SecretKey, other: &SecretKey| {
        let far = 3 - n;
        Site::new(
            &under[usize::from(n) - 1],
            n,
            far,
            &[
                ("private_key", &secret.reveal()),
                ("peer.far.public_key", &other.public().to_string()),
                ("peer.far.allowed_ips", &format!("{},{}", v4(far), v6(far))),
                ("peer.far.endpoint", &format!("192.0.2.{far}:51820")),
            ],
        )
    };
    let (left, right) = (site(1, &a, &b), site(2, &b, &a));
    ping_until_answered(&left.host, v4(2).into());
    let renewed = SecretKey::generate().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            right.set(&[("peer.far.public_key", &renewed.public().to_string())]);
            thread::sleep(Duration::from_millis(300));
            left.set(&[("private_key", &renewed.reveal())]);
        });
        // Nothing is sent again here: each datagram that is lost is missed.
        for _ in 0..40 {
            datagrams(&left.host, &right.host, v4(2).into(), [1, 1000, 1392]);
            thread::sleep(Duration::from_millis(25));
        }
    });
    stream(&left.host, &right.host, v6(2).into(), STREAM);
    // Handshakes for a key that the other end does not have yet are dropped as `checksum`; packets are not.
    for reason in [DropReason::SpoofGuard, DropReason::TunnelDown] {
        assert_eq!((left.switch.dropped(reason), right.switch.dropped(reason)), (0, 0), "{reason}");
    }
}
