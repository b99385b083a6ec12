//! Against an API server in this process: it lists what it has, and its watches end at once, so that everything is seen by lists
//! and by what a watch tells before its end.

use super::link::{Candidate, Link};
use super::{Kind, Objects, Store, policies, reflect};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// What the server has, by the name of the list; and whether it answers.
#[derive(Default)]
struct Cluster {
    lists: BTreeMap<&'static str, Vec<Value>>,
    is_away: bool,
    /// What watches of Services tell, once.
    told: Vec<Value>,
    /// How often somebody asked for what there is not.
    asked_in_vain: usize,
}

type Shared = Arc<Mutex<Cluster>>;

fn answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn list(cluster: &Shared, what: &'static str, uri: &Uri) -> Response {
    let mut cluster = cluster.lock().unwrap();
    if cluster.is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        let told = if what == "ServiceList" { std::mem::take(&mut cluster.told) } else { Vec::new() };
        return told.iter().map(|event| format!("{event}\n")).collect::<String>().into_response();
    }
    let items = cluster.lists.get(what).cloned().unwrap_or_default();
    let versions = [
        ("ServiceCIDRList", "networking.k8s.io/v1"),
        ("NetworkPolicyList", "networking.k8s.io/v1"),
        ("EndpointSliceList", "discovery.k8s.io/v1"),
    ];
    let version = versions.iter().find(|(name, _)| *name == what).map_or("v1", |(_, version)| version);
    let body = json!({"apiVersion": version, "kind": what, "metadata": {"resourceVersion": "1"}, "items": items});
    answer(&body)
}

fn server(cluster: &Shared) -> Client {
    let mut router = Router::new().route(
        "/version",
        get(|State(cluster): State<Shared>| async move {
            if cluster.lock().unwrap().is_away {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            let info = ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
            let mut body: BTreeMap<_, _> = info.into_iter().map(|key| (key, "x")).collect();
            body.extend([("major", "1"), ("minor", "34")]);
            answer(&json!(body))
        }),
    );
    for (path, what) in [
        ("/api/v1/nodes", "NodeList"),
        ("/api/v1/services", "ServiceList"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "EndpointSliceList"),
        ("/apis/networking.k8s.io/v1/servicecidrs", "ServiceCIDRList"),
        ("/api/v1/pods", "PodList"),
        ("/api/v1/namespaces", "NamespaceList"),
        ("/apis/networking.k8s.io/v1/networkpolicies", "NetworkPolicyList"),
    ] {
        router = router
            .route(path, get(move |State(cluster): State<Shared>, uri: Uri| async move { list(&cluster, what, &uri) }));
    }
    let router = router.fallback(|State(cluster): State<Shared>| async move {
        cluster.lock().unwrap().asked_in_vain += 1;
        StatusCode::NOT_FOUND
    });
    Client::new(router.with_state(Arc::clone(cluster)), "default")
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "spec": {"clusterIP": "10.96.0.9"}})
}

fn cluster() -> Shared {
    let lists = BTreeMap::from([
        ("NodeList", vec![json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]}})]),
        ("ServiceList", vec![service("web")]),
        (
            "EndpointSliceList",
            vec![json!({
                "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.2"]}],
            })],
        ),
        ("ServiceCIDRList", vec![json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}})]),
    ]);
    Arc::new(Mutex::new(Cluster { lists, ..Cluster::default() }))
}

/// Waits until `is_so`, for so long that it is not there at all if it is not there then.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("not there: {what}"));
}

#[tokio::test]
async fn the_store_has_what_the_server_lists() {
    let cluster = cluster();
    let store = Arc::new(Store::default());
    let (link, _looking) = Link::start(vec![Candidate::Client(server(&cluster))]);
    let _reflectors = reflect::start(&link, &store);
    timeout(Duration::from_secs(30), store.complete()).await.unwrap();
    let (_, slices) = store.service("shop/web").unwrap();
    assert_eq!(slices.len(), 1, "a slice is its Service's by its label");
    assert_eq!(store.node_names().into_iter().collect::<Vec<_>>(), ["n1"]);
    assert_eq!(store.service_cidrs(), ["10.96.0.0/16".parse().unwrap()]);
    let touched: Vec<_> = store.touched.take().into_iter().collect();
    assert!(touched.contains(&(Kind::Service, "shop/web".to_owned())), "{touched:?}");
}

#[tokio::test]
async fn what_a_copy_has_and_the_server_has_not_goes_with_the_list() {
    let cluster = cluster();
    let store = Arc::new(Store::default());
    let gone: Service = serde_json::from_value(service("gone")).unwrap();
    let there: Service = serde_json::from_value(service("web")).unwrap();
    store.preload(Objects { services: vec![gone, there], ..Objects::default() });
    assert_eq!(store.touched.take().len(), 2);
    assert!(!store.is_complete());
    let (link, _looking) = Link::start(vec![Candidate::Client(server(&cluster))]);
    let _reflectors = reflect::start(&link, &store);
    timeout(Duration::from_secs(30), store.complete()).await.unwrap();
    assert_eq!(store.service_names().into_iter().collect::<Vec<_>>(), ["shop/web"]);
    assert!(store.touched.take().contains(&(Kind::Service, "shop/gone".to_owned())));
}

#[tokio::test]
async fn a_copy_takes_nothing_back_that_was_listed() {
    let store = Store::default();
    let listed: Service = serde_json::from_value(service("web")).unwrap();
    store.replace(vec![listed]);
    let old: Service = serde_json::from_value(service("old")).unwrap();
    store.preload(Objects { services: vec![old], ..Objects::default() });
    assert_eq!(store.service_names().into_iter().collect::<Vec<_>>(), ["shop/web"]);
}

#[tokio::test]
async fn a_watch_adds_changes_and_deletes() {
    let cluster = cluster();
    let event = |kind: &str, name: &str| {
        let mut object = service(name);
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Service");
        json!({"type": kind, "object": object})
    };
    cluster.lock().unwrap().told = vec![event("ADDED", "new"), event("DELETED", "web")];
    let store = Arc::new(Store::default());
    let (link, _looking) = Link::start(vec![Candidate::Client(server(&cluster))]);
    let _reflectors = reflect::start(&link, &store);
    until("the new one alone", || store.service_names().into_iter().eq(["shop/new".to_owned()])).await;
}

#[tokio::test]
async fn kinds_that_the_cluster_does_not_have_are_asked_for_now_and_then() {
    let cluster = cluster();
    let source = Arc::new(policies::Source::new(None));
    let (link, _looking) = Link::start(vec![Candidate::Client(server(&cluster))]);
    let _reflectors = policies::start(&link, &source);
    timeout(Duration::from_secs(30), source.complete()).await.unwrap();
    // Long enough for a watcher to ask again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.lock().unwrap().asked_in_vain, 3, "there are three such kinds");
}

#[tokio::test]
async fn the_next_candidate_is_taken_when_one_does_not_answer_and_when_it_stops_answering() {
    let (first, second, third) = (cluster(), cluster(), cluster());
    first.lock().unwrap().is_away = true;
    third.lock().unwrap().lists.insert("ServiceList", vec![service("third")]);
    let store = Arc::new(Store::default());
    let all = [&first, &second, &third].map(|one| Candidate::Client(server(one)));
    let (link, _looking) = Link::start(all.into());
    let _reflectors = reflect::start(&link, &store);
    until("the second's", || store.service("shop/web").is_some()).await;
    assert!(link.is_up());
    second.lock().unwrap().is_away = true;
    until("the third's", || store.service_names().into_iter().eq(["shop/third".to_owned()])).await;
}

#[tokio::test]
async fn whoever_uses_the_link_begins_anew_when_it_is_renewed() {
    let (mut link, _looking) = Link::start(vec![Candidate::Client(server(&Shared::default()))]);
    let _first = timeout(Duration::from_secs(30), link.client()).await.unwrap().unwrap();
    link.renew();
    timeout(Duration::from_secs(30), link.changed()).await.unwrap();
    let _second = timeout(Duration::from_secs(30), link.client()).await.unwrap().unwrap();
    assert!(timeout(Duration::from_millis(200), link.changed()).await.is_err(), "once is enough");
}
