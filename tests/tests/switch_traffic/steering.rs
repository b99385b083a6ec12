//! Two workers on ports with one queue, which the first receives: flows go to the second and come back while they run.

use crate::STREAM;
use sluice_flows::bridge::VlanMode;
use sluice_switch::{Config, FailMode, Steering};
use sluice_tests::host::{Host, Kind};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{datagrams, ping, ping_until_answered, stream};
use std::thread;
use std::time::{Duration, Instant};

/// Datagrams with numbers, of several flows, for a while: those that come are in order.
fn numbered(a: &Host, b: &Host) {
    let pairs: Vec<_> = (0..12).map(|_| (a.udp(b.v4), b.udp(b.v4))).collect();
    for (near, far) in &pairs {
        near.connect(far.local_addr().unwrap()).unwrap();
        far.set_nonblocking(true).unwrap();
    }
    let mut next = vec![0_u32; pairs.len()];
    let (began, mut number, mut came) = (Instant::now(), 0_u32, 0);
    while began.elapsed() < Duration::from_millis(500) {
        for (near, _) in &pairs {
            near.send(&number.to_be_bytes()).unwrap();
        }
        number += 1;
        for ((_, far), next) in pairs.iter().zip(&mut next) {
            let mut bytes = [0; 4];
            while far.recv(&mut bytes).is_ok() {
                let got = u32::from_be_bytes(bytes);
                assert!(got >= *next, "{got} came behind {next}");
                *next = got + 1;
                came += 1;
            }
        }
    }
    assert!(came > 500, "{came} of {number} of each flow came");
}

#[test]
fn two_workers_share_ports_with_one_queue() {
    if skipped("two_workers_share_ports_with_one_queue") {
        return;
    }
    for kind in Kind::ALL {
        let config = Config { workers: 2, steering: Steering::Restless, ..Config::default() };
        let mut lan = Lan::with_config(&["br0"], FailMode::Standalone, config);
        for n in 1..=2 {
            let (host, port) = Host::with_queues(n, kind, 1500, 1);
            lan.join("br0", n, host, port, VlanMode::default());
        }
        let (a, b) = (lan.host(1), lan.host(2));
        ping_until_answered(a, b.v4);
        ping_until_answered(b, a.v6);
        ping(a, b.v4, 4000);
        datagrams(a, b, b.v4, [0, 1, 1000, 1472, 1473, 20_000]);
        numbered(a, b);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| stream(a, b, b.v4, STREAM / 2));
                scope.spawn(|| stream(b, a, a.v6, STREAM / 2));
            }
        });
        lan.check_accounts(&[]);
        let stats = lan.datapath.worker_stats();
        assert!(stats.iter().all(|of| of.received > 0) && stats[1].taken_over > 0, "{kind:?}: {stats:?}");
    }
}
