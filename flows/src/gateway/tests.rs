use super::*;
use crate::consistency;
use crate::text::{Names, show_flow};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn gateway() -> Gateway {
    let mac = 0x0200_0000_0001;
    Gateway {
        port: PortNo::LOCAL,
        mac,
        link_mac: Gateway::link_mac_of(mac),
        zone: 65_520,
        masquerades: vec![
            Masquerade {
                inside: vec![net("10.77.0.0/24"), net("10.78.0.0/24")],
                except: vec![net("192.0.2.0/24")],
                address: "169.254.77.2".parse().unwrap(),
                ports: Some((40_000, 50_000)),
            },
            Masquerade {
                inside: vec![net("fd77::/64")],
                except: vec![],
                address: "fd73:6c75:6963::2".parse().unwrap(),
                ports: None,
            },
        ],
        routed: vec![],
        internal: vec![],
        closed: vec![],
        own: vec![],
        incoming: vec![],
        services: vec![],
        first_table: FIRST_TABLE,
    }
}

/// The flows as text, without the masquerade of IPv6.
fn texts(stage: Stage) -> Vec<String> {
    let mut gateway = gateway();
    gateway.masquerades.truncate(1);
    let flows = gateway.flows().into_iter().filter(|flow| flow.table == gateway.table(stage));
    flows.map(|flow| show_flow(&flow, None, &Names::new()).to_string()).collect()
}

#[test]
fn every_flow_is_consistent_and_stands_alone_with_its_match_and_priority() {
    let gateway = gateway();
    let flows = gateway.flows();
    for flow in &flows {
        consistency::check(flow.table, &flow.matches, &flow.actions)
            .unwrap_or_else(|error| panic!("{}: {error}", show_flow(flow, None, &Names::new())));
        assert_eq!(flow.owner, Gateway::owner());
    }
    for (i, flow) in flows.iter().enumerate() {
        let same = |other: &&FlowSpec| {
            (other.table, other.priority, &other.matches) == (flow.table, flow.priority, &flow.matches)
        };
        let first = flows.iter().position(|other| same(&other));
        assert_eq!(first, Some(i), "twice: {}", show_flow(flow, None, &Names::new()));
    }
}

#[test]
fn flows_of_one_priority_that_overlap_do_the_same() {
    let flows = gateway().flows();
    for (i, a) in flows.iter().enumerate() {
        for b in &flows[i + 1..] {
            let meet = (a.table, a.priority) == (b.table, b.priority) && a.matches.overlaps(&b.matches);
            assert!(!meet || a.actions == b.actions, "{a:?}\n{b:?}");
        }
    }
}

#[test]
fn a_new_connection_remembers_its_mac_address_and_gets_the_links_address() {
    let begin = texts(Stage::Begin);
    let new = begin.iter().find(|flow| flow.contains("nw_src=10.77.0.0/24")).unwrap();
    let wanted = "table=203, priority=70,ct_state=+new+trk,ip,nw_src=10.77.0.0/24 \
         actions=ct(commit,table=204,zone=65520,nat(src=169.254.77.2:40000-50000),\
         exec(move:NXM_OF_ETH_SRC[]->NXM_NX_CT_LABEL[0..47]))";
    assert_eq!(new, wanted);
}

#[test]
fn exceptions_stay_and_strangers_are_dropped() {
    let to_host = texts(Stage::ToHost);
    let wanted = "table=202, priority=140,ip,nw_src=10.78.0.0/24,nw_dst=192.0.2.0/24 actions=NORMAL";
    assert!(to_host.iter().any(|flow| flow == wanted), "{to_host:#?}");
    assert!(to_host.iter().any(|flow| flow == "table=202, priority=0 actions=drop"), "{to_host:#?}");
}

#[test]
fn without_a_masquerade_there_are_no_flows() {
    let gateway = Gateway { masquerades: Vec::new(), ..gateway() };
    assert_eq!(gateway.flows(), []);
}

#[test]
fn the_links_mac_address_is_a_stations_and_not_the_hosts() {
    for mac in [0, 0x0200_0000_0001, 0xfeff_ffff_ffff] {
        let link = Gateway::link_mac_of(mac);
        assert_ne!(link, mac);
        assert_eq!(link >> 40 & 1, mac >> 40 & 1, "not of a group");
        assert_eq!(link >> 41 & 1, 1, "locally administered");
    }
}

#[test]
fn the_tables_are_in_a_row_and_fit() {
    let gateway = gateway();
    let tables: Vec<_> = Stage::ALL.map(|stage| gateway.table(stage).get()).to_vec();
    assert_eq!(tables, [200, 201, 202, 203, 204, 205]);
    let fits = |n| Gateway::fits(TableId::new(n).unwrap());
    assert!(!fits(0) && fits(1) && fits(249) && !fits(250));
    // Names that a bridge takes.
    for name in gateway.names() {
        let name = name.name.unwrap();
        crate::bridge_mod::check_table_name(&name).unwrap();
    }
}

/// A gateway that serves, with networks of every kind.
fn serving() -> Gateway {
    let address = |text: &str| text.parse().unwrap();
    let service = |incoming: &str, to: &str, port: u16| Service {
        address: address(incoming),
        protocol: 6,
        port,
        to: address(to),
        to_port: 80,
        mac: 0x0200_0000_0011,
    };
    Gateway {
        routed: vec![net("10.79.0.0/24")],
        internal: vec![net("10.80.0.0/24"), net("fd80::/64")],
        closed: vec![net("10.66.0.0/24")],
        own: ["10.77.0.1", "10.79.0.1", "10.80.0.1", "fd77::1", "fd80::1"].map(address).to_vec(),
        incoming: ["169.254.77.3", "fd73:6c75:6963::3"].map(address).to_vec(),
        services: vec![
            service("169.254.77.3", "10.77.0.11", 8080),
            service("169.254.77.3", "10.79.0.11", 8081),
            service("fd73:6c75:6963::3", "fd77::11", 8080),
        ],
        ..gateway()
    }
}

/// Another one of the same bridge.
fn beside() -> Gateway {
    let mac = 0x0200_0000_0002;
    let masquerade = Masquerade {
        inside: vec![net("10.90.0.0/24")],
        except: vec![],
        address: "169.254.77.4".parse().unwrap(),
        ports: None,
    };
    Gateway { port: PortNo(20), mac, link_mac: Gateway::link_mac_of(mac), masquerades: vec![masquerade], ..gateway() }
}

#[test]
fn gateways_of_one_bridge_go_together() {
    let flows = flows_of(&[serving(), beside()]);
    for (i, a) in flows.iter().enumerate() {
        consistency::check(a.table, &a.matches, &a.actions)
            .unwrap_or_else(|error| panic!("{}: {error}", show_flow(a, None, &Names::new())));
        for b in &flows[i + 1..] {
            let meet = (a.table, a.priority) == (b.table, b.priority) && a.matches.overlaps(&b.matches);
            assert!(!meet || a.actions == b.actions, "{a:?}\n{b:?}");
        }
    }
    let serving = serving();
    let served = flows.iter().filter(|flow| flow.table == serving.table(Stage::Served));
    let texts: Vec<_> = served.map(|flow| show_flow(flow, None, &Names::new()).to_string()).collect();
    // What is no answer is as everybody else's, the other gateway's networks included.
    for wanted in [
        "table=206, priority=190,ct_state=+est+trk actions=NORMAL",
        "table=206, priority=150,ip,nw_dst=10.90.0.0/24 actions=NORMAL",
        "table=206, priority=170,ip,nw_src=10.80.0.0/24 actions=drop",
        "table=206, priority=165,ip,nw_dst=10.66.0.0/24 actions=drop",
        "table=206, priority=130,ip,nw_src=10.79.0.0/24 actions=NORMAL",
    ] {
        assert!(texts.iter().any(|text| text == wanted), "{wanted} is not in {texts:#?}");
    }
}

#[test]
fn a_connection_to_a_service_leads_to_its_station_and_notes_where_that_is() {
    let gateway = serving();
    let texts: Vec<_> = gateway.flows().iter().map(|flow| show_flow(flow, None, &Names::new()).to_string()).collect();
    let wanted = "table=201, priority=110,ct_state=+new+trk-dnat,tcp,nw_dst=169.254.77.3,tp_dst=8080 \
         actions=ct(commit,table=201,zone=65520,nat(dst=10.77.0.11:80),\
         exec(set_field:0x20000000011/0xffffffffffff->ct_label))";
    assert!(texts.iter().any(|text| text == wanted), "{texts:#?}");
    let wanted = "table=202, priority=190,tcp,nw_src=10.79.0.11,tp_src=80 actions=ct(table=206,zone=65520,nat)";
    assert!(texts.iter().any(|text| text == wanted), "{texts:#?}");
}
