//! What the node controller has to know of the switch, told so that nothing piles up: three notices at most wait to be read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Something has changed in the switch, or with the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The switch can be asked. Networks and tunnels are to be said again, and attachments to be listed.
    Connected {
        /// It is not the process that was there before: it knows nothing but what it had on disk.
        new_switch: bool,
    },
    /// Networks or attachments came, went or changed: list them. It may be told too often, never too seldom.
    AttachmentsChanged,
    /// The switch is away, and calls fail until it is connected again.
    Lost,
}

/// Where events wait.
#[derive(Debug, Default)]
struct Waiting {
    events: Mutex<VecDeque<Event>>,
    changed: Notify,
}

/// Where events are told.
#[derive(Clone, Debug)]
pub(super) struct Teller(Arc<Waiting>);

/// The events, for one reader.
#[derive(Debug)]
pub struct Events(Arc<Waiting>);

/// A teller, and the reader of what it tells.
pub(super) fn events() -> (Teller, Events) {
    let waiting = Arc::new(Waiting::default());
    (Teller(Arc::clone(&waiting)), Events(waiting))
}

impl Teller {
    /// Tells of an event. What it makes out of date and was not read is forgotten.
    pub(super) fn tell(&self, event: Event) {
        let mut events = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = match event {
            Event::AttachmentsChanged if events.back() == Some(&event) => return,
            Event::AttachmentsChanged => event,
            // The reader would otherwise believe that the switch it knows is still there.
            Event::Connected { new_switch } => {
                let unread = events.contains(&Event::Connected { new_switch: true });
                events.retain(|e| *e == Event::Lost);
                Event::Connected { new_switch: new_switch || unread }
            }
            Event::Lost => {
                let unread = events.contains(&Event::Connected { new_switch: true });
                events.clear();
                if unread {
                    events.push_back(Event::Connected { new_switch: true });
                }
                event
            }
        };
        events.push_back(event);
        drop(events);
        self.0.changed.notify_one();
    }
}

impl Events {
    /// The next event; waits for it. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.0.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return event;
            }
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, events};

    const NEW: Event = Event::Connected { new_switch: true };
    const SAME: Event = Event::Connected { new_switch: false };

    /// What is read after all of this has been told.
    fn read(told: &[Event]) -> Vec<Event> {
        let (teller, events) = events();
        told.iter().for_each(|event| teller.tell(*event));
        events.0.events.lock().unwrap().iter().copied().collect()
    }

    #[test]
    fn what_waits_to_be_read_is_bounded_and_ends_with_how_it_is() {
        use Event::{AttachmentsChanged as Changed, Lost};
        assert_eq!(read(&[NEW, Changed, Changed, Changed]), [NEW, Changed]);
        assert_eq!(read(&[SAME, Changed, Lost, SAME]), [Lost, SAME]);
        assert_eq!(read(&[SAME, Changed, Lost]), [Lost]);
        let mut flapping = vec![NEW];
        for _ in 0..100 {
            flapping.extend([Changed, Lost, SAME]);
        }
        assert_eq!(read(&flapping), [Lost, NEW], "that the switch is a new one is not forgotten");
    }
}
