//! ADD: attaches a container, all of it or nothing.
//!
//! In this order: the configuration, the lock of the container, the switch's word that it is ready, addresses, the interface,
//! the switch's port. Each step knows its way back, and all of them are gone back when a later one fails, or when a
//! signal asks this process to end. Behind another plugin there are no addresses and no interface to make: the switch
//! puts itself in front of what that plugin made.

use super::undo::Undo;
use super::{Call, inline, link_failure, plan};
use crate::error::{Code, Failure};
use crate::ipam::Ipam;
use crate::link::{self, Made};
use crate::lock::{Lock, PATIENCE};
use crate::spec::{AddResult, Attachment, Config, Interface};
use crate::switch::{Ready, Switch, SwitchError, Waiter};
use plan::{Plan, mac_text};
use serde_json::Value;
use sluice_proto::v1;
use std::path::Path;

/// What ways back need.
struct Tools {
    waiter: Waiter,
    switch: Switch,
}

/// Attaches, and gives the result.
pub(super) fn run(call: Call<'_>) -> Result<Value, Failure> {
    let config = Config::read(call.input, call.environment)?;
    let version = config.base.version;
    let netns = call.netns()?;
    let attachment = config.base.attachment(call.environment);
    let _lock = Lock::take(&config.base.data_dir, &attachment.container_id, PATIENCE)?;
    let ipam = call.ipam()?;
    let netns = netns.to_owned();
    let mut waiter = call.waiter;
    let mut switch = Switch::connect(&mut waiter, &config.base.socket)?;
    let network = asked(&config, &mut switch, &mut waiter)?.ok_or_else(|| not_set_up(&config))?;
    let ready = switch.ready(&mut waiter, network.clone())?;
    refuse_unready(&ready)?;
    let declared = config.declared.then_some(network);
    let mut tools = Tools { waiter, switch };
    let mut undo = Undo::new();
    let made = match &config.prev_result {
        Some(prev) => behind_another(&config, prev, attachment, &netns, &mut tools, &mut undo),
        None => {
            let addressing = reserve(&ipam, &mut tools, &mut undo);
            addressing
                .and_then(|addressing| Plan::new(&config, attachment, &netns, ready.mtu, addressing, declared))
                .and_then(|plan| first(&plan, &mut tools, &mut undo))
        }
    };
    let made = made.and_then(|result| if tools.waiter.is_interrupted() { Err(interrupted()) } else { Ok(result) });
    match made {
        Ok(result) => Ok(result.to_json(version)),
        Err(failure) => Err(undo.all(&mut tools, failure)),
    }
}

fn refuse_unready(ready: &Ready) -> Result<(), Failure> {
    if ready.problems.is_empty() {
        return Ok(());
    }
    let msg = format!("the switch is not ready: {}", ready.problems.join("; "));
    Err(Failure::new(Code::TryAgainLater, msg))
}

fn interrupted() -> Failure {
    Failure::new(Code::Interrupted, "the operation was ended by a signal")
}

/// The network to ask the switch about: the one that somebody else has declared, or what the configuration says of it. None
/// when somebody else is to declare it and has not.
///
/// # Errors
/// The switch does not answer.
pub(super) fn asked(
    config: &Config,
    switch: &mut Switch,
    waiter: &mut Waiter,
) -> Result<Option<v1::NetworkSpec>, SwitchError> {
    if !config.declared {
        return Ok(Some(plan::bare_network(config)));
    }
    Ok(switch.network(waiter, &config.base.name)?.and_then(|network| network.spec))
}

/// Nobody has declared the network.
pub(super) fn not_set_up(config: &Config) -> Failure {
    let name = &config.base.name;
    let msg = format!("the node's controller has not set up the network yet; the switch has no network {name}");
    Failure::new(Code::TryAgainLater, msg).details("see that the node's controller runs and reaches the switch")
}

/// Has addresses reserved.
fn reserve<'a>(ipam: &'a Ipam, tools: &mut Tools, undo: &mut Undo<'a, Tools>) -> Result<AddResult, Failure> {
    let addressing = ipam.add()?;
    undo.push("the reservation of addresses", |_| Ok(ipam.del()?));
    if ipam.is_used() && addressing.ips.is_empty() {
        return Err(Failure::new(Code::Delegate, "address management gave no address"));
    }
    heed(tools)?;
    Ok(addressing)
}

/// Makes everything but addresses.
fn first(plan: &Plan<'_>, tools: &mut Tools, undo: &mut Undo<'_, Tools>) -> Result<AddResult, Failure> {
    let link = plan.link();
    let made = link::create(&link).map_err(link_failure)?;
    let gone = link.clone();
    undo.push("the interface", move |_| {
        let deleted = link::delete(&gone.host_name, &gone.alias, Some(&gone.netns), &gone.ifname);
        deleted.map(drop).map_err(link_failure)
    });
    heed(tools)?;

    let network = match &plan.declared {
        Some(_) => None,
        None if plan.covered() => Some(plan.network(None)),
        None => {
            let there = tools.switch.network(&mut tools.waiter, &plan.config.base.name)?;
            Some(plan.network(there.and_then(|n| n.spec).as_ref()))
        }
    };
    attach(tools, undo, &plan.attachment, network, plan.spec(plan.device()))?;
    link::settle(&link).map_err(link_failure)?;
    Ok(result(plan, &made))
}

/// Has the switch put itself in front of what another plugin made. What that said is passed on.
fn behind_another(
    config: &Config,
    prev: &AddResult,
    attachment: Attachment,
    netns: &Path,
    tools: &mut Tools,
    undo: &mut Undo<'_, Tools>,
) -> Result<AddResult, Failure> {
    let found = inline::find(config, prev, &attachment, netns)?;
    let spec = found.plan.spec(found.device());
    let network = (!config.declared).then(|| plan::bare_network(config));
    attach(tools, undo, &attachment, network, spec)?;
    Ok(AddResult { dns: plan::dns(config, &prev.dns), ..prev.clone() })
}

fn attach(
    tools: &mut Tools,
    undo: &mut Undo<'_, Tools>,
    attachment: &Attachment,
    network: Option<v1::NetworkSpec>,
    spec: v1::AttachmentSpec,
) -> Result<(), Failure> {
    let request = v1::AttachRequest { network, attachment: Some(spec) };
    let attached = tools.switch.attach(&mut tools.waiter, request);
    // An attachment that the switch refused because there is one is not ours to take away.
    if attached.as_ref().err().is_none_or(|e| e.is_unsure()) {
        let gone = attachment.clone();
        undo.push("the attachment", move |tools: &mut Tools| {
            Ok(tools.switch.detach(&mut tools.waiter, &gone).map(drop)?)
        });
    }
    Ok(attached.map(drop)?)
}

/// Fails when this process was asked to end.
fn heed(tools: &mut Tools) -> Result<(), Failure> {
    if tools.waiter.is_interrupted() { Err(interrupted()) } else { Ok(()) }
}

/// The bridge where it is an interface of the host, the host's end, the container's, and what that has.
fn result(plan: &Plan<'_>, made: &Made) -> AddResult {
    let mut interfaces = bridges(plan);
    interfaces.extend(made.host.as_ref().map(on_host));
    let index = interfaces.len();
    interfaces.push(Interface { sandbox: plan.netns.to_string_lossy().into_owned(), ..on_host(&made.container) });
    let mut result = plan.addressing.clone();
    for ip in &mut result.ips {
        ip.interface = Some(index);
    }
    AddResult { interfaces, ..result }
}

fn on_host(link: &link::Interface) -> Interface {
    Interface { name: link.name.clone(), mac: mac_text(link.mac), mtu: link.mtu, ..Interface::default() }
}

/// The interfaces of the host that are the bridge, and the gateway of its VLAN. That they are not there, or cannot be looked
/// at, is no failure: only the result is shorter.
fn bridges(plan: &Plan<'_>) -> Vec<Interface> {
    let network = plan.declared.clone().unwrap_or_else(|| plan.network(None));
    let mut names = vec![network.bridge.clone()];
    if network.vlan != 0 {
        names.push(format!("{}.{}", network.bridge, network.vlan));
    }
    let own = Path::new("/proc/thread-self/ns/net");
    let found = names.iter().filter_map(|name| link::interface(own, name).ok().flatten());
    found.map(|link| on_host(&link)).collect()
}
