//! `sluice ct set`.

use crate::client::{Client, Target};
use crate::cmd::ports::yes_no;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use sluice_proto::v1::{FragmentChange, SetConnectionSettingsRequest, ZoneChange};
use std::collections::HashMap;

/// Arguments of `sluice ct set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct set --max 500000                          in all zones
  sluice ct set --default-zone-limit 10000 --zone-limit 5=100 --zone-limit 6=0
  sluice ct set --zone-limit 5=default                the default limit again
  sluice ct set --timeout tcp_established=3600 --timeout udp_first=30
  sluice ct set --zone 5 --timeout udp_multiple=300   in zone 5 only
  sluice ct set --zone 5 --clear-timeouts             the default timeouts again
  sluice ct set --tcp-liberal yes                     segments outside the windows are valid
All of it takes effect, or nothing.")]
pub(super) struct Set {
    /// Most connections in all zones
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// Most connections in a zone without a limit of its own; 0 for as many as fit
    #[arg(long, value_name = "N")]
    default_zone_limit: Option<u32>,
    /// Most connections in a zone; 0 for as many as fit, `default` for what other zones have
    #[arg(long, value_name = "ZONE=N", value_parser = zone_limit)]
    zone_limit: Vec<(u16, Option<u32>)>,
    /// Seconds without a packet after which a connection in this state ends; `sluice ct timeouts` lists them
    #[arg(long, value_name = "STATE=SECONDS", value_parser = timeout)]
    timeout: Vec<(String, u32)>,
    /// Whether TCP segments outside the windows are taken as valid
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    tcp_liberal: Option<bool>,
    /// The zone that --timeout and --tcp-liberal are for; zones without such of their own if not given
    #[arg(long, value_name = "ZONE")]
    zone: Option<u16>,
    /// Give the zone the default timeouts
    #[arg(long, requires = "zone", conflicts_with = "timeout")]
    clear_timeouts: bool,
    #[command(flatten)]
    fragments: Fragments,
    #[command(flatten)]
    target: Target,
}

/// What can be set about fragments.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fragments")]
struct Fragments {
    /// Whether IPv4 fragments are put together to be tracked; otherwise they are invalid
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    fragments_v4: Option<bool>,
    /// Whether IPv6 fragments are put together to be tracked; otherwise they are invalid
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    fragments_v6: Option<bool>,
    /// Smallest IPv4 fragment, but for the last of a packet
    #[arg(long, value_name = "BYTES")]
    min_fragment_v4: Option<u32>,
    /// Smallest IPv6 fragment, but for the last of a packet
    #[arg(long, value_name = "BYTES")]
    min_fragment_v6: Option<u32>,
    /// Most fragments that wait for others; with 0 every fragment is invalid
    #[arg(long, value_name = "N")]
    max_fragments: Option<u32>,
    /// Milliseconds that the first fragment of a packet waits
    #[arg(long, value_name = "MS")]
    fragment_timeout: Option<u64>,
}

/// `ZONE=N` or `ZONE=default`.
fn zone_limit(text: &str) -> Result<(u16, Option<u32>), String> {
    let want = || "want ZONE=N or ZONE=default, such as 5=100".to_owned();
    let (zone, limit) = text.split_once('=').ok_or_else(want)?;
    let limit = match limit {
        "default" => None,
        limit => Some(limit.parse().map_err(|_| want())?),
    };
    Ok((zone.parse().map_err(|_| want())?, limit))
}

/// `STATE=SECONDS`.
fn timeout(text: &str) -> Result<(String, u32), String> {
    let want = || "want STATE=SECONDS, such as tcp_established=3600".to_owned();
    let (name, seconds) = text.split_once('=').ok_or_else(want)?;
    Ok((name.to_owned(), seconds.parse().map_err(|_| want())?))
}

/// Runs the verb.
pub(super) fn run(args: Set, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let target = args.target.clone();
    let request = request(args)?;
    if request == SetConnectionSettingsRequest::default() {
        return Err(Failure::usage("nothing to change").next("sluice ct set --help"));
    }
    let client = Client::connect(&target)?;
    client.call(client.connections().set_connection_settings(request))?;
    out.done(&serde_json::json!({"changed": true}))
}

/// What is asked of the switch.
fn request(args: Set) -> Result<SetConnectionSettingsRequest, Failure> {
    let limits = args.zone_limit.into_iter().map(|(zone, limit)| ZoneChange {
        zone: zone.into(),
        clear_limit: limit.is_none(),
        limit,
        ..ZoneChange::default()
    });
    let mut request = SetConnectionSettingsRequest {
        max_connections: args.max,
        default_zone_limit: args.default_zone_limit,
        zones: limits.collect(),
        fragments: args.fragments.change(),
        ..SetConnectionSettingsRequest::default()
    };
    let timeouts_s: HashMap<_, _> = args.timeout.into_iter().collect();
    match args.zone {
        None => (request.timeouts_s, request.tcp_liberal) = (timeouts_s, args.tcp_liberal),
        Some(_) if timeouts_s.is_empty() && !args.clear_timeouts && args.tcp_liberal.is_none() => {
            return Err(Failure::usage("--zone says where --timeout, --clear-timeouts or --tcp-liberal is meant")
                .next("sluice ct set --zone 5 --timeout udp_first=30; for limits, --zone-limit 5=100"));
        }
        Some(zone) => request.zones.push(ZoneChange {
            zone: zone.into(),
            clear_timeouts: args.clear_timeouts,
            timeouts_s,
            tcp_liberal: args.tcp_liberal,
            ..ZoneChange::default()
        }),
    }
    Ok(request)
}

impl Fragments {
    fn change(&self) -> Option<FragmentChange> {
        let change = FragmentChange {
            ipv4: self.fragments_v4,
            ipv6: self.fragments_v6,
            ipv4_min_size: self.min_fragment_v4,
            ipv6_min_size: self.min_fragment_v6,
            max_fragments: self.max_fragments,
            timeout_ms: self.fragment_timeout,
        };
        (change != FragmentChange::default()).then_some(change)
    }
}
