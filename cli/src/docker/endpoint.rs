//! An endpoint: a container's interface in a network, from before it is made until after it is gone.

use super::error::DriverError;
use super::network::{Network, address, name_of, short};
use super::wire::{EndpointRequest, Interface, PortBinding};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_proto::v1::attachment_spec::Device;
use sluice_proto::v1::{AttachmentKey, AttachmentSpec, PortMapping, VethDevice};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What interfaces in containers are called, before Docker's number.
pub(crate) const PREFIX: &str = "eth";
/// What an interface's alias begins with, by which it is known for the switch's.
pub(crate) const ALIAS_PREFIX: &str = "sluice:";

/// A port of the host that leads to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The container's port.
    pub(crate) port: u16,
    /// The host's address; none for all of them.
    pub(crate) host_address: Option<IpAddr>,
    /// The host's port.
    pub(crate) host_port: u16,
}

/// An endpoint as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Docker's ID.
    pub(crate) id: String,
    /// The network's.
    pub(crate) network: String,
    /// Its addresses.
    pub(crate) addresses: Vec<IpNet>,
    /// Its hardware address.
    pub(crate) mac: String,
    /// The network namespace of the container that has joined; none before and after.
    pub(crate) sandbox: Option<String>,
    /// Ports of the host that lead to it.
    pub(crate) published: Vec<Published>,
}

impl Endpoint {
    /// Reads what Docker asks for.
    ///
    /// # Errors
    /// Addresses that are none.
    pub(crate) fn of(request: &EndpointRequest) -> Result<Self, DriverError> {
        let Interface { address: v4, address_ipv6: v6, mac_address } = &request.interface;
        let given = [v4, v6].into_iter().filter(|text| !text.is_empty());
        let addresses = given.map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
        let mac = match mac_address.is_empty() {
            true => mac_for(&addresses, &request.endpoint_id),
            false => one_station(mac_address)?,
        };
        let (id, network) = (request.endpoint_id.clone(), request.network_id.clone());
        Ok(Self { id, network, addresses, mac, sandbox: None, published: Vec::new() })
    }

    /// The host's end of its pair, which is the switch's port.
    pub(crate) fn link(&self) -> String {
        format!("sl{}", short(&self.id))
    }

    /// The container's end, before Docker moves it.
    pub(crate) fn peer(&self) -> String {
        format!("sp{}", short(&self.id))
    }

    /// What is written on the host's end.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS_PREFIX}{}:{}:{PREFIX}", name_of(&self.network), self.id)
    }

    /// What names it in the switch.
    pub(crate) fn key(&self) -> AttachmentKey {
        AttachmentKey { network: name_of(&self.network), container_id: self.id.clone(), ifname: PREFIX.to_owned() }
    }

    /// What the switch is told of it.
    pub(crate) fn spec(&self, network: &Network) -> AttachmentSpec {
        let AttachmentKey { network: name, container_id, ifname } = self.key();
        AttachmentSpec {
            network: name,
            container_id,
            ifname,
            port: self.link(),
            device: Some(Device::Veth(VethDevice { interface: self.link() })),
            mac: self.mac.clone(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            vlan: Some(network.port_vlan()),
            guard: network.guard().into(),
            isolated: network.isolated,
            hairpin: false,
            bandwidth: None,
            port_mappings: self.published.iter().map(Published::mapping).collect(),
            labels: [("docker.network", &self.network), ("docker.endpoint", &self.id)]
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into(),
            netns: self.sandbox.clone().unwrap_or_default(),
        }
    }

    /// What `docker network inspect` and the driver's callers are told of it.
    pub(crate) fn info(&self) -> BTreeMap<String, serde_json::Value> {
        let published: Vec<_> = self.published.iter().map(ToString::to_string).collect();
        [
            ("sluice.port", serde_json::Value::from(self.link())),
            ("sluice.mac", self.mac.clone().into()),
            ("sluice.published", published.into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Published {
    /// What the switch is told.
    pub(crate) fn mapping(&self) -> PortMapping {
        PortMapping {
            host_port: self.host_port.into(),
            container_port: self.port.into(),
            protocol: self.protocol.clone(),
            host_address: self.host_address.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_address {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}->{}/{}", self.host_port, self.port, self.protocol)
    }
}

/// The hardware address for these addresses: made from the IPv4 address as Docker's own driver does, so that a station
/// that comes back with its address has its old one too; else from the endpoint's ID.
fn mac_for(addresses: &[IpNet], id: &str) -> String {
    let v4 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    });
    let [a, b, c, d] = v4.unwrap_or_else(|| {
        let digits = id.get(..8).and_then(|text| u32::from_str_radix(text, 16).ok());
        digits.unwrap_or(1).to_be_bytes()
    });
    let kind = if v4.is_some() { 0x42 } else { 0x46 };
    format!("02:{kind:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A hardware address that one station may have, in lower case.
fn one_station(text: &str) -> Result<String, DriverError> {
    match octets(text) {
        Ok(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(text.to_ascii_lowercase()),
        _ => Err(DriverError::Mac(text.to_owned())),
    }
}

/// The octets of a hardware address.
///
/// # Errors
/// It is none.
pub(crate) fn octets(mac: &str) -> Result<[u8; 6], DriverError> {
    let octet = |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2);
    let all: Option<Vec<u8>> = mac.split(':').map(octet).collect();
    all.and_then(|all| all.try_into().ok()).ok_or_else(|| DriverError::Mac(mac.to_owned()))
}

/// The name of a published port's protocol.
///
/// # Errors
/// A protocol that has no ports.
pub(crate) fn protocol(binding: &PortBinding) -> Result<&'static str, DriverError> {
    match binding.proto {
        6 => Ok("tcp"),
        17 => Ok("udp"),
        132 => Ok("sctp"),
        other => Err(DriverError::Published(format!("{} is of IP protocol {other}, which has no ports", binding.port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(interface: &str) -> Result<Endpoint, DriverError> {
        let text = format!(
            r#"{{"NetworkID":"ec60a2aca4a0ab99","EndpointID":"2a0fb00f7c940406b0642e07850a47d9","Interface":{interface}}}"#
        );
        Endpoint::of(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn an_endpoint_without_a_hardware_address_gets_one_of_its_address() {
        assert_eq!(endpoint(r#"{"Address":"10.9.0.2/16"}"#).unwrap().mac, "02:42:0a:09:00:02");
        assert_eq!(endpoint(r#"{"AddressIPv6":"fd09::2/64"}"#).unwrap().mac, "02:46:2a:0f:b0:0f");
    }

    #[test]
    fn a_given_hardware_address_stays_and_one_of_many_stations_is_refused() {
        assert_eq!(endpoint(r#"{"MacAddress":"02:42:AC:11:00:02"}"#).unwrap().mac, "02:42:ac:11:00:02");
        for bad in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42", "x", "2:42:ac:11:0:2"] {
            assert!(endpoint(&format!(r#"{{"MacAddress":"{bad}"}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_interfaces_fit_and_the_alias_names_the_attachment() {
        let endpoint = endpoint("{}").unwrap();
        assert_eq!((endpoint.link().len(), endpoint.peer().len()), (14, 14));
        assert_eq!(endpoint.alias(), "sluice:docker-ec60a2aca4a0:2a0fb00f7c940406b0642e07850a47d9:eth");
    }

    #[test]
    fn published_ports_read_as_docker_s() {
        let at = |host_address: Option<&str>| {
            let host_address = host_address.map(|ip| ip.parse().unwrap());
            Published { protocol: "tcp".into(), port: 80, host_address, host_port: 8080 }.to_string()
        };
        assert_eq!(at(None), "8080->80/tcp");
        assert_eq!(at(Some("127.0.0.1")), "127.0.0.1:8080->80/tcp");
        assert_eq!(at(Some("::1")), "[::1]:8080->80/tcp");
    }
}
