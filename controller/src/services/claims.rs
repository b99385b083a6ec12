//! Addresses and ports that several Services claim.
//!
//! Anyone who may write a Service may write any `externalIPs` into it, so that two Services, or a Service and another's own address,
//! can claim the same address and port of the same protocol. One gets it: whose own address it is, else the Service that was created
//! first, else the first by name. The others go without that frontend and keep the rest, and what they lost is said.

use super::name;
use super::read::Spec;
use crate::facts::{self, Protocol};
use k8s_openapi::api::core::v1::Service;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// An address and port that clients use.
type Frontend = (Protocol, IpAddr, u16);

/// How good a claim is; the least is the best.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// The address is not the Service's own.
    foreign: bool,
    /// When the Service was created, in seconds since 1970; one that does not say comes last.
    created_s: i64,
    /// The Service.
    service: Arc<str>,
}

/// Who claims what, over all Services.
#[derive(Debug, Default)]
pub struct Claims {
    by_frontend: HashMap<Frontend, BTreeSet<Claim>>,
    by_service: HashMap<Arc<str>, Vec<(Frontend, Claim)>>,
}

/// A frontend that a Service went without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Service {loser}: {address} port {port} ({protocol:?}) is Service {winner}'s, which claimed it first; take the address out of one \
     of them"
)]
pub struct Lost {
    /// Who went without.
    pub loser: String,
    /// Who has it.
    pub winner: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl Claims {
    /// Says what a Service claims: all frontends of what [`super::service`] made of it, before [`Claims::settle`]. Returns the other
    /// Services whose part has to be made anew, since they win or lose something by it.
    pub fn put(&mut self, service: &Service, facts: &facts::Service) -> BTreeSet<String> {
        let own: Vec<IpAddr> =
            Spec::of(service).map(|s| s.families()).into_iter().flatten().map(|(_, ip)| ip).collect();
        let created = service.metadata.creation_timestamp.as_ref();
        let created_s = created.map_or(i64::MAX, |time| time.0.as_second());
        let service: Arc<str> = name(service).into();
        let mut affected = self.remove(&service);
        let mut claims = Vec::new();
        for port in &facts.ports {
            for frontend in &port.frontends {
                let at = (port.protocol, frontend.address, frontend.port);
                let foreign = !own.contains(&frontend.address);
                let claim = Claim { foreign, created_s, service: Arc::clone(&service) };
                let claimants = self.by_frontend.entry(at).or_default();
                if claimants.insert(claim.clone()) {
                    let others = claimants.iter().filter(|c| c.service != service);
                    affected.extend(others.map(|c| c.service.to_string()));
                    claims.push((at, claim));
                }
            }
        }
        if !claims.is_empty() {
            self.by_service.insert(service, claims);
        }
        affected
    }

    /// Forgets a Service. Returns those that win something by it.
    pub fn remove(&mut self, service: &str) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        for (at, claim) in self.by_service.remove(service).unwrap_or_default() {
            if let Some(claimants) = self.by_frontend.get_mut(&at) {
                claimants.remove(&claim);
                affected.extend(claimants.iter().map(|c| c.service.to_string()));
                if claimants.is_empty() {
                    self.by_frontend.remove(&at);
                }
            }
        }
        affected
    }

    /// Takes from a Service the frontends that another one has the better claim to, and says which.
    pub fn settle(&self, service: &mut facts::Service) -> Vec<Lost> {
        let mut lost = Vec::new();
        for port in &mut service.ports {
            let protocol = port.protocol;
            port.frontends.retain(|frontend| {
                let claimants = self.by_frontend.get(&(protocol, frontend.address, frontend.port));
                match claimants.and_then(BTreeSet::first).filter(|first| *first.service != *service.name) {
                    None => true,
                    Some(first) => {
                        lost.push(Lost {
                            loser: service.name.clone(),
                            winner: first.service.to_string(),
                            protocol,
                            address: frontend.address,
                            port: frontend.port,
                        });
                        false
                    }
                }
            });
        }
        lost
    }
}
