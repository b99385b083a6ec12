//! What happens in the switch, told to whoever subscribed.
//!
//! Subscribers have a bounded queue each. One that reads too slowly loses events and is told how many; the switch never
//! waits for it. Only slow paths publish.

use crate::mac_table::{MacChange, MacEntry};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use sluice_flows::bridge::BridgeId;
use sluice_flows::rule::Rule;
use sluice_flows::table::RemovedReason;
use sluice_flows::{DpPort, PortNo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// How many rules a bundle touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowChanges {
    /// Rules added, or put in the place of one with the same table, priority and match.
    pub added: u64,
    /// Rules changed in place.
    pub modified: u64,
    /// Rules deleted.
    pub deleted: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A bridge was made.
    BridgeAdded {
        /// Its name.
        name: Arc<str>,
    },
    /// A bridge was removed.
    BridgeRemoved {
        /// Its name.
        name: Arc<str>,
    },
    /// A port was added.
    PortAdded {
        /// Its name.
        name: Arc<str>,
        /// Its number in the bridge.
        no: PortNo,
        /// Its number in the datapath.
        dp: DpPort,
    },
    /// A port was removed.
    PortRemoved {
        /// Its name.
        name: Arc<str>,
        /// Its number in the bridge.
        no: PortNo,
        /// Its number in the datapath.
        dp: DpPort,
    },
    /// A port was changed, or its device went up, down or away.
    PortChanged {
        /// Its name.
        name: Arc<str>,
        /// Its number in the bridge.
        no: PortNo,
        /// Whether it is up: administratively, and by its device.
        up: bool,
        /// Its device is gone for good; the port stays until it is removed.
        gone: bool,
    },
    /// Flows were changed.
    FlowsChanged {
        /// How many.
        changes: FlowChanges,
        /// The generation of the model that holds the change.
        generation: u64,
    },
    /// A rule timed out, or one that asked for it (`send_flow_rem`) was deleted; its counters are final.
    FlowRemoved {
        /// The rule.
        rule: Arc<Rule>,
        /// Why it is gone.
        reason: RemovedReason,
    },
    /// An address was learned, or moved to another port.
    MacLearned {
        /// The address and where it now is.
        entry: MacEntry,
        /// What the table made of it.
        change: MacChange,
    },
    /// An address was not seen for too long and forgotten.
    MacAged {
        /// The address and where it was.
        entry: MacEntry,
    },
    /// Networks or attachments came, went or changed.
    AttachmentsChanged {
        /// The network.
        network: Arc<str>,
    },
    /// Events were lost just before this one, because the subscriber read too slowly.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number, from 1, one more for each.
    pub sequence: u64,
    /// When.
    pub time: SystemTime,
    /// The bridge that it concerns; `None` for the switch as a whole.
    pub bridge: Option<BridgeId>,
    /// What.
    pub kind: EventKind,
}

struct Subscriber {
    sender: Sender<Event>,
    lost: u64,
}

/// Where events are published. Shared by the control side and the workers.
#[derive(Default)]
pub(crate) struct Events {
    subscribers: Mutex<Vec<Subscriber>>,
    count: AtomicU64,
}

impl Events {
    /// Events from now on, at most `depth` of them waiting.
    pub(crate) fn subscribe(&self, depth: usize) -> Receiver<Event> {
        let (sender, receiver) = bounded(depth.max(2));
        self.lock().push(Subscriber { sender, lost: 0 });
        receiver
    }

    /// Tells every subscriber; those that went away are forgotten.
    pub(crate) fn publish(&self, bridge: Option<BridgeId>, kind: EventKind) {
        let mut subscribers = self.lock();
        let sequence = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if subscribers.is_empty() {
            return;
        }
        let event = Event { sequence, time: SystemTime::now(), bridge, kind };
        subscribers.retain_mut(|s| s.tell(&event));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Returns whether the subscriber is still there.
    fn tell(&mut self, event: &Event) -> bool {
        if self.lost > 0 {
            let note = Event { bridge: None, kind: EventKind::Lost { count: self.lost }, ..event.clone() };
            match self.sender.try_send(note) {
                Ok(()) => self.lost = 0,
                Err(TrySendError::Full(_)) => {
                    self.lost += 1;
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(events: &Events, name: &str) {
        events.publish(None, EventKind::BridgeAdded { name: name.into() });
    }

    #[test]
    fn a_slow_subscriber_loses_events_and_is_told_how_many() {
        let events = Events::default();
        let slow = events.subscribe(2);
        for name in ["a", "b", "c", "d"] {
            say(&events, name);
        }
        assert_eq!(slow.try_iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
        say(&events, "e");
        let next: Vec<_> = slow.try_iter().collect();
        assert!(matches!(next[0].kind, EventKind::Lost { count: 2 }), "{next:?}");
        assert_eq!(next[1].sequence, 5);
    }

    #[test]
    fn a_subscriber_that_went_away_is_forgotten() {
        let events = Events::default();
        drop(events.subscribe(4));
        say(&events, "a");
        assert!(events.lock().is_empty());
    }
}
