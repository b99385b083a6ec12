use super::*;

const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const BOB: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

fn two_peers() -> Vec<(&'static str, &'static str)> {
    vec![
        ("listen_port", "51821"),
        ("peer.a.allowed_ips", "10.1.0.0/24, 2001:db8:1::/64"),
        ("peer.a.endpoint", "[2001:db8::1]:51820"),
        ("peer.a.public_key", ALICE),
        ("peer.b.persistent_keepalive", "25"),
        ("peer.b.preshared_key_file", "/etc/psk"),
        ("peer.b.public_key", BOB),
        ("private_key", PRIVATE),
    ]
}

#[test]
fn options_read_back_as_they_were_written_but_for_secrets() {
    let options = WireguardOptions::parse(two_peers()).unwrap();
    let mut shown = two_peers();
    shown.last_mut().unwrap().1 = "(hidden)";
    let said = options.options();
    assert_eq!(said.iter().map(|(k, v)| (&**k, v.as_str())).collect::<Vec<_>>(), shown);
    assert_eq!((options.listen_port, options.mtu, options.peers.len()), (51821, DEFAULT_MTU, 2));
    assert_eq!(options.peers["a"].allowed_ips.len(), 2);
    assert_eq!(options.peers["b"].persistent_keepalive, 25);
    assert!(!format!("{options:?}").contains(PRIVATE));
}

#[test]
fn what_is_wrong_is_told_by_name_and_never_by_secret() {
    let with = |name, value| WireguardOptions::parse(two_peers().into_iter().chain([(name, value)])).unwrap_err();
    for (name, value) in [
        ("private_key", "a secret but no key"),
        ("peer.a.preshared_key", "a secret but no key"),
        ("private_key_file", "/etc/key"),
        ("listen_port", "0"),
        ("mtu", "67"),
        ("peer.a.public_key", "x"),
        ("peer.b.public_key", ALICE),
        ("peer.a.endpoint", "192.0.2.1"),
        ("peer.a.allowed_ips", "10.0.0.0/33"),
        ("peer.b.allowed_ips", "10.1.0.0/24"),
        ("peer.a.persistent_keepalive", "-1"),
        ("peer.c.endpoint", "192.0.2.1:1"),
        ("peer.c d.endpoint", "192.0.2.1:1"),
        ("peer.endpoint", "192.0.2.1:1"),
        ("peer..endpoint", "192.0.2.1:1"),
        ("peer.a", "x"),
        ("remote_ip", "192.0.2.1"),
    ] {
        let text = with(name, value).to_string();
        assert!(text.contains(name.trim_end_matches("_file")) || name == "peer.c.endpoint", "{name}={value}: {text}");
        assert!(!text.contains("a secret") && !text.contains(PRIVATE), "{text}");
    }
    let missing = WireguardOptions::parse([]).unwrap_err().to_string();
    assert_eq!(missing, "a port of type wireguard needs option `private_key_file`");
}

#[test]
fn a_change_leaves_the_rest_as_it_is() {
    let before = WireguardOptions::parse(two_peers()).unwrap();
    let after = before.changed([("peer.b", ""), ("private_key_file", "/etc/key"), ("peer.a.endpoint", "")]).unwrap();
    assert_eq!(after.private_key, KeySource::File("/etc/key".into()));
    assert_eq!(after.peers.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(after.peers["a"].endpoint, None);
    assert_eq!(after.listen_port, 51821);
    assert!(before.changed([("peer.c", "")]).is_err());
    assert!(before.changed([("private_key", "")]).is_err());
}
