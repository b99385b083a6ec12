//! Containers that have joined a running lab: `sluice lab attach`, `detach` and `cni`, and what the other verbs know of them.
//!
//! A container joins by `sluice-cni`, as its runtime calls it or as `attach` does itself. The lab's switch knows it then, and
//! nobody else: the state file says what came up with the lab. So verbs that show or use nodes ask the switch, and have a
//! container as a host from there on ([`join`]). A lab that goes down takes the links of its containers with it.

use super::state::State;
use super::topology::Topology;
use super::topology::resolved::{Carried, End, Host, Interface, Link, Mac};
use super::{Target, runtime::Runtime};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_cni::command::operate;
use sluice_cni::lab::LABS;
use sluice_cni::spec::{CniArgs, Command, Environment};
use sluice_proto::v1::port_vlan::Mode;
use sluice_proto::v1::{Attachment, ListAttachmentsRequest, ListPortsRequest};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;

/// Longest name of a node.
const NAME_MAX: usize = 20;
/// Characters of a longer ID that are its node's name, as runtimes show them.
const SHORT: usize = 12;

/// Arguments of `sluice lab attach`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab attach s1 --name web --pid $(docker inspect -f '{{.State.Pid}}' web)
  sluice lab attach s1 --name web --netns /run/netns/web --vlan blue
  sluice lab detach web

A container gets an address of the VLAN's subnet that no host of the lab has, and the hosts'
default route if it has none. It needs root, and a lab that root has brought up. Runtimes that
speak CNI do the same by themselves: `sluice lab cni s1`.")]
pub(crate) struct Attach {
    /// The switch
    switch: String,
    /// What the container is called in the lab
    #[arg(long)]
    name: String,
    /// A process of the container
    #[arg(long, required_unless_present = "netns", conflicts_with = "netns")]
    pid: Option<u32>,
    /// The container's network namespace
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The VLAN that it is in
    #[arg(long)]
    vlan: Option<String>,
    /// What its interface is called
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    interface: String,
    /// An address of its own choice; a free one if not given
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice lab detach`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice lab detach web")]
pub(crate) struct Detach {
    /// The container, as `sluice lab inspect` has it
    name: String,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice lab cni`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab cni s1 --vlan blue > /etc/cni/net.d/10-office.conflist
  nerdctl run --net office-s1 ...     containers are then nodes of the lab

Every container that a runtime starts with this configuration joins the switch s1, as long as
the lab runs; it may be taken down and brought up again.")]
pub(crate) struct Cni {
    /// The switch
    switch: String,
    /// The VLAN that containers are in
    #[arg(long)]
    vlan: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// What the plugin is told.
fn plugin(lab: &str, switch: &str, vlan: Option<&str>) -> Value {
    // The plugin knows where labs of root are.
    let folder = Runtime::of_user().lab(lab);
    let usual = folder == Path::new(LABS).join(lab);
    let lab = if usual { lab.to_owned() } else { folder.display().to_string() };
    let mut plugin = json!({"type": "sluice-cni", "lab": lab, "switch": switch});
    if let Some(vlan) = vlan {
        plugin["vlan"] = vlan.into();
    }
    plugin
}

fn network(lab: &str, switch: &str, vlan: Option<&str>) -> String {
    vlan.map_or_else(|| format!("{lab}-{switch}"), |vlan| format!("{lab}-{switch}-{vlan}"))
}

/// Makes sure that the lab has the switch and the VLAN, and that containers can join it.
fn check(state: &State, switch: &str, vlan: Option<&str>) -> Result<(), Failure> {
    let topology = &state.topology;
    let known = |what: &str, name: &str, all: Vec<&str>| {
        let failure = || Failure::usage(format!("the lab {} has no {what} named {name}", topology.name));
        if all.contains(&name) { Ok(()) } else { Err(failure().next(super::one_of(all))) }
    };
    known("switch", switch, topology.switches.iter().map(|switch| switch.name.as_str()).collect())?;
    if let Some(vlan) = vlan {
        known("VLAN", vlan, topology.vlans.iter().map(|vlan| vlan.name.as_str()).collect())?;
    }
    if state.rootless {
        return Err(Failure::new(format!(
            "the lab {} runs without privilege, so containers cannot join it",
            topology.name
        ))
        .why("a container's network namespace belongs to root, and so has the other end of its interface to")
        .next("sudo sluice lab up, and then containers as root")
        .exit(Exit::NoPrivilege));
    }
    Ok(())
}

/// Prints the configuration of a network of containers at a switch.
pub(crate) fn cni(args: &Cni, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let (lab, state) = super::running(args.target.lab.as_deref())?;
    let vlan = args.vlan.as_deref();
    check(&state, &args.switch, vlan)?;
    let mut plugin = plugin(&lab, &args.switch, vlan);
    plugin["capabilities"] = json!({"ips": true, "mac": true, "bandwidth": true});
    let list = json!({"cniVersion": "1.0.0", "name": network(&lab, &args.switch, vlan), "plugins": [plugin]});
    let text = serde_json::to_string_pretty(&list).map_err(|error| Failure::new(error.to_string()))?;
    out.line(text)?;
    Ok(Exit::Yes)
}

/// Attaches a container.
pub(crate) fn attach(args: &Attach, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let (lab, state) = super::joined(args.target.lab.as_deref())?;
    let vlan = args.vlan.as_deref();
    check(&state, &args.switch, vlan)?;
    if !super::topology::is_name(&args.name) {
        return Err(Failure::usage(format!("{:?} cannot be a node's name", args.name))
            .next("lower-case letters, digits and `-`"));
    }
    if state.topology.host(&args.name).is_some()
        || super::capture::subjects(&state.topology).iter().any(|(n, _)| *n == args.name)
    {
        return Err(Failure::usage(format!("the lab {lab} has a node or a link named {} already", args.name)));
    }
    let netns = match (&args.netns, args.pid) {
        (Some(path), _) => std::path::absolute(path)?,
        (None, pid) => PathBuf::from(format!("/proc/{}/ns/net", pid.unwrap_or_default())),
    };
    let mut config = plugin(&lab, &args.switch, vlan);
    config["cniVersion"] = "1.0.0".into();
    config["name"] = network(&lab, &args.switch, vlan).into();
    if let Some(ip) = args.ip {
        config["runtimeConfig"] = json!({"ips": [ip]});
    }
    let result = call(Command::Add, &config, &args.name, &args.interface, Some(netns))?;
    let ips = result.as_ref().and_then(|result| result["ips"].as_array()).into_iter().flatten();
    let addresses: Vec<_> = ips.filter_map(|ip| ip["address"].as_str()).collect();
    out.done(&json!({"attached": args.name, "switch": args.switch, "addresses": addresses}))
}

/// Takes a container out of a lab.
pub(crate) fn detach(args: &Detach, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let (lab, state) = super::running(args.target.lab.as_deref())?;
    let attachments = attachments(&Client::connect_to(state.socket)?)?;
    let names: Vec<_> = attachments.iter().map(name).collect();
    let found: Vec<_> = attachments.iter().zip(&names).filter(|(_, name)| **name == args.name).collect();
    if found.is_empty() {
        return Err(Failure::usage(format!("the lab {lab} has no container named {}", args.name))
            .next(super::one_of(names.iter().map(String::as_str))));
    }
    for (attachment, _) in found {
        let Some(spec) = &attachment.spec else { continue };
        let mut config = plugin(&lab, &attachment.bridge, None);
        config["cniVersion"] = "1.0.0".into();
        config["name"] = spec.network.as_str().into();
        let netns = Some(PathBuf::from(&spec.netns)).filter(|netns| netns.exists());
        call(Command::Del, &config, &spec.container_id, &spec.ifname, netns)?;
    }
    out.done(&json!({"detached": args.name}))
}

/// Has the plugin do something, on a thread of its own that ends in the lab's network namespace.
fn call(
    command: Command,
    config: &Value,
    container: &str,
    interface: &str,
    netns: Option<PathBuf>,
) -> Result<Option<Value>, Failure> {
    let environment = Environment {
        command,
        container_id: container.to_owned(),
        netns,
        ifname: interface.to_owned(),
        args: CniArgs::default(),
        path: Vec::new(),
        netns_override: false,
    };
    let input = config.to_string();
    let operated = thread::scope(|scope| scope.spawn(|| operate(&environment, input.as_bytes())).join());
    let operated = operated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    operated.map_err(|failure| {
        let told = Failure::new(failure.msg);
        if failure.details.is_empty() { told } else { told.why(failure.details) }
    })
}

/// The MTU of each port.
fn mtus(client: &Client) -> Result<HashMap<String, u32>, Failure> {
    let parts = client.collect(client.ports().list_ports(ListPortsRequest::default()))?;
    let ports = parts.into_iter().flat_map(|part| part.ports);
    Ok(ports.filter_map(|port| Some((port.spec?.name, port.mtu_bytes))).collect())
}

/// The containers that have joined a lab.
fn attachments(client: &Client) -> Result<Vec<Attachment>, Failure> {
    let parts = client.collect(client.attachments().list_attachments(ListAttachmentsRequest::default()))?;
    Ok(parts.into_iter().flat_map(|part| part.attachments).collect())
}

/// Where hosts of a VLAN, or those without one, send packets to other networks.
fn gateways(topology: &Topology, vlan: Option<&str>) -> Vec<IpAddr> {
    let hosts = topology.hosts.iter().flat_map(|host| &host.interfaces).filter(|host| host.vlan.as_deref() == vlan);
    let said = hosts.map(|host| &host.gateways).find(|gateways| !gateways.is_empty());
    said.cloned().unwrap_or_else(|| {
        let routers = topology.routers.iter().flat_map(|router| &router.interfaces);
        let there = routers.filter(|router| vlan.is_some() && router.vlan.as_deref() == vlan);
        there.flat_map(|router| &router.addresses).map(IpNet::addr).collect()
    })
}

/// What a container is called in the lab: its ID, or the beginning of it.
fn name(attachment: &Attachment) -> String {
    let id = attachment.spec.as_ref().map(|spec| spec.container_id.as_str()).unwrap_or_default();
    if id.len() <= NAME_MAX { id.to_owned() } else { id.chars().take(SHORT).collect() }
}

/// Has the containers that have joined a lab be hosts of its topology, each with the link that it is there by.
///
/// # Errors
/// The switch does not answer.
pub(crate) fn join(state: &mut State) -> Result<(), Failure> {
    // The threads that ask the switch would keep this process from entering a user namespace.
    if state.rootless {
        return Ok(());
    }
    let client = Client::connect_to(state.socket.clone())?;
    let attachments = attachments(&client)?;
    let mtus = if attachments.is_empty() { HashMap::new() } else { mtus(&client)? };
    for attachment in attachments {
        let name = name(&attachment);
        let Some(spec) = attachment.spec else { continue };
        let mac = Mac::parse(&spec.mac).unwrap_or(Mac([0; 6]));
        let tag = spec.vlan.as_ref().filter(|vlan| vlan.mode() == Mode::Access).map(|vlan| vlan.tag);
        let topology = &mut state.topology;
        let vlan = tag.and_then(|tag| topology.vlans.iter().find(|vlan| u32::from(vlan.id) == tag));
        let vlan = vlan.map(|vlan| vlan.name.clone());
        let number = u16::try_from(attachment.number).unwrap_or_default();
        let interface = Interface {
            name: spec.ifname.clone(),
            mac,
            mtu: mtus.get(&spec.port).copied().unwrap_or_default(),
            addresses: spec.addresses.iter().filter_map(|net| net.parse().ok()).collect(),
            switch: attachment.bridge.clone(),
            port: number,
            vlan: vlan.clone(),
            gateways: gateways(topology, vlan.as_deref()),
            dhcp: false,
        };
        let mtu = interface.mtu;
        match topology.hosts.iter_mut().find(|host| host.name == name) {
            Some(host) => host.interfaces.push(interface),
            None => topology.hosts.push(Host {
                name: name.clone(),
                env: Default::default(),
                run: None,
                interfaces: vec![interface],
            }),
        }
        let near = End::Host { host: name.clone(), interface: spec.ifname };
        topology.links.push(Link {
            name: format!("{name}-{}", attachment.bridge),
            mtu,
            ends: [near, End::Switch { switch: attachment.bridge, port: number }],
            carried: vlan.map_or(Carried::All, Carried::Access),
            impairment: Default::default(),
            down: false,
            wire: false,
            attached: Some(spec.port),
            underlay: None,
        });
        state.containers.insert(name, PathBuf::from(spec.netns));
    }
    Ok(())
}
