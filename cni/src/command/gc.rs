//! GC: takes away every attachment of a network that the runtime does not name: in the switch, in the kernel and among the
//! addresses, each found by itself, whatever the others know. It goes on after errors, and tells them all at the end.

use super::{Call, del, link_failure};
use crate::error::{Code, Failure};
use crate::ipam::Ipam;
use crate::link;
use crate::spec::config::valid_attachments;
use crate::spec::{Attachment, Config};
use crate::switch::Switch;
use std::collections::BTreeSet;

/// Takes away what is not named.
pub(super) fn run(call: Call<'_>) -> Result<(), Failure> {
    let base = Config::read_enough(call.input)?;
    let valid = valid_attachments(call.input, &base.name)?;
    let mut waiter = call.waiter;
    let mut failures = Vec::new();
    match Switch::connect(&mut waiter, &base.socket) {
        Ok(mut switch) => {
            let listed = switch.attachments(&mut waiter, &base.name).map_err(Failure::from);
            for gone in collect(listed, &mut failures).into_iter().filter(|a| !valid.contains(a)) {
                log(&format!("attachment {gone} is detached"));
                let detached = switch.detach(&mut waiter, &gone).map(drop);
                failures.extend(detached.err().map(Failure::from));
            }
        }
        Err(error) => failures.push(error.into()),
    }
    links(&base.name, &valid, &mut failures);
    let freed = Ipam::open(call.input, call.environment).and_then(|ipam| ipam.gc(&valid));
    failures.extend(freed.err().map(Failure::from));
    report(failures)
}

/// Deletes the interfaces of attachments that are not valid. A network whose name does not fit an alias cannot be told from
/// others there, and what it has left is found only by the switch's list.
fn links(network: &str, valid: &BTreeSet<Attachment>, failures: &mut Vec<Failure>) {
    let prefix = Attachment::alias_prefix(network);
    if !prefix.ends_with(&format!("{network}:")) {
        return;
    }
    // Interfaces of other plugins that the switch has put itself in front of have names of their own, and are its to give back.
    let keep: BTreeSet<String> = valid.iter().map(Attachment::host_name).collect();
    let found = link::ours(&prefix).map_err(link_failure);
    for link in
        collect(found, failures).into_iter().filter(|l| Attachment::is_host_name(&l.name) && !keep.contains(&l.name))
    {
        log(&format!("interface {} ({}) is deleted", link.name, link.alias));
        // It is found on the host, so its name in the container does not matter.
        let deleted = link::delete(&link.name, &link.alias, None, "");
        failures.extend(deleted.err().map(link_failure));
    }
}

/// A list, or none and one more failure.
fn collect<T>(list: Result<Vec<T>, Failure>, failures: &mut Vec<Failure>) -> Vec<T> {
    list.unwrap_or_else(|failure| {
        failures.push(failure);
        Vec::new()
    })
}

fn report(failures: Vec<Failure>) -> Result<(), Failure> {
    match failures.len() {
        0 | 1 => del::together(failures),
        n => {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            let msg = format!("{n} things could not be removed: {}", all.join("; and: "));
            Err(Failure::new(Code::Incomplete, msg).details("what is left is found again by the next GC"))
        }
    }
}

/// Standard error is a plugin's log.
fn log(what: &str) {
    eprintln!("sluice-cni: GC: {what}");
}
