//! Ports removed and added again while there is traffic.

use sluice_flows::DropReason;
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::{ping_until_answered, stream};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Times that the port goes and comes.
const ROUNDS: u64 = 3;

/// Sends datagrams until told to stop, whatever becomes of them.
fn pour(from: &Host, to: &Host, stop: &AtomicBool) {
    // What nobody takes is dropped there without an ICMP error.
    let sender = from.udp_at((Ipv4Addr::UNSPECIFIED, 7000).into());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..16 {
            // Refused while the interface is gone, as it should be.
            _ = sender.send_to(&[1; 100], (to.v4, 7000));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn a_port_goes_and_comes(kind: Kind) {
    let lan = Lan::learning(&[kind; 3], 1500);
    let [a, b, c] = [1, 2, 3].map(|n| lan.host(n));
    ping_until_answered(a, c.v4);
    let (stop, streams) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // Ends the others when this thread panics, so that the test ends too.
        let _end = Ends(&stop);
        scope.spawn(|| pour(a, c, &stop));
        scope.spawn(|| pour(c, a, &stop));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                stream(a, b, b.v4, 64 << 10);
                streams.fetch_add(1, Ordering::Relaxed);
            }
        });
        let others_go_on = || {
            // One that began before may have ended since.
            let before = streams.load(Ordering::Relaxed);
            wait_until("the others' streams go on", || streams.load(Ordering::Relaxed) > before + 1);
        };
        for _ in 0..ROUNDS {
            others_go_on();
            lan.unplug(3);
            others_go_on();
            lan.plug(3);
            ping_until_answered(c, a.v4);
        }
        c.netns.remove_link(LINK).unwrap();
        let gone = || lan.datapath.ports(None).unwrap().iter().any(|port| port.gone);
        wait_until("the switch knows that the device is gone", gone);
        others_go_on();
        lan.unplug(3);
        lan.plug(3);
        ping_until_answered(c, a.v4);
        ping_until_answered(b, c.v6);
    });
    lan.check_accounts(&[DropReason::PortDown]);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_tap_removed_under_traffic_and_added_again_disturbs_no_other() {
    if !skipped("a_tap_removed_under_traffic_and_added_again_disturbs_no_other") {
        a_port_goes_and_comes(Kind::Tap);
    }
}

#[test]
fn a_plain_tap_removed_under_traffic_and_added_again_disturbs_no_other() {
    if !skipped("a_plain_tap_removed_under_traffic_and_added_again_disturbs_no_other") {
        a_port_goes_and_comes(Kind::TapPlain);
    }
}

#[test]
fn a_packet_socket_removed_under_traffic_and_added_again_disturbs_no_other() {
    if !skipped("a_packet_socket_removed_under_traffic_and_added_again_disturbs_no_other") {
        a_port_goes_and_comes(Kind::AfPacket);
    }
}
