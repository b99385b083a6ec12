//! The order in which things are listed never matters.

use super::*;
use proptest::prelude::*;

/// An endpoint of one of few addresses, in any state, with any hints.
fn endpoint() -> impl Strategy<Value = Value> {
    let zones = prop::sample::subsequence(vec!["east", "west"], 0..=2);
    let nodes = prop::sample::subsequence(vec!["a", "b"], 0..=2);
    (0u8..6, prop::sample::select(vec!["a", "b"]), any::<[Option<bool>; 3]>(), zones, nodes).prop_map(
        |(n, node, [ready, serving, terminating], zones, nodes)| {
            let names = |names: Vec<&str>| names.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
            json!({
                "addresses": [format!("10.244.0.{n}")],
                "nodeName": node,
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
                "hints": { "forZones": names(zones), "forNodes": names(nodes) },
            })
        },
    )
}

proptest! {
    #[test]
    fn slices_endpoints_and_ports_in_any_order_give_the_same_sorted_facts(
        slices in prop::collection::vec((prop::collection::vec(endpoint(), 0..6), 8080i32..8082), 0..4).prop_shuffle(),
        seed in any::<u64>(),
    ) {
        let spec = json!({
            "type": "NodePort", "clusterIPs": ["10.96.0.7", "fd00:96::7"], "clusterIP": "10.96.0.7",
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "externalIPs": ["203.0.113.9", "203.0.113.8"],
            "ports": [{ "name": "http", "port": 80, "nodePort": 30_080 }, { "name": "admin", "port": 9, "protocol": "UDP" }],
        });
        let make = |(endpoints, number): &(Vec<Value>, i32)| {
            slice_of("IPv4", json!([{ "name": "http", "port": number }, { "name": "admin", "port": 9, "protocol": "UDP" }]), json!(endpoints))
        };
        let forward: Vec<_> = slices.iter().map(make).collect();
        let mut turned: Vec<_> = slices.iter().map(|(endpoints, number)| {
            let mut endpoints = endpoints.clone();
            let by = if endpoints.is_empty() { 0 } else { usize::try_from(seed % 7).unwrap() % endpoints.len() };
            endpoints.rotate_left(by);
            make(&(endpoints, *number))
        }).collect();
        turned.reverse();
        let mut spec_turned = spec.clone();
        for list in ["ports", "externalIPs", "clusterIPs"] {
            spec_turned[list].as_array_mut().unwrap().reverse();
        }
        let one = service(&web(spec.clone()), &forward.iter().collect::<Vec<_>>(), &here()).unwrap();
        let other = service(&web(spec_turned), &turned.iter().collect::<Vec<_>>(), &here()).unwrap();
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(
            serving(&web(spec.clone()), &forward.iter().collect::<Vec<_>>(), &here()),
            serving(&web(spec), &turned.iter().collect::<Vec<_>>(), &here())
        );
        for port in &one.ports {
            prop_assert!(port.cluster.is_sorted_by(|a, b| a < b), "{:?}", port.cluster);
            prop_assert!(port.local.is_sorted_by(|a, b| a < b), "{:?}", port.local);
            let frontends: Vec<_> = port.frontends.iter().map(|f| (f.address, f.port)).collect();
            prop_assert!(frontends.is_sorted_by(|a, b| a < b), "{:?}", frontends);
            prop_assert!(port.local.is_empty() || !port.cluster.is_empty(), "whoever has local endpoints has some");
        }
    }
}
