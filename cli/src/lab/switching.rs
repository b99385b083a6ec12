//! The lab's switches: one data path in the supervisor's process, one bridge in it per switch.
//!
//! Every bridge starts as a learning switch; the topology's rules lie in front. A link between two switches is a patch,
//! so a frame crosses any number of switches in one translation.

use super::namespace::HostPort;
use super::topology::Topology;
use super::topology::resolved::{End, Switch, port_name};
use crate::failure::Failure;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::text::parse_flow;
use sluice_flows::{Owner, PortNo};
use sluice_switch::api::Running;
use sluice_switch::{Config, ControlError, Datapath, FailMode, PortDevice, PortRequest};
use std::path::Path;

/// The running switches and their control API.
pub(crate) struct Switching {
    datapath: Datapath,
    _api: Running,
}

impl Switching {
    /// Starts the switches of a topology with the hosts' ports, and serves their control API on `socket`. Frames flow and
    /// clients can connect when this returns.
    ///
    /// # Errors
    /// What the switch says.
    pub(crate) fn start(
        topology: &Topology,
        hosts: Vec<HostPort>,
        workers: usize,
        socket: &Path,
    ) -> Result<Self, Failure> {
        let datapath = Datapath::start(Config { workers, ..Config::default() }).map_err(failed)?;
        for switch in &topology.switches {
            datapath.add_bridge(&switch.name, FailMode::Standalone).map_err(failed)?;
            // In force before the first frame can come.
            add_rules(&datapath, topology, switch)?;
        }
        for host in hosts {
            let interface = host.interface;
            let end = End::Switch { switch: interface.switch.clone(), port: interface.port };
            let peer = End::Host { host: host.host, interface: interface.name };
            add_port(&datapath, &end, port_name(&end, &peer), PortDevice::Device(host.port))?;
        }
        for link in &topology.links {
            let [a @ End::Switch { .. }, b @ End::Switch { .. }] = &link.ends else { continue };
            for (end, peer) in [(a, b), (b, a)] {
                add_port(&datapath, end, port_name(end, peer), PortDevice::Patch { peer: port_name(peer, end) })?;
            }
        }
        let api =
            sluice_switch::api::spawn(datapath.clone(), socket).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self { datapath, _api: api })
    }

    /// Ends the switches and closes their ports, but not the control API, which would wait for its clients: the process
    /// is to end.
    pub(crate) fn end(self) {
        self.datapath.shutdown();
        std::mem::forget(self);
    }
}

fn add_port(datapath: &Datapath, end: &End, name: String, device: PortDevice) -> Result<(), Failure> {
    let End::Switch { switch, port } = end else { return Ok(()) };
    let request = PortRequest { number: Some(PortNo(*port)), ..PortRequest::new(&name, device) };
    datapath.add_port(switch, request).map(|_| ()).map_err(failed)
}

fn add_rules(datapath: &Datapath, topology: &Topology, switch: &Switch) -> Result<(), Failure> {
    let names = topology.port_names(&switch.name);
    let mut changes = Vec::new();
    for rule in &switch.rules {
        let flow = parse_flow(&rule.flow, &names);
        let mut spec = flow.map_err(|error| Failure::new(format!("rule {}: {error}", rule.name)))?.value;
        spec.owner = Owner::file_line(&topology.source, rule.line);
        changes.push(FlowMod::add(spec));
    }
    datapath.apply_bundle(&switch.name, &changes).map(|_| ()).map_err(failed)
}

fn failed(error: ControlError) -> Failure {
    Failure::new(format!("the switch: {error}"))
}
