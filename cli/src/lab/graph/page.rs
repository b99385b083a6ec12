//! `sluice lab graph --serve`: a running lab as a page for a browser.

use super::{Drawing, Graph, Join, title};
use crate::client::Client;
use crate::cmd::trace;
use crate::failure::Failure;
use crate::lab::link::{carry, change, ports_of};
use crate::lab::topology::Topology;
use crate::lab::topology::resolved::uplink::Uplink;
use crate::lab::{self, State};
use crate::output::{Exit, Output};
use serde_json::json;
use sluice_flows::Owner;
use sluice_proto::v1::Port;
use sluice_switch::api::page::{self, Change, Edge, Node, Page, PageError, RuleName, Scene, Traced};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a page is served if nothing else is said.
pub(super) const ADDRESS: &str = "127.0.0.1:8484";

/// Serves the page until Ctrl-C.
pub(super) fn run(args: &Graph, address: SocketAddr, out: &mut Output) -> Result<Exit, Failure> {
    let (name, state) = lab::running(args.name.as_deref().or(args.target.lab.as_deref()))?;
    let listener = page::bind(address, args.ui_remote).map_err(failed)?;
    let url = format!("http://{}/", listener.local_addr()?);
    match out.format(&super::FORMATS)? {
        crate::output::Format::Json => out.json(&json!({"url": url}))?,
        _ => out.line(format!("the lab {name} is on {url} until Ctrl-C"))?,
    }
    out.flush()?;
    let system = |error| Failure::new(format!("cannot serve the page: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let page = Page { scene: Arc::new(Lab(name)), socket: state.socket, writes: args.ui_write };
    let interrupted = async {
        // Without signals there is only the other way to end a process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    runtime.block_on(page::serve(listener, page, interrupted)).map_err(failed)?;
    Ok(Exit::Yes)
}

fn failed(error: PageError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        PageError::NotLoopback(address) => failure
            .exit(Exit::Usage)
            .why("whoever reaches the page sees the lab's traffic")
            .next(format!("--ui-remote if that is meant; or --serve 127.0.0.1:{}", address.port())),
        PageError::Listen(..) => failure.next("another address: --serve 127.0.0.1:0 takes any port"),
        PageError::Socket(_) | PageError::System(_) => failure,
    }
}

/// The lab of this name, as it is when it is asked.
struct Lab(String);

impl Lab {
    fn state(&self) -> Result<State, String> {
        let running = lab::running(Some(&self.0)).and_then(|(_, mut state)| {
            lab::containers::join(&mut state)?;
            Ok(state)
        });
        running.map_err(|failure| told(&failure))
    }
}

impl Scene for Lab {
    fn drawing(&self, _: &[Port]) -> Result<page::Drawing, String> {
        Ok(drawing(&self.state()?.topology))
    }

    fn trace(&self, from: &str, to: &str, protocol: &str) -> Result<Traced, String> {
        let state = self.state()?;
        let client = Client::connect_to(state.socket.clone()).map_err(|failure| told(&failure))?;
        trace::draw(&client, &state, from, to, protocol).map_err(|failure| told(&failure))
    }

    fn change(&self, asked: &Change) -> Result<(), String> {
        let state = self.state()?;
        let set: Vec<_> = asked.set.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let done = if set.is_empty() { Ok(()) } else { change(&state, &asked.link, None, &set) };
        let done = done.and_then(|()| asked.up.map_or(Ok(()), |up| carry(&state, &asked.link, up)));
        done.map_err(|failure| told(&failure))
    }
}

fn told(failure: &Failure) -> String {
    match failure.reason() {
        Some(why) => format!("{}: {why}", failure.what()),
        None => failure.what().to_owned(),
    }
}

/// The lab as it came up; how its links are is the switch's to say.
fn drawing(topology: &Topology) -> page::Drawing {
    let drawn = Drawing::of(topology);
    let links = drawn.links.into_iter().map(|edge| {
        let link = topology.links.iter().find(|link| edge.kind != Join::Tunnel && link.name == edge.name);
        let tunnel = topology.tunnels.iter().find(|tunnel| edge.kind == Join::Tunnel && tunnel.name == edge.name);
        let uplink = topology.uplink.as_ref().map(Uplink::port_name).filter(|name| *name == edge.name);
        let ports = match (link, tunnel) {
            (Some(link), _) => ports_of(link),
            (_, Some(tunnel)) => [0, 1].map(|end| tunnel.ends.get(end).map(|end| tunnel.port_name(end))),
            (None, None) => [uplink, None],
        };
        let label = link.map_or(edge.label, title);
        Edge { name: edge.name, kind: edge.kind, ends: edge.names, label, ports }
    });
    let rules = topology.switches.iter().flat_map(|switch| &switch.rules).map(|rule| RuleName {
        owner: Owner::file_line(&topology.source, rule.line).to_string(),
        priority: rule.flow.split([',', ' ']).next().unwrap_or_default().to_owned(),
        name: rule.name.clone(),
    });
    page::Drawing {
        title: drawn.lab.clone(),
        lab: Some(drawn.lab),
        links: links.collect(),
        rules: rules.collect(),
        nodes: drawn.nodes.into_iter().map(|node| named(topology, node)).collect(),
    }
}

fn named(topology: &Topology, node: super::Node) -> Node {
    let router = topology.routers.iter().find(|router| router.name == node.name);
    let of_host = topology.host(&node.name).into_iter().flat_map(|host| &host.interfaces).map(|of| of.mac.to_string());
    let of_router = router.into_iter().flat_map(|router| &router.interfaces).map(|of| of.mac.to_string());
    let macs = of_host.chain(of_router).collect();
    Node { name: node.name, kind: node.kind, addresses: node.addresses, macs }
}
