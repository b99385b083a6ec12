//! Other plugins that manage addresses: the reference's own, and small scripts that answer as told.

use super::*;
use crate::error::{Code, Failure};
use crate::spec::Command;
use std::os::unix::fs::PermissionsExt;

/// Where Debian's `containernetworking-plugins` are.
const REFERENCE: &str = "/usr/lib/cni";

fn environment(id: &str, path: &[&Path]) -> Environment {
    Environment {
        command: Command::Add,
        container_id: id.into(),
        netns: Some("/run/netns/none".into()),
        ifname: "eth0".into(),
        args: CniArgs::default(),
        path: path.iter().map(|p| p.to_path_buf()).collect(),
        netns_override: false,
    }
}

fn reference(conf: &Value, id: &str) -> Result<Ipam, IpamError> {
    Ipam::open(conf.to_string().as_bytes(), &environment(id, &[Path::new("/nowhere"), Path::new(REFERENCE)]))
}

/// A plugin that answers with this script.
fn script(dir: &Path, body: &str) -> Value {
    let program = dir.join("scripted");
    write(&program, &format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    json!({"cniVersion": "1.1.0", "name": "net", "type": "sluice-cni", "ipam": {"type": "scripted"}})
}

fn scripted(conf: &Value, dir: &Path) -> Ipam {
    Ipam::open(conf.to_string().as_bytes(), &environment("c1", &[dir])).expect("a plugin")
}

fn failure<T: std::fmt::Debug>(result: Result<T, IpamError>) -> Failure {
    result.expect_err("it fails").into()
}

#[test]
fn the_references_host_local_gives_checks_and_releases_in_every_version_that_it_speaks() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let dir = tempfile::tempdir().expect("a folder");
        let ipam = json!({"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": dir.path(), "routes": [{"dst": "0.0.0.0/0"}]});
        let conf = json!({"cniVersion": version, "name": "net", "type": "sluice-cni", "ipam": ipam});
        let ipam = reference(&conf, "c1").expect("host-local is installed (containernetworking-plugins)");
        let result = ipam.add().unwrap_or_else(|e| panic!("{version}: {e}"));
        assert_eq!(result.ips[0].address.to_string(), "10.1.2.2/24", "{version}");
        assert_eq!(result.ips[0].gateway, Some("10.1.2.1".parse().expect("an address")));
        assert_eq!(result.routes.len(), 1);
        assert!(ipam.check(&[]).is_ok());
        assert!(ipam.status().is_ok() && ipam.gc([]).is_ok(), "not asked for before 1.1.0");
        ipam.del().expect("DEL");
        ipam.del().expect("DEL again");
        assert!(!dir.path().join("net/10.1.2.2").exists());
        if version >= "0.4.0" {
            assert!(failure(ipam.check(&[])).msg.contains("c1"));
        }
    }
}

#[test]
fn what_the_references_host_local_has_given_is_taken_over_with_its_owner() {
    let mut net = Net::subnet("10.1.2.0/24");
    let mut conf = net.conf.clone();
    conf["cniVersion"] = json!("1.0.0");
    conf["ipam"]["type"] = json!("host-local");
    for id in ["c1", "c2"] {
        reference(&conf, id).expect("host-local").add().expect("ADD");
    }
    net.at.now_ms = now().now_ms;
    assert_eq!(net.one("ours"), "10.1.2.4");
    let report = net.own("").expect("a configuration").migrate(false, &net.at).expect("a migration");
    assert_eq!((report.moved.len(), report.left.len(), report.directory_removed), (2, 0, true));
    assert_eq!(net.del("c1"), ["10.1.2.2".parse::<IpAddr>().expect("an address")]);
}

#[test]
fn errors_of_the_reference_plugins_are_passed_on_with_their_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    let conf =
        |version: &str, ipam: Value| json!({"cniVersion": version, "name": "net", "type": "sluice-cni", "ipam": ipam});
    let local = |subnet: &str| json!({"type": "host-local", "subnet": subnet, "dataDir": dir.path()});
    let old = failure(reference(&conf("1.1.0", local("10.1.2.0/24")), "c1").expect("found").add());
    assert!(old.is(Code::IncompatibleVersion) && old.msg.contains("incompatible"), "{old}");
    let small = failure(reference(&conf("1.0.0", local("10.1.2.0/31")), "c1").expect("found").add());
    assert!(small.code >= 100 && small.msg.contains("too small"), "{small}");
    let dhcp = failure(
        reference(&conf("1.0.0", json!({"type": "dhcp", "daemonSocketPath": "/nowhere/dhcp.sock"})), "c1")
            .expect("found")
            .add(),
    );
    assert!(dhcp.msg.contains("/nowhere/dhcp.sock"), "{dhcp}");
}

#[test]
fn static_addresses_come_with_routes_and_dns() {
    let ipam = json!({
        "type": "static", "addresses": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"address": "fd00::3/64"}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["192.0.2.53"]},
    });
    let conf = json!({"cniVersion": "0.3.1", "name": "net", "type": "sluice-cni", "ipam": ipam});
    let result = reference(&conf, "c1").expect("static is installed").add().expect("ADD");
    assert_eq!(result.ips.len(), 2);
    assert_eq!(result.ips[1].gateway, None);
    assert_eq!((result.routes.len(), result.dns.nameservers), (1, vec!["192.0.2.53".to_owned()]));
}

#[test]
fn a_plugin_that_is_not_there_is_told_with_where_it_was_looked_for() {
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "no-such"}});
    let away = failure(reference(&conf, "c1"));
    assert!(away.is(Code::Delegate) && away.msg.contains("/nowhere:/usr/lib/cni"), "{away}");
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "../bin/sh"}});
    assert!(failure(reference(&conf, "c1")).is(Code::InvalidConfig));
}

#[test]
fn the_plugin_has_all_of_standard_input_and_the_environment_of_the_operation() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut conf = script(
        dir.path(),
        r#"cat > "$CNI_PATH/stdin"; echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" > "$CNI_PATH/env"
           echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.9/24"}]}'"#,
    );
    conf["filler"] = json!("x".repeat(300_000));
    let ipam = scripted(&conf, dir.path());
    assert_eq!(ipam.add().expect("ADD").ips[0].address.to_string(), "10.1.2.9/24");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("a file");
    assert_eq!(read("stdin"), conf.to_string());
    assert_eq!(read("env"), "ADD c1 eth0 /run/netns/none\n");
    for (command, run) in [
        ("DEL", Ipam::del as fn(&Ipam) -> Result<(), IpamError>),
        ("CHECK", |i| i.check(&[])),
        ("GC", |i| i.gc([]).map(drop)),
        ("STATUS", Ipam::status),
    ] {
        run(&ipam).expect(command);
        assert!(read("env").starts_with(&format!("{command} ")), "{command}");
    }
}

#[test]
fn a_plugin_that_does_not_know_a_command_is_said_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let conf = script(dir.path(), r#"echo "{\"code\": 4, \"msg\": \"unknown CNI_COMMAND: $CNI_COMMAND\"}"; exit 1"#);
    let ipam = scripted(&conf, dir.path());
    for (command, why) in [("GC", failure(ipam.gc([]))), ("STATUS", failure(ipam.status()))] {
        assert!(why.is(Code::Delegate) && why.msg.contains(&format!("does not know {command}")), "{why}");
    }
}

#[test]
fn answers_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    for (body, says) in [
        ("exit 3", "without saying why (exit status: 3)"),
        ("kill -9 $$", "signal: 9"),
        ("echo nothing", "no JSON"),
        ("echo '{\"cniVersion\":\"7.0.0\"}'", "7.0.0"),
        ("echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"x\"}]}'", "cannot be used"),
    ] {
        let conf = script(dir.path(), body);
        let why = failure(scripted(&conf, dir.path()).add());
        assert!(why.msg.contains(says), "{body}: {why}");
    }
    let conf = script(dir.path(), r#"echo '{"cniVersion":"1.1.0","code":11,"msg":"later","details":"much"}'; exit 1"#);
    let later = failure(scripted(&conf, dir.path()).status());
    assert_eq!((later.code, later.msg.as_str(), later.details.as_str()), (11, "later", "much"));
}
