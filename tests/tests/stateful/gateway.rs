//! Through the gateway: what inside begins comes back, under an address that is not its own.

use crate::STREAM;
use crate::download::download;
use crate::labs::{CHATTER, GATEWAY, Gateway, PORT_RANGE, ROUTER, SERVER, SHARED, dropped_by, owner};
use crate::programs::{ping, run, traceroute};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use sluice_flows::DropReason;
use sluice_switch::stats::PortStats;
use sluice_tests::host::{Kind, PATIENCE};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::stream_to;
use sluice_tests::variant;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// Megabytes of a long download.
const LONG: usize = 110;

/// A listener of the server.
fn listen(server: &Netns, address: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = server.run(|| TcpListener::bind((address, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(from: &Netns, address: SocketAddr) -> TcpStream {
    from.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
}

fn udp(netns: &Netns, address: IpAddr) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((address, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The counters of the port of host `n`.
fn counters(gateway: &Gateway, n: u16) -> PortStats {
    let ports = gateway.lan.datapath.ports(None).unwrap();
    ports.into_iter().find(|port| port.port.no.0 == n).unwrap().stats
}

/// Downloads through the gateway: every frame that comes in goes out as it is.
fn a_long_download(kind: Kind, family: usize, megabytes: usize) {
    let gateway = Gateway::new(kind, 1, 1500);
    let (listener, address) = listen(&gateway.server, SERVER[family]);
    let client = connect(&gateway.host(1).netns, address);
    download(&client, listener, megabytes);
    assert!(gateway.lan.seen(3).super_frames() > 0, "{:?}", gateway.lan.seen(3));
    gateway.lan.check_accounts(&CHATTER);
    let [client, other, router] = [1, 2, 3].map(|n| counters(&gateway, n));
    let (came, went) = (client.rx_packets + other.rx_packets + router.rx_packets, client.tx_packets);
    // What goes to the client came from outside, or is an answer to itself, or was said by the other host.
    assert!(went <= came, "frames were cut: {came} came in, {went} went to the client");
    let bytes = (megabytes << 20) as u64;
    assert!(client.tx_bytes > bytes, "all of it went by");
    assert!(router.rx_packets < bytes / 1500, "super-frames came as they are: {router:?}");
    let stats = gateway.lan.datapath.worker_stats();
    let (hits, received) = stats.iter().fold((0, 0), |(h, r), w| (h + w.cache.connection_hits, r + w.received));
    assert!(hits > received / 2, "most are answered in one lookup: {stats:?}");
}

#[test]
fn a_long_download_crosses_nat_in_super_frames() {
    if !skipped("a_long_download_crosses_nat_in_super_frames") {
        a_long_download(Kind::Tap, 0, LONG);
    }
}

#[test]
fn a_long_ipv6_download_crosses_nat_in_super_frames() {
    if !skipped("a_long_ipv6_download_crosses_nat_in_super_frames") {
        a_long_download(Kind::AfPacket, 1, LONG);
    }
}

#[test]
fn streams_of_both_hosts_cross_nat_at_once_over_two_workers() {
    if skipped("streams_of_both_hosts_cross_nat_at_once_over_two_workers") {
        return;
    }
    for kind in Kind::ALL {
        let gateway = Gateway::new(kind, 2, 1500);
        std::thread::scope(|scope| {
            for n in [1, 2] {
                for to in SERVER {
                    let gateway = &gateway;
                    scope.spawn(move || {
                        let (listener, address) = listen(&gateway.server, to);
                        stream_to(gateway.host(n), address, listener, STREAM);
                    });
                }
            }
        });
        // A segment that waits for one worker, while the other takes those behind it, is older than the window in the
        // end. It was sent again by then.
        gateway.lan.check_accounts(&[&CHATTER[..], &[DropReason::CtInvalid]].concat());
    }
}

#[test]
fn the_server_sees_the_shared_address_and_its_datagrams_come_back() {
    if skipped("the_server_sees_the_shared_address_and_its_datagrams_come_back") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    for (to, shared) in SERVER.into_iter().zip(SHARED) {
        let far = udp(&gateway.server, to);
        // Both hosts with the same port: one of them has to give way.
        let near: Vec<_> = [1, 2]
            .into_iter()
            .map(|n| {
                let host = gateway.host(n);
                let socket = host.udp_at((host.address_like(to), 7000).into());
                socket.connect(far.local_addr().unwrap()).unwrap();
                socket
            })
            .collect();
        let mut seen = Vec::new();
        for len in [0, 1, 1400, 1452] {
            for (who, socket) in near.iter().enumerate() {
                let sent = vec![who as u8 + 1; len];
                socket.send(&sent).unwrap();
                let mut buffer = vec![0; 10_000];
                let (got, from) = far.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes of {who}: {e}"));
                assert_eq!(from.ip(), shared);
                assert_eq!(buffer[..got], sent);
                far.send_to(&sent, from).unwrap();
                let got = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes to {who}: {e}"));
                assert_eq!(buffer[..got], sent);
                seen.push((who, from.port()));
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2, "each host keeps the port that it was given: {seen:?}");
        assert_ne!(seen[0].1, seen[1].1);
    }
    gateway.lan.check_accounts(&CHATTER);
}

#[test]
fn a_batch_of_datagrams_is_translated_whole() {
    if skipped("a_batch_of_datagrams_is_translated_whole") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    for to in SERVER {
        let (far, near) = (udp(&gateway.server, to), gateway.host(1).udp(to));
        near.connect(far.local_addr().unwrap()).unwrap();
        near.send(b"hello").unwrap();
        let mut buffer = [0; 2000];
        let (_, from) = far.recv_from(&mut buffer).unwrap();
        far.send_to(b"hello", from).unwrap();
        near.recv(&mut buffer).unwrap();
        setsockopt(&near, UdpGsoSegment, &1000).unwrap();
        let sent: Vec<u8> = (0..9500).map(|i| (i / 1000) as u8).collect();
        near.send(&sent).unwrap();
        for datagram in sent.chunks(1000) {
            let (len, again) = far.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], again), (datagram, from));
        }
    }
    gateway.lan.check_accounts(&CHATTER);
}

#[test]
fn pings_of_both_hosts_come_back_and_the_gateway_answers_too() {
    if skipped("pings_of_both_hosts_come_back_and_the_gateway_answers_too") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    let own: [IpAddr; 2] = ["192.168.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()];
    for n in [1, 2] {
        for to in own.into_iter().chain(ROUTER).chain(SERVER) {
            ping(&gateway.host(n).netns, to, 56);
        }
    }
    gateway.lan.check_accounts(&CHATTER);
}

#[test]
fn traceroutes_see_the_hops_behind_the_gateway() {
    if skipped("traceroutes_see_the_hops_behind_the_gateway") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    for family in [0, 1] {
        let wanted = [ROUTER[family], SERVER[family]].map(|address| address.to_string());
        for way in [&["--udp"][..], &["--icmp"], &["--tcp", "--port=9"]] {
            assert_eq!(traceroute(&gateway.host(1).netns, way, SERVER[family]), wanted, "{way:?}");
        }
    }
}

#[test]
fn nobody_outside_begins_a_connection_or_sees_an_inside_address() {
    if skipped("nobody_outside_begins_a_connection_or_sees_an_inside_address") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    let mut capture = gateway.host(3).capture();
    for shared in SHARED {
        udp(&gateway.server, SERVER[usize::from(shared.is_ipv6())]).send_to(b"anyone?", (shared, 7000)).unwrap();
    }
    let refused = owner(GATEWAY[0], "table=2, priority=0 ");
    wait_until("both are refused", || dropped_by(&gateway.lan, &refused) >= 2);
    // Whose address is not of the network inside is told nothing, and nothing of it comes out.
    let host = gateway.host(1);
    host.netns.add_address("eth0", "10.1.1.1".parse().unwrap(), 32).unwrap();
    let stranger = udp(&host.netns, "10.1.1.1".parse().unwrap());
    stranger.send_to(b"spoofed", (SERVER[0], 7000)).unwrap();
    ping(&host.netns, SERVER[0], 56);
    let inside = |frame: &[u8]| frame.windows(3).any(|part| part == [192, 168, 1] || part == [10, 1, 1]);
    for frame in capture.take() {
        assert!(!inside(frame.bytes()), "an inside address went out: {:x?}", frame.bytes());
    }
}

#[test]
fn sixteen_ports_carry_sixteen_connections_to_one_place() {
    if skipped("sixteen_ports_carry_sixteen_connections_to_one_place") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    gateway.lan.add_files("br0", &[PORT_RANGE]);
    for to in SERVER {
        let (listener, address) = listen(&gateway.server, to);
        let mut ports = Vec::new();
        let mut streams = Vec::new();
        for n in 0..16_u8 {
            let mut near = connect(&gateway.host(1 + n % 2).netns, address);
            let (mut far, from) = listener.accept().unwrap();
            ports.push(from.port());
            near.write_all(&[n]).unwrap();
            let mut got = [0];
            far.set_read_timeout(Some(PATIENCE)).unwrap();
            far.read_exact(&mut got).unwrap();
            assert_eq!(got, [n]);
            streams.push((near, far));
        }
        ports.sort_unstable();
        assert_eq!(ports, (40_000..40_016).collect::<Vec<_>>());
        let before = gateway.lan.dropped(DropReason::CtFull);
        udp_like_a_seventeenth(&gateway, address, before);
    }
}

/// One connection more than there are ports is not made, and is counted.
fn udp_like_a_seventeenth(gateway: &Gateway, address: SocketAddr, before: u64) {
    let host = gateway.host(1);
    let address = address.to_string();
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| {
            let address: SocketAddr = address.parse().unwrap();
            host.netns.run(|| TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)))
        });
        wait_until("the seventeenth is refused", || gateway.lan.dropped(DropReason::CtFull) > before);
        assert!(tried.join().unwrap().is_err());
    });
}

/// The MTU that a host believes in on its way to `to`, as far as it was told.
fn path_mtu(netns: &Netns, to: IpAddr) -> Option<String> {
    let output = run(netns, &["ip", "route", "get", &to.to_string()]);
    let mut words = output.split_whitespace();
    words.find(|word| *word == "mtu")?;
    words.next().map(str::to_owned)
}

#[test]
fn a_sender_behind_nat_learns_of_a_smaller_mtu_on_the_way() {
    if skipped("a_sender_behind_nat_learns_of_a_smaller_mtu_on_the_way") {
        return;
    }
    for kind in [Kind::Tap, Kind::AfPacket] {
        let gateway = Gateway::new(kind, 1, 1300);
        for to in SERVER {
            let host = gateway.host(1);
            assert_eq!(path_mtu(&host.netns, to), None);
            let (listener, address) = listen(&gateway.server, to);
            stream_to(host, address, listener, 3 << 20);
            assert_eq!(path_mtu(&host.netns, to).as_deref(), Some("1300"));
        }
        gateway.lan.check_accounts(&CHATTER);
    }
}
