//! What workers and control side do with a port's device: leave it alone while it gives nothing, close it in the end.

use sluice_flows::packet::Frame;
use sluice_switch::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome};
use sluice_switch::{Config, FailMode, PortDevice, PortRequest};
use sluice_tests::switch::{Switch, wait_until};
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More often than a worker asks a queue that is readable and gives nothing, before it leaves it alone for a while.
const FRUITLESS: usize = 300;

/// A port that is always readable, and gives its one frame when it was asked [`FRUITLESS`] times in vain.
struct Late {
    device: Device,
    ready: Arc<PipeReader>,
    /// Ports of this kind that are open.
    open: Arc<AtomicUsize>,
}

impl Late {
    fn open(name: &str, open: &Arc<AtomicUsize>) -> Box<Self> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[0]).unwrap();
        open.fetch_add(1, Ordering::Relaxed);
        let device = Device::without_link(name, None, 1500);
        Box::new(Self { device, ready: Arc::new(reader), open: Arc::clone(open) })
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Port for Late {
    fn kind(&self) -> PortKind {
        PortKind::Memory
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = |_| Box::new(LateQueue { ready: Arc::clone(&self.ready), asked: 0 }) as Box<dyn PortQueue>;
        Ok((0..count).map(queue).collect())
    }
}

struct LateQueue {
    ready: Arc<PipeReader>,
    asked: usize,
}

impl PortQueue for LateQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        self.asked += 1;
        if self.asked != FRUITLESS {
            return Ok(0);
        }
        frames[0].copy_from(&[0xff; 60]);
        Ok(1)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        outcomes[..frames.len()].fill(TxOutcome::Sent);
    }
}

fn add_late(switch: &Switch, name: &str, open: &Arc<AtomicUsize>) {
    let request = PortRequest::new(name, PortDevice::Device(Late::open(name, open)));
    switch.datapath.add_port("br0", request).unwrap();
}

#[test]
fn a_queue_left_alone_for_giving_nothing_is_watched_again_though_nothing_else_happens() {
    let switch = Switch::learning(Config::default(), 1);
    add_late(&switch, "late", &Arc::default());
    wait_until("the frame is flooded", || switch.end(1).take().is_some());
}

#[test]
fn all_devices_are_closed_when_a_bridge_is_removed_and_when_the_switch_ends() {
    let open = Arc::new(AtomicUsize::new(0));
    let switch = Switch::learning(Config { workers: 2, ..Config::default() }, 1);
    let add = || (0..70).for_each(|i| add_late(&switch, &format!("late{i}"), &open));
    add();
    assert_eq!(open.load(Ordering::Relaxed), 70);
    switch.datapath.remove_bridge("br0").unwrap();
    assert_eq!(open.load(Ordering::Relaxed), 0, "closed with the bridge");
    assert!(switch.datapath.ports(None).unwrap().is_empty());
    switch.datapath.add_bridge("br0", FailMode::Secure).unwrap();
    add();
    assert_eq!(open.load(Ordering::Relaxed), 70);
    switch.datapath.shutdown();
    assert_eq!(open.load(Ordering::Relaxed), 0, "closed with the switch");
}
