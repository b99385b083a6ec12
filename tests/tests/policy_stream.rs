//! The stream of policies over TLS on loopback: three nodes follow a cluster role through random clusters, are torn from it and come
//! back, and know at the end of each step what the cluster role works out for them.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use sluice_controller::facts::policy::{PolicyKind, PolicyName, State};
use sluice_controller::policy::Cluster;
use sluice_controller::stream::certs::Authorities;
use sluice_controller::stream::{Credentials, Hub, Place, Review, Service, Sums, Told, follow, serve, tls};
use sluice_controller::watch::policies::Source;
use sluice_tests::computed::put;
use sluice_tests::policy::{Object, World};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long anything may take that is waited for.
const SOON: Duration = Duration::from_secs(60);

fn remove(cluster: &mut Cluster, object: &Object) {
    let (_, namespace, name) = object.key();
    let policy = |kind| PolicyName { kind, namespace: namespace.clone(), name: name.clone() };
    match object {
        Object::Namespace(_) => cluster.remove_namespace(&name),
        Object::Pod(_) => cluster.remove_pod(&namespace, &name),
        Object::Node(_) => cluster.remove_node(&name),
        Object::NetworkPolicy(_) => cluster.remove_policy(&policy(PolicyKind::NetworkPolicy)),
        Object::ClusterNetworkPolicy(_) => cluster.remove_policy(&policy(PolicyKind::ClusterNetworkPolicy)),
        Object::AdminNetworkPolicy(_) => cluster.remove_policy(&policy(PolicyKind::AdminNetworkPolicy)),
        Object::BaselineAdminNetworkPolicy(_) => {
            cluster.remove_policy(&policy(PolicyKind::BaselineAdminNetworkPolicy));
        }
    }
}

/// Goes from one cluster to another, a few objects at a time.
async fn go(source: &Source, from: &World, to: &World) {
    let stays: BTreeSet<_> = to.objects.iter().map(Object::key).collect();
    let gone: Vec<_> = from.objects.iter().filter(|object| !stays.contains(&object.key())).collect();
    for few in gone.chunks(5) {
        source.change(|cluster| few.iter().for_each(|object| remove(cluster, object)));
        tokio::task::yield_now().await;
    }
    for few in to.objects.chunks(5) {
        source.change(|cluster| few.iter().for_each(|object| put(cluster, object)));
        tokio::task::yield_now().await;
    }
}

fn nodes(world: &World) -> Vec<String> {
    let name = |pod: &k8s_openapi::api::core::v1::Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let names: BTreeSet<String> = world.pods().filter_map(name).filter(|name| !name.is_empty()).collect();
    names.into_iter().collect()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A leader.
struct Leader {
    place: Place,
    hub: Arc<Hub>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Leader {
    async fn start(source: &Arc<Source>, authorities: &Arc<Mutex<Authorities>>) -> Self {
        let (bundle, (signed, key)) = {
            let authorities = authorities.lock().unwrap();
            (authorities.bundle(), authorities.server(now_s()).unwrap())
        };
        let (_, config) = watch::channel(tls::server(&bundle, &signed.certificate, &key).unwrap());
        // A token is a node's name here.
        let review: Review = Arc::new(|token| Box::pin(async move { Ok(token) }));
        let hub = Hub::new(Arc::clone(source));
        let service = Service::new(Arc::clone(&hub), Arc::clone(authorities), review);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place { address: listener.local_addr().unwrap().to_string(), bundle };
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async { _ = stopped.await };
            serve(listener, config, service, stopped).await.unwrap();
        });
        Self { place, hub, stop, serving }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(SOON, self.serving).await.unwrap().unwrap();
    }

    /// What was sent when nothing is on its way any more.
    fn sums(&self) -> Sums {
        self.hub.sums()
    }
}

/// A node, which follows whoever it is told to.
struct Node {
    name: String,
    told: Arc<Told>,
    following: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Node {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), name).unwrap();
        Self { name: name.to_owned(), told: Arc::default(), following: None, folder }
    }

    fn follow(&mut self, leader: &Leader) {
        let (told, place) = (Arc::clone(&self.told), leader.place.clone());
        let mut credentials = Credentials::new(Path::join(self.folder.path(), "token")).unwrap();
        self.following = Some(tokio::spawn(async move {
            let base = told.state();
            _ = follow(&told, &place, &mut credentials, || base).await;
        }));
    }

    /// The connection is torn.
    async fn tear(&mut self) {
        if let Some(following) = self.following.take() {
            following.abort();
            _ = following.await;
        }
    }

    /// Waits until it knows what it has to know.
    async fn in_step(&self, source: &Source) {
        let same = async {
            while !self.told.is_live() || self.told.state() != source.cluster().state(&self.name) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(SOON, same).await.is_err() {
            assert_eq!(self.told.state(), source.cluster().state(&self.name), "{}", self.name);
            assert!(self.told.is_live(), "{}: no stream", self.name);
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn authorities() -> Arc<Mutex<Authorities>> {
    let mut authorities = Authorities::default();
    authorities.maintain(now_s()).unwrap();
    Arc::new(Mutex::new(authorities))
}

#[test]
fn nodes_know_at_each_step_what_there_is_to_know_however_often_they_are_torn_away() {
    run(async {
        let worlds: Vec<World> = (0..12).map(|seed| World::random(seed, 3 + (seed % 6) as usize)).collect();
        let source = Arc::new(Source::new(None));
        source.assume_listed();
        let authorities = authorities();
        let mut leader = Leader::start(&source, &authorities).await;
        let mut names: BTreeSet<String> = worlds.iter().flat_map(nodes).collect();
        // One that nothing is ever of concern to.
        names.insert("without-pods".to_owned());
        let mut followers: Vec<Node> = names.iter().map(|name| Node::new(name)).collect();
        assert!(followers.len() >= 3, "{names:?}");
        followers.iter_mut().for_each(|node| node.follow(&leader));
        let mut before = World::default();
        let mut largest = 0;
        for (step, world) in worlds.iter().enumerate() {
            if step % 4 == 3 {
                // Nodes change while there is nobody to tell it.
                leader.stop().await;
                go(&source, &before, world).await;
                leader = Leader::start(&source, &authorities).await;
                followers.iter_mut().for_each(|node| node.follow(&leader));
            } else {
                let torn = step % 3;
                followers[torn].tear().await;
                go(&source, &before, world).await;
                followers[torn].follow(&leader);
            }
            for node in &followers {
                node.in_step(&source).await;
                largest = largest.max(node.told.state().policies.len());
            }
            before = world.clone();
        }
        assert!(largest > 3, "the clusters have next to no policies: {largest}");
        leader.stop().await;
    });
}

/// A cluster in which a node has much to know.
fn large() -> Arc<Source> {
    let source = Source::new(None);
    let object = |value: serde_json::Value| serde_json::from_value(value).unwrap();
    source.change(|cluster| {
        cluster.put_namespace(&serde_json::from_value(serde_json::json!({"metadata": {"name": "shop"}})).unwrap());
        for number in 0..12_000 {
            cluster.put_pod(&pod(number, "client"));
        }
        for number in 12_000..12_100 {
            cluster.put_pod(&pod(number, "server"));
        }
        for number in 0..50 {
            cluster.put_network_policy(&object(serde_json::json!({
                "metadata": {"namespace": "shop", "name": format!("np{number}")},
                "spec": {
                    "podSelector": {"matchLabels": {"app": "server"}},
                    "ingress": [{
                        "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                        "ports": [{"port": 1000 + number}],
                    }],
                },
            })));
        }
    });
    source.assume_listed();
    Arc::new(source)
}

fn pod(number: u32, app: &str) -> k8s_openapi::api::core::v1::Pod {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
    serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "shop", "name": format!("pod-{number}"), "labels": {"app": app}},
        "spec": {"nodeName": format!("n{}", number % 3), "containers": []},
        "status": {"podIPs": [{"ip": address.to_string()}]},
    }))
    .unwrap()
}

#[test]
fn a_node_that_comes_back_is_sent_what_has_changed_alone() {
    run(async {
        let source = large();
        let authorities = authorities();
        let leader = Leader::start(&source, &authorities).await;
        let mut node = Node::new("n1");
        node.follow(&leader);
        node.in_step(&source).await;
        let whole = leader.sums();
        assert!(whole.bytes > 256 * 1024 && whole.updates > 50, "it is in parts: {whole:?}");

        // Nothing has changed.
        node.tear().await;
        node.follow(&leader);
        node.in_step(&source).await;
        let same = leader.sums();
        assert_eq!((same.updates, same.streams), (whole.updates, 2));
        assert!(same.bytes - whole.bytes < 100, "{same:?}");

        // A policy was added and another one deleted meanwhile.
        node.tear().await;
        source.change(|cluster| {
            let name =
                PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: "np7".to_owned() };
            cluster.remove_policy(&name);
            cluster.put_network_policy(
                &serde_json::from_value(serde_json::json!({
                    "metadata": {"namespace": "shop", "name": "more"},
                    "spec": {"podSelector": {"matchLabels": {"app": "server"}}},
                }))
                .unwrap(),
            );
        });
        node.follow(&leader);
        node.in_step(&source).await;
        let changed = leader.sums();
        assert_eq!(changed.updates - same.updates, 2);
        assert!(changed.bytes - same.bytes < 1000, "{changed:?}");

        // Another leader, which has told nobody anything, and a policy that goes while there is none.
        leader.stop().await;
        source.change(|cluster| {
            let name =
                PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: "np8".to_owned() };
            cluster.remove_policy(&name);
        });
        let state = node.told.state();
        assert!(state.policies.keys().any(|name| name.name == "np8"), "what was told is known on");
        let leader = Leader::start(&source, &authorities).await;
        node.follow(&leader);
        node.in_step(&source).await;
        assert!(!node.told.state().policies.keys().any(|name| name.name == "np8"));
        assert_eq!(leader.sums().updates, 1, "{:?}", leader.sums());

        // A Pod that comes is an update of the groups that it is a member of, and of no others.
        let before = leader.sums();
        source.change(|cluster| cluster.put_pod(&pod(13_000, "client")));
        node.in_step(&source).await;
        let after = leader.sums();
        assert_eq!(after.updates - before.updates, 1);
        assert!(after.bytes - before.bytes < 200, "{after:?}");
        leader.stop().await;
    });
}

#[test]
fn a_stream_that_begins_with_nothing_and_one_that_begins_with_too_much_come_to_the_same() {
    run(async {
        let source = large();
        let authorities = authorities();
        let leader = Leader::start(&source, &authorities).await;
        let other = source.cluster().state("n2");
        for base in [State::default(), other] {
            let node = Node::new("n1");
            let (told, place) = (Arc::clone(&node.told), leader.place.clone());
            let mut credentials = Credentials::new(node.folder.path().join("token")).unwrap();
            let following = tokio::spawn(async move { follow(&told, &place, &mut credentials, || base).await });
            node.in_step(&source).await;
            following.abort();
        }
        leader.stop().await;
    });
}
