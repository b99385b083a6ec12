//! What happens to routers, told to whoever subscribed. As with the switch's other events, one that reads too slowly
//! loses some and is told how many.

use super::NeighborState;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterEventKind {
    /// The router was made, or made anew.
    Set,
    /// It was removed, or went with its bridge.
    Removed,
    /// An interface went up or down.
    InterfaceChanged {
        /// Its name.
        interface: String,
        /// It carries packets.
        up: bool,
    },
    /// A neighbour was found, has another hardware address, failed or was forgotten.
    NeighborChanged {
        /// The interface that it is behind.
        interface: String,
        /// Its address.
        address: IpAddr,
        /// Its hardware address, if it is known.
        mac: Option<[u8; 6]>,
        /// What is known of it; none if it was forgotten.
        state: Option<NeighborState>,
    },
    /// A next hop died or came back.
    NextHopChanged {
        /// The interface that it is behind.
        interface: String,
        /// Its address.
        address: IpAddr,
        /// Routes lead to it.
        alive: bool,
        /// How that was noticed: `neighbor` or `probe`.
        cause: &'static str,
    },
    /// Somebody else has one of the router's addresses.
    DuplicateAddress {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
        /// Who has it too.
        mac: [u8; 6],
    },
    /// Events were lost just before this one, because the subscriber read too slowly.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Something that happened to a router.
#[derive(Clone, Debug)]
pub struct RouterEvent {
    /// When.
    pub time: SystemTime,
    /// The router's name; empty for `Lost`.
    pub router: Arc<str>,
    /// What.
    pub kind: RouterEventKind,
}

struct Subscriber {
    sender: Sender<RouterEvent>,
    lost: u64,
}

/// Where events of routers are published.
#[derive(Default)]
pub(super) struct RouterEvents {
    subscribers: Mutex<Vec<Subscriber>>,
}

impl RouterEvents {
    /// Events from now on, at most `depth` of them waiting.
    pub(super) fn subscribe(&self, depth: usize) -> Receiver<RouterEvent> {
        let (sender, receiver) = bounded(depth.max(2));
        self.lock().push(Subscriber { sender, lost: 0 });
        receiver
    }

    /// Tells every subscriber; those that went away are forgotten.
    pub(super) fn publish(&self, router: &Arc<str>, kind: RouterEventKind) {
        let event = RouterEvent { time: SystemTime::now(), router: Arc::clone(router), kind };
        self.lock().retain_mut(|subscriber| subscriber.tell(&event));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Returns whether the subscriber is still there.
    fn tell(&mut self, event: &RouterEvent) -> bool {
        let lost = RouterEvent { router: "".into(), kind: RouterEventKind::Lost { count: self.lost }, ..event.clone() };
        let events = (self.lost > 0).then_some(lost).into_iter().chain([event.clone()]);
        for event in events {
            match self.sender.try_send(event) {
                Ok(()) => self.lost = 0,
                Err(TrySendError::Full(_)) => {
                    self.lost += 1;
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_too_slowly_is_told_how_many_events_were_lost() {
        let events = RouterEvents::default();
        let slow = events.subscribe(2);
        let name = Arc::from("r1");
        (0..5).for_each(|_| events.publish(&name, RouterEventKind::Set));
        assert_eq!(slow.try_iter().count(), 2);
        events.publish(&name, RouterEventKind::Removed);
        let kinds: Vec<_> = slow.try_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [RouterEventKind::Lost { count: 3 }, RouterEventKind::Removed]);
        drop(slow);
        events.publish(&name, RouterEventKind::Set);
        assert!(events.lock().is_empty());
    }
}
