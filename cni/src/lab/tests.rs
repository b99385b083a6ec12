//! What a configuration becomes, without a lab that runs.

use super::*;
use crate::spec::CniArgs;

fn environment(command: Command) -> Environment {
    Environment {
        command,
        container_id: "c1".to_owned(),
        netns: None,
        ifname: "eth0".to_owned(),
        args: CniArgs::default(),
        path: Vec::new(),
        netns_override: false,
    }
}

fn office() -> Topology {
    let interface = |address: &str, vlan: &str, gateway: Option<&str>| json!({"mtu": 1400, "addresses": [address], "vlan": vlan, "gateways": gateway.into_iter().collect::<Vec<_>>()});
    serde_json::from_value(json!({
        "hosts": [
            {"name": "h1", "interfaces": [interface("10.0.10.2/24", "blue", Some("10.0.10.1"))]},
            {"name": "h2", "interfaces": [{"mtu": 1500, "addresses": ["10.0.0.7/24", "fd00::7/64"], "vlan": null}]}
        ],
        "routers": [{"name": "r1", "inside": null, "interfaces": [
            interface("10.0.10.1/24", "blue", None), interface("10.0.20.1/24", "green", None)
        ]}],
        "switches": [{"name": "s1"}, {"name": "s2"}],
        "vlans": [
            {"name": "blue", "id": 10, "subnet": "10.0.10.0/24", "subnet6": null, "gateway": "r1"},
            {"name": "green", "id": 20, "subnet": "10.0.20.0/24", "subnet6": null, "gateway": "r1"}
        ],
        "dhcp": [{"vlan": "blue", "address": "10.0.10.254/24"}]
    }))
    .unwrap()
}

fn filled(config: Value) -> Result<Value, String> {
    let Value::Object(mut config) = config else { panic!("an object") };
    let switch = config.remove("switch").unwrap();
    let result = office().fill(&mut config, switch.as_str().unwrap(), "office", true, &environment(Command::Add));
    result.map(|()| config.into()).map_err(|failure| failure.to_string())
}

#[test]
fn a_container_has_the_place_of_a_host_of_its_vlan() {
    // The lower half of a network with a DHCP server is that server's.
    let blue = json!({"subnet": "10.0.10.0/24", "rangeStart": "10.0.10.128"});
    let green = json!({"subnet": "10.0.20.0/24"});
    for (vlan, id, range, gateway) in [("blue", 10, blue, "10.0.10.1"), ("green", 20, green, "10.0.20.1")] {
        let config = filled(json!({"switch": "s2", "vlan": vlan})).unwrap();
        assert_eq!((&config["vlan"], &config["mtu"]), (&json!(id), &json!(1400)), "{config}");
        assert_eq!(config["ipam"]["ranges"], json!([[range]]));
        assert_eq!(config["ipam"]["routes"], json!([{"dst": "0.0.0.0/0", "gw": gateway}]));
        assert!(config["ipam"]["exclude"].as_array().unwrap().contains(&json!("10.0.10.2")), "{config}");
        assert!(config["ipam"]["exclude"].as_array().unwrap().contains(&json!("10.0.10.254")), "{config}");
    }
    // Without a VLAN it is among the hosts without one.
    let config = filled(json!({"switch": "s1"})).unwrap();
    assert_eq!(config["ipam"]["ranges"], json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]));
    assert_eq!((&config["ipam"]["routes"], config.get("vlan")), (&json!([]), None));
}

#[test]
fn what_the_file_says_is_kept() {
    let said = json!({"switch": "s1", "vlan": 10, "mtu": 1300, "ipam": {"subnet": "10.9.0.0/24"}});
    let config = filled(said).unwrap();
    assert_eq!((&config["ipam"], &config["mtu"]), (&json!({"subnet": "10.9.0.0/24"}), &json!(1300)));
    assert_eq!(filled(json!({"switch": "s1", "ipam": {}})).unwrap()["ipam"], json!({}), "no addresses");
}

#[test]
fn what_the_lab_does_not_have_is_told_with_what_it_has() {
    for (config, said) in [
        (json!({"switch": "s9"}), "the lab office has no switch named s9"),
        (json!({"switch": "s1", "vlan": "red"}), "the lab office has no VLAN named red"),
    ] {
        let failure = filled(config).unwrap_err();
        assert!(failure.contains(said) && failure.contains("one of: "), "{failure}");
    }
}

#[test]
fn a_lab_that_does_not_run_keeps_nobody_from_leaving_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = |lab: &str| json!({"name": "n", "type": "sluice-cni", "lab": lab, "switch": "s1", "vlan": "blue"});
    let input = config(folder.path().to_str().unwrap()).to_string();
    let enter = |command| enter(input.as_bytes(), &environment(command));
    let call = enter(Command::Del).unwrap().unwrap();
    let left: Value = serde_json::from_slice(&call.input).unwrap();
    assert!(call.is_gone && left.get("lab").is_none() && left.get("vlan").is_none(), "{left}");
    for (command, code) in [(Command::Add, Code::TryAgainLater), (Command::Status, Code::NotAvailable)] {
        let failure = enter(command).err().unwrap();
        assert!(failure.is(code) && failure.msg.ends_with("does not run"), "{failure}");
    }
    let failure = super::enter(br#"{"lab": "../x", "switch": "s1"}"#, &environment(Command::Add)).err().unwrap();
    assert!(failure.is(Code::InvalidConfig), "{failure}");
    assert!(super::enter(br#"{"name": "n"}"#, &environment(Command::Add)).unwrap().is_none(), "no lab is named");
}
