//! NetworkPolicies with real packets: who is kept out, who is let in, what changes live, and who says so.

pub(crate) mod open;
pub(crate) mod race;
pub(crate) mod told;

use crate::cluster::{Cluster, within};
use crate::services::field::{Field, PORTS, with_port};
use crate::services::place::{BOTH, Place, Proto, SETTLED, all_hear_nothing, all_reach, each};
use std::net::SocketAddr;

/// What a policy for these Pods is to have in its `spec`, in JSON.
pub(crate) fn put(cluster: &Cluster, name: &str, spec: &str) {
    cluster.apply(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    ));
}

/// The endpoints that are asked for here, on both nodes, at a port of theirs.
pub(crate) fn at(cluster: &Cluster, pod: &str, proto: Proto) -> Vec<SocketAddr> {
    with_port(&cluster.addresses(pod), if proto == Proto::Tcp { 8080 } else { 5353 })
}

pub(crate) fn reach(cluster: &Cluster, places: &[&Place], pods: &[&str], protos: &[Proto]) {
    each(ways(cluster, places, pods, protos), |(place, pod, proto, to)| drop(place.reaches(proto, to, &[pod])));
}

pub(crate) fn hear_nothing(cluster: &Cluster, places: &[&Place], pods: &[&str], protos: &[Proto]) {
    each(ways(cluster, places, pods, protos), |(place, _, proto, to)| place.hears_nothing(proto, to));
}

/// Several checks at once.
fn together(checks: &[&(dyn Fn() + Sync)]) {
    each(checks, |check| check());
}

/// Who asks which Pod, by which protocol and where.
fn ways<'a>(
    cluster: &Cluster,
    places: &[&'a Place],
    pods: &[&'a str],
    protos: &[Proto],
) -> Vec<(&'a Place, &'a str, Proto, SocketAddr)> {
    let mut all = Vec::new();
    for (pod, proto) in pods.iter().flat_map(|pod| protos.iter().map(move |proto| (*pod, *proto))) {
        let there = at(cluster, pod, proto);
        all.extend(places.iter().flat_map(|place| there.iter().map(move |to| (*place, pod, proto, *to))));
    }
    all
}

/// `e1` and `e2` let in whom a policy names, on the ports that it names, and their own node.
pub(crate) fn ingress(cluster: &Cluster) {
    let field = Field::of(cluster);
    let (c1, c2) = (&field.c1, &field.c2);
    reach(cluster, &[c1, c2], &["e1", "e2"], &BOTH);
    put(cluster, "deny", "{podSelector: {matchLabels: {field: 'yes'}}, policyTypes: [Ingress]}");
    together(&[
        &|| hear_nothing(cluster, &[c1, c2], &["e1", "e2"], &BOTH),
        // The kubelet's probes come from there; another node is anybody.
        &|| reach(cluster, &[&field.node1], &["e1"], &BOTH),
        &|| hear_nothing(cluster, &[&field.node2], &["e1"], &BOTH),
    ]);
    let allow = "{podSelector: {matchLabels: {field: 'yes'}}, ingress: [{from: [{podSelector: {matchLabels: {role: client}}}], ports: [{port: web}]}]}";
    put(cluster, "allow", allow);
    hear_nothing(cluster, &[c1], &["e1"], &BOTH);
    cluster.kubectl(&["label", "pod", "ask1", "role=client"]);
    together(&[
        &|| reach(cluster, &[c1], &["e1", "e2"], &[Proto::Tcp]),
        &|| hear_nothing(cluster, &[c1], &["e1"], &[Proto::Udp]),
        &|| hear_nothing(cluster, &[c2], &["e1", "e2"], &BOTH),
    ]);
    // It is the endpoint that is judged, not the Service.
    field.service("guarded", &format!("  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    let to = field.at("guarded", 80);
    together(&[
        &|| all_reach(&[c1], &[Proto::Tcp], &to, &["e1", "e2", "e3", "e4"]),
        &|| all_hear_nothing(&[c1], &[Proto::Udp], &to),
        &|| all_hear_nothing(&[c2], &[Proto::Tcp], &to),
    ]);
    // What is open ends when it is no longer allowed, and goes on when it is again.
    let mut open: Vec<_> = at(cluster, "e2", Proto::Tcp).into_iter().map(|to| c1.connect(to).unwrap()).collect();
    open.iter_mut().for_each(|connection| assert_eq!(connection.who().as_deref(), Ok("e2")));
    cluster.kubectl(&["label", "pod", "ask1", "role-"]);
    hear_nothing(cluster, &[c1], &["e1", "e2"], &BOTH);
    each(&mut open, |connection| assert!(connection.who().is_err(), "it goes on without being allowed"));
    drop(open);
    cluster.kubectl(&["label", "pod", "ask1", "role=client"]);
    reach(cluster, &[c1], &["e1"], &[Proto::Tcp]);
    cluster.kubectl(&["delete", "networkpolicy", "deny", "allow"]);
    reach(cluster, &[c1, c2, &field.node2], &["e1", "e2"], &BOTH);
    cluster.kubectl(&["label", "pod", "ask1", "role-"]);
    field.delete(&["service/guarded"]);
}

/// `ask1` may send to whom a policy names, networks and their holes too.
pub(crate) fn egress(cluster: &Cluster) {
    let field = Field::of(cluster);
    let (c1, c2) = (&field.c1, &field.c2);
    let e3 = cluster.addresses("e3");
    let blocks: Vec<String> = e3
        .iter()
        .map(|address| if address.contains(':') { ("::/0", 128, address) } else { ("0.0.0.0/0", 32, address) })
        .map(|(all, len, hole)| format!("{{ipBlock: {{cidr: '{all}', except: ['{hole}/{len}']}}}}"))
        .collect();
    cluster.kubectl(&["label", "pod", "ask1", "role=client"]);
    let subject = "podSelector: {matchLabels: {role: client}}, policyTypes: [Egress]";
    put(cluster, "out", &format!("{{{subject}, egress: [{{to: [{}]}}]}}", blocks.join(", ")));
    together(&[
        &|| hear_nothing(cluster, &[c1], &["e3"], &BOTH),
        &|| reach(cluster, &[c1], &["e1", "e2"], &BOTH),
        &|| reach(cluster, &[c2], &["e3"], &BOTH),
    ]);
    // A name is what each destination calls so; a range of numbers is whatever it says.
    let ports = "ports: [{port: dns, protocol: UDP}, {port: 8000, endPort: 8080}]";
    put(cluster, "out", &format!("{{{subject}, egress: [{{to: [{{podSelector: {{}}}}], {ports}}}]}}"));
    reach(cluster, &[c1], &["e1", "e2", "e3"], &BOTH);
    all_hear_nothing(&[c1], &[Proto::Tcp], &with_port(&cluster.addresses("e4"), 8081));
    all_reach(&[c1], &[Proto::Udp], &with_port(&cluster.addresses("e4"), 5354), &["e4"]);
    put(cluster, "out", &format!("{{{subject}}}"));
    hear_nothing(cluster, &[c1], &["e1", "e2"], &BOTH);
    cluster.kubectl(&["delete", "networkpolicy", "out"]);
    reach(cluster, &[c1], &["e1", "e2"], &BOTH);
    cluster.kubectl(&["label", "pod", "ask1", "role-"]);
}

/// Whoever asks what dropped a packet is told the policy.
pub(crate) fn by_name(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "deny-all", "{podSelector: {matchLabels: {me: e2}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e2"], &[Proto::Tcp]);
    within(SETTLED, "the policy among the drops", || {
        let said = cluster.sluice("node-2", &["drops"]).text;
        if said.contains("np:default/deny-all/ingress/default") && said.contains("policy_default_deny") {
            Ok(())
        } else {
            Err(said)
        }
    });
    let said = cluster.sluice("node-2", &["flows", "dump", "table=34"]).text;
    assert!(said.contains("np:default/deny-all/ingress/default"), "{said}");
    cluster.kubectl(&["delete", "networkpolicy", "deny-all"]);
    reach(cluster, &[&field.c1], &["e2"], &[Proto::Tcp]);
}

/// A policy that goes while the node role is down is gone when it is back, and one that stays is in force all the time.
pub(crate) fn while_away(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "stays", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    put(cluster, "goes", "{podSelector: {matchLabels: {me: e3}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1", "e3"], &[Proto::Tcp]);
    let restarts = cluster.restarts("node-1", "node");
    cluster.kill("node-1", "sluice-controller");
    cluster.kubectl(&["delete", "networkpolicy", "goes"]);
    let to = at(cluster, "e1", Proto::Tcp)[0];
    within(90, "the node role", || {
        assert!(field.c1.ask(Proto::Tcp, to).who().is_err(), "what is denied came through");
        let now = cluster.restarts("node-1", "node");
        if now > restarts { Ok(()) } else { Err(format!("{now} restarts")) }
    });
    together(&[&|| reach(cluster, &[&field.c1], &["e3"], &[Proto::Tcp]), &|| {
        hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp])
    }]);
    cluster.kubectl(&["delete", "networkpolicy", "stays"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
}
