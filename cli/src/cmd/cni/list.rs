//! `sluice cni list`.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{Attachment, ListAttachmentsRequest};

/// Characters of a container's ID in a table, as runtimes show them.
const ID_LEN: usize = 12;

/// Arguments of `sluice cni list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sluice cni list                 every attached container
  sluice cni list pods            those of one network
  sluice cni list -o json         for a program, with all that is known of each")]
pub(crate) struct ListArgs {
    /// Only this network's
    #[arg(default_value = "", hide_default_value = true)]
    network: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    attachments: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    network: String,
    container_id: String,
    ifname: String,
    /// The pod's namespace and name, where it is one.
    pod: Option<String>,
    bridge: String,
    port: String,
    number: Option<u32>,
    mac: String,
    addresses: Vec<String>,
    netns: Option<String>,
    host_ports: Vec<String>,
    owner: String,
    link_up: bool,
    fault: Option<String>,
    created_unix_s: i64,
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<Attachment> for Row {
    fn from(attachment: Attachment) -> Self {
        let spec = attachment.spec.unwrap_or_default();
        let label = |name: &str| spec.labels.get(name).cloned();
        let pod = label("k8s.namespace").zip(label("k8s.pod")).map(|(namespace, name)| format!("{namespace}/{name}"));
        let host_ports = spec.port_mappings.iter().map(|mapping| {
            let host = if mapping.host_address.contains(':') {
                format!("[{}]:", mapping.host_address)
            } else if mapping.host_address.is_empty() {
                String::new()
            } else {
                format!("{}:", mapping.host_address)
            };
            format!("{host}{}->{}/{}", mapping.host_port, mapping.container_port, mapping.protocol)
        });
        Self {
            pod,
            host_ports: host_ports.collect(),
            network: spec.network,
            container_id: spec.container_id,
            ifname: spec.ifname,
            bridge: attachment.bridge,
            port: spec.port,
            number: Some(attachment.number).filter(|number| *number > 0),
            mac: spec.mac,
            addresses: spec.addresses,
            netns: said(spec.netns),
            owner: attachment.owner,
            link_up: attachment.link_up,
            fault: said(attachment.fault),
            created_unix_s: attachment.created_unix_s,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: &ListArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let request = ListAttachmentsRequest { network: args.network.clone() };
    let parts = client.collect(client.attachments().list_attachments(request))?;
    let attachments: Vec<Row> = parts.into_iter().flat_map(|part| part.attachments).map(Row::from).collect();
    match format {
        Format::Json => out.json(&Answer { attachments })?,
        format => out.table(&table(&attachments, format == Format::Wide))?,
    }
    Ok(Exit::Yes)
}

fn table(rows: &[Row], wide: bool) -> Table {
    let mut header = vec!["NETWORK", "CONTAINER", "INTERFACE", "PORT", "ADDRESS", "HOST PORTS", "STATE"];
    if wide {
        header.extend(["MAC", "BRIDGE", "OWNER", "NETNS"]);
    }
    let mut table = Table::new(header);
    for row in rows {
        let short: String = row.container_id.chars().take(ID_LEN).collect();
        let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(",") };
        let mut cells: Vec<Cell> = vec![
            row.network.as_str().into(),
            row.pod.clone().unwrap_or(if wide { row.container_id.clone() } else { short }).into(),
            row.ifname.as_str().into(),
            row.port.as_str().into(),
            list(&row.addresses).into(),
            list(&row.host_ports).into(),
            match &row.fault {
                Some(fault) => Cell::from(fault.as_str()).tone(Tone::Bad),
                None if row.link_up => Cell::from("up").tone(Tone::Good),
                None => Cell::from("down").tone(Tone::Warn),
            },
        ];
        if wide {
            let netns = row.netns.as_deref().unwrap_or("-");
            cells.extend([row.mac.as_str(), &row.bridge, &row.owner, netns].map(Cell::from));
        }
        table.row(cells);
    }
    table
}
