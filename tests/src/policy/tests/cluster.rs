//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy.

use super::{ask, egress, end, ingress, world};
use crate::policy::Protocol::{Sctp, Tcp, Udp};
use crate::policy::World;

const DEFAULT_DENY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: none, namespace: x}
spec: {policyTypes: [Ingress, Egress]}
---
"#;

/// A ClusterNetworkPolicy about all Pods with these rules in these sections.
fn cluster(name: &str, tier: &str, priority: u32, sections: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: \
         {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {sections}}}\n---\n"
    )
}

fn admin(name: &str, priority: u32, sections: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {{name: {name}}}\nspec: \
         {{priority: {priority}, subject: {{namespaces: {{}}}}, {sections}}}\n---\n"
    )
}

fn baseline(sections: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {{name: \
         default}}\nspec: {{subject: {{namespaces: {{}}}}, {sections}}}\n---\n"
    )
}

fn from_everyone(action: &str) -> String {
    format!("ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]")
}

fn of(parts: &[String]) -> World {
    world(parts.concat().trim_end().trim_end_matches("---"))
}

#[test]
fn the_admin_tier_is_asked_first_and_is_final() {
    let accept = of(&[DEFAULT_DENY.to_owned(), cluster("c", "Admin", 5, &from_everyone("Accept"))]);
    assert_eq!(ingress(&accept, "y/a", "x/a"), "allowed by ClusterNetworkPolicy c ingress[0]");
    let deny = of(&[cluster("c", "Admin", 5, &from_everyone("Deny"))]);
    assert_eq!(ingress(&deny, "y/a", "x/a"), "denied by ClusterNetworkPolicy c ingress[0]");
    // From outside no rule is about it, and there is no isolation by the way.
    assert_eq!(ingress(&deny, "192.0.2.1", "x/a"), "allowed by no policy");
    assert_eq!(egress(&deny, "x/a", "y/a"), "allowed by no policy");
}

#[test]
fn passing_goes_on_with_network_policy_and_then_with_the_baseline() {
    let pass = cluster("p", "Admin", 1, &from_everyone("Pass"));
    let deny = cluster("d", "Admin", 2, &from_everyone("Deny"));
    let base = cluster("b", "Baseline", 0, &from_everyone("Deny"));
    let by = ", passed on by ClusterNetworkPolicy p ingress[0]";
    let world = of(&[pass.clone(), deny.clone()]);
    assert_eq!(ingress(&world, "y/a", "x/a"), format!("allowed by no policy{by}"));
    let world = of(&[DEFAULT_DENY.to_owned(), pass.clone(), deny.clone()]);
    assert_eq!(ingress(&world, "y/a", "x/a"), format!("denied by default of NetworkPolicy x/none{by}"));
    assert_eq!(ingress(&world, "x/a", "y/a"), format!("allowed by no policy{by}"));
    let world = of(&[pass, deny, base]);
    assert_eq!(ingress(&world, "y/a", "x/a"), format!("denied by ClusterNetworkPolicy b ingress[0]{by}"));
}

#[test]
fn a_network_policy_overrules_the_baseline_whatever_it_says() {
    let allow = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: x}
spec: {ingress: [{}]}
---
";
    let deny = cluster("b", "Baseline", 0, &from_everyone("Deny"));
    let accept = cluster("b", "Baseline", 0, &from_everyone("Accept"));
    let world = of(&[allow.to_owned(), deny]);
    assert_eq!(ingress(&world, "y/a", "x/a"), "allowed by NetworkPolicy x/all ingress[0]");
    assert_eq!(ingress(&world, "x/a", "y/a"), "denied by ClusterNetworkPolicy b ingress[0]");
    let world = of(&[DEFAULT_DENY.to_owned(), accept]);
    assert_eq!(ingress(&world, "y/a", "x/a"), "denied by default of NetworkPolicy x/none");
}

#[test]
fn passing_in_the_baseline_leads_to_the_default() {
    let pass = cluster("p", "Baseline", 1, &from_everyone("Pass"));
    let deny = cluster("d", "Baseline", 2, &from_everyone("Deny"));
    let world = of(&[pass, deny]);
    assert!(ingress(&world, "y/a", "x/a").starts_with("allowed by no policy, passed on by"));
}

#[test]
fn lower_priorities_come_first_across_both_generations() {
    let world = of(&[
        admin("late", 20, &from_everyone("Deny")),
        cluster("middle", "Admin", 10, &from_everyone("Accept")),
        admin("early", 5, "ingress: [{action: Deny, from: [{namespaces: {matchLabels: {ns: z}}}]}]"),
    ]);
    assert_eq!(ingress(&world, "y/a", "x/a"), "allowed by ClusterNetworkPolicy middle ingress[0]");
    assert_eq!(ingress(&world, "z/a", "x/a"), "denied by AdminNetworkPolicy early ingress[0]");
}

#[test]
fn the_first_rule_of_a_policy_that_matches_decides() {
    let rules = "ingress: [{action: Deny, from: [{namespaces: {matchLabels: {ns: z}}}]}, \
                 {action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]";
    let world = of(&[cluster("c", "Admin", 1, rules)]);
    assert_eq!(ingress(&world, "z/a", "x/a"), "denied by ClusterNetworkPolicy c ingress[0]");
    assert_eq!(ingress(&world, "y/a", "x/a"), "allowed by ClusterNetworkPolicy c ingress[1]");
}

#[test]
fn equal_priorities_that_disagree_are_told_of() {
    let two = |action: &str| {
        of(&[
            cluster("b", "Admin", 7, &from_everyone(action)),
            admin("a", 7, "ingress: [{action: Allow, from: [{namespaces: {matchLabels: {ns: 'y'}}}]}]"),
        ])
    };
    assert_eq!(ingress(&two("Deny"), "y/a", "x/a"), "allowed by AdminNetworkPolicy a ingress[0] (ambiguous)");
    assert_eq!(ingress(&two("Deny"), "z/a", "x/a"), "denied by ClusterNetworkPolicy b ingress[0]");
    assert_eq!(ingress(&two("Accept"), "y/a", "x/a"), "allowed by AdminNetworkPolicy a ingress[0]");
    let (world, other) = (two("Deny"), two("Accept"));
    let verdict = |world: &World| world.verdict(&end(world, "y/a"), &end(world, "x/a"), Tcp, 80).ambiguous();
    assert!(verdict(&world) && !verdict(&other));
}

#[test]
fn the_baseline_of_v1alpha1_comes_last() {
    let world = of(&[
        baseline(&from_everyone("Deny")),
        cluster("c", "Baseline", 1000, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {ns: 'y'}}}]}]"),
    ]);
    assert_eq!(ingress(&world, "y/a", "x/a"), "allowed by ClusterNetworkPolicy c ingress[0]");
    assert_eq!(ingress(&world, "z/a", "x/a"), "denied by BaselineAdminNetworkPolicy default ingress[0]");
}

#[test]
fn both_kinds_of_subject_choose_pods() {
    let with = |subject: &str| {
        of(&[cluster("c", "Admin", 1, &from_everyone("Deny")).replace("subject: {namespaces: {}}", subject)])
    };
    let world = with("subject: {namespaces: {matchLabels: {ns: 'y'}}}");
    assert!(ingress(&world, "x/a", "y/c").starts_with("denied"));
    assert!(ingress(&world, "y/c", "x/a").starts_with("allowed"));
    let world =
        with("subject: {pods: {namespaceSelector: {matchLabels: {ns: 'y'}}, podSelector: {matchLabels: {pod: a}}}}");
    assert!(ingress(&world, "x/a", "y/a").starts_with("denied"));
    assert!(ingress(&world, "x/a", "y/b").starts_with("allowed"));
}

#[test]
fn egress_has_nodes_and_networks() {
    let world = of(&[cluster(
        "c",
        "Admin",
        1,
        "egress: [{action: Deny, to: [{nodes: {matchLabels: {node: two}}}]}, {action: Deny, to: [{networks: \
         [192.0.2.0/24, '2001:db8::/32', 10.244.2.2/32]}]}]",
    )]);
    assert_eq!(egress(&world, "x/a", "@node-2"), "denied by ClusterNetworkPolicy c egress[0]");
    assert_eq!(egress(&world, "x/a", "172.30.0.12"), "denied by ClusterNetworkPolicy c egress[0]");
    assert_eq!(egress(&world, "x/a", "@node-1"), "allowed by no policy");
    assert_eq!(egress(&world, "x/a", "192.0.2.255"), "denied by ClusterNetworkPolicy c egress[1]");
    assert_eq!(egress(&world, "x/a", "192.0.3.0"), "allowed by no policy");
    // Networks are about Pods as well.
    assert_eq!(egress(&world, "x/a", "x/b"), "denied by ClusterNetworkPolicy c egress[1]");
    // And a rule that names a Pod's own node is about that.
    assert_eq!(egress(&world, "x/b", "@node-2"), "denied by ClusterNetworkPolicy c egress[0]");
}

#[test]
fn nodes_reach_their_pods_past_every_tier() {
    let world = of(&[cluster("c", "Admin", 1, "ingress: [{action: Deny, from: [{networks: ['0.0.0.0/0']}]}]")]);
    // For ingress there is no such peer: it cannot be read, and denies all.
    assert!(ingress(&world, "192.0.2.1", "x/a").starts_with("denied"));
    assert!(ingress(&world, "@node-2", "x/a").starts_with("denied"));
    assert_eq!(ingress(&world, "@node-1", "x/a"), "allowed by being the Pod's own node");
}

#[test]
fn peers_that_cannot_be_read_fail_closed() {
    let with = |action: &str, peers: &str| {
        of(&[
            cluster(
                "c",
                "Admin",
                1,
                &format!(
                    "egress: [{{action: {action}, to: [{peers}], protocols: [{{tcp: \
             {{destinationPort: {{number: 9}}}}}}]}}]"
                ),
            ),
            cluster("d", "Admin", 2, "egress: [{action: Deny, to: [{namespaces: {}}]}]"),
        ])
    };
    for peers in
        ["{}", "{novelty: 1}", "{domainNames: ['*.example.org']}", "{namespaces: {}}, {domainNames: [a.example]}"]
    {
        assert_eq!(
            egress(&with("Accept", peers), "x/a", "y/a"),
            "denied by ClusterNetworkPolicy d egress[0]",
            "{peers}"
        );
        for action in ["Deny", "Pass"] {
            let denied = "denied by ClusterNetworkPolicy c egress[0]";
            assert_eq!(egress(&with(action, peers), "x/a", "192.0.2.1"), denied, "{action} {peers}");
        }
    }
    assert_eq!(egress(&with("Deny", "{namespaces: {}}"), "x/a", "192.0.2.1"), "allowed by no policy");
}

#[test]
fn protocols_have_ports_ranges_and_names() {
    let protocols = "protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 10, \
                     end: 20}}}}, {sctp: {}}, {destinationNamedPort: admin}]";
    let sections = format!("ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], {protocols}}}]");
    let of_cluster = of(&[cluster("c", "Admin", 1, &sections)]);
    let ports = "ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 10, end: 20}}, {portRange: \
                 {protocol: SCTP, start: 1, end: 65535}}, {namedPort: admin}]";
    let of_admin = of(&[admin("a", 1, &format!("ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], {ports}}}]"))]);
    for world in [&of_cluster, &of_admin] {
        for (to, protocol, port, denied) in [
            ("x/a", Tcp, 80, true),
            ("x/a", Tcp, 79, false),
            ("x/a", Udp, 80, false),
            ("x/a", Udp, 9, false),
            ("x/a", Udp, 10, true),
            ("x/a", Udp, 20, true),
            ("x/a", Udp, 21, false),
            ("x/a", Sctp, 7, true),
            // By its name, TCP 81 in a and 80 in c.
            ("x/a", Tcp, 81, true),
            ("x/a", Udp, 81, false),
            ("x/c", Tcp, 81, false),
        ] {
            assert_eq!(ask(world, "y/a", to, protocol, port).contains("denied"), denied, "{to} {protocol}/{port}");
        }
    }
}

#[test]
fn a_pod_that_comes_back_to_itself_by_a_service_is_asked_about() {
    let world = of(&[cluster("c", "Admin", 1, &from_everyone("Deny"))]);
    let end = end(&world, "x/a");
    assert!(world.verdict(&end, &end, Tcp, 80).allowed());
    assert!(!world.verdict_by_service(&end, &end, Tcp, 80).allowed());
}

#[test]
fn pods_on_the_host_network_are_neither_subject_nor_peer() {
    let pod = "\
apiVersion: v1
kind: Pod
metadata: {name: h, namespace: x}
spec: {hostNetwork: true, nodeName: node-2, containers: []}
status: {phase: Running, podIP: 172.30.0.12}
---
";
    let sections = format!("{}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]", from_everyone("Deny"));
    let world = of(&[pod.to_owned(), cluster("c", "Admin", 1, &sections)]);
    assert_eq!(ask(&world, "x/h", "x/a", Tcp, 80), "egress allowed by being no Pod; ingress allowed by no policy");
    assert_eq!(ask(&world, "x/a", "x/h", Tcp, 80), "egress allowed by no policy; ingress allowed by being no Pod");
}
