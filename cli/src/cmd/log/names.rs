//! Who has an address, and which policies are to be logged.

use crate::client::Client;
use crate::failure::Failure;
use crate::kube::{Cluster, attachments, pod_of};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often an address that is not known leads to a new look at most, and how old what is known may be.
const ANEW_EVERY: Duration = Duration::from_secs(10);

/// Who says it.
enum From {
    Cluster(Cluster),
    /// A switch, which knows its own Pods alone.
    Switch(Client),
}

/// What is known.
pub(super) struct Names {
    from: From,
    read: Instant,
    names: BTreeMap<IpAddr, String>,
    /// Policies that are to be logged; none if nobody can say it.
    logged: Option<BTreeSet<String>>,
}

impl Names {
    /// # Errors
    /// The API server does not answer, or the right to list is missing.
    pub(super) fn of_cluster(cluster: Cluster) -> Result<Self, Failure> {
        let mut names =
            Self { from: From::Cluster(cluster), read: Instant::now(), names: BTreeMap::new(), logged: None };
        names.read()?;
        Ok(names)
    }

    /// # Errors
    /// The switch does not answer.
    pub(super) fn of_switch(client: Client) -> Result<Self, Failure> {
        let mut names = Self { from: From::Switch(client), read: Instant::now(), names: BTreeMap::new(), logged: None };
        names.read()?;
        Ok(names)
    }

    fn read(&mut self) -> Result<(), Failure> {
        self.read = Instant::now();
        match &self.from {
            From::Cluster(cluster) => {
                let (names, logged) = cluster.names()?;
                (self.names, self.logged) = (names, Some(logged));
            }
            From::Switch(client) => {
                let of = |attachment: &sluice_proto::v1::Attachment| {
                    let name = pod_of(attachment)?;
                    let addresses = attachment.spec.as_ref()?.addresses.iter();
                    let addresses = addresses.filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.addr());
                    Some(addresses.map(move |address| (address, name.clone())).collect::<Vec<_>>())
                };
                self.names = attachments(client)?.iter().filter_map(of).flatten().collect();
            }
        }
        Ok(())
    }

    /// The name of who has an address, or the address.
    pub(super) fn of(&mut self, address: IpAddr) -> String {
        if !self.names.contains_key(&address) {
            self.renew();
        }
        self.names.get(&address).cloned().unwrap_or_else(|| address.to_string())
    }

    /// Whether any of these policies is to be logged. Where nobody can say it, all are.
    pub(super) fn is_logged(&mut self, policies: &[String]) -> bool {
        self.renew();
        self.logged.as_ref().is_none_or(|logged| policies.iter().any(|policy| logged.contains(policy)))
    }

    /// Looks again if what is known is old. What cannot be read stays as it was.
    fn renew(&mut self) {
        if self.read.elapsed() > ANEW_EVERY {
            _ = self.read();
        }
    }
}
