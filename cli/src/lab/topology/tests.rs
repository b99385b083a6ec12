mod dhcp;
mod network;
mod schema;

use super::preset::Preset;
use super::resolved::{End, Mac};
use super::*;

fn good(text: &str) -> Topology {
    parse(text, "t.yml").unwrap_or_else(|e| panic!("{:#?}", e.problems))
}

/// Asserts that the file has exactly these mistakes: a line, and a part of the message.
#[track_caller]
fn bad(text: &str, wanted: &[(usize, &str)]) {
    let error = parse(text, "t.yml").expect_err("the file should be refused");
    let found: Vec<_> = error.problems.iter().map(|p| (p.line, p.message.as_str())).collect();
    let same = found.len() == wanted.len()
        && found.iter().zip(wanted).all(|((line, message), (want, part))| line == want && message.contains(part));
    assert!(same, "wanted {wanted:#?}, found {found:#?}");
}

fn addresses(topology: &Topology, host: &str) -> Vec<String> {
    let host = topology.host(host).unwrap();
    host.interfaces.iter().flat_map(|i| &i.addresses).map(ToString::to_string).collect()
}

#[test]
fn two_lines_make_two_hosts_on_a_switch() {
    let lab = good("lab: hello\nlinks: [[h1, s1], [h2, s1]]\n");
    assert_eq!((lab.name.as_str(), lab.seed), ("hello", 1));
    assert_eq!(lab.switches.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["s1"]);
    assert_eq!(addresses(&lab, "h1"), ["10.0.0.1/24"]);
    assert_eq!(addresses(&lab, "h2"), ["10.0.0.2/24"]);
    let h2 = &lab.host("h2").unwrap().interfaces[0];
    assert_eq!((h2.name.as_str(), h2.mac.to_string().as_str(), h2.mtu), ("eth0", "02:00:00:00:00:02", 1500));
    assert_eq!((h2.switch.as_str(), h2.port), ("s1", 2));
    assert_eq!(lab.links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["h1-s1", "h2-s1"]);
}

#[test]
fn a_preset_is_the_same_lab_as_its_file() {
    let preset = "single,2".parse::<Preset>().unwrap().topology("hello").unwrap();
    let mut file = good("lab: hello\nlinks: [[h1, s1], [h2, s1]]\n");
    file.source.clone_from(&preset.source);
    assert_eq!(preset, file);
}

#[test]
fn pinned_ports_are_kept_and_the_others_go_around_them() {
    let lab = good("lab: a\nlinks: [[h1, s1], ['h2:eth1', 's1:1'], [h2, s1]]\n");
    let ends = lab.links.iter().flat_map(|l| &l.ends).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ends, ["h1:eth0", "s1:2", "h2:eth1", "s1:1", "h2:eth0", "s1:3"]);
}

#[test]
fn a_host_takes_its_own_addresses_and_others_go_around_them() {
    let lab = good(
        "lab: a\ndefaults: {subnet: 10.1.0.0/29, subnet6: 'fd00::/64', mtu: 9000}\n\
         hosts: {h1: {}, h2: {ip: [10.1.0.1, 'fd00::1', 192.0.2.9/30], mac: '02:00:00:00:00:01'}, h3: {env: {K: v}}}\n\
         switches: {s1: }\nlinks: [[h1, s1], {ends: [h2, s1], mtu: 1400, name: two}, [h3, s1]]\n",
    );
    assert_eq!(addresses(&lab, "h1"), ["10.1.0.2/29", "fd00::2/64"]);
    assert_eq!(addresses(&lab, "h2"), ["10.1.0.1/29", "fd00::1/64", "192.0.2.9/30"]);
    assert_eq!(addresses(&lab, "h3"), ["10.1.0.3/29", "fd00::3/64"]);
    let interface = |name: &str| lab.host(name).unwrap().interfaces[0].clone();
    assert_eq!((interface("h1").mtu, interface("h2").mtu), (9000, 1400));
    assert_eq!(interface("h1").mac.to_string(), "02:00:00:00:00:02", "a given MAC is not handed out again");
    assert_eq!(lab.links[1].name, "two");
    assert_eq!(lab.host("h3").unwrap().env["K"], "v");
}

#[test]
fn another_seed_gives_other_macs() {
    let lab = good("lab: a\nseed: 258\nlinks: [[h1, s1]]\n");
    assert_eq!(lab.host("h1").unwrap().interfaces[0].mac, Mac([2, 1, 1, 0, 0, 1]));
}

#[test]
fn switch_rules_become_flow_text_with_their_line() {
    let lab = good(
        "lab: a\nhosts: {h1: {}}\nswitches:\n  s1:\n    rules:\n      - {name: no-ssh, match: 'tcp,tcp_dst=22', action: drop}\n      \
         - {name: rest, action: normal, priority: 1}\nlinks: [[h1, s1]]\n",
    );
    let rules = &lab.switches[0].rules;
    assert_eq!((rules[0].flow.as_str(), rules[0].line), ("priority=100,tcp,tcp_dst=22 actions=drop", 6));
    assert_eq!((rules[1].flow.as_str(), rules[1].line), ("priority=1 actions=normal", 7));
}

#[test]
fn a_rule_that_the_switch_would_not_take_is_refused_with_its_line() {
    let file = |rule: &str| {
        format!("lab: a\nhosts: {{h1: {{}}}}\nswitches:\n  s1:\n    rules:\n      - {rule}\nlinks: [[h1, s1]]\n")
    };
    good(&file("{name: one, match: in_port=h1, action: drop}"));
    bad(&file("{name: one, match: 'tcp,tcp_dts=22', action: drop}"), &[(6, "rule one: ")]);
    bad(&file("{name: one, match: in_port=h2, action: drop}"), &[(6, "h2")]);
    bad(&file("{name: one, match: tcp_dst=22, action: drop}"), &[(6, "rule one: ")]);
    bad(&file("{name: one, action: dorp}"), &[(6, "drop")]);
    bad(
        &file("{match: tcp, priority: 70000}"),
        &[(6, "priority: `70000`"), (6, "needs `name:`"), (6, "needs `action:`")],
    );
}

#[test]
fn unknown_words_come_with_their_line_and_the_nearest_known_one() {
    bad("lab: a\nlnks: []\nlinks: [[h1, s1]]\n", &[(2, "unknown key `lnks` in the topology; did you mean `links`?")]);
    bad("lab: a\nhosts: {h1: {ipp: 1}}\nlinks: []\n", &[(2, "unknown key `ipp` in a host; did you mean `ip`?")]);
    bad(
        "lab: a\nhosts: {h1: {}}\nswitches: {s1: {}}\nlinks:\n  - [h1, s1]\n  - [h1, s11]\n",
        &[(6, "`s11` is in no section of nodes; did you mean `s1`?")],
    );
    bad("lab: a\nlinks: [{ends: [h1, s1], colour: red}]\n", &[(2, "unknown key `colour` in a link; known: ends")]);
}

#[test]
fn every_mistake_is_reported_at_once() {
    bad(
        "lab: Hello\nseed: x\nlinks:\n  - [h1]\n  - 7\n",
        &[(1, "cannot name the lab"), (2, "seed: `x`"), (4, "has 1"), (5, "expected a mapping")],
    );
}

#[test]
fn what_comes_later_is_refused_by_name() {
    bad("lab: a\nuplink: {switch: s1}\nlinks: [[h1, s1]]\n", &[(2, "the uplink needs `mode: nat`, or `dev:`")]);
    bad("lab: a\nuplink: {mode: nat}\nlinks: [[h1, s1]]\n", &[(2, "the uplink needs `switch:`")]);
    bad("lab: a\nuplink: {switch: h1, mode: nat}\nlinks: [[h1, s1]]\n", &[(2, "switch: `h1` is no switch")]);
    bad("lab: a\nuplink: {switch: s1, mode: net}\nlinks: [[h1, s1]]\n", &[(2, "mode: there is no `net`")]);
    bad("lab: a\nuplink: {switch: s1, mode: nat, dev: eth0}\nlinks: [[h1, s1]]\n", &[(2, "mode: with `dev:`")]);
    bad("lab: a\nuplink: {switch: s1, dev: a/b}\nlinks: [[h1, s1]]\n", &[(2, "dev: `a/b` is not the name")]);
    bad("lab: a\nuplink: {switch: s1, mode: nat, vlan: x}\nlinks: [[h1, s1]]\n", &[(2, "vlan: there is no VLAN `x`")]);
    bad(
        "lab: a\nrouters: {r1: {nat: uplink}}\nswitches: {s1: {}}\nlinks: [[r1, s1]]\n",
        &[(2, "nat: the lab has no uplink")],
    );
    bad("lab: a\nlinks: [[h1, h2]]\n", &[(2, "a link between two hosts (h1, h2): not supported yet")]);
    bad("lab: a\nlinks: [[s1, s2], [s2, s3], [s1, s3]]\n", &[(2, "the link s1 - s3 closes a loop of switches")]);
}

#[test]
fn keys_that_ask_for_nothing_new_are_accepted() {
    good(
        "lab: a\nvlans: {blue: {dhcp: false}}\nhosts: {h1: {dhcp: false}}\nswitches: {s1: {stp: false}}\nlinks: [{ends: [h1, s1], access: null, down: false}]",
    );
}

#[test]
fn bad_values_are_refused_with_their_line() {
    bad("links: [[h1, s1]]\n", &[(1, "`lab:` is missing")]);
    bad("lab: a\n", &[(1, "`links:` is missing")]);
    bad("lab: a\nlinks: [[all, s1]]\n", &[(2, "cannot be named `all`")]);
    bad("lab: a\ndefaults: {mtu: 9}\nlinks: [[h1, s1]]\n", &[(2, "mtu: `9` is not a number from 68 to 65521")]);
    bad("lab: a\ndefaults: {subnet: 10.0.0.1/24}\nlinks: [[h1, s1]]\n", &[(2, "did you mean `10.0.0.0/24`?")]);
    bad("lab: a\ndefaults: {subnet: 10.0.0.0/31}\nlinks: [[h1, s1], [h2, s1], [h3, s1]]\n", &[(2, "left for `h3`")]);
    bad("lab: a\nhosts: {h1: {ip: 10.0.0.300}}\nswitches: {s1: {}}\nlinks: [[h1, s1]]\n", &[(2, "not an address")]);
    bad("lab: a\nhosts: {h1: {ip: 10.9.0.1}}\nswitches: {s1: {}}\nlinks: [[h1, s1]]\n", &[(2, "10.9.0.1/24")]);
    bad("lab: a\nhosts: {h1: {mac: '03:00:00:00:00:01'}}\nlinks: []\n", &[(2, "not a unicast MAC")]);
    bad("lab: a\nhosts: {h1: {}}\nlinks: []\n", &[(2, "`h1` is in no link")]);
    bad(
        "lab: a\nhosts: {x: {}}\nswitches: {x: {}}\nlinks: [[x, x]]\n",
        &[(2, "is a switch already"), (4, "to itself")],
    );
    bad("lab: a\nlinks: [['h1:eth01', s1], [h2, 's1:0']]\n", &[(2, "eth0 to eth999"), (2, "1 to 65279")]);
    bad("lab: a\nlinks: [[h1, 's1:3'], [h2, 's1:3']]\n", &[(2, "`s1:3` is used by another link")]);
    bad(
        "lab: a\nhosts: {h1: {ip: 10.0.0.5}, h2: {ip: 10.0.0.5}}\nswitches: {s1: {}}\nlinks: [[h1, s1], [h2, s1]]\n",
        &[(2, "ip 10.0.0.5 is given twice")],
    );
    bad("lab: a\ndefaults: {subnet6: 'fd00::/64', mtu: 600}\nlinks: [[h1, s1]]\n", &[(0, "IPv6 needs 1280")]);
}

#[test]
fn presets_build_what_they_say() {
    let linear = "linear,3".parse::<Preset>().unwrap().topology("l").unwrap();
    assert_eq!((linear.hosts.len(), linear.switches.len(), linear.links.len()), (3, 3, 5));
    assert!(matches!(&linear.links[3].ends, [End::Switch { switch: a, port: 2 }, End::Switch { switch: b, port: 2 }]
        if a == "s1" && b == "s2"));
    let tree = "tree,2,4".parse::<Preset>().unwrap().topology("t").unwrap();
    assert_eq!((tree.hosts.len(), tree.switches.len(), tree.links.len()), (16, 5, 20));
    let big = "single,300".parse::<Preset>().unwrap().topology("b").unwrap();
    assert_eq!(addresses(&big, "h300"), ["10.0.1.44/16"]);
}

#[test]
fn presets_of_routers_build_what_they_say() {
    let fabric = "leafspine,2,4".parse::<Preset>().unwrap().topology("f").unwrap();
    assert_eq!((fabric.hosts.len(), fabric.routers.len(), fabric.links.len()), (4, 6, 12));
    assert!(fabric.routers.iter().filter(|r| r.name.starts_with("leaf")).all(|leaf| leaf.routes[0].via.len() == 2));
    let ring = "ring,4".parse::<Preset>().unwrap().topology("r").unwrap();
    assert_eq!((ring.hosts.len(), ring.routers.len(), ring.links.len()), (4, 4, 8));
    let ways: Vec<_> = ring.routers[0].routes.iter().map(|route| route.via.len()).collect();
    assert_eq!(ways, [1, 2, 1], "the opposite one is as far either way");
}

#[test]
fn the_file_of_a_preset_makes_the_same_lab() {
    let largest = ["single,1000", "linear,30", "tree,2,9", "leafspine,8,32", "ring,30"];
    for text in ["single,3", "linear,3", "tree,2,3", "leafspine,2,3", "ring,5"].into_iter().chain(largest) {
        let preset = text.parse::<Preset>().unwrap();
        let (file, wanted) = (preset.file("x").unwrap(), preset.topology("x").unwrap());
        let made = parse(&file, &wanted.source).unwrap_or_else(|e| panic!("{text}: {:#?}", e.problems));
        assert_eq!(made, wanted, "{text}");
    }
}

#[test]
fn presets_out_of_range_say_what_is_allowed() {
    for (text, part) in [
        ("single", "single,HOSTS"),
        ("single,0", "no number from 1 up"),
        ("single,1001", "the most is 1000"),
        ("linear,31", "the most is 30"),
        ("tree,9,9", "the most is 1000"),
        ("tree,4294967295,1", "the most is"),
        ("star,3", "is no preset"),
        ("ring,2", "the least is 3"),
        ("ring,31", "the most is 30"),
        ("leafspine,9,2", "the most is 8"),
        ("leafspine,2,1", "the least is 2"),
    ] {
        let error = text.parse::<Preset>().unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_lab_that_is_too_large_is_refused() {
    let links: String = (0..5000).map(|n| format!("[h{n}, s1],")).collect();
    bad(&format!("lab: a\nlinks: [{links}]\n"), &[(1, "5000 links, the most is 4096")]);
}

#[test]
fn the_file_of_a_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(find(folder.path()).unwrap_err().to_string().contains("no topology file"));
    write("compose.yml", "services: {}\n");
    write("net.yml", "lab: net\nlinks: []\n");
    assert_eq!(find(folder.path()).unwrap(), Path::new("net.yml"));
    write("other.yaml", "lab: other\nlinks: [\n");
    assert!(find(folder.path()).unwrap_err().to_string().contains("net.yml, other.yaml"));
    write("office.lab.yml", "anything");
    assert_eq!(find(folder.path()).unwrap(), Path::new("office.lab.yml"));
}

#[test]
fn no_text_makes_the_parser_panic() {
    let file = "lab: a\nseed: 1\ndefaults: {mtu: 1500, subnet: 10.0.0.0/24, subnet6: 'fd00::/64'}\n\
                hosts: {h1: {ip: [10.0.0.9, 'fd00::9'], mac: '02:00:00:00:00:0b'}}\nswitches: {s1: {rules: [{name: a, action: drop}]}}\n\
                links: [[h1, 's1:3'], {ends: [h1, s1], name: x}]\n";
    assert!(parse(file, "t").is_ok());
    for end in 0..file.len() {
        let _ = parse(&file[..end], "t");
        let mut cut = file.to_owned();
        cut.remove(end);
        let _ = parse(&cut, "t");
    }
}

#[test]
fn impairments_hold_both_ways_unless_the_way_back_has_its_own() {
    let lab = good(
        "lab: a\nlinks:\n  - {ends: [h1, s1], delay: 20ms, loss: 0.5%, rate: 50mbit, queue: 100p, duplicate: 1%,\n\
         \x20    corrupt: 2%, reorder: 25%, back: {loss: 5%, rate: 1gbit, queue: 50ms, reorder: 0%}}\n",
    );
    let ways = lab.links[0].impairment.map(|way| {
        let differing = way.differing(&resolved::Impairment::default());
        differing.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(
        ways,
        [
            "delay=20ms loss=0.5% rate=50mbit queue=100p duplicate=1% corrupt=2% reorder=25%",
            "delay=20ms loss=5% rate=1gbit queue=50ms duplicate=1% corrupt=2%",
        ]
    );
}

#[test]
fn links_have_the_usual_impairments_unless_they_say_otherwise() {
    let lab = good(
        "lab: a\ndefaults:\n  link: {delay: 5ms, loss: 1%, back: {delay: 7ms}}\nlinks:\n  - [h1, s1]\n\
         \x20 - {ends: [h2, s1], loss: 0%}\n  - {ends: [h3, s1], delay: 2ms, back: {loss: 3%}}\n",
    );
    let ways = lab.links.iter().map(|link| {
        link.impairment.map(|way| {
            let differing = way.differing(&resolved::Impairment::default());
            differing.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        })
    });
    let ways: Vec<_> = ways.collect();
    assert_eq!(
        ways,
        [
            ["delay=5ms loss=1%", "delay=7ms loss=1%"],
            ["delay=5ms", "delay=7ms"],
            ["delay=2ms loss=1%", "delay=2ms loss=3%"],
        ]
    );
    bad("lab: a\ndefaults: {link: {mtu: 9}}\nlinks: []\n", &[(2, "unknown key `mtu` in `link` of defaults")]);
    bad("lab: a\ndefaults:\n  link: {loss: 5}\nlinks: []\n", &[(3, "loss: `5` is not a percentage")]);
}

#[test]
fn impairments_out_of_range_are_refused_with_their_line() {
    bad(
        "lab: a\nlinks:\n  - {ends: [h1, s1], loss: 101%,\n     duplicate: 5, rate: 1tb,\n     \
         back: {queue: 0p, delay: 61s,\n       corrupt: -1%}}\n",
        &[
            (3, "loss: `101%` is not a percentage like 0.5% or 12%, from 0% to 100%"),
            (4, "rate: `1tb` is not a rate like 50mbit"),
            (4, "duplicate: `5` is not a percentage"),
            (5, "delay: `61s` is not a time"),
            (5, "queue: `0p` is not a number of packets like 100p"),
            (6, "corrupt: `-1%` is not a percentage"),
        ],
    );
    bad("lab: a\nlinks: [{ends: [h1, s1], los: 1%}]\n", &[(2, "unknown key `los` in a link; did you mean `loss`?")]);
    let nothing = "reorder: without a delay there is nothing to overtake; set delay too";
    bad("lab: a\nlinks:\n  - {ends: [h1, s1],\n     reorder: 1%}\n", &[(4, nothing)]);
    bad("lab: a\nlinks:\n  - {ends: [h1, s1], delay: 1ms, reorder: 1%,\n     back: {delay: 0ms}}\n", &[(4, nothing)]);
}
