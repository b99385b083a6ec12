//! Ports of rules against the port of a packet.

use super::verdict::Protocol;
use super::world::{Place, name_of};
use k8s_openapi::api::core::v1::{Container, ContainerPort};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) to: Place<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl Target<'_> {
    /// Whether it has one of these ports, both ends included.
    pub(super) fn is_within(self, protocol: Option<Protocol>, first: i32, last: i32) -> bool {
        protocol == Some(self.protocol) && (first..=last).contains(&i32::from(self.port))
    }

    /// Whether the destination Pod has a container port of this name with the packet's protocol and port.
    pub(super) fn is_named(self, name: &str) -> bool {
        let Some(spec) = self.to.pod().and_then(|pod| pod.spec.as_ref()) else { return false };
        let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        ports.filter(|port| name_of(&port.name) == name).any(|port: &ContainerPort| {
            self.is_within(protocol_or_tcp(&port.protocol), port.container_port, port.container_port)
        })
    }
}

/// A protocol by its name; TCP if there is no name; none if the name is not one.
pub(super) fn protocol_or_tcp(name: &Option<String>) -> Option<Protocol> {
    match name {
        Some(name) => Protocol::named(name),
        None => Some(Protocol::Tcp),
    }
}

/// Whether a port of a NetworkPolicy matches.
pub(super) fn matches(port: &NetworkPolicyPort, target: Target<'_>) -> bool {
    let protocol = protocol_or_tcp(&port.protocol);
    match (&port.port, port.end_port) {
        (None, None) => protocol == Some(target.protocol),
        (Some(IntOrString::Int(number)), None) => target.is_within(protocol, *number, *number),
        (Some(IntOrString::Int(first)), Some(last)) => target.is_within(protocol, *first, last),
        (Some(IntOrString::String(name)), None) => protocol == Some(target.protocol) && target.is_named(name),
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}
