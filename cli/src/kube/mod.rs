//! Switches of a cluster, from a machine that is none of its nodes.
//!
//! With a kubeconfig and the right to run a command in the Pods of the DaemonSet [`DAEMON_SET`], every verb works from anywhere:
//! `sluice relay` runs in the Pod of a node, copies its input to the switch's socket and back, and gRPC goes over that
//! ([`stream`]). Nothing listens on any network for it, and who may do it is what the cluster's own rules say about
//! `pods/exec`.
//!
//! # Rules
//! - A verb that changes or shows one switch has to be told which node it means, unless there is but one.
//! - Every failure names what is missing: the Pod, the right ([`error`]), or the file.

mod error;
mod fan;
mod objects;
mod places;
mod pods;
mod stream;

pub(crate) use fan::{Answers, Unless, any, ask, each, sorted};
pub(crate) use objects::Objects;
pub(crate) use places::{Member, NodeState, PodPlace};
pub(crate) use pods::{attachments, find_pod, pod_of};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::Exit;
use clap::Args;
use error::failed;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::PathBuf;
use std::time::Duration;

/// The namespace that Sluice is installed in.
pub(crate) const NAMESPACE: &str = "sluice-system";
/// The DaemonSet whose Pods have the switches, and the value of the label [`NAME_LABEL`] of its Pods.
pub(crate) const DAEMON_SET: &str = "sluice";
/// The label that selects them.
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The container of such a Pod in which the switch runs.
const CONTAINER: &str = "sluiced";

/// Most nodes that are named where one has to be chosen.
const SHOWN: usize = 5;
/// How long the API server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Which cluster, and which of its nodes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which switch")]
pub(crate) struct ClusterArgs {
    /// The switch of this node of a cluster; `all` for verbs that ask every node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Reach the cluster by this file; else KUBECONFIG, else ~/.kube/config, where there is no switch on this machine
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// Whether a cluster is meant even where there is a switch.
    pub(crate) fn is_given(&self) -> bool {
        self.node.is_some() || self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// A cluster that a kubeconfig leads to.
#[derive(Clone)]
pub(crate) struct Cluster {
    config: Box<Config>,
}

impl Cluster {
    /// The cluster that is meant; `None` if there is no kubeconfig and none was asked for.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a file that cannot be read, or has not what was asked for.
    pub(crate) fn find(args: &ClusterArgs) -> Result<Option<Self>, Failure> {
        let read = match &args.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None if !has_kubeconfig() && !args.is_given() => return Ok(None),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config = runtime()?.block_on(async { Config::from_custom_kubeconfig(read?, &options).await });
        let mut config = config.map_err(|e: kube::config::KubeconfigError| {
            Failure::usage("there is no kubeconfig that leads to a cluster").why(error::chain(&e)).next(
                "say where it is with --kubeconfig or KUBECONFIG; `kubectl config get-contexts` shows its contexts",
            )
        })?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        Ok(Some(Self { config: Box::new(config) }))
    }

    /// Connects to the switch of the node that is meant.
    ///
    /// # Errors
    /// [`Exit::Usage`] for an unknown node, or none where there are several; and those of [`Self::connect`].
    pub(crate) fn client(&self, node: Option<&str>) -> Result<Client, Failure> {
        self.connect(self.member(node)?.ready()?)
    }

    /// The Pod of the node that is meant.
    ///
    /// # Errors
    /// [`Exit::Usage`] for an unknown node, or none where there are several.
    pub(crate) fn member(&self, node: Option<&str>) -> Result<Member, Failure> {
        let members = self.members()?;
        let names: Vec<_> = members.iter().map(|m| m.node.clone()).collect();
        match (node, members.len()) {
            (Some("all"), _) => Err(Failure::usage("this verb asks one switch").next(choice(&names))),
            (Some(node), _) => members.into_iter().find(|m| m.node == node).ok_or_else(|| unknown(node, &names)),
            (None, 1) => members.into_iter().next().ok_or_else(nobody),
            (None, _) => Err(Failure::usage("there are several nodes: which one?").next(choice(&names))),
        }
    }

    /// The first node whose switch can be asked: for what is the same on every node.
    ///
    /// # Errors
    /// None can.
    pub(crate) fn any(&self) -> Result<Member, Failure> {
        let members = self.members()?;
        let first = members.iter().find(|member| member.ready().is_ok()).or(members.first());
        first.ok_or_else(nobody)?.ready().cloned()
    }

    /// The node of a Pod, `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// There is no such Pod, or it is on no node, or in the network of its node.
    pub(crate) fn node_of(&self, pod: &str) -> Result<String, Failure> {
        let name = pod.strip_prefix("pod:").unwrap_or(pod);
        let Some((namespace, last)) = name.split_once('/') else {
            return Err(
                Failure::usage(format!("`{name}` names no Pod")).next(format!("default/{name}: NAMESPACE/NAME"))
            );
        };
        match self.pod(namespace, last)? {
            Some(place) if place.host_network => Err(Failure::new(format!(
                "the Pod {name} has no port: it is in the network of its node {}",
                place.node
            ))
            .next(format!("sluice ports --node {}: what is the host's comes by LOCAL", place.node))),
            Some(place) => Ok(place.node),
            None => Err(no_pod(name, namespace)),
        }
    }

    /// The Pods that are meant: that of one node, or of all.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) fn chosen(&self, node: Option<&str>) -> Result<Vec<Member>, Failure> {
        match node {
            None | Some("all") => self.members(),
            Some(_) => Ok(vec![self.member(node)?]),
        }
    }

    /// Connects to the switch beside this Pod.
    ///
    /// # Errors
    /// [`Exit::NoPrivilege`] without the right to run a command there, [`Exit::NoDaemon`] if nothing answers.
    pub(crate) fn connect(&self, member: &Member) -> Result<Client, Failure> {
        let runtime = runtime()?;
        let stream = runtime.block_on(self.relay(member))?;
        let said = stream.said();
        Client::over(runtime, stream, said, format!("node {}", member.node))
    }

    /// The API server's address, for messages.
    fn server(&self) -> String {
        self.config.cluster_url.to_string()
    }

    fn kube(&self) -> Result<kube::Client, Failure> {
        kube::Client::try_from(Config::clone(&self.config))
            .map_err(|e| failed(&self.server(), "use the kubeconfig", "", e))
    }
}

fn unknown(node: &str, names: &[String]) -> Failure {
    let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, node));
    let failure = Failure::usage(format!("no Pod of Sluice runs on a node named {node}"));
    match near {
        Some(near) if names.len() > SHOWN => failure.next(format!("did you mean --node {near}? kubectl get nodes")),
        Some(_) => failure.next(choice(names)),
        None => failure,
    }
}

/// Nodes to choose from, the first few of them.
fn choice(names: &[String]) -> String {
    let more = if names.len() > SHOWN { format!(" ... ({} nodes)", names.len()) } else { String::new() };
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("--node {name}")).collect();
    format!("{}{more}", shown.join(" or "))
}

/// There is no Pod of this name.
pub(crate) fn no_pod(name: &str, namespace: &str) -> Failure {
    Failure::new(format!("there is no Pod {name}, or it has no address yet"))
        .next(format!("kubectl -n {namespace} get pods -o wide"))
}

/// No Pod of Sluice was found.
fn nobody() -> Failure {
    Failure::new(format!("no Pod of the DaemonSet {DAEMON_SET} runs in the namespace {NAMESPACE}"))
        .next(format!("kubectl -n {NAMESPACE} get daemonset,pods; kubectl apply -k deploy/overlays/... installs it"))
        .exit(Exit::NoDaemon)
}

fn has_kubeconfig() -> bool {
    match std::env::var_os("KUBECONFIG") {
        Some(paths) if !paths.is_empty() => true,
        _ => std::env::home_dir().is_some_and(|home| home.join(".kube/config").is_file()),
    }
}

/// What runs calls to the API server: one thread, until they are done.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start: {e}")))
}
