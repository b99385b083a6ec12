//! What runtimes say of one container: `runtimeConfig`, `args.cni` and `CNI_ARGS`.

use super::keys::Keys;
use crate::error::Failure;
use crate::spec::{CniArgs, Dns};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Greatest rate, in bits a second, and greatest burst, in bits, that a configuration may say: what reference plugins can
/// hold is far below.
const MAX_RATE: u64 = i64::MAX as u64;
/// Greatest burst in bits, as the reference plugin `bandwidth` has it: less than 4 GiB.
const MAX_BURST: u64 = (u32::MAX as u64) * 8;

/// Limits of what an interface carries; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Towards the container, in bits a second.
    pub ingress_rate: u64,
    /// Towards the container: bits that may go at once.
    pub ingress_burst: u64,
    /// From the container, in bits a second.
    pub egress_rate: u64,
    /// From the container: bits that may go at once.
    pub egress_burst: u64,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A port of the host that leads to the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The host's port.
    pub host_port: u16,
    /// The container's.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// The host's address; all if none.
    pub host_address: Option<IpAddr>,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// The file's limits, or if it has none, the runtime's.
pub(super) fn bandwidth(keys: &Keys<'_>, runtime: &Keys<'_>) -> Result<Bandwidth, Failure> {
    let written = keys.inner("bandwidth")?;
    let keys = if written.is_empty() { runtime.inner("bandwidth")? } else { written };
    let direction = |rate_key: &str, burst_key: &str| {
        let rate = keys.number(rate_key, 0..=MAX_RATE)?.unwrap_or(0);
        let burst = keys.number(burst_key, 0..=MAX_RATE)?.unwrap_or(0);
        if (rate == 0) != (burst == 0) {
            let (key, other) = if rate == 0 { (rate_key, burst_key) } else { (burst_key, rate_key) };
            return Err(keys.wrong(key, &format!("more than 0 where {other} is: a limit is a rate and a burst")));
        }
        if burst >= MAX_BURST {
            return Err(keys.wrong(burst_key, "less than 4 GiB, in bits"));
        }
        Ok((rate, burst))
    };
    let (ingress_rate, ingress_burst) = direction("ingressRate", "ingressBurst")?;
    let (egress_rate, egress_burst) = direction("egressRate", "egressBurst")?;
    Ok(Bandwidth { ingress_rate, ingress_burst, egress_rate, egress_burst })
}

/// The host ports. Those with host port 0 are none, as runtimes send for ports that are only told.
pub(super) fn port_mappings(runtime: &Keys<'_>) -> Result<Vec<PortMapping>, Failure> {
    let mut mappings = Vec::new();
    for keys in runtime.list("portMappings")? {
        let port = |key: &str, least: u64| {
            let port = keys.number(key, least..=65_535)?.unwrap_or(0);
            if port < least { Err(keys.wrong(key, "a port from 1 to 65535")) } else { Ok(port) }
        };
        let (host_port, container_port) = (port("hostPort", 0)?, port("containerPort", 1)?);
        let protocol = match keys.text("protocol")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(keys.unsupported("protocol", "\"tcp\", \"udp\" or \"sctp\"")),
        };
        let host_address = match keys.text("hostIP")?.filter(|t| !t.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_| keys.wrong("hostIP", "an address of the host, or none"))?),
            None => None,
        };
        let narrow = |port: u64| u16::try_from(port).unwrap_or(0);
        if host_port > 0 {
            let (host_port, container_port) = (narrow(host_port), narrow(container_port));
            mappings.push(PortMapping { host_port, container_port, protocol, host_address });
        }
    }
    Ok(mappings)
}

/// How names are resolved: the runtime's word, or the file's.
pub(super) fn dns(keys: &Keys<'_>, runtime: &Keys<'_>) -> Result<Dns, Failure> {
    let told = runtime.inner("dns")?;
    let dns = Dns {
        nameservers: told.texts("servers")?,
        domain: String::new(),
        search: told.texts("searches")?,
        options: told.texts("options")?,
    };
    if !dns.is_empty() {
        return Ok(dns);
    }
    let written = keys.inner("dns")?;
    Ok(Dns {
        nameservers: written.texts("nameservers")?,
        domain: written.text("domain")?.unwrap_or_default(),
        search: written.texts("search")?,
        options: written.texts("options")?,
    })
}

/// What else is known of the container: the pod, names that it goes by, and what an administrator says.
pub(super) fn labels(
    runtime: &Keys<'_>,
    args: &Keys<'_>,
    cni_args: &CniArgs,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for label in args.list("labels")? {
        if let Some(key) = label.text("key")?.filter(|k| !k.is_empty()) {
            labels.insert(key, label.text("value")?.unwrap_or_default());
        }
    }
    let aliases = runtime.texts("aliases")?;
    if !aliases.is_empty() {
        labels.insert("aliases".to_owned(), aliases.join(","));
    }
    for (arg, label) in
        [("K8S_POD_NAMESPACE", "k8s.namespace"), ("K8S_POD_NAME", "k8s.pod"), ("K8S_POD_UID", "k8s.uid")]
    {
        if let Some(value) = cni_args.get(arg).filter(|v| !v.is_empty()) {
            labels.insert(label.to_owned(), value.to_owned());
        }
    }
    Ok(labels)
}
