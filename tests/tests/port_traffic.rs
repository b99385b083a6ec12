//! Real traffic between two hosts, each a network namespace, over a wire made of two ports: every kind of port that a
//! kernel's network stack can be behind, against every other.
//!
//! The wire passes frames and looks at nothing, so what arrives shows what the ports did: super-frames that crossed
//! whole or were cut, checksums that were filled in or left to the far end.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN};
use sluice_switch::port::{AfPacket, AfPacketOptions, Port, PortQueue, Tap, TapOptions, TapPlain, TxOutcome};
use sluice_tests::netns::{Netns, skipped};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What is behind an address.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tap,
    TapPlain,
    /// A packet socket on one end of a veth pair; the host has the other.
    AfPacket,
}

/// How long a socket waits before a test gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const LINK: &str = "eth0";

struct Host {
    netns: Netns,
    v4: IpAddr,
    v6: IpAddr,
    /// Where the packet socket is, to keep it.
    _switch: Netns,
}

impl Host {
    /// Host number `n`, 1 or 2, and the port that leads to it.
    fn new(n: u8, kind: Kind, mtu: u32) -> (Self, Box<dyn Port>) {
        let (netns, switch) = (Netns::new().unwrap(), Netns::without_ipv6().unwrap());
        // Addresses are there at once, without looking for duplicates first.
        netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).unwrap();
        let tap = TapOptions { mtu: Some(mtu), up: false, ..TapOptions::default() };
        let port: Box<dyn Port> = match kind {
            Kind::Tap => Box::new(netns.run(|| Tap::create(LINK, &tap)).unwrap()),
            Kind::TapPlain => Box::new(netns.run(|| TapPlain::create(LINK, &tap)).unwrap()),
            Kind::AfPacket => {
                netns.add_veth(LINK, &switch, "port").unwrap();
                netns.set_mtu(LINK, mtu).unwrap();
                let options = AfPacketOptions { mtu: Some(mtu), ..AfPacketOptions::default() };
                Box::new(switch.run(|| AfPacket::open("port", &options)).unwrap())
            }
        };
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 99, 0, n));
        let v6 = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, n.into()));
        netns.add_address(LINK, v4, 24).unwrap();
        netns.set_up(LINK, true).unwrap();
        netns.add_address(LINK, v6, 64).unwrap();
        (Self { netns, v4, v6, _switch: switch }, port)
    }

    fn udp(&self) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind((self.v4, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// What crossed a wire.
#[derive(Debug, Default)]
struct Crossed {
    tcp_super_frames: u64,
    udp_super_frames: u64,
    partial_checksums: u64,
    longest: usize,
    port_down: u64,
    /// Frames not sent for another reason than a port that is down.
    lost: u64,
}

/// Two ports, and a thread that passes frames from each to the other.
struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Crossed>>,
}

impl Wire {
    fn new(a: &dyn Port, b: &dyn Port) -> Self {
        let mut ends = [a, b].map(|port| port.queues(1).unwrap().remove(0));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut frames: Vec<_> = (0..64).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
            let mut crossed = Crossed::default();
            while !stopped.load(Ordering::Relaxed) {
                let [a, b] = &mut ends;
                if pass(&mut **a, &mut **b, &mut frames, &mut crossed)
                    + pass(&mut **b, &mut **a, &mut frames, &mut crossed)
                    == 0
                {
                    thread::sleep(Duration::from_micros(50));
                }
            }
            crossed
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends the wire and says what crossed it.
    fn cut(mut self) -> Crossed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pass(from: &mut dyn PortQueue, to: &mut dyn PortQueue, frames: &mut [Frame], crossed: &mut Crossed) -> usize {
    // A port that is gone gives nothing more.
    let count = from.rx_burst(frames).unwrap_or(0);
    let borrowed: Vec<&Frame> = frames[..count].iter().collect();
    let mut outcomes = vec![TxOutcome::Dropped(DropReason::Overload); count];
    to.tx_burst(&borrowed, &mut outcomes);
    for (frame, outcome) in borrowed.iter().zip(outcomes) {
        match frame.offload.gso {
            GsoKind::None => {}
            GsoKind::Tcp4 | GsoKind::Tcp6 => crossed.tcp_super_frames += 1,
            GsoKind::Udp => crossed.udp_super_frames += 1,
        }
        crossed.partial_checksums += u64::from(frame.offload.csum_partial);
        crossed.longest = crossed.longest.max(frame.len());
        match outcome {
            TxOutcome::Sent => {}
            TxOutcome::Dropped(DropReason::PortDown) => crossed.port_down += 1,
            TxOutcome::Dropped(_) => crossed.lost += 1,
        }
    }
    count
}

fn arp_and_icmp_cross(a: &Host, b: &Host) {
    let socket = a.udp();
    // Nobody listens: the answer is an ICMP message, which the kernel gives as an error.
    socket.connect((b.v4, 9)).unwrap();
    socket.send(b"anyone?").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn datagrams_of_every_size_cross(a: &Host, b: &Host, mtu: usize) {
    let (near, far) = (a.udp(), b.udp());
    near.connect(far.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 65_535];
    // Up to the MTU in one packet, then in fragments.
    for len in [0, 1, mtu - 28, mtu - 27, 20_000, 60_000] {
        let sent: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        assert_eq!(near.send(&sent).unwrap(), len);
        let (got, from) = far.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        assert_eq!(&buffer[..got], sent);
        far.send_to(&sent, from).unwrap();
        assert_eq!(near.recv(&mut buffer).unwrap(), len);
    }
}

fn a_stream_crosses_both_ways(a: &Host, b: &Host, to: IpAddr) {
    const LEN: usize = 2 << 20;
    let pattern = |from: u8| (0..LEN).map(move |i| (i % 241) as u8 ^ from).collect::<Vec<u8>>();
    let listener = b.netns.run(|| TcpListener::bind((to, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let exchange = move |stream: TcpStream, ours: u8, theirs: u8| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || writer.write_all(&pattern(ours)).unwrap());
        let mut got = vec![0; LEN];
        (&stream).read_exact(&mut got).unwrap();
        assert!(got == pattern(theirs), "the stream's bytes changed on their way");
        sender.join().unwrap();
    };
    let far = thread::spawn(move || exchange(listener.accept().unwrap().0, 1, 2));
    let near = a.netns.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    exchange(near, 2, 1);
    far.join().unwrap();
}

fn a_batch_of_datagrams_crosses(a: &Host, b: &Host) {
    let (near, far) = (a.udp(), b.udp());
    near.connect(far.local_addr().unwrap()).unwrap();
    // The first one finds the neighbour, so that the batch is not held back.
    near.send(b"hello").unwrap();
    far.recv(&mut [0; 8]).unwrap();
    setsockopt(&near, UdpGsoSegment, &1000).unwrap();
    let sent: Vec<u8> = (0..9500).map(|i| (i / 1000) as u8).collect();
    near.send(&sent).unwrap();
    let mut buffer = [0; 2000];
    for datagram in sent.chunks(1000) {
        let len = far.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], datagram);
    }
}

fn traffic(test: &str, kinds: [Kind; 2]) {
    if skipped(test) {
        return;
    }
    let [(a, near), (b, far)] = [Host::new(1, kinds[0], 1500), Host::new(2, kinds[1], 1500)];
    let wire = Wire::new(&*near, &*far);
    arp_and_icmp_cross(&a, &b);
    arp_and_icmp_cross(&b, &a);
    datagrams_of_every_size_cross(&a, &b, 1500);
    a_stream_crosses_both_ways(&a, &b, b.v4);
    a_stream_crosses_both_ways(&a, &b, b.v6);
    a_batch_of_datagrams_crosses(&a, &b);
    let crossed = wire.cut();
    assert_eq!((crossed.lost, crossed.port_down), (0, 0), "{crossed:?}");
    // The batch comes from the first host: it is the first port that shows it whole.
    let whole = |kind| kind != Kind::TapPlain;
    assert_eq!(crossed.udp_super_frames > 0, whole(kinds[0]) && near.caps().uso, "{crossed:?}");
    let some = kinds.into_iter().any(whole);
    assert_eq!(crossed.tcp_super_frames > 0, some, "{crossed:?}");
    assert_eq!(crossed.partial_checksums > 0, some, "{crossed:?}");
    assert_eq!(crossed.longest > 1514, some, "{crossed:?}");
}

#[test]
fn two_taps_carry_traffic() {
    traffic("two_taps_carry_traffic", [Kind::Tap; 2]);
}

#[test]
fn two_packet_sockets_carry_traffic() {
    traffic("two_packet_sockets_carry_traffic", [Kind::AfPacket; 2]);
}

#[test]
fn two_plain_taps_carry_traffic() {
    traffic("two_plain_taps_carry_traffic", [Kind::TapPlain; 2]);
}

#[test]
fn a_tap_and_a_packet_socket_carry_traffic() {
    traffic("a_tap_and_a_packet_socket_carry_traffic", [Kind::Tap, Kind::AfPacket]);
}

#[test]
fn a_tap_s_super_frames_are_cut_for_a_plain_tap() {
    traffic("a_tap_s_super_frames_are_cut_for_a_plain_tap", [Kind::Tap, Kind::TapPlain]);
}

#[test]
fn a_packet_socket_s_super_frames_are_cut_for_a_plain_tap() {
    traffic("a_packet_socket_s_super_frames_are_cut_for_a_plain_tap", [Kind::AfPacket, Kind::TapPlain]);
}

#[test]
fn jumbo_frames_cross_every_kind() {
    if skipped("jumbo_frames_cross_every_kind") {
        return;
    }
    for kind in [Kind::Tap, Kind::TapPlain, Kind::AfPacket] {
        let [(a, near), (b, far)] = [Host::new(1, kind, 9000), Host::new(2, kind, 9000)];
        let wire = Wire::new(&*near, &*far);
        datagrams_of_every_size_cross(&a, &b, 9000);
        assert_eq!(wire.cut().lost, 0);
    }
}

#[test]
fn a_smaller_mtu_at_the_far_port_drops_what_does_not_fit() {
    if skipped("a_smaller_mtu_at_the_far_port_drops_what_does_not_fit") {
        return;
    }
    for kind in [Kind::Tap, Kind::TapPlain, Kind::AfPacket] {
        let [(a, near), (b, far)] = [Host::new(1, kind, 9000), Host::new(2, kind, 1500)];
        let wire = Wire::new(&*near, &*far);
        let (sender, receiver) = (a.udp(), b.udp());
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        sender.send(&[1; 1473]).unwrap();
        sender.send(&[2; 1472]).unwrap();
        let mut buffer = [0; 2000];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1472, "the longer one came first and was dropped");
        assert_eq!(wire.cut().lost, 1);
    }
}

#[test]
fn a_port_removed_under_traffic_ends_only_its_own_traffic() {
    if skipped("a_port_removed_under_traffic_ends_only_its_own_traffic") {
        return;
    }
    for kind in [Kind::Tap, Kind::TapPlain, Kind::AfPacket] {
        let [(a, near), (b, far)] = [Host::new(1, kind, 1500), Host::new(2, kind, 1500)];
        let wire = Wire::new(&*near, &*far);
        let receiver = b.udp();
        let sender = a.udp();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        sender.send(&[1; 100]).unwrap();
        receiver.recv(&mut [0; 100]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let traffic = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Refused once the interface is gone, as it should be.
                _ = sender.send(&[1; 100]);
            }
        });
        thread::sleep(Duration::from_millis(20));
        b.netns.remove_link(LINK).unwrap();
        thread::sleep(Duration::from_millis(20));
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        assert!(near.link_up());
        assert!(!far.link_up());
        let crossed = wire.cut();
        assert!(crossed.port_down > 0, "{crossed:?}");
    }
}
