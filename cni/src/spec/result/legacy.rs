//! The form of results before 0.3.0.

use super::{AddResult, Dns, IpConfig, Route, null_is_default, to_value};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;

/// A result of 0.1.0 or 0.2.0.
#[derive(Serialize, Deserialize)]
pub(super) struct Legacy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<Family>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<Family>,
    #[serde(default, skip_serializing_if = "Dns::is_empty", deserialize_with = "null_is_default")]
    dns: Dns,
}

/// What is said of one family.
#[derive(Serialize, Deserialize)]
struct Family {
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::empty_is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    routes: Vec<Route>,
}

impl Legacy {
    pub(super) fn to_json(&self) -> Value {
        to_value(self)
    }
}

impl From<Legacy> for AddResult {
    fn from(legacy: Legacy) -> Self {
        let mut result = Self { dns: legacy.dns, ..Self::default() };
        for family in [legacy.ip4, legacy.ip6].into_iter().flatten() {
            // A route without a router was by that of its family.
            let routes = family.routes.into_iter().map(|r| Route { gw: r.gw.or(family.gateway), ..r });
            result.routes.extend(routes);
            result.ips.push(IpConfig { address: family.ip, gateway: family.gateway, interface: None });
        }
        result
    }
}

impl From<&AddResult> for Legacy {
    fn from(result: &AddResult) -> Self {
        let family = |v4: bool| {
            let first = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4)?;
            let routes = result.routes.iter().filter(|r| r.dst.addr().is_ipv4() == v4);
            let routes = routes.map(|r| Route::via(r.dst, r.gw)).collect();
            Some(Family { ip: first.address, gateway: first.gateway, routes })
        };
        Self { ip4: family(true), ip6: family(false), dns: result.dns.clone() }
    }
}
