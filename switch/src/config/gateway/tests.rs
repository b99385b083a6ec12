use super::*;
use crate::config::Config;
use std::path::Path;

fn parse(text: &str) -> GatewayConfig {
    let config = Config::parse(text, Path::new("sluiced.toml")).unwrap_or_else(|error| panic!("{error}"));
    config.bridges[0].gateway.clone().unwrap()
}

#[track_caller]
fn complaint(text: &str) -> String {
    Config::parse(text, Path::new("sluiced.toml")).expect_err("the file has a fault").to_string()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn addresses_alone_make_a_gateway_on_the_bridges_own_port() {
    let gateway = parse("[bridges.br0.gateway]\naddresses = ['10.77.0.1/24', 'fd77::1/64']\n");
    assert_eq!((gateway.port.as_str(), gateway.link.as_str()), ("br0", "br0"));
    assert_eq!(gateway.addresses, nets(&["10.77.0.1/24", "fd77::1/64"]));
    assert_eq!(gateway.mac, stable_mac("br0", &gateway.addresses));
    assert!(gateway.forward && gateway.masquerade.is_none());
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let gateway = parse(
        r#"
[bridges.br0]
local_port = false
[bridges.br0.ports.gw]
type = "tap"
options = { dev = "gw0" }
[bridges.br0.ports.pod]
type = "af-packet"
options = { dev = "veth7" }
[bridges.br0.gateway]
port = "gw"
addresses = ["10.77.0.1/24", "fd77::1/64"]
mac = "02:00:00:00:00:01"
mtu = 1400
forward = false
routes = [{ to = "10.78.0.0/16", via = "10.77.0.9", src = "10.77.0.1", metric = 5, table = 77 }, { to = "10.79.0.1" }]
rules = [{ priority = 1000, table = 77 }, { priority = 1001, from = "fd78::/64", to = "fd79::/64", table = 78 }]
neighbours = [{ address = "10.77.0.9", mac = "02:00:00:00:00:09" }]
[bridges.br0.gateway.masquerade]
inside = ["10.77.0.0/24", "10.78.0.0/16"]
addresses = ["192.0.2.77"]
except = ["10.0.0.0/8"]
ports = "40000-50000"
zone = 7
first_table = 100
host_rule = false
"#,
    );
    assert_eq!(
        (gateway.port.as_str(), gateway.link.as_str(), gateway.packet_links),
        ("gw", "gw0", vec!["veth7".into()])
    );
    assert_eq!((gateway.mac, gateway.mtu, gateway.forward), ([2, 0, 0, 0, 0, 1], Some(1400), false));
    let route = RouteSpec {
        to: nets(&["10.78.0.0/16"])[0],
        via: Some([10, 77, 0, 9].into()),
        source: Some([10, 77, 0, 1].into()),
        metric: Some(5),
        table: Some(77),
    };
    assert_eq!(gateway.routes, [route, RouteSpec::on_link(nets(&["10.79.0.1/32"])[0])]);
    // A rule that is about no family in particular is about all that the gateway has.
    assert_eq!(
        gateway.rules.iter().map(|r| (r.priority, r.v6)).collect::<Vec<_>>(),
        [(1000, false), (1000, true), (1001, true)]
    );
    let masquerade = gateway.masquerade.unwrap();
    assert_eq!(masquerade.inside, nets(&["10.77.0.0/24", "10.78.0.0/16"]));
    assert_eq!(masquerade.addresses, [IpAddr::from([192, 0, 2, 77])]);
    assert_eq!((masquerade.ports, masquerade.zone, masquerade.first_table.get()), (Some((40_000, 50_000)), 7, 100));
    assert!(!masquerade.host_rule);
}

#[test]
fn a_masquerade_is_of_the_gateways_own_networks_by_itself() {
    let masquerade = |text: &str| {
        parse(&format!("[bridges.br0.gateway]\n{text}[bridges.br0.gateway.masquerade]\n")).masquerade.unwrap()
    };
    let both = masquerade("addresses = ['10.77.0.1/24', 'fd77::1/64']\n");
    assert_eq!(both.inside, nets(&["10.77.0.0/24", "fd77::/64"]));
    assert_eq!(both.addresses, MasqueradeConfig::default_addresses());
    let one = masquerade("addresses = ['fd77::1/64']\n");
    assert_eq!(one.addresses, [MasqueradeConfig::default_addresses()[1]]);
}

#[test]
fn faults_are_told_with_their_place_and_what_to_do() {
    let gateway = "[bridges.br0.gateway]\naddresses = ['10.77.0.1/24']\n";
    let masquerade = "[bridges.br0.gateway]\naddresses = ['10.77.0.1/24']\n[bridges.br0.gateway.masquerade]\n";
    for (text, wanted) in [
        ("[bridges.br0.gateway]\n".to_owned(), "sluiced.toml:1:1: the gateway has no address\n"),
        ("[bridges.br0.gateway]\naddresses = ['10.77.0.1']\n".to_owned(), "2:14: `10.77.0.1` is not an address with"),
        ("[bridges.br0.gateway]\naddresses = ['10.77.0.0/24']\n".to_owned(), "2:14: 10.77.0.0 is the network itself"),
        ("[bridges.br0.gateway]\naddresses = ['224.0.0.1/24']\n".to_owned(), "2:14: 224.0.0.1 cannot be"),
        (
            "[bridges.br0.gateway]\naddresses = ['10.0.0.1/8', '10.0.0.1/9']\n".to_owned(),
            "2:28: 10.0.0.1 stands here twice",
        ),
        ("[bridges.br0.gateway]\nadresses = []\n".to_owned(), "2:1: unknown key `adresses`; did you mean `addresses`?"),
        (format!("{gateway}port = 'gw'\n"), "3:8: bridge br0 has no port `gw` of type tap\n"),
        (format!("[bridges.br0]\nlocal_port = false\n{gateway}"), "the gateway of br0 has no port"),
        (format!("{gateway}mac = '01:00:00:00:00:01'\n"), "3:7: `01:00:00:00:00:01` is not a unicast address"),
        (format!("{gateway}mtu = 67\n"), "3:7: 67 is out of range\n"),
        (
            "[bridges.br0.gateway]\naddresses = ['fd77::1/64']\nmtu = 1000\n".to_owned(),
            "3:7: an MTU of 1000 is too small",
        ),
        (
            format!("{gateway}routes = [{{ to = '10.78.0.1/16' }}]\n"),
            "3:18: `10.78.0.1/16` has bits set behind its prefix\n  the network is 10.78.0.0/16",
        ),
        (
            format!("{gateway}routes = [{{ to = '10.78.0.0/16', via = 'fd77::1' }}]\n"),
            "fd77::1 and 10.78.0.0/16 are of different families",
        ),
        (format!("{gateway}rules = [{{ priority = 0, table = 5 }}]\n"), "3:23: 0 is out of range"),
        (format!("{gateway}rules = [{{ priority = 1, table = 0 }}]\n"), "3:34: 0 is out of range"),
        (format!("{masquerade}addresses = ['10.77.0.1']\n"), "4:14: 10.77.0.1 is the gateway's own\n"),
        (format!("{masquerade}inside = ['fd00::/8']\n"), "4:11: the gateway has no address of the family of fd00::/8"),
        (format!("{masquerade}inside = []\n"), "`inside` is empty"),
        (format!("{masquerade}ports = '0-10'\n"), "4:9: `0-10` is not a range of ports\n"),
        (format!("{masquerade}ports = '20-10'\n"), "`20-10` is not a range of ports"),
        (format!("{masquerade}first_table = 250\n"), "4:15: 250 is out of range\n"),
    ] {
        let said = complaint(&text);
        assert!(said.contains(wanted), "{text}\n{said}\nwanted: {wanted}");
    }
}

#[test]
fn two_gateways_share_nothing() {
    let two = |a: &str, b: &str| {
        format!(
            "[bridges.br0.gateway]\naddresses = ['10.77.0.1/24']\n{a}[bridges.br1.gateway]\naddresses = ['10.78.0.1/24']\n{b}"
        )
    };
    let (first, second) = ("[bridges.br0.gateway.masquerade]\n", "[bridges.br1.gateway.masquerade]\n");
    assert!(complaint(&two(first, second)).contains("the same link address, 169.254.77.2"));
    let zone = complaint(&two(first, &format!("{second}addresses = ['169.254.77.3']\n")));
    assert!(zone.contains("the same zone, 65520"), "{zone}");
    parse(&two(first, &format!("{second}addresses = ['169.254.77.3']\nzone = 65521\n")));
    parse(&two(first, ""));
}
