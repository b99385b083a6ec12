//! NetworkPolicy.

use super::{address, ask, egress, ingress, world};
use crate::policy::Protocol::{Sctp, Tcp, Udp};
use crate::policy::{End, World};

const FREE: &str = "allowed by no policy";

/// The example of the concept page, with the names of the cases' cluster.
const EXAMPLE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: test, namespace: x}
spec:
  podSelector: {matchLabels: {pod: a}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {ns: 'y'}}
    - podSelector: {matchLabels: {pod: b}}
    ports:
    - {protocol: TCP, port: 6379}
  egress:
  - to:
    - ipBlock: {cidr: 10.0.0.0/24}
    ports:
    - {protocol: TCP, port: 5978}
"#;

fn policy(spec: &str) -> World {
    world(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: x}}\nspec: {spec}\n"
    ))
}

#[test]
fn without_policies_everything_is_allowed() {
    let world = world("");
    assert_eq!(ask(&world, "x/a", "y/b", Tcp, 80), format!("egress {FREE}; ingress {FREE}"));
    assert_eq!(ingress(&world, "192.0.2.1", "x/a"), FREE);
    assert_eq!(egress(&world, "192.0.2.1", "x/a"), "allowed by being no Pod");
}

#[test]
fn the_example_of_the_documentation_says_what_it_is_said_to_say() {
    let world = world(EXAMPLE);
    let rule = "egress allowed by no policy; ingress allowed by NetworkPolicy x/test ingress[0]";
    let denied = "egress allowed by no policy; ingress denied by default of NetworkPolicy x/test";
    assert_eq!(ask(&world, "x/b", "x/a", Tcp, 6379), rule);
    assert_eq!(ask(&world, "y/c", "x/a", Tcp, 6379), rule);
    assert_eq!(ask(&world, "x/c", "x/a", Tcp, 6379), denied);
    assert_eq!(ask(&world, "z/b", "x/a", Tcp, 6379), denied);
    assert_eq!(ask(&world, "x/b", "x/a", Tcp, 6380), denied);
    assert_eq!(ask(&world, "x/b", "x/a", Udp, 6379), denied);
    for (from, allowed) in [
        ("172.16.255.255", false),
        ("172.17.0.0", true),
        ("172.17.0.255", true),
        ("172.17.1.0", false),
        ("172.17.1.255", false),
        ("172.17.2.0", true),
        ("172.17.255.255", true),
        ("172.18.0.0", false),
    ] {
        let verdict = world.verdict(&End::Address(address(from)), &super::end(&world, "x/a"), Tcp, 6379);
        assert_eq!(verdict.allowed(), allowed, "{from}: {verdict}");
    }
    assert!(ask(&world, "x/a", "10.0.0.9", Tcp, 5978).starts_with("egress allowed by NetworkPolicy x/test egress[0]"));
    assert!(ask(&world, "x/a", "10.0.0.9", Tcp, 5979).starts_with("egress denied by default"));
    assert!(ask(&world, "x/a", "10.0.1.0", Tcp, 5978).starts_with("egress denied by default"));
    assert_eq!(egress(&world, "x/b", "10.0.1.0"), FREE);
}

#[test]
fn one_peer_with_two_selectors_is_not_two_peers() {
    let both = policy(
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}, podSelector: {matchLabels: \
         {pod: b}}}]}]}",
    );
    let either = policy(
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}, {podSelector: {matchLabels: \
         {pod: b}}}]}]}",
    );
    for (from, in_both, in_either) in
        [("y/b", true, true), ("y/a", false, true), ("x/b", false, true), ("z/b", false, false), ("x/c", false, false)]
    {
        assert_eq!(ingress(&both, from, "x/a").starts_with("allowed"), in_both, "{from}");
        assert_eq!(ingress(&either, from, "x/a").starts_with("allowed"), in_either, "{from}");
    }
}

#[test]
fn policies_add_up_and_each_is_named() {
    let world = world(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: none, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: some, namespace: x}
spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}, {ports: [{port: 79, endPort: 81}]}]}
"#,
    );
    let both = "allowed by NetworkPolicy x/some ingress[0], NetworkPolicy x/some ingress[1]";
    assert_eq!(ingress(&world, "y/a", "x/a"), both);
    assert_eq!(ingress(&world, "y/a", "x/b"), "denied by default of NetworkPolicy x/none");
    let denied = "denied by default of NetworkPolicy x/none, NetworkPolicy x/some";
    assert_eq!(ask(&world, "y/a", "x/a", Tcp, 82), format!("egress {FREE}; ingress {denied}"));
    assert_eq!(ask(&world, "y/a", "x/a", Tcp, 78), format!("egress {FREE}; ingress {denied}"));
    assert!(ask(&world, "y/a", "x/a", Tcp, 81).ends_with("allowed by NetworkPolicy x/some ingress[1]"));
}

#[test]
fn policy_types_default_by_what_there_is() {
    let empty = policy("{podSelector: {}}");
    assert!(ingress(&empty, "y/a", "x/a").starts_with("denied"));
    assert_eq!(egress(&empty, "x/a", "y/a"), FREE);
    let no_rules = policy("{podSelector: {}, egress: []}");
    assert_eq!(egress(&no_rules, "x/a", "y/a"), FREE);
    let rules = policy("{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}");
    assert!(ingress(&rules, "y/a", "x/a").starts_with("denied"));
    assert!(egress(&rules, "x/a", "y/a").starts_with("denied"));
    let egress_only = policy("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}");
    assert_eq!(ingress(&egress_only, "y/a", "x/a"), FREE);
    assert!(egress(&egress_only, "x/a", "y/a").starts_with("denied"));
    let absent = policy("{policyTypes: [Ingress]}");
    assert!(ingress(&absent, "y/a", "x/c").starts_with("denied"), "no podSelector selects all");
}

#[test]
fn expressions_of_selectors_are_all_met() {
    let with = |expression: &str| {
        policy(&format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchExpressions: [{expression}]}}}}]}}]}}"
        ))
    };
    for (expression, who) in [
        ("{key: ns, operator: In, values: ['y', z]}", "y z"),
        ("{key: ns, operator: NotIn, values: ['y']}", "x z"),
        ("{key: other, operator: NotIn, values: ['y']}", "x y z"),
        ("{key: ns, operator: Exists}", "x y z"),
        ("{key: ns, operator: DoesNotExist}", ""),
        ("{key: other, operator: DoesNotExist}", "x y z"),
        ("{key: ns, operator: In, values: ['y', z]}, {key: ns, operator: NotIn, values: [z]}", "y"),
        ("{key: kubernetes.io/metadata.name, operator: In, values: [z]}", "z"),
    ] {
        let world = with(expression);
        let found: Vec<&str> = ["x", "y", "z"]
            .into_iter()
            .filter(|of| ingress(&world, &format!("{of}/b"), "x/a").starts_with("allowed"))
            .collect();
        assert_eq!(found.join(" "), who, "{expression}");
    }
}

#[test]
fn an_empty_peer_list_is_everyone_and_an_empty_selector_is_all_pods() {
    let everyone = policy("{podSelector: {}, ingress: [{from: []}]}");
    let pods = policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}");
    let own = policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}");
    for (from, by_everyone, by_pods, by_own) in
        [("x/b", true, true, true), ("y/b", true, true, false), ("192.0.2.1", true, false, false)]
    {
        assert_eq!(ingress(&everyone, from, "x/a").starts_with("allowed"), by_everyone, "{from}");
        assert_eq!(ingress(&pods, from, "x/a").starts_with("allowed"), by_pods, "{from}");
        assert_eq!(ingress(&own, from, "x/a").starts_with("allowed"), by_own, "{from}");
    }
}

#[test]
fn a_port_without_a_protocol_is_tcps_and_one_without_a_number_is_every_port() {
    let world = policy("{podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: SCTP}]}]}");
    for (protocol, port, allowed) in
        [(Tcp, 80, true), (Tcp, 81, false), (Udp, 80, false), (Sctp, 80, true), (Sctp, 9, true)]
    {
        let verdict = ask(&world, "y/a", "x/a", protocol, port);
        assert_eq!(verdict.contains("ingress allowed"), allowed, "{protocol}/{port}");
    }
}

#[test]
fn names_of_ports_are_the_destinations() {
    let ingress = policy("{podSelector: {}, ingress: [{ports: [{port: web}, {port: query}]}]}");
    let egress = policy("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}, {port: query}]}]}");
    for (world, from, to) in [(&ingress, "y/a", "x"), (&egress, "x/a", "y")] {
        let allowed = |pod: &str, protocol, port| {
            let verdict = ask(world, from, &format!("{to}/{pod}"), protocol, port);
            !verdict.contains("denied")
        };
        assert!(allowed("b", Tcp, 80) && !allowed("b", Tcp, 81), "{from} to b");
        assert!(allowed("c", Tcp, 81) && !allowed("c", Tcp, 80), "{from} to c");
        // `query` is a port of UDP, and the policy's port is of TCP.
        assert!(!allowed("b", Udp, 80), "{from} to b");
    }
    assert!(super::egress(&egress, "x/a", "192.0.2.1").starts_with("denied"));
}

#[test]
fn sidecars_have_names_of_ports_and_other_init_containers_have_none() {
    for (restart, allowed) in [("Always", true), ("OnFailure", false)] {
        let world = world(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: s, namespace: x}}
spec:
  containers: [{{name: main}}]
  initContainers: [{{name: side, restartPolicy: {restart}, ports: [{{name: side, containerPort: 80}}]}}]
status: {{phase: Running, podIP: 10.244.1.99}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: x}}
spec: {{ingress: [{{ports: [{{port: side}}]}}]}}
"#
        ));
        assert_eq!(ingress(&world, "y/a", "x/s").starts_with("allowed"), allowed, "{restart}");
    }
}

#[test]
fn blocks_match_pods_and_an_except_of_one_peer_is_no_except_of_another() {
    // x/b is 10.244.2.2, y/a is 10.244.2.3.
    let block = policy("{ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/24, except: [10.244.2.3/32]}}]}]}");
    assert!(ingress(&block, "x/b", "x/a").starts_with("allowed"));
    assert!(ingress(&block, "y/a", "x/a").starts_with("denied"));
    let overlap = policy(
        "{ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/24, except: [10.244.2.3/32]}}, {ipBlock: {cidr: \
         10.244.2.3/32}}]}]}",
    );
    assert!(ingress(&overlap, "y/a", "x/a").starts_with("allowed"));
    let other_family = policy("{ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}");
    assert!(ingress(&other_family, "x/b", "x/a").starts_with("denied"));
    let six = |pod| other_family.pod_end("x", pod, "ipv6").expect("it has IPv6");
    assert!(other_family.verdict(&six("b"), &six("a"), Tcp, 80).allowed());
}

#[test]
fn a_pod_and_its_own_node_reach_each_other() {
    // x/a is on node-1.
    let world = policy("{policyTypes: [Ingress, Egress]}");
    assert_eq!(ingress(&world, "@node-1", "x/a"), "allowed by being the Pod's own node");
    assert_eq!(ingress(&world, "172.30.0.11", "x/a"), "allowed by being the Pod's own node");
    assert_eq!(egress(&world, "x/a", "@node-1"), "allowed by being the Pod's own node");
    assert!(ingress(&world, "@node-2", "x/a").starts_with("denied"));
    assert!(egress(&world, "x/a", "@node-2").starts_with("denied"));
    let bridge = End::Host { node: "node-1".to_owned(), address: address("10.244.1.1") };
    assert!(world.verdict(&bridge, &super::end(&world, "x/a"), Tcp, 80).allowed());
}

#[test]
fn a_pod_on_the_host_network_is_its_node() {
    let host = r#"
apiVersion: v1
kind: Pod
metadata: {name: h, namespace: x, labels: {pod: h}}
spec: {hostNetwork: true, nodeName: node-2, containers: []}
status: {phase: Running, podIP: 172.30.0.12}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec: {ingress: [{from: [{podSelector: {}}]}]}
"#;
    let world = world(host);
    // No policy is about it, and no selector finds it.
    assert_eq!(ingress(&world, "y/a", "x/h"), "allowed by being no Pod");
    assert!(ingress(&world, "x/h", "x/a").starts_with("denied"));
    assert_eq!(ingress(&world, "x/h", "x/b"), "allowed by being the Pod's own node");
    let block = super::world(&host.replace("podSelector: {}", "ipBlock: {cidr: 172.30.0.12/32}"));
    assert!(ingress(&block, "x/h", "x/a").starts_with("allowed"));
}

#[test]
fn an_ended_pod_is_nowhere_and_its_address_is_whoevers_it_is_now() {
    for (phase, allowed) in [("Succeeded", true), ("Failed", true), ("Running", false)] {
        // It had the address of z/c, 10.244.1.6, and comes before it.
        let mut world = world(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: old, namespace: x, labels: {{pod: old}}}}
spec: {{nodeName: node-1, containers: []}}
status: {{phase: {phase}, podIP: 10.244.1.6}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: x}}
spec: {{ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: z}}}}}}]}}]}}
"#
        ));
        world.objects.rotate_right(2);
        assert_eq!(ingress(&world, "10.244.1.6", "x/a").starts_with("allowed"), allowed, "{phase}");
    }
}

#[test]
fn a_pod_reaches_itself_whatever_is_said() {
    let world = policy("{policyTypes: [Ingress, Egress]}");
    let both = "egress allowed by being the Pod itself; ingress allowed by being the Pod itself";
    assert_eq!(ask(&world, "x/a", "x/a", Tcp, 80), both);
    let end = super::end(&world, "x/a");
    assert_eq!(world.verdict_by_service(&end, &end, Tcp, 80).to_string(), both);
}
