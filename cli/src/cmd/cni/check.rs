//! `sluice cni check`.

use super::networks::{Network, NetworksArg};
use super::places::{Known, Places};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;
use sluice_cni::spec::{Attachment, Ipam};
use sluice_proto::v1::CheckAttachmentRequest;

/// Arguments of `sluice cni check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each attachment is compared with what it should be: the switch's record, port, flows and host
ports, the interface in the kernel, the reserved addresses. Nothing is mended.

Examples:
  sluice cni check                every network in /etc/cni/net.d
  sluice cni check pods           one of them
  sluice cni check -o json        for a program

Exit code 1 if something differs.")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    networks: NetworksArg,
}

#[derive(Serialize)]
struct Answer {
    checked: usize,
    problems: Vec<Problem>,
}

/// What is wrong with an attachment, and what to do.
#[derive(Serialize)]
struct Problem {
    network: String,
    container_id: String,
    ifname: String,
    problem: String,
}

/// Runs the verb.
pub(crate) fn run(args: &CheckArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let path = args.networks.path();
    let mut answer = Answer { checked: 0, problems: Vec::new() };
    for network in args.networks.read()? {
        let client = Client::connect_to(network.base.socket.clone())?;
        let places = Places::of(&network, Some(&client), &path)?;
        answer.checked += places.attachments.len();
        for (attachment, known) in &places.attachments {
            let problems = problems(&network, &client, attachment, known)?;
            answer.problems.extend(problems.into_iter().map(|problem| Problem {
                network: attachment.network.clone(),
                container_id: attachment.container_id.clone(),
                ifname: attachment.ifname.clone(),
                problem,
            }));
        }
        for stray in &places.strays {
            answer.problems.push(Problem {
                network: network.base.name.clone(),
                container_id: String::new(),
                ifname: stray.name.clone(),
                problem: format!(
                    "interface {} ({}) is of no attachment; if its container is gone, `ip link del {}`",
                    stray.name, stray.alias, stray.name
                ),
            });
        }
    }
    let well = answer.problems.is_empty();
    match format {
        Format::Json => out.json(&answer)?,
        _ if well => out.line(format!("attachments: {}, all as they should be", answer.checked))?,
        _ => {
            let mut table = Table::new(["NETWORK", "CONTAINER", "INTERFACE", "PROBLEM"]);
            for problem in &answer.problems {
                let Problem { network, container_id, ifname, problem } = problem;
                table.row([network, container_id, ifname, problem].map(|text| Cell::from(text.as_str())));
            }
            out.table(&table)?;
        }
    }
    Ok(if well { Exit::Yes } else { Exit::No })
}

fn problems(
    network: &Network,
    client: &Client,
    attachment: &Attachment,
    known: &Known,
) -> Result<Vec<String>, Failure> {
    let Some(record) = &known.record else {
        let what = if known.is_gone(attachment) {
            "addresses are reserved, and the container is gone; `sluice cni gc` releases them"
        } else {
            "the switch has no record of it; have the runtime end the container, or start it again"
        };
        return Ok(vec![what.to_owned()]);
    };
    if known.is_gone(attachment) {
        return Ok(vec!["its container is gone, and nobody said DEL; `sluice cni gc` removes what is left".to_owned()]);
    }
    let request = CheckAttachmentRequest { attachment: record.spec.clone() };
    let mut problems = client.call(client.attachments().check_attachment(request))?.problems;
    if network.base.ipam == Ipam::Own {
        let addresses = record.spec.iter().flat_map(|spec| &spec.addresses);
        for address in addresses {
            let plain = address.split('/').next().unwrap_or(address);
            if !known.reserved.iter().any(|reserved| reserved.to_string() == plain) {
                problems.push(format!("{plain} is not reserved for it, and may be given to another container"));
            }
        }
    }
    Ok(problems)
}
