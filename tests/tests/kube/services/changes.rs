//! What happens while clients ask: endpoints come and go, Services change.

use super::field::{ENDPOINTS, Field, PORTS, pod, serve};
use super::place::{BOTH, Connection, Heard, Proto, SETTLED, all_reach, all_refused, ask_by, each};
use crate::cluster::{Cluster, within};
use crate::plain;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

/// Connections that one client begins.
const MANY: usize = 100;
/// Connections that stay open.
const LONG: usize = 20;

/// Labels endpoints by the Service that they are to be of.
fn mark(field: &Field<'_>, service: &str, ends: &[&str]) {
    let (of, others): (Vec<&str>, Vec<&str>) = ENDPOINTS.into_iter().partition(|end| ends.contains(end));
    for (pods, word) in [(of, format!("{service}=yes")), (others, format!("{service}-"))] {
        if !pods.is_empty() {
            field.cluster.kubectl(&[&["label", "pods", "--overwrite"][..], &pods, &[&word]].concat());
        }
    }
}

pub(crate) fn affinity(cluster: &Cluster) {
    let field = Field::of(cluster);
    mark(&field, "aff", &ENDPOINTS);
    field.service(
        "aff",
        &format!(
            "  selector: {{aff: 'yes'}}\n  ports: {PORTS}\n  sessionAffinity: ClientIP\n  \
             sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 5}}}}"
        ),
    );
    let ats = field.at("aff", 80);
    let ways = || BOTH.into_iter().flat_map(|proto| ats.iter().map(move |at| (proto, *at)));
    each(ways(), |(proto, at)| within(SETTLED, "an answer", || field.c1.ask(proto, at).who().map(drop)));
    // Once all endpoints are known nobody changes any more.
    sleep(Duration::from_secs(2));
    each(ways(), |(proto, at)| {
        let all: BTreeSet<_> = (0..MANY).map(|_| field.c1.ask(proto, at).who().unwrap()).collect();
        assert_eq!(all.len(), 1, "{MANY} connections by {proto:?} to {at} from one client go to {all:?}");
    });
    // When its endpoint goes, the client gets another one, and keeps that although the first comes back.
    let at = ats[0];
    let first = field.c1.ask(Proto::Tcp, at).who().unwrap();
    let others: Vec<&str> = ENDPOINTS.into_iter().filter(|end| *end != first).collect();
    mark(&field, "aff", &others);
    within(SETTLED, &format!("another one than {first}"), || match field.c1.ask(Proto::Tcp, at) {
        Heard::By(who, _) if who != first => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let second = field.c1.ask(Proto::Tcp, at).who().unwrap();
    mark(&field, "aff", &ENDPOINTS);
    for _ in 0..20 {
        assert_eq!(field.c1.ask(Proto::Tcp, at).who().unwrap(), second, "it is kept");
        sleep(Duration::from_millis(200));
    }
    if !plain() {
        // After the time that was given it is chosen anew, which here means: as at first.
        sleep(Duration::from_secs(7));
        assert_eq!(field.c1.ask(Proto::Tcp, at).who().unwrap(), first, "what is kept ends");
    }
    field.delete(&["service/aff"]);
}

pub(crate) fn topology(cluster: &Cluster) {
    let field = Field::of(cluster);
    let zone = |node: &str, zone: &str| {
        let word = if zone.is_empty() {
            "topology.kubernetes.io/zone-".to_owned()
        } else {
            format!("topology.kubernetes.io/zone={zone}")
        };
        cluster.kubectl(&["label", "node", "--overwrite", node, &word]);
    };
    // Hints are made of the zones that nodes had when a slice was made.
    zone("node-1", "here");
    zone("node-2", "there");
    mark(&field, "near", &ENDPOINTS);
    field
        .service("near", &format!("  selector: {{near: 'yes'}}\n  ports: {PORTS}\n  trafficDistribution: PreferClose"));
    let ats = field.at("near", 80);
    let settle = |place: &super::place::Place, at: SocketAddr, whom: &[&str]| {
        within(2 * SETTLED, &format!("only {whom:?} for {}", place.name), || {
            let heard: BTreeSet<String> = (0..12).map(|_| place.ask(Proto::Tcp, at).who()).collect::<Result<_, _>>()?;
            if heard.iter().eq(whom) { Ok(()) } else { Err(format!("{heard:?}")) }
        });
    };
    each(ats.iter().copied(), |at| {
        settle(&field.c1, at, &["e1", "e3"]);
        settle(&field.node1, at, &["e1", "e3"]);
        settle(&field.c2, at, &["e2", "e4"]);
    });
    // A zone that has none gets all.
    mark(&field, "near", &["e2", "e4"]);
    for at in &ats {
        settle(&field.c1, *at, &["e2", "e4"]);
        settle(&field.c2, *at, &["e2", "e4"]);
    }
    mark(&field, "near", &ENDPOINTS);
    for at in &ats {
        settle(&field.c1, *at, &["e1", "e3"]);
    }
    // Nothing is near to a node that is nowhere.
    zone("node-1", "");
    for at in &ats {
        settle(&field.c1, *at, &ENDPOINTS);
    }
    zone("node-2", "");
    field.delete(&["service/near"]);
}

pub(crate) fn not_ready(cluster: &Cluster) {
    let field = Field::of(cluster);
    let probe = "      readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}\n";
    cluster.apply(&pod("unready", "node-2", "app: unready", 8080, 5353, probe));
    within(60, "the Pod to run", || {
        let phase = cluster.jsonpath(&["pod", "unready"], "{.status.phase}");
        if phase == ["Running"] { Ok(()) } else { Err(format!("{phase:?}")) }
    });
    let _server = serve(cluster, "unready", 8080, 5353);
    field.service("strict", &format!("  selector: {{app: unready}}\n  ports: {PORTS}"));
    field
        .service("early", &format!("  selector: {{app: unready}}\n  ports: {PORTS}\n  publishNotReadyAddresses: true"));
    let (strict, early) = (field.at("strict", 80), field.at("early", 80));
    all_reach(&[&field.c1], &BOTH, &early, &["unready"]);
    all_refused(&[&field.c1], &BOTH, &strict);
    each(strict.iter().copied(), |strict| {
        for proto in BOTH {
            // kube-proxy tells nothing to the host's own datagrams.
            let host = if plain() && proto == Proto::Udp { Heard::Silence } else { Heard::Refused };
            field.node2.hears(proto, strict, &host);
        }
    });
    cluster.exec("unready", &["touch", "/tmp/ready"]);
    all_reach(&[&field.c1], &[Proto::Tcp], &strict, &["unready"]);
    field.delete(&["service/strict", "service/early", "pod/unready"]);
}

/// Waits until a Service's endpoints are as many ready ones and as many terminating ones, of each family.
fn await_endpoints(cluster: &Cluster, service: &str, ready: usize, terminating: usize) {
    let of = format!("--selector=kubernetes.io/service-name={service}");
    within(SETTLED, "the endpoints to change", || {
        let count = |condition: &str| {
            let path = format!("{{.items[?(@.addressType==\"IPv4\")].endpoints[*].conditions.{condition}}}");
            cluster.jsonpath(&["endpointslices", &of], &path).iter().filter(|word| *word == "true").count()
        };
        let now = (count("ready"), count("terminating"));
        if now == (ready, terminating) { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

pub(crate) fn terminating(cluster: &Cluster) {
    let field = Field::of(cluster);
    // The first process of a container that does not want to hear of it is not ended by a signal.
    let slow = |name: &str, node: &str| {
        pod(name, node, "app: slow", 8080, 5353, "")
            .replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 40")
    };
    cluster.apply(&format!("{}{}", slow("t1", "node-1"), slow("t2", "node-2")));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/t1", "pod/t2", "--timeout=60s"]);
    let _servers = (serve(cluster, "t1", 8080, 5353), serve(cluster, "t2", 8080, 5353));
    field.service("slow", &format!("  selector: {{app: slow}}\n  ports: {PORTS}"));
    let ats = field.at("slow", 80);
    let mut open: Vec<Connection> = Vec::new();
    for at in &ats {
        for who in ["t1", "t2"] {
            within(SETTLED, "a connection to each", || {
                let mut connection = field.c1.connect(*at).map_err(|e| e.to_string())?;
                let found = connection.who()?;
                if found == who {
                    open.push(connection);
                    Ok(())
                } else {
                    Err(found)
                }
            });
        }
    }
    cluster.kubectl(&["delete", "pod", "t1", "--wait=false"]);
    await_endpoints(cluster, "slow", 1, 1);
    for at in &ats {
        // A moment for the change to be everywhere.
        within(SETTLED, "new connections to go to t2 alone", || {
            let heard: BTreeSet<_> = (0..12).map(|_| field.c1.ask(Proto::Tcp, *at).who()).collect::<Result<_, _>>()?;
            if heard.iter().eq(["t2"]) { Ok(()) } else { Err(format!("{heard:?}")) }
        });
        field.c2.reaches(Proto::Udp, *at, &["t2"]);
    }
    for (connection, who) in open.iter_mut().zip(["t1", "t2", "t1", "t2"]) {
        assert_eq!(connection.who().as_deref(), Ok(who), "an open connection goes on");
    }
    // When all are going, they still serve.
    cluster.kubectl(&["delete", "pod", "t2", "--wait=false"]);
    await_endpoints(cluster, "slow", 0, 2);
    all_reach(&[&field.c1], &BOTH, &ats, &["t1", "t2"]);
    for (connection, who) in open.iter_mut().zip(["t1", "t2", "t1", "t2"]) {
        assert_eq!(connection.who().as_deref(), Ok(who), "an open connection goes on");
    }
    cluster.kubectl(&["delete", "pods", "t1", "t2", "--grace-period=0", "--force"]);
    all_refused(&[&field.c1], &[Proto::Tcp], &ats);
    field.delete(&["service/slow"]);
}

pub(crate) fn not_ours(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service("headless", &format!("  clusterIP: None\n  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    let alias = "{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: one.example}}";
    cluster.apply(alias);
    let other = "{apiVersion: v1, kind: Service, metadata: {name: others, labels: {service.kubernetes.io/service-proxy-name: other}}, \
                 spec: {selector: {field: 'yes'}, ports: [{port: 80, targetPort: 8080}]}}";
    cluster.apply(other);
    field.service("ours", &format!("  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    field.c1.reaches(Proto::Tcp, field.at("ours", 80)[0], &ENDPOINTS);
    if !plain() {
        for (service, is_ours) in [("headless", false), ("alias", false), ("others", false), ("ours", true)] {
            let said =
                cluster.sluice("node-1", &["flows", "dump", "--svc", &format!("default/{service}"), "-o", "ofctl"]);
            assert_eq!(said.text.contains("actions="), is_ours, "flows of {service}: {}", said.text);
        }
    }
    let others = SocketAddr::new(cluster.cluster_ips("others")[0].parse().unwrap(), 80);
    assert!(field.c1.ask(Proto::Tcp, others).who().is_err(), "another proxy's Service is not served");
    field.delete(&["service/headless", "service/alias", "service/others", "service/ours"]);
}

pub(crate) fn udp_clients_that_go_on(cluster: &Cluster) {
    let field = Field::of(cluster);
    mark(&field, "udp", &[]);
    // Sent when the address is nobody's.
    let addresses = [SocketAddr::from(([10, 96, 200, 200], 80)), SocketAddr::new("fd00:96::c8c8".parse().unwrap(), 80)];
    let sockets: Vec<_> = [&field.c1, &field.node2]
        .into_iter()
        .flat_map(|place| addresses.map(|at| (format!("{} to {at}", place.name), place.datagrams(at))))
        .collect();
    let each_hears = |whom: &str| {
        each(&sockets, |(what, socket)| {
            within(SETTLED, &format!("{whom} to answer {what}"), || match ask_by(socket, b"who") {
                Ok(answer) if answer.starts_with(whom) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        });
    };
    let nobody_answers = || {
        each(&sockets, |(what, socket)| {
            within(SETTLED, &format!("nobody to answer {what}"), || match ask_by(socket, b"who") {
                Err(_) => Ok(()),
                Ok(answer) => Err(answer),
            });
        });
    };
    nobody_answers();
    field.service("udp", &format!("  clusterIP: 10.96.200.200\n  clusterIPs: [10.96.200.200, 'fd00:96::c8c8']\n  selector: {{udp: 'yes'}}\n  ports: {PORTS}"));
    field.c1.is_refused(Proto::Udp, addresses[0]);
    nobody_answers();
    mark(&field, "udp", &["e1"]);
    each_hears("e1 ");
    mark(&field, "udp", &["e2"]);
    each_hears("e2 ");
    mark(&field, "udp", &[]);
    if !plain() {
        // kube-proxy lets those who have the last endpoint go on while its Pod is there.
        nobody_answers();
    }
    mark(&field, "udp", &["e4"]);
    each_hears("e4 ");
    field.delete(&["service/udp"]);
    nobody_answers();
}

pub(crate) fn ports_and_kinds(cluster: &Cluster) {
    let field = Field::of(cluster);
    let spec = |kind: &str, ports: &str| format!("  type: {kind}\n  selector: {{field: 'yes'}}\n  ports: {ports}");
    let several = "[{name: web, port: 80, targetPort: web}, {name: alt, port: 8088, targetPort: web}, \
                   {name: dns, port: 80, protocol: UDP, targetPort: dns}, {name: num, port: 90, targetPort: 8080}]";
    field.service("vary", &spec("ClusterIP", several));
    let ats = |port: u16| field.at("vary", port);
    all_reach(&[&field.c1], &[Proto::Tcp], &[ats(80), ats(8088)].concat(), &ENDPOINTS);
    all_reach(&[&field.c2], &[Proto::Udp], &ats(80), &ENDPOINTS);
    all_refused(&[&field.c1], &[Proto::Tcp], &ats(82));
    all_refused(&[&field.c1], &[Proto::Udp], &ats(8088));
    // Nobody of `e4` is at the number that this port has.
    for at in ats(90) {
        let heard: BTreeSet<_> =
            (0..40).map(|_| field.c1.ask(Proto::Tcp, at)).filter_map(|heard| heard.who().ok()).collect();
        assert!(!heard.is_empty() && !heard.contains("e4"), "{heard:?}");
    }
    // Another port, and a node's one, while a connection is open.
    let mut open: Vec<Connection> = ats(80).into_iter().map(|at| field.c1.connect(at).unwrap()).collect();
    let whose: Vec<String> = open.iter_mut().map(|connection| connection.who().unwrap()).collect();
    field.service("vary", &spec("NodePort", "[{name: web, port: 81, targetPort: web, nodePort: 30181}]"));
    all_reach(&[&field.c1], &[Proto::Tcp], &ats(81), &ENDPOINTS);
    all_refused(&[&field.c1, &field.node1], &[Proto::Tcp], &ats(80));
    all_reach(&[&field.outside], &[Proto::Tcp], &field.at_node("node-1", 30181), &ENDPOINTS);
    for (connection, who) in open.iter_mut().zip(&whose) {
        assert_eq!(connection.who().as_ref(), Ok(who), "an open connection goes on when its port goes");
    }
    // Another node's port; then none.
    field.service("vary", &spec("NodePort", "[{name: web, port: 81, targetPort: web, nodePort: 30182}]"));
    all_reach(&[&field.outside], &[Proto::Tcp], &field.at_node("node-2", 30182), &ENDPOINTS);
    all_refused(&[&field.outside, &field.c1], &[Proto::Tcp], &field.at_node("node-2", 30181));
    field.service("vary", &spec("ClusterIP", "[{name: web, port: 81, targetPort: 8081}]"));
    all_refused(&[&field.outside], &[Proto::Tcp], &field.at_node("node-2", 30182));
    for at in ats(81) {
        within(SETTLED, "only e4 to answer", || {
            let heard: BTreeSet<_> = (0..40).filter_map(|_| field.c1.ask(Proto::Tcp, at).who().ok()).collect();
            if heard.iter().eq(["e4"]) { Ok(()) } else { Err(format!("{heard:?}")) }
        });
    }
    field.delete(&["service/vary"]);
}

pub(crate) fn long_connections(cluster: &Cluster) {
    let field = Field::of(cluster);
    mark(&field, "long", &ENDPOINTS);
    field.service("long", &format!("  selector: {{long: 'yes'}}\n  ports: {PORTS}"));
    let ats = field.at("long", 80);
    all_reach(&[&field.c1], &[Proto::Tcp], &ats, &ENDPOINTS);
    let mut open: Vec<(Connection, String)> = (0..LONG * ats.len())
        .map(|n| {
            let mut connection = field.c1.connect(ats[n % ats.len()]).unwrap();
            let who = connection.who().unwrap();
            (connection, who)
        })
        .collect();
    let mut all_go_on = |when: &str| {
        for (connection, who) in &mut open {
            assert_eq!(connection.who().as_ref(), Ok(&*who), "a connection {when}");
        }
    };
    mark(&field, "long", &["e1", "e2", "e3"]);
    await_endpoints(cluster, "long", 3, 0);
    sleep(Duration::from_secs(2));
    // `e4` is no endpoint any more, but it is there: TCP is never cut.
    all_go_on("when one endpoint of four goes");
    mark(&field, "long", &ENDPOINTS);
    await_endpoints(cluster, "long", 4, 0);
    sleep(Duration::from_secs(2));
    all_go_on("when one comes");
    field.delete(&["service/long"]);
}

pub(crate) fn deleted_endpoint(cluster: &Cluster) {
    let field = Field::of(cluster);
    cluster.apply(&pod("brief", "node-2", "app: brief, cut: 'yes'", 8080, 5353, ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/brief", "--timeout=60s"]);
    let server = serve(cluster, "brief", 8080, 5353);
    mark(&field, "cut", &["e1", "e2", "e3"]);
    field.service("cut", &format!("  selector: {{cut: 'yes'}}\n  ports: {PORTS}"));
    let ats = field.at("cut", 80);
    all_reach(&[&field.c1], &[Proto::Tcp], &ats, &["e1", "e2", "e3", "brief"]);
    let mut open: Vec<(Connection, String)> = (0..2 * LONG)
        .map(|n| {
            let mut connection = field.c1.connect(ats[n % ats.len()]).unwrap();
            let who = connection.who().unwrap();
            (connection, who)
        })
        .collect();
    assert!(open.iter().any(|(_, who)| who == "brief"), "one of {} is the brief one's", open.len());
    cluster.kubectl(&["delete", "pod", "brief", "--timeout=60s"]);
    all_reach(&[&field.c1], &[Proto::Tcp], &ats, &["e1", "e2", "e3"]);
    // The Pod's interface goes a moment after the Pod.
    let (brief, _) = open.iter_mut().find(|(_, who)| who == "brief").unwrap();
    within(SETTLED, "the Pod's interface to go", || brief.who().map_or(Ok(()), Err));
    each(&mut open, |(connection, who)| match (connection.who(), who.as_str()) {
        (answer, "brief") => assert!(answer.is_err(), "the Pod is gone, but {answer:?}"),
        (answer, who) => assert_eq!(answer.as_deref(), Ok(who), "a connection to another one goes on"),
    });
    drop(server);
    field.delete(&["service/cut"]);
}

pub(crate) fn fragments(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service("big", &format!("  type: NodePort\n  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    let node_port = field.node_port("big", "dns");
    let big = [b'x'; 4000];
    let clients = [
        (&field.c1, field.at("big", 80)),
        (&field.node1, field.at("big", 80)),
        (&field.outside, field.at_node("node-1", node_port)),
    ];
    each(clients, |(place, ats)| {
        for at in ats {
            place.reaches(Proto::Udp, at, &ENDPOINTS);
            for first in [b"who".as_slice(), &big] {
                // Some of each, since endpoints are on both nodes.
                for _ in 0..12 {
                    let socket = place.datagrams(at);
                    // The first large one may come back, with how large they may be on the way.
                    let who = |question: &[u8]| {
                        let text = ask_by(&socket, question).or_else(|_| ask_by(&socket, question));
                        text.map(|text| text.split(' ').next().unwrap_or_default().to_owned())
                    };
                    let said = |len, answer: io::Result<String>| {
                        answer.unwrap_or_else(|e| panic!("{len} bytes from {} to {at}: {e}", place.name))
                    };
                    let before = said(first.len(), who(first));
                    let after = said(big.len(), who(&big));
                    assert_eq!(before, after, "a connection is the same whatever its datagrams' size");
                }
            }
        }
    });
    field.delete(&["service/big"]);
}
