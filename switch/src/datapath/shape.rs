//! Ports that come under limits of their rate, and out of them, while frames flow: the worker's queue is wrapped and
//! unwrapped in its place, between two bursts.

use super::worker::{DRAIN, Worker};
use crate::port::{PortQueue, Shaped, Shaping};
use sluice_flows::DpPort;

/// What to do with a worker's queue of a port.
pub(crate) enum Reshape {
    /// Hold it to limits.
    Wrap(Shaping),
    /// Look at the limits, which have changed.
    Look,
    /// There are no limits any more.
    Unwrap,
}

impl Worker<'_> {
    pub(super) fn reshape(&mut self, port: DpPort, change: Reshape) {
        match change {
            Reshape::Wrap(shaping) => self.swap_queue(port, |queue| {
                Shaped::wrap(queue, shaping).unwrap_or_else(|(queue, error)| {
                    tracing::error!(port = port.0, %error, "cannot hold the port to its limits; set them again");
                    queue
                })
            }),
            Reshape::Look => self.heat(port),
            Reshape::Unwrap => self.unwrap_queue(port),
        }
    }

    /// Takes the wrapper off once nothing waits in it; without limits, all that waits goes at once.
    fn unwrap_queue(&mut self, port: DpPort) {
        let now = self.shared.clock.now();
        for _ in 0..DRAIN {
            let queue = self.egress.lanes.get_mut(port).and_then(|lane| lane.queue.as_deref());
            if queue.is_none_or(|queue| !queue.is_waiting()) {
                break;
            }
            let (ingress, received) = self.receive(port, now);
            if received > 0 {
                self.process(ingress, received, now);
            }
        }
        self.swap_queue(port, |mut queue| queue.take_inner().unwrap_or(queue));
    }

    /// Puts another queue in the place of the port's, and watches it as that one was.
    fn swap_queue(&mut self, port: DpPort, swap: impl FnOnce(Box<dyn PortQueue>) -> Box<dyn PortQueue>) {
        let Some(lane) = self.egress.lanes.get_mut(port) else { return };
        let Some(queue) = lane.queue.take() else { return };
        let armed = std::mem::take(&mut lane.armed);
        if let Some(fd) = queue.rx_fd().filter(|_| armed) {
            self.poller.remove(fd);
        }
        lane.queue = Some(swap(queue));
        if armed {
            self.watch(port);
        }
    }

    /// Polls a port's queue in the next round.
    fn heat(&mut self, port: DpPort) {
        if let Some(lane) = self.egress.lanes.get_mut(port)
            && lane.armed
            && !lane.hot
        {
            lane.hot = true;
            self.hot.push(port);
        }
    }
}
