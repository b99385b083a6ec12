use super::certs::{AUTHORITY_FOR_S, Authorities, NODE_FOR_S, NodeKey, SERVER, TRUST_FIRST};
use super::client::connect;
use super::server::now_s;
use super::*;
use crate::facts::Protocol;
use crate::facts::policy::{
    Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyKind, PolicyName, Port, Rule, State, Tier, Update,
};
use crate::watch::policies::Source;
use futures::FutureExt;
use proptest::prelude::*;
use serde_json::json;
use sluice_proto::v1::policy_service_client::PolicyServiceClient;
use sluice_proto::v1::{PolicyHello, StreamPoliciesReply, StreamPoliciesRequest, stream_policies_request::Message};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Identity;
use tonic::{Code, Status};

const SOON: Duration = Duration::from_secs(30);

fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// One Pod on each of two nodes, isolated each by a policy of its own.
fn source() -> Arc<Source> {
    let source = Source::new(None);
    source.change(|cluster| {
        cluster.put_namespace(&object(json!({"metadata": {"name": "shop"}})));
        for (name, node, address) in [("a", "n1", "10.0.1.2"), ("b", "n2", "10.0.2.2")] {
            cluster.put_pod(&object(json!({
                "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"podIPs": [{"ip": address}]},
            })));
            cluster.put_network_policy(&object(json!({
                "metadata": {"namespace": "shop", "name": name},
                "spec": {"podSelector": {"matchLabels": {"app": name}}},
            })));
        }
    });
    source.assume_listed();
    Arc::new(source)
}

/// A cluster role that trusts the tokens `token of NODE`.
struct Role {
    place: Place,
    authorities: Arc<Mutex<Authorities>>,
    hub: Arc<Hub>,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Role {
    async fn start(source: &Arc<Source>) -> Self {
        let mut authorities = Authorities::default();
        authorities.maintain(now_s()).unwrap();
        Self::with(source, authorities).await
    }

    async fn with(source: &Arc<Source>, authorities: Authorities) -> Self {
        let (bundle, (signed, key)) = (authorities.bundle(), authorities.server(now_s()).unwrap());
        let authorities = Arc::new(Mutex::new(authorities));
        let (_, config) = watch::channel(tls::server(&bundle, &signed.certificate, &key).unwrap());
        let review: Review = Arc::new(|token: String| {
            let node = token.strip_prefix("token of ").map(str::to_owned).ok_or("not trusted".to_owned());
            async move { node }.boxed()
        });
        let hub = Hub::new(Arc::clone(source));
        let service = Service::new(Arc::clone(&hub), Arc::clone(&authorities), review);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place { address: listener.local_addr().unwrap().to_string(), bundle };
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            serve(listener, config, service, stopped.map(|_| ())).await.unwrap();
        });
        Self { place, authorities, hub, stop: Some(stop), serving }
    }

    /// What somebody comes with who has a certificate of these authorities.
    fn identity(&self, node: &str, at_s: u64) -> Identity {
        let key = NodeKey::new().unwrap();
        let signed = self.authorities.lock().unwrap().node(node, key.public(), at_s).unwrap();
        Identity::from_pem(signed.certificate, key.private())
    }

    /// The first part that somebody is told.
    async fn first(&self, identity: Option<Identity>, more: Vec<Message>) -> Result<StreamPoliciesReply, Status> {
        let away = |error: FollowError| Status::unavailable(error.to_string());
        let channel = connect(&self.place, identity).await.map_err(away)?;
        let (out, requests) = mpsc::channel(4);
        for message in std::iter::once(Message::Hello(PolicyHello::default())).chain(more) {
            out.send(StreamPoliciesRequest { message: Some(message) }).await.unwrap();
        }
        let mut client = PolicyServiceClient::new(channel);
        let answer = timeout(SOON, client.stream_policies(ReceiverStream::new(requests))).await.unwrap();
        let reply = timeout(SOON, answer?.into_inner().message()).await.unwrap()?;
        reply.ok_or_else(|| Status::unavailable("nothing"))
    }
}

fn updates(reply: StreamPoliciesReply) -> Vec<Update> {
    reply.updates.into_iter().map(|update| words::read(update).unwrap()).collect()
}

#[tokio::test]
async fn a_node_is_told_its_own_share_whoever_it_says_it_is() {
    let source = source();
    let role = Role::start(&source).await;
    for node in ["n1", "n2"] {
        let reply = role.first(Some(role.identity(node, now_s())), Vec::new()).await.unwrap();
        let mut state = State::default();
        updates(reply).iter().for_each(|update| state.apply(update));
        assert_eq!(state, source.cluster().state(node));
        assert_eq!(state.policies.len(), 1);
    }
    let stranger = role.first(Some(role.identity("n9", now_s())), Vec::new()).await.unwrap();
    assert!(stranger.last && stranger.updates.is_empty(), "{stranger:?}");
}

#[tokio::test]
async fn a_node_without_a_good_certificate_is_told_nothing() {
    let source = source();
    let role = Role::start(&source).await;
    // None at all.
    let status = role.first(None, Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // One that has ended.
    let ended = role.identity("n1", now_s() - NODE_FOR_S - 1);
    // One of somebody else's authority, with the same name.
    let mut others = Authorities::default();
    others.maintain(now_s()).unwrap();
    let key = NodeKey::new().unwrap();
    let signed = others.node("n1", key.public(), now_s()).unwrap();
    let others = Identity::from_pem(signed.certificate, key.private());
    // The cluster role's own, which is not for clients.
    let (signed, key) = role.authorities.lock().unwrap().server(now_s()).unwrap();
    let server = Identity::from_pem(signed.certificate, key);
    for (what, identity) in [("ended", ended), ("others'", others), ("server's", server)] {
        let status = role.first(Some(identity), Vec::new()).await.unwrap_err();
        assert_ne!(status.code(), Code::Ok, "{what}");
        assert_eq!(role.hub.sums().streams, 0, "{what}: {status}");
    }
    // It is the certificate alone that is wrong with them.
    role.first(Some(role.identity("n1", now_s())), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn certificates_of_an_authority_are_good_while_another_one_takes_over() {
    let source = source();
    // The first one is in the last third of its life, and the second one has been trusted for long enough to sign.
    let mut first = Authorities::default();
    first.maintain(now_s() - AUTHORITY_FOR_S * 3 / 4).unwrap();
    let mut both = first.clone();
    assert!(both.maintain(now_s() - TRUST_FIRST).unwrap());
    let key = NodeKey::new().unwrap();
    let signed = first.node("n1", key.public(), now_s()).unwrap();
    let by_first = || Identity::from_pem(signed.certificate.clone(), key.private());
    let role = Role::with(&source, both).await;
    assert!(role.place.bundle.starts_with(&first.bundle()));
    for identity in [by_first(), role.identity("n1", now_s())] {
        let told = updates(role.first(Some(identity), Vec::new()).await.unwrap());
        assert!(!told.is_empty());
    }
    // It is the second one that signs: who trusts the first one alone does not know the cluster role any more.
    let place = Place { bundle: first.bundle(), ..role.place.clone() };
    assert!(matches!(connect(&place, None).await, Err(FollowError::Away { .. })));
}

#[tokio::test]
async fn a_node_does_not_tell_policies_to_who_is_not_the_cluster_role() {
    let source = source();
    let role = Role::start(&source).await;
    let mut others = Authorities::default();
    others.maintain(now_s()).unwrap();
    let place = Place { bundle: others.bundle(), ..role.place.clone() };
    assert!(matches!(connect(&place, None).await, Err(FollowError::Away { .. })));
    // A node's certificate does not make a cluster role.
    let key = NodeKey::new().unwrap();
    let signed = role.authorities.lock().unwrap().node(SERVER, key.public(), now_s()).unwrap();
    let config = tls::server(&role.place.bundle, &signed.certificate, &key.private()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place { address: listener.local_addr().unwrap().to_string(), bundle: role.place.bundle.clone() };
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        _ = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
    });
    assert!(matches!(connect(&place, None).await, Err(FollowError::Away { .. })));
    accepting.await.unwrap();
}

/// Waits until what is told is what there is.
async fn in_step(told: &Told, source: &Source, node: &str) {
    let same = async {
        while !told.is_live() || told.state() != source.cluster().state(node) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, same).await.unwrap();
}

fn credentials(folder: &std::path::Path, token: &str) -> Credentials {
    let file = folder.join("token");
    std::fs::write(&file, token).unwrap();
    Credentials::new(file).unwrap()
}

#[tokio::test]
async fn a_token_gets_the_certificate_of_its_own_node_and_another_gets_none() {
    let source = source();
    let role = Role::start(&source).await;
    let folder = tempfile::tempdir().unwrap();
    let told = Told::default();
    let mut wrong = credentials(folder.path(), "token for nothing");
    let fault = follow(&told, &role.place, &mut wrong, State::default).await.unwrap_err();
    assert!(matches!(&fault, FollowError::Certificate(why) if why.contains("not trusted")), "{fault}");
    let mut right = credentials(folder.path(), "token of n2");
    tokio::select! {
        ended = follow(&told, &role.place, &mut right, State::default) => panic!("{ended:?}"),
        () = in_step(&told, &source, "n2") => {}
    }
    assert_eq!(told.state().policies.keys().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn pods_are_known_when_the_cluster_role_has_seen_them_on_this_node() {
    let source = source();
    let role = Role::start(&source).await;
    let folder = tempfile::tempdir().unwrap();
    let mut credentials = credentials(folder.path(), "token of n1");
    let told = Told::default();
    let asking = async {
        in_step(&told, &source, "n1").await;
        for pod in ["shop/a", "shop/b", "shop/new"] {
            assert!(!told.knows(pod), "nobody has asked for {pod} yet");
        }
        let known = |pod: &'static str| {
            let told = &told;
            timeout(SOON, async move {
                while !told.knows(pod) {
                    told.changed().await;
                    assert!(!told.knows(pod), "what is told of {pod} cannot be in force yet");
                    _ = told.updates();
                }
            })
        };
        known("shop/a").await.unwrap();
        assert!(!told.knows("shop/b"), "it is on another node");
        assert!(!told.knows("shop/new"), "there is none");
        source.change(|cluster| {
            cluster.put_pod(&object(json!({
                "metadata": {"namespace": "shop", "name": "new", "labels": {"app": "a"}},
                "spec": {"nodeName": "n1", "containers": []},
            })));
        });
        known("shop/new").await.unwrap();
        let is_subject = told.state().groups.values().any(|group| group.members.contains_key("shop/new"));
        assert!(is_subject, "it is known with its policies, and not before");
        // Once it is gone, one of the same name is asked for again.
        told.retain(|pod| pod == "shop/a");
        assert!(told.knows("shop/a") && !told.knows("shop/new"));
    };
    tokio::select! {
        ended = follow(&told, &role.place, &mut credentials, State::default) => panic!("{ended:?}"),
        () = asking => {}
    }
}

#[tokio::test]
async fn what_is_in_force_is_told_back_by_generation() {
    let source = Source::new(None);
    let policy = |generation: i64| {
        object(json!({
            "metadata": {"name": "c", "generation": generation},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]},
        }))
    };
    source.change(|cluster| {
        cluster.put_namespace(&object(json!({"metadata": {"name": "shop"}})));
        cluster.put_pod(&object(json!({
            "metadata": {"namespace": "shop", "name": "a"}, "spec": {"nodeName": "n1", "containers": []},
        })));
        cluster.put_cluster_network_policy(&policy(1));
    });
    source.assume_listed();
    let source = Arc::new(source);
    let role = Role::start(&source).await;
    let folder = tempfile::tempdir().unwrap();
    let mut credentials = credentials(folder.path(), "token of n1");
    let name = PolicyName { kind: PolicyKind::ClusterNetworkPolicy, namespace: String::new(), name: "c".to_owned() };
    let told = Told::default();
    let nodes = [Arc::from("n1"), Arc::from("n2")];
    let force = async {
        for generation in [1, 2] {
            source.change(|cluster| cluster.put_cluster_network_policy(&policy(generation)));
            in_step(&told, &source, "n1").await;
            assert_eq!(role.hub.realised(&name, generation, &nodes), 0, "it is there, and not in force");
            _ = told.updates();
            told.realised();
            let realised = async {
                while role.hub.realised(&name, generation, &nodes) == 0 {
                    role.hub.something_realised().await;
                }
            };
            timeout(SOON, realised).await.unwrap();
            assert_eq!(role.hub.realised(&name, generation, &nodes), 1);
            assert_eq!(role.hub.realised(&name, generation + 1, &nodes), 0);
        }
    };
    tokio::select! {
        ended = follow(&told, &role.place, &mut credentials, State::default) => panic!("{ended:?}"),
        () = force => {}
    }
}

#[tokio::test]
async fn who_does_not_lead_any_more_ends_its_streams() {
    let source = source();
    let mut role = Role::start(&source).await;
    let folder = tempfile::tempdir().unwrap();
    let mut credentials = credentials(folder.path(), "token of n1");
    let told = Told::default();
    let place = role.place.clone();
    let ending = async {
        in_step(&told, &source, "n1").await;
        role.stop.take().unwrap().send(()).unwrap();
        timeout(SOON, &mut role.serving).await.unwrap().unwrap();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = timeout(SOON, follow(&told, &place, &mut credentials, State::default)) => ended.unwrap(),
        () = ending => panic!("it has no end"),
    };
    assert!(ended.is_err());
    assert!(!told.is_live());
    assert_eq!(told.state(), source.cluster().state("n1"), "what was told is known on");
}

/// Random words.
fn members() -> impl Strategy<Value = Group> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let member = (
        prop_oneof![Just("n1"), Just("n2")],
        prop::collection::vec(any::<std::net::IpAddr>(), 0..3),
        prop::collection::vec(("[a-z]{1,3}", protocol, any::<u16>()), 0..3),
    );
    let member = member.prop_map(|(node, addresses, ports)| Arc::new(Member { node: node.into(), addresses, ports }));
    prop::collection::btree_map("[a-z]{1,4}/[a-z]{1,4}".prop_map(Arc::from), member, 0..20)
        .prop_map(|members| Group { members })
}

fn policy() -> impl Strategy<Value = Policy> {
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let port = prop_oneof![
        protocol().prop_map(Port::All),
        (protocol(), any::<u16>(), any::<u16>()).prop_map(|(protocol, first, last)| Port::Range(protocol, first, last)),
        (prop::option::of(protocol()), "[a-z]{1,5}").prop_map(|(protocol, name)| Port::Named(protocol, name)),
    ];
    let net = |last: u8| format!("10.{last}.0.0/16").parse().unwrap();
    let peer = prop_oneof![
        "[a-z=;]{0,9}".prop_map(|key| Peer::Group(GroupKey(key.into()))),
        any::<(u8, Option<u8>)>().prop_map(move |(of, except)| Peer::Net {
            net: if of == 0 { "fd00::/8".parse().unwrap() } else { net(of) },
            except: except.into_iter().map(net).collect(),
        }),
    ];
    let direction = || prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    let action = prop_oneof![Just(Action::Accept), Just(Action::Deny), Just(Action::Pass)];
    let rule = (
        (direction(), any::<u32>(), "[a-z]{0,3}", action),
        prop::option::of(prop::collection::vec(peer, 0..3)),
        prop::option::of(prop::collection::vec(port, 0..3)),
    );
    let rule = rule.prop_map(|((direction, index, name, action), peers, ports)| Rule {
        direction,
        index,
        name,
        action,
        peers,
        ports,
    });
    let kind = prop_oneof![
        Just(PolicyKind::NetworkPolicy),
        Just(PolicyKind::ClusterNetworkPolicy),
        Just(PolicyKind::AdminNetworkPolicy),
        Just(PolicyKind::BaselineAdminNetworkPolicy),
    ];
    let tier = prop_oneof![Just(Tier::Admin), Just(Tier::Network), Just(Tier::Baseline)];
    (
        (kind, "[a-z]{0,3}", "[a-z]{1,3}", any::<i64>(), tier, 0_u16..=1000),
        ("[a-z=;]{0,9}", prop::collection::vec(direction(), 0..3), any::<(bool, bool)>()),
        prop::collection::vec(rule, 0..4),
    )
        .prop_map(|((kind, namespace, name, generation, tier, priority), (subject, isolates, flags), rules)| {
            Policy {
                name: PolicyName { kind, namespace, name },
                generation,
                tier,
                priority,
                subject: GroupKey(subject.into()),
                isolates,
                is_audit: flags.0,
                logs: flags.1,
                rules,
            }
        })
}

fn update() -> impl Strategy<Value = Update> {
    let key = || "[a-z=;]{0,9}".prop_map(|key| GroupKey(key.into()));
    prop_oneof![
        policy().prop_map(|policy| Update::Policy(policy.name.clone(), Some(Arc::new(policy)))),
        policy().prop_map(|policy| Update::Policy(policy.name, None)),
        (key(), members()).prop_map(|(key, group)| Update::Group(key, group)),
        (key(), members(), any::<u64>()).prop_map(|(key, group, gone)| {
            let member = |(at, (name, member)): (usize, _)| (name, (gone >> (at % 64) & 1 == 0).then_some(member));
            Update::Members(key, group.members.into_iter().enumerate().map(member).collect())
        }),
        key().prop_map(Update::GroupGone),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back_whole_and_in_pieces(update in update(), size in 1_usize..300) {
        let [whole] = words::write(&update, usize::MAX).try_into().unwrap();
        prop_assert_eq!(&words::read(whole).unwrap(), &update);
        // In pieces it comes to the same, whatever was there before.
        let key = GroupKey("".into());
        let mut before = State::default();
        if let Update::Members(key, members) = &update {
            let there = members.keys().map(|name| (Arc::clone(name), Arc::default())).collect();
            before.groups.insert(key.clone(), Group { members: there });
        }
        before.groups.entry(key).or_default();
        let (mut one, mut other) = (before.clone(), before);
        one.apply(&update);
        let pieces = words::write(&update, size);
        pieces.into_iter().for_each(|piece| other.apply(&words::read(piece).unwrap()));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_digest_is_another_for_another_policy_or_group(a in policy(), b in policy(), c in members(), d in members()) {
        prop_assert_eq!(a == b, words::policy_digest(&a) == words::policy_digest(&b));
        let key = GroupKey("k".into());
        prop_assert_eq!(c == d, words::group_digest(&key, &c) == words::group_digest(&key, &d));
    }

    #[test]
    fn no_message_makes_a_reader_fail_otherwise_than_by_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        use prost::Message as _;
        if let Ok(update) = sluice_proto::v1::PolicyUpdate::decode(bytes.as_slice()) {
            _ = words::read(update);
        }
    }
}
