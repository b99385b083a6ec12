//! What ADD answers, and what address management answers, in every version of the specification.
//!
//! Inside it is what 1.1.0 says. [`AddResult::read`] takes any version (a previous result, a delegate's answer), and
//! [`AddResult::to_json`] writes any: what a version has no place for is left out. 0.1.0 and 0.2.0 have one address of each
//! family (the first is written), with the routes of that family.

mod legacy;
#[cfg(test)]
mod tests;

use super::Version;
use crate::error::{Code, Failure};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// The result of ADD, or with neither interfaces nor indices of them, of address management.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddResult {
    /// The interfaces that were made, on the host and in the container.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ips: Vec<IpConfig>,
    /// The routes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    /// How names are resolved.
    #[serde(skip_serializing_if = "Dns::is_empty", deserialize_with = "null_is_default")]
    pub dns: Dns,
}

/// An interface that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, `aa:bb:cc:dd:ee:ff`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its longest network-layer packet, in bytes; 0 if that is not said. Since 1.1.0.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The path of the container's network namespace; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// The path of a socket that it is reached by. Since 1.1.0.
    #[serde(rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The PCI device that it is. Since 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with the length of its network's prefix.
    pub address: IpNet,
    /// The network's router.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gateway: Option<IpAddr>,
    /// The interface that has it, as an index of the list of interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "negative_is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// By which router; none means the gateway of the addresses, or if there is none, directly.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gw: Option<IpAddr>,
    /// Longest network-layer packet, in bytes. Since 1.1.0, as all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "zero_is_none")]
    pub mtu: Option<u32>,
    /// The segment size that TCP tells the other side, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "zero_is_none")]
    pub advmss: Option<u32>,
    /// Less is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "zero_is_none")]
    pub priority: Option<u32>,
    /// The kernel's routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// As in `rtnetlink(7)`: 0 is universe, 253 link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The servers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// The domains that short names are searched in.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub options: Vec<String>,
}

/// A result that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// Its version is unknown.
    #[error("its cniVersion is {0:?}, which this plugin does not speak")]
    Version(String),
    /// It does not have the form of its version.
    #[error("it is no result of version {version}: {why}")]
    Form {
        /// The version that it says.
        version: Version,
        /// What is wrong.
        why: String,
    },
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        let code = match error {
            ResultError::Version(_) => Code::IncompatibleVersion,
            ResultError::Form { .. } => Code::Decode,
        };
        Self::new(code, error.to_string())
    }
}

impl AddResult {
    /// Reads a result. Its version is its own `cniVersion`, or if it says none, `otherwise`.
    ///
    /// # Errors
    /// An unknown version, or a form that is not that version's.
    pub fn read(value: &Value, otherwise: Version) -> Result<Self, ResultError> {
        let version = match value.get("cniVersion").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => text.parse().map_err(|_| ResultError::Version(text.to_owned()))?,
            _ => otherwise,
        };
        let form = |why: serde_json::Error| ResultError::Form { version, why: why.to_string() };
        if version <= Version::V0_2_0 {
            return legacy::Legacy::deserialize(value).map(Self::from).map_err(form);
        }
        let result = Self::deserialize(value).map_err(form)?;
        let interfaces = result.interfaces.len();
        match result.ips.iter().find_map(|ip| ip.interface.filter(|i| *i >= interfaces)) {
            Some(index) => {
                let why = format!("an address is of interface {index}, and there are {interfaces}");
                Err(ResultError::Form { version, why })
            }
            None => Ok(result),
        }
    }

    /// As a version writes it.
    pub fn to_json(&self, version: Version) -> Value {
        let mut value = match version {
            Version::V0_1_0 | Version::V0_2_0 => legacy::Legacy::from(self).to_json(),
            Version::V1_1_0 => to_value(self),
            Version::V1_0_0 => to_value(&self.without_news()),
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => {
                let mut value = to_value(&self.without_news());
                for ip in value.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
                    let v6 = ip.get("address").and_then(Value::as_str).is_some_and(|a| a.contains(':'));
                    if let Some(ip) = ip.as_object_mut() {
                        ip.insert("version".to_owned(), if v6 { "6" } else { "4" }.into());
                    }
                }
                value
            }
        };
        if let Some(object) = value.as_object_mut() {
            object.insert("cniVersion".to_owned(), version.as_str().into());
            // Readers of all versions take it for granted.
            object.entry("dns").or_insert_with(|| Value::Object(Map::new()));
        }
        value
    }

    /// Without what only 1.1.0 has.
    fn without_news(&self) -> Self {
        let mut old = self.clone();
        for interface in &mut old.interfaces {
            *interface = Interface {
                name: std::mem::take(&mut interface.name),
                mac: std::mem::take(&mut interface.mac),
                sandbox: std::mem::take(&mut interface.sandbox),
                ..Interface::default()
            };
        }
        for route in &mut old.routes {
            *route = Route::via(route.dst, route.gw);
        }
        old
    }
}

impl Route {
    /// A route with nothing special.
    pub fn via(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Nothing in these types can fail to be JSON.
fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Go writes `null` for an empty list.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Go writes an empty text for an address that is not there.
fn empty_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    match text.filter(|t| !t.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(|_| serde::de::Error::custom(format!("{text:?} is no address"))),
        None => Ok(None),
    }
}

/// Some plugins write -1 for an address of no interface.
fn negative_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    let index: Option<i64> = Option::deserialize(from)?;
    Ok(index.and_then(|i| usize::try_from(i).ok()))
}

/// Zero is the kernel's word for a measure that is not set.
fn zero_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    Option::deserialize(from).map(|n: Option<u32>| n.filter(|n| *n != 0))
}
