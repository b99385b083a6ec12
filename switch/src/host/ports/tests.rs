use super::*;

fn port(address: Option<&str>, protocol: u8, port: u16) -> HostPort {
    let address: Option<IpAddr> = address.map(|a| a.parse().unwrap());
    HostPort { v6: address.is_some_and(|a| a.is_ipv6()), address, protocol, port }
}

fn desired() -> HostPorts {
    HostPorts {
        incoming: vec!["169.254.77.3".parse().unwrap(), "fd73:6c75:6963::3".parse().unwrap()],
        hidden: vec!["169.254.77.2".parse().unwrap()],
        ports: [
            (port(None, IP_PROTO_TCP, 80), 80),
            (port(Some("192.0.2.1"), IP_PROTO_UDP, 53), 1024),
            (HostPort { v6: true, ..port(None, IP_PROTO_SCTP, 5) }, 5),
        ]
        .into(),
    }
}

/// The table as `nft` would list it.
fn listed(desired: &HostPorts) -> Vec<Value> {
    let mut objects = table("br0", desired);
    for command in elements("sluice-ports-br0", "add", &desired.ports.keys().copied().collect::<Vec<_>>(), |port| {
        desired.ports.get(port).copied()
    }) {
        let element = &command["add"]["element"];
        let map = objects.iter_mut().find(|object| object["map"]["name"] == element["name"]).unwrap();
        map["map"]["elem"] = element["elem"].clone();
    }
    objects.iter_mut().for_each(|object| {
        let body = object.as_object_mut().unwrap().values_mut().next().unwrap();
        body["handle"] = json!(7);
    });
    objects
}

#[test]
fn a_table_as_it_is_to_be_needs_nothing() {
    let found = judge("br0", &desired(), &listed(&desired()));
    assert_eq!(found, Found::Has(desired().ports));
    assert_eq!(change("br0", &desired(), &found).unwrap(), None);
}

#[test]
fn a_host_without_names_of_protocols_lists_them_by_numbers() {
    let text = Value::from(listed(&desired())).to_string();
    let by_number = text.replace("\"tcp\"", "6").replace("\"udp\"", "17").replace("\"sctp\"", "132");
    assert_ne!(by_number, text);
    let objects: Vec<Value> = serde_json::from_str(&by_number).unwrap();
    assert_eq!(judge("br0", &desired(), &objects), Found::Has(desired().ports));
}

#[test]
fn one_port_more_is_one_element_more() {
    let mut more = desired();
    more.ports.insert(port(Some("2001:db8::1"), IP_PROTO_TCP, 443), 443);
    more.ports.insert(port(None, IP_PROTO_TCP, 80), 81);
    let found = judge("br0", &desired(), &listed(&desired()));
    let wanted = Change::Elements {
        delete: vec![port(None, IP_PROTO_TCP, 80)],
        add: vec![(port(None, IP_PROTO_TCP, 80), 81), (port(Some("2001:db8::1"), IP_PROTO_TCP, 443), 443)],
    };
    let change = change("br0", &more, &found).unwrap().unwrap();
    assert_eq!(change, wanted);
    let said = "delete host ports tcp 0.0.0.0:80, add host ports tcp 0.0.0.0:80, tcp [2001:db8::1]:443 in";
    assert_eq!(change.to_string(), said);
}

#[test]
fn a_table_that_others_changed_is_written_anew_and_anothers_is_left_alone() {
    let mut objects = listed(&desired());
    objects.pop();
    let found = judge("br0", &desired(), &objects);
    assert_eq!(change("br0", &desired(), &found).unwrap(), Some(Change::Write));
    let mut objects = listed(&desired());
    objects.last_mut().unwrap()["rule"]["comment"] = json!("mine");
    let found = judge("br0", &desired(), &objects);
    assert_eq!(found, Found::Foreign);
    let refused = change("br0", &desired(), &found).unwrap_err().to_string();
    assert!(refused.contains("sluice-ports-br0"), "{refused}");
    assert_eq!(change("br0", &HostPorts::default(), &found).unwrap(), None);
}

#[test]
fn without_ports_there_is_no_table() {
    let nothing = HostPorts::default();
    assert_eq!(change("br0", &nothing, &Found::Nothing).unwrap(), None);
    assert_eq!(change("br0", &nothing, &Found::Differs).unwrap(), Some(Change::Delete));
}
