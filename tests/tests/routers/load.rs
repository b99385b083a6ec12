//! Many routes at once.

use super::*;
use sluice_switch::router::RouteFilter;
use std::time::Instant;

/// How many, in a build for speed; fewer in others, which check the same.
const ROUTES: u32 = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

/// Route number `n` of many: networks of several lengths, by one of two routers or both.
fn nth(n: u32) -> Route {
    let (len, address) = match n % 4 {
        0 => (32, 0x1400_0000 + n),
        1 => (24, 0x3000_0000 + (n << 8)),
        2 => (28, 0x5000_0000 + (n << 4)),
        _ => (20, 0xb000_0000_u32.wrapping_add(n << 12) & 0xbfff_f000),
    };
    let destination = format!("{}/{len}", std::net::Ipv4Addr::from_bits(address));
    let ways: &[(u16, &str)] = &[(2, "10.0.2.2"), (3, "10.0.3.2")];
    let via = match n % 3 {
        0 => &ways[..1],
        1 => &ways[1..],
        _ => ways,
    };
    route(&destination, via)
}

#[test]
fn many_routes_are_loaded_in_one_step_and_go_in_one_step() {
    let mut net = Net::new(3);
    (1..=3).for_each(|port| net.host(port, 2));
    let mut routes: Vec<_> = (0..ROUTES).map(nth).collect();
    routes.sort_unstable_by_key(Route::key);
    routes.dedup_by_key(|route| route.key());
    let count = routes.len();
    let datapath = net.switch.datapath.clone();
    let generation = datapath.model().generation;
    let begin = Instant::now();
    assert_eq!(datapath.add_routes("r1", routes.clone()).unwrap(), count);
    let loaded = begin.elapsed();
    assert!(datapath.model().generation <= generation + 2, "one bundle, beside what the thread may do");
    let out = net.send(1, &udp(1, 2, "20.0.0.0"));
    assert!(matches!(&out[..], [(2, _)]), "{out:?}");
    let begin = Instant::now();
    let change = sluice_switch::PortChange { up: Some(false), ..Default::default() };
    datapath.set_port("br0", "br0-2", &change).unwrap();
    net.pass(0);
    let failed_over = begin.elapsed();
    let active = |net: &Net| {
        let all = net.switch.datapath.routes("r1", &RouteFilter::default(), None, usize::MAX).unwrap();
        all.iter().filter(|route| route.is_active && !route.is_connected).count()
    };
    let dead = routes.iter().filter(|r| r.next_hops.iter().all(|hop| hop.interface == InterfaceId(2))).count();
    assert_eq!(active(&net), count - dead);
    let begin = Instant::now();
    let keys: Vec<_> = routes.iter().map(Route::key).collect();
    datapath.remove_routes("r1", &keys).unwrap();
    let removed = begin.elapsed();
    assert_eq!((active(&net), datapath.bridge("br0").unwrap().groups.len()), (0, 0));
    println!(
        "{count} routes: loaded in {loaded:?}, a next hop of {dead} died in {failed_over:?}, removed in {removed:?}"
    );
}
