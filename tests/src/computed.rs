//! A cluster as the controller takes it in, of the objects of the reference evaluator: the two sides share no types.

use crate::policy::Object;
use serde::de::DeserializeOwned;
use sluice_controller::policy::Cluster;

fn of<T: DeserializeOwned>(object: &Object) -> T {
    serde_json::from_value(object.write()).expect("both sides read the same objects")
}

/// Puts an object into the cluster, in the place of the one of its name.
///
/// # Panics
/// When the controller cannot read what the evaluator writes.
pub fn put(cluster: &mut Cluster, object: &Object) {
    match object {
        Object::Namespace(of) => cluster.put_namespace(of),
        Object::Pod(of) => cluster.put_pod(of),
        Object::Node(of) => cluster.put_node(of),
        Object::NetworkPolicy(of) => cluster.put_network_policy(of),
        Object::ClusterNetworkPolicy(_) => cluster.put_cluster_network_policy(&of(object)),
        Object::AdminNetworkPolicy(_) => cluster.put_admin_network_policy(&of(object)),
        Object::BaselineAdminNetworkPolicy(_) => cluster.put_baseline_admin_network_policy(&of(object)),
    }
}
