//! Where the node's policies come from: its own look at the cluster, or the stream of the cluster role.
//!
//! Both say the same in the same words. When the one takes over from the other, what it says is compared with what is in force, so
//! that only the difference is programmed, and nothing goes in between. Until it has all to say, the other one goes on; while
//! nobody has anything to say, what is in force stays.

use crate::config::PolicySource;
use crate::facts::policy::{State, Update};
use crate::stream::places::{self, Seen};
use crate::stream::{Credentials, Place, Told, follow};
use crate::watch::link::Link;
use crate::watch::policies::{self as watch_policies, Source};
use std::collections::BTreeSet;
use std::future::pending;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// The token that certificates are asked for with.
pub(super) const TOKEN: &str = "/var/run/secrets/sluice-cluster/token";
/// How long the cluster role may say nothing until the node looks itself; each node takes up to twice that, so that not all
/// begin at once.
const ALONE_AFTER: Duration = Duration::from_secs(30);
/// The first and the longest pause before a stream is begun again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How often it is looked at who is to tell, though nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who told what is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Teller {
    /// Nobody: it is what was kept.
    #[default]
    Nobody,
    /// The node's own look.
    Own,
    /// The cluster role.
    Stream,
}

#[derive(Debug, Default)]
struct Inner {
    own: Option<Arc<Source>>,
    teller: Teller,
    /// What was kept.
    kept: State,
    /// Why there is no stream.
    fault: Option<String>,
    /// Pods of the node that its own look had when its changes were gathered last, and those that are waited for.
    seen: BTreeSet<String>,
    asked: BTreeSet<String>,
}

/// The sources of a node's policies.
#[derive(Debug)]
pub(super) struct Sources {
    node: String,
    told: Told,
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Sources {
    /// None yet.
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), told: Told::default(), inner: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's own look is to tell, or not.
    pub(super) fn set_own(&self, own: Option<Arc<Source>>) {
        let mut inner = self.lock();
        inner.own = own;
        inner.seen.clear();
        drop(inner);
        self.changed.notify_one();
    }

    fn own(&self) -> Option<Arc<Source>> {
        self.lock().own.clone()
    }

    /// What was kept, which the node goes by until somebody tells something.
    pub(super) fn set_kept(&self, kept: State) {
        self.lock().kept = kept;
    }

    /// Whether somebody has all to say.
    pub(super) fn is_complete(&self) -> bool {
        self.told.is_live() || self.own().is_some_and(|own| own.is_complete())
    }

    /// Waits until somebody has all to say.
    pub(super) async fn complete(&self) {
        while !self.is_complete() {
            _ = timeout(PAUSE.0, self.changed()).await;
        }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        let own = self.own();
        let own_changed = async {
            match &own {
                Some(own) => own.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.changed.notified() => {}
            () = self.told.changed() => {}
            () = own_changed => {}
        }
    }

    /// What has to be put into what is in force; none while nobody tells.
    pub(super) fn gather(&self, in_force: &State) -> Option<Vec<Update>> {
        let mut inner = self.lock();
        if self.told.is_live() {
            if inner.teller == Teller::Stream
                && let Some(updates) = self.told.updates()
            {
                return Some(updates);
            }
            inner.become_told_by(Teller::Stream);
            return Some(self.told.state().since(in_force));
        }
        let own = inner.own.clone().filter(|own| own.is_complete())?;
        // Before its changes are taken, so that what they say of these Pods is among them.
        let cluster = own.cluster();
        let is_here = |pod: &String| cluster.is_on(&self.node, pod);
        let seen: Vec<String> = inner.asked.extract_if(.., is_here).collect();
        drop(cluster);
        inner.seen.extend(seen);
        if inner.teller == Teller::Own {
            return Some(own.updates(&self.node));
        }
        inner.become_told_by(Teller::Own);
        Some(own.state(&self.node).since(in_force))
    }

    /// Whether what was gathered last says which policies a Pod of this node is a subject of, by
    /// [`Cluster::is_on`](crate::policy::Cluster::is_on)'s names. What has come since is not in force:
    /// a Pod that is among that is known when it has been gathered.
    pub(super) fn knows(&self, pod: &str) -> bool {
        if self.told.is_live() {
            return self.told.knows(pod);
        }
        let mut inner = self.lock();
        let Some(own) = inner.own.clone().filter(|_| inner.teller == Teller::Own) else {
            return inner.teller == Teller::Nobody;
        };
        if inner.seen.contains(pod) {
            return true;
        }
        inner.asked.insert(pod.to_owned());
        if own.cluster().is_on(&self.node, pod) {
            self.changed.notify_one();
        }
        false
    }

    /// Only these Pods are on the node.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        inner.seen.retain(|pod| is_there(pod));
        inner.asked.retain(|pod| is_there(pod));
        drop(inner);
        self.told.retain(is_there);
    }

    /// What was gathered is in force.
    pub(super) fn realised(&self) {
        if self.lock().teller == Teller::Stream {
            self.told.realised();
        }
    }

    /// What the node has, as a stream begins with it.
    fn base(&self) -> State {
        let inner = self.lock();
        match (inner.teller, &inner.own) {
            (Teller::Own, Some(own)) => own.cluster().state(&self.node),
            (Teller::Nobody, _) => inner.kept.clone(),
            _ => self.told.state(),
        }
    }

    /// Why the stream that should be there is not.
    pub(super) fn state(&self) -> Result<(), String> {
        if self.told.is_live() {
            return Ok(());
        }
        self.lock().fault.clone().map_or(Ok(()), Err)
    }
}

impl Inner {
    fn become_told_by(&mut self, teller: Teller) {
        if self.teller != teller {
            info!(
                "policies are told by {}",
                match teller {
                    Teller::Stream => "the cluster role",
                    Teller::Own | Teller::Nobody => "the API server",
                }
            );
        }
        self.teller = teller;
        self.kept = State::default();
    }
}

/// Keeps the sources as `mode` says, without an end.
pub(super) async fn keep(sources: Arc<Sources>, link: Link, mode: PolicySource, namespace: String) {
    if mode == PolicySource::Node {
        let own = Arc::new(Source::new(Some(&sources.node)));
        let _reflectors = watch_policies::start(&link, &own);
        sources.set_own(Some(own));
        return pending().await;
    }
    let (seen, places) = watch::channel(Seen::default());
    tokio::select! {
        () = places::look(link.clone(), namespace, seen) => {}
        () = stream(&sources, places.clone(), Path::new(TOKEN)) => {}
        () = look_alone(&sources, &link, mode, places) => {}
    }
}

/// A number below one that a node always has the same of, and every node another.
fn share(node: &str) -> f64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(node.as_bytes());
    f64::from(u16::try_from(hasher.finish() >> 48).unwrap_or_default()) / 65536.0
}

/// Follows whoever leads.
async fn stream(sources: &Sources, mut places: watch::Receiver<Seen>, token: &Path) {
    let mut credentials = match Credentials::new(token.to_owned()) {
        Ok(credentials) => credentials,
        Err(error) => {
            warn!("no stream of the cluster role: {error}");
            return pending().await;
        }
    };
    let mut pause = PAUSE.0;
    loop {
        let seen = places.borrow_and_update().clone();
        let Seen::At(place) = seen else {
            sources.lock().fault = match seen {
                Seen::Nobody => Some("there is a cluster role, and nobody of it has led yet".to_owned()),
                _ => None,
            };
            if places.changed().await.is_err() {
                return;
            }
            // All nodes learn of it at one time.
            sleep(PAUSE.0.mul_f64(share(&sources.node))).await;
            continue;
        };
        tokio::select! {
            fault = once(sources, &place, &mut credentials) => match fault {
                None => pause = PAUSE.0,
                Some(fault) => {
                    let mut inner = sources.lock();
                    if inner.fault.as_ref() != Some(&fault) {
                        warn!("{fault}; policies stay as they are until somebody tells them, trying on");
                    }
                    inner.fault = Some(fault);
                }
            },
            changed = places.changed() => {
                if changed.is_err() {
                    return;
                }
                pause = PAUSE.0;
                continue;
            }
        }
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + share(&sources.node))) => pause = (pause * 2).min(PAUSE.1),
            // Another one leads: it need not be waited for.
            changed = places.changed() => {
                if changed.is_err() {
                    return;
                }
                pause = PAUSE.0;
            }
        }
    }
}

/// One stream, from its begin to its end; why it has ended, unless it has to begin again at once.
async fn once(sources: &Sources, place: &Place, credentials: &mut Credentials) -> Option<String> {
    let result = follow(&sources.told, place, credentials, || sources.base()).await;
    result.err().map(|error| error.to_string())
}

/// Has the node look itself while nobody else tells it anything, as far as `mode` allows.
async fn look_alone(sources: &Sources, link: &Link, mode: PolicySource, mut places: watch::Receiver<Seen>) {
    let alone_after = ALONE_AFTER.mul_f64(1.0 + share(&sources.node));
    let mut live_at = Instant::now();
    let mut reflectors: Option<JoinSet<()>> = None;
    loop {
        let is_absent = *places.borrow_and_update() == Seen::Absent;
        let is_live = sources.told.is_live();
        if is_live {
            live_at = Instant::now();
        }
        let is_needed = mode == PolicySource::Auto && !is_live && (is_absent || live_at.elapsed() > alone_after);
        if is_needed && reflectors.is_none() {
            if !is_absent {
                warn!("the cluster role has told nothing for {alone_after:?}: the node looks at the cluster itself");
            }
            let own = Arc::new(Source::new(Some(&sources.node)));
            reflectors = Some(watch_policies::start(link, &own));
            sources.set_own(Some(own));
        }
        // What the stream has told is in what is in force from then on.
        if is_live && reflectors.is_some() && sources.lock().teller == Teller::Stream {
            info!("the node does not look at the cluster's policies itself any more");
            reflectors = None;
            sources.set_own(None);
        }
        tokio::select! {
            changed = places.changed() => if changed.is_err() {
                return;
            },
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn own() -> Arc<Source> {
        let source = Source::new(Some("n1"));
        source.change(|cluster| {
            cluster.put_namespace(&object(json!({"metadata": {"name": "shop"}})));
            cluster.put_pod(&object::<Pod>(json!({
                "metadata": {"namespace": "shop", "name": "web"}, "spec": {"nodeName": "n1", "containers": []},
            })));
            cluster.put_network_policy(&object(json!({
                "metadata": {"namespace": "shop", "name": "web"}, "spec": {"podSelector": {}},
            })));
        });
        Arc::new(source)
    }

    #[test]
    fn nobody_tells_before_all_is_listed_and_what_is_told_then_is_the_difference() {
        let sources = Sources::new("n1");
        let source = own();
        sources.set_own(Some(Arc::clone(&source)));
        assert_eq!(sources.gather(&State::default()), None);
        assert!(sources.knows("shop/new"), "a start without API server goes by what was kept");
        source.assume_listed();
        let whole = source.cluster().state("n1");
        assert_eq!(sources.gather(&whole), Some(Vec::new()), "it is in force already");
        assert!(!sources.knows("shop/web") && !sources.knows("shop/new"), "nobody has asked for them before that");
        assert_eq!(sources.gather(&whole), Some(Vec::new()));
        assert!(sources.knows("shop/web") && !sources.knows("shop/new"));
        source.change(|cluster| cluster.remove_pod("shop", "web"));
        assert!(sources.gather(&whole).is_some_and(|updates| !updates.is_empty()));
    }

    /// The node's own look has a Pod before what it says of that is gathered.
    #[test]
    fn a_pod_is_known_when_what_is_said_of_it_has_been_gathered() {
        let sources = Sources::new("n1");
        let source = own();
        source.assume_listed();
        sources.set_own(Some(Arc::clone(&source)));
        let before = sources.gather(&State::default()).unwrap();
        assert!(!sources.knows("shop/new"));
        // Until it is known to be on this node, nothing is told of it here.
        for spec in [json!({"containers": []}), json!({"nodeName": "n1", "containers": []})] {
            assert_eq!(sources.gather(&State::default()), Some(Vec::new()));
            assert!(!sources.knows("shop/new"));
            let metadata = json!({"namespace": "shop", "name": "new"});
            let pod = object::<Pod>(json!({"metadata": metadata, "spec": spec}));
            source.change(|cluster| cluster.put_pod(&pod));
        }
        assert!(!sources.knows("shop/new"), "that its policy denies is not in force");
        let mut whole = State::default();
        before.iter().for_each(|update| whole.apply(update));
        assert!(sources.gather(&whole).is_some_and(|updates| !updates.is_empty()));
        assert!(sources.knows("shop/new"));
        sources.retain(|pod| pod != "shop/new");
        assert!(!sources.knows("shop/new"), "the next one of its name may be another Pod");
    }

    /// The API server is heard later than the runtime: what has a Pod's name may be the one before it.
    #[test]
    fn a_pod_is_not_taken_for_the_one_before_it() {
        let sources = Sources::new("n1");
        let source = own();
        source.assume_listed();
        sources.set_own(Some(Arc::clone(&source)));
        let put = |uid: &str| {
            let metadata = json!({"namespace": "shop", "name": "db-0", "uid": uid});
            let pod = object(json!({"metadata": metadata, "spec": {"nodeName": "n1", "containers": []}}));
            source.change(|cluster| cluster.put_pod(&pod));
            sources.gather(&State::default()).unwrap();
        };
        let (old, new) = ("3e4f4a0e-0000-4000-8000-000000000001", "3e4f4a0e-0000-4000-8000-000000000002");
        let name = format!("shop/db-0/{new}");
        put(old);
        assert!(!sources.knows(&name));
        put(old);
        assert!(!sources.knows(&name), "that is the old one");
        put(new);
        assert!(sources.knows(&name));
    }

    #[test]
    fn what_is_in_force_stays_while_nobody_tells() {
        let sources = Sources::new("n1");
        let source = own();
        source.assume_listed();
        sources.set_own(Some(Arc::clone(&source)));
        let whole = source.cluster().state("n1");
        assert!(sources.gather(&State::default()).is_some());
        assert_eq!(sources.base(), whole, "a stream begins with what the node has");
        sources.set_own(None);
        assert_eq!(sources.gather(&whole), None);
        assert!(!sources.knows("shop/web"), "nobody can tell, and it is not a start");
    }

    #[test]
    fn a_stream_begins_with_what_was_kept() {
        let source = own();
        let kept = source.cluster().state("n1");
        let sources = Sources::new("n1");
        sources.set_kept(kept.clone());
        assert_eq!(sources.base(), kept);
    }

    #[test]
    fn shares_are_below_one() {
        assert!(["", "n1", "node-2"].iter().all(|name| (0.0..1.0).contains(&share(name))));
    }
}
