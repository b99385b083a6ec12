//! `sluice routes`: the routes of routers.

mod change;
mod show;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use crate::watch::Watch;
use clap::{Args, Subcommand};
use show::{Answer, Row};
use sluice_proto::v1::{ListRoutesRequest, RouteStatus};

/// Arguments of `sluice routes`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Of the routes to an address the longest prefix is taken, then the lowest distance among those that
have a next hop alive. A next hop is dead while its port is down, while it does not answer ARP or
neighbour discovery, or while it loses pings, where it is probed.

STATE: connected (comes with an interface's address), active (packets can take it), dead (no next
hop is alive; on a line of its own: this one is not), or what a route does that drops.

Examples:
  sluice routes                                   every route
  sluice routes --vrf blue -w                     those of a VRF, again every second
  sluice routes get 10.9.0.7                      which one a packet to there takes
  sluice routes add 10.9.0.0/16 via 192.0.2.2     by one router
  sluice routes add default via 192.0.2.2 via 192.0.2.6     by two, flows spread over both
  sluice routes add 10.8.0.0/16 blackhole         nowhere
  sluice routes del 10.9.0.0/16"
)]
pub(crate) struct Routes {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Args)]
struct List {
    /// Only those of this VRF
    #[arg(long, value_name = "VRF", default_value = "", hide_default_value = true)]
    vrf: String,
    #[command(flatten)]
    router: RouterArg,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    target: Target,
}

/// Which router of the switch.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which switch")]
pub(crate) struct RouterArg {
    /// The router; not needed when there is only one
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) router: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Which route a packet to an address takes; exit 1 if none
    Get(Get),
    /// Add a route, in place of one to the same destination with the same distance
    Add(change::Add),
    /// Remove a route
    Del(change::Del),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice routes get 10.9.0.7
  sluice routes get fd00:9::7 --vrf blue

Exit code 1 if no route leads there, or the one that does drops packets.")]
struct Get {
    /// Where a packet is to go
    address: String,
    /// The VRF to look in
    #[arg(long, value_name = "VRF", default_value = "main")]
    vrf: String,
    #[command(flatten)]
    router: RouterArg,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(args: Routes, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(args.list, out),
        Some(Verb::Get(args)) => get(args, out),
        Some(Verb::Add(args)) => change::add(args, out),
        Some(Verb::Del(args)) => change::del(args, out),
    }
}

fn list(args: List, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let client = Client::connect(&args.target)?;
    args.watch.run(out, |out| {
        let request = ListRoutesRequest {
            router: args.router.router.clone(),
            vrf: args.vrf.clone(),
            ..ListRoutesRequest::default()
        };
        let routes = fetch(&client, request)?;
        if routes.is_empty() {
            out.talk("there is no route; routers are set in sluiced's configuration, by a lab, or over the API")?;
        }
        print(routes, format, out)?;
        Ok(Exit::Yes)
    })
}

fn fetch(client: &Client, request: ListRoutesRequest) -> Result<Vec<RouteStatus>, Failure> {
    let parts = client.collect(client.routers().list_routes(request))?;
    Ok(parts.into_iter().flat_map(|part| part.routes).collect())
}

fn print(routes: Vec<RouteStatus>, format: Format, out: &mut Output) -> Result<(), Failure> {
    if format == Format::Json {
        out.json(&Answer { routes: routes.into_iter().map(Row::from).collect() })?;
    } else {
        out.table(&show::table(&routes, format == Format::Wide))?;
    }
    Ok(())
}

fn get(args: Get, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let request =
        ListRoutesRequest { router: args.router.router, vrf: args.vrf.clone(), address: args.address.clone() };
    let routes = fetch(&client, request)?;
    // In one router and VRF the best is the only answer; without a router named there may be one for each.
    let mut best: Vec<RouteStatus> = Vec::new();
    for route in routes.into_iter().filter(|route| route.active) {
        match best.iter_mut().find(|other| other.router == route.router) {
            Some(other) if rank(other) >= rank(&route) => {}
            Some(other) => *other = route,
            None => best.push(route),
        }
    }
    if best.is_empty() {
        out.talk(format!("no route leads to {} in VRF {}", args.address, args.vrf))?;
        if format == Format::Json {
            print(best, format, out)?;
        }
        return Ok(Exit::No);
    }
    let forwards = best.iter().any(|route| route.route.as_ref().is_some_and(|route| !route.next_hops.is_empty()));
    print(best, format, out)?;
    Ok(if forwards { Exit::Yes } else { Exit::No })
}

/// The higher the better: the length of the prefix, then how low the distance is.
fn rank(route: &RouteStatus) -> (u32, std::cmp::Reverse<u32>) {
    let spec = route.route.clone().unwrap_or_default();
    let len = spec.destination.rsplit_once('/').and_then(|(_, len)| len.parse().ok()).unwrap_or(0);
    (len, std::cmp::Reverse(spec.distance()))
}
