//! Real traffic between two hosts, each a network namespace, over a wire made of two ports: every kind of port that a
//! kernel's network stack can be behind, against every other.
//!
//! The wire passes frames and looks at nothing, so what arrives shows what the ports did: super-frames that crossed
//! whole or were cut, checksums that were filled in or left to the far end.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN};
use sluice_switch::port::{Port, PortQueue, TxOutcome};
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{a_batch_of_datagrams, a_closed_port_is_told, datagrams, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of a stream, each way.
const STREAM: usize = 2 << 20;

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
            TxOutcome::Sent | TxOutcome::Held => {}
            TxOutcome::Dropped(DropReason::PortDown) => crossed.port_down += 1,
            TxOutcome::Dropped(_) => crossed.lost += 1,
        }
    }
    count
}

/// Up to the MTU in one packet, then in fragments.
fn datagrams_of_every_size_cross(a: &Host, b: &Host, mtu: usize) {
    datagrams(a, b, b.v4, [0, 1, mtu - 28, mtu - 27, 20_000, 60_000]);
}

fn traffic(test: &str, kinds: [Kind; 2]) {
    if skipped(test) {
        return;
    }
    let [(a, near), (b, far)] = [Host::new(1, kinds[0], 1500), Host::new(2, kinds[1], 1500)];
    let wire = Wire::new(&*near, &*far);
    a_closed_port_is_told(&a, b.v4);
    a_closed_port_is_told(&b, a.v4);
    datagrams_of_every_size_cross(&a, &b, 1500);
    stream(&a, &b, b.v4, STREAM);
    stream(&a, &b, b.v6, STREAM);
    a_batch_of_datagrams(&a, &b);
    let crossed = wire.cut();
    assert_eq!((crossed.lost, crossed.port_down), (0, 0), "{crossed:?}");
    // The batch comes from the first host: it is the first port that shows it whole.
    assert_eq!(crossed.udp_super_frames > 0, kinds[0].offloads() && near.caps().uso, "{crossed:?}");
    let some = kinds.into_iter().any(Kind::offloads);
    assert_eq!(crossed.tcp_super_frames > 0, some, "{crossed:?}");
    let partial = kinds.into_iter().any(Kind::partial_checksums);
    assert_eq!(crossed.partial_checksums > 0, partial, "{crossed:?}");
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
fn two_af_xdp_sockets_carry_traffic() {
    traffic("two_af_xdp_sockets_carry_traffic", [Kind::AfXdp; 2]);
}

#[test]
fn a_tap_s_super_frames_are_cut_for_an_af_xdp_socket() {
    traffic("a_tap_s_super_frames_are_cut_for_an_af_xdp_socket", [Kind::Tap, Kind::AfXdp]);
}

#[test]
fn an_af_xdp_socket_s_partial_checksums_are_filled_in_for_a_plain_tap() {
    traffic("an_af_xdp_socket_s_partial_checksums_are_filled_in_for_a_plain_tap", [Kind::AfXdp, Kind::TapPlain]);
}

#[test]
fn an_af_xdp_socket_and_a_packet_socket_carry_traffic() {
    traffic("an_af_xdp_socket_and_a_packet_socket_carry_traffic", [Kind::AfXdp, Kind::AfPacket]);
}

#[test]
fn jumbo_frames_cross_every_kind() {
    if skipped("jumbo_frames_cross_every_kind") {
        return;
    }
    for kind in Kind::ALL {
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
    for kind in Kind::ALL {
        let [(a, near), (b, far)] = [Host::new(1, kind, 9000), Host::new(2, kind, 1500)];
        let wire = Wire::new(&*near, &*far);
        let (sender, receiver) = (a.udp(a.v4), b.udp(b.v4));
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
    for kind in Kind::ALL {
        let [(a, near), (b, far)] = [Host::new(1, kind, 1500), Host::new(2, kind, 1500)];
        let wire = Wire::new(&*near, &*far);
        let receiver = b.udp(b.v4);
        let sender = a.udp(a.v4);
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
