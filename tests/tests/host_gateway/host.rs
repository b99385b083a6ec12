//! What a gateway puts on the machine: once, marked, found again, and gone at the end.

use crate::machine::{GATEWAY, MASQUERADE, Machine, OWN, PORTS, SERVER, ip, ping, run, set};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use sluice_switch::config::Config;
use sluice_switch::host::gateway::{GatewayConfig, drift, host_side};
use sluice_switch::host::{HostError, apply};
use std::io::ErrorKind;
use std::path::Path;

/// Routes, rules and neighbours of a gateway.
const MORE: &str = "\
routes = [{ to = \"10.78.0.0/16\", via = \"10.77.0.11\" }, { to = \"fd78::/64\", via = \"fd77::11\", metric = 50 },
          { to = \"0.0.0.0/0\", via = \"10.77.0.12\", table = 77 }]
rules = [{ priority = 1000, from = \"10.78.0.0/16\", table = 77 }]
neighbours = [{ address = \"10.77.0.200\", mac = \"02:00:00:00:00:99\" }]
";
/// The groups of rtnetlink with links, addresses, routes, neighbours and rules of both families.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
/// What others have on the machine.
const FOREIGN: &str = "\
table inet other {
    chain post { type nat hook postrouting priority srcnat; ip saddr 198.51.100.0/24 masquerade comment \"other\"; }
}
";

fn config(parts: &[&str]) -> GatewayConfig {
    let config = Config::parse(&parts.concat(), Path::new("sluiced.toml")).unwrap();
    config.bridges[0].gateway.clone().unwrap()
}

/// Routes, a rule and a table of another program's.
fn others(machine: &Machine) {
    // What the gateway would turn on for good is on before, with all that the kernel does then.
    set(&machine.netns, "ipv4/ip_forward", "1");
    set(&machine.netns, "ipv6/conf/all/forwarding", "1");
    machine.say(&["ip", "route", "add", "203.0.113.0/24", "via", SERVER[0], "proto", "static"]);
    machine
        .say(&["ip", "rule", "add", "priority", "1000", "from", "all", "fwmark", "5", "table", "9", "protocol", "4"]);
    machine.say(&["ip", "rule", "del", "priority", "1000", "protocol", "4"]);
    machine.say(&["ip", "rule", "add", "priority", "999", "from", "198.51.100.0/24", "table", "9"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), FOREIGN).unwrap();
    machine.say(&["nft", "-f", &file.path().to_string_lossy()]);
}

#[test]
fn at_the_end_the_machine_is_as_it_was_before() {
    let Some(machine) = Machine::new("at_the_end_the_machine_is_as_it_was_before") else { return };
    others(&machine);
    let before = machine.state();
    let running = machine.start(&[PORTS, GATEWAY, MORE, MASQUERADE]);
    ping(machine.container(1), SERVER[0]);
    let during = machine.state();
    for wanted in [
        "10.77.0.1/24",
        "fd77::1/64",
        "10.78.0.0/16 via 10.77.0.11 dev br0 proto 83",
        "fd78::/64 via fd77::11 dev br0 proto 83 metric 50",
        "default via 10.77.0.12 dev br0 table 77 proto 83",
        "1000:\tfrom 10.78.0.0/16 iif br0 lookup 77 proto 83",
        "10.77.0.200 dev br0 lladdr 02:00:00:00:00:99 PERMANENT",
        "alias sluiced: gateway br0",
        "table inet sluice-br0 {",
        "ip saddr 169.254.77.2 oifname != \"br0\" masquerade comment \"sluiced: gateway br0\"",
    ] {
        assert!(during.contains(wanted), "{wanted} is missing:\n{during}");
    }
    let log = running.end();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    assert_eq!(machine.state(), before);
}

#[test]
fn doing_it_again_changes_nothing() {
    let Some(machine) = Machine::new("doing_it_again_changes_nothing") else { return };
    let parts = [PORTS, GATEWAY, MORE, MASQUERADE];
    let running = machine.start(&parts);
    let config = config(&parts);
    assert_eq!(machine.netns.run(|| drift(&config)).unwrap(), [] as [String; 0]);
    let handles = machine.say(&["nft", "-a", "list", "ruleset"]);
    let mut monitor = machine.netns.run(|| Socket::new(NETLINK_ROUTE)).unwrap();
    monitor.bind_auto().unwrap();
    GROUPS.iter().for_each(|group| monitor.add_membership(*group).unwrap());
    assert!(running.reload().contains("reloaded changes=0 failures=0"));
    assert_eq!(machine.netns.run(|| apply(&host_side(&config))).unwrap(), [] as [String; 0]);
    monitor.set_non_blocking(true).unwrap();
    let mut news = Vec::new();
    loop {
        match monitor.recv_from_full() {
            Ok((message, _)) => news.push(message),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    // The kernel's own neighbour table moves on by itself (RTM_NEWNEIGH is 28, RTM_DELNEIGH 29).
    news.retain(|message| !matches!(message.get(4), Some(28 | 29)));
    assert!(news.is_empty(), "{news:02x?}");
    assert_eq!(machine.say(&["nft", "-a", "list", "ruleset"]), handles, "the table was not written again");
}

#[test]
fn what_others_undo_is_told_and_done_again() {
    let Some(machine) = Machine::new("what_others_undo_is_told_and_done_again") else { return };
    let parts = [PORTS, GATEWAY, MORE, MASQUERADE];
    let running = machine.start(&parts);
    machine.say(&["ip", "route", "del", "10.78.0.0/16"]);
    machine.say(&["ip", "rule", "del", "priority", "1000"]);
    machine.say(&["nft", "flush", "chain", "inet", "sluice-br0", "postrouting"]);
    machine.say(&["ip", "addr", "del", "fd77::1/64", "dev", "br0"]);
    let config = config(&parts);
    let told = machine.netns.run(|| drift(&config)).unwrap();
    // The address took the route by it along.
    let wanted = [
        "add address fd77::1/64 dev br0",
        "add route 10.78.0.0/16 via 10.77.0.11 dev br0",
        "add route fd78::/64 via fd77::11 metric 50 dev br0",
        "add rule 1000: from 10.78.0.0/16 iif br0 lookup 77",
        "write nftables table inet sluice-br0",
    ];
    let missing: Vec<_> = wanted.iter().filter(|wanted| !told.iter().any(|told| told == *wanted)).collect();
    // Whether the route goes with the address is the kernel's choice.
    assert!(missing.iter().all(|what| what.contains("fd78::/64")), "{told:#?}");
    let said = running.reload();
    assert!(said.contains("gateway: add route 10.78.0.0/16 via 10.77.0.11 dev br0"), "{said}");
    assert_eq!(machine.netns.run(|| drift(&config)).unwrap(), [] as [String; 0]);
    ping(machine.container(1), SERVER[1]);
}

#[test]
fn a_killed_switch_finds_its_things_again_and_takes_old_ones_away() {
    let Some(machine) = Machine::new("a_killed_switch_finds_its_things_again_and_takes_old_ones_away") else { return };
    others(&machine);
    let parts = [PORTS, GATEWAY, MORE, MASQUERADE];
    let before = machine.state();
    let running = machine.start(&parts);
    let good = machine.say(&["ip", "rule"]) + &machine.say(&["nft", "list", "ruleset"]);
    running.crash();
    assert!(machine.say(&["ip", "rule"]).contains("1000:"), "the rule outlives the switch");
    assert!(machine.say(&["nft", "list", "tables"]).contains("sluice-br0"), "the table outlives the switch");
    // The same again: nothing stands twice.
    let running = machine.start(&parts);
    assert_eq!(machine.say(&["ip", "rule"]) + &machine.say(&["nft", "list", "ruleset"]), good);
    running.crash();
    // Something else: what was left goes.
    let running = machine.start(&[PORTS, GATEWAY]);
    let now = machine.state();
    assert!(!now.contains("1000:") && !now.contains("sluice-br0 {"), "{now}");
    assert!(now.contains("table inet other"), "{now}");
    running.end();
    assert_eq!(machine.state(), before);
}

#[test]
fn a_changed_file_changes_the_machine() {
    let Some(machine) = Machine::new("a_changed_file_changes_the_machine") else { return };
    let running = machine.start(&[PORTS, GATEWAY, MORE, MASQUERADE]);
    let stranger = ["ip", "addr", "add", "10.90.0.1/24", "dev", "br0"];
    machine.say(&stranger);
    machine.write(&[PORTS, "[bridges.br0.gateway]\naddresses = [\"10.79.0.1/24\"]\n"]);
    let said = running.reload();
    assert!(said.contains("failures=0"), "{said}");
    let state = machine.state();
    for gone in ["10.77.0.1/24", "10.78.0.0/16", "1000:", "sluice-br0 {"] {
        assert!(!state.contains(gone), "{gone} is left:\n{state}");
    }
    assert!(state.contains("10.79.0.1/24") && state.contains("10.90.0.1/24"), "{state}");
    machine.write(&[PORTS]);
    assert!(running.reload().contains("failures=0"));
    let state = machine.state();
    assert!(!state.contains("10.79.0.1/24") && !state.contains("alias") && state.contains("10.90.0.1/24"), "{state}");
}

#[test]
fn what_is_in_the_way_is_told_and_nothing_is_left() {
    let Some(machine) = Machine::new("what_is_in_the_way_is_told_and_nothing_is_left") else { return };
    others(&machine);
    let refused = |parts: &[&str], wanted: &str| {
        let before = machine.state();
        let (code, said) = machine.fail(parts);
        assert!(code == Some(1) && said.contains(wanted), "{code:?}: {said}");
        assert_eq!(machine.state(), before);
    };
    machine.netns.add_address("up0", ip(OWN[0]), 16).unwrap();
    refused(&[PORTS, GATEWAY], "the address 10.77.0.1/24 is on up0 already");
    run(&machine.netns, &["ip", "addr", "del", "10.77.0.1/16", "dev", "up0"]);
    machine.say(&["ip", "route", "add", "10.78.0.0/16", "via", SERVER[0], "proto", "static"]);
    refused(&[PORTS, GATEWAY, MORE], "`10.78.0.0/16 via 192.0.2.10 dev up0 proto 4`");
    machine.say(&["ip", "route", "del", "10.78.0.0/16"]);
    machine.say(&["nft", "add", "table", "inet", "sluice-br0"]);
    machine.say(&["nft", "add", "chain", "inet", "sluice-br0", "mine"]);
    machine.say(&["nft", "add", "rule", "inet", "sluice-br0", "mine", "accept"]);
    refused(&[PORTS, GATEWAY, MASQUERADE], "the nftables table sluice-br0 is another program's");
}

#[test]
fn without_the_interface_nothing_is_done() {
    let Some(machine) = Machine::new("without_the_interface_nothing_is_done") else { return };
    let config = config(&[PORTS, GATEWAY, MASQUERADE]);
    let result = machine.netns.run(|| apply(&host_side(&config)));
    assert!(matches!(result, Err(HostError::NoLink { .. })), "{result:?}");
}

#[test]
fn chains_of_others_that_drop_what_is_forwarded_are_named() {
    let Some(machine) = Machine::new("chains_of_others_that_drop_what_is_forwarded_are_named") else { return };
    machine.say(&["nft", "add", "table", "ip", "wall"]);
    let chain = "add chain ip wall FORWARD { type filter hook forward priority 0 ; policy drop ; }";
    machine.say(&[&["nft"], &chain.split(' ').collect::<Vec<_>>()[..]].concat());
    let running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    let log = running.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("ip wall FORWARD")), "{log}");
}

#[test]
fn a_machine_that_listens_to_routers_goes_on_listening() {
    let Some(machine) = Machine::new("a_machine_that_listens_to_routers_goes_on_listening") else { return };
    let listens = |link: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        machine.netns.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned()
    };
    assert_eq!(listens("up0"), "1");
    let _running = machine.start(&[PORTS, GATEWAY]);
    assert_eq!((listens("up0").as_str(), listens("br0").as_str()), ("2", "0"));
}
