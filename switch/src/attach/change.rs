//! Declaring and removing networks, attaching, detaching.

use super::known::{Network, Record};
use super::raise::limits;
use super::spec::{AttachmentKey, AttachmentSpec, Bandwidth, Device, NetworkSpec, PortMapping};
use super::{AttachError, Attachments, Changes, announce, check, device, inline, outside};
use crate::control::Closing;
use crate::{Datapath, PortChange};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a new link is looked at until it is up, and the pause between. What comes up later is seen as any link's change.
const LINK_LOOKS: u32 = 60;
const LINK_PAUSE: Duration = Duration::from_millis(4);

/// Gives another program's interface back, if the attachment has taken one.
fn give_back(spec: &AttachmentSpec) {
    if matches!(spec.device, Device::Inline { .. })
        && let Err(error) = inline::release(&spec.key)
    {
        tracing::error!(attachment = %spec.key, %error, "the interface that was taken is not as it was; detach again");
    }
}

impl Attachments {
    /// The networks, sorted by name.
    pub(crate) fn networks(&self) -> Vec<Network> {
        self.known().networks().cloned().collect()
    }

    /// The network of this name.
    pub(crate) fn network(&self, name: &str) -> Option<Network> {
        self.known().network(name).cloned()
    }

    /// The attachments of one network, or of all, sorted by key.
    pub(crate) fn list(&self, network: Option<&str>) -> Vec<Arc<Record>> {
        let known = self.known();
        match network {
            Some(name) => known.of_network(name).cloned().collect(),
            None => known.attachments().cloned().collect(),
        }
    }
}

impl Datapath {
    /// Declares a network, or has the one of its name become what is said.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has changed then, as with all that follow.
    pub(crate) fn put_network(&self, spec: &NetworkSpec) -> Result<(), AttachError> {
        let mut changes = self.attachments().changes();
        self.put(&mut changes, spec).map(|_| ())
    }

    /// Removes a network. Whether there was one.
    ///
    /// # Errors
    /// [`AttachError::InUse`].
    pub(crate) fn delete_network(&self, name: &str) -> Result<bool, AttachError> {
        let mut changes = self.attachments().changes();
        let spec = {
            let known = self.attachments().known();
            let Some(network) = known.network(name) else { return Ok(false) };
            if let Some(first) = known.of_network(name).next() {
                let (name, first) = (name.to_owned(), first.spec.key.clone());
                return Err(AttachError::InUse { name, count: network.attachments, first });
            }
            network.spec.clone()
        };
        self.drop_network(&mut changes, &spec)?;
        Ok(true)
    }

    /// Attaches a container's interface, and declares its network if one is given.
    ///
    /// # Errors
    /// [`AttachError`].
    pub(crate) fn attach(
        &self,
        network: Option<&NetworkSpec>,
        spec: AttachmentSpec,
    ) -> Result<Arc<Record>, AttachError> {
        check::attachment(&spec)?;
        if let Some(network) = network.filter(|network| network.name != spec.key.network) {
            let what = format!("{} is of another network than the one declared with it, {}", spec.key, network.name);
            return Err(AttachError::Invalid(what));
        }
        let waits = match network {
            Some(network) => network.confirm,
            None => self.attachments().network(&spec.key.network).is_some_and(|network| network.spec.confirm),
        };
        let _place = if waits { Some(self.attachments().waiting.enter(&spec.key)?) } else { None };
        let mut changes = self.attachments().changes();
        self.make_room(&mut changes, &spec)?;
        let before = match network {
            Some(network) => Some(self.put(&mut changes, network)?),
            None => None,
        };
        let name = spec.key.network.clone();
        let result = self.attach_to(&changes, spec);
        if let (Err(_), Some(before)) = (&result, &before) {
            self.unput(&mut changes, &name, before.clone());
        }
        let mut record = result?;
        drop(changes);
        self.tell_changed(&name);
        self.wait_for_link(&record);
        if record.unconfirmed {
            record = match self.wait_to_be_confirmed(&record) {
                Ok(record) => record,
                Err(error) => {
                    let declared = network.zip(before).filter(|(declared, _)| {
                        self.attachments().network(&name).is_some_and(|now| now.spec == **declared)
                    });
                    if let Some((_, before)) = declared {
                        self.unput(&mut self.attachments().changes(), &name, before);
                    }
                    return Err(error);
                }
            };
        }
        self.attachments().announcer.announce(self, Arc::clone(&record), announce::TIMES);
        Ok(record)
    }

    /// Waits until the kernel lets frames through a link that was set up just now, if it does so soon.
    fn wait_for_link(&self, record: &Record) {
        for _ in 0..LINK_LOOKS {
            let model = self.model();
            let Some(port) = record.port_in(&model) else { return };
            if port.up || self.watch_port(port.dp) {
                return;
            }
            thread::sleep(LINK_PAUSE);
        }
    }

    fn attach_to(&self, changes: &Changes, spec: AttachmentSpec) -> Result<Arc<Record>, AttachError> {
        let attachments = self.attachments();
        let network = attachments.network(&spec.key.network);
        let network = network.ok_or_else(|| AttachError::NoNetwork { name: spec.key.network.clone() })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = Record {
            spec,
            bridge: network.spec.bridge,
            number: None,
            end: None,
            alias: None,
            created_unix_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            fault: None,
            unconfirmed: network.spec.confirm,
            taken_up: false,
        };
        if let Err(error) = self.raise(&mut record) {
            give_back(&record.spec);
            return Err(error);
        }
        let record = attachments.known().put_attachment(record);
        let result =
            self.publish_ports(&record.spec.port_mappings).and_then(|()| Ok(changes.store.put_attachment(&record)?));
        if let Err(error) = result {
            attachments.known().remove_attachment(&record.spec.key);
            self.unpublish_ports(&record.spec.port_mappings);
            drop(self.lower(&record));
            give_back(&record.spec);
            return Err(error);
        }
        Ok(record)
    }

    /// Takes an attachment away, and with the last one of a network that is not to be kept, the network. Whether there was
    /// one.
    ///
    /// # Errors
    /// [`AttachError::Store`].
    pub(crate) fn detach(&self, key: &AttachmentKey) -> Result<bool, AttachError> {
        let mut changes = self.attachments().changes();
        let Some(record) = self.attachments().known().attachment(key).cloned() else {
            // A switch that was killed may have taken an interface over, and not yet written that down.
            let given_back = inline::release(key);
            return given_back.map_err(|source| AttachError::Device { key: Box::new(key.clone()), source });
        };
        let closing = self.drop_attachment(&mut changes, &record);
        // Others may go on while the device is closed.
        drop(changes);
        closing.map(|_| true)
    }

    pub(super) fn drop_attachment(&self, changes: &mut Changes, record: &Record) -> Result<Vec<Closing>, AttachError> {
        let key = &record.spec.key;
        changes.store.remove_attachment(key)?;
        self.attachments().known().remove_attachment(key);
        self.attachments().waiting.look_again();
        self.tell_changed(&key.network);
        let mut closing = self.lower(record);
        if matches!(record.spec.device, Device::Inline { .. }) {
            // It is given back once nobody holds it.
            closing.clear();
            give_back(&record.spec);
        }
        self.unpublish_ports(&record.spec.port_mappings);
        let network = self.attachments().network(&key.network);
        if let Some(network) = network.filter(|network| network.attachments == 0 && !network.spec.keep) {
            self.drop_network(changes, &network.spec)?;
        }
        Ok(closing)
    }

    /// Drops attachments that are in the way of one that is to be, if their devices are gone: whoever removed those could
    /// not tell the switch.
    ///
    /// # Errors
    /// [`AttachError::Taken`], when one has its device still.
    fn make_room(&self, changes: &mut Changes, spec: &AttachmentSpec) -> Result<(), AttachError> {
        loop {
            let Some((holder, what)) = self.attachments().known().conflict(spec) else { return Ok(()) };
            match device::gone(&holder.spec, holder.alias.as_deref()) {
                Ok(Some(why)) => {
                    tracing::info!(attachment = %holder.spec.key, why, "dropped: another one needs what it has");
                    drop(self.drop_attachment(changes, &holder)?);
                }
                _ => return Err(AttachError::Taken(what)),
            }
        }
    }

    /// Changes limits and host ports of an attachment; what is `None` stays.
    ///
    /// # Errors
    /// [`AttachError`].
    pub(crate) fn set_attachment(
        &self,
        key: &AttachmentKey,
        bandwidth: Option<Bandwidth>,
        mappings: Option<Vec<PortMapping>>,
    ) -> Result<Arc<Record>, AttachError> {
        let changes = self.attachments().changes();
        let before = self.attachments().known().attachment(key).cloned();
        let before = before.ok_or_else(|| AttachError::NoAttachment { key: key.clone() })?;
        let mut next = (*before).clone();
        next.spec.bandwidth = bandwidth.unwrap_or(next.spec.bandwidth);
        next.spec.port_mappings = mappings.unwrap_or(next.spec.port_mappings);
        check::mappings(&next.spec)?;
        if let Some((_, what)) = self.attachments().known().host_port_conflict(key, &next.spec.port_mappings) {
            return Err(AttachError::Taken(what));
        }
        let result = self.become_record(&changes, &before, next);
        if result.is_ok() {
            self.tell_changed(&key.network);
        } else {
            // What was in force before is again.
            if let Err(error) = self.become_record(&changes, &before, (*before).clone()) {
                tracing::error!(attachment = %key, %error, "it is neither what it was nor what was asked for");
            }
        }
        result
    }

    /// Has an attachment, which may be `before` or on the way from it, become `next`.
    fn become_record(&self, changes: &Changes, before: &Record, next: Record) -> Result<Arc<Record>, AttachError> {
        let record = self.attachments().known().put_attachment(next);
        if before.spec.bandwidth != record.spec.bandwidth && record.port_in(&self.model()).is_some() {
            let change = PortChange { limits: Some(limits(&record.spec.bandwidth)), ..PortChange::default() };
            self.set_port(&record.bridge, &record.spec.port, &change)?;
        }
        if before.spec.port_mappings != record.spec.port_mappings {
            self.publish_all()?;
        }
        changes.store.put_attachment(&record)?;
        Ok(record)
    }

    /// Declares a network. Returns what was known of it before.
    fn put(&self, changes: &mut Changes, spec: &NetworkSpec) -> Result<Option<NetworkSpec>, AttachError> {
        check::network(spec)?;
        let before = self.attachments().network(&spec.name);
        if let Some(before) =
            before.as_ref().filter(|before| before.attachments > 0 && before.spec.bridge != spec.bridge)
        {
            return Err(AttachError::Elsewhere {
                name: spec.name.clone(),
                bridge: before.spec.bridge.clone(),
                wanted: spec.bridge.clone(),
                count: before.attachments,
            });
        }
        let before = before.map(|network| network.spec);
        let is_confirmed_at_once = !spec.confirm && before.as_ref().is_some_and(|before| before.confirm);
        let is_bridge_there = self.model().bridge_named(&spec.bridge).is_some();
        if before.as_ref() == Some(spec) && is_bridge_there {
            return Ok(before);
        }
        if !is_bridge_there {
            if !spec.make_bridge {
                // Says which bridges there are.
                self.bridge(&spec.bridge)?;
            }
            self.make_bridge(&spec.bridge)?;
            changes.made.insert(spec.bridge.clone());
        }
        self.attachments().known().put_network(spec.clone());
        if let Err(error) = self.publish_all().and_then(|()| Ok(changes.store.put_network(spec)?)) {
            self.unput(changes, &spec.name, before);
            return Err(error);
        }
        if let Some(before) = before.as_ref().filter(|before| before.bridge != spec.bridge) {
            self.drop_bridge(changes, &before.bridge);
        }
        if is_confirmed_at_once {
            let keys = self.attachments().list(Some(&spec.name)).into_iter().map(|record| record.spec.key.clone());
            self.let_go(changes, &keys.collect::<Vec<_>>())?;
        }
        self.tell_changed(&spec.name);
        self.retry_later(changes);
        Ok(before)
    }

    /// Has a network be what it was before it was declared.
    fn unput(&self, changes: &mut Changes, name: &str, before: Option<NetworkSpec>) {
        let Some(now) = self.attachments().network(name).map(|network| network.spec) else { return };
        let result = match before {
            Some(before) if before == now => return,
            Some(before) => {
                self.attachments().known().put_network(before.clone());
                let result = self.publish_all().and_then(|()| Ok(changes.store.put_network(&before)?));
                if before.bridge != now.bridge {
                    self.drop_bridge(changes, &now.bridge);
                }
                result
            }
            None => {
                let result = changes.store.remove_network(name).map_err(AttachError::from);
                self.forget_network(changes, &now);
                result
            }
        };
        if let Err(error) = result {
            tracing::error!(network = name, %error, "it is not what it was before");
        }
    }

    /// Takes a network away that has no attachments.
    fn drop_network(&self, changes: &mut Changes, spec: &NetworkSpec) -> Result<(), AttachError> {
        changes.store.remove_network(&spec.name)?;
        self.forget_network(changes, spec);
        Ok(())
    }

    /// Takes what is not on disk of a network away.
    fn forget_network(&self, changes: &mut Changes, spec: &NetworkSpec) {
        self.attachments().known().remove_network(&spec.name);
        self.tell_changed(&spec.name);
        if let Err(error) = self.publish_all() {
            tracing::error!(network = spec.name, %error, "something of it is left on the host");
        }
        self.drop_bridge(changes, &spec.bridge);
    }

    /// Removes a bridge that was made for networks, when none is on it any more.
    fn drop_bridge(&self, changes: &mut Changes, bridge: &str) {
        if !changes.made.contains(bridge) || self.attachments().known().networks().any(|n| n.spec.bridge == bridge) {
            return;
        }
        let ports = self
            .model()
            .bridge_named(bridge)
            .map_or(0, |bridge| bridge.ports.values().filter(|port| port.no != sluice_flows::PortNo::LOCAL).count());
        if ports > 0 {
            tracing::info!(bridge, ports, "it stays: it has ports of others");
            return;
        }
        changes.made.remove(bridge);
        if let Err(error) = self.remove_bridge(bridge) {
            tracing::error!(bridge, %error, "it is left in the switch");
        }
    }

    /// Has the host's side be what networks and host ports ask for.
    pub(super) fn publish_all(&self) -> Result<(), AttachError> {
        let (networks, published) = self.attachments().known().outside();
        Ok(outside::apply(self, &networks, &published)?)
    }

    /// As [`publish_all`](Self::publish_all), if these host ports make a difference.
    fn publish_ports(&self, mappings: &[PortMapping]) -> Result<(), AttachError> {
        if mappings.is_empty() { Ok(()) } else { self.publish_all() }
    }

    /// Takes host ports away that nobody has any more.
    fn unpublish_ports(&self, mappings: &[PortMapping]) {
        if let Err(error) = self.publish_ports(mappings) {
            tracing::error!(%error, "host ports are left on the host");
        }
    }
}
