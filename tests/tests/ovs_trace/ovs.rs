//! Open vSwitch with one bridge.

use sluice_tests::ovs::Daemons;
use std::fs;

/// Ports of the bridge `br0`: `p1` to `p5`. The last one is down.
pub(crate) const PORTS: u16 = 5;

/// A running OVS.
pub(crate) struct Ovs(Daemons);

impl Ovs {
    /// Starts OVS.
    pub(crate) fn start() -> Self {
        let ovs = Self(Daemons::start(&["--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=2"]));
        let mut make =
            "add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure protocols=OpenFlow15".to_owned();
        for no in 1..=PORTS {
            make += &format!(" -- add-port br0 p{no} -- set interface p{no} type=dummy ofport_request={no}");
        }
        ovs.0.vsctl(&make.split(' ').collect::<Vec<_>>());
        ovs.0.appctl(&["netdev-dummy/set-admin-state", "up"]);
        ovs.0.appctl(&["netdev-dummy/set-admin-state", &format!("p{PORTS}"), "down"]);
        ovs.ofctl(&["add-meter", "br0", "meter=1,pktps,bands=type=drop,rate=10"]);
        ovs
    }

    fn ofctl(&self, args: &[&str]) {
        let all = [&["-O", "OpenFlow15"], args].concat();
        self.0.run("ovs-ofctl", &all).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }

    /// Gives the bridge these flows and groups, each one a line, and no others.
    pub(crate) fn replace(&self, flows: &str, groups: &str) {
        self.ofctl(&["del-flows", "br0"]);
        self.ofctl(&["del-groups", "br0"]);
        for (command, text) in [("add-groups", groups), ("add-flows", flows)] {
            fs::write(self.0.dir().join("lines"), text).expect("the directory is writable");
            self.ofctl(&[command, "br0", "lines"]);
        }
    }

    /// The lines of `ofproto/trace`, with the names of ports.
    pub(crate) fn trace(&self, packet: &str, ct_next: &[&str]) -> String {
        let mut args = vec!["ofproto/trace", "--names", "br0", packet];
        ct_next.iter().for_each(|state| args.extend(["--ct-next", state]));
        self.0.appctl(&args)
    }
}
