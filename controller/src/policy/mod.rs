//! Policies: from Kubernetes' objects to what each node has to know, and what becomes of a connection by it.
//!
//! [`Cluster`] takes Pods, namespaces, nodes and policies one at a time, in any order, and gives each node's share as
//! [`Update`](crate::facts::policy::Update)s. What an object changes is found by indexes, so the cost of a change is that of what
//! it changes, not of what there is.
//!
//! - **Groups.** What selectors select is a group, called by its selectors in a fixed form, so that equal selectors of
//!   however many policies are one group, computed once and sent once to a node.
//! - **Span.** A policy is of concern to the nodes that have a Pod of its subject; a group to those that some policy that names
//!   it is of concern to. A node hears of nothing else.
//! - **Order.** Updates are such that a policy is never there without its groups.
//!
//! Pods of the host's network, Pods without a node, and Pods that have ended are members of nothing: what they send is their
//! node's. A Pod without an address is a member without one, so that its policies are on its node before it can speak.
//!
//! [`Judge`] answers what becomes of a connection by a node's share, and why; [`Explanation`] tells what each rule made of it.
//!
//! Nothing here asks the API server, knows the time, or writes.

pub mod crd;

mod cluster;
mod explain;
mod index;
mod nodes;
mod objects;
mod read;
mod selector;
mod slots;
#[cfg(test)]
mod tests;
mod verdict;

pub use cluster::Cluster;
pub use explain::{Explanation, PolicyLook, RuleLook, Unmet};
pub use read::{AUDIT, LOG, Note};
pub use verdict::{Because, Connection, Judge, RuleName, Subject, Verdict};

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
type Set<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;
