//! Policies on the node: what is told of them, kept on disk and programmed, and the connections that they end.
//!
//! What the node was told last is on disk, so that a start without an API server begins with it; the lists, when they come, are
//! compared with it. A Pod's attachment is confirmed only when the Pod itself has been seen, with its labels: before that nobody
//! can say which policies it is a subject of.

use super::sources::Sources;
use crate::copy::write_renamed;
use crate::facts::Node;
use crate::facts::Protocol;
use crate::facts::policy::{Direction, State, Update};
use crate::flow::{Object, Part};
use crate::pipeline::{self, CUT, Family, LocalPod, ZONE};
use crate::policy::{Connection, Judge, Subject};
use serde::{Deserialize, Serialize};
use sluice_proto::v1::{self, ConnectionLabel};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{info, warn};

/// The file's name in the folder of the node's state.
const NAME: &str = "policies.json";
/// What this version writes. A file with another number is not used.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    updates: Vec<Update>,
}

/// The policies of a node.
pub(super) struct Policies {
    sources: Arc<Sources>,
    file: PathBuf,
    flows: pipeline::Policies,
    /// The families that they are made for.
    families: Vec<Family>,
    /// Flows that were made for others.
    gone: Vec<Object>,
    /// Who is who on this node, by `NAMESPACE/NAME`.
    pods: BTreeMap<Arc<str>, LocalPod>,
    /// There is something to go by: what was kept, or the lists.
    is_known: bool,
    /// What is in the file is not what was told since.
    is_unwritten: bool,
    /// Connections have not been judged since something changed.
    is_unjudged: bool,
}

impl Policies {
    pub(super) fn new(sources: Arc<Sources>, folder: &Path) -> Self {
        Self {
            sources,
            file: folder.join(NAME),
            flows: pipeline::Policies::new(&Node::default()),
            families: Vec::new(),
            gone: Vec::new(),
            pods: BTreeMap::new(),
            is_known: false,
            is_unwritten: false,
            is_unjudged: true,
        }
    }

    /// Where what is told comes from.
    pub(super) fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources)
    }

    /// Takes in what was kept, if the lists are not there.
    pub(super) fn load(&mut self) {
        if self.sources.is_complete() {
            return;
        }
        match read(&self.file) {
            Ok(Some(updates)) => {
                self.flows.update(&updates);
                self.sources.set_kept(self.flows.state().clone());
                self.is_known = true;
                info!("starting with the policies that were kept: {}", self.flows.state().policies.len());
            }
            Ok(None) => {}
            Err(error) => warn!("cannot use {}: {error}; waiting for the API server", self.file.display()),
        }
    }

    /// The node is as this says: all flows are made again if its Pods have addresses of other families than before.
    pub(super) fn on(&mut self, node: &Node) {
        let families = Family::all(node).collect();
        if self.families == families {
            return;
        }
        self.families = families;
        let old = std::mem::replace(&mut self.flows, pipeline::Policies::new(node));
        self.gone.extend(old.objects());
        self.flows.update(&old.state().since(&State::default()));
        self.pods.iter().for_each(|(name, pod)| self.flows.put_pod(name, pod.clone()));
    }

    /// Takes in what is told. Whether there is anything to go by.
    pub(super) fn gather(&mut self) -> bool {
        let Some(updates) = self.sources.gather(self.flows.state()) else { return self.is_known };
        if !self.is_known {
            // That there are none is worth to be kept, too.
            (self.is_known, self.is_unwritten) = (true, true);
        }
        self.is_unwritten |= !updates.is_empty();
        self.flows.update(&updates);
        self.is_known
    }

    /// The Pods of the node are exactly these, as [`knows`](Self::knows) calls them.
    pub(super) fn set_pods(&mut self, pods: BTreeMap<Arc<str>, LocalPod>, identities: &BTreeSet<String>) {
        let before = std::mem::replace(&mut self.pods, pods);
        before.keys().filter(|name| !self.pods.contains_key(*name)).for_each(|name| self.flows.remove_pod(name));
        self.pods.iter().for_each(|(name, pod)| self.flows.put_pod(name, pod.clone()));
        self.sources.retain(|pod| identities.contains(pod));
    }

    /// Flows that have changed since this was asked last.
    pub(super) fn changes(&mut self) -> Vec<(Object, Option<Part>)> {
        let gone = self.gone.drain(..).map(|object| (object, None));
        let changes: Vec<_> = gone.chain(self.flows.take()).collect();
        self.is_unjudged |= !changes.is_empty();
        changes
    }

    /// Whether a Pod's policies are known. At a start at which nobody tells anything those are what was kept.
    pub(super) fn knows(&self, pod: &str) -> bool {
        self.sources.knows(pod)
    }

    /// Number of policies.
    pub(super) fn len(&self) -> usize {
        self.flows.state().policies.len()
    }

    /// All that was gathered is in force.
    pub(super) fn realised(&self) {
        self.sources.realised();
    }

    /// Writes down what was told, if that has changed.
    pub(super) fn keep(&mut self) {
        if !std::mem::take(&mut self.is_unwritten) {
            return;
        }
        let kept = Kept { version: VERSION, updates: self.flows.state().since(&State::default()) };
        if let Err(error) = write(&self.file, &kept) {
            warn!(
                "cannot write {}: {error}; a start without API server will go by older policies",
                self.file.display()
            );
            self.is_unwritten = true;
        }
    }

    /// Whether connections have to be judged again.
    pub(super) const fn is_unjudged(&self) -> bool {
        self.is_unjudged
    }

    /// What came of the last look at connections did not get to the switch: the next one is needed at once.
    pub(super) const fn judge_again(&mut self) {
        self.is_unjudged = true;
    }

    /// The labels of those connections that are to end by what policies say now, and of those that are not any more. What the original
    /// direction sends is judged by flows, packet by packet; the label is for what only the other side sends.
    pub(super) fn judge(&mut self, node: &Node, connections: &[v1::Connection]) -> Vec<ConnectionLabel> {
        self.is_unjudged = false;
        let judge = Judge::new(self.flows.state());
        let pods: Vec<(&LocalPod, Subject<'_>)> =
            self.pods.iter().map(|(name, pod)| (pod, judge.subject(name))).collect();
        let concerned = pods.iter().filter(|(_, subject)| !subject.policies().is_empty());
        let subjects: HashMap<IpAddr, &Subject<'_>> =
            concerned.flat_map(|(pod, subject)| pod.addresses.iter().map(move |address| (*address, subject))).collect();
        let ours: Vec<IpAddr> = [&node.addresses, &node.gateways, &node.link].into_iter().flatten().copied().collect();
        let accepts = |ends: Connection| {
            [(Direction::Egress, ends.source), (Direction::Ingress, ends.destination)].into_iter().all(
                |(direction, own)| {
                    let other = if direction == Direction::Egress { ends.destination } else { ends.source };
                    let connection = Connection { is_with_own_node: ours.contains(&other), ..ends };
                    subjects.get(&own).is_none_or(|subject| subject.verdict(direction, &connection).is_accepted)
                },
            )
        };
        // Thousands of connections are of few kinds, and a Pod may have thousands of policies.
        let mut judged: HashMap<Connection, bool> = HashMap::new();
        let changed = connections.iter().filter_map(|listed| {
            let is_cut = label(&listed.label)? & CUT != 0;
            let ends = ends(listed)?;
            let is_accepted = *judged.entry(ends).or_insert_with(|| accepts(ends));
            (is_cut == is_accepted).then(|| ConnectionLabel {
                zone: listed.zone,
                proto: listed.proto,
                original: listed.original.clone(),
                label: format!("{:#x}", if is_accepted { 0 } else { CUT }),
                mask: format!("{CUT:#x}"),
            })
        });
        changed.collect()
    }
}

/// The connections that policies are about.
pub(super) fn filter() -> String {
    format!("zone={ZONE}")
}

fn label(text: &str) -> Option<u128> {
    u128::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Who began it, and the endpoint that was chosen.
fn ends(listed: &v1::Connection) -> Option<Connection> {
    let (original, reply) = (listed.original.as_ref()?, listed.reply.as_ref()?);
    Some(Connection {
        source: original.src.parse().ok()?,
        destination: reply.src.parse().ok()?,
        protocol: Protocol::numbered(listed.proto),
        port: u16::try_from(reply.src_port).ok()?,
        is_with_own_node: false,
    })
}

fn read(file: &Path) -> io::Result<Option<Vec<Update>>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept: Kept = serde_json::from_slice(&text)?;
    if kept.version != VERSION {
        return Err(io::Error::other(format!("it is of version {}, and this program reads {VERSION}", kept.version)));
    }
    Ok(Some(kept.updates))
}

fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    write_renamed(file, &serde_json::to_vec(kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::policies::Source;
    use k8s_openapi::api::core::v1::{Namespace, Pod};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use serde_json::{Value, json};
    use sluice_proto::v1::ConnectionTuple;

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, address: &str) -> Pod {
        object(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIPs": [{"ip": address}]},
        }))
    }

    /// `web` may be reached by `db` alone, on port 80.
    fn policy() -> NetworkPolicy {
        object(json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": "db"}}}],
                    "ports": [{"port": 80, "protocol": "TCP"}],
                }],
            },
        }))
    }

    fn source() -> Arc<Source> {
        let source = Source::new(Some("n1"));
        let mut cluster = source.cluster();
        cluster.put_namespace(&object::<Namespace>(json!({"metadata": {"name": "shop"}})));
        for (name, address) in [("web", "10.244.0.2"), ("db", "10.244.0.3"), ("bad", "10.244.0.4")] {
            cluster.put_pod(&pod(name, address));
        }
        cluster.put_network_policy(&policy());
        drop(cluster);
        Arc::new(source)
    }

    fn node() -> Node {
        Node {
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
            gateways: vec!["10.244.0.1".parse().unwrap()],
            ..Node::default()
        }
    }

    fn sources(source: &Arc<Source>) -> Arc<Sources> {
        let sources = Sources::new("n1");
        sources.set_own(Some(Arc::clone(source)));
        Arc::new(sources)
    }

    fn policies(folder: &Path) -> Policies {
        let source = source();
        source.assume_listed();
        let mut policies = Policies::new(sources(&source), folder);
        assert!(policies.gather());
        policies.on(&node());
        let local = |port, address: &str| LocalPod { port, addresses: vec![address.parse().unwrap()] };
        let pods = [("shop/web", local(2, "10.244.0.2")), ("shop/db", local(3, "10.244.0.3"))];
        let names = pods.each_ref().map(|(name, _)| (*name).to_owned());
        policies.set_pods(pods.map(|(name, pod)| (name.into(), pod)).into(), &names.into());
        policies
    }

    /// A connection to a Service whose endpoint is `web`.
    fn connection(from: &str, port: u32, label: &str) -> v1::Connection {
        let tuple = |src: &str, src_port, dst: &str, dst_port| {
            let (src, dst) = (src.to_owned(), dst.to_owned());
            Some(ConnectionTuple { src, dst, src_port, dst_port, ..ConnectionTuple::default() })
        };
        v1::Connection {
            zone: ZONE.into(),
            proto: 6,
            original: tuple(from, 5000, "10.96.0.9", 443),
            reply: tuple("10.244.0.2", port, from, 5000),
            label: label.to_owned(),
            ..v1::Connection::default()
        }
    }

    #[test]
    fn connections_are_cut_that_policies_deny_by_now_and_those_that_are_allowed_again_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut policies = policies(folder.path());
        let cut = "0x10000000000000000";
        let all = [
            connection("10.244.0.3", 80, "0x0"),
            connection("10.244.0.4", 80, "0x7"),
            connection("10.244.0.3", 81, cut),
            connection("10.244.0.3", 80, cut),
            connection("10.244.0.1", 81, "0x0"),
        ];
        let labels = policies.judge(&node(), &all);
        let told: Vec<_> = labels.iter().map(|one| (one.original.clone().unwrap().src, one.label.clone())).collect();
        assert_eq!(told, [("10.244.0.4".to_owned(), cut.to_owned()), ("10.244.0.3".to_owned(), "0x0".to_owned())]);
        assert!(labels.iter().all(|one| one.mask == cut), "what else is in the label stays: {labels:?}");
        assert!(!policies.is_unjudged());
    }

    #[test]
    fn a_start_without_an_api_server_goes_by_what_was_kept_and_the_lists_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = policies(folder.path());
        before.keep();
        let flows = before.changes();
        assert!(!flows.is_empty());
        // Nothing is listed.
        let source = Arc::new(Source::new(Some("n1")));
        let mut after = Policies::new(sources(&source), folder.path());
        assert!(!after.gather(), "nothing was read yet");
        after.load();
        assert!(after.gather());
        after.on(&node());
        after.set_pods(before.pods.clone(), &before.pods.keys().map(|name| name.to_string()).collect());
        assert_eq!(after.changes(), flows);
        assert!(after.knows("shop/new"), "nobody can tell");
        // The lists come, and the policy is gone.
        source.cluster().put_pod(&pod("web", "10.244.0.2"));
        source.assume_listed();
        assert!(after.gather());
        assert_eq!(after.len(), 0);
        assert!(after.changes().iter().all(|(_, part)| part.is_none()));
        assert!(!after.knows("shop/web"), "nobody has asked for it before that was gathered");
        assert!(after.gather());
        assert!(after.knows("shop/web") && !after.knows("shop/new"));
    }

    #[test]
    fn a_start_without_an_api_server_goes_by_there_being_no_policies() {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(Source::new(Some("n1")));
        source.assume_listed();
        let mut before = Policies::new(sources(&source), folder.path());
        assert!(before.gather());
        before.keep();
        let mut after = Policies::new(sources(&Arc::new(Source::new(Some("n1")))), folder.path());
        after.load();
        assert!(after.gather());
    }

    #[test]
    fn all_flows_are_made_again_for_other_families() {
        let folder = tempfile::tempdir().unwrap();
        let mut policies = policies(folder.path());
        let before: Vec<Object> = policies.changes().into_iter().map(|(object, _)| object).collect();
        let v6 = Node { pod_cidrs: vec!["fd00:244::/64".parse().unwrap()], ..node() };
        policies.on(&v6);
        let changes = policies.changes();
        for object in &before {
            assert!(changes.iter().any(|(changed, _)| changed == object), "{object:?}");
        }
        policies.on(&v6);
        assert!(policies.changes().is_empty());
    }
}
