//! `sluice routes add` and `del`.

use super::RouterArg;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use sluice_proto::v1::{AddRoutesRequest, DeleteRoutesRequest, NextHop, Route};

/// Kinds of routes that have no next hop.
const KINDS: [&str; 3] = ["blackhole", "unreachable", "prohibit"];

/// Arguments of `sluice routes add`.
#[derive(Debug, Args)]
#[command(after_help = "\
WAY is `via ADDRESS`, `dev INTERFACE` or both, then `weight N`, as often as there are next hops; or
one of blackhole (dropped), unreachable and prohibit (dropped, and the sender is told).

Examples:
  sluice routes add 10.9.0.0/16 via 192.0.2.2
  sluice routes add default6 via fe80::1 dev wan
  sluice routes add 10.9.0.0/16 via 192.0.2.2 weight 3 via 192.0.2.6
  sluice routes add 10.9.0.0/16 dev tun0 --distance 20      while no better one has a next hop alive
  sluice routes add 10.8.0.0/16 blackhole --vrf blue")]
pub(super) struct Add {
    /// A network, an address, `default` or `default6`
    destination: String,
    /// Where packets go next
    #[arg(value_name = "WAY", required = true)]
    way: Vec<String>,
    /// The VRF
    #[arg(long, value_name = "VRF", default_value = "main")]
    vrf: String,
    /// Rank among routes to the same destination; the lowest that has a next hop alive is taken
    #[arg(long, default_value_t = 1)]
    distance: u8,
    #[command(flatten)]
    router: RouterArg,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice routes del`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice routes del 10.9.0.0/16
  sluice routes del default --vrf blue --distance 20")]
pub(super) struct Del {
    /// A network, an address, `default` or `default6`
    destination: String,
    /// The VRF
    #[arg(long, value_name = "VRF", default_value = "main")]
    vrf: String,
    /// Rank among routes to the same destination
    #[arg(long, default_value_t = 1)]
    distance: u8,
    #[command(flatten)]
    router: RouterArg,
    #[command(flatten)]
    target: Target,
}

/// Runs `sluice routes add`.
pub(super) fn add(args: Add, out: &mut Output) -> Result<Exit, Failure> {
    let (next_hops, kind) = way(&args.way)?;
    let format = out.format(&[Format::Table, Format::Json])?;
    let route =
        Route { destination: args.destination, vrf: args.vrf, next_hops, kind, distance: Some(args.distance.into()) };
    let client = Client::connect(&args.target)?;
    let part = AddRoutesRequest { router: args.router.router, routes: vec![route] };
    let reply = client.call(client.routers().add_routes(tokio_stream::iter([part])))?;
    if format == Format::Json {
        out.json(&serde_json::json!({"added": reply.added, "replaced": reply.replaced}))?;
    } else if reply.replaced > 0 {
        out.talk("it took the place of another route")?;
    }
    Ok(Exit::Yes)
}

/// Runs `sluice routes del`.
pub(super) fn del(args: Del, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let route = Route {
        destination: args.destination,
        vrf: args.vrf,
        distance: Some(args.distance.into()),
        ..Route::default()
    };
    let client = Client::connect(&args.target)?;
    let part = DeleteRoutesRequest { router: args.router.router, routes: vec![route] };
    let reply = client.call(client.routers().delete_routes(tokio_stream::iter([part])))?;
    out.done(&serde_json::json!({"deleted": reply.deleted}))
}

/// The next hops that the words mean, or the kind of a route that has none.
fn way(words: &[String]) -> Result<(Vec<NextHop>, String), Failure> {
    let usage = |what: String| Failure::usage(what).next("sluice routes add --help");
    if let [word] = words
        && KINDS.contains(&word.as_str())
    {
        return Ok((Vec::new(), word.clone()));
    }
    let mut hops: Vec<NextHop> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| usage(format!("something is missing behind `{word}`")))?.clone();
        match word.as_str() {
            "via" => hops.push(NextHop { address: value, ..NextHop::default() }),
            "dev" => match hops.last_mut().filter(|hop| hop.interface.is_empty()) {
                Some(hop) => hop.interface = value,
                None => hops.push(NextHop { interface: value, ..NextHop::default() }),
            },
            "weight" => {
                let weight = value.parse().ok().filter(|weight| (1..=65_535).contains(weight));
                let weight = weight.ok_or_else(|| usage(format!("`{value}` is no weight; it is 1 to 65535")))?;
                let hop = hops.last_mut().ok_or_else(|| usage("`weight` goes behind a next hop".to_owned()))?;
                hop.weight = weight;
            }
            word => return Err(usage(format!("`{word}` is none of via, dev, weight and {}", KINDS.join(", ")))),
        }
    }
    Ok((hops, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String, u32)>, String> {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        let hops = way(&words).map_err(|failure| failure.to_string())?.0;
        Ok(hops.into_iter().map(|hop| (hop.address, hop.interface, hop.weight)).collect())
    }

    #[test]
    fn ways_are_read_as_they_are_said() {
        let hop = |address: &str, interface: &str, weight| (address.to_owned(), interface.to_owned(), weight);
        assert_eq!(read("via 1.2.3.4"), Ok(vec![hop("1.2.3.4", "", 0)]));
        let two = vec![hop("1.2.3.4", "e1", 3), hop("1.2.3.5", "", 0)];
        assert_eq!(read("via 1.2.3.4 dev e1 weight 3 via 1.2.3.5"), Ok(two));
        assert_eq!(read("dev e1 dev e2"), Ok(vec![hop("", "e1", 0), hop("", "e2", 0)]));
        assert_eq!(read("blackhole"), Ok(vec![]));
        for (text, want) in [
            ("via", "something is missing behind `via`"),
            ("weight 3", "`weight` goes behind a next hop"),
            ("via 1.2.3.4 weight 0", "`0` is no weight"),
            ("gateway 1.2.3.4", "`gateway` is none of via, dev"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
    }
}
