use super::*;

fn parse(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
    Config::parse(text, Path::new("node.toml"))
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").unwrap(), (Config::default(), Vec::new()));
}

#[test]
fn all_keys_are_taken() {
    let text = r#"
        node_name = "node-1"
        bridge = "br7"
        socket = "/run/s.sock"
        state = "/var/state"
        api_servers = ["https://172.30.0.1:6443"]
        mode = "hybrid"
        tunnel = "vxlan"
        no_snat = true
        masquerade_except = ["10.0.0.1/8"]
        mtu = 1400
        transport_interface = "eth1"
        transport_cidrs = ["172.30.0.0/24"]
        service_cidrs = ["10.96.0.0/16"]
        node_port_addresses = ["192.0.2.1/24"]
        cni_conf_dir = "/c"
        cni_bin_dir = "/b"
        policy_source = "node"
        metrics_address = "127.0.0.1:1"
        metrics_pods = true
        log = "debug"
    "#;
    let (config, warnings) = parse(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let network = |text: &str| vec![text.parse::<IpNet>().unwrap()];
    let wanted = Config {
        node_name: Some("node-1".to_owned()),
        bridge: "br7".to_owned(),
        socket: PathBuf::from("/run/s.sock"),
        state: PathBuf::from("/var/state"),
        api_servers: vec!["https://172.30.0.1:6443".to_owned()],
        mode: Mode::Hybrid,
        tunnel: Tunnel::Vxlan,
        tunnel_port: 4789,
        no_snat: true,
        masquerade_except: network("10.0.0.0/8"),
        mtu: Some(1400),
        transport_interface: Some("eth1".to_owned()),
        transport_cidrs: network("172.30.0.0/24"),
        service_cidrs: network("10.96.0.0/16"),
        node_port_addresses: NodePortAddresses::Networks(network("192.0.2.0/24")),
        cni_conf_dir: PathBuf::from("/c"),
        cni_bin_dir: PathBuf::from("/b"),
        policy_source: PolicySource::Node,
        metrics_address: "127.0.0.1:1".parse().unwrap(),
        metrics_pods: true,
        log: "debug".to_owned(),
    };
    assert_eq!(config, wanted);
}

#[test]
fn node_ports_are_kept_to_networks_or_to_the_primary_addresses() {
    let of = |text: &str| parse(text).map(|(config, _)| config.node_port_addresses).map_err(|e| e.to_string());
    assert_eq!(of("node_port_addresses = []"), Ok(NodePortAddresses::All));
    assert_eq!(of("node_port_addresses = [\"primary\"]"), Ok(NodePortAddresses::Primary));
    for bad in ["primary\", \"10.0.0.0/8", "192.0.2.1", "eth0"] {
        let error = of(&format!("node_port_addresses = [\"{bad}\"]")).unwrap_err();
        assert!(error.ends_with("networks, such as \"192.0.2.0/24\", or \"primary\" alone"), "{error}");
    }
}

#[test]
fn an_unknown_key_is_a_warning() {
    let (config, warnings) = parse("bridges = \"x\"\ntunnel_port = 7000").unwrap();
    assert_eq!(config.tunnel_port, 7000);
    assert_eq!(warnings, ["node.toml: the key bridges is not known and does nothing"]);
}

#[test]
fn errors_say_key_value_what_is_allowed_and_file() {
    for (text, wanted) in [
        ("mode = \"fast\"", "mode = \"fast\" in node.toml: one of encap, no-encap, hybrid"),
        ("tunnel_port = 0", "tunnel_port = 0 in node.toml: a number from 1 to 65535"),
        ("mtu = 100", "mtu = 100 in node.toml: 0 for that of the transport interface, or 1280 to 65000"),
        ("no_snat = 1", "no_snat = 1 in node.toml: true or false"),
        ("state = \"here\"", "state = \"here\" in node.toml: an absolute path"),
        ("api_servers = [\"http://a\"]", "api_servers = \"http://a\" in node.toml: URLs that begin with https://"),
        (
            "service_cidrs = [\"10.96.0.0/33\"]",
            "service_cidrs = \"10.96.0.0/33\" in node.toml: networks, such as \"10.0.0.0/8\" or \"fd00::/48\"",
        ),
        ("bridge = \"a name that is too long\"", "bridge = \"a name that is too long\" in node.toml: an interface's"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
    let error = parse("mode =").unwrap_err().to_string();
    assert!(error.starts_with("node.toml is not TOML: "), "{error}");
    let error = Config::load(Path::new("/nowhere/node.toml")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/node.toml: "), "{error}");
}
