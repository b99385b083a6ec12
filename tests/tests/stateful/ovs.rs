//! Open vSwitch with the files of an example, and its user-space connection tracking.

use crate::labs::{BALANCER, FIREWALL, GATEWAY, PORT_RANGE};
use crate::scripts::Plays;
use sluice_tests::ovs::Daemons;
use sluice_tests::switch::wait_until;
use sluice_tests::unixctl::Unixctl;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The version that has everything the examples use.
const OPENFLOW: &str = "OpenFlow15";
/// Bytes in front of the first record of a capture, and of each.
const PCAP_HEADER: usize = 24;
const PCAP_RECORD: usize = 16;

/// A running OVS with the bridge `br0`, whose ports write what they send to files. Its time stands still.
pub(crate) struct Ovs {
    daemons: Daemons,
    ctl: Unixctl,
    ports: u16,
    /// How much of each port's file was read.
    read: Vec<usize>,
}

/// A file of the folder `examples`, as it is.
fn path(file: &str) -> String {
    format!("{}/../examples/{file}", env!("CARGO_MANIFEST_DIR"))
}

impl Ovs {
    /// OVS with these files, or nothing where it is not installed.
    pub(crate) fn start(files: &[&str], ports: u16) -> Option<Self> {
        if !Daemons::are_installed() {
            eprintln!("skipped: OVS is not installed");
            return None;
        }
        let daemons = Daemons::start(&[]);
        let vsctl = |args: String| daemons.vsctl(&args.split(' ').collect::<Vec<_>>());
        vsctl(format!("-- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure protocols={OPENFLOW}"));
        for no in 1..=ports {
            let capture = capture(&daemons, no);
            vsctl(format!(
                "-- add-port br0 p{no} -- set interface p{no} type=dummy ofport_request={no} options:tx_pcap={}",
                capture.display()
            ));
        }
        for file in files {
            let verb: &[&str] = if file.ends_with(".groups") { &["add-groups"] } else { &["--bundle", "add-flows"] };
            let path = path(file);
            let all = [&["-O", OPENFLOW], verb, &["br0", &path]].concat();
            daemons.run("ovs-ofctl", &all).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        let mut ctl = Unixctl::connect(&daemons.dir().join("vswitchd.ctl")).unwrap();
        ctl.ask("time/stop", &[]).unwrap();
        Some(Self { daemons, ctl, ports, read: vec![PCAP_HEADER; ports.into()] })
    }

    /// Adds flows.
    pub(crate) fn add_flows(&self, flows: &[&str]) {
        for flow in flows {
            let added = self.daemons.run("ovs-ofctl", &["-O", OPENFLOW, "add-flow", "br0", flow]);
            added.unwrap_or_else(|e| panic!("{flow}: {e}"));
        }
    }

    /// Forgets all connections.
    pub(crate) fn forget(&mut self) {
        self.ctl.ask("dpctl/flush-conntrack", &[]).unwrap();
    }

    /// The frames that a port has sent since the last time.
    fn take(&mut self, no: u16) -> Vec<Vec<u8>> {
        let bytes = fs::read(capture(&self.daemons, no)).unwrap();
        let read = &mut self.read[usize::from(no) - 1];
        let mut frames = Vec::new();
        while let Some(record) = bytes.get(*read..*read + PCAP_RECORD) {
            let len = u32::from_ne_bytes(record[8..12].try_into().unwrap()) as usize;
            let Some(frame) = bytes.get(*read + PCAP_RECORD..*read + PCAP_RECORD + len) else { break };
            frames.push(frame.to_vec());
            *read += PCAP_RECORD + len;
        }
        frames
    }

    /// How often its datapath has looked a packet up.
    fn lookups(&mut self) -> u64 {
        let text = self.ctl.ask("dpctl/show", &[]).unwrap();
        let words = text.split_whitespace().filter_map(|word| word.split_once(':'));
        words.filter(|(name, _)| matches!(*name, "hit" | "missed")).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
    }

    /// How many flows `br0` has.
    fn flows(&self) -> usize {
        let flows = self.daemons.run("ovs-ofctl", &["-O", OPENFLOW, "--no-stats", "dump-flows", "br0"]).unwrap();
        flows.lines().count()
    }
}

fn capture(daemons: &Daemons, no: u16) -> PathBuf {
    daemons.dir().join(format!("p{no}.pcap"))
}

impl Plays for Ovs {
    fn send(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut hex = String::new();
        for byte in frame {
            write!(hex, "{byte:02x}").unwrap();
        }
        let before = self.lookups();
        self.ctl.ask("netdev-dummy/receive", &[&format!("p{port}"), &hex]).unwrap();
        // One thread does all that becomes of a frame at once, and answers requests before or after.
        wait_until("Open vSwitch takes the frame", || self.lookups() > before);
        (1..=self.ports).flat_map(|no| self.take(no).into_iter().map(move |frame| (no, frame))).collect()
    }

    fn wait(&mut self, millis: u64) {
        self.ctl.ask("time/warp", &[&millis.to_string()]).unwrap();
    }
}

#[test]
fn ovs_takes_the_files_of_the_examples_as_they_are() {
    let gateway = [&GATEWAY[..], &[PORT_RANGE]].concat();
    for files in [&FIREWALL[..], &gateway, &BALANCER] {
        let Some(ovs) = Ovs::start(files, 4) else { return };
        let flows = files.iter().filter(|file| file.ends_with(".flows"));
        let lines = flows.flat_map(|file| {
            let text = fs::read_to_string(path(file)).unwrap();
            text.lines().filter(|line| line.starts_with("table=")).map(str::to_owned).collect::<Vec<_>>()
        });
        assert_eq!(ovs.flows(), lines.count());
    }
}
