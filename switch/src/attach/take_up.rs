//! Taking up again what was declared before: at the start, after a reload of the configuration, and now and then while
//! something is not in force.

use super::known::Record;
use super::spec::NetworkSpec;
use super::store::{Store, StoreError};
use super::{Changes, compare, device, inline, outside, raise};
use crate::Datapath;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Between one try and the next to bring into force what is not.
const RETRY: Duration = Duration::from_secs(3);
/// Networks and attachments with a fault that are told one by one in the log.
const TOLD: usize = 20;

/// Has the switch keep what is declared in the directory `state`, and takes up what is declared there. Bridges of the
/// configuration are to be there by now. What cannot be taken up is told in the log and tried again in the background.
///
/// # Errors
/// [`StoreError`], when the directory is there and cannot be read.
pub fn start(datapath: &Datapath, state: &Path) -> Result<(), StoreError> {
    let mut changes = datapath.attachments().changes();
    changes.store = Store::at(state);
    let found = changes.store.load()?;
    match inline::strays(found.attachments.iter().map(|record| &record.spec.key)) {
        Ok(interfaces) if interfaces.is_empty() => {}
        Ok(interfaces) => tracing::info!(?interfaces, "given back: the switch had ended while it was taking them"),
        Err(error) => tracing::warn!(%error, "whether interfaces are half taken cannot be told"),
    }
    if found.networks.is_empty() && found.attachments.is_empty() {
        // Of networks that went with the switch that was killed, the host may still have something.
        if let Err(error) = outside::apply(datapath, &[], &[]) {
            tracing::warn!(%error, "something of gateways that are gone may be left on the host");
        }
        return Ok(());
    }
    {
        let mut known = datapath.attachments().known();
        found.networks.into_iter().for_each(|spec| known.put_network(spec));
        for mut record in found.attachments {
            if known.network(&record.spec.key.network).is_none() {
                tracing::error!(
                    attachment = %record.spec.key,
                    "the record of its network is missing; it is taken up without gateway and masquerade until the \
                     network is declared again"
                );
                known.put_network(bare_network(&record));
            }
            record.fault = Some("it was not taken up yet".to_owned());
            record.unconfirmed = known.network(&record.spec.key.network).is_some_and(|network| network.spec.confirm);
            match known.conflict(&record.spec) {
                None => _ = known.put_attachment(record),
                Some((_, why)) => tracing::error!(attachment = %record.spec.key, why, "its record is ignored"),
            }
        }
    }
    datapath.drop_gone(&mut changes);
    datapath.mend(&mut changes);
    let known = datapath.attachments().known();
    let faults = known.attachments().filter(|record| record.fault.is_some()).count();
    let (networks, attachments) = (known.networks().count(), known.attachments().count());
    let waiting = known.attachments().filter(|record| record.unconfirmed).count();
    tracing::info!(networks, attachments, faults, waiting, "taken up");
    Ok(())
}

/// Brings back what a changed configuration took away from networks and attachments.
pub(crate) fn after_reload(datapath: &Datapath) {
    let mut changes = datapath.attachments().changes();
    if datapath.attachments().known().networks().next().is_some() {
        datapath.mend(&mut changes);
    }
}

/// Removes a bridge that was made for networks and is the configuration's from now on. [`after_reload`] brings back what
/// was on it.
pub(crate) fn give_up_bridge(datapath: &Datapath, bridge: &str) {
    let mut changes = datapath.attachments().changes();
    if changes.made.remove(bridge)
        && let Err(error) = datapath.remove_bridge(bridge)
    {
        tracing::error!(bridge, %error, "the bridge of networks cannot be made the configuration's");
    }
}

/// Takes what belongs to networks and host ports away from the host; what is declared stays, for the next start.
pub fn stop(datapath: &Datapath) {
    let _changes = datapath.attachments().changes();
    if datapath.attachments().known().networks().next().is_none() {
        return;
    }
    if let Err(error) = outside::apply(datapath, &[], &[]) {
        tracing::error!(%error, "something of gateways or host ports is left on the host");
    }
}

/// What is known of a network by one of its attachments alone.
fn bare_network(record: &Record) -> NetworkSpec {
    NetworkSpec {
        name: record.spec.key.network.clone(),
        bridge: record.bridge.clone(),
        make_bridge: true,
        gateway: Vec::new(),
        vlan: None,
        masquerade: Vec::new(),
        masquerade_except: Vec::new(),
        mtu: None,
        keep: false,
        internal: false,
        kind: String::new(),
        routes: Vec::new(),
        service_ports: Vec::new(),
        // Nobody can tell any more whether it was to be; who declares the network again says so.
        confirm: false,
    }
}

impl Datapath {
    /// Drops the attachments whose device went while the switch was away, and then the networks that nobody needs.
    fn drop_gone(&self, changes: &mut Changes) {
        for record in self.attachments().list(None) {
            let key = &record.spec.key;
            match device::gone(&record.spec, record.alias.as_deref()) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    tracing::info!(attachment = %key, why, "dropped");
                    if let Err(error) = changes.store.remove_attachment(key) {
                        tracing::error!(attachment = %key, %error, "its record stays until the next start");
                    }
                    self.attachments().known().remove_attachment(key);
                    if let Err(error) = inline::release(key) {
                        tracing::error!(attachment = %key, %error, "what took its interface's place is left");
                    }
                }
                Err(error) => tracing::warn!(attachment = %key, %error, "whether it is still there cannot be told"),
            }
        }
        for network in self.attachments().networks() {
            if network.attachments == 0 && !network.spec.keep {
                let name = &network.spec.name;
                if let Err(error) = changes.store.remove_network(name) {
                    tracing::error!(network = name, %error, "its record stays until the next start");
                }
                self.attachments().known().remove_network(name);
            }
        }
    }

    /// Brings into force what is not: bridges, ports, flows, and the way to the outside. What cannot be is noted with its
    /// reason, and tried again in the background.
    pub(super) fn mend(&self, changes: &mut Changes) {
        let missing: BTreeSet<_> = {
            let (known, model) = (self.attachments().known(), self.model());
            let wanted = known.networks().filter(|network| network.spec.make_bridge);
            let bridges = wanted.map(|network| network.spec.bridge.clone());
            bridges.filter(|bridge| model.bridge_named(bridge).is_none()).collect()
        };
        for bridge in missing {
            match self.make_bridge(&bridge) {
                Ok(()) => _ = changes.made.insert(bridge),
                Err(error) => tracing::error!(bridge, %error, "a bridge of networks cannot be made"),
            }
        }
        let (mut told, mut raised, mut changed) = (0, Vec::new(), BTreeSet::new());
        for record in self.attachments().list(None) {
            let before = record.fault.clone();
            match self.mend_attachment(changes, &record) {
                Ok(false) => {}
                Ok(true) => {
                    changed.insert(record.spec.key.network.clone());
                    raised.push(record.spec.key.clone());
                }
                Err(why) => {
                    if before.as_deref() != Some(&why) {
                        changed.insert(record.spec.key.network.clone());
                    }
                    if before.as_deref() != Some(&why) && told < TOLD {
                        told += 1;
                        tracing::error!(attachment = %record.spec.key, why, "it is not in force; it is tried again");
                    }
                    self.attachments().known().put_attachment(Record { fault: Some(why), ..(*record).clone() });
                }
            }
        }
        for key in raised {
            let record = self.attachments().known().attachment(&key).cloned();
            // Nothing has moved: once is enough for whoever forwards to learn the address again.
            record.into_iter().for_each(|record| self.attachments().announcer.announce(self, record, 1));
        }
        changed.iter().for_each(|network| self.tell_changed(network));
        let fault = self.publish_all().err().map(|error| error.to_string());
        if let Some(why) = fault.as_ref().filter(|_| changes.outside_fault != fault) {
            tracing::error!(why, "gateways or host ports of networks are not in force; they are tried again");
        }
        changes.outside_fault = fault;
        self.retry_later(changes);
    }

    /// Brings one attachment into force, if it is not. Whether its port had to be made.
    fn mend_attachment(&self, changes: &Changes, record: &Arc<Record>) -> Result<bool, String> {
        let model = self.model();
        let Some(bridge) = model.bridge_named(&record.bridge) else {
            return Err(format!("bridge {} is not there; add it", record.bridge));
        };
        if let Some(port) = record.port_in(&model) {
            let flows = raise::flows(record, port.no);
            let missing: Vec<_> = flows.into_iter().filter(|flow| !compare::holds(bridge, flow)).collect();
            self.add_flows(&record.bridge, &missing).map_err(|error| error.to_string())?;
            if record.fault.is_some() {
                self.attachments().known().put_attachment(Record { fault: None, ..(**record).clone() });
            }
            return Ok(false);
        }
        let confirm = self.attachments().network(&record.spec.key.network).is_some_and(|network| network.spec.confirm);
        // What a controller made for its port went with the port.
        let mut next = Record { fault: None, unconfirmed: confirm, taken_up: true, ..(**record).clone() };
        self.raise(&mut next).map_err(|error| error.to_string())?;
        let is_same = next.number == record.number && next.alias == record.alias;
        let next = self.attachments().known().put_attachment(next);
        if !is_same {
            changes.store.put_attachment(&next).map_err(|error| error.to_string())?;
        }
        Ok(true)
    }

    /// Tries again in the background, as long as something is not in force.
    pub(super) fn retry_later(&self, changes: &Changes) {
        let attachments = self.attachments();
        let is_whole = changes.outside_fault.is_none()
            && !self.gateway_state().is_waiting()
            && attachments.known().attachments().all(|record| record.fault.is_none());
        if is_whole || attachments.is_retrying.swap(true, Ordering::Relaxed) {
            return;
        }
        let datapath = self.downgrade();
        let run = move || {
            thread::sleep(RETRY);
            let Some(datapath) = datapath.upgrade() else { return };
            let mut changes = datapath.attachments().changes();
            // If there is still something, this starts the next try.
            datapath.attachments().is_retrying.store(false, Ordering::Relaxed);
            datapath.mend(&mut changes);
        };
        if let Err(error) = thread::Builder::new().name("sluice-retry".to_owned()).spawn(run) {
            tracing::warn!(%error, "what is not in force is not tried again");
            attachments.is_retrying.store(false, Ordering::Relaxed);
        }
    }
}
