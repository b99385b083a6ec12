//! What an address costs: ADD and DEL with the lock, the opening of the store, and its commit on the disk, with none, 1,000
//! and 60,000 addresses taken, in a /16 and in IPv6's /64. The store is in `TMPDIR`, so that the disk can be chosen.

#![expect(clippy::expect_used, reason = "a bench that cannot go on stops")]

use criterion::{Criterion, criterion_group, criterion_main};
use sluice_cni::ipam::Ipam;
use sluice_cni::spec::{CniArgs, Command, Environment};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

fn environment(container_id: &str) -> Environment {
    Environment {
        command: Command::Add,
        container_id: container_id.to_owned(),
        netns: Some("/run/netns/bench".into()),
        ifname: "eth0".to_owned(),
        args: CniArgs::default(),
        path: Vec::new(),
        netns_override: false,
    }
}

fn configuration(dir: &Path, subnet: &str) -> Vec<u8> {
    let (store, networks) = (dir.join("store"), dir.join("networks"));
    format!(
        r#"{{"cniVersion":"1.1.0","name":"bench","dataDir":{store:?},
            "ipam":{{"ranges":[[{{"subnet":"{subnet}"}}]],"cooldown":0,"dataDir":{networks:?}}}}}"#
    )
    .into_bytes()
}

/// Takes this many addresses, by a migration from files, which is one commit.
fn fill(dir: &Path, configuration: &[u8], first: IpAddr, taken: u32) {
    let folder = dir.join("networks/bench");
    std::fs::create_dir_all(&folder).expect("a folder");
    for n in 0..taken {
        let ip = match first {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() + n)),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() + u128::from(n))),
        };
        std::fs::write(folder.join(ip.to_string()), format!("filler{n}\r\neth0")).expect("a file");
    }
    let ipam = Ipam::of_network(configuration, &[]).expect("a configuration");
    let report = ipam.migrate(false).expect("a migration").expect("our own");
    assert_eq!(report.moved.len(), taken as usize);
}

fn costs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ipam");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    let networks: [(&str, &str, IpAddr); 2] = [
        ("v4/16", "10.77.0.0/16", Ipv4Addr::new(10, 77, 0, 2).into()),
        ("v6/64", "fd00:77::/64", Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2).into()),
    ];
    for (name, subnet, first) in networks {
        for taken in [0, 1_000, 60_000] {
            let dir = tempfile::tempdir().expect("a folder");
            let configuration = configuration(dir.path(), subnet);
            fill(dir.path(), &configuration, first, taken);
            let one = Ipam::open(&configuration, &environment("one")).expect("a configuration");
            for what in ["add", "del"] {
                group.bench_function(format!("{name}/{taken} taken/{what}"), |bencher| {
                    bencher.iter_custom(|times| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..times {
                            let start = Instant::now();
                            black_box(one.add().expect("ADD"));
                            let added = Instant::now();
                            one.del().expect("DEL");
                            spent += if what == "add" { added - start } else { added.elapsed() };
                        }
                        spent
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
