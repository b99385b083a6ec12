//! What is known of networks and attachments, and who has which name, address and port.

use super::outside::Published;
use super::spec::{AttachmentKey, AttachmentSpec, NetworkSpec, PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use sluice_flows::bridge::{BridgePort, Model};
use sluice_flows::station::Station;
use sluice_flows::{Owner, PortNo};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A network as it is.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// What was asked for.
    pub(crate) spec: NetworkSpec,
    /// How many attachments it has.
    pub(crate) attachments: usize,
}

/// An attachment as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What was asked for.
    #[serde(flatten)]
    pub(crate) spec: AttachmentSpec,
    /// Its bridge.
    pub(crate) bridge: String,
    /// Its port's number, which it is to have after a restart too.
    pub(crate) number: Option<u16>,
    /// The number of the port on the other side of an interface that is taken over, likewise.
    #[serde(default)]
    pub(crate) end: Option<u16>,
    /// What is written on its interface, by which it is known again.
    pub(crate) alias: Option<String>,
    /// When it was made, in seconds since 1970.
    pub(crate) created_unix_s: i64,
    /// Why it is not in force.
    #[serde(skip)]
    pub(crate) fault: Option<String>,
    /// Whether it waits to be confirmed: nothing that it sends passes.
    #[serde(skip)]
    pub(crate) unconfirmed: bool,
    /// Whether it was there before its port was made anew.
    #[serde(skip)]
    pub(crate) taken_up: bool,
}

impl Record {
    /// Who owns its flows.
    pub(crate) fn owner(&self) -> Owner {
        let label = |name: &str| self.spec.labels.get(name).filter(|value| !value.is_empty());
        let pod = label("k8s.namespace").zip(label("k8s.pod"));
        Station::owner_of(pod.map(|(namespace, name)| (&**namespace, &**name)), &self.spec.key.container_id)
    }

    /// Its port, if that is there.
    pub(crate) fn port_in<'a>(&self, model: &'a Model) -> Option<&'a BridgePort> {
        let port = model.bridge_named(&self.bridge)?.ports.get(&self.port_no()?)?;
        (*port.name == self.spec.port).then_some(&**port)
    }

    /// The numbers of its ports.
    fn numbers(&self) -> impl Iterator<Item = u16> {
        self.number.into_iter().chain(self.end)
    }

    /// Its port's number.
    pub(crate) fn port_no(&self) -> Option<PortNo> {
        self.number.map(PortNo)
    }
}

/// The address of a port of the host, and whose it is.
type HostPort = (Option<IpAddr>, AttachmentKey);

/// Networks and attachments, and what of theirs nobody else may have.
#[derive(Debug, Default)]
pub(super) struct Known {
    networks: BTreeMap<String, Network>,
    attachments: BTreeMap<AttachmentKey, Arc<Record>>,
    addresses: HashMap<(String, IpAddr), AttachmentKey>,
    ports: HashMap<String, AttachmentKey>,
    numbers: HashSet<(String, u16)>,
    host_ports: HashMap<(Protocol, u16), Vec<HostPort>>,
}

impl Known {
    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        self.networks.get(name)
    }

    /// Sorted by name.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    pub(super) fn put_network(&mut self, spec: NetworkSpec) {
        match self.networks.get_mut(&spec.name) {
            Some(network) => network.spec = spec,
            None => {
                let attachments = self.of_network(&spec.name).count();
                self.networks.insert(spec.name.clone(), Network { spec, attachments });
            }
        }
    }

    pub(super) fn remove_network(&mut self, name: &str) {
        self.networks.remove(name);
    }

    pub(super) fn attachment(&self, key: &AttachmentKey) -> Option<&Arc<Record>> {
        self.attachments.get(key)
    }

    /// Sorted by key.
    pub(super) fn attachments(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.attachments.values()
    }

    /// The attachments of one network, sorted by key.
    pub(super) fn of_network(&self, name: &str) -> impl Iterator<Item = &Arc<Record>> {
        let from = AttachmentKey { network: name.to_owned(), container_id: String::new(), ifname: String::new() };
        self.attachments.range(from..).map(|(_, record)| record).take_while(move |r| r.spec.key.network == *name)
    }

    /// All networks, and all host ports of attachments that are in force.
    pub(super) fn outside(&self) -> (Vec<NetworkSpec>, Vec<Published>) {
        let networks = self.networks.values().map(|network| network.spec.clone()).collect();
        let in_force = self.attachments.values().filter(|record| record.fault.is_none());
        let published = in_force.flat_map(|record| {
            record.spec.port_mappings.iter().map(|mapping| Published {
                mapping: mapping.clone(),
                owner: record.spec.key.to_string(),
                network: record.spec.key.network.clone(),
                addresses: record.spec.addresses.clone(),
                mac: record.spec.mac,
            })
        });
        (networks, published.collect())
    }

    /// Whether an attachment has a port of this name.
    pub(super) fn has_port(&self, name: &str) -> bool {
        self.ports.contains_key(name)
    }

    /// Whether an attachment has this number on a bridge, or is to have it again.
    pub(super) fn has_number(&self, bridge: &str, number: u16) -> bool {
        self.numbers.contains(&(bridge.to_owned(), number))
    }

    /// Who has something that `spec` asks for, and what that is, in words.
    pub(super) fn conflict(&self, spec: &AttachmentSpec) -> Option<(Arc<Record>, String)> {
        let key = &spec.key;
        let by = |holder: &AttachmentKey, what: String| {
            Some((Arc::clone(self.attachments.get(holder)?), format!("{what} is taken by {holder}")))
        };
        if let Some(record) = self.attachments.get(key) {
            return Some((Arc::clone(record), format!("{key} is attached already; detach it first")));
        }
        if let Some(holder) = self.ports.get(&spec.port) {
            return by(holder, format!("port {}", spec.port));
        }
        let mut addresses = spec.addresses.iter().map(|address| address.addr());
        let held = |address| Some((address, self.addresses.get(&(key.network.clone(), address))?));
        if let Some((address, holder)) = addresses.find_map(held) {
            return by(holder, format!("address {address} of network {}", key.network));
        }
        self.host_port_conflict(key, &spec.port_mappings)
    }

    /// Which other attachment has one of these ports of the host, and which, in words.
    pub(super) fn host_port_conflict(
        &self,
        key: &AttachmentKey,
        mappings: &[PortMapping],
    ) -> Option<(Arc<Record>, String)> {
        mappings.iter().find_map(|mapping| {
            let holders = self.host_ports.get(&(mapping.protocol, mapping.host_port))?;
            let mut others = holders.iter().filter(|(_, holder)| holder != key);
            let (_, holder) = others.find(|(address, _)| overlap(*address, mapping.host_address))?;
            let what = format!("host port {}/{}", mapping.host_port, mapping.protocol);
            let what = format!("{what} leads to {holder} already; choose another");
            Some((Arc::clone(self.attachments.get(holder)?), what))
        })
    }

    /// Adds an attachment, or puts it in the place of the one with its key.
    pub(super) fn put_attachment(&mut self, record: Record) -> Arc<Record> {
        self.remove_attachment(&record.spec.key);
        let spec = &record.spec;
        let key = &spec.key;
        self.ports.insert(spec.port.clone(), key.clone());
        for address in &spec.addresses {
            self.addresses.insert((key.network.clone(), address.addr()), key.clone());
        }
        self.numbers.extend(record.numbers().map(|number| (record.bridge.clone(), number)));
        for mapping in &spec.port_mappings {
            let holders = self.host_ports.entry((mapping.protocol, mapping.host_port)).or_default();
            holders.push((mapping.host_address, key.clone()));
        }
        if let Some(network) = self.networks.get_mut(&key.network) {
            network.attachments += 1;
        }
        let record = Arc::new(record);
        self.attachments.insert(record.spec.key.clone(), Arc::clone(&record));
        record
    }

    /// Takes an attachment away, with all that was its own.
    pub(super) fn remove_attachment(&mut self, key: &AttachmentKey) -> Option<Arc<Record>> {
        let record = self.attachments.remove(key)?;
        let spec = &record.spec;
        if self.ports.get(&spec.port) == Some(key) {
            self.ports.remove(&spec.port);
        }
        for address in &spec.addresses {
            let place = (key.network.clone(), address.addr());
            if self.addresses.get(&place) == Some(key) {
                self.addresses.remove(&place);
            }
        }
        for number in record.numbers() {
            self.numbers.remove(&(record.bridge.clone(), number));
        }
        for mapping in &spec.port_mappings {
            let place = (mapping.protocol, mapping.host_port);
            if let Some(holders) = self.host_ports.get_mut(&place) {
                holders.retain(|(_, holder)| holder != key);
                if holders.is_empty() {
                    self.host_ports.remove(&place);
                }
            }
        }
        if let Some(network) = self.networks.get_mut(&key.network) {
            network.attachments = network.attachments.saturating_sub(1);
        }
        Some(record)
    }
}

/// Whether two host addresses of a port have one in common: none is all of them, an unspecified one all of its family.
pub(super) fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;
    use std::net::IpAddr;

    #[test]
    fn host_addresses_overlap_when_one_is_all_of_the_others_family() {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse::<IpAddr>().unwrap());
        for (a, b, both) in [
            ("", "", true),
            ("", "192.0.2.1", true),
            ("", "::", true),
            ("0.0.0.0", "192.0.2.1", true),
            ("0.0.0.0", "::", false),
            ("0.0.0.0", "2001:db8::1", false),
            ("::", "2001:db8::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(overlap(address(a), address(b)), both, "{a:?} {b:?}");
            assert_eq!(overlap(address(b), address(a)), both, "{b:?} {a:?}");
        }
    }
}
