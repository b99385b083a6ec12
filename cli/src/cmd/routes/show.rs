//! Routes as rows of a table and as JSON.

use crate::output::{Cell, Table, Tone};
use serde::Serialize;
use sluice_proto::v1::{NextHop, RouteStatus};

/// The answer in JSON.
#[derive(Serialize)]
pub(super) struct Answer {
    pub(super) routes: Vec<Row>,
}

/// A route in JSON.
#[derive(Serialize)]
pub(super) struct Row {
    router: String,
    vrf: String,
    destination: String,
    kind: String,
    distance: u32,
    connected: bool,
    active: bool,
    next_hops: Vec<Hop>,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Hop {
    address: Option<String>,
    interface: String,
    weight: u32,
    alive: bool,
}

impl From<RouteStatus> for Row {
    fn from(status: RouteStatus) -> Self {
        let route = status.route.unwrap_or_default();
        let distance = route.distance();
        let hop = |(hop, alive): (NextHop, bool)| Hop {
            address: Some(hop.address).filter(|address| !address.is_empty()),
            interface: hop.interface,
            weight: hop.weight,
            alive,
        };
        Self {
            router: status.router,
            vrf: route.vrf,
            destination: route.destination,
            kind: route.kind,
            distance,
            connected: status.connected,
            active: status.active,
            next_hops: route.next_hops.into_iter().zip(status.alive).map(hop).collect(),
            packets: status.packets,
            bytes: status.bytes,
        }
    }
}

/// The table: a line for each route, and one for each further next hop.
pub(super) fn table(routes: &[RouteStatus], wide: bool) -> Table {
    let routers = wide || routes.windows(2).any(|pair| pair[0].router != pair[1].router);
    let mut header: Vec<Cell> = Vec::new();
    if routers {
        header.push("ROUTER".into());
    }
    header.extend(["VRF", "DESTINATION", "NEXT HOP", "INTERFACE"].map(Cell::from));
    if wide {
        header.extend(["WEIGHT", "DISTANCE"].map(Cell::right));
    }
    header.push("STATE".into());
    header.extend(["PACKETS", "BYTES"].map(Cell::right));
    let mut table = Table::new(header);
    for status in routes {
        let route = status.route.clone().unwrap_or_default();
        let hops: Vec<_> = match route.next_hops.is_empty() {
            true => vec![None],
            false => route.next_hops.iter().map(Some).collect(),
        };
        for (n, hop) in hops.into_iter().enumerate() {
            let first = |text: String| Cell::from(if n == 0 { text } else { String::new() });
            let mut row: Vec<Cell> = Vec::new();
            if routers {
                row.push(first(status.router.clone()));
            }
            row.extend([first(route.vrf.clone()), first(route.destination.clone())]);
            let dash = |text: Option<&str>| Cell::from(text.filter(|t| !t.is_empty()).unwrap_or("-"));
            row.extend([dash(hop.map(|hop| &*hop.address)), dash(hop.map(|hop| &*hop.interface))]);
            if wide {
                row.push(Cell::right(hop.map_or_else(|| "-".to_owned(), |hop| hop.weight.to_string())));
                row.push(Cell::right(if n == 0 { route.distance().to_string() } else { String::new() }));
            }
            row.push(state(status, status.alive.get(n).copied()));
            let count = |count: u64| Cell::right(if n == 0 { count.to_string() } else { String::new() });
            row.extend([count(status.packets), count(status.bytes)]);
            table.row(row);
        }
    }
    table
}

/// What a next hop of a route is worth, or what a route without any does.
fn state(status: &RouteStatus, alive: Option<bool>) -> Cell {
    match alive {
        Some(false) => Cell::from("dead").tone(Tone::Bad),
        Some(true) if status.connected => Cell::from("connected").tone(Tone::Good),
        Some(true) => Cell::from("active").tone(Tone::Good),
        None => Cell::from(status.route.as_ref().map_or("", |route| &*route.kind)).tone(Tone::Warn),
    }
}
