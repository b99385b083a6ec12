//! What is looked at of a Service, an EndpointSlice and their metadata.

use super::{AFFINITY_S, PROXY_NAME_LABEL, SERVICE_NAME_LABEL};
use crate::facts::Protocol;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::net::IpAddr;

/// A Service of ours.
pub(super) struct Spec<'a> {
    /// `NAMESPACE/NAME`.
    pub(super) name: String,
    spec: &'a ServiceSpec,
    service: &'a Service,
}

/// A port of a Service.
pub(super) struct Port<'a> {
    pub(super) name: &'a str,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
}

/// `NAMESPACE/NAME`.
pub(super) fn name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default())
}

/// Whether another proxy looks after an object.
fn is_others(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL))
}

/// `NAMESPACE/NAME` of a slice's Service.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<String> {
    if is_others(&slice.metadata) {
        return None;
    }
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    (!service.is_empty()).then(|| format!("{namespace}/{service}"))
}

/// An address as the API server may have it: parts of IPv4 addresses in old objects can have zeros in front, and are decimal.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let part = |part: &str| {
        let digits = part.trim_start_matches('0');
        if digits.is_empty() && !part.is_empty() { "0".to_owned() } else { digits.to_owned() }
    };
    text.split('.').map(part).collect::<Vec<_>>().join(".").parse().ok()
}

/// A network as the API server may have it: with bits of hosts, and blanks around it.
fn network(text: &str) -> Option<IpNet> {
    let (base, bits) = text.trim().split_once('/')?;
    IpNet::new(address(base)?, bits.parse().ok()?).ok().map(|net| net.trunc())
}

/// A port number that can be one.
pub(super) fn port(number: Option<i32>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok()).filter(|&number| number != 0)
}

/// Whether an address can be a Service's from outside: one that frames can carry between machines.
fn is_reachable(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

impl<'a> Spec<'a> {
    /// None for a Service that is none of ours.
    pub(super) fn of(service: &'a Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let has_address = !matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
            || spec.cluster_ips.iter().flatten().any(|ip| !matches!(ip.as_str(), "" | "None"));
        if spec.type_.as_deref() == Some("ExternalName") || !has_address || is_others(&service.metadata) {
            return None;
        }
        Some(Self { name: name(&service.metadata), spec, service })
    }

    /// Its address of each family that it has; whether it is of IPv6 first.
    pub(super) fn families(&self) -> Vec<(bool, IpAddr)> {
        let one = self.spec.cluster_ip.iter().collect::<Vec<_>>();
        let all = self.spec.cluster_ips.iter().flatten().collect::<Vec<_>>();
        let mut families = Vec::with_capacity(2);
        for ip in if all.is_empty() { one } else { all } {
            if let Some(ip) = address(ip)
                && !families.iter().any(|(v6, _)| *v6 == ip.is_ipv6())
            {
                families.push((ip.is_ipv6(), ip));
            }
        }
        families
    }

    /// Its ports, but for those of a protocol that has none.
    pub(super) fn ports(&self) -> Vec<Port<'a>> {
        let ports = self.spec.ports.iter().flatten();
        ports
            .filter_map(|p| {
                Some(Port {
                    name: p.name.as_deref().unwrap_or_default(),
                    protocol: Protocol::of_object(p.protocol.as_deref())?,
                    port: port(Some(p.port))?,
                    node_port: port(p.node_port),
                })
            })
            .collect()
    }

    /// Its external addresses of one family.
    pub(super) fn external(&self, v6: bool) -> Vec<IpAddr> {
        let ips = self.spec.external_ips.iter().flatten().filter_map(|ip| address(ip));
        ips.filter(|ip| ip.is_ipv6() == v6 && is_reachable(ip)).collect()
    }

    /// The addresses of one family that a load balancer leaves to the nodes. Those of a load balancer that is a proxy are its own.
    pub(super) fn balanced(&self, v6: bool) -> Vec<IpAddr> {
        let status = self.service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
        let vips = ingress.filter(|ingress| matches!(ingress.ip_mode.as_deref(), None | Some("VIP")));
        let ips = vips.filter_map(|ingress| address(ingress.ip.as_deref()?));
        ips.filter(|ip| ip.is_ipv6() == v6 && is_reachable(ip)).collect()
    }

    /// The networks of one family that clients of a load balancer may come from; none for everywhere.
    pub(super) fn sources(&self, v6: bool) -> Vec<IpNet> {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten().filter_map(|range| network(range));
        let mut ranges: Vec<_> = ranges.filter(|range| range.addr().is_ipv6() == v6).collect();
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            return Vec::new();
        }
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// Whether it is a load balancer's.
    fn is_balanced(&self) -> bool {
        self.spec.type_.as_deref() == Some("LoadBalancer")
    }

    /// Whether clients from outside get endpoints on the node only.
    pub(super) fn external_local(&self) -> bool {
        let kind = self.spec.type_.as_deref();
        let accessible =
            self.is_balanced() || kind == Some("NodePort") || self.spec.external_ips.iter().flatten().next().is_some();
        accessible && self.spec.external_traffic_policy.as_deref() == Some("Local")
    }

    /// Whether clients of its own address get endpoints on the node only.
    pub(super) fn internal_local(&self) -> bool {
        self.spec.internal_traffic_policy.as_deref() == Some("Local")
    }

    /// The port where its load balancer asks whether the node has endpoints.
    pub(super) fn health_check(&self) -> Option<u16> {
        port(self.spec.health_check_node_port).filter(|_| self.is_balanced() && self.external_local())
    }

    /// How long a client keeps its endpoint, in seconds; none if it does not.
    pub(super) fn affinity_s(&self) -> Option<u32> {
        if self.spec.session_affinity.as_deref() != Some("ClientIP") {
            return None;
        }
        let config = self.spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_S);
        Some(u32::try_from(seconds).unwrap_or(1).max(1))
    }
}
