//! Pools as Docker's daemon asks for them.

use super::*;
use ipnet::IpNet;

fn pools() -> (TempDir, Pools) {
    let dir = tempfile::tempdir().expect("a folder");
    let pools = Pools::new(dir.path());
    (dir, pools)
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn asked(subnet: &str) -> PoolRequest<'static> {
    PoolRequest { space: "local", subnet: Some(net(subnet)), ..PoolRequest::default() }
}

#[test]
fn a_pool_gives_its_gateway_and_then_addresses_in_turn() {
    let (_dir, pools) = pools();
    let pool = pools.request_pool(&asked("10.9.0.0/29")).expect("a pool");
    let next = || pools.request_address(&pool.id, None, AddressUse::Endpoint, "").map(|n| n.to_string());
    let gateway = pools.request_address(&pool.id, None, AddressUse::Gateway, "").expect("a gateway");
    assert_eq!(gateway, net("10.9.0.1/29"));
    let given: Vec<String> = (0..5).map(|_| next().expect("an address")).collect();
    assert_eq!(given, ["10.9.0.2/29", "10.9.0.3/29", "10.9.0.4/29", "10.9.0.5/29", "10.9.0.6/29"]);
    assert!(next().is_err());
    assert!(pools.release_address(&pool.id, ip("10.9.0.4")).expect("released"));
    assert!(!pools.release_address(&pool.id, ip("10.9.0.4")).expect("it is free already"));
    assert_eq!(next().expect("an address"), "10.9.0.4/29");
}

#[test]
fn an_address_that_is_asked_for_is_given_once_and_only_if_a_host_may_have_it() {
    let (_dir, pools) = pools();
    let pool = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
    let want = |text: &str| pools.request_address(&pool.id, Some(ip(text)), AddressUse::Endpoint, "web");
    assert_eq!(want("10.9.0.77").expect("an address"), net("10.9.0.77/24"));
    assert!(want("10.9.0.77").expect_err("taken").to_string().contains("web"));
    for bad in ["10.9.0.0", "10.9.0.255", "10.9.1.1", "fd00::1"] {
        assert!(want(bad).is_err(), "{bad}");
    }
    assert!(pools.request_address("local/10.1.0.0/24", None, AddressUse::Endpoint, "").is_err());
}

#[test]
fn the_same_pool_is_counted_and_its_last_release_frees_its_addresses() {
    let (_dir, pools) = pools();
    let first = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
    let again = pools.request_pool(&asked("10.9.0.0/24")).expect("the same");
    assert_eq!((again.id.as_str(), again.references), (first.id.as_str(), 2));
    pools.request_address(&first.id, Some(ip("10.9.0.5")), AddressUse::Endpoint, "").expect("an address");
    assert!(pools.release_pool(&first.id).expect("released"));
    assert_eq!(pools.list().expect("a list")[0].1.len(), 1);
    assert!(pools.release_pool(&first.id).expect("released"));
    assert_eq!(pools.list().expect("a list"), []);
    assert!(!pools.release_pool(&first.id).expect("it is gone already"));
    pools.request_pool(&asked("10.9.0.0/24")).expect("a new pool");
    assert!(pools.request_address(&first.id, Some(ip("10.9.0.5")), AddressUse::Endpoint, "").is_ok());
}

#[test]
fn overlapping_subnets_are_refused_in_a_space_and_taken_in_another() {
    let (_dir, pools) = pools();
    pools.request_pool(&asked("10.9.0.0/16")).expect("a pool");
    assert!(pools.request_pool(&asked("10.9.3.0/24")).expect_err("it overlaps").to_string().contains("10.9.0.0/16"));
    assert!(pools.request_pool(&PoolRequest { space: "global", ..asked("10.9.3.0/24") }).is_ok());
}

#[test]
fn a_range_gives_from_its_part_and_shares_the_subnet() {
    let (_dir, pools) = pools();
    let all = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
    let part = PoolRequest { range: Some(net("10.9.0.128/30")), ..asked("10.9.0.0/24") };
    let part = pools.request_pool(&part).expect("a part");
    let gateway = pools.request_address(&part.id, None, AddressUse::Gateway, "").expect("a gateway");
    assert_eq!(gateway, net("10.9.0.1/24"), "the subnet's first");
    let first = pools.request_address(&part.id, None, AddressUse::Endpoint, "").expect("an address");
    assert_eq!(first, net("10.9.0.128/24"));
    assert!(pools.request_address(&all.id, Some(ip("10.9.0.128")), AddressUse::Endpoint, "").is_err());
    pools.release_pool(&part.id).expect("released");
    assert!(pools.request_address(&all.id, Some(ip("10.9.0.128")), AddressUse::Endpoint, "").is_ok());
    for bad in ["10.10.0.0/30", "10.9.0.0/16"] {
        assert!(pools.request_pool(&PoolRequest { range: Some(net(bad)), ..asked("10.9.0.0/24") }).is_err(), "{bad}");
    }
    assert!(
        pools
            .request_pool(&PoolRequest {
                subnet: None,
                ..PoolRequest { range: Some(net("10.9.0.0/24")), ..asked("10.9.0.0/24") }
            })
            .is_err()
    );
}

#[test]
fn a_default_subnet_overlaps_neither_pools_nor_routes_of_the_host() {
    let (_dir, pools) = pools();
    let routes = [net("0.0.0.0/0"), net("10.208.0.0/22"), net("10.208.5.77/32"), net("192.168.0.0/16")];
    let any = PoolRequest { space: "local", in_use: &routes, ..PoolRequest::default() };
    let next = || pools.request_pool(&any).map(|p| p.subnet.to_string());
    assert_eq!(next().expect("a subnet"), "10.208.4.0/24");
    assert_eq!(next().expect("another"), "10.208.6.0/24");
    let v6 = pools.request_pool(&PoolRequest { v6: true, ..any.clone() }).expect("IPv6");
    assert_eq!(v6.subnet.to_string(), "fd73:6c75:6964::/64");
    let gateway = pools.request_address(&v6.id, None, AddressUse::Gateway, "").expect("a gateway");
    assert_eq!(gateway, net("fd73:6c75:6964::1/64"));
    let two = [DefaultPool { base: net("10.50.0.0/23"), prefix_len: 24 }];
    let few = PoolRequest { defaults: &two, ..any.clone() };
    assert!(pools.request_pool(&few).is_ok() && pools.request_pool(&few).is_ok());
    assert!(pools.request_pool(&few).expect_err("all are in use").to_string().contains("in use"));
}

#[test]
fn a_daemon_that_starts_again_gets_what_it_had_and_nobody_gets_it_twice() {
    let (_dir, pools) = pools();
    let take = |pools: &Pools| {
        let pool = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
        let want = |text: &str| pools.request_address(&pool.id, Some(ip(text)), AddressUse::Endpoint, "");
        (pool.references, want("10.9.0.1").is_ok(), want("10.9.0.5").is_ok())
    };
    assert_eq!(take(&pools), (1, true, true));
    assert_eq!(take(&pools), (2, false, false), "without a new run these are other askers");
    pools.begin_run().expect("a run");
    assert_eq!(take(&pools), (1, true, true));
    assert_eq!(take(&pools), (2, false, false));
    pools.begin_run().expect("a run");
    let pool = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
    let other = pools.request_address(&pool.id, None, AddressUse::Endpoint, "").expect("an address");
    assert_eq!(other, net("10.9.0.2/24"), "what was taken in an earlier run is not given to others");
}

#[test]
fn subnets_that_make_no_sense_are_refused() {
    let (_dir, pools) = pools();
    assert!(pools.request_pool(&asked("10.9.0.1/24")).expect_err("host bits").to_string().contains("10.9.0.0/24"));
    assert!(pools.request_pool(&PoolRequest { v6: true, ..asked("10.9.0.0/24") }).is_err());
}

#[test]
fn a_pool_and_a_network_of_cni_with_the_same_subnet_are_apart() {
    let cni = Net::subnet("10.9.0.0/24");
    let pools = Pools::new(&cni.dir.path().join("store"));
    let pool = pools.request_pool(&asked("10.9.0.0/24")).expect("a pool");
    pools.request_address(&pool.id, Some(ip("10.9.0.2")), AddressUse::Endpoint, "").expect("an address");
    assert_eq!(cni.one("a"), "10.9.0.2");
}
