//! What the switch, the kernel and the store of addresses know of a network's attachments, and which of them have a container.

use super::networks::Network;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Exit;
use sluice_cni::ipam::{Ipam, Record};
use sluice_cni::link::{self, OurLink};
use sluice_cni::spec::Attachment;
use sluice_proto::v1::{self, ListAttachmentsRequest};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// All that is known of one attachment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The switch's record; boxed, as it is large.
    pub(crate) record: Option<Box<v1::Attachment>>,
    /// The host's end of its veth pair.
    pub(crate) link: Option<OurLink>,
    /// Its addresses in the store.
    pub(crate) reserved: Vec<IpAddr>,
    /// Where the store has its container.
    netns: PathBuf,
}

/// Everything of a network.
#[derive(Debug)]
pub(crate) struct Places {
    /// By attachment.
    pub(crate) attachments: BTreeMap<Attachment, Known>,
    /// Interfaces that no attachment of the switch or the store belongs to.
    pub(crate) strays: Vec<OurLink>,
}

/// What is said of a failure below.
pub(crate) fn failed(network: &Network, what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("network {}: {what}", network.base.name))
}

/// The address management of a network.
///
/// # Errors
/// The configuration is wrong, or names a plugin that is not there.
pub(crate) fn ipam(network: &Network, path: &[PathBuf]) -> Result<Ipam, Failure> {
    Ipam::of_network(&network.input, path).map_err(|error| failed(network, error).exit(Exit::Usage))
}

impl Places {
    /// Asks all three. The switch that is away knows nothing; whoever needs to know has connected before.
    ///
    /// # Errors
    /// The switch, the kernel or the store does not answer.
    pub(crate) fn of(network: &Network, client: Option<&Client>, path: &[PathBuf]) -> Result<Self, Failure> {
        let name = network.base.name.clone();
        let mut attachments: BTreeMap<Attachment, Known> = BTreeMap::new();
        let of = |id: &str, ifname: &str| Attachment {
            network: name.clone(),
            container_id: id.to_owned(),
            ifname: ifname.to_owned(),
        };
        if let Some(client) = client {
            let request = ListAttachmentsRequest { network: name.clone() };
            let parts = client.collect(client.attachments().list_attachments(request))?;
            for record in parts.into_iter().flat_map(|part| part.attachments) {
                let spec = record.spec.clone().unwrap_or_default();
                attachments.entry(of(&spec.container_id, &spec.ifname)).or_default().record = Some(Box::new(record));
            }
        }
        let reservations = ipam(network, path)?.reservations().map_err(|error| failed(network, error))?;
        for (address, Record { container_id, ifname, netns, .. }) in reservations {
            let known = attachments.entry(of(&container_id, &ifname)).or_default();
            known.reserved.push(address);
            known.netns = netns.into();
        }
        let prefix = Attachment::alias_prefix(&name);
        let mut strays = link::ours(&prefix).map_err(|error| failed(network, error))?;
        for (attachment, known) in &mut attachments {
            let alias = attachment.alias();
            if let Some(at) = strays.iter().position(|link| link.alias == alias) {
                known.link = Some(strays.swap_remove(at));
            }
        }
        strays.sort();
        Ok(Self { attachments, strays })
    }
}

impl Known {
    /// The container's network namespace, as far as anybody knows.
    pub(crate) fn netns(&self) -> Option<&Path> {
        let spec = self.record.as_ref().and_then(|record| record.spec.as_ref());
        let told = spec.map(|spec| Path::new(&spec.netns)).filter(|path| !path.as_os_str().is_empty());
        told.or(Some(self.netns.as_path()).filter(|path| !path.as_os_str().is_empty()))
    }

    /// Whether the container's interface is surely gone: the host's end of its pair is, which goes with the other end, and
    /// there is none of its name and hardware address where the container was.
    pub(crate) fn is_gone(&self, attachment: &Attachment) -> bool {
        if self.link.is_some() {
            return false;
        }
        let Some(netns) = self.netns() else { return false };
        if !link::is_netns(netns) {
            return true;
        }
        let spec = self.record.as_ref().and_then(|record| record.spec.as_ref());
        match link::interface(netns, &attachment.ifname) {
            Ok(None) => true,
            // Another container's, whose process has the number that this one's had.
            Ok(Some(interface)) => spec.is_some_and(|spec| mac_text(interface.mac) != spec.mac.to_lowercase()),
            Err(error) => error.is_gone(),
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
