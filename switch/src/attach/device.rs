//! What an attachment's port is made of: another's interface, which is there before the switch and after it.
//!
//! # A veth pair's end
//! It is in the host's network namespace, whose own stack must have nothing to do with what the container sends: no answer
//! to its ARP, no packet routed, no IPv6. The kernel is told so by settings of the interface, which hold while the switch is
//! away too.
//!
//! # A TAP
//! It is in the container's network namespace, entered by a thread of its own to open it. The TAP is persistent, and its
//! descriptor works from everywhere.

use super::inline;
use super::spec::{AttachmentKey, AttachmentSpec, Device};
use crate::host::netlink::{LinkChange, Netlink, NetlinkError};
use crate::port::{AfPacket, AfPacketOptions, PortDevice, PortError, Tap, TapOptions};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use thiserror::Error;

/// Longest text that the kernel keeps with an interface, in bytes.
const ALIAS_MAX: usize = 255;
/// A setting of an interface below `/proc/sys/net`, with `LINK` for its name, and its value.
type Setting = (&'static str, &'static str);

/// Those of a bridge's own interface: the host answers for the addresses of that interface alone, and takes nothing from
/// sources that are not behind it.
pub(super) const BRIDGE_SETTINGS: [Setting; 2] =
    [("ipv4/conf/LINK/rp_filter", "1"), ("ipv4/conf/LINK/arp_ignore", "1")];

/// Those of a veth pair's end on the host.
const SETTINGS: [Setting; 5] = [
    ("ipv4/conf/LINK/rp_filter", "1"),
    ("ipv4/conf/LINK/arp_ignore", "8"),
    ("ipv4/conf/LINK/forwarding", "0"),
    ("ipv4/conf/LINK/accept_local", "0"),
    ("ipv6/conf/LINK/disable_ipv6", "1"),
];

/// Why a device cannot be a port.
#[derive(Debug, Error)]
pub(crate) enum DeviceError {
    /// It is not there.
    #[error("there is no interface {interface} in the switch's network namespace; `ip link` lists those there are")]
    NoLink {
        /// The interface.
        interface: String,
    },
    /// It is another attachment's.
    #[error("the interface {interface} is marked as {alias:?}; it belongs to that one")]
    NotOurs {
        /// The interface.
        interface: String,
        /// What is written on it.
        alias: String,
    },
    /// The container's network namespace cannot be entered.
    #[error("cannot enter the network namespace {}: {source}", path.display())]
    Namespace {
        /// The namespace.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A setting of the interface's cannot be made.
    #[error(
        "cannot set /proc/sys/net/{setting} to {value}: {source}; the host must not take the container's packets, so let \
         /proc/sys be written"
    )]
    Setting {
        /// The setting.
        setting: String,
        /// Its value.
        value: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The port refused.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What is written on an attachment's interface, so that it is known again.
pub(super) fn alias_of(key: &AttachmentKey) -> String {
    let mut alias = format!("sluice:{}:{}:{}", key.network, key.container_id, key.ifname);
    let end = (0..=ALIAS_MAX.min(alias.len())).rev().find(|end| alias.is_char_boundary(*end)).unwrap_or(0);
    alias.truncate(end);
    alias
}

/// A device that was opened, and what is written on it.
pub(super) struct Opened {
    pub(super) device: PortDevice,
    pub(super) alias: Option<String>,
    /// The other side of an interface that was taken over: its name, and itself.
    pub(super) end: Option<(String, PortDevice)>,
}

/// Opens the device of an attachment, for `workers` workers.
///
/// # Errors
/// [`DeviceError`].
pub(super) fn open(spec: &AttachmentSpec, workers: usize) -> Result<Opened, DeviceError> {
    let queues = workers.max(1);
    match &spec.device {
        Device::Veth { interface } => {
            let alias = take_end(&spec.key, interface)?;
            let port = AfPacket::open(interface, &AfPacketOptions { queues, ..AfPacketOptions::default() })?;
            // Who asks for a link by netlink has the kernel note a carrier that has just come (Linux 6.9). Otherwise it does
            // so when it has time, and the port would count as down until links are looked at again.
            Netlink::open()?.link(interface)?;
            Ok(Opened { device: PortDevice::Device(Box::new(port)), alias: Some(alias), end: None })
        }
        Device::Tap { netns, interface } => {
            // Whether it is up in the container is the container's matter.
            let options = TapOptions { queues, up: false, ..TapOptions::default() };
            let open = || Ok(Tap::attach(interface, &options));
            let port =
                within(netns, open).map_err(|source| DeviceError::Namespace { path: netns.clone(), source })??;
            Ok(Opened { device: PortDevice::Device(Box::new(port)), alias: None, end: None })
        }
        Device::Inline { interface } => {
            let taken = inline::take(&spec.key, interface, &spec.port)?;
            let options = AfPacketOptions { queues, ..AfPacketOptions::default() };
            let open = |name: &str| AfPacket::open(name, &options).map(|port| PortDevice::Device(Box::new(port)));
            let (device, end) = (open(&spec.port)?, open(&taken.end)?);
            Ok(Opened { device, alias: Some(taken.alias), end: Some((taken.end, end)) })
        }
    }
}

/// Marks a veth pair's end and has the host leave its packets alone. Returns what is written on it.
fn take_end(key: &AttachmentKey, interface: &str) -> Result<String, DeviceError> {
    let mut netlink = Netlink::open()?;
    let link = netlink.link(interface)?.ok_or_else(|| DeviceError::NoLink { interface: interface.to_owned() })?;
    let own = alias_of(key);
    let alias = match link.alias.filter(|alias| !alias.is_empty()) {
        Some(alias) if alias.starts_with("sluice:") && alias != own => {
            return Err(DeviceError::NotOurs { interface: interface.to_owned(), alias });
        }
        Some(alias) => alias,
        None => {
            let change = LinkChange { alias: Some(own.clone()), ..LinkChange::default() };
            netlink.set_link(link.index, &change)?;
            own
        }
    };
    leave_alone(interface)?;
    Ok(alias)
}

/// Has the host leave an interface's packets alone.
///
/// # Errors
/// [`DeviceError::Setting`].
pub(super) fn leave_alone(interface: &str) -> Result<(), DeviceError> {
    set_all(interface, &SETTINGS)
}

/// Sets settings of an interface that are not as they are to be.
///
/// # Errors
/// [`DeviceError::Setting`].
pub(super) fn set_all(interface: &str, wanted: &[Setting]) -> Result<(), DeviceError> {
    for (path, setting, value) in settings(interface, wanted) {
        let written = match fs::read_to_string(&path) {
            Ok(text) if text.trim() == value => Ok(()),
            // A kernel without IPv6 has none of its settings.
            Err(error) if error.kind() == ErrorKind::NotFound && setting.starts_with("ipv6") => Ok(()),
            _ => fs::write(&path, value),
        };
        written.map_err(|source| DeviceError::Setting { setting, value, source })?;
    }
    Ok(())
}

/// Settings of an interface: file, name and value.
fn settings<'a>(
    interface: &'a str,
    wanted: &'a [Setting],
) -> impl Iterator<Item = (String, String, &'static str)> + 'a {
    wanted.iter().map(move |(setting, value)| {
        let setting = setting.replace("LINK", interface);
        (format!("/proc/sys/net/{setting}"), setting, *value)
    })
}

/// What differs from the settings that a veth pair's end is to have, in words.
pub(super) fn wrong_settings(interface: &str) -> Vec<String> {
    let differs = |(path, setting, value): (String, String, &str)| match fs::read_to_string(path) {
        Ok(text) if text.trim() == value => None,
        Err(error) if error.kind() == ErrorKind::NotFound && setting.starts_with("ipv6") => None,
        Ok(text) => {
            let name = format!("net/{setting}");
            Some(format!("{name} is {}, and is to be {value} so that the host leaves the packets alone", text.trim()))
        }
        Err(error) => Some(format!("net/{setting} cannot be read: {error}")),
    };
    settings(interface, &SETTINGS).filter_map(differs).collect()
}

/// Why the device of an attachment is gone for good, if it is: nothing of its name is there that is marked as its own.
///
/// # Errors
/// [`DeviceError`], when it cannot be told.
pub(super) fn gone(spec: &AttachmentSpec, alias: Option<&str>) -> Result<Option<String>, DeviceError> {
    match &spec.device {
        Device::Inline { interface } => inline::is_gone(&spec.key, interface),
        Device::Veth { interface } => Ok(match Netlink::open()?.link(interface)? {
            None => Some(format!("there is no interface {interface} any more")),
            Some(link) if alias.is_some() && link.alias.as_deref() != alias => {
                Some(format!("the interface {interface} is another one by now"))
            }
            Some(_) => None,
        }),
        Device::Tap { netns, interface } => {
            let there = || match Netlink::open().and_then(|mut netlink| netlink.link(interface)) {
                Ok(link) => Ok(link.is_some()),
                Err(error) => Err(error.source),
            };
            match within(netns, there) {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(format!("there is no interface {interface} in {} any more", netns.display()))),
                // A namespace that is gone leaves no file, or an empty one.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                    Ok(Some(format!("there is no network namespace {} any more", netns.display())))
                }
                Err(source) => Err(DeviceError::Namespace { path: netns.clone(), source }),
            }
        }
    }
}

/// Does `work` in the network namespace `path`, on a thread of its own.
///
/// # Errors
/// The namespace is not there or cannot be entered, or what `work` says.
fn within<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let file = File::open(path)?;
    let enter = || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sluice-netns".to_owned()).spawn_scoped(scope, enter)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opened the device panicked")))
    })
}
