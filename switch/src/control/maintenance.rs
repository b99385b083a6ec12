//! What has to be done now and then: flows, MAC addresses and connections expire, devices come and go, packets make
//! flows.

use super::{Datapath, Inner};
use crate::datapath::Notice;
use crate::event::EventKind;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the clock is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// How often the interfaces of new ports are looked at: what comes right after one is set up is not to be lost.
const SOON: Duration = Duration::from_millis(10);

/// Starts the maintenance thread. It ends with the data path.
pub(super) fn spawn(inner: Weak<Inner>, notices: Receiver<Notice>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sluice-maint".to_owned()).spawn(move || run(&inner, &notices))
}

fn run(inner: &Weak<Inner>, notices: &Receiver<Notice>) {
    let mut maintain = Instant::now() + PERIOD;
    let mut sweep = maintain;
    let mut new = None;
    loop {
        let next = maintain.min(sweep);
        let notice = notices.recv_deadline(new.map_or(next, |new| next.min(new)));
        let Some(inner) = inner.upgrade() else { return };
        match notice {
            Ok(Notice::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Notice::Gone(port)) => inner.port_gone(port),
            Ok(Notice::New) => new = Some(Instant::now() + SOON),
            Ok(Notice::Effects) => Datapath { inner: Arc::clone(&inner) }.apply_waiting(),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Looked at after a notice too: they may come faster than the deadline does.
        let now = Instant::now();
        if now >= sweep {
            let pause = inner.shared.conntrack.table.expire_part(inner.shared.clock.now());
            sweep = now + pause.unwrap_or(PERIOD);
        }
        if new.is_some_and(|new| now >= new) {
            new = inner.watch_new_links(now).then(|| now + SOON);
        }
        if now >= maintain {
            maintain = now + PERIOD;
            Datapath { inner }.maintain_rest();
        }
    }
}

impl Datapath {
    /// Expires what is due by the clock and looks at the devices. Done by itself twice a second, but that a large
    /// number of connections is gone through in parts; tests that move the clock call it instead of waiting.
    pub fn maintain(&self) {
        self.inner.shared.conntrack.table.expire(self.clock().now());
        self.maintain_rest();
    }

    /// The same without connections.
    fn maintain_rest(&self) {
        self.apply_waiting();
        self.expire_flows();
        self.inner.shared.conntrack.expectations.sweep(self.clock().now());
        self.inner.shared.macs.expire_groups(self.clock().now());
        for entry in self.inner.shared.macs.expire(self.clock().now()) {
            self.inner.shared.events.publish(Some(entry.bridge), EventKind::MacAged { entry });
        }
        self.inner.watch_links();
        // Fragments whose time is over are counted by a worker.
        if self.inner.shared.conntrack.fragments.is_due(self.clock().now())
            && let Some(worker) = self.inner.workers.first()
        {
            worker.wake();
        }
    }
}
