//! Ports in the hands of workers: given to all of them, and taken back from all of them.

use super::Inner;
use crate::datapath::Command;
use crate::port::PortQueue;
use crate::stats::PortCounters;
use crossbeam::channel::{Sender, unbounded};
use sluice_flows::DpPort;
use std::sync::Arc;

/// Waits until every worker that `tell` gave a clone of the sender has answered or ended.
pub(super) fn when_done(tell: impl FnOnce(&Sender<()>)) {
    let (done, all_done) = unbounded();
    tell(&done);
    drop(done);
    while all_done.recv().is_ok() {}
}

impl Inner {
    /// Gives each worker its queue of a port; a patch has none. `shared` says that the port is in no bridge.
    pub(super) fn hand_out(
        &self,
        port: DpPort,
        queues: impl IntoIterator<Item = Option<Box<dyn PortQueue>>>,
        counters: &Arc<PortCounters>,
        shared: bool,
    ) {
        for (worker, queue) in self.workers.iter().zip(queues) {
            worker.send(Command::AddPort { port, queue, counters: Arc::clone(counters), shared });
        }
    }

    /// Has workers receive no more from these ports, and waits until no worker has frames of theirs.
    fn settle(&self, ports: &Arc<[DpPort]>) {
        if self.workers.len() < 2 || ports.is_empty() {
            return;
        }
        when_done(|done| {
            for worker in &self.workers {
                worker.send(Command::Settle { ports: Arc::clone(ports), done: done.clone() });
            }
        });
    }

    /// Has all workers let go of ports. Their queues are closed when this returns.
    pub(super) fn take_back(&self, ports: impl Iterator<Item = DpPort>) {
        let ports: Arc<[DpPort]> = ports.collect();
        self.settle(&ports);
        when_done(|done| {
            for &port in ports.iter() {
                for worker in &self.workers {
                    worker.send(Command::RemovePort { port, done: done.clone() });
                }
            }
        });
    }
}
