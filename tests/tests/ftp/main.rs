//! FTP and TFTP between real programs: only connections that are related to a control connection may be made beside it,
//! so each transfer proves that the switch understood what was announced. With translation the client sees and is seen
//! under addresses that nobody has, so each proves that what was announced was rewritten, and that TCP went on.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod oracle;

use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_switch::FailMode;
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::programs::{self, Running};
use sluice_tests::switch::wait_until;
use sluice_tests::variant;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A control connection and its data may be on different ones.
const WORKERS: usize = 2;
/// The client is host 1, the server host 2.
const CLIENT: u8 = 1;
const SERVER: u8 = 2;
/// The addresses under which the server sees the client, and the client the server, where they are translated: IPv4 and
/// IPv6, longer than their own.
const CLIENT_SEEN_AS: [&str; 2] = ["10.99.0.201", "fd99::abcd:1:2"];
const SERVER_SEEN_AS: [&str; 2] = ["10.99.0.100", "fd99::1:100"];
/// Files and their lengths, of some megabytes; two on the same control connection. A server must not be able to send all
/// of a file before the client has looked: `curl` takes the word that it was sent for a refusal then.
const FILES: [(&str, usize); 2] = [("first", 5_000_001), ("second", 3_000_001)];
/// A file for TFTP, which waits for an answer to each block.
const SMALL: [(&str, usize); 1] = [("small", 100_001)];
/// Ports of every kind that a kernel's network stack can be behind.
const KINDS: [[Kind; 2]; 3] =
    [[Kind::Tap, Kind::Tap], [Kind::AfPacket, Kind::TapPlain], [Kind::TapPlain, Kind::AfPacket]];

/// Whose address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translated {
    Nobody,
    Client,
    Server,
    /// The client's in one zone, the server's in another.
    Both,
}

use Translated::{Both, Client, Nobody, Server};

/// What is let through.
#[derive(Clone, Copy, Debug)]
struct Service {
    proto: &'static str,
    port: u16,
    alg: &'static str,
}

const FTP: Service = Service { proto: "tcp", port: 21, alg: "ftp" };
const TFTP: Service = Service { proto: "udp", port: 69, alg: "tftp" };

/// A switch that lets a service through from the client to the server, and what is related to it in either direction:
/// nothing comes to a host but under the addresses that it is to see. Beside it, the server's addresses as the client
/// knows them, IPv4 and IPv6.
fn lan(kinds: [Kind; 2], service: Service, translated: Translated) -> (Lan, [IpAddr; 2]) {
    let mut lan = Lan::new(&["br0"], FailMode::Secure, WORKERS);
    for (n, kind) in [CLIENT, SERVER].into_iter().zip(kinds) {
        lan.add_host("br0", n, kind, 1500, VlanMode::default());
    }
    lan.add_flows("br0", &["priority=1,arp actions=normal", "priority=1,icmp6 actions=normal"]);
    let (client, server) = (lan.host(CLIENT), lan.host(SERVER));
    let own = [[client.v4, server.v4], [client.v6, server.v6]];
    let known_as = [0, 1].map(|family| {
        let [mut client_seen, mut server_seen] = own[family];
        if matches!(translated, Client | Both) {
            client_seen = CLIENT_SEEN_AS[family].parse().unwrap();
            server.netns.add_neighbour(LINK, client_seen, client.mac).unwrap();
        }
        if matches!(translated, Server | Both) {
            server_seen = SERVER_SEEN_AS[family].parse().unwrap();
            client.netns.add_neighbour(LINK, server_seen, server.mac).unwrap();
        }
        let flows = flows(service, translated, own[family], [client_seen, server_seen]);
        lan.add_flows("br0", &flows.iter().map(String::as_str).collect::<Vec<_>>());
        server_seen
    });
    (lan, known_as)
}

/// The flows of one family. What each zone does is in two tables: it asks the tracker in one, and looks at its answer and
/// commits in the next. From the client the first zone comes first, from the server the last one.
fn flows(service: Service, translated: Translated, own: [IpAddr; 2], seen: [IpAddr; 2]) -> Vec<String> {
    let [client, server] = own;
    let [client_seen, server_seen] = seen;
    let zones: &[String] = match translated {
        Nobody => &["nat".to_owned()],
        Client => &[format!("nat(src={client_seen})")],
        Server => &[format!("nat(dst={server})")],
        Both => &[format!("nat(src={client_seen})"), format!("nat(dst={server})")],
    };
    let Service { proto, port, alg } = service;
    let (proto, [src, dst]) = match client {
        IpAddr::V4(_) => (proto.to_owned(), ["ip_src", "ip_dst"]),
        IpAddr::V6(_) => (format!("{proto}6"), ["ipv6_src", "ipv6_dst"]),
    };
    let mut flows = vec![
        format!("priority=3,{proto},in_port=1 actions=resubmit(,10)"),
        format!("priority=3,{proto},in_port=2 actions=resubmit(,20)"),
    ];
    for (base, in_port) in [(10, 1), (20, 2)] {
        for step in 0..zones.len() {
            let zone = if in_port == 1 { step } else { zones.len() - 1 - step };
            let (ask, look) = (base + 2 * step, base + 2 * step + 1);
            let (next, known) = (look + 1, format!("table={look},priority=2,{proto},ct_state=+trk-inv"));
            flows.extend([
                format!("table={ask},priority=2,{proto} actions=ct(table={look},zone={},nat)", zone + 7),
                format!("{known}+new+rel,ct_mark=0x55 actions=ct(commit,table={next},zone={},nat)", zone + 7),
                format!("{known}+est,ct_mark=0x55 actions=resubmit(,{next})"),
            ]);
            if in_port == 1 {
                let nat = &zones[zone];
                flows.push(format!(
                    "{known}+new-rel,tp_dst={port} actions=ct(commit,table={next},zone={},{nat},alg={alg},\
                     exec(set_field:0x55->ct_mark))",
                    zone + 7
                ));
            }
        }
    }
    let [from_client, from_server] = [10, 20].map(|base| base + 2 * zones.len());
    flows.push(format!("table={from_client},priority=2,{proto},{src}={client_seen},{dst}={server} actions=output:2"));
    flows.push(format!("table={from_server},priority=2,{proto},{src}={server_seen},{dst}={client} actions=output:1"));
    flows
}

/// A folder with the files, which everybody may read.
fn files() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, len) in FILES.into_iter().chain(SMALL) {
        fs::write(folder.path().join(name), content(len)).unwrap();
    }
    folder
}

/// Bytes that repeat only after a while, so that none can be missing unseen.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn ftp_server(host: &Host, folder: &Path) -> Running {
    programs::ftp_server(&host.netns, (host.v4, FTP.port).into(), folder)
}

fn tftp_server(host: &Host, folder: &Path) -> Running {
    let running = Running::start(&host.netns, &["in.tftpd", "--foreground", "--secure", folder.to_str().unwrap()]);
    // Nobody else can have the port once the server has it.
    let taken = || host.netns.run(|| UdpSocket::bind(("::", TFTP.port)).is_err());
    wait_until("the TFTP server listens", taken);
    running
}

/// Has `curl` get files from where the client knows the server, and compares them.
fn download(client: &Host, scheme: &str, server: IpAddr, options: &[&str], names: &[(&str, usize)]) {
    let into = TempDir::new().unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", "curl", "--verbose", "--silent", "--show-error", "--globoff"]).args(options);
    for (name, _) in names {
        command.arg("--output").arg(into.path().join(name));
        command.arg(format!("{scheme}://{}/{name}", SocketAddr::from((server, 0)).to_string().trim_end_matches(":0")));
    }
    let output = client.netns.run(|| command.stdin(Stdio::null()).output()).unwrap();
    assert!(output.status.success(), "{options:?} from {server}: {}", String::from_utf8_lossy(&output.stderr));
    for (name, len) in names {
        let got = fs::read(into.path().join(name)).unwrap();
        assert!(got == content(*len), "{options:?} from {server}: {name} changed on its way");
    }
}

/// Every way to make a data connection, by the family that knows it. `curl` would rather connect to the server's address
/// than to the one in a reply.
const WAYS: [(&[&str], &[usize]); 4] = [
    (&["--ftp-port", "-", "--disable-eprt"], &[0]),
    (&["--ftp-pasv", "--disable-epsv", "--no-ftp-skip-pasv-ip"], &[0]),
    (&["--ftp-port", "-"], &[0, 1]),
    (&["--ftp-pasv"], &[0, 1]),
];

fn ftp(translated: Translated) {
    for kinds in KINDS {
        let (lan, server) = lan(kinds, FTP, translated);
        let folder = files();
        let _server = ftp_server(lan.host(SERVER), folder.path());
        for (options, families) in WAYS {
            for family in families {
                download(lan.host(CLIENT), "ftp", server[*family], options, &FILES);
            }
        }
        lan.check_accounts(&[DropReason::NoRule]);
        let stats = lan.datapath.worker_stats();
        let received: u64 = stats.iter().map(|worker| worker.received).sum();
        let hits: u64 = stats.iter().map(|worker| worker.cache.connection_hits).sum();
        assert!(hits > received / 2, "data connections are as quick as others: {stats:?}");
    }
}

fn tftp(translated: Translated) {
    let (lan, server) = lan([variant::port(); 2], TFTP, translated);
    let folder = files();
    let _server = tftp_server(lan.host(SERVER), folder.path());
    for address in server {
        download(lan.host(CLIENT), "tftp", address, &[], &SMALL);
    }
    lan.check_accounts(&[DropReason::NoRule]);
}

#[test]
fn ftp_data_connections_are_let_through_as_related() {
    if !skipped("ftp_data_connections_are_let_through_as_related") {
        ftp(Nobody);
    }
}

#[test]
fn an_ftp_client_behind_nat_downloads_in_every_way() {
    if !skipped("an_ftp_client_behind_nat_downloads_in_every_way") {
        ftp(Client);
    }
}

#[test]
fn an_ftp_server_behind_nat_serves_in_every_way() {
    if !skipped("an_ftp_server_behind_nat_serves_in_every_way") {
        ftp(Server);
    }
}

#[test]
fn ftp_works_through_two_zones_that_translate_an_end_each() {
    if !skipped("ftp_works_through_two_zones_that_translate_an_end_each") {
        ftp(Both);
    }
}

#[test]
fn tftp_works_with_and_without_nat() {
    if !skipped("tftp_works_with_and_without_nat") {
        for translated in [Nobody, Client, Server, Both] {
            tftp(translated);
        }
    }
}
