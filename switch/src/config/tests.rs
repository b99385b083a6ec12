use super::*;
use crate::conntrack::TimeoutClass;
use sluice_flows::bridge::VlanId;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("sluiced.toml"))
}

#[track_caller]
fn complaint(text: &str) -> String {
    parse(text).expect_err("the file has a fault").to_string()
}

#[test]
fn an_empty_file_asks_for_nothing() {
    let config = parse("").unwrap();
    assert_eq!(config, Config { bridges: vec![], ..Config::default() });
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let config = parse(
        r#"
socket = "/tmp/s.sock"
workers = 2
pin = [0, 1]
spin_us = 250
mac_age = 60
tlv_map = "{class=0x102,type=0x80,len=4}->tun_metadata3"
[log]
level = "info,sluice_switch=debug"
format = "json"
[bridges.br0]
local_port = false
mcast_snooping = true
flows = [
  "priority=1 actions=NORMAL",
  'table=1 actions=drop',
]
[bridges.br0.ports.z-first]
type = "tap"
number = 7
native = 5
native_tagged = true
trunk = [10, 20]
options = { mtu = 9000, mac = "02:00:00:00:00:01" }
[bridges.br0.ports.a-second]
type = "af-packet"
access = 10
up = false
flood = false
"#,
    )
    .unwrap();
    assert_eq!((config.workers, config.pin, config.log_format), (Some(2), vec![0, 1], Some(LogFormat::Json)));
    let bridge = &config.bridges[0];
    assert_eq!(config.spin_us, Some(250));
    assert_eq!((config.mac_age_s, bridge.local_port, bridge.mcast_snooping), (Some(60), false, true));
    assert_eq!(config.tlv_map.to_string(), "{class=0x102,type=0x80,len=4}->tun_metadata3");
    let flows = bridge.flows.as_ref().unwrap();
    assert_eq!((flows[0].line, flows[0].column), (15, 4));
    assert_eq!((flows[1].text.as_str(), flows[1].line), ("table=1 actions=drop", 16));
    // The file's order, not the alphabet's.
    assert_eq!(bridge.ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["z-first", "a-second"]);
    let vid = |n| VlanId::new(n).unwrap();
    let native = VlanMode::Native { trunks: [vid(10), vid(20)].into(), native: vid(5), tagged: true };
    assert_eq!((&bridge.ports[0].vlan, bridge.ports[0].number), (&native, Some(PortNo(7))));
    assert_eq!(bridge.ports[0].options["mtu"], "9000");
    let second = &bridge.ports[1];
    assert_eq!((&second.vlan, second.up, second.flood), (&VlanMode::Access(vid(10)), false, false));
}

#[test]
fn faults_are_told_with_their_place_and_what_is_allowed() {
    let cases = [
        (
            "sokcet = '/x'",
            "sluiced.toml:1:1: unknown key `sokcet`; did you mean `socket`?\n  allowed here: socket, state, workers, spin_us, mac_age, tlv_map, pin, log, conntrack, bridges, router",
        ),
        ("workers = 0", "sluiced.toml:1:11: 0 is out of range\n  the number of workers is 1 to 64"),
        (
            "workers = 2\npin = [0]",
            "sluiced.toml:2:7: `pin` must name one CPU for each worker\n  workers = 2, pin names 1",
        ),
        (
            "[log]\nformat = 'jsn'",
            "sluiced.toml:2:10: unknown log format `jsn`; did you mean `json`?\n  formats: text, json",
        ),
        (
            "[bridges.a-name-too-long-for-it]",
            "sluiced.toml:1:10: `a-name-too-long-for-it` cannot be a name\n  names have 1 to 15 printable characters, without / : , \" or blanks",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tapp'",
            "sluiced.toml:2:8: unknown port type `tapp`; did you mean `tap`?\n  types: tap, tap-plain, af-packet, af-xdp, memory, pcap, null, patch, vxlan, geneve, gre, ipip, sit, bareudp, wireguard, wire",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'local'",
            "sluiced.toml:2:8: a bridge has its local port by itself\n  set `local_port = false` on the bridge to leave it out",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\nnumber = 70000",
            "sluiced.toml:3:10: 70000 is out of range\n  a port number is 1 to 65279",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\naccess = 4096",
            "sluiced.toml:3:10: 4096 is out of range\n  a VLAN ID is 0 to 4095",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\naccess = 1\ntrunk = [2]",
            "sluiced.toml:4:9: an access port carries one VLAN\n  drop `access` (line 3) to make it a trunk",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\nnative_tagged = true",
            "sluiced.toml:3:17: `native_tagged` without `native`",
        ),
        (
            "[bridges.br0.ports.p1]\ntype='null'\nnumber = 1\n[bridges.br0.ports.p2]\ntype='null'\nnumber = 1",
            "sluiced.toml:6:10: number 1 is taken by port `p1`",
        ),
        (
            "[bridges.br0]\n[bridges.br1.ports.br0]\ntype = 'null'",
            "sluiced.toml:2:20: the name `br0` is taken\n  line 1 gives it first; bridges and ports share one set of names",
        ),
        (
            "[bridges.br0]\nflow_files = ['no/such.flows']",
            "sluiced.toml:2:15: cannot read no/such.flows: No such file or directory (os error 2)",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\noptions = { mtuu = 1 }",
            "sluiced.toml:3:13: a port of type tap has no option `mtuu`; it has dev, attach, mac, mtu, \
             rx_rate, rx_burst, tx_rate, tx_burst",
        ),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\noptions = { mtu = 'big' }",
            "sluiced.toml:3:19: option `mtu`: `big` is not a number of bytes",
        ),
        ("[bridges.br0.ports.p1]\ntype = 'patch'", "sluiced.toml:2:8: a port of type patch needs option `peer`"),
        (
            "[bridges.br0.ports.p1]\nnumber = 1",
            "sluiced.toml:1:20: port `p1` has no `type`\n  types: tap, tap-plain, af-packet, af-xdp, memory, pcap, null, patch, vxlan, geneve, gre, ipip, sit, bareudp, wireguard, wire",
        ),
        (
            "[log]\nlevel = 'inof'",
            "sluiced.toml:2:9: `inof` is no log level; did you mean `info`?\n  error, warn, info, debug, trace, or directives such as `info,sluice_switch=debug`",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(complaint(text), want, "for\n{text}");
    }
}

#[test]
fn broken_toml_is_told_with_its_place() {
    for (text, start) in [
        ("workers = ", "sluiced.toml:1:"),
        ("[log\nlevel = 1", "sluiced.toml:1:"),
        ("log = 1", "sluiced.toml:1:7: invalid type"),
    ] {
        let got = complaint(text);
        assert!(got.starts_with(start), "{got}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let got = Config::load(Path::new("/no/such/sluiced.toml")).unwrap_err().to_string();
    assert_eq!(got, "cannot read /no/such/sluiced.toml: No such file or directory (os error 2)");
}

#[test]
fn flow_files_are_read_beside_the_file_without_comments() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.flows"), "# comment\n\n  priority=1 actions=NORMAL\n").unwrap();
    let path = dir.path().join("sluiced.toml");
    std::fs::write(&path, "[bridges.br0]\nflow_files = ['a.flows']\n").unwrap();
    let config = Config::load(&path).unwrap();
    let flows = config.bridges[0].flows.as_ref().unwrap();
    assert_eq!((flows.len(), flows[0].line), (1, 3));
}

#[test]
fn groups_meters_and_tables_stand_beside_flows() {
    let config = parse(
        "[bridges.br0]\nmeters = ['meter=1,kbps,bands=type=drop,rate=5']\ngroups = ['group_id=1,type=all']\n\
         [bridges.br0.tables.7]\nname = 'Output'\nmiss = 'continue'\nmax_flows = 9\nevict = true\n",
    )
    .unwrap();
    let bridge = &config.bridges[0];
    assert_eq!((bridge.groups[0].line, bridge.meters[0].line, bridge.flows.is_none()), (3, 2, true));
    let table = &bridge.tables[&TableId::new(7).unwrap()];
    assert_eq!((table.name.as_deref(), table.max_flows, table.evict), (Some("Output"), Some(9), true));
    for (text, message) in [
        ("[bridges.br0.tables.255]", "sluiced.toml:1:21: there is no table `255`\n  tables are 0 to 254"),
        (
            "[bridges.br0.tables.1]\nmiss = 'dorp'",
            "sluiced.toml:2:8: unknown `miss` `dorp`; did you mean `drop`?\n  allowed: drop, controller, continue",
        ),
        (
            "[bridges.br0.tables.1]\nname = 'x'\n[bridges.br0.tables.2]\nname = 'x'",
            "sluiced.toml:4:8: table 1 has the name `x`",
        ),
        ("[bridges.br0.tables.1]\n[bridges.br0.tables.01]", "sluiced.toml:2:21: table 1 stands here twice"),
    ] {
        assert_eq!(complaint(text), message);
    }
}

#[test]
fn connection_tracking_is_set_and_its_faults_are_told() {
    let config = parse(
        "[conntrack]\nmax_connections = 5000\ndefault_zone_limit = 100\ntimeouts = { udp_first = 20 }\n\
         [conntrack.fragments]\nv6 = false\nmax = 10\n[conntrack.zones.5]\nlimit = 0\ntcp_liberal = true\n\
         timeouts = { tcp_established = 600 }\n",
    )
    .unwrap();
    let conntrack = &config.conntrack;
    assert_eq!((conntrack.max_connections, conntrack.default_zone_limit, conntrack.tcp_liberal), (5000, 100, false));
    assert_eq!(conntrack.timeouts.get(TimeoutClass::UdpFirst), 20);
    assert_eq!((conntrack.fragments.v4, conntrack.fragments.v6), (true, false));
    assert_eq!((conntrack.fragments.limits.max_fragments, conntrack.fragments.limits.min_v4), (10, 1200));
    let five = &conntrack.zones[&5];
    assert_eq!(
        (five.limit, five.tcp_liberal, five.timeouts[&TimeoutClass::TcpEstablished]),
        (Some(0), Some(true), 600)
    );
    for (text, message) in [
        (
            "[conntrack]\nmax_connections = 0",
            "sluiced.toml:2:19: 0 is out of range\n  `max_connections` is 1 to 4294967295",
        ),
        (
            "[conntrack.timeouts]\nudp_frist = 5",
            "sluiced.toml:2:1: there is no timeout `udp_frist`: did you mean `udp_first`?\n  timeouts: tcp_syn_sent, ",
        ),
        (
            "[conntrack.timeouts]\nudp_first = 0",
            "sluiced.toml:2:13: 0 is out of range\n  a timeout, in seconds, is 1 to ",
        ),
        ("[conntrack.timeouts]\ntcp_unack = 5", "sluiced.toml:2:1: timeout `tcp_unack` is one of the Linux kernel's"),
        ("[conntrack.zones.70000]", "sluiced.toml:1:18: there is no zone `70000`\n  zones are 0 to 65535"),
        ("[conntrack.zones.5]\n[conntrack.zones.05]", "sluiced.toml:2:18: zone 5 stands here twice"),
        ("[conntrack]\nmax_conns = 5", "sluiced.toml:2:1: unknown key `max_conns`"),
        ("[conntrack.fragments]\nmax = 5001", "sluiced.toml:2:7: 5001 is out of range"),
    ] {
        let said = complaint(text);
        assert!(said.starts_with(message), "{said}");
    }
}

#[test]
fn a_reload_changes_what_is_set_of_connection_tracking() {
    let (datapath, old) = switch("[conntrack]\nmax_connections = 50\n");
    assert_eq!(datapath.connection_settings().max_connections, 50);
    let new = parse("[conntrack.zones.5]\nlimit = 7\n").unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(done, [Change::ConntrackChanged]);
    let settings = datapath.connection_settings();
    assert_eq!((settings.max_connections, settings.zones[&5].limit), (3_000_000, Some(7)));
}

fn switch(text: &str) -> (crate::Datapath, Config) {
    let config = parse(text).unwrap();
    check(&config).unwrap();
    let datapath = crate::Datapath::start(crate::Config::default()).unwrap();
    start(&datapath, &config).unwrap();
    (datapath, config)
}

#[test]
fn a_reload_changes_limits_and_keeps_the_port() {
    let file =
        |options: &str| format!("[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.a]\ntype = 'null'\n{options}");
    let (datapath, old) = switch(&file("options = { mtu = 9000, rx_rate = '10M' }"));
    let port = || datapath.ports(None).unwrap().remove(0);
    let said = |options: &[(&'static str, String)]| {
        options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(said(&port().options), "rx_rate=10M rx_burst=100k");
    let dp = port().port.dp;
    let new = parse(&file("options = { mtu = 9000, tx_rate = 64000, tx_burst = '1M' }")).unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(done, [Change::PortChanged("a".into())]);
    assert_eq!((said(&port().options), port().port.dp), ("tx_rate=64k tx_burst=1M".to_owned(), dp));
    assert_eq!(
        complaint(&file("options = { rx_rate = 'fast' }")),
        "sluiced.toml:5:23: option `rx_rate`: `fast` is not a rate in bits a second like 10M, 1500k, 2.5G or 64000; \
         0 is no limit"
    );
}

#[test]
fn mirrors_are_read_checked_and_reloaded() {
    let file = |mirror: &str| {
        format!(
            "[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.a]\ntype = 'null'\n[bridges.br0.ports.b]\n\
             type = 'null'\n{mirror}"
        )
    };
    for (mirror, said) in [
        ("[bridges.br0.mirrors.m]\nselect_all = true", "mirror `m` has no output"),
        ("[bridges.br0.mirrors.m]\nselect_all = true\noutput_port = 'c'", "the bridge has no port `c`"),
        ("[bridges.br0.mirrors.m]\noutput_port = 'b'", "selects no packets"),
        ("[bridges.br0.mirrors.m]\nselect_all = true\noutput_port = 'b'\noutput_vlan = 9", "not both"),
        ("[bridges.br0.mirrors.m]\nselect_all = true\noutput_port = 'b'\nsnaplen = 3", "14 to 65535"),
    ] {
        let error = parse(&file(mirror)).unwrap_err().to_string();
        assert!(error.contains(said), "{mirror}: {error}");
    }
    let first = "[bridges.br0.mirrors.m]\nselect_src_port = ['a']\noutput_port = 'b'\nsnaplen = 64\n";
    let (datapath, old) = switch(&file(first));
    let mirrors = || datapath.bridge("br0").unwrap().mirrors.iter().map(|m| (*m.spec).clone()).collect::<Vec<_>>();
    assert_eq!(mirrors(), old.bridges[0].mirrors);
    let second = "[bridges.br0.mirrors.n]\nselect_all = true\nselect_vlan = [10]\noutput_vlan = 99\n";
    let new = parse(&file(second)).unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(done, [Change::MirrorRemoved("m".into()), Change::MirrorSet("n".into())]);
    assert_eq!(mirrors(), new.bridges[0].mirrors);
}

#[test]
fn a_reload_changes_groups_meters_and_tables_and_keeps_what_stays() {
    let file = |groups: &str, meters: &str, flows: &str, table: &str| {
        format!(
            "[bridges.br0]\nlocal_port = false\ngroups = [{groups}]\nmeters = [{meters}]\nflows = [{flows}]\n\
             [bridges.br0.tables.{table}]\nname = 'Next'\n"
        )
    };
    let (m1, m2) = ("'meter=1,pktps,bands=type=drop,rate=5'", "'meter=2,pktps,bands=type=drop,rate=5'");
    let (g1, g2) = ("'group_id=1,type=all'", "'group_id=2,type=all'");
    let flows = "'table=9 actions=group:1','actions=meter:1,group:2'";
    let (datapath, old) = switch(&file(&format!("{g1},{g2}"), m1, flows, "7"));
    let group = |id| datapath.bridge("br0").unwrap().groups.get(&sluice_flows::action::GroupId(id)).cloned();
    group(2).unwrap().stats.credit(3, 300, sluice_flows::rule::Millis(0));
    assert_eq!(group(1).unwrap().owner.text(), "file:sluiced.toml:3");

    let new = parse(&file(g2, &format!("{m1},{m2}"), "'actions=meter:2,group:2'", "8")).unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(done, [Change::FlowsReplaced("br0".into())]);
    let bridge = datapath.bridge("br0").unwrap();
    assert!(group(1).is_none());
    assert_eq!((group(2).unwrap().stats.packets(), bridge.meters.len(), bridge.tables.len()), (3, 2, 1));
    let named: Vec<_> = bridge.table_configs.keys().map(|id| id.get()).collect();
    assert_eq!(named, [8]);
}

#[test]
fn a_fault_in_a_group_is_told_with_its_place() {
    let config = parse("[bridges.br0]\ngroups = ['group_id=1,type=al']").unwrap();
    let error = check(&config).unwrap_err().to_string();
    assert!(error.starts_with("sluiced.toml:2:28: "), "{error}");
}

const ROUTED: &str = "[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.a]\ntype = 'null'\n\
    [bridges.br0.ports.b]\ntype = 'null'\n";

#[test]
fn routers_stand_beside_bridges_and_their_faults_are_told() {
    let router = "[[router]]\nname = 'r1'\nbridge = 'br0'\n[[router.interface]]\nname = 'a'\naddresses = ['10.0.1.1/24']\n\
        [[router.route]]\nto = 'default'\nvia = ['10.0.1.9']\n";
    let config = parse(&format!("{ROUTED}{router}")).unwrap();
    assert_eq!(
        (config.routers[0].name.as_str(), config.routers[0].routes[0].via[0].address.as_str()),
        ("r1", "10.0.1.9")
    );
    for (text, message) in [
        ("[[router]]\nname = 'r1'\nbridge = 'br9'", "router r1: there is no bridge `br9`\n  bridges of this file: br0"),
        ("[[router]]\nname = 'r1'\nbridge = 'br0'\nintrface = []", "unknown key `intrface`; did you mean `interface`?"),
        (
            "[[router]]\nname = 'r1'\nbridge = 'br0'\ninterface = [{ name = 'c' }]",
            "router r1, interface c: bridge br0 has no port \"c\"",
        ),
        (
            "[[router]]\nname = 'r1'\nbridge = 'br0'\ninterface = [{ name = 'a', addresses = ['10.0.1.1/24'] }]\nroute = [{ to = '10.9.0.1/8', via = ['10.0.1.9'] }]",
            "10.9.0.1/8 is no network of hosts",
        ),
        (
            "[[router]]\nname = 'r1'\nbridge = 'br0'\n[[router]]\nname = 'r2'\nbridge = 'br0'",
            "bridge br0 has router r1 already",
        ),
    ] {
        let said = complaint(&format!("{ROUTED}{text}"));
        assert!(said.contains(message) && said.starts_with("sluiced.toml:"), "{said}");
    }
}

#[test]
fn a_reload_sets_what_differs_of_routers_and_removes_what_is_gone() {
    let file = |routers: &str| format!("{ROUTED}{routers}");
    let one = |address: &str| {
        format!(
            "[[router]]\nname = 'r1'\nbridge = 'br0'\ninterface = [{{ name = 'a', addresses = ['{address}/24'] }}]\n"
        )
    };
    let (datapath, old) = switch(&file(&one("10.0.1.1")));
    let address = || datapath.router_list()[0].spec.config.interfaces[0].addresses[0].to_string();
    assert_eq!(address(), "10.0.1.1/24");
    let new = parse(&file(&one("10.0.2.1"))).unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((done, address()), (vec![Change::RouterSet("r1".into())], "10.0.2.1/24".into()));
    let (done, _) = reload(&datapath, &new, &new).unwrap();
    assert_eq!(done, []);
    let none = parse(&file("")).unwrap();
    let (done, _) = reload(&datapath, &new, &none).unwrap();
    assert_eq!(done, [Change::RouterRemoved("r1".into())]);
    assert!(datapath.router_list().is_empty());
}

/// A bridge with a WireGuard port that listens on `port`, and what else is said of its options.
fn wireguard(port: u16, more: &str) -> String {
    format!(
        "[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.wg0]\ntype = 'wireguard'\n[bridges.br0.ports.wg0.options]\n\
         private_key = 'dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo='\nlisten_port = {port}\n{more}"
    )
}

#[test]
fn options_may_lie_in_tables() {
    let file = wireguard(
        7,
        "[bridges.br0.ports.wg0.options.peer.a]\npublic_key = '3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08='\n\
         allowed_ips = ['10.0.0.0/24', '2001:db8::/64']\npersistent_keepalive = 25\n",
    );
    let options = &parse(&file).unwrap().bridges[0].ports[0].options;
    assert_eq!(options["peer.a.allowed_ips"], "10.0.0.0/24,2001:db8::/64");
    assert_eq!((options["peer.a.persistent_keepalive"].as_str(), options.len()), ("25", 5));
    let fault = complaint(&wireguard(7, "peer.a = { endpoint = 'x:1' }\n"));
    assert!(fault.starts_with("sluiced.toml:") && fault.contains("option `peer.a.public_key`: is missing"), "{fault}");
}

#[test]
fn a_reload_changes_the_options_of_a_port_that_can_while_it_runs() {
    let free = std::net::UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let (datapath, old) = switch(&wireguard(free, ""));
    let number = datapath.ports(None).unwrap()[0].port.dp;
    let peer = "peer.a.public_key = '3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08='\n";
    let new = parse(&wireguard(free, peer)).unwrap();
    let (done, failed) = reload(&datapath, &old, &new).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(done, [Change::PortChanged("wg0".into())]);
    assert_eq!(datapath.ports(None).unwrap()[0].port.dp, number, "it is the same port");
    assert_eq!(datapath.tunnels(None, None).unwrap()[0].peers.len(), 1);
    let (done, failed) = reload(&datapath, &new, &new).unwrap();
    assert!(done.is_empty() && failed.is_empty(), "{done:?} {failed:?}");
}
