//! The lab's switches and routers: one data path in the supervisor's process, one bridge in it for each.
//!
//! Every switch starts as a learning switch; the topology's rules lie in front. How the bridges are joined is the
//! [`Wiring`]. A frame crosses any number of patches in one translation.
//!
//! A tunnel's sockets belong to the network namespace that the thread which makes the port is in: that of the switch's
//! own ends of routed links, or the machine's for a tunnel to another machine.

use super::enter::enter_network;
use super::machine::Machine;
use super::namespace::HostPort;
use super::routing;
use super::topology::resolved::{Impairment, Switch, Tunnel, TunnelEnd, port_name};
use super::topology::{Topology, files};
use super::translating;
use super::uplink::{self, Rules};
use super::wiring::{Joint, Place, Wiring};
use crate::failure::Failure;
use sluice_flows::action::Action;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::mirror::{MirrorOutput, MirrorSpec};
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::parse_flow;
use sluice_flows::{Match, Owner, PortNo};
use sluice_switch::api::Running;
use sluice_switch::port::{PortKind, PortSpec};
use sluice_switch::{Config, ControlError, Datapath, FailMode, PortDevice, PortRequest};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread;

/// Whatever comes in by one port of two leaves by the other.
const FLOOD: Action = Action::Output(PortNo::FLOOD);

/// The running switches and their control API.
pub(crate) struct Switching {
    datapath: Datapath,
    /// The machine translates for as long as this is there.
    _rules: Option<Rules>,
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
        ports: Vec<HostPort>,
        around: &Around<'_>,
        workers: usize,
        socket: &Path,
    ) -> Result<Self, Failure> {
        let datapath = Datapath::start(Config { workers, ..Config::default() }).map_err(failed)?;
        let mut wiring = Wiring::of(topology);
        for switch in &topology.switches {
            datapath.add_bridge(&switch.name, FailMode::Standalone).map_err(failed)?;
            // In force before the first frame can come.
            add_rules(&datapath, topology, switch)?;
        }
        for router in &topology.routers {
            datapath.add_bridge(&router.name, FailMode::Secure).map_err(failed)?;
        }
        for bridge in &wiring.bridges {
            datapath.add_bridge(bridge, FailMode::Standalone).map_err(failed)?;
        }
        for (index, translator) in wiring.translators.iter().enumerate() {
            let bridge = &translator.bridge;
            datapath.add_bridge(bridge, FailMode::Secure).map_err(failed)?;
            let router = topology.routers.iter().find(|router| router.name == translator.router);
            let flows = router.map(|router| translating::flows(router, index, &topology.source)).transpose()?;
            datapath.apply_bundle(bridge, &flows.unwrap_or_default()).map_err(failed)?;
        }
        for bridge in &wiring.unlearned {
            let flow = FlowSpec { priority: 1, ..FlowSpec::new(Match::any(), [FLOOD], Owner::new("builtin:mirror")) };
            datapath.apply_bundle(bridge, &[FlowMod::add(flow)]).map_err(failed)?;
        }
        for port in ports {
            let at = |d: &super::wiring::DevicePort| d.host == port.host && d.interface == port.interface.name;
            let Some(index) = wiring.devices.iter().position(at) else { continue };
            add_port(&datapath, wiring.devices.swap_remove(index).place, PortDevice::Device(port.port))?;
        }
        for joint in wiring.joints {
            join(&datapath, joint, topology.seed, workers)?;
        }
        for switch in &topology.switches {
            let Some((_, [end, host])) = topology.mirror(switch) else { continue };
            let mirror = MirrorSpec::all(switch.name.as_str(), MirrorOutput::Port(port_name(end, host).into()));
            datapath.set_mirror(&switch.name, mirror).map_err(failed)?;
        }
        // Behind their ports, so that what they announce first has somewhere to go.
        for router in &topology.routers {
            let failed = |error| Failure::new(format!("the router {}: {error}", router.name));
            datapath.set_router(routing::spec(router)).map_err(failed)?;
        }
        for tunnel in &topology.tunnels {
            for end in &tunnel.ends {
                add_tunnel(&datapath, topology, tunnel, end, around, workers)?;
            }
        }
        let rules = match (&topology.uplink, around.machine) {
            (Some(link), Some(machine)) => {
                let vlan = topology.vlan_mode(&link.carried());
                let place =
                    Place { bridge: link.switch.clone(), number: link.port, name: link.port_name(), vlan, up: true };
                let (datapath, link, lab) = (datapath.clone(), link.clone(), topology.name.clone());
                machine.run(move || {
                    let (device, rules) = uplink::open(&link, &lab, workers)?;
                    add_port(&datapath, place, device).map(|()| rules)
                })?
            }
            _ => None,
        };
        let api =
            sluice_switch::api::spawn(datapath.clone(), socket).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self { datapath, _rules: rules, _api: api })
    }

    /// Ends the switches and closes their ports, but not the control API, which would wait for its clients: the process
    /// is to end.
    pub(crate) fn end(self) {
        self.datapath.shutdown();
        std::mem::forget(self);
    }
}

/// Where sockets of tunnels are opened.
pub(crate) struct Around<'a> {
    /// The namespaces of switches.
    pub(crate) stacks: BTreeMap<&'a str, BorrowedFd<'a>>,
    /// The machine's, if a tunnel or the uplink needs it.
    pub(crate) machine: Option<&'a Machine>,
}

fn add_port(datapath: &Datapath, place: Place, device: PortDevice) -> Result<(), Failure> {
    let number = Some(PortNo(place.number));
    let request = PortRequest { number, vlan: place.vlan, up: place.up, ..PortRequest::new(&place.name, device) };
    datapath.add_port(&place.bridge, request).map(|_| ()).map_err(failed)
}

/// Joins two ports by a patch, or by a wire if frames are to take their time.
fn join(datapath: &Datapath, joint: Joint, seed: u64, workers: usize) -> Result<(), Failure> {
    let names = joint.ends.each_ref().map(|end| end.name.clone());
    for (index, end) in joint.ends.into_iter().enumerate() {
        let peer = names[1 - index].clone();
        let device = match joint.is_wire {
            false => PortDevice::Patch { peer },
            true => {
                let spec = wire(peer, joint.impairment[index], joint.mtu, seed)?;
                spec.open(&end.name, workers).map_err(|error| Failure::new(error.to_string()))?
            }
        };
        add_port(datapath, end, device)?;
    }
    Ok(())
}

/// One end of a wire, with what happens to the frames that it sends.
fn wire(peer: String, impairment: Impairment, mtu: u32, seed: u64) -> Result<PortSpec, Failure> {
    let mut options = vec![("peer", peer), ("mtu", mtu.to_string()), ("seed", seed.to_string())];
    options.extend(impairment.options());
    spec("wire", &options)
}

/// A port's kind and options, as they are read everywhere.
pub(super) fn spec(kind: &str, options: &[(&str, String)]) -> Result<PortSpec, Failure> {
    let unknown = || Failure::new(format!("the switch has no ports of type {kind}"));
    let kind = PortKind::from_name(kind).ok_or_else(unknown)?;
    let options = options.iter().map(|(key, value)| (*key, value.as_str()));
    PortSpec::parse(kind, options).map_err(|error| Failure::new(error.to_string()))
}

/// Adds the port at one end of a tunnel, from a thread in the namespace that its sockets are to be in.
fn add_tunnel(
    datapath: &Datapath,
    topology: &Topology,
    tunnel: &Tunnel,
    end: &TunnelEnd,
    around: &Around<'_>,
    workers: usize,
) -> Result<(), Failure> {
    let place = Place {
        bridge: end.switch.clone(),
        number: end.port,
        name: tunnel.port_name(end),
        vlan: topology.vlan_mode(&tunnel.carried),
        up: true,
    };
    let mut options = vec![("remote_ip", end.remote.to_string())];
    options.extend(end.local.map(|local| ("local_ip", local.to_string())));
    options.extend(tunnel.vni.map(|vni| ("key", vni.to_string())));
    let spec = spec(tunnel.kind.name(), &options)?;
    let datapath = datapath.clone();
    let add = move || {
        let device = spec.open(&place.name, workers).map_err(|error| Failure::new(error.to_string()))?;
        add_port(&datapath, place, device)
    };
    let result = match (around.stacks.get(end.switch.as_str()), around.machine) {
        (Some(stack), _) if tunnel.over.is_some() => thread::scope(|scope| {
            let inside = || {
                let failed = |error| Failure::new(format!("cannot enter the namespace of {}: {error}", end.switch));
                enter_network(stack).map_err(failed).and_then(|()| add())
            };
            let thread = thread::Builder::new().name("sluice-stack".to_owned()).spawn_scoped(scope, inside);
            let thread = thread.map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        (_, Some(machine)) => machine.run(add),
        _ => Err(Failure::new(format!("{} has no namespace of its own", end.switch))),
    };
    result.map_err(|failure| failure.why(format!("the tunnel {} at {}", tunnel.name, end.switch)))
}

fn add_rules(datapath: &Datapath, topology: &Topology, switch: &Switch) -> Result<(), Failure> {
    let names = topology.port_names(&switch.name);
    let files = files::changes(topology, switch);
    let mut changes = files.map_err(|error| Failure::new(format!("{error:#}")))?.value;
    for rule in &switch.rules {
        let flow = parse_flow(&rule.flow, &names);
        let mut spec = flow.map_err(|error| Failure::new(format!("rule {}: {error}", rule.name)))?.value;
        spec.owner = Owner::file_line(&topology.source, rule.line);
        changes.push(FlowMod::add(spec).into());
    }
    datapath.apply_bundle(&switch.name, &changes).map(|_| ()).map_err(failed)
}

fn failed(error: ControlError) -> Failure {
    Failure::new(format!("the switch: {error}"))
}
