//! `sluice policy`: what policies say of connections, and why, before and after they are changed.
//!
//! What is asked is the cluster as the API server lists it, or manifests (`--from`); each answer is computed here by the code that
//! the node role goes by. No node is needed for it.

mod answer;
mod audit;
mod diff;
mod explain;
mod list;
mod manifests;
pub(crate) mod owner;
mod place;
mod reasons;
mod snippet;
mod why_not;
mod world;

use crate::failure::Failure;
use crate::kube::{Cluster, ClusterArgs, Objects};
use crate::output::{Exit, Output};
use clap::{Args, Subcommand};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::path::PathBuf;
use world::World;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// May one reach another: every policy that is about them, in order, and the rule that decides
    Explain(explain::Explain),
    /// What would have to change for a denied connection to be allowed
    WhyNot(why_not::WhyNot),
    /// What changed manifests would open and close, before they are applied; exit 1 if anything
    Diff(diff::Diff),
    /// What policies under audit would have dropped; put policies under audit
    Audit(audit::Audit),
    /// The policies, or those that are about a Pod
    List(list::List),
    /// A policy: whom it is about, its rules, and what of it cannot be honoured
    Show(list::Show),
}

/// Where the cluster is read from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Source {
    /// Read manifests (YAML or JSON, lists, folders, or - for standard input) instead of a cluster; may be said again
    #[arg(long = "from", value_name = "FILE")]
    from: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The ends of a connection.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ends {
    /// Where it comes from: NS/POD, an address, or node/NAME
    #[arg(value_name = "SRC")]
    source: String,
    /// Where it goes: NS/POD, svc/NS/NAME, an address, or node/NAME; a port by number or name, tcp unless said
    #[arg(value_name = "DST[:PORT[/PROTOCOL]]")]
    destination: String,
}

impl Source {
    fn objects(&self) -> Result<Objects, Failure> {
        if !self.from.is_empty() {
            return manifests::read(&self.from);
        }
        if self.cluster.node.is_some() {
            return Err(Failure::usage("policies are the whole cluster's, not a node's: leave out --node"));
        }
        self.cluster()?.objects()
    }

    /// Whether a cluster is asked, and not files.
    fn is_cluster(&self) -> bool {
        self.from.is_empty()
    }

    fn cluster(&self) -> Result<Cluster, Failure> {
        Cluster::find(&self.cluster)?.ok_or_else(|| {
            Failure::usage("there is no kubeconfig that leads to a cluster")
                .next("say where it is with --kubeconfig or KUBECONFIG, or give manifests with --from")
        })
    }

    fn world(&self) -> Result<World, Failure> {
        Ok(World::new(self.objects()?))
    }
}

/// Runs the verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Explain(args) => explain::run(&args, out),
        Verb::WhyNot(args) => why_not::run(&args, out),
        Verb::Diff(args) => diff::run(&args, out),
        Verb::Audit(args) => audit::run(&args, out),
        Verb::List(args) => list::run(&args, out),
        Verb::Show(args) => list::show(&args, out),
    }
}

/// `NAMESPACE/NAME` of an object.
fn namespaced_name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default())
}
