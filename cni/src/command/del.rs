//! DEL: takes an attachment away, from all three places that may know it: the switch, the kernel and the addresses.
//!
//! Each is cleaned whatever became of the others, and what is not there is no error: not the container, not the previous
//! result, not the switch. A switch that is away drops its record when it starts and finds no interface.

use super::{Call, link_failure};
use crate::error::Failure;
use crate::ipam::Ipam;
use crate::link;
use crate::lock::{Lock, PATIENCE};
use crate::spec::{Attachment, Config};
use crate::switch::{Switch, SwitchError, Waiter};
use std::path::Path;

/// Takes the attachment away.
pub(super) fn run(call: Call<'_>) -> Result<(), Failure> {
    let base = Config::read_enough(call.input)?;
    let attachment = base.attachment(call.environment);
    let _lock = Lock::take(&base.data_dir, &attachment.container_id, PATIENCE)?;
    let mut waiter = call.waiter;
    // A namespace that is our own is not the container's any more: its path was used again.
    let netns = call.environment.netns.as_deref().filter(|path| !link::same_netns(path));
    let failures = [
        detach(&mut waiter, &base.socket, &attachment),
        remove(&attachment, netns),
        Ipam::open(call.input, call.environment).and_then(|ipam| ipam.del()).map_err(Failure::from),
    ];
    together(failures.into_iter().filter_map(Result::err))
}

/// Has the switch forget it. A switch that is away will find out by itself.
pub(super) fn detach(waiter: &mut Waiter, socket: &Path, attachment: &Attachment) -> Result<(), Failure> {
    match Switch::connect(waiter, socket).and_then(|mut switch| switch.detach(waiter, attachment)) {
        Ok(_) => Ok(()),
        Err(error @ SwitchError::Away { .. }) => {
            eprintln!("sluice-cni: {error}; it will drop its record when it starts");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes its interface.
pub(super) fn remove(attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
    let deleted = link::delete(&attachment.host_name(), &attachment.alias(), netns, &attachment.ifname);
    deleted.map(drop).map_err(link_failure)
}

/// One failure of all: the first one's kind, and what all say.
pub(super) fn together(failures: impl IntoIterator<Item = Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    let more: Vec<String> = failures.map(|f| f.to_string()).collect();
    if more.is_empty() {
        return Err(first);
    }
    let details = if first.details.is_empty() { String::new() } else { format!("{}; ", first.details) };
    Err(Failure { details: format!("{details}and: {}", more.join("; and: ")), ..first })
}
