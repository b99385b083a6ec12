//! Which gateways a switch has, and making them so.
//!
//! A gateway is wanted by a configuration, by networks of containers, or by both: then it has what all of them ask for. There
//! is one for each bridge and VLAN ([`Key`]). [`State`] knows what is asked for and what was made; what differs is done, and
//! only that: a bridge's flows are compared one by one, the host's side by [`plan`](super::plan).
//!
//! # Rules
//! - The link's addresses are distinct in the whole switch: the Nth gateway has the Nth pair of them, for what goes out and
//!   what comes in. A gateway keeps its pair as long as it is there, and so does a port of the host its port at the link.
//! - Gateways of one bridge share tables and zone.
//! - What was begun and failed is done again, or taken away, by the next change of anything.

mod compose;
mod connections;

use super::flush;
use super::gateway::{GatewayConfig, GatewayError, drift, host_side, of_flows};
use super::netlink::NetlinkError;
use super::{HostError, HostPort, apply as host, far};
use crate::port::{PortKind, PortSpec};
use crate::{ControlError, Datapath, PortRequest};
use compose::LinkPorts;
use ipnet::IpNet;
use sluice_flows::Match;
use sluice_flows::bridge::{TableMod, VlanId, VlanMode};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::gateway::{Gateway, flows_of};
use sluice_flows::rule::{FlowSpec, TableId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bridge and VLAN of a gateway.
pub(super) type Key = (String, Option<u16>);

/// What a network of containers asks of its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkGateway {
    /// The network.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// The host's addresses there.
    pub addresses: Vec<IpNet>,
    /// What is translated.
    pub masquerade: Vec<IpNet>,
    /// Destinations that are reached untranslated.
    pub except: Vec<IpNet>,
    /// MTU of the interface, in bytes.
    pub mtu: Option<u32>,
    /// Whether it reaches the gateway alone.
    pub internal: bool,
    /// Networks that the host reaches by the switch.
    pub routes: Vec<IpNet>,
    /// Networks that it reaches by other hosts, each with its next hop.
    pub hops: Vec<(IpNet, IpAddr)>,
    /// Whether flows of somebody else's decide what becomes of what the host sends here.
    pub steered: bool,
}

/// A port of the host that leads into a network of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPort {
    /// The network.
    pub network: String,
    /// Whose it is, in words.
    pub owner: String,
    /// The host's port.
    pub port: HostPort,
    /// The container that the gateway's flows lead to; none where flows of somebody else's decide.
    pub leads: Option<Leads>,
}

/// Where a port of the host leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leads {
    /// The container's address.
    pub to: IpAddr,
    /// The container's port.
    pub port: u16,
    /// The container's hardware address.
    pub mac: [u8; 6],
}

/// What a network's gateway is to whoever makes flows for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkLink {
    /// The bridge's port with the host behind it.
    pub(crate) port: String,
    /// The hardware address of the host's interface there.
    pub(crate) mac: [u8; 6],
    /// The switch's addresses on the link.
    pub(crate) addresses: Vec<IpAddr>,
    /// The addresses that the host sends to what is for its ports.
    pub(crate) incoming: Vec<IpAddr>,
    /// The ports of the host, and which port of the incoming address each arrives at.
    pub(crate) ports: Vec<(HostPort, u16)>,
}

/// The gateways of a switch.
#[derive(Debug, Default)]
pub(crate) struct Gateways(Mutex<State>);

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// What the configuration asks for, by bridge.
    file: BTreeMap<String, GatewayConfig>,
    networks: Vec<NetworkGateway>,
    ports: Vec<NetworkPort>,
    /// What there is.
    made: BTreeMap<Key, GatewayConfig>,
    /// What was begun, and is perhaps there in part.
    unsure: BTreeSet<Key>,
    /// The flows of each bridge.
    flows: BTreeMap<String, Vec<FlowSpec>>,
    /// Which pair of addresses each has.
    pairs: BTreeMap<Key, u16>,
    zones: BTreeMap<String, u16>,
    link_ports: LinkPorts,
    /// Routes by other hosts that cannot be now, and why.
    waiting: BTreeMap<Key, Vec<String>>,
    /// Whether what a switch before left on the host was looked for.
    tidied: bool,
}

impl Gateways {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What gateways there are, with their bridges, by bridge and VLAN; those that could not be made among them.
    pub(crate) fn all(&self) -> Vec<(String, GatewayConfig)> {
        self.lock().made.iter().map(|((bridge, _), config)| (bridge.clone(), config.clone())).collect()
    }

    /// Whether something cannot be now that may be later.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// What the gateway of a network is; none if the network has none.
    pub(crate) fn of_network(&self, name: &str) -> Option<NetworkLink> {
        self.lock().link(name)
    }

    /// Has a bridge's gateway be as a configuration asks for.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub(super) fn set_file(
        &self,
        datapath: &Datapath,
        bridge: &str,
        config: Option<&GatewayConfig>,
    ) -> Result<Vec<String>, GatewayError> {
        let mut state = self.lock();
        match config {
            Some(config) => state.file.insert(bridge.to_owned(), config.clone()),
            None => state.file.remove(bridge),
        };
        // Done in any case: a bridge may be another one of the same name.
        let key = (bridge.to_owned(), None);
        if config.is_some() || state.made.contains_key(&key) {
            state.unsure.insert(key);
        }
        state.realise(datapath, Some(bridge))
    }
}

/// Has the gateways be what these networks ask for, beside the configuration.
///
/// # Errors
/// [`GatewayError`]; the networks and ports that were asked for before are to be asked for again then.
pub fn apply_networks(
    datapath: &Datapath,
    networks: Vec<NetworkGateway>,
    ports: Vec<NetworkPort>,
) -> Result<Vec<String>, GatewayError> {
    let mut state = datapath.gateway_state().lock();
    (state.networks, state.ports) = (networks, ports);
    let waited: Vec<Key> = state.waiting.keys().cloned().collect();
    let mut done = state.realise(datapath, None)?;
    for key in waited {
        let Some(hops) = state.made.get(&key).map(|config| config.share.hops.clone()) else { continue };
        done.extend(state.far_routes(&key, &[], &hops, false)?);
    }
    done.extend(state.tidy(datapath)?);
    Ok(done)
}

/// What differs from what these networks ask for, in words.
pub fn check_networks(datapath: &Datapath, networks: Vec<NetworkGateway>, ports: Vec<NetworkPort>) -> Vec<String> {
    let mut state = datapath.gateway_state().lock().clone();
    let keys: BTreeSet<Key> = networks.iter().map(|network| (network.bridge.clone(), network.vlan)).collect();
    (state.networks, state.ports) = (networks, ports);
    let wanted = match state.wanted() {
        Ok(wanted) => wanted,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    for (key, config) in wanted.iter().filter(|(key, _)| keys.contains(key)) {
        if state.made.get(key) != Some(config) {
            problems.push(format!("the gateway {} of {} is not made as the networks ask for", config.link, key.0));
        }
        match drift(config) {
            Ok(steps) => problems.extend(steps.iter().map(|step| format!("gateway {}: missing: {step}", config.link))),
            Err(error) => problems.push(format!("gateway {}: {error}", config.link)),
        }
    }
    for bridge in keys.iter().map(|(bridge, _)| bridge).collect::<BTreeSet<_>>() {
        let (Some(flows), Ok(there)) = (state.flows.get(bridge), datapath.bridge(bridge)) else { continue };
        let lost = flows.iter().filter(|flow| !has_flow(&there.tables, flow)).count();
        if lost > 0 {
            problems
                .push(format!("{lost} flows of the gateways of {bridge} are missing or changed: restart the switch"));
        }
    }
    problems
}

fn has_flow(tables: &sluice_flows::table::Tables, flow: &FlowSpec) -> bool {
    let rule = tables.get_strict(flow.table, flow.priority, &flow.matches);
    rule.is_some_and(|rule| rule.spec.actions == flow.actions)
}

/// Where a flow stands: two with the same place are the same flow.
fn place(flow: &FlowSpec) -> (TableId, u16, &Match) {
    (flow.table, flow.priority, &flow.matches)
}

impl State {
    /// Does what differs, on one bridge or on all.
    fn realise(&mut self, datapath: &Datapath, only: Option<&str>) -> Result<Vec<String>, GatewayError> {
        let wanted = self.wanted()?;
        let concerned = |key: &&Key| only.is_none_or(|bridge| bridge == key.0);
        let differs = |key: &&Key| self.unsure.contains(*key) || self.made.get(*key) != wanted.get(*key);
        let known = self.made.keys().chain(&self.unsure).chain(wanted.keys());
        let keys: BTreeSet<Key> = known.filter(concerned).filter(differs).cloned().collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.made.clone();
        let sure: BTreeMap<_, _> = before.iter().filter(|(key, _)| !self.unsure.contains(*key)).collect();
        let bridges: BTreeSet<&String> = keys.iter().map(|(bridge, _)| bridge).collect();
        self.unsure.extend(keys.iter().cloned());
        let (mut done, mut failed) = (Vec::new(), None);
        for bridge in bridges {
            // One that cannot be made is not in the way of others.
            if let Err(error) = self.realise_bridge(datapath, bridge, &keys, &sure, &wanted, &mut done) {
                failed = failed.or(Some(error));
            }
        }
        connections::forget(datapath, &keys, &before, &wanted);
        let forwards = |all: &BTreeMap<Key, GatewayConfig>, key| all.get(key).is_some_and(|config| config.forward);
        if keys.iter().any(|key| forwards(&wanted, key) && !forwards(&before, key)) {
            tell_obstacles(&wanted);
        }
        failed.map_or(Ok(done), Err)
    }

    /// Does what differs on one bridge: what is not wanted any more goes first.
    fn realise_bridge(
        &mut self,
        datapath: &Datapath,
        bridge: &str,
        keys: &BTreeSet<Key>,
        sure: &BTreeMap<&Key, &GatewayConfig>,
        wanted: &BTreeMap<Key, GatewayConfig>,
        done: &mut Vec<String>,
    ) -> Result<(), GatewayError> {
        let mut failed = None;
        for key in keys.iter().filter(|key| key.0 == bridge && !wanted.contains_key(*key)) {
            match self.unmake(datapath, key) {
                Ok(steps) => done.extend(steps),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let new = || keys.iter().filter(|key| key.0 == bridge).filter_map(|key| Some((key, wanted.get(key)?)));
        let hops = |key: &Key| self.made.get(key).map(|config| config.share.hops.clone()).unwrap_or_default();
        let had: Vec<_> = new().map(|(key, _)| hops(key)).collect();
        // One that cannot be made is shown with its fault.
        self.made.extend(new().map(|(key, config)| (key.clone(), config.clone())));
        new().try_for_each(|(key, config)| make_port(datapath, key, config))?;
        self.add_flows(datapath, bridge, wanted)?;
        for ((key, config), had) in new().zip(had) {
            let side = host_side(config);
            // What leads by another host stands in the way of a route to the same place by the switch.
            let left = far::apply(&far::left(&had, &config.share.hops), &[]).map_err(HostError::from);
            // Where what was made is not there any more, all is looked at.
            let small = sure.get(key).and_then(|before| host::change(&host_side(before), &side)).and_then(Result::ok);
            let is_small = small.is_some();
            let steps = left.and_then(|left| {
                let steps = small.map_or_else(|| host::apply(&side), Ok)?;
                Ok([left.steps, steps].concat())
            });
            let steps = steps.map_err(|source| GatewayError::Host { bridge: bridge.to_owned(), source });
            match steps.and_then(|steps| Ok((steps, self.far_routes(key, &had, &config.share.hops, is_small)?))) {
                Ok((steps, far)) => {
                    done.extend(steps.into_iter().chain(far));
                    self.unsure.remove(key);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.take_flows(datapath, bridge, wanted)?;
        failed.map_or(Ok(()), Err)
    }

    /// Has the host have the routes by other hosts that a gateway's networks ask for. What cannot be now is told, and waits.
    /// `is_sure` says that what it had is there.
    fn far_routes(
        &mut self,
        key: &Key,
        had: &[far::Hop],
        wanted: &[far::Hop],
        is_sure: bool,
    ) -> Result<Vec<String>, GatewayError> {
        let old: BTreeSet<_> = had.iter().collect();
        let is_sure = is_sure && !self.waiting.contains_key(key);
        let wanted: Vec<_> = wanted.iter().filter(|hop| !is_sure || !old.contains(hop)).copied().collect();
        let failed = |source: NetlinkError| GatewayError::Host { bridge: key.0.clone(), source: source.into() };
        let done = far::apply(&[], &wanted).map_err(failed)?;
        let before = self.waiting.remove(key).unwrap_or_default();
        if let Some(first) = done.waits.iter().find(|why| !before.contains(why)) {
            tracing::warn!(routes = done.waits.len(), "routes of the host wait, and are tried again: {first}");
        }
        if !done.waits.is_empty() {
            self.waiting.insert(key.clone(), done.waits);
        }
        Ok(done.steps)
    }

    /// Takes a gateway away; what fails is left, and told.
    fn unmake(&mut self, datapath: &Datapath, key: &Key) -> Result<Vec<String>, GatewayError> {
        self.unsure.remove(key);
        self.waiting.remove(key);
        let Some(config) = self.made.remove(key) else { return Ok(Vec::new()) };
        let far = far::apply(&config.share.hops, &[]).map(|done| done.steps).map_err(HostError::from);
        let removed = far.and_then(|far| Ok([far, host::remove(&config.link)?].concat()));
        if key.1.is_some() {
            match datapath.remove_port(&key.0, &config.port) {
                Ok(()) | Err(ControlError::NoPort { .. } | ControlError::NoBridge { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        removed.map_err(|source| GatewayError::Host { bridge: key.0.clone(), source })
    }

    /// The gateways of a bridge as their flows need to know them.
    fn gateways_of(
        datapath: &Datapath,
        bridge: &str,
        wanted: &BTreeMap<Key, GatewayConfig>,
    ) -> Result<Vec<Gateway>, GatewayError> {
        let configs: Vec<_> = wanted.iter().filter(|((of, _), _)| of == bridge).map(|(_, config)| config).collect();
        if configs.is_empty() {
            return Ok(Vec::new());
        }
        let ports = datapath.ports(Some(bridge))?;
        let of = |config: &&GatewayConfig| {
            let port = ports.iter().find(|info| *info.port.name == config.port);
            let missing = || GatewayError::NoPort { bridge: bridge.to_owned(), port: config.port.clone() };
            Ok(of_flows(config, port.ok_or_else(missing)?.port.no))
        };
        configs.iter().map(of).collect()
    }

    /// Adds the flows that a bridge has not, so that what the host is told next is understood.
    fn add_flows(
        &mut self,
        datapath: &Datapath,
        bridge: &str,
        wanted: &BTreeMap<Key, GatewayConfig>,
    ) -> Result<(), GatewayError> {
        let gateways = Self::gateways_of(datapath, bridge, wanted)?;
        let flows = flows_of(&gateways);
        if flows.is_empty() {
            return Ok(());
        }
        let mut mods = Vec::new();
        if !self.flows.contains_key(bridge) {
            let owner = Some(OwnerFilter::Is(Gateway::owner()));
            mods.push(FlowMod::delete(FlowFilter { owner, ..FlowFilter::default() }).into());
        }
        let there = self.flows.entry(bridge.to_owned()).or_default();
        let known: HashMap<_, _> = there.iter().map(|flow| (place(flow), flow)).collect();
        let new: Vec<_> = flows.iter().filter(|flow| known.get(&place(flow)) != Some(flow)).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let names = gateways.iter().flat_map(Gateway::names).map(|name| (name.table, name)).collect::<HashMap<_, _>>();
        mods.extend(names.into_values().map(BridgeMod::from));
        mods.extend(new.iter().map(|flow| FlowMod::add(flow.clone()).into()));
        datapath.apply_bundle(bridge, &mods)?;
        let replaced: HashSet<_> = new.iter().map(place).collect();
        there.retain(|flow| !replaced.contains(&place(flow)));
        there.extend(new.iter().cloned());
        Ok(())
    }

    /// Takes away the flows that a bridge has and is not to have.
    fn take_flows(
        &mut self,
        datapath: &Datapath,
        bridge: &str,
        wanted: &BTreeMap<Key, GatewayConfig>,
    ) -> Result<(), GatewayError> {
        // A bridge that is gone has no flows.
        if datapath.bridge(bridge).is_err() {
            self.flows.remove(bridge);
            return Ok(());
        }
        let gateways = Self::gateways_of(datapath, bridge, wanted)?;
        let flows = flows_of(&gateways);
        let Some(there) = self.flows.get(bridge) else { return Ok(()) };
        let places: HashSet<_> = flows.iter().map(place).collect();
        let old = there.iter().filter(|flow| !places.contains(&place(flow)));
        let mut mods: Vec<BridgeMod> = old.map(|flow| FlowMod::delete(FlowFilter::strictly(flow)).into()).collect();
        if flows.is_empty() {
            let tables: BTreeSet<TableId> =
                there.iter().map(|flow| flow.table).filter(|table| *table != TableId::FIRST).collect();
            let unnamed = |table| TableMod { table: Some(table), name: Some("".into()), ..TableMod::default() };
            mods.extend(tables.into_iter().map(|table| BridgeMod::from(unnamed(table))));
        }
        if !mods.is_empty() {
            datapath.apply_bundle(bridge, &mods)?;
        }
        if flows.is_empty() {
            self.flows.remove(bridge);
        } else {
            self.flows.insert(bridge.to_owned(), flows);
        }
        Ok(())
    }
}

impl State {
    /// What is not about one gateway: what a killed switch left of gateways that nobody asks for any more, and firewalls that
    /// came later. What fails is told in the log: all that was asked for is there.
    fn tidy(&mut self, datapath: &Datapath) -> Result<Vec<String>, GatewayError> {
        let mut done = Vec::new();
        if !std::mem::replace(&mut self.tidied, true) {
            // An interface of ours that has no gateway may have had one when the switch was killed.
            let ours =
                datapath.ports(None)?.into_iter().filter(|info| matches!(info.kind, PortKind::Local | PortKind::Tap));
            let ours: Vec<String> = ours.map(|info| info.port.name.to_string()).collect();
            for link in host::left_behind(&ours) {
                if self.made.values().any(|config| config.link == link) {
                    continue;
                }
                match host::remove(&link) {
                    Ok(steps) => done.extend(steps),
                    Err(error) => {
                        tracing::warn!(%link, %error, "something of a gateway that is gone is left on the host")
                    }
                }
            }
        }
        let open: Vec<&str> =
            self.made.values().filter(|config| config.forward).map(|config| config.link.as_str()).collect();
        done.extend(host::accept_again(&open));
        Ok(done)
    }
}

/// Makes the port of a VLAN's gateway, if it is one.
fn make_port(datapath: &Datapath, (bridge, vlan): &Key, config: &GatewayConfig) -> Result<(), GatewayError> {
    let Some(vlan) = vlan else { return Ok(()) };
    let there = datapath.ports(Some(bridge))?.into_iter().find(|info| *info.port.name == config.port);
    let Some(id) = VlanId::new(*vlan) else {
        return Err(GatewayError::Conflict(format!("{vlan} is no VLAN: take 1 to 4094")));
    };
    let vlan = VlanMode::Access(id);
    if let Some(info) = there {
        if info.port.vlan == vlan {
            return Ok(());
        }
        let what = format!(
            "the gateway of VLAN {} needs a port {} of its own, and there is one of this name already: rename it",
            config.vlan.unwrap_or_default(),
            config.port
        );
        return Err(GatewayError::Conflict(what));
    }
    let spec = PortSpec::Tap { dev: None, attach: false, mac: Some(config.mac), mtu: config.mtu };
    let device = spec.open(&config.port, datapath.worker_stats().len()).map_err(ControlError::from)?;
    datapath.add_port(bridge, PortRequest { vlan, ..PortRequest::new(&config.port, device) })?;
    Ok(())
}

fn tell_obstacles(wanted: &BTreeMap<Key, GatewayConfig>) {
    for chain in host::forward_obstacles() {
        for ((bridge, _), config) in wanted.iter().filter(|(_, config)| config.forward) {
            tracing::warn!(
                %bridge,
                %chain,
                "another program's nftables chain drops what the host forwards unless it says otherwise; \
                 let it accept what comes in or goes out by {}",
                config.link
            );
        }
    }
}

/// Forgets connections of the host, if its tracking can be read at all.
fn forget(stale: impl Fn(&flush::Ends, &flush::Ends) -> bool) {
    match flush::flush(stale) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "connections of the host by ports that changed are forgotten"),
        Err(HostError::Netlink(error)) => {
            tracing::warn!(%error, "connections of the host by ports that changed may live on until they are idle");
        }
        Err(error) => tracing::warn!(%error, "connections of the host may live on"),
    }
}
