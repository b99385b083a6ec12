//! Open vSwitch with the ports of the example.

use sluice_tests::ovs::Daemons;

/// The version that has everything the example uses.
const OPENFLOW: &str = "OpenFlow15";

/// A running OVS with the bridge `br0`.
pub(crate) struct Ovs(Daemons);

/// One pass of a packet through the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The tables that it was looked up in, in order.
    pub(crate) tables: Vec<u8>,
    /// What the datapath is to do with it.
    pub(crate) actions: String,
}

impl Ovs {
    /// Starts OVS with these ports, of which the last is a tunnel.
    pub(crate) fn start(ports: &[(&str, u16, u32)]) -> Self {
        let ovs = Self(Daemons::start(&[]));
        let bridge =
            format!("-- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure protocols={OPENFLOW}");
        ovs.vsctl(&bridge);
        // One by one, so that their numbers in the datapath are known.
        for (index, (name, no, _)) in ports.iter().enumerate() {
            let tunnel = "geneve options:remote_ip=flow options:key=flow";
            let kind = if index + 1 == ports.len() { tunnel } else { "dummy" };
            ovs.vsctl(&format!("-- add-port br0 {name} -- set interface {name} type={kind} ofport_request={no}"));
        }
        ovs
    }

    #[track_caller]
    fn vsctl(&self, args: &str) {
        self.0.vsctl(&args.split(' ').collect::<Vec<_>>());
    }

    /// What `ovs-ofctl` prints.
    #[track_caller]
    pub(crate) fn ofctl(&self, args: &[&str]) -> String {
        let all = [&["-O", OPENFLOW], args].concat();
        self.0.run("ovs-ofctl", &all).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// Has `ovs-ofctl VERB br0 FILE` read `text`.
    #[track_caller]
    pub(crate) fn feed(&self, verb: &[&str], text: &str) {
        let file = self.0.dir().join("input.txt");
        std::fs::write(&file, text).expect("the directory is writable");
        self.ofctl(&[verb, &["br0", &file.to_string_lossy()]].concat());
    }

    /// The passes of a packet, one more than there are states: what the tracker says after each pass but the last.
    #[track_caller]
    pub(crate) fn trace(&self, packet: &str, states: &[&str]) -> Vec<Pass> {
        let mut args = vec!["ofproto/trace", "br0", packet];
        args.extend(states.iter().flat_map(|state| ["--ct-next", state]));
        passes(&self.0.appctl(&args))
    }

    /// One pass of a packet, from a table on.
    #[track_caller]
    pub(crate) fn resume(&self, packet: &str, table: u8) -> Pass {
        let actions = format!("resubmit(,{table})");
        let mut passes = passes(&self.0.appctl(&["ofproto/trace-packet-out", "br0", packet, &actions]));
        passes.swap_remove(0)
    }
}

/// Reads what `ofproto/trace` prints.
fn passes(text: &str) -> Vec<Pass> {
    let mut passes = Vec::new();
    let mut tables = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.trim_start().split_once(". ").and_then(|(number, _)| number.parse().ok()) {
            tables.push(table);
        }
        if let Some(actions) = line.strip_prefix("Datapath actions: ") {
            passes.push(Pass { tables: std::mem::take(&mut tables), actions: actions.to_owned() });
        }
    }
    passes
}
