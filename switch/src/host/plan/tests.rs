use super::*;
use crate::host::desired::NeighbourSpec;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn link(index: u32, name: &str) -> LinkState {
    LinkState { index, name: name.to_owned(), mtu: 1500, up: true, ..LinkState::default() }
}

/// A host with an uplink (interface 2) and the gateway's interface (interface 3), which have nothing.
fn host() -> Actual {
    Actual { links: vec![link(2, "eth0"), link(3, "gw0")], ..Actual::default() }
}

fn desired() -> HostSide {
    HostSide {
        link: "gw0".to_owned(),
        up: true,
        addresses: vec![net("10.77.0.1/24")],
        routes: vec![RouteSpec { via: Some([10, 77, 0, 9].into()), ..RouteSpec::on_link(net("10.78.0.0/16")) }],
        rules: vec![RuleSpec { priority: 1000, v6: false, from: None, to: None, table: 100 }],
        neighbours: vec![NeighbourSpec { address: [10, 77, 0, 9].into(), mac: [2, 0, 0, 0, 0, 9] }],
        masquerade: vec![[169, 254, 77, 2].into()],
        ..HostSide::default()
    }
}

fn said(steps: &[Step]) -> Vec<String> {
    steps.iter().map(Step::to_string).collect()
}

/// A host that has all that is desired, marked as ours.
fn done() -> Actual {
    let wanted = desired();
    Actual {
        addresses: vec![HostAddress { link: 3, address: wanted.addresses[0], protocol: PROTOCOL }],
        routes: vec![route(&wanted.routes[0], 3)],
        rules: vec![rule(&wanted.rules[0], "gw0")],
        neighbours: vec![HostNeighbour { link: 3, address: [10, 77, 0, 9].into(), mac: [2, 0, 0, 0, 0, 9] }],
        table: nft::Found::Good,
        ..host()
    }
}

#[test]
fn an_empty_host_gets_everything_addresses_before_what_needs_them() {
    let steps = plan(&desired(), &host()).unwrap();
    let wanted = [
        "add address 10.77.0.1/24 dev gw0",
        "set neighbour 10.77.0.9 dev gw0",
        "add route 10.78.0.0/16 via 10.77.0.9 dev gw0",
        "add rule 1000: from all iif gw0 lookup 100",
        "write nftables table inet sluice-gw0",
    ];
    assert_eq!(said(&steps), wanted);
}

#[test]
fn a_host_that_has_everything_needs_nothing() {
    assert_eq!(plan(&desired(), &done()).unwrap(), []);
}

#[test]
fn what_is_ours_and_not_wanted_goes_and_what_is_not_ours_stays() {
    let mut actual = done();
    actual.addresses.push(HostAddress { link: 3, address: net("10.79.0.1/24"), protocol: PROTOCOL });
    actual.addresses.push(HostAddress { link: 3, address: net("10.80.0.1/24"), protocol: 0 });
    let stray = HostRoute { to: net("10.81.0.0/16"), ..actual.routes[0].clone() };
    actual.routes.push(HostRoute { protocol: 4, to: net("10.82.0.0/16"), ..stray.clone() });
    // Another switch's, on its own interface.
    actual.routes.push(HostRoute { link: 2, to: net("10.83.0.0/16"), ..stray.clone() });
    actual.routes.push(stray);
    let rule = HostRule { priority: 1001, ..actual.rules[0].clone() };
    actual.rules.push(HostRule { iif: Some("gw1".to_owned()), ..rule.clone() });
    actual.rules.push(HostRule { protocol: 4, ..rule.clone() });
    actual.rules.push(rule);
    let wanted = [
        "delete address 10.79.0.1/24 dev gw0",
        "delete route 10.81.0.0/16 via 10.77.0.9 dev gw0",
        "delete rule 1001: from all iif gw0 lookup 100",
    ];
    assert_eq!(said(&plan(&desired(), &actual).unwrap()), wanted);
}

#[test]
fn nothing_desired_takes_away_all_that_is_ours() {
    let nothing = HostSide { link: "gw0".to_owned(), ..HostSide::default() };
    let actual = Actual { table: nft::Found::Differs, ..done() };
    let wanted = [
        "delete address 10.77.0.1/24 dev gw0",
        "delete route 10.78.0.0/16 via 10.77.0.9 dev gw0",
        "delete rule 1000: from all iif gw0 lookup 100",
        "delete nftables table inet sluice-gw0",
    ];
    assert_eq!(said(&plan(&nothing, &actual).unwrap()), wanted);
    let foreign = Actual { table: nft::Found::Foreign, ..host() };
    assert_eq!(plan(&nothing, &foreign).unwrap(), [], "another program's table stays");
}

#[test]
fn what_is_in_the_way_is_told_with_its_owner() {
    let failure = |change: &dyn Fn(&mut Actual)| {
        let mut actual = host();
        change(&mut actual);
        plan(&desired(), &actual).unwrap_err().to_string()
    };
    let address = failure(&|actual| {
        actual.addresses.push(HostAddress { link: 2, address: net("10.77.0.1/16"), protocol: 0 });
    });
    assert!(address.starts_with("the address 10.77.0.1/24 is on eth0 already"), "{address}");
    let taken = failure(&|actual| {
        let there = HostRoute { link: 2, via: Some([192, 0, 2, 1].into()), protocol: 4, ..done().routes[0].clone() };
        actual.routes.push(there);
    });
    assert!(taken.contains("`10.78.0.0/16 via 192.0.2.1 dev eth0 proto 4`"), "{taken}");
    let taken = failure(&|actual| actual.rules.push(HostRule { protocol: 0, ..done().rules[0].clone() }));
    assert!(taken.contains("`1000: from all iif gw0 lookup 100`"), "{taken}");
    let taken = failure(&|actual| actual.table = nft::Found::Foreign);
    assert!(taken.contains("sluice-gw0"), "{taken}");
    let missing = failure(&|actual| actual.links.clear());
    assert!(missing.starts_with("there is no interface gw0"), "{missing}");
}

#[test]
fn only_settings_that_differ_are_set_and_missing_ones_are_left() {
    let settings = ["net/ipv4/ip_forward", "net/ipv4/conf/gw0/rp_filter", "net/ipv6/conf/all/forwarding"];
    let desired = HostSide {
        link: "gw0".to_owned(),
        sysctls: settings.iter().map(|path| Sysctl::new(*path, "1")).collect(),
        ..HostSide::default()
    };
    let actual = Actual { sysctls: vec![Some("0".to_owned()), Some("1".to_owned()), None], ..host() };
    assert_eq!(said(&plan(&desired, &actual).unwrap()), ["set net/ipv4/ip_forward = 1"]);
}
