//! What the kernel allows, found out by doing it: in a child, since what a process has left it cannot go back to.

use super::{Check, State};
use crate::failure::Failure;
use crate::lab::launch::{enter_user_namespace, may_make_namespaces, no_namespace};
use nix::sched::{CloneFlags, unshare};
use sluice_switch::host::netlink::{Netlink, VethEnd};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The verb that this program starts itself as, to try things out.
pub(in crate::lab) const VERB: &str = "examine";

const TUN: &str = "/dev/net/tun";

/// Has a child find out what the kernel allows.
pub(super) fn in_child() -> Result<Vec<Check>, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot start this program again: {error}"));
    let mut command = Command::new("/proc/self/exe");
    let output = command.arg0("sluice").args(["lab", VERB, "all"]).stderr(Stdio::inherit()).output().map_err(failed)?;
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.into()))
}

/// Tries what a lab does, and prints what came of it for [`in_child`].
pub(in crate::lab) fn examine() -> Result<(), Failure> {
    let checks = match namespaces() {
        Ok(said) => vec![Check::ok("namespaces", said), joints()],
        Err(failure) => {
            let said = match failure.reason() {
                Some(why) => format!("{}: {why}", failure.what()),
                None => failure.what().to_owned(),
            };
            vec![Check::not(State::Bad, "namespaces", said, failure.next_step())]
        }
    };
    serde_json::to_writer(io::stdout(), &checks).map_err(|error| Failure::from(io::Error::from(error)))
}

/// Goes into namespaces as a lab's supervisor does.
fn namespaces() -> Result<&'static str, Failure> {
    let said = if may_make_namespaces() {
        "as root"
    } else {
        enter_user_namespace()?;
        "as a user, in a user namespace"
    };
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| no_namespace("a PID namespace", errno))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| no_namespace("a network namespace", errno))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(|errno| no_namespace("a mount and an IPC namespace", errno))?;
    Ok(said)
}

/// Whether hosts can be joined to switches, in the network namespace that this process is in by now.
fn joints() -> Check {
    const NAME: &str = "joints";
    let tap = OpenOptions::new().read(true).write(true).open(TUN);
    match (tap, veth()) {
        (Ok(_), Ok(())) => Check::ok(NAME, "TAP and veth"),
        (Ok(_), Err(error)) => Check::ok(NAME, format!("TAP; no veth: {error}")),
        (Err(error), Ok(())) => Check::not(State::Warn, NAME, format!("veth; no TAP: {TUN}: {error}"), tun_fix(&error)),
        (Err(tap), Err(veth)) => {
            Check::not(State::Bad, NAME, format!("no TAP: {TUN}: {tap}; no veth: {veth}"), tun_fix(&tap))
        }
    }
}

fn tun_fix(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "sudo modprobe tun; in a container, give it the device /dev/net/tun",
        ErrorKind::PermissionDenied => "sudo chmod 0666 /dev/net/tun (its mode in most distributions)",
        _ => "in a container, allow it the device /dev/net/tun",
    }
}

fn veth() -> Result<(), String> {
    let here = File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
    let end = |name| VethEnd { name, index: 0, mac: None };
    let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
    netlink.add_veth(end("a"), end("b"), &here, 1500).map_err(|error| error.to_string())
}
