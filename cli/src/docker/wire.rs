//! What Docker says and hears: the JSON of libnetwork's remote drivers and of its remote IPAM.
//!
//! Rules: a field that is missing, `null` or not known is never an error, because daemons of other versions say more and
//! less. What must be there for a request to mean something is asked for where it is used.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Options by name, as Docker hands them on.
pub(crate) type Options = Map<String, Value>;

/// The options that the user gave with `-o`, inside those of a network.
pub(crate) const GENERIC: &str = "com.docker.network.generic";
/// Whether a network is to reach nothing outside.
pub(crate) const INTERNAL: &str = "com.docker.network.internal";
/// The ports that a container publishes.
pub(crate) const PORT_MAP: &str = "com.docker.network.portmap";
/// What an address is asked for.
pub(crate) const ADDRESS_TYPE: &str = "RequestAddressType";
/// The gateway's.
pub(crate) const GATEWAY_ADDRESS: &str = "com.docker.network.gateway";

/// Takes `null`, which Go writes for what is empty, as nothing.
fn nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A network and its address space.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct IpamData {
    /// The network, as `10.9.0.0/16`.
    #[serde(deserialize_with = "nothing")]
    pub(crate) pool: String,
    /// The gateway's address with the network's prefix.
    #[serde(deserialize_with = "nothing")]
    pub(crate) gateway: String,
}

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CreateNetwork {
    /// The network.
    #[serde(rename = "NetworkID", deserialize_with = "nothing")]
    pub(crate) network_id: String,
    /// What is asked of it.
    #[serde(deserialize_with = "nothing")]
    pub(crate) options: Options,
    /// Its IPv4 networks.
    #[serde(rename = "IPv4Data", deserialize_with = "nothing")]
    pub(crate) ipv4: Vec<IpamData>,
    /// Its IPv6 networks.
    #[serde(rename = "IPv6Data", deserialize_with = "nothing")]
    pub(crate) ipv6: Vec<IpamData>,
}

/// `NetworkDriver.DeleteNetwork`, and others that name a network alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkOnly {
    /// The network.
    #[serde(rename = "NetworkID", deserialize_with = "nothing")]
    pub(crate) network_id: String,
}

/// An endpoint's interface, in both directions; empty is not given.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Interface {
    /// Its IPv4 address with its prefix.
    #[serde(deserialize_with = "nothing", skip_serializing_if = "String::is_empty")]
    pub(crate) address: String,
    /// Its IPv6 address with its prefix.
    #[serde(rename = "AddressIPv6", deserialize_with = "nothing", skip_serializing_if = "String::is_empty")]
    pub(crate) address_ipv6: String,
    /// Its hardware address.
    #[serde(deserialize_with = "nothing", skip_serializing_if = "String::is_empty")]
    pub(crate) mac_address: String,
}

/// `NetworkDriver.CreateEndpoint`, and whatever else names an endpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct EndpointRequest {
    /// The network.
    #[serde(rename = "NetworkID", deserialize_with = "nothing")]
    pub(crate) network_id: String,
    /// The endpoint.
    #[serde(rename = "EndpointID", deserialize_with = "nothing")]
    pub(crate) endpoint_id: String,
    /// Its interface, when it is made.
    #[serde(deserialize_with = "nothing")]
    pub(crate) interface: Interface,
    /// The container's network namespace, when it joins.
    #[serde(deserialize_with = "nothing")]
    pub(crate) sandbox_key: String,
    /// What else is asked of it.
    #[serde(deserialize_with = "nothing")]
    pub(crate) options: Options,
}

/// A port that a container publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct PortBinding {
    /// The IP protocol.
    #[serde(deserialize_with = "nothing")]
    pub(crate) proto: u8,
    /// The container's port.
    #[serde(deserialize_with = "nothing")]
    pub(crate) port: u16,
    /// The host's address; empty for all.
    #[serde(rename = "HostIP", deserialize_with = "nothing")]
    pub(crate) host_ip: String,
    /// The first port of the host that will do; 0 for any.
    #[serde(deserialize_with = "nothing")]
    pub(crate) host_port: u16,
    /// The last one.
    #[serde(deserialize_with = "nothing")]
    pub(crate) host_port_end: u16,
}

impl PortBinding {
    /// Whether more than one port of the host will do.
    pub(crate) fn leaves_a_choice(&self) -> bool {
        self.host_port == 0 || self.host_port_end > self.host_port
    }
}

/// Which interface Docker is to move into the container, and how to call it there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InterfaceName {
    /// Its name in the host's namespace.
    pub(crate) src_name: String,
    /// What its name in the container begins with.
    pub(crate) dst_prefix: &'static str,
}

/// The answer to `NetworkDriver.Join`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JoinReply {
    /// The interface.
    pub(crate) interface_name: InterfaceName,
    /// The router's IPv4 address; empty for none.
    pub(crate) gateway: String,
    /// The router's IPv6 address; empty for none.
    #[serde(rename = "GatewayIPv6")]
    pub(crate) gateway_ipv6: String,
    /// Whether Docker shall not give the container another way out.
    pub(crate) disable_gateway_service: bool,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RequestPool {
    /// Where networks must not overlap.
    #[serde(deserialize_with = "nothing")]
    pub(crate) address_space: String,
    /// The network; empty for any.
    #[serde(deserialize_with = "nothing")]
    pub(crate) pool: String,
    /// The part of it that addresses are taken from; empty for all.
    #[serde(deserialize_with = "nothing")]
    pub(crate) sub_pool: String,
    /// What else is asked of it.
    #[serde(deserialize_with = "nothing")]
    pub(crate) options: Options,
    /// Whether it is of IPv6.
    #[serde(rename = "V6", deserialize_with = "nothing")]
    pub(crate) v6: bool,
}

/// The answer to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PoolReply {
    /// What the pool is called from now on.
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    /// The network.
    pub(crate) pool: String,
    /// Nothing.
    pub(crate) data: BTreeMap<String, String>,
}

/// `IpamDriver.ReleasePool`, `RequestAddress` and `ReleaseAddress`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct AddressRequest {
    /// The pool.
    #[serde(rename = "PoolID", deserialize_with = "nothing")]
    pub(crate) pool_id: String,
    /// The address; empty for any.
    #[serde(deserialize_with = "nothing")]
    pub(crate) address: String,
    /// What it is for.
    #[serde(deserialize_with = "nothing")]
    pub(crate) options: Options,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_missing_fields_and_unknown_ones_are_fine() {
        let request: EndpointRequest = serde_json::from_str(r#"{"Options":null,"New":{"a":[1]}}"#).unwrap();
        assert!(request.options.is_empty() && request.interface == Interface::default());
        let request: CreateNetwork = serde_json::from_str(r#"{"IPv6Data":null,"IPv4Data":[{"Pool":null}]}"#).unwrap();
        assert_eq!((request.ipv6.len(), request.ipv4.len()), (0, 1));
    }

    #[test]
    fn only_what_docker_left_empty_is_answered() {
        let text =
            serde_json::to_string(&Interface { mac_address: "02:42:0a:09:00:02".into(), ..Interface::default() });
        assert_eq!(text.unwrap(), r#"{"MacAddress":"02:42:0a:09:00:02"}"#);
    }
}
