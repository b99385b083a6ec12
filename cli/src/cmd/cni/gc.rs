//! `sluice cni gc`.

use super::networks::{Network, NetworksArg};
use super::places::{Known, Places, failed};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;
use sluice_cni::ipam::Ipam;
use sluice_cni::lock::Lock;
use sluice_cni::spec::{Attachment, CniArgs, Command, Environment};
use sluice_proto::v1::{AttachmentKey, DetachRequest};
use std::path::PathBuf;
use std::time::Duration;

/// How long another operation on the container is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `sluice cni gc`.
#[derive(Debug, Args)]
#[command(after_help = "\
A container is gone when its interface is: the end of its pair on the host, and any of its name and
hardware address where its namespace was. What the switch and the store of addresses still have of
it is removed. Containers that are there are not touched, whatever is wrong with them.

Examples:
  sluice cni gc --dry-run         say what would be removed
  sluice cni gc                   remove it, in every network of /etc/cni/net.d
  sluice cni gc pods              in one of them")]
pub(crate) struct GcArgs {
    #[command(flatten)]
    networks: NetworksArg,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    removed: Vec<Removed>,
}

#[derive(Serialize)]
struct Removed {
    network: String,
    container_id: String,
    ifname: String,
    /// Whether the switch had a record of it.
    record: bool,
    /// Addresses that were reserved for it.
    addresses: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &GcArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let path = args.networks.path();
    let mut removed = Vec::new();
    for network in args.networks.read()? {
        let client = Client::connect_to(network.base.socket.clone())?;
        for (attachment, _) in gone(Places::of(&network, Some(&client), &path)?) {
            // Whoever holds the lock may be making it just now, so it is looked at again under the lock.
            let _lock = Lock::take(&network.base.data_dir, &attachment.container_id, PATIENCE)
                .map_err(|failure| failed(&network, failure))?;
            let mut again = Places::of(&network, Some(&client), &path)?;
            let Some(known) = again.attachments.remove(&attachment).filter(|known| known.is_gone(&attachment)) else {
                continue;
            };
            if !args.dry_run {
                remove(&network, &client, &attachment, &path)?;
            }
            removed.push(Removed {
                network: attachment.network,
                container_id: attachment.container_id,
                ifname: attachment.ifname,
                record: known.record.is_some(),
                addresses: known.reserved.iter().map(ToString::to_string).collect(),
            });
        }
    }
    match format {
        Format::Json => out.json(&Answer { dry_run: args.dry_run, removed })?,
        _ if removed.is_empty() => out.line("nothing is left of containers that are gone")?,
        _ => out.table(&table(&removed, args.dry_run))?,
    }
    Ok(Exit::Yes)
}

fn gone(places: Places) -> impl Iterator<Item = (Attachment, Known)> {
    places.attachments.into_iter().filter(|(attachment, known)| known.is_gone(attachment))
}

fn remove(network: &Network, client: &Client, attachment: &Attachment, path: &[PathBuf]) -> Result<(), Failure> {
    let Attachment { network: name, container_id, ifname } = attachment.clone();
    let key = AttachmentKey { network: name, container_id: container_id.clone(), ifname: ifname.clone() };
    client.call(client.attachments().detach(DetachRequest { key: Some(key) }))?;
    let environment = Environment {
        command: Command::Del,
        container_id,
        netns: None,
        ifname,
        args: CniArgs::default(),
        path: path.to_vec(),
        netns_override: false,
    };
    let ipam = Ipam::open(&network.input, &environment).map_err(|error| failed(network, error))?;
    ipam.del().map_err(|error| failed(network, error))
}

fn table(removed: &[Removed], dry_run: bool) -> Table {
    let mut table = Table::new(["NETWORK", "CONTAINER", "INTERFACE", if dry_run { "WOULD REMOVE" } else { "REMOVED" }]);
    for one in removed {
        let record = one.record.then(|| "the switch's record".to_owned());
        let addresses = one.addresses.iter().map(|address| format!("reservation of {address}"));
        let what: Vec<_> = record.into_iter().chain(addresses).collect();
        let names = [&one.network, &one.container_id, &one.ifname].map(|text| Cell::from(text.as_str()));
        table.row(names.into_iter().chain([Cell::from(what.join(", "))]));
    }
    table
}
