//! Attachments that wait for a controller: of networks that ask for it (`confirm`), each is held when its port is made, so
//! that nothing it sends passes, until somebody says that all that is needed for it is in force.
//!
//! Who attaches waits as long, for a bounded time, and holds no lock meanwhile: others attach, detach and confirm. What nobody
//! confirmed is undone. What is taken up at a start waits without anybody who attaches, and for as long as it takes.
//!
//! # Limits
//! At most [`CROWD`] calls wait at a time; each keeps a thread.

use super::known::Record;
use super::spec::AttachmentKey;
use super::{AttachError, Attachments, Changes, raise};
use crate::Datapath;
use crate::event::EventKind;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::FlowSpec;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, PoisonError};
use std::time::{Duration, Instant};

/// How long an attachment waits for a controller's word before it is undone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most calls that attach at a time: a runtime starts fewer containers at once, and threads that wait are no endless supply.
const CROWD: usize = 256;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Goes with the lock of what is known.
    changed: Condvar,
    callers: AtomicUsize,
}

/// The place of one who attaches.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Waiting);

impl Waiting {
    /// Takes a place among those who attach.
    ///
    /// # Errors
    /// [`AttachError::Crowded`].
    pub(super) fn enter(&self, key: &AttachmentKey) -> Result<Place<'_>, AttachError> {
        let place = Place(self);
        let count = self.callers.fetch_add(1, Ordering::Relaxed);
        if count < CROWD { Ok(place) } else { Err(AttachError::Crowded { key: key.clone(), count }) }
    }

    /// Has those who wait look whether what they wait for is there.
    pub(super) fn look_again(&self) {
        self.changed.notify_all();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether two records are of the same attachment, rather than of one that went and another of its name.
fn is_same(a: &Record, b: &Record) -> bool {
    (a.number, &a.alias, a.created_unix_s, &a.spec.port) == (b.number, &b.alias, b.created_unix_s, &b.spec.port)
}

impl Attachments {
    /// Waits until an attachment is confirmed. `Ok(None)` when the time is over.
    ///
    /// # Errors
    /// [`AttachError::Withdrawn`].
    fn wait_for_word(&self, waits: &Record) -> Result<Option<Arc<Record>>, AttachError> {
        let key = &waits.spec.key;
        let deadline = Instant::now() + PATIENCE;
        let mut known = self.known();
        loop {
            match known.attachment(key).filter(|now| is_same(now, waits)) {
                None => return Err(AttachError::Withdrawn { key: key.clone() }),
                Some(now) if !now.unconfirmed => return Ok(Some(Arc::clone(now))),
                Some(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            known = self.waiting.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Datapath {
    /// Says that all that these attachments wait for is in force. Returns how many waited until now.
    ///
    /// # Errors
    /// [`AttachError::NoAttachment`] for the first that is not there; the others are confirmed all the same.
    pub(crate) fn confirm_attachments(&self, keys: &[AttachmentKey]) -> Result<usize, AttachError> {
        let changes = self.attachments().changes();
        let confirmed = self.let_go(&changes, keys)?;
        let known = self.attachments().known();
        match keys.iter().find(|key| known.attachment(key).is_none()) {
            Some(key) => Err(AttachError::NoAttachment { key: key.clone() }),
            None => Ok(confirmed),
        }
    }

    /// Lets attachments go that are held; those that are not, or not there, stay as they are. Returns how many were.
    pub(super) fn let_go(&self, _changes: &Changes, keys: &[AttachmentKey]) -> Result<usize, AttachError> {
        let held: BTreeMap<_, _> = {
            let known = self.attachments().known();
            let records = keys.iter().filter_map(|key| known.attachment(key)).filter(|record| record.unconfirmed);
            records.map(|record| (record.spec.key.clone(), Arc::clone(record))).collect()
        };
        let mut mods: BTreeMap<&str, Vec<BridgeMod>> = BTreeMap::new();
        let model = self.model();
        for record in held.values() {
            // One that is not in force gets its flows when it is.
            let Some(port) = record.port_in(&model) else { continue };
            let free = Record { unconfirmed: false, ..(**record).clone() };
            let changes = difference(&raise::flows(record, port.no), &raise::flows(&free, port.no));
            mods.entry(&record.bridge).or_default().extend(changes);
        }
        for (bridge, mods) in mods {
            self.apply_bundle(bridge, &mods)?;
        }
        for record in held.values() {
            let free = Record { unconfirmed: false, ..(**record).clone() };
            let free = self.attachments().known().put_attachment(free);
            if free.fault.is_none() {
                // While it was held it could not be heard.
                self.attachments().announcer.announce(self, free, 1);
            }
        }
        self.attachments().waiting.look_again();
        Ok(held.len())
    }

    /// Waits until somebody confirms an attachment that was made just now, and undoes it when nobody does. Not to be called
    /// with a lock.
    ///
    /// # Errors
    /// [`AttachError::Unconfirmed`] and [`AttachError::Withdrawn`]; the attachment is gone then.
    pub(super) fn wait_to_be_confirmed(&self, record: &Record) -> Result<Arc<Record>, AttachError> {
        if let Some(confirmed) = self.attachments().wait_for_word(record)? {
            return Ok(confirmed);
        }
        let key = &record.spec.key;
        let mut changes = self.attachments().changes();
        // The word may have come while this waited for its turn.
        let now = self.attachments().known().attachment(key).filter(|now| is_same(now, record)).cloned();
        let Some(now) = now else { return Err(AttachError::Withdrawn { key: key.clone() }) };
        if !now.unconfirmed {
            return Ok(now);
        }
        let closing = self.drop_attachment(&mut changes, &now);
        drop(changes);
        drop(closing?);
        Err(AttachError::Unconfirmed { key: key.clone(), seconds: PATIENCE.as_secs() })
    }

    /// Tells whoever listens that something of a network changed.
    pub(super) fn tell_changed(&self, network: &str) {
        let bridge = self.attachments().network(network).map(|network| network.spec.bridge);
        let bridge = bridge.and_then(|bridge| Some(self.model().bridge_named(&bridge)?.id));
        self.publish_event(bridge, EventKind::AttachmentsChanged { network: network.into() });
    }
}

/// The changes from some flows to others.
fn difference(before: &[FlowSpec], after: &[FlowSpec]) -> Vec<BridgeMod> {
    let place = |flow: &FlowSpec| (flow.table, flow.priority, flow.matches.clone());
    let gone = before.iter().filter(|old| !after.iter().any(|new| place(new) == place(old)));
    let delete = |flow: &FlowSpec| {
        let owner = Some(OwnerFilter::Is(flow.owner.clone()));
        FlowMod::delete(FlowFilter { owner, ..FlowFilter::strictly(flow) }).into()
    };
    let new = after.iter().filter(|new| !before.contains(new));
    gone.map(delete).chain(new.map(|flow| FlowMod::add(flow.clone()).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let waiting = Waiting::default();
        let key = AttachmentKey { network: "n".to_owned(), container_id: "c".to_owned(), ifname: "e".to_owned() };
        let places: Vec<_> = (0..CROWD).map(|_| waiting.enter(&key).unwrap()).collect();
        assert!(matches!(waiting.enter(&key), Err(AttachError::Crowded { count: CROWD, .. })));
        drop(places);
        assert!(waiting.enter(&key).is_ok());
    }
}
