//! ADD, DEL, CHECK, GC and STATUS of our own management.

use super::*;

#[test]
fn the_first_address_is_the_one_after_the_gateway_and_the_result_says_all() {
    let mut net = Net::subnet("10.77.0.0/24");
    net.conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.77.0.9", "mtu": 1400}]);
    let resolv = net.dir.path().join("resolv.conf");
    write(&resolv, "nameserver 10.77.0.53\nsearch example\n");
    net.conf["ipam"]["resolvConf"] = json!(resolv);
    let result = net.result("c1").expect("ADD");
    assert_eq!(
        serde_json::to_value(&result).expect("JSON"),
        json!({
            "ips": [{"address": "10.77.0.2/24", "gateway": "10.77.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.77.0.9", "mtu": 1400}],
            "dns": {"nameservers": ["10.77.0.53"], "search": ["example"]},
        })
    );
}

#[test]
fn a_second_add_of_the_same_interface_is_an_error_and_another_interface_gets_another_address() {
    let net = Net::subnet("10.77.0.0/24");
    assert_eq!(net.one("c1"), "10.77.0.2");
    let why = net.why("c1");
    assert!(why.contains("10.77.0.2") && why.contains("already"), "{why}");
    let own = net.own("c1").expect("a configuration");
    let (second, _) = own.add(&net.who("c1", "net1"), "", &net.at).expect("another interface");
    assert_eq!(second.ips[0].address.to_string(), "10.77.0.3/24");
    assert_eq!(net.del("c1"), ["10.77.0.2".parse::<IpAddr>().expect("an address")], "of eth0 only");
    assert!(own.check(&net.who("c1", "net1"), &[]).is_ok());
    assert!(own.check(&net.who("c1", "eth0"), &[]).is_err());
}

#[test]
fn addresses_go_round_past_what_is_released_and_come_again_after_all_others() {
    let mut net = Net::subnet("10.77.0.0/29");
    let given: Vec<String> = (0..5).map(|n| net.one(&format!("c{n}"))).collect();
    assert_eq!(given, ["10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.5", "10.77.0.6"]);
    assert!(net.why("c9").contains("no address is left in ipam.ranges[0] (10.77.0.1-10.77.0.6): all 5 are taken"));
    net.del("c3");
    net.at.now_ms += 1;
    net.del("c1");
    assert_eq!(net.one("d1"), "10.77.0.5", "it has rested the longest, and nothing else is free");
    assert_eq!(net.one("d2"), "10.77.0.3");
    assert!(net.add("d3").is_err());
}

#[test]
fn a_released_address_rests_while_others_are_free_and_no_longer_than_the_cooldown() {
    let mut net = Net::new(json!({"ranges": [[{"subnet": "10.77.0.0/29"}]], "cooldown": 10}));
    assert_eq!((net.one("a"), net.one("b")), ("10.77.0.2".into(), "10.77.0.3".into()));
    net.del("a");
    net.at.now_ms += 9_999;
    assert_eq!([net.one("c"), net.one("d"), net.one("e")], ["10.77.0.4", "10.77.0.5", "10.77.0.6"]);
    net.del("d");
    net.at.now_ms += 1;
    net.del("e");
    // The round goes on after .6; .2 is over its time, and .5 and .6 are not.
    assert_eq!(net.one("f"), "10.77.0.2");
    assert_eq!(net.one("g"), "10.77.0.5", "released before .6");
}

#[test]
fn a_clock_that_is_set_back_keeps_no_address_from_use() {
    let mut net = Net::new(json!({"ranges": [[{"subnet": "10.77.0.0/29"}]], "cooldown": 10}));
    net.one("a");
    net.del("a");
    net.at.now_ms -= 500_000;
    net.one("b");
    let counts = net.own("x").expect("a configuration").counts().expect("counts");
    assert_eq!((counts[0].used, counts[0].cooling, counts[0].free), (1, 0, 4));
}

#[test]
fn dual_stack_gives_one_of_each_set_and_nothing_if_one_set_has_none() {
    let net = Net::new(json!({"ranges": [
        [{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.10", "rangeEnd": "10.77.0.20", "gateway": "10.77.0.254"}],
        [{"subnet": "fd00:77::/64", "rangeStart": "fd00:77::2", "rangeEnd": "fd00:77::3"}],
    ]}));
    assert_eq!(net.add("a").expect("both"), ["10.77.0.10", "fd00:77::2"]);
    assert_eq!(net.add("b").expect("both"), ["10.77.0.11", "fd00:77::3"]);
    assert!(net.why("c").contains("fd00:77::2-fd00:77::3"));
    let counts = net.own("x").expect("a configuration").counts().expect("counts");
    assert_eq!(counts[0].used, 2, "no address of the first set is left over");
    net.del("a");
    assert_eq!(net.add("c").expect("both"), ["10.77.0.12", "fd00:77::2"]);
}

#[test]
fn a_set_with_several_ranges_is_gone_through_in_order_and_each_has_its_gateway() {
    let mut net = Net::new(json!({"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}));
    let results: Vec<AddResult> = ["a", "b"].iter().map(|id| net.result(id).expect("ADD")).collect();
    assert_eq!(results[0].ips[0].address.to_string(), "10.1.0.2/30");
    assert_eq!(results[1].ips[0].address.to_string(), "10.2.0.2/30");
    assert_eq!(results[1].ips[0].gateway, Some("10.2.0.1".parse().expect("an address")));
    assert!(net.add("c").is_err());
    net.del("b");
    net.at.now_ms += 1;
    net.del("a");
    assert_eq!(net.one("c"), "10.2.0.2", "it was released first");
}

#[test]
fn exclusions_gateways_and_reservations_are_skipped() {
    let net = Net::new(json!({
        "ranges": [[{"subnet": "10.77.0.0/24", "gateway": "10.77.0.4"}]],
        "exclude": ["10.77.0.1", "10.77.0.5-10.77.0.6", "10.77.0.8/29"],
        "reservations": {"shop/db": "10.77.0.3"},
    }));
    assert_eq!([net.one("a"), net.one("b"), net.one("c")], ["10.77.0.2", "10.77.0.7", "10.77.0.16"]);
}

#[test]
fn a_reservation_is_for_its_name_only_whichever_way_the_name_is_given() {
    let mut net = Net::new(json!({
        "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]],
        "reservations": {"shop/db": ["10.77.0.3", "fd00:77::3"], "box": "10.77.0.9", "printer": "10.77.0.30"},
    }));
    assert_eq!(net.add("box").expect("by ID"), ["10.77.0.9", "fd00:77::2"]);
    net.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db".into();
    assert_eq!(net.add("c1").expect("by pod"), ["10.77.0.3", "fd00:77::3"]);
    let held = net.add("c2").expect_err("the pod's old sandbox has it");
    assert!(crate::error::Failure::from(held).is(crate::error::Code::TryAgainLater));
    net.del("c1");
    assert_eq!(net.add("c2").expect("at once, although it rests"), ["10.77.0.3", "fd00:77::3"]);
    net.args = "NAME=printer".into();
    assert_eq!(net.add("c3").expect("by CNI_ARGS")[0], "10.77.0.30");
    net.del("c3");
    net.args.clear();
    for labels in [json!([{"key": "name", "value": "printer"}]), json!({"name": "printer"})] {
        net.conf["args"] = json!({"cni": {"labels": labels}});
        assert_eq!(net.add("c3").expect("by label")[0], "10.77.0.30");
        net.del("c3");
    }
    net.conf["args"] = json!({"cni": {"ips": ["10.77.0.3"]}});
    assert!(net.why("c4").contains("reserved for shop/db"));
}

#[test]
fn fixed_addresses_are_given_by_each_of_the_three_ways() {
    for way in 0..3 {
        let mut net = Net::new(json!({"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]}));
        match way {
            0 => net.args = "IP=10.77.0.99".into(),
            1 => net.conf["args"] = json!({"cni": {"ips": ["10.77.0.99"]}}),
            _ => net.conf["runtimeConfig"] = json!({"ips": ["10.77.0.99/24"]}),
        }
        assert_eq!(net.add("a").expect("ADD"), ["10.77.0.99", "fd00:77::2"], "way {way}");
        let taken = net.why("b");
        assert!(taken.contains("10.77.0.99 is taken by container a, eth0"), "{taken}");
    }
}

#[test]
fn all_that_is_asked_for_is_granted_or_nothing_is_reserved() {
    let mut net = Net::new(
        json!({"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "10.78.0.0/24"}]], "exclude": ["10.78.0.7"]}),
    );
    net.conf["runtimeConfig"] = json!({"ips": ["10.77.0.5", "10.78.0.6"]});
    assert_eq!(net.add("a").expect("both"), ["10.77.0.5", "10.78.0.6"]);
    for (ips, says) in [
        (json!(["10.77.0.8", "10.78.0.1"]), "the gateway's"),
        (json!(["10.77.0.8", "10.78.0.7"]), "excludes"),
        (json!(["10.77.0.8", "10.78.0.6"]), "taken"),
        (json!(["10.77.0.8", "10.79.0.1"]), "10.79.0.1 cannot be given"),
        (json!(["10.77.0.8", "10.77.0.9"]), "10.77.0.9 cannot be given"),
        (json!(["10.77.0.8", "10.78.0.0/24x"]), "not an address"),
        (json!(["10.77.0.8", "10.78.0.255"]), "cannot be given"),
    ] {
        net.conf["runtimeConfig"]["ips"] = ips;
        let why = net.why("b");
        assert!(why.contains(says), "{why}");
    }
    net.conf["runtimeConfig"]["ips"] = json!(["10.77.0.8"]);
    assert_eq!(net.add("b").expect("it is still free")[0], "10.77.0.8");
}

#[test]
fn ranges_of_the_capability_come_first_then_the_old_keys_then_the_list() {
    let mut net = Net::new(json!({
        "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.50", "gateway": "10.2.0.254",
        "ranges": [[{"subnet": "10.3.0.0/24"}]],
    }));
    net.conf["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.1.0/24"}]]});
    assert_eq!(net.add("a").expect("three"), ["10.1.0.2", "10.2.0.50", "10.3.0.2"]);
}

#[test]
fn del_and_gc_release_under_a_configuration_that_makes_no_sense_any_more() {
    let mut net = Net::subnet("10.77.0.0/24");
    let open = |net: &Net, command: Command, id: &str| {
        let environment = Environment {
            command,
            container_id: id.into(),
            netns: None,
            ifname: "eth0".into(),
            args: CniArgs::parse("IP=x;POOL=y").expect("pairs"),
            path: Vec::new(),
            netns_override: false,
        };
        Ipam::open(net.conf.to_string().as_bytes(), &environment)
    };
    let networks = net.conf["ipam"]["dataDir"].clone();
    net.at.boot_id = reclaim::boot_id();
    for ipam in [
        json!({"ranges": [[{"subnet": "10.77.0.0/31"}]], "pool": "gone", "dataDir": networks}),
        json!({"dataDir": networks}),
    ] {
        net.conf["ipam"] = json!({"ranges": [[{"subnet": "10.77.0.0/24"}]], "dataDir": networks});
        net.one("a");
        net.one("b");
        net.conf["ipam"] = ipam;
        open(&net, Command::Del, "a").and_then(|i| i.del()).expect("DEL");
        let freed = open(&net, Command::Gc, "").and_then(|i| i.gc([])).expect("GC");
        assert_eq!(freed.len(), 1, "{freed:?}");
    }
}

#[test]
fn a_first_add_that_is_refused_leaves_a_store_that_can_be_read() {
    let mut net = Net::subnet("10.77.0.0/24");
    net.args = "IP=10.77.0.1".into();
    assert!(net.add("a").is_err());
    assert!(
        net.own("a")
            .expect("a configuration")
            .check(&net.who("a", "eth0"), &[])
            .is_err_and(|e| matches!(e, IpamError::Differs { .. }))
    );
}

#[test]
fn a_pool_by_name_is_used_instead_of_the_ranges() {
    let mut net = Net::new(json!({
        "ranges": [[{"subnet": "10.1.0.0/24"}]],
        "pools": {"blue": [[{"subnet": "10.2.0.0/24"}]], "red": [[{"subnet": "10.3.0.0/24"}]]},
        "pool": "blue",
    }));
    assert_eq!(net.one("a"), "10.2.0.2");
    net.args = "POOL=red".into();
    assert_eq!(net.one("b"), "10.3.0.2");
    net.args = "POOL=green".into();
    assert!(net.why("c").contains("blue, red"));
}

#[test]
fn a_change_of_ranges_keeps_what_is_reserved_and_gives_nothing_outside() {
    let mut net = Net::subnet("10.77.0.0/24");
    net.one("a");
    net.conf["ipam"]["ranges"] = json!([[{"subnet": "10.88.0.0/24"}]]);
    assert_eq!(net.one("b"), "10.88.0.2");
    let own = net.own("a").expect("a configuration");
    assert!(own.check(&net.who("a", "eth0"), &["10.77.0.2".parse().expect("an address")]).is_ok());
    net.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.0.0/30"}]]);
    assert!(net.why("c").contains("all 1 are taken"));
    net.del("a");
    assert_eq!(net.one("c"), "10.77.0.2");
}

#[test]
fn check_compares_the_result_with_what_is_reserved() {
    let net = Net::subnet("10.77.0.0/24");
    net.one("a");
    let own = net.own("a").expect("a configuration");
    let ip = |t: &str| [t.parse::<IpAddr>().expect("an address")];
    assert!(own.check(&net.who("a", "eth0"), &ip("10.77.0.2")).is_ok());
    let why = own.check(&net.who("a", "eth0"), &ip("10.77.0.3")).expect_err("another address").to_string();
    assert!(why.contains("10.77.0.3") && why.contains("10.77.0.2"), "{why}");
    assert!(own.check(&net.who("b", "eth0"), &[]).is_err());
    assert!(
        own.check(&net.who("a", "eth0"), &ip("192.0.2.1")).is_ok(),
        "another plugin's address is not ours to judge"
    );
}

#[test]
fn gc_releases_what_is_not_valid_in_this_network_only() {
    let mut net = Net::subnet("10.77.0.0/24");
    net.one("a");
    net.one("b");
    net.conf["name"] = json!("other");
    net.one("b");
    net.conf["name"] = json!("net");
    let own = net.own("").expect("a configuration");
    let freed = own.gc(&[("a", "eth0"), ("b", "net1")].into(), &net.at).expect("GC");
    assert_eq!(freed.iter().map(|r| r.address.to_string()).collect::<Vec<_>>(), ["10.77.0.3"]);
    assert_eq!(own.gc(&[("a", "eth0")].into(), &net.at).expect("GC"), []);
    assert_eq!(own.gc(&[].into(), &net.at).expect("an empty list is all").len(), 1);
    net.conf["name"] = json!("other");
    assert!(net.own("").expect("a configuration").check(&net.who("b", "eth0"), &[]).is_ok());
}

#[test]
fn status_says_that_a_set_is_exhausted_and_writes_nothing() {
    let net = Net::subnet("10.77.0.0/30");
    let own = net.own("").expect("a configuration");
    assert!(own.status(&net.at).is_ok());
    assert!(!net.dir.path().join("store").exists());
    net.one("a");
    let full = crate::error::Failure::from(own.status(&net.at).expect_err("none is left"));
    assert!(full.is(crate::error::Code::PoolExhausted), "{full}");
    net.del("a");
    assert!(own.status(&net.at).is_ok(), "what rests can be given");
}

#[test]
fn counts_add_up() {
    let net = Net::new(json!({
        "ranges": [[{"subnet": "10.77.0.0/28"}], [{"subnet": "fd00::/64"}]],
        "exclude": ["10.77.0.14"], "reservations": {"x": "10.77.0.13"},
    }));
    let own = net.own("").expect("a configuration");
    let four = |c: &Count| (c.size, c.used, c.cooling, c.free);
    assert_eq!(four(&own.counts().expect("counts")[0]), (12, 1, 0, 11), "a reservation is kept");
    for id in ["a", "b", "c"] {
        net.add(id).expect("ADD");
    }
    net.del("b");
    let counts = own.counts().expect("counts");
    assert_eq!(four(&counts[0]), (12, 3, 1, 8));
    assert_eq!(four(&counts[1]), ((1 << 64) - 2, 2, 1, (1 << 64) - 5));
}

#[test]
fn a_reboot_frees_on_two_proofs_and_never_on_one() {
    let mut net = Net::subnet("10.77.0.0/24");
    let add = |net: &Net, id: &str, netns: &str| {
        net.own(id).expect("a configuration").add(&net.who(id, "eth0"), netns, &net.at).expect("ADD")
    };
    add(&net, "gone", "/nowhere/netns");
    add(&net, "there", "/proc/self/ns/net");
    add(&net, "pathless", "");
    assert_eq!(add(&net, "same-boot", "/nowhere/netns").1, [], "no reboot, no reclaim");
    net.at.boot_id = "boot-2".into();
    let (result, reclaimed) = add(&net, "new", "/nowhere/netns");
    assert_eq!(result.ips[0].address.to_string(), "10.77.0.6/24", "round robin goes on");
    let freed: Vec<&str> = reclaimed.iter().map(|r| r.owner.container_id.as_str()).collect();
    assert_eq!(freed, ["gone", "same-boot"]);
    let held = |id: &str| net.own(id).expect("a configuration").check(&net.who(id, "eth0"), &[]).is_ok();
    assert!(held("there") && held("pathless") && held("new") && !held("gone"));
    assert_eq!(add(&net, "newer", "").1, [], "once after each boot");
}

#[test]
fn status_after_a_reboot_does_not_call_left_over_reservations_an_exhausted_pool() {
    let mut net = Net::subnet("10.77.0.0/30");
    net.one("a");
    let own = net.own("").expect("a configuration");
    assert!(own.status(&net.at).is_err());
    net.at.boot_id = "boot-2".into();
    assert_eq!(own.status(&net.at).expect("there is room").len(), 1);
    assert_eq!(net.one("b"), "10.77.0.2");
}

#[test]
fn configurations_that_make_no_sense_are_refused_with_what_to_write_instead() {
    for (ipam, says) in [
        (json!({"ranges": []}), "there is no range"),
        (json!({"type": "sluice"}), "there is no range"),
        (json!({"ranges": [[]]}), "no range in the set"),
        (json!({"ranges": [[{"rangeStart": "10.0.0.2"}]]}), "there is no subnet"),
        (json!({"rangeStart": "10.0.0.2"}), "need a subnet"),
        (json!({"subnet": "10.0.0.1/24"}), "the network is 10.0.0.0/24"),
        (json!({"subnet": "10.0.0.0/31"}), "too small"),
        (json!({"subnet": "fd00::/127"}), "too small"),
        (json!({"subnet": "ten"}), "not an address and a prefix length"),
        (json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}), "rangeStart 10.0.1.1 is not in subnet"),
        (json!({"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}), "rangeEnd fd00::1 is not in subnet"),
        (json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}), "is after"),
        (json!({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}), "gateway 10.0.1.1 is not in subnet"),
        (json!({"subnet": "10.0.0.0/24", "gateway": "fe80::1"}), "family"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}), "two families"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/16"}]]}), "overlaps"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]]}), "overlaps"),
        (json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.5-10.0.0.4"]}), "exclude"),
        (json!({"subnet": "10.0.0.0/24", "exclude": ["x"]}), "exclude"),
        (json!({"subnet": "10.0.0.0/24", "reservations": {"a": "10.0.1.4"}}), "in no range"),
        (json!({"subnet": "10.0.0.0/24", "reservations": {"a": "10.0.0.1"}}), "the gateway's"),
        (json!({"subnet": "10.0.0.0/24", "reservations": {"a": "10.0.0.4", "b": ["10.0.0.4"]}}), "\"a\" too"),
        (json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "x"}]}), "cannot be read"),
        (json!({"subnet": 7}), "cannot be read"),
    ] {
        let text = ipam.to_string();
        let why = Net::new(ipam).own("c").err().unwrap_or_else(|| panic!("{text} is taken")).to_string();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn null_is_as_if_the_key_were_not_there_and_unknown_keys_are_tolerated() {
    let net = Net::new(json!({
        "type": "", "ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": null, "gateway": "", "colour": 1}]], "routes": null,
        "exclude": null, "reservations": null, "pools": null, "cooldown": null, "resolvConf": "", "subnet": null, "x": {},
    }));
    assert_eq!(net.one("a"), "10.0.0.2");
    let nobody =
        |text: &str| matches!(Conf::read(text.as_bytes(), &CniArgs::default(), "c"), Ok(Conf { kind: Kind::None, .. }));
    assert!(
        nobody(r#"{"name":"n"}"#)
            && nobody(r#"{"name":"n","ipam":{}}"#)
            && nobody(r#"{"name":"n","ipam":null,"args":null}"#)
    );
}

#[test]
fn a_gateway_on_the_link_need_not_be_in_the_subnet() {
    let net = Net::new(json!({"ranges": [[{"subnet": "fd00::/64", "gateway": "fe80::1"}]]}));
    assert_eq!(net.one("a"), "fd00::1", "no address of the subnet is the gateway's");
}

#[test]
fn the_last_address_of_each_family_is_given() {
    let v4 = Net::new(json!({"ranges": [[{"subnet": "255.255.255.0/24", "rangeStart": "255.255.255.254"}]]}));
    assert_eq!(v4.one("a"), "255.255.255.254");
    assert!(v4.add("b").is_err());
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let v6 = Net::new(json!({"ranges": [[{"subnet": "ffff:ffff:ffff:ffff::/64", "rangeStart": last}]]}));
    assert_eq!(v6.one("a"), last);
    assert!(v6.add("b").is_err());
    v6.del("a");
    assert_eq!(v6.one("b"), last);
}
