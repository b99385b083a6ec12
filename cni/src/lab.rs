//! Containers as nodes of a lab: a configuration that names a lab of `sluice lab` and one of its switches, made one that every
//! operation understands.
//!
//! A lab's switch is in a network namespace of its own, which nobody but its supervisor holds. So this process enters that
//! namespace, before it has other threads, and whatever it makes on "the host" from then on is in the lab: it goes with the
//! lab, if nobody says DEL before. What the container is to be in the lab is read from the lab's state file: where its switch
//! answers, which VLANs there are, and which addresses its own nodes have, which are never given to containers.
//!
//! A lab that does not run has nothing of a container: DEL and GC find nothing to take away.

use crate::error::{Code, Failure};
use crate::link;
use crate::process;
use crate::spec::{Command, Environment};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The key that names the lab, or the folder of its state where that is not the usual one.
const LAB: &str = "lab";
/// Where labs of root are.
pub const LABS: &str = "/run/sluice/labs";
/// The version of the state file, which `sluice lab` writes.
pub const FORMAT: u32 = 3;

/// The state file of a lab, as much as is of use here.
#[derive(Deserialize)]
struct State {
    format: u32,
    phase: String,
    rootless: bool,
    socket: PathBuf,
    supervisor: Supervisor,
    topology: Topology,
}

#[derive(Deserialize)]
struct Supervisor {
    pid: i32,
    start_ticks: u64,
    boot_id: String,
}

#[derive(Deserialize)]
struct Topology {
    hosts: Vec<Node>,
    routers: Vec<Node>,
    switches: Vec<Switch>,
    vlans: Vec<Vlan>,
    dhcp: Vec<Dhcp>,
}

/// A VLAN's server of DHCP.
#[derive(Deserialize)]
struct Dhcp {
    vlan: String,
    address: Option<IpNet>,
}

#[derive(Deserialize)]
struct Switch {
    name: String,
}

#[derive(Deserialize)]
struct Vlan {
    name: String,
    id: u16,
    subnet: Option<IpNet>,
    subnet6: Option<IpNet>,
    gateway: Option<String>,
}

/// A host or a router.
#[derive(Deserialize)]
struct Node {
    name: String,
    /// The switch that it is a part of, for a gateway.
    #[serde(default)]
    inside: Option<Inside>,
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Inside {
    switch: String,
}

#[derive(Deserialize)]
struct Interface {
    mtu: u32,
    addresses: Vec<IpNet>,
    vlan: Option<String>,
    /// Where a host's is plugged in.
    #[serde(default)]
    switch: String,
    /// The same of a router's, with the port's number behind it.
    #[serde(default)]
    peer: String,
    #[serde(default)]
    gateways: Vec<IpAddr>,
}

/// What a call becomes in a lab.
pub(crate) struct Call {
    /// The configuration, without a word of the lab.
    pub(crate) input: Vec<u8>,
    /// The environment; without a namespace that is the machine's.
    pub(crate) environment: Environment,
    /// The lab does not run.
    pub(crate) is_gone: bool,
}

/// What a configuration that names a lab comes to, with the calling thread in the lab's network namespace. None for one that
/// names none.
///
/// # Errors
/// [`Code::TryAgainLater`] and for STATUS [`Code::NotAvailable`] while the lab does not run, [`Code::InvalidConfig`] for what
/// the lab does not have, [`Code::Io`].
pub(crate) fn enter(input: &[u8], environment: &Environment) -> Result<Option<Call>, Failure> {
    // What is wrong with the configuration as such is told by who reads it.
    let Ok(Value::Object(mut config)) = serde_json::from_slice::<Value>(input) else { return Ok(None) };
    let Some(lab) = config.remove(LAB).filter(|lab| !lab.is_null()) else { return Ok(None) };
    let wrong = |key: &str, wanted: &str| Failure::new(Code::InvalidConfig, format!("{key}: wanted: {wanted}"));
    let lab = lab.as_str().filter(|lab| !lab.is_empty() && (lab.starts_with('/') || !lab.contains('/')));
    let lab = lab.ok_or_else(|| wrong(LAB, "the name of a lab, or the folder of its state"))?;
    let folder = Path::new(LABS).join(lab);
    let lab = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(switch) = config.remove("switch").and_then(|switch| switch.as_str().map(str::to_owned)) else {
        return Err(wrong("switch", "the name of one of the lab's switches"));
    };
    config.insert("bridge".to_owned(), switch.clone().into());
    config.insert("isGateway".to_owned(), false.into());
    config.insert("ipMasq".to_owned(), false.into());
    let wants_route = config.remove("isDefaultGateway") != Some(Value::Bool(false));
    let environment = apart_from_machine(environment)?;
    let Some(state) = State::read(&folder)? else {
        if !matches!(environment.command, Command::Del | Command::Gc) {
            let code = if environment.command == Command::Status { Code::NotAvailable } else { Code::TryAgainLater };
            let next = "bring it up with `sluice lab up`; `sluice lab ls` lists those that run";
            return Err(Failure::new(code, format!("the lab {lab} does not run")).details(next));
        }
        config.remove("vlan");
        config.insert("socket".to_owned(), folder.join("switch.sock").display().to_string().into());
        return Ok(Some(Call { input: Value::from(config).to_string().into(), environment, is_gone: true }));
    };
    if state.rootless {
        let next = "bring it up with `sudo sluice lab up`";
        let msg = format!("the lab {lab} runs without privilege, so containers cannot join it");
        return Err(Failure::new(Code::InvalidConfig, msg).details(next));
    }
    if matches!(environment.command, Command::Del | Command::Gc) {
        // Whoever leaves needs no place, and the place may not be there any more.
        config.remove("vlan");
    } else {
        state.topology.fill(&mut config, &switch, &lab, wants_route, &environment)?;
    }
    config.insert("socket".to_owned(), state.socket.display().to_string().into());
    config.entry("dataDir").or_insert_with(|| folder.join("cni").display().to_string().into());
    state.supervisor.enter(&lab)?;
    Ok(Some(Call { input: Value::from(config).to_string().into(), environment, is_gone: false }))
}

/// A container without a namespace of its own cannot join a lab. What it was called is nothing to clean up in the machine's.
fn apart_from_machine(environment: &Environment) -> Result<Environment, Failure> {
    let mut environment = environment.clone();
    let is_machine = environment.netns.as_deref().is_some_and(link::same_netns);
    if is_machine && environment.command != Command::Del {
        let msg = "the container has the machine's network, and only one with a network namespace can join a lab";
        return Err(Failure::new(Code::InvalidNetns, msg));
    }
    if is_machine {
        environment.netns = None;
    }
    Ok(environment)
}

impl State {
    /// The state of a lab that runs; `None` if it does not.
    fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = folder.join("state.json");
        let Ok(text) = std::fs::read(&path) else { return Ok(None) };
        let failed = |why: String| {
            let next = "bring the lab up again with the `sluice` that this plugin came with";
            Failure::new(Code::Io, format!("{}: {why}", path.display())).details(next)
        };
        let state: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if state.format != FORMAT {
            return Err(failed(format!("its format is {}, and this plugin reads {FORMAT}", state.format)));
        }
        Ok(Some(state).filter(|state| state.phase == "running" && state.supervisor.is_alive()))
    }
}

impl Supervisor {
    /// Whether it is still the process that has this number.
    fn is_alive(&self) -> bool {
        let is_it = process::stat(self.pid).is_ok_and(|stat| stat.lives && stat.ticks == self.start_ticks);
        is_it && process::boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// Has the calling thread enter the network namespace of the lab's switches.
    fn enter(&self, lab: &str) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(Code::Io, format!("cannot enter the lab {lab}: {why}"));
        let netns = File::open(format!("/proc/{}/ns/net", self.pid)).map_err(|error| failed(error.to_string()))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.desc().to_owned()))
    }
}

impl Interface {
    fn is_at(&self, switch: &str) -> bool {
        self.switch == switch || self.peer.split(':').next() == Some(switch)
    }
}

impl Topology {
    /// Puts into a configuration what the lab says of the container's place: its VLAN, addresses and MTU.
    fn fill(
        &self,
        config: &mut Map<String, Value>,
        switch: &str,
        lab: &str,
        wants_route: bool,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let unknown = |what: &str, name: &str, known: Vec<&str>| {
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("one of: {}", known.join(", ")) };
            Failure::new(Code::InvalidConfig, format!("the lab {lab} has no {what} named {name}")).details(known)
        };
        if !self.switches.iter().any(|known| known.name == switch) {
            return Err(unknown("switch", switch, self.switches.iter().map(|switch| switch.name.as_str()).collect()));
        }
        let vlan = match config.get("vlan") {
            Some(Value::String(name)) => {
                let found = self.vlans.iter().find(|vlan| vlan.name == *name);
                let known = || self.vlans.iter().map(|vlan| vlan.name.as_str()).collect();
                Some(found.ok_or_else(|| unknown("VLAN", name, known()))?)
            }
            Some(number) => self.vlans.iter().find(|vlan| Some(u64::from(vlan.id)) == number.as_u64()),
            None => None,
        };
        if let Some(vlan) = vlan {
            config.insert("vlan".to_owned(), vlan.id.into());
        }
        let mut neighbours: Vec<_> =
            self.interfaces().filter(|i| i.vlan.as_ref() == vlan.map(|vlan| &vlan.name)).collect();
        // Those at the same switch say most of what is there.
        neighbours.sort_by_key(|interface| !interface.is_at(switch));
        if let Some(mtu) = neighbours.iter().map(|interface| interface.mtu).min() {
            config.entry("mtu").or_insert_with(|| mtu.into());
        }
        if config.get("ipam").is_none_or(Value::is_null) {
            let ipam = self.ipam(vlan, &neighbours, wants_route, environment);
            config.insert(
                "ipam".to_owned(),
                ipam.ok_or_else(|| {
                    let msg = format!("the lab {lab} has no subnet there to give a container an address of");
                    Failure::new(Code::InvalidConfig, msg)
                        .details("say one: \"ipam\": {\"subnet\": ...}; {} is for none")
                })?,
            );
        }
        Ok(())
    }

    fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.hosts.iter().chain(&self.routers).flat_map(|node| &node.interfaces)
    }

    /// Addresses of the VLAN's subnets, or of the network that its nodes are in, but for those that the lab's nodes have, and the
    /// default routes that the lab's hosts have there.
    fn ipam(
        &self,
        vlan: Option<&Vlan>,
        neighbours: &[&Interface],
        wants_route: bool,
        environment: &Environment,
    ) -> Option<Value> {
        let said = vlan.into_iter().flat_map(|vlan| [vlan.subnet, vlan.subnet6]).flatten();
        let seen = neighbours.iter().flat_map(|interface| &interface.addresses).map(IpNet::trunc);
        let all: Vec<IpNet> = said.chain(seen).collect();
        let subnets = [true, false].map(|v4| all.iter().find(|net| net.addr().is_ipv4() == v4));
        if subnets == [None, None] {
            return None;
        }
        let served = self.dhcp.iter().filter_map(|server| server.address);
        let taken: BTreeSet<IpAddr> =
            self.interfaces().flat_map(|i| &i.addresses).copied().chain(served).map(|net| net.addr()).collect();
        let is_free = |v4| {
            let there = environment.netns.as_deref().map(|netns| link::has_default_route(netns, v4));
            !matches!(there, Some(Ok(true)))
        };
        let routes = subnets.into_iter().flatten().filter(|net| wants_route && is_free(net.addr().is_ipv4()));
        let routes = routes.filter_map(|net| {
            let gateway = self.gateway(vlan, neighbours, net)?;
            Some(json!({"dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway}))
        });
        let has_dhcp = vlan.is_some_and(|vlan| self.dhcp.iter().any(|server| server.vlan == vlan.name));
        Some(json!({
            "ranges": subnets.iter().flatten().map(|net| [range(net, has_dhcp)]).collect::<Vec<_>>(),
            "exclude": taken,
            "routes": routes.collect::<Vec<_>>(),
        }))
    }

    /// The gateway that hosts of a network have: as one of them says, or the address of the VLAN's gateway there.
    fn gateway(&self, vlan: Option<&Vlan>, neighbours: &[&Interface], net: &IpNet) -> Option<IpAddr> {
        let of_hosts =
            neighbours.iter().flat_map(|interface| &interface.gateways).find(|ip| net.contains(*ip)).copied();
        of_hosts.or_else(|| {
            let vlan = vlan?;
            let name = vlan.gateway.as_ref()?;
            let is_gateway = |router: &&Node| {
                router.name == *name || router.inside.as_ref().is_some_and(|inside| inside.switch == *name)
            };
            let interfaces = self.routers.iter().filter(is_gateway).flat_map(|router| &router.interfaces);
            let there = interfaces.filter(|interface| interface.vlan.as_ref() == Some(&vlan.name));
            there.flat_map(|interface| &interface.addresses).map(IpNet::addr).find(|ip| net.contains(ip))
        })
    }
}

/// The addresses of a network for containers. A server of DHCP gives whoever asks the lowest that are free, so containers begin
/// in the middle where there is one.
fn range(net: &IpNet, has_dhcp: bool) -> Value {
    match net {
        IpNet::V4(net) if has_dhcp && net.prefix_len() < 31 => {
            let half = 1_u32 << (31 - net.prefix_len());
            json!({"subnet": net, "rangeStart": Ipv4Addr::from(u32::from(net.network()) + half)})
        }
        net => json!({"subnet": net}),
    }
}

#[cfg(test)]
mod tests;
