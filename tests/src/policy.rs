//! A reference evaluator of Kubernetes policy: what the specification says about one packet.
//!
//! It takes the objects of a cluster as the API server gives them ([`World`]) and answers for one new connection, from one
//! end to another, whether it may leave and whether it may enter, and by what ([`World::verdict`]). It is slow and plain:
//! no index, no compilation, every policy looked at for every question, in the order in which the specification tells of
//! them. It shares nothing with the controller, so that the controller can be held against it.
//!
//! Sources: the API reference of `networking.k8s.io/v1` NetworkPolicy and the concept page "Network Policies";
//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy; `v1alpha1` AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy with the API overview of network-policy-api.
//!
//! # Readings
//!
//! Where the specification leaves room, this is what we hold it to say:
//!
//! 1. **Addresses of Pods in `ipBlock` and `networks`.** A block matches the packet's address, whoever has it, Pods
//!    included; `except` takes addresses out of its own block alone, so another peer may still allow them.
//! 2. **hostNetwork.** Such a Pod is its node: no policy selects it, no selector of Pods or namespaces matches it, its
//!    traffic is its node's. Blocks and `nodes` peers match its address.
//! 3. **A Pod's own node.** Traffic from the node's host to a Pod of that node always enters (kubelet probes), whatever the
//!    address and whatever the tier. Traffic from a Pod to its own node always passes NetworkPolicy; a ClusterNetworkPolicy
//!    can deny it, as its `nodes` and `networks` peers name that address and nothing in it makes an exception.
//! 4. **A Pod and itself.** To its own address by itself: no policy is asked. By a Service that comes back to it
//!    ([`World::verdict_by_service`]): the cluster's policies are asked; NetworkPolicy cannot deny it ("a Pod cannot block
//!    access to itself").
//! 5. **Named ports** are looked up in the destination Pod, for both directions; the protocol must be the container port's.
//!    Containers and restartable init containers count. If several ports of a Pod bear the name, each matches. An address
//!    that is no Pod's has no names. `endPort` beside a name, or below `port`, makes the port match nothing.
//! 6. **Ended Pods.** A Pod whose phase is Succeeded or Failed has no address any more: nothing selects it, and what has its
//!    address now is not it. Pods being deleted count until they have ended. A Pod without addresses is nowhere.
//! 7. **Tiers.** Admin: ClusterNetworkPolicy with tier Admin and AdminNetworkPolicy together, by priority. Then
//!    NetworkPolicy: a Pod that is selected in a direction gets its final answer there. Then Baseline: ClusterNetworkPolicy
//!    with tier Baseline by priority, last BaselineAdminNetworkPolicy. Then all is allowed.
//! 8. **Equal priorities.** Any of the policies may be applied; here it is the first by name, then by kind. If another one
//!    would have acted otherwise, the answer says that it is [ambiguous](Half::ambiguous).
//! 9. **Peers that we cannot read** (no known field: for ingress anything but `namespaces` and `pods`; for egress also
//!    `domainNames`, which is not supported) fail closed: the whole Accept rule matches nothing, a Deny or Pass rule denies
//!    all.
//! 10. **Namespaces** always have the label `kubernetes.io/metadata.name`, as the API server sees to it.
//! 11. What the API server's validation refuses (a peer with nothing set in NetworkPolicy, unknown operators, protocols
//!     or actions, blocks that are no CIDR) matches nothing.
//!
//! Not told of: replies and related ICMP (they follow the connection), translation by Services (ask with the endpoint that
//! was chosen and the source that arrives), and protocols without ports.

mod case;
mod cluster;
mod evaluate;
mod namespaced;
mod objects;
mod ports;
mod probes;
mod random;
mod selector;
mod shrink;
#[cfg(test)]
mod tests;
mod verdict;
mod world;

pub use case::{Case, Cell, Key, LabelChanges, Pattern, Step};
pub use objects::{
    AdminNetworkPolicy, AdminPolicySpec, AdminPort, AdminRule, BaselineAdminNetworkPolicy, ClusterNetworkPolicy,
    ClusterPeer, ClusterPolicySpec, ClusterPort, ClusterProtocol, ClusterRule, NamedSelector, NumberedPort, Object,
    PortRange, ProtocolMatch, Subject,
};
pub use probes::Probe;
pub use verdict::{Because, Direction, Half, PolicyKind, PolicyName, Protocol, RuleName, Verdict};
pub use world::{End, World};
