//! The loop: it looks at what is listed and at the switch, and has the switch be as both say.
//!
//! A pass goes from what changes seldom to what changes often: the node, its network and tunnel, peers, Services, Pods. Each step is
//! done only when something that it depends on has been touched, and what could not be done is done by the next pass. Nothing of
//! the switch is touched before the lists (or their copy) are there: what an earlier start left is in force until then.

use super::conflist::{self, NETWORK};
use super::host::HostAddress;
use super::policies::{self, Policies};
use super::services::Services;
use super::view::{Host, View};
use super::{Fault, connections, network, pods};
use crate::config::Config;
use crate::facts::{self, HostPort, Way};
use crate::flow::{Object, Part};
use crate::http::Health;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::program::{Event, Events, Program, Switch, SwitchError, Unsettled};
use crate::services::Here;
use crate::services::health::{HealthChecks, ProxyHealth};
use crate::services::stale::stale_host_ports;
use crate::watch::link::Link;
use crate::watch::{Kind, Store};
use sluice_proto::v1::{Attachment, Network, NetworkSpec, PortMapping};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

/// The name of the tunnel's port.
const TUNNEL: &str = "tunnel0";
/// How often the host is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often network and tunnel are said again though nothing has changed, so that what others undo comes back.
const SAY_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// The first and the longest pause before a pass that failed is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What has to be looked at.
#[derive(Debug, Default)]
struct Todo {
    /// Services, by name.
    services: BTreeSet<String>,
    /// Everything that is made from the node: all parts.
    all: bool,
    /// Network and tunnel have to be said again.
    network: bool,
    /// Tables have to be named.
    tables: bool,
    /// Attachments have to be listed.
    attachments: bool,
    /// Something was changed since all was last in force.
    settle: bool,
}

/// What the switch has made of the network.
#[derive(Debug, Default)]
struct Made {
    spec: NetworkSpec,
    network: Network,
    tunnel: Option<(BTreeMap<String, String>, u32)>,
}

/// The loop and all it knows.
pub(super) struct Reconciler {
    config: Config,
    name: String,
    store: Arc<Store>,
    link: Link,
    program: Program,
    switch: Switch,
    checks: HealthChecks,
    health: ProxyHealth,
    parts: Health,
    metrics: Arc<Metrics>,
    /// Since when something is not in force that this node has learned of.
    since: Option<Instant>,
    host: Host,
    view: Option<View>,
    node: facts::Node,
    here: Here,
    made: Made,
    services: Services,
    policies: Policies,
    /// The host ports of each Pod, by its port.
    pods: BTreeMap<u32, Vec<HostPort>>,
    attachments: Vec<Attachment>,
    todo: Todo,
    is_ready: bool,
    /// Whether the connections of an earlier start have been looked at.
    is_swept: bool,
    conflist: String,
    /// Networks of others that come before ours.
    others: Vec<String>,
    started: Instant,
    /// When the network was said last.
    said: Instant,
    fault: Option<String>,
}

impl Reconciler {
    pub(super) fn new(
        config: Config,
        name: String,
        (store, policies, link): (Arc<Store>, Policies, Link),
        (program, switch): (Program, Switch),
        (checks, health): (HealthChecks, ProxyHealth),
        (parts, metrics): (Health, Arc<Metrics>),
    ) -> Self {
        Self {
            config,
            name,
            store,
            link,
            program,
            switch,
            checks,
            health,
            parts,
            metrics,
            since: None,
            host: Host::default(),
            view: None,
            node: facts::Node::default(),
            here: Here::default(),
            made: Made::default(),
            services: Services::default(),
            policies,
            pods: BTreeMap::new(),
            attachments: Vec::new(),
            todo: Todo { all: true, network: true, attachments: true, settle: true, ..Todo::default() },
            is_ready: false,
            is_swept: false,
            conflist: String::new(),
            others: Vec::new(),
            started: Instant::now(),
            said: Instant::now(),
            fault: None,
        }
    }

    /// Goes on without an end. The lists, or their copy, are in the store when this is called.
    pub(super) async fn run(mut self, mut events: Events) {
        let (store, sources) = (Arc::clone(&self.store), self.policies.sources());
        self.look();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_connected = false;
        let mut pause = PAUSE.0;
        loop {
            tokio::select! {
                () = store.touched.wait() => {}
                () = sources.changed() => {
                    self.since.get_or_insert_with(Instant::now);
                }
                _ = ticks.tick() => self.look(),
                () = sleep(pause), if self.fault.is_some() => pause = (pause * 2).min(PAUSE.1),
                event = events.next() => {
                    debug!("the switch: {event:?}");
                    match event {
                        Event::Connected { .. } => {
                            (is_connected, pause) = (true, PAUSE.0);
                            self.todo.network = true;
                            self.todo.tables = true;
                            self.todo.attachments = true;
                            self.todo.settle = true;
                        }
                        Event::AttachmentsChanged => self.todo.attachments = true,
                        Event::Lost => is_connected = false,
                    }
                }
            }
            self.parts.beat();
            self.gather();
            if !is_connected {
                continue;
            }
            match self.pass().await {
                Ok(()) => {
                    pause = PAUSE.0;
                    self.parts.set("node", Ok(()));
                    if self.fault.take().is_some() {
                        info!("everything is in force");
                    }
                }
                Err(fault) => {
                    let text = fault.to_string();
                    self.parts.set("node", Err(text.clone()));
                    if self.fault.as_ref() != Some(&text) {
                        warn!("{text}");
                    }
                    self.fault = Some(text);
                }
            }
        }
    }

    /// Looks at the host.
    fn look(&mut self) {
        match Host::look(&self.config.bridge) {
            Ok(host) => {
                let is_gone = |there: &HostAddress| !host.addresses.contains(there);
                if self.host.addresses.iter().any(is_gone) {
                    self.link.renew();
                }
                self.host = host;
            }
            Err(error) => warn!("cannot list the addresses of the host: {error}"),
        }
        if self.said.elapsed() >= SAY_AGAIN_EVERY {
            self.todo.network = true;
        }
    }

    /// Takes what was touched. Nodes are all looked at in each pass.
    fn gather(&mut self) {
        for (kind, name) in self.store.touched.take() {
            self.since.get_or_insert_with(Instant::now);
            if kind == Kind::Service {
                self.todo.services.insert(name);
            }
        }
    }

    async fn pass(&mut self) -> Result<(), Fault> {
        let view = View::find(&self.name, &self.store, &self.host, &self.config).map_err(Fault::Waiting)?;
        if !self.policies.gather() {
            return Err(Fault::Waiting("the cluster's policies are not listed yet".to_owned()));
        }
        let before = self.view.replace(view.clone());
        let mut changes = Vec::new();
        self.publish(&view, before.as_ref());
        self.network(&view).await?;
        self.name_tables().await?;
        let tunnel = self.tunnel(&view).await?;
        self.refresh(&view, tunnel);
        self.peers(&view, before.as_ref(), &mut changes);
        if self.todo.all {
            changes.push((Object::Base, Some(pipeline::base(&self.node))));
            let names: Vec<_> = self.services.names().cloned().collect();
            self.todo.services.extend(names);
            self.todo.services.extend(self.store.service_names());
        }
        let names = std::mem::take(&mut self.todo.services);
        changes.extend(self.services.update(&names, &self.store, &self.node, &self.here));
        self.checks.set(self.services.checks().cloned());
        self.health.set_eligible(view.is_eligible);
        self.todo.settle |= !changes.is_empty();
        self.program.change(changes);
        self.policies.on(&self.node);
        let mut changes = self.pods().await?;
        // With what they are about, so that no Pod is there without them.
        changes.extend(self.policies.changes());
        self.todo.settle |= !changes.is_empty();
        self.program.change(changes);
        self.todo.all = false;
        if !std::mem::replace(&mut self.is_ready, true) {
            self.program.ready();
        }
        self.settle(&view).await
    }

    /// What Services publish depends on the addresses of nodes.
    fn publish(&mut self, view: &View, before: Option<&View>) {
        let here = view.here(&self.name);
        if before.is_none_or(|before| before.here(&self.name) != here) {
            self.todo.services.extend(self.store.service_names());
        }
        (self.here.node, self.here.zone) = (here.node, here.zone);
        (self.here.addresses, self.here.other_nodes) = (here.addresses, here.other_nodes);
        self.here.node_port_addresses = here.node_port_addresses;
        self.services.publish(&self.todo.services, &self.store, &self.here);
    }

    /// Declares the network if it is not as it should be.
    async fn network(&mut self, view: &View) -> Result<(), Fault> {
        let published = self.services.published();
        let spec = network::spec(&self.config, &view.pod_cidrs, view.mtu, &view.routes, &published);
        if self.todo.network || spec != self.made.spec {
            self.made.network =
                self.switch.put_network(spec.clone()).await.map_err(|e| Fault::Network(e.to_string()))?;
            self.made.spec = spec;
            self.said = Instant::now();
        }
        Ok(())
    }

    /// Has the tables of the pipeline have the names of their stages, once for each start of the switch. Names are for people:
    /// without them everything works.
    async fn name_tables(&mut self) -> Result<(), Fault> {
        if self.todo.tables {
            let names: Vec<_> = pipeline::table_names().collect();
            match self.switch.name_tables(&self.config.bridge, &names).await {
                Err(SwitchError::Refused { why, .. }) => warn!("tables stay without names: {why}"),
                other => other?,
            }
            self.todo.tables = false;
        }
        Ok(())
    }

    /// Makes the tunnel, or takes it away; its number.
    async fn tunnel(&mut self, view: &View) -> Result<Option<u32>, Fault> {
        let (config, bridge) = (&self.config, &self.config.bridge);
        if !view.has_tunnel(config) {
            if self.todo.network {
                self.switch.remove_tunnel(bridge, TUNNEL).await?;
                self.todo.network = false;
            }
            self.made.tunnel = None;
            return Ok(None);
        }
        let options = tunnel_options(config, view.transport.address);
        if let Some((made, number)) = &self.made.tunnel
            && !self.todo.network
            && *made == options
        {
            return Ok(Some(*number));
        }
        let kind = config.tunnel.to_string();
        let number = self.switch.ensure_tunnel(bridge, TUNNEL, &kind, &options).await;
        let number = number.map_err(|error| Fault::Tunnel(error.to_string()))?;
        self.made.tunnel = Some((options, number));
        self.todo.network = false;
        Ok(Some(number))
    }

    /// The facts of the node and what Services need of them; all parts are made again if they differ.
    fn refresh(&mut self, view: &View, tunnel: Option<u32>) {
        let made = &self.made.network;
        let gateways = view.pod_cidrs.iter().filter_map(super::transport::gateway);
        let node = facts::Node {
            name: self.name.clone(),
            pod_cidrs: view.pod_cidrs.clone(),
            gateways: gateways.map(|gateway| gateway.addr()).collect(),
            addresses: view.addresses.clone(),
            known: view.known.clone(),
            gateway_mac: network::mac(&made.gateway_mac).unwrap_or_default(),
            link: network::addresses(&made.link),
            incoming: network::addresses(&made.incoming),
            tunnel,
            service_cidrs: view.service_cidrs.clone(),
            masquerade: !self.config.no_snat,
            masquerade_except: self.config.masquerade_except.clone(),
        };
        let ports = network::incoming_ports(made);
        if node != self.node || self.here.incoming != node.incoming || self.here.incoming_ports != ports {
            self.here.incoming.clone_from(&node.incoming);
            self.here.incoming_ports = ports;
            self.node = node;
            self.todo.all = true;
            // Pods' parts are made from the node too.
            self.todo.attachments = true;
        }
    }

    /// Peers that differ, or all.
    fn peers(&self, view: &View, before: Option<&View>, changes: &mut Vec<(Object, Option<Part>)>) {
        let empty = BTreeMap::new();
        let before = before.map_or(&empty, |before| &before.peers);
        let gone = before.keys().filter(|name| !view.peers.contains_key(*name));
        changes.extend(gone.map(|name| (Object::Peer(name.clone()), None)));
        for (name, peer) in &view.peers {
            if self.todo.all || before.get(name) != Some(peer) {
                changes.push((Object::Peer(name.clone()), Some(pipeline::peer(&self.node, peer))));
            }
        }
    }

    /// Lists attachments; the part of each, and those that go.
    async fn pods(&mut self) -> Result<Vec<(Object, Option<Part>)>, Fault> {
        // One that has been seen meanwhile is not held back any more.
        let policies = &self.policies;
        let is_late = |one: &&Attachment| {
            one.number != 0
                && !self.pods.contains_key(&one.number)
                && pods::may_be_reached(one, |pod| policies.knows(pod))
        };
        if !self.todo.attachments && !pods::newest(&self.attachments).iter().any(is_late) {
            return Ok(Vec::new());
        }
        let attachments = self.switch.attachments(NETWORK).await?;
        if host_ports(&attachments) != host_ports(&self.attachments) {
            // Where host ports arrive is in the answer.
            self.made.network = self.switch.put_network(self.made.spec.clone()).await?;
        }
        let newest = pods::newest(&attachments);
        let pod = |one| pods::pod(one, &self.made.network);
        let local = newest.iter().copied().filter_map(pod).map(|pod| pods::local(&pod)).collect();
        self.policies.set_pods(local, &newest.iter().copied().map(pods::identity).collect());
        let reached = newest.into_iter().filter(|one| pods::may_be_reached(one, |pod| self.policies.knows(pod)));
        let before = self.attachments.iter().filter(|one| self.pods.contains_key(&one.number));
        let before: BTreeSet<_> = before.map(|one| (one.number, one.created_unix_s)).collect();
        let is_new = |one: &Attachment| pods::is_new(one) && !before.contains(&(one.number, one.created_unix_s));
        let reached: Vec<_> = reached.filter_map(|one| Some((is_new(one), pod(one)?))).collect();
        // What was open with whoever had a new Pod's addresses before is not this Pod's.
        let new = reached.iter().filter(|(is_new, _)| *is_new);
        for address in new.flat_map(|(_, pod)| &pod.addresses) {
            for filter in pods::connections(*address) {
                self.switch.flush_connections(&filter).await?;
            }
        }
        let pods: Vec<_> = reached.into_iter().map(|(_, pod)| pod).collect();
        let there: BTreeMap<u32, Vec<HostPort>> = pods.iter().map(|pod| (pod.port, pod.host_ports.clone())).collect();
        let gone = self.pods.keys().filter(|port| !there.contains_key(port)).map(|port| (Object::Pod(*port), None));
        let put = pods.iter().map(|pod| (Object::Pod(pod.port), Some(pipeline::pod(&self.node, pod))));
        let changes = gone.chain(put).collect();
        let all = |pods: &BTreeMap<u32, Vec<HostPort>>| pods.values().flatten().cloned().collect::<Vec<_>>();
        self.services.stale.extend(stale_host_ports(&all(&self.pods), &all(&there)));
        self.pods = there;
        self.attachments = attachments;
        self.todo.attachments = false;
        self.todo.settle = true;
        Ok(changes)
    }

    /// Waits until all is in force, and does what has to come after that.
    async fn settle(&mut self, view: &View) -> Result<(), Fault> {
        let refused = if self.todo.settle {
            match self.program.settled().await {
                Ok(()) => Vec::new(),
                Err(Unsettled::Refused { refused }) => refused,
                Err(error) => return Err(Fault::Unsettled(error.to_string())),
            }
        } else {
            Vec::new()
        };
        self.confirm(&refused).await?;
        self.forget().await?;
        self.judge().await?;
        self.policies.keep();
        self.policies.realised();
        self.health.in_step();
        self.tell(view);
        self.announce(view);
        if self.todo.settle {
            debug!(
                peers = view.peers.len(),
                services = self.services.len(),
                policies = self.policies.len(),
                pods = self.pods.len(),
                "everything is in force"
            );
        }
        self.todo.settle = false;
        match refused.first() {
            None => Ok(()),
            Some((object, why)) => Err(Fault::Refused(format!("{object:?}"), why.clone())),
        }
    }

    /// Tells what is in force, for metrics.
    fn tell(&mut self, view: &View) {
        if let Some(since) = self.since.take() {
            self.metrics.synced(since.elapsed());
        }
        let ways = |peer: &facts::Peer| {
            let name = peer.name.clone();
            let ends = peer.pod_cidrs.clone().into_iter().filter_map(|(_, way)| match way {
                Way::Tunnel(end) => Some(end),
                Way::Host => None,
            });
            ends.map(move |end| (end, name.clone())).collect::<Vec<_>>()
        };
        let names = view.peers.values().flat_map(ways).collect();
        let counts = self.services.counts();
        self.metrics.know(|known| {
            (known.names, known.peers, known.services) = (names, view.peers.len(), self.services.len());
            (known.endpoints, known.local_endpoints, known.ports_without_endpoints) = counts;
        });
    }

    /// Confirms the attachments whose parts are in force.
    async fn confirm(&mut self, refused: &[(Object, String)]) -> Result<(), Fault> {
        let is_refused = |number: u32| {
            refused.iter().any(|(object, _)| matches!(object, Object::Base) || *object == Object::Pod(number))
        };
        let waiting = self.attachments.iter().filter(|one| one.unconfirmed && self.pods.contains_key(&one.number));
        let ready = waiting.filter(|one| !is_refused(one.number) && self.policies.knows(&pods::identity(one)));
        let numbers: BTreeSet<u32> = ready.clone().map(|one| one.number).collect();
        let keys: Vec<_> = ready.map(pods::key).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let result = self.switch.confirm(keys).await;
        // One that has gone meanwhile is told by an event, and the others are confirmed.
        if let Err(error) = result
            && !matches!(&error, SwitchError::Refused { code, .. } if *code == tonic::Code::NotFound)
        {
            self.todo.attachments = true;
            return Err(error.into());
        }
        for one in &mut self.attachments {
            one.unconfirmed &= !numbers.contains(&one.number);
        }
        Ok(())
    }

    /// Ends connections that policies deny by now.
    async fn judge(&mut self) -> Result<(), Fault> {
        if !self.policies.is_unjudged() {
            return Ok(());
        }
        let connections = self.switch.connections(&policies::filter()).await?;
        let labels = self.policies.judge(&self.node, &connections);
        if !labels.is_empty()
            && let Err(error) = self.switch.label_connections(labels).await
        {
            self.policies.judge_again();
            return Err(error.into());
        }
        Ok(())
    }

    /// Ends connections to what is gone, and learned flows.
    async fn forget(&mut self) -> Result<(), Fault> {
        // Only lists tell what is gone: a copy may be older than what an earlier start knew.
        if !self.is_swept && self.store.is_complete() {
            self.services.kept(connections::kept(&self.switch).await?);
            self.is_swept = true;
        }
        while let Some(stale) = self.services.stale.first() {
            self.switch.flush_connections(&stale.filter()).await?;
            self.services.stale.pop_first();
        }
        while let Some(matching) = self.services.unlearned.first() {
            self.switch.delete_learned(&self.config.bridge, matching).await?;
            self.services.unlearned.pop_first();
        }
        Ok(())
    }

    /// Has the container runtime know of the network.
    fn announce(&mut self, view: &View) {
        let text = conflist::text(&self.config, &view.pod_cidrs, view.mtu);
        let folder = &self.config.cni_conf_dir;
        match conflist::write(folder, &text) {
            Ok(true) if self.conflist == text => {
                warn!("{} was changed by somebody else, and is as it was again", folder.join(conflist::NAME).display());
            }
            Ok(true) => {
                let after = self.started.elapsed().as_millis();
                info!(
                    "{} is written, {after} ms after the start: Pods may come",
                    folder.join(conflist::NAME).display()
                );
            }
            Ok(false) => {}
            Err(error) => {
                warn!("cannot write {}: {error}; the node stays NotReady", folder.join(conflist::NAME).display())
            }
        }
        self.conflist = text;
        self.tell_of_others();
    }

    /// Says whether the container runtime takes another network than ours.
    fn tell_of_others(&mut self) {
        let folder = &self.config.cni_conf_dir;
        let others = conflist::before_ours(folder);
        let state = if others.is_empty() {
            Ok(())
        } else {
            let files: Vec<_> = others.iter().map(|name| folder.join(name).display().to_string()).collect();
            Err(format!(
                "{} comes before {}: the container runtime takes that network for Pods; remove it, and delete the Pods that \
                 have started meanwhile",
                files.join(", "),
                conflist::NAME
            ))
        };
        if others != std::mem::replace(&mut self.others, others.clone()) {
            match &state {
                Ok(()) => info!("no other network comes before {} any more", conflist::NAME),
                Err(text) => warn!("{text}"),
            }
        }
        self.parts.set("cni", state);
    }
}

/// What the tunnel's port is asked for, in the switch's own words, which leave out what a kind has anyway: a port in other words would
/// be taken for another one by the next start, and replaced.
fn tunnel_options(config: &Config, own: IpAddr) -> BTreeMap<String, String> {
    let port =
        (config.tunnel_port != config.tunnel.default_port()).then(|| ("dst_port", config.tunnel_port.to_string()));
    let always = [("remote_ip", "flow".to_owned()), ("key", "flow".to_owned()), ("local_ip", own.to_string())];
    always.into_iter().chain(port).map(|(option, value)| (option.to_owned(), value)).collect()
}

/// The host ports of attachments.
fn host_ports(attachments: &[Attachment]) -> Vec<(String, Vec<PortMapping>)> {
    let specs = attachments.iter().filter_map(|one| one.spec.as_ref());
    let with = specs.filter(|spec| !spec.port_mappings.is_empty());
    with.map(|spec| (format!("{}/{}", spec.container_id, spec.ifname), spec.port_mappings.clone())).collect()
}
