//! CHECK: compares an attachment with what ADD left, and mends nothing.
//!
//! What ADD left is in the previous result; that and the configuration make the same plan that ADD made, and the kernel, the
//! switch and the address management are compared with it. Everything that differs is told, not only the first.

use super::plan::Plan;
use super::{Call, add, inline, link_failure};
use crate::error::{Code, Failure};
use crate::link;
use crate::spec::config::Device;
use crate::spec::{AddResult, Attachment, Config};
use crate::switch::{Switch, Waiter};
use std::path::Path;

/// Compares.
pub(super) fn run(call: Call<'_>) -> Result<(), Failure> {
    let config = Config::read(call.input, call.environment)?;
    let Some(prev) = &config.prev_result else {
        let msg = "prevResult is missing: CHECK compares with the result of ADD";
        return Err(Failure::new(Code::InvalidConfig, msg));
    };
    let netns = call.netns()?.to_owned();
    let attachment = config.base.attachment(call.environment);
    let ipam = call.ipam()?;
    let mut waiter = call.waiter;
    let mut switch = Switch::connect(&mut waiter, &config.base.socket)?;
    if is_behind_another(&config, prev, &attachment) {
        let found = inline::find(&config, prev, &attachment, &netns)?;
        let problems = switch.check(&mut waiter, found.plan.spec(found.device()))?;
        return differs(&attachment, &problems);
    }
    let mut problems = Vec::new();
    match of_result(&config, prev, &attachment, &netns, &mut switch, &mut waiter)? {
        Ok(plan) => {
            problems.extend(link::check(&plan.link()).map_err(link_failure)?);
            problems.extend(switch.check(&mut waiter, plan.spec(plan.device()))?);
            let ips: Vec<_> = plan.addressing.ips.iter().map(|ip| ip.address.addr()).collect();
            match ipam.check(&ips).map_err(Failure::from) {
                Ok(()) => {}
                Err(failure) if failure.is(Code::Differs) || failure.is(Code::UnknownContainer) => {
                    problems.push(failure.msg);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(problem) => problems.push(problem),
    }
    differs(&attachment, &problems)
}

fn differs(attachment: &Attachment, problems: &[String]) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let msg = format!("attachment {attachment} is not as it was made: {}", problems.join("; "));
    Err(Failure::new(Code::Differs, msg).details("CHECK mends nothing: delete the container and make it again"))
}

/// Whether another plugin made the interface: there is an end on the host, and it is not one of ours.
fn is_behind_another(config: &Config, prev: &AddResult, attachment: &Attachment) -> bool {
    let ours = attachment.host_name();
    let made_here = prev.interfaces.iter().any(|i| i.sandbox.is_empty() && i.name == ours);
    !made_here && (config.device == Device::Veth || inline::host_end(config, prev).is_some())
}

/// The plan that the result came from, or what the result lacks, in words.
fn of_result<'a>(
    config: &'a Config,
    prev: &AddResult,
    attachment: &Attachment,
    netns: &Path,
    switch: &mut Switch,
    waiter: &mut Waiter,
) -> Result<Result<Plan<'a>, String>, Failure> {
    let Some(index) = inline::container_index(prev, &attachment.ifname) else {
        return Ok(Err(format!("prevResult has no interface {} in a container", attachment.ifname)));
    };
    let made = &prev.interfaces[index];
    let Some(mac) = crate::spec::config::parse_mac(&made.mac) else {
        return Ok(Err(format!("prevResult says that {} has the hardware address {:?}", made.name, made.mac)));
    };
    let mtu = match (made.mtu, config.mtu) {
        (0, Some(mtu)) => mtu,
        (0, None) => {
            let network = add::asked(config, switch, waiter)?.ok_or_else(|| add::not_set_up(config))?;
            switch.ready(waiter, network)?.mtu
        }
        (mtu, _) => mtu,
    };
    let ips = prev.ips.iter().filter(|ip| ip.interface.is_none_or(|i| i == index)).cloned().collect();
    let addressing = AddResult { ips, routes: prev.routes.clone(), ..AddResult::default() };
    let (attachment, netns) = (attachment.clone(), netns.to_owned());
    Ok(Ok(Plan { config, attachment, netns, mac, mtu, addressing, declared: None }))
}
