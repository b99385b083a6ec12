//! Results of every version, as text.

use super::*;
use serde_json::json;

/// A result with something in every place.
fn whole() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/run/netns/c1",
             "socketPath": "/run/x.sock", "pciID": "0000:00:1f.6"},
        ],
        "ips": [
            {"address": "10.77.0.2/24", "gateway": "10.77.0.1", "interface": 1},
            {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
            {"address": "10.78.0.2/24", "interface": 1},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.77.0.1", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100, "scope": 0},
            {"dst": "::/0"},
        ],
        "dns": {"nameservers": ["10.77.0.1"], "domain": "local", "search": ["a.local"], "options": ["ndots:5"]},
    })
}

fn read(value: &Value) -> AddResult {
    AddResult::read(value, Version::NEWEST).expect("a result")
}

#[test]
fn a_result_of_1_1_0_is_written_as_it_was_read() {
    assert_eq!(read(&whole()).to_json(Version::V1_1_0), whole());
}

#[test]
fn a_result_of_1_0_0_has_nothing_that_came_later() {
    let mut wanted = whole();
    wanted["cniVersion"] = "1.0.0".into();
    wanted["interfaces"] = json!([
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"},
    ]);
    wanted["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "10.77.0.1"}, {"dst": "::/0"}]);
    assert_eq!(read(&whole()).to_json(Version::V1_0_0), wanted);
}

#[test]
fn results_before_1_0_0_say_the_family_of_each_address() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let mut wanted = read(&whole()).to_json(Version::V1_0_0);
        wanted["cniVersion"] = version.as_str().into();
        for (ip, family) in wanted["ips"].as_array_mut().expect("a list").iter_mut().zip(["4", "6", "4"]) {
            ip["version"] = family.into();
        }
        let written = read(&whole()).to_json(version);
        assert_eq!(written, wanted, "{version}");
        assert_eq!(read(&written).to_json(version), wanted, "{version}: read and written again");
    }
}

#[test]
fn results_before_0_3_0_have_one_address_of_each_family() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let wanted = json!({
            "cniVersion": version.as_str(),
            "ip4": {"ip": "10.77.0.2/24", "gateway": "10.77.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.77.0.1"}]},
            "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
            "dns": {"nameservers": ["10.77.0.1"], "domain": "local", "search": ["a.local"], "options": ["ndots:5"]},
        });
        assert_eq!(read(&whole()).to_json(version), wanted);
    }
}

#[test]
fn a_result_before_0_3_0_is_read_with_its_routes_by_its_gateway() {
    let old = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.77.0.2/24", "gateway": "10.77.0.1", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.77.0.9"}]},
        "ip6": {"ip": "fd00::2/64"},
    });
    let wanted = json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.77.0.2/24", "gateway": "10.77.0.1"}, {"address": "fd00::2/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.77.0.1"}, {"dst": "10.9.0.0/16", "gw": "10.77.0.9"}],
        "dns": {},
    });
    assert_eq!(read(&old).to_json(Version::V1_1_0), wanted);
}

#[test]
fn a_result_without_a_version_has_the_one_that_is_meant() {
    let old = json!({"ip4": {"ip": "10.77.0.2/24"}});
    let ips = |otherwise| AddResult::read(&old, otherwise).map(|r| r.ips.len());
    assert_eq!(ips(Version::V0_2_0), Ok(1));
    assert_eq!(ips(Version::V1_1_0), Ok(0));
}

#[test]
fn nulls_empty_texts_and_minus_one_are_nothing() {
    let odd = json!({
        "cniVersion": "1.1.0", "interfaces": null, "routes": [{"dst": "10.0.0.0/8", "gw": "", "mtu": 0}],
        "ips": [{"address": "10.77.0.2/24", "gateway": "", "interface": -1}], "dns": {"nameservers": null},
    });
    let result = read(&odd);
    assert_eq!((result.ips[0].gateway, result.ips[0].interface), (None, None));
    assert_eq!(result.routes, [Route::via("10.0.0.0/8".parse().expect("a network"), None)]);
    assert!(result.dns.is_empty() && result.interfaces.is_empty());
}

#[test]
fn what_is_no_result_is_refused_with_the_reason() {
    let cases = [
        (json!({"cniVersion": "9.9.9"}), Code::IncompatibleVersion),
        (json!({"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.2"}]}), Code::Decode),
        (json!({"cniVersion": "1.0.0", "ips": [{"gateway": "10.77.0.2"}]}), Code::Decode),
        (
            json!({"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.2/24", "interface": 1}], "interfaces": [{"name": "a"}]}),
            Code::Decode,
        ),
        (json!({"cniVersion": "1.0.0", "ips": "many"}), Code::Decode),
        (json!({"cniVersion": "0.2.0", "ip4": {"ip": "300.0.0.1/8"}}), Code::Decode),
        (json!([1, 2]), Code::Decode),
    ];
    for (value, code) in cases {
        let refused = AddResult::read(&value, Version::NEWEST).map_err(Failure::from);
        assert!(refused.clone().is_err_and(|e| e.is(code)), "{value}: {refused:?}");
    }
}
