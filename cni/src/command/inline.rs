//! Behind another plugin: which interface of the host leads to the container that it attached.

use super::plan::Plan;
use crate::error::{Code, Failure};
use crate::link;
use crate::spec::{AddResult, Attachment, Config, Interface};
use sluice_proto::v1;
use std::path::Path;

/// What another plugin made, as an attachment.
#[derive(Debug)]
pub(super) struct Inline<'a> {
    pub(super) plan: Plan<'a>,
    interface: String,
}

impl Inline<'_> {
    /// The interface that the switch is to put itself in front of.
    pub(super) fn device(&self) -> v1::attachment_spec::Device {
        v1::attachment_spec::Device::Inline(v1::InlineDevice { interface: self.interface.clone() })
    }
}

/// Finds it in what the plugins before said.
///
/// # Errors
/// [`Code::InvalidConfig`] when they made no pair of interfaces that ends in the container.
pub(super) fn find<'a>(
    config: &'a Config,
    prev: &AddResult,
    attachment: &Attachment,
    netns: &Path,
) -> Result<Inline<'a>, Failure> {
    let ifname = &attachment.ifname;
    let Some(index) = container_index(prev, ifname) else {
        let msg = format!("prevResult has no interface {ifname} in a container");
        return Err(
            Failure::new(Code::InvalidConfig, msg).details("put sluice-cni first, or behind a plugin that makes one")
        );
    };
    let Some(interface) = host_end(config, prev) else {
        let msg = format!("prevResult has no interface of the host that leads to {ifname}");
        let next = "behind another plugin sluice-cni works with those that make a veth pair, such as bridge and ptp";
        return Err(Failure::new(Code::InvalidConfig, msg).details(next));
    };
    let found = link::interface(netns, ifname).map_err(super::link_failure)?;
    let Some(found) = found else {
        let msg = format!("prevResult says that {ifname} is in {}, and it is not there", netns.display());
        return Err(Failure::new(Code::Link, msg));
    };
    let ips = prev.ips.iter().filter(|ip| ip.interface.is_none_or(|i| i == index)).cloned().collect();
    let plan = Plan {
        config,
        attachment: attachment.clone(),
        netns: netns.to_owned(),
        mac: found.mac,
        mtu: found.mtu,
        addressing: AddResult { ips, ..AddResult::default() },
        declared: None,
    };
    Ok(Inline { plan, interface: interface.name.clone() })
}

/// Which interface of a result is the container's.
pub(super) fn container_index(result: &AddResult, ifname: &str) -> Option<usize> {
    result.interfaces.iter().position(|i| !i.sandbox.is_empty() && i.name == *ifname)
}

/// The host's end of the pair: the last interface of the host that is said before the container's, behind the bridge.
pub(super) fn host_end<'r>(config: &Config, prev: &'r AddResult) -> Option<&'r Interface> {
    let before = prev.interfaces.iter().take_while(|i| i.sandbox.is_empty());
    before.filter(|i| i.name != config.base.bridge).last()
}
