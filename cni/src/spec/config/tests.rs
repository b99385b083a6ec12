//! What a configuration means, key by key. What is refused is in the tests of the binary.

use super::*;
use serde_json::json;
use std::ffi::OsString;

fn environment(args: &str) -> Environment {
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", args),
    ];
    Environment::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))).expect("whole")
}

fn read_with(args: &str, more: &Value) -> Config {
    let mut whole = json!({"cniVersion": "1.1.0", "name": "n", "type": "sluice-cni"});
    for (key, value) in more.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    Config::read(whole.to_string().as_bytes(), &environment(args)).expect("a configuration")
}

fn read(more: &Value) -> Config {
    read_with("", more)
}

const MACS: [&str; 4] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02-00-00-00-00-04"];

#[test]
fn the_smallest_configuration_gives_a_gateway_masquerade_and_the_whole_guard() {
    let config = read(&json!({"bridge": "br0", "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}]]}, "unknown": [1]}));
    assert_eq!(config.base.ipam, Ipam::Own);
    assert_eq!(config.base.socket, PathBuf::from("/run/sluice/switch.sock"));
    assert_eq!(config.base.data_dir, PathBuf::from("/var/lib/cni/sluice"));
    assert!(config.is_gateway && config.masquerade && config.tx_checksum);
    assert_eq!((config.default_route, config.guard, config.device), (None, Guard::Full, Device::Veth));
    assert_eq!((config.vlans.clone(), config.mtu, config.mac), (Vlans::All, None, None));
    assert!(!config.isolated && !config.hairpin && !config.dad && !config.disabled && !config.declared);
    assert!(read(&json!({"declared": true})).declared);
    assert_eq!(config.ranges, [Range { subnet: "10.77.0.0/24".parse().expect("a network"), gateway: None }]);
}

#[test]
fn without_ipam_there_are_no_addresses_and_another_type_is_delegated_to() {
    assert_eq!(read(&json!({})).base.ipam, Ipam::None);
    assert_eq!(read(&json!({"ipam": {}})).base.ipam, Ipam::None);
    assert_eq!(read(&json!({"ipam": null})).base.ipam, Ipam::None);
    let told = json!({"ipam": {}, "runtimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/24"}]]}});
    assert_eq!(read(&told).base.ipam, Ipam::Own);
    assert_eq!(read(&json!({"ipam": {"type": "sluice"}})).base.ipam, Ipam::Own);
    assert_eq!(read(&json!({"ipam": {"type": "host-local"}})).base.ipam, Ipam::Delegate("host-local".to_owned()));
}

#[test]
fn the_hardware_address_of_the_runtime_beats_args_those_cni_args_and_those_the_file() {
    let file = json!({"mac": MACS[0]});
    let args = json!({"mac": MACS[0], "args": {"cni": {"mac": MACS[2]}}});
    let all = json!({"mac": MACS[0], "args": {"cni": {"mac": MACS[2]}}, "runtimeConfig": {"mac": MACS[3]}});
    let cni_args = format!("MAC={}", MACS[1]);
    let last = |config: Config| config.mac.map(|mac| mac[5]);
    assert_eq!(last(read(&file)), Some(1));
    assert_eq!(last(read_with(&cni_args, &file)), Some(2));
    assert_eq!(last(read_with(&cni_args, &args)), Some(3));
    assert_eq!(last(read_with(&cni_args, &all)), Some(4));
    assert_eq!(last(read_with("MAC=", &json!({}))), None);
}

#[test]
fn limits_of_the_file_beat_those_of_the_runtime() {
    let runtime = json!({"bandwidth": {"ingressRate": 5, "ingressBurst": 4_294_967_295_u64, "egressRate": 0}});
    let told = read(&json!({"runtimeConfig": runtime})).bandwidth;
    assert_eq!((told.ingress_rate, told.ingress_burst, told.egress_rate), (5, 4_294_967_295, 0));
    let file = json!({"egressRate": 7, "egressBurst": 8});
    let both = read(&json!({"runtimeConfig": runtime, "bandwidth": file})).bandwidth;
    assert_eq!(both, Bandwidth { egress_rate: 7, egress_burst: 8, ..Bandwidth::default() });
}

#[test]
fn a_default_gateway_is_a_gateway() {
    let config = read(&json!({"isGateway": false, "isDefaultGateway": true}));
    assert!(config.is_gateway && config.default_route == Some(true));
    let none = read(&json!({"isGateway": false}));
    assert!(!none.is_gateway && none.default_route.is_none());
}

#[test]
fn a_trunk_is_all_ids_and_ranges_in_order_with_or_without_untagged_frames() {
    let trunk = json!([{"minID": 200, "maxID": 202}, {"id": 101}, {"id": 201}, {"id": 0}]);
    let tagged = vec![101, 200, 201, 202];
    assert_eq!(read(&json!({"vlanTrunk": trunk})).vlans, Vlans::Trunk { tagged: tagged.clone(), untagged: true });
    let only = json!({"vlanTrunk": trunk, "preserveDefaultVlan": false});
    assert_eq!(read(&only).vlans, Vlans::Trunk { tagged, untagged: false });
    assert_eq!(read(&json!({"vlan": 4094})).vlans, Vlans::Access(4094));
    assert_eq!(read(&json!({"vlan": 0, "vlanTrunk": []})).vlans, Vlans::All);
}

#[test]
fn the_guard_is_the_reference_plugins_when_only_that_is_asked_for() {
    assert_eq!(read(&json!({"macspoofchk": true})).guard, Guard::Mac);
    assert_eq!(read(&json!({"macspoofchk": false})).guard, Guard::Full);
    assert_eq!(read(&json!({"macspoofchk": true, "spoofGuard": "full"})).guard, Guard::Full);
    assert_eq!(read(&json!({"spoofGuard": "none"})).guard, Guard::None);
}

#[test]
fn host_ports_are_read_in_any_case_of_letters_and_port_0_is_none() {
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ""},
        {"hostPort": 0, "containerPort": 9090, "protocol": "tcp"},
        {"hostPort": 7, "containerPort": 7},
        {"HostPort": 8, "ContainerPort": 9, "Protocol": "sctp", "HostIP": "127.0.0.1"},
    ]);
    let read = read(&json!({"runtimeConfig": {"portMappings": mappings}})).port_mappings;
    let shown: Vec<_> =
        read.iter().map(|m| (m.host_port, m.container_port, m.protocol.to_string(), m.host_address)).collect();
    let local = Some(IpAddr::from([127, 0, 0, 1]));
    let wanted = [(8080, 80, "tcp", local), (5353, 53, "udp", None), (7, 7, "tcp", None), (8, 9, "sctp", local)];
    assert_eq!(shown, wanted.map(|(h, c, p, a)| (h, c, p.to_owned(), a)));
}

#[test]
fn pods_aliases_and_administrators_labels_are_kept() {
    let more = json!({
        "runtimeConfig": {"aliases": ["db", "primary"], "io.kubernetes.cri.pod-annotations": {"a": "b"}},
        "args": {"cni": {"labels": [{"key": "app", "value": "web"}]}},
    });
    let labels = read_with("K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-1;K8S_POD_UID=u;IgnoreUnknown=1;X=y", &more).labels;
    let wanted =
        [("aliases", "db,primary"), ("app", "web"), ("k8s.namespace", "prod"), ("k8s.pod", "web-1"), ("k8s.uid", "u")];
    assert_eq!(labels, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn the_runtimes_name_servers_beat_the_files() {
    let file = json!({"nameservers": ["10.0.0.1"], "domain": "local"});
    let told = json!({"dns": file, "runtimeConfig": {"dns": {"servers": ["10.0.0.2"], "searches": ["a"], "options": ["ndots:5"]}}});
    let dns = read(&told).dns;
    assert_eq!(
        (dns.nameservers, dns.search, dns.options),
        (vec!["10.0.0.2".into()], vec!["a".into()], vec!["ndots:5".into()])
    );
    assert_eq!(read(&json!({"dns": file, "runtimeConfig": {"dns": {}}})).dns.domain, "local");
}

#[test]
fn sysctls_are_the_networks_and_may_name_the_interface() {
    let config = read(&json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": 500}}));
    let wanted = [("net.core.somaxconn", "500"), ("net.ipv4.conf.eth0.arp_filter", "1")];
    assert_eq!(config.sysctls, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn ranges_are_those_of_the_file_the_runtime_and_all_pools() {
    let config = read(&json!({
        "ipam": {
            "subnet": "10.0.0.0/24", "gateway": "10.0.0.9", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}]],
            "pools": {"blue": [[{"subnet": "10.3.0.0/24"}]]},
        },
        "runtimeConfig": {"ipRanges": [[{"subnet": "fd00::/64"}]]},
    }));
    let shown: Vec<String> = config.ranges.iter().map(|r| r.subnet.to_string()).collect();
    assert_eq!(shown, ["10.0.0.0/24", "fd00::/64", "10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]);
    assert_eq!(config.ranges[0].gateway, Some(IpAddr::from([10, 0, 0, 9])));
}

#[test]
fn valid_attachments_are_read_by_the_newer_name_or_whichever_says_something() {
    let read = |value: &Value| valid_attachments(value.to_string().as_bytes(), "n").map(|all| all.len());
    let one = json!([{"containerID": "a", "ifname": "eth0"}]);
    assert_eq!(read(&json!({"cni.dev/valid-attachments": one, "cni.dev/attachments": null})), Ok(1));
    assert_eq!(read(&json!({"cni.dev/valid-attachments": null, "cni.dev/attachments": one})), Ok(1));
    assert_eq!(read(&json!({"cni.dev/valid-attachments": null})), Ok(0));
    assert_eq!(read(&json!({})), Ok(0), "as libcni says that none is valid");
}
