//! The plugin as a runtime meets it: environment, standard input and output, exit code. No privilege is needed, because
//! nothing here gets as far as a switch; what does is in the suite `cni` of the tests that span crates.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The variables of a container, less the command.
const CONTAINER: [(&str, &str); 4] =
    [("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/nowhere/netns"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere/bin")];

/// Runs the plugin with these variables only.
fn run(command: &str, variables: &[(&str, &str)], input: &[u8]) -> Output {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_sluice-cni"));
    plugin.env_clear().envs(variables.iter().copied());
    if !command.is_empty() {
        plugin.env("CNI_COMMAND", command);
    }
    let plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut plugin = plugin.expect("the plugin starts");
    // It may have answered before it has read everything.
    _ = plugin.stdin.take().expect("a pipe").write_all(input);
    plugin.wait_with_output().expect("it ends")
}

/// The one JSON object that a failure prints; the exit code is not zero.
fn failure(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    assert!(value["msg"].as_str().is_some_and(|m| !m.is_empty()), "{value}");
    value
}

fn code(output: &Output) -> u64 {
    failure(output)["code"].as_u64().expect("a code")
}

fn succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""), "{log}");
}

/// A configuration whose switch is away and whose files are in a folder.
fn config(version: &str, folder: &Path) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": "sluice-cni", "socket": folder.join("no.sock"),
        "dataDir": folder, "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}]], "dataDir": folder.join("host-local")},
    })
}

fn with(mut config: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn call(command: &str, config: &Value) -> Output {
    run(command, &CONTAINER, config.to_string().as_bytes())
}

/// In the plugin's own namespace, so that there is one.
fn call_here(command: &str, config: &Value) -> Output {
    let mut variables = CONTAINER.to_vec();
    variables[1].1 = "/proc/self/ns/net";
    variables.push(("CNI_NETNS_OVERRIDE", "1"));
    run(command, &variables, config.to_string().as_bytes())
}

#[test]
fn version_is_answered_whatever_is_on_standard_input() {
    for input in ["", "{", "no JSON", r#"{"cniVersion":"0.1.0"}"#, r#"{"cniVersion":"99"}"#, "[]", "\u{0}"] {
        let output = run("VERSION", &[], input.as_bytes());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}), "{input:?}");
        assert!(output.status.success());
    }
}

#[test]
fn each_missing_variable_is_named() {
    let needs: [(&str, &[&str]); 5] = [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
    ];
    for (command, names) in needs {
        for name in names {
            let variables: Vec<_> = CONTAINER.into_iter().filter(|(n, _)| n != name).collect();
            let said = failure(&run(command, &variables, b"{}"));
            assert_eq!(said["code"], 4, "{command} without {name}");
            assert_eq!(said["msg"], format!("required env variables [{name}] missing for {command}"));
        }
        let said = failure(&run(command, &[], b"{}"));
        assert_eq!(said["msg"], format!("required env variables [{}] missing for {command}", names.join(",")));
    }
    assert_eq!(failure(&run("", &CONTAINER, b"{}"))["msg"], "required env variables [CNI_COMMAND] missing");
    assert_eq!(code(&run("NONE", &CONTAINER, b"{}")), 4);
}

#[test]
fn names_that_are_not_valid_are_refused() {
    for (name, value) in [
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", ".."),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "longer-than-15-b"),
    ] {
        let mut variables = CONTAINER.to_vec();
        variables.retain(|(n, _)| *n != name);
        variables.push((name, value));
        for command in ["ADD", "DEL", "CHECK"] {
            let said = failure(&run(command, &variables, b"{}"));
            assert!(said["code"] == 4 && said["msg"].to_string().contains(value), "{command} {name}={value}: {said}");
        }
    }
}

#[test]
fn every_command_of_every_version_is_answered_in_that_version() {
    let folder = folder();
    for version in VERSIONS {
        let config = with(config(version, folder.path()), &json!({"prevResult": {}, "cni.dev/valid-attachments": []}));
        // ADD and CHECK find no namespace, GC and STATUS no switch. What the version does not have is refused first.
        let since = |least: &str, otherwise: u64| if version >= least { otherwise } else { 1 };
        for (command, wanted) in
            [("ADD", 8), ("CHECK", since("0.4.0", 8)), ("GC", since("1.1.0", 11)), ("STATUS", since("1.1.0", 50))]
        {
            let said = failure(&call(command, &config));
            assert_eq!(
                (said["code"].as_u64(), said["cniVersion"].as_str()),
                (Some(wanted), Some(version)),
                "{command}: {said}"
            );
        }
        succeeds(&call("DEL", &config));
    }
}

#[test]
fn a_version_that_nobody_knows_is_incompatible() {
    let folder = folder();
    for version in ["0.0.9", "1.2.0", "2.0.0", "1.1", "new"] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(code(&call(command, &config(version, folder.path()))), 1, "{command} {version}");
        }
    }
}

#[test]
fn a_configuration_without_a_version_is_of_the_first() {
    let folder = folder();
    let mut config = config("", folder.path());
    config.as_object_mut().expect("an object").remove("cniVersion");
    assert_eq!(code(&call("ADD", &config)), 8);
    assert_eq!(code(&call("CHECK", &config)), 1);
}

#[test]
fn what_is_no_configuration_cannot_be_decoded() {
    let whole = config("1.1.0", &folder().path().join("x")).to_string();
    let cut = (0..whole.len()).step_by(7).map(|end| whole[..end].to_owned());
    for input in cut.chain(["[]", "1", "null", "\"x\"", "{}}"].map(str::to_owned)) {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(code(&run(command, &CONTAINER, input.as_bytes())), 6, "{command}: {input:?}");
        }
    }
}

#[test]
fn deeply_nested_input_is_an_error_and_no_crash() {
    let deep = "[".repeat(100_000);
    assert_eq!(code(&run("ADD", &CONTAINER, deep.as_bytes())), 6);
    let inside = format!(r#"{{"cniVersion":"1.1.0","name":"n","x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(code(&run("ADD", &CONTAINER, inside.as_bytes())), 6);
}

#[test]
fn a_wrong_value_is_told_with_its_key_its_value_and_what_is_wanted() {
    let folder = folder();
    let cases = [
        (json!({"name": ""}), "name"),
        (json!({"name": "a/b"}), "name"),
        (json!({"bridge": "longer-than-15-b"}), "bridge"),
        (json!({"socket": "relative"}), "socket"),
        (json!({"dataDir": 5}), "dataDir"),
        (json!({"device": "macvlan"}), "device"),
        (json!({"vlan": 4095}), "vlan"),
        (json!({"vlan": -1}), "vlan"),
        (json!({"vlan": "100"}), "vlan"),
        (json!({"vlan": 100, "vlanTrunk": [{"id": 101}]}), "vlan"),
        (json!({"vlanTrunk": [{"id": 4095}]}), "vlanTrunk[0].id"),
        (json!({"vlanTrunk": [{"id": 1}, {"minID": 10}]}), "vlanTrunk[1].maxID"),
        (json!({"vlanTrunk": [{"maxID": 10}]}), "vlanTrunk[0].minID"),
        (json!({"vlanTrunk": [{"minID": 20, "maxID": 10}]}), "vlanTrunk[0].minID"),
        (json!({"vlanTrunk": [{"minID": 20, "maxID": 5000}]}), "vlanTrunk[0].maxID"),
        (json!({"vlanTrunk": [{}]}), "vlanTrunk[0].id"),
        (json!({"vlanTrunk": {"id": 1}}), "vlanTrunk"),
        (json!({"mtu": 67}), "mtu"),
        (json!({"mtu": 65536}), "mtu"),
        (json!({"mac": "01:00:00:00:00:01"}), "mac"),
        (json!({"mac": "00:00:00:00:00:00"}), "mac"),
        (json!({"runtimeConfig": {"mac": "02:00:00:00:01"}}), "runtimeConfig.mac"),
        (json!({"args": {"cni": {"mac": "x"}}}), "args.cni.mac"),
        (json!({"spoofGuard": "some"}), "spoofGuard"),
        (json!({"spoofGuard": "none", "macspoofchk": true}), "spoofGuard"),
        (json!({"isGateway": "yes"}), "isGateway"),
        (json!({"hairpinMode": true, "promiscMode": true}), "promiscMode"),
        (json!({"disableContainerInterface": true}), "disableContainerInterface"),
        (json!({"ipMasqExcept": ["10.0.0.0/33"]}), "ipMasqExcept"),
        (json!({"sysctl": {"kernel.hostname": "x"}}), "sysctl.kernel.hostname"),
        (json!({"sysctl": {"net.ipv4.ip_forward": true}}), "sysctl.net.ipv4.ip_forward"),
        (json!({"bandwidth": {"ingressRate": 1000}}), "bandwidth.ingressBurst"),
        (json!({"bandwidth": {"egressBurst": 1000}}), "bandwidth.egressRate"),
        (json!({"bandwidth": {"egressRate": 1, "egressBurst": 34_359_738_360_u64}}), "bandwidth.egressBurst"),
        (json!({"runtimeConfig": {"bandwidth": {"ingressRate": -5}}}), "runtimeConfig.bandwidth.ingressRate"),
        (
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 80}]}}),
            "runtimeConfig.portMappings[0].hostPort",
        ),
        (json!({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}), "runtimeConfig.portMappings[0].containerPort"),
        (
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}}),
            "runtimeConfig.portMappings[0].hostIP",
        ),
        (json!({"runtimeConfig": []}), "runtimeConfig"),
        (json!({"runtimeConfig": {"aliases": "one"}}), "runtimeConfig.aliases"),
        (json!({"ipam": {"type": "../host-local"}}), "ipam.type"),
    ];
    for (more, key) in cases {
        let said = failure(&call("ADD", &with(config("1.1.0", folder.path()), &more)));
        let msg = said["msg"].as_str().unwrap_or_default();
        assert!(said["code"] == 7 && msg.starts_with(key), "{more}: wanted {key}: {said}");
    }
    let sctp = json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "dccp"}]}});
    assert_eq!(code(&call("ADD", &with(config("1.1.0", folder.path()), &sctp))), 2);
}

#[test]
fn a_configuration_that_has_become_wrong_does_not_keep_del_from_cleaning_up() {
    let folder = folder();
    for more in [json!({"vlan": 5000}), json!({"device": "x"}), json!({"prevResult": {"cniVersion": "9"}})] {
        succeeds(&call("DEL", &with(config("1.1.0", folder.path()), &more)));
    }
}

#[test]
fn del_succeeds_twice_without_namespace_result_or_switch() {
    let folder = folder();
    let variables: Vec<_> = CONTAINER.into_iter().filter(|(name, _)| *name != "CNI_NETNS").collect();
    for _ in 0..2 {
        succeeds(&run("DEL", &variables, config("1.1.0", folder.path()).to_string().as_bytes()));
        succeeds(&call("DEL", &config("1.1.0", folder.path())));
    }
}

#[test]
fn a_namespace_that_is_none_or_our_own_is_refused() {
    let folder = folder();
    let prev = json!({"prevResult": {"interfaces": [{"name": "eth0", "sandbox": "/x"}]}});
    for (netns, wanted) in [("/nowhere", 8), ("/etc/passwd", 8), ("/proc/self/ns/pid", 8), ("/proc/self/ns/net", 8)] {
        let mut variables = CONTAINER.to_vec();
        variables[1].1 = netns;
        for command in ["ADD", "CHECK"] {
            let config = with(config("1.1.0", folder.path()), &prev);
            assert_eq!(code(&run(command, &variables, config.to_string().as_bytes())), wanted, "{command} {netns}");
        }
    }
}

#[test]
fn without_a_switch_add_and_check_are_to_be_tried_again() {
    let folder = folder();
    let prev = json!({"prevResult": {"interfaces": [{"name": "eth0", "sandbox": "/x", "mac": "02:00:00:00:00:01"}]}});
    assert_eq!(code(&call_here("ADD", &config("1.1.0", folder.path()))), 11);
    assert_eq!(code(&call_here("CHECK", &with(config("1.1.0", folder.path()), &prev))), 11);
    let left = std::fs::read_dir(folder.path().join("locks")).expect("the folder of locks").count();
    assert_eq!(left, 0, "no lock is left");
}

#[test]
fn check_needs_a_previous_result() {
    let folder = folder();
    let said = failure(&call_here("CHECK", &config("1.0.0", folder.path())));
    assert!(said["code"] == 7 && said["msg"].to_string().contains("prevResult"), "{said}");
    let bad = json!({"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "x"}]}});
    assert_eq!(code(&call_here("CHECK", &with(config("1.0.0", folder.path()), &bad))), 6);
}

#[test]
fn gc_takes_both_spellings_and_refuses_to_guess() {
    let folder = folder();
    for (more, wanted) in [
        (json!({"cni.dev/valid-attachments": "all"}), 7),
        (json!({"cni.dev/valid-attachments": [{"ifname": "eth0"}]}), 7),
        // From here on the list is understood, and the switch is what is missing.
        (json!({}), 11),
        (json!({"cni.dev/valid-attachments": []}), 11),
        (json!({"cni.dev/attachments": [{"containerID": "a", "ifname": "eth0"}]}), 11),
        (json!({"cni.dev/attachments": null}), 11),
    ] {
        assert_eq!(code(&call("GC", &with(config("1.1.0", folder.path()), &more))), wanted, "{more}");
    }
}

#[test]
fn cni_args_that_nobody_knows_are_refused_unless_they_may_be() {
    let folder = folder();
    let config = config("1.1.0", folder.path()).to_string();
    for (args, wanted) in [
        ("COLOUR=red", 4),
        ("COLOUR", 4),
        ("MAC=none", 4),
        ("IgnoreUnknown=1;COLOUR=red", 8),
        ("IgnoreUnknown=true;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d", 8),
        ("MAC=02:00:00:00:00:01;IP=10.77.0.9", 8),
    ] {
        let variables = [&CONTAINER[..], &[("CNI_ARGS", args)]].concat();
        assert_eq!(code(&run("ADD", &variables, config.as_bytes())), wanted, "{args}");
        if args.contains('=') {
            succeeds(&run("DEL", &variables, config.as_bytes()));
        }
    }
}
