//! Ten thousand Services of ten endpoints, with times: `cargo test --release -p sluice-controller scale -- --ignored --nocapture`.

use super::*;
use std::time::Instant;

const SERVICES: u32 = 10_000;
const CHANGES: u32 = 300;

/// Memory of this process, in MiB: the switch is in it too.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn set_all(node: &Node) {
    let all = (0..SERVICES).map(|n| (service(&format!("shop/s{n}")), Some(service_part(n, 10))));
    node.program.change(all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn ten_thousand_services() {
    let node = Node::new();
    let daemon = Daemon::start(node.path());
    println!("empty: {} MiB", resident());
    set_all(&node);
    println!("parts made: {} MiB", resident());
    let begin = Instant::now();
    node.program.ready();
    node.settled().await.unwrap();
    println!("everything into an empty switch: {:?}, {} MiB", begin.elapsed(), resident());
    let status = node.program.status();
    assert_eq!((status.flows, status.groups), (SERVICES as usize, SERVICES as usize));

    let mut times = Vec::new();
    for n in 0..CHANGES {
        let begin = Instant::now();
        let number = n * 31 % SERVICES;
        node.program.set(service(&format!("shop/s{number}")), service_part(number, 9 - n % 2));
        node.settled().await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("one change: p50 {:?}, p99 {:?}", at(50), at(99));

    set_all(&node);
    node.settled().await.unwrap();
    let before = node.program.status().mended;
    let begin = Instant::now();
    node.operator(&["delete table=18,tcp,nw_dst=10.96.0.7"]).await;
    node.until("mended", |s| s.mended > before).await;
    println!("a deleted flow is back after {:?}, of which 1 s is waiting", begin.elapsed());

    let node = node.again();
    let begin = Instant::now();
    set_all(&node);
    node.program.ready();
    node.settled().await.unwrap();
    println!("start of the controller: {:?}, changes {}", begin.elapsed(), node.program.status().changes);

    drop(daemon);
    node.until("lost", |s| !s.connected).await;
    let begin = Instant::now();
    let _daemon = Daemon::start(node.path());
    node.settled().await.unwrap();
    println!("start of the switch: {:?}, {} MiB", begin.elapsed(), resident());
}
