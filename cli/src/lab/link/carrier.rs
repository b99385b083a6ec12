//! `sluice lab link down`, `up` and `flap`: links that carry nothing for a while.

use super::{find, ports_of};
use crate::client::Client;
use crate::failure::Failure;
use crate::lab::{State, Target};
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::json;
use sluice_proto::v1::SetPortRequest;
use sluice_switch::port::parse_time;
use std::time::Duration;

/// A link and its lab.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The link
    link: String,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice lab link flap`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab link flap wan                        down for a second, three times
  sluice lab link flap wan --times 10 --every 200ms
Ctrl-C brings the link up and ends it.")]
pub(crate) struct Flap {
    /// How often it goes down
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    times: u16,
    /// How long it is down, and then up before it goes down again
    #[arg(long, value_name = "T", default_value = "1s", value_parser = time)]
    every: Duration,
    #[command(flatten)]
    of: Of,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| "expected a time like 200ms or 2s, up to 60s".to_owned())
}

/// A running lab's switch, and the ports of one link.
struct Carrier {
    client: Client,
    ports: Vec<String>,
}

impl Carrier {
    fn of(args: &Of) -> Result<Self, Failure> {
        let (_, state) = crate::lab::joined(args.target.lab.as_deref())?;
        Self::in_lab(&state, &args.link)
    }

    fn in_lab(state: &State, link: &str) -> Result<Self, Failure> {
        let ports = ports_of(find(&state.topology, link)?).into_iter().flatten().collect();
        Ok(Self { client: Client::connect_to(state.socket.clone())?, ports })
    }

    fn set(&self, down: bool) -> Result<(), Failure> {
        self.ports.iter().try_for_each(|name| {
            let request = SetPortRequest { name: name.clone(), admin_down: Some(down), ..Default::default() };
            self.client.call(self.client.ports().set_port(request)).map(|_| ())
        })
    }
}

/// Takes a link of a lab down or brings it up.
///
/// # Errors
/// There is no such link, or what the switch says.
pub(in crate::lab) fn carry(state: &State, link: &str, up: bool) -> Result<(), Failure> {
    Carrier::in_lab(state, link)?.set(!up)
}

/// Takes a link down or brings it up.
pub(super) fn set(args: &Of, down: bool, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    Carrier::of(args)?.set(down)?;
    out.done(&json!({"link": args.link, "up": !down}))
}

/// Takes a link down and up again; it is up in the end, whatever happens.
pub(super) fn flap(args: &Flap, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let carrier = Carrier::of(&args.of)?;
    let mut interrupts = carrier.client.interrupts()?;
    let mut flaps = 0;
    while flaps < args.times {
        let down = carrier.set(true).map(|()| carrier.client.pause(args.every, &mut interrupts));
        carrier.set(false)?;
        flaps += 1;
        // Nothing is to be waited for behind the last.
        if down? || flaps < args.times && carrier.client.pause(args.every, &mut interrupts) {
            break;
        }
    }
    out.done(&json!({"link": args.of.link, "up": true, "flaps": flaps}))
}
