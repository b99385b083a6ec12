//! A worker that panics takes the process with it: no switch goes on deaf.

use sluice_flows::packet::Frame;
use sluice_switch::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome};
use sluice_switch::{Config, PortDevice, PortRequest};
use sluice_tests::switch::Switch;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Set in the process that is to end.
const CHILD: &str = "SLUICE_TEST_BROKEN_PORT";
/// How long that process waits for its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port that is always readable, and panics when it is read.
struct Broken {
    device: Device,
    ready: Arc<PipeReader>,
}

impl Port for Broken {
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
        Ok((0..count).map(|_| Box::new(BrokenQueue(Arc::clone(&self.ready))) as Box<dyn PortQueue>).collect())
    }
}

struct BrokenQueue(Arc<PipeReader>);

impl PortQueue for BrokenQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn rx_burst(&mut self, _: &mut [Frame]) -> io::Result<usize> {
        panic!("the port is broken");
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        outcomes[..frames.len()].fill(TxOutcome::Sent);
    }
}

#[test]
fn a_worker_that_panics_ends_the_process_and_is_named() {
    if std::env::var_os(CHILD).is_some() {
        let switch = Switch::learning(Config::default(), 1);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[0]).unwrap();
        let device = Device::without_link("broken", None, 1500);
        let port = Box::new(Broken { device, ready: Arc::new(reader) });
        switch.datapath.add_port("br0", PortRequest::new("broken", PortDevice::Device(port))).unwrap();
        std::thread::sleep(PATIENCE);
        return;
    }
    let name = "broken::a_worker_that_panics_ends_the_process_and_is_named";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null());
    let output = child.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{stderr}");
    assert!(stderr.contains("sluice-w0") && stderr.contains("the port is broken"), "{stderr}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("test result"), "the test went on");
}
