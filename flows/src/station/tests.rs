use super::*;
use crate::consistency;
use crate::text::{Names, show_flow};

fn station() -> Station {
    Station {
        port: PortNo(5),
        mac: 0x0242_0a4d_0005,
        addresses: ["10.77.0.5", "10.78.0.5", "fd77::5", "fd78::5"].map(|a| a.parse().unwrap()).into(),
        guard: Guard::Full,
        hairpin: true,
        owner: Station::owner_of(Some(("shop", "cart-0")), "0123456789abcdef"),
    }
}

#[test]
fn every_flow_is_consistent_and_stands_alone_with_its_match_and_priority() {
    let flows = station().flows();
    for (i, flow) in flows.iter().enumerate() {
        consistency::check(flow.table, &flow.matches, &flow.actions)
            .unwrap_or_else(|error| panic!("{}: {error}", show_flow(flow, None, &Names::new())));
        let same = |other: &&FlowSpec| {
            (other.table, other.priority, &other.matches) == (flow.table, flow.priority, &flow.matches)
        };
        assert_eq!(flows.iter().position(|other| same(&other)), Some(i), "twice: {flow:?}");
        assert_eq!(flow.owner.text(), "pod:shop/cart-0");
    }
}

#[test]
fn a_link_local_address_is_made_of_the_mac_address() {
    assert_eq!(station().link_local().to_string(), "fe80::42:aff:fe4d:5");
}

#[test]
fn the_owner_is_the_pod_or_else_the_container() {
    assert_eq!(Station::owner_of(None, "0123456789abcdef").text(), "container:0123456789ab");
    assert_eq!(Station::owner_of(None, "web").text(), "container:web");
}
