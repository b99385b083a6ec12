//! Why a port could not be opened or changed: what, where, why, and what to do next.

use super::SpecError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a port could not be opened or changed. None is worth a retry without a person's (or another program's) help,
/// except [`PortError::Io`].
#[derive(Debug, Error)]
pub enum PortError {
    /// The kernel refused for lack of privilege.
    #[error(
        "port {port}: cannot {op}: not permitted; run as root or with CAP_NET_ADMIN and CAP_NET_RAW, or let `sluice lab` make a user namespace"
    )]
    NoPrivilege {
        /// The port.
        port: String,
        /// What was being done.
        op: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The kernel has no TUN/TAP driver, or the container was not given its device.
    #[error(
        "port {port}: there is no /dev/net/tun; load the driver with `modprobe tun`, or pass the device into the container"
    )]
    NoTun {
        /// The port.
        port: String,
    },
    /// Another interface has the name.
    #[error(
        "port {port}: an interface of this name exists already in this network namespace; choose another name, or remove it with `ip link del {port}`"
    )]
    NameTaken {
        /// The port.
        port: String,
    },
    /// Another program holds the device.
    #[error(
        "port {port}: the device is in use by another program; stop that program (`fuser -v /dev/net/tun` names it) or choose another device"
    )]
    Busy {
        /// The port.
        port: String,
    },
    /// The interface does not exist.
    #[error("port {port}: no such interface in this network namespace; `ip link` lists those there are")]
    NoDevice {
        /// The interface asked for.
        port: String,
    },
    /// The interface is not of the kind asked for.
    #[error("port {port}: the interface is not {wanted}; use type af-packet for other interfaces")]
    WrongDevice {
        /// The port.
        port: String,
        /// What it should have been.
        wanted: &'static str,
    },
    /// The name cannot be an interface's.
    #[error(
        "port {name:?}: an interface's name has 1 to 15 bytes, none of them a slash, a colon, a blank or a control character; choose another"
    )]
    Name {
        /// The name asked for.
        name: String,
    },
    /// The MTU is out of the device's range.
    #[error("port {port}: MTU {mtu} is out of range; {range}")]
    Mtu {
        /// The port.
        port: String,
        /// The value asked for.
        mtu: u32,
        /// What is in range.
        range: &'static str,
    },
    /// An option cannot be changed, or not to this value.
    #[error("port {port}: {why}")]
    Option {
        /// The port.
        port: String,
        /// What is wrong with it.
        why: SpecError,
    },
    /// Another tunnel port of the same kind and UDP port would take the same packets.
    #[error(
        "port {port}: port {other} takes the packets of the same remote_ip, local_ip and key already; give one of them another key or address"
    )]
    TunnelTaken {
        /// The port.
        port: String,
        /// The port that takes them.
        other: String,
    },
    /// A capture file cannot be read or written.
    #[error("port {port}: cannot {op} {path}: {why}")]
    File {
        /// The port.
        port: String,
        /// What was being done.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused the XDP program or its socket for lack of privilege.
    #[error(
        "port {port}: cannot {op}: not permitted; AF_XDP takes CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF outside any user namespace: run as the machine's root, or use type af-packet"
    )]
    NoBpf {
        /// The port.
        port: String,
        /// What was being done.
        op: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The interface has an XDP program.
    #[error(
        "port {port}: another XDP program is at the interface; `ip -d link show {port}` names it: stop the program that it belongs to, or take it off with `ip link set {port} xdp off`"
    )]
    XdpTaken {
        /// The port.
        port: String,
    },
    /// Another AF_XDP socket has the queue.
    #[error(
        "port {port}: another program has an AF_XDP socket on receive queue {queue}; stop it (`ss --xdp -p` names it), or choose other queues with the option `queues`"
    )]
    QueueTaken {
        /// The port.
        port: String,
        /// The queue.
        queue: u32,
    },
    /// The interface has no such queue.
    #[error(
        "port {port}: the interface has no receive queue {queue}: it has {count}, counted from 0; choose one of them, or make more with `ethtool -L`"
    )]
    NoQueue {
        /// The port.
        port: String,
        /// The queue asked for.
        queue: u32,
        /// How many there are.
        count: u32,
    },
    /// The kernel or the driver cannot what the mode asks for.
    #[error(
        "port {port}: cannot {op} in mode {mode}: {source}; AF_XDP takes Linux 5.9 with CONFIG_XDP_SOCKETS, and a driver that has the mode: try mode generic, or type af-packet"
    )]
    NoXdp {
        /// The port.
        port: String,
        /// The mode that was tried last.
        mode: &'static str,
        /// What was being done.
        op: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// Frames' memory may not be locked.
    #[error(
        "port {port}: the limit of locked memory is too low for AF_XDP, which takes 8 MiB a queue or more; raise it (`ulimit -l`, systemd's LimitMEMLOCK=), or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// The port.
        port: String,
    },
    /// The system refused for another reason.
    #[error("port {port}: cannot {op}: {source}")]
    Io {
        /// The port.
        port: String,
        /// What was being done.
        op: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

impl PortError {
    /// The variant that fits what the system said when `op` was tried on `port`.
    pub(crate) fn from_io(port: &str, op: &'static str, source: io::Error) -> Self {
        let port = port.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPrivilege { port, op, source },
            Some(libc::ENODEV | libc::ENXIO) => Self::NoDevice { port },
            Some(libc::EBUSY) => Self::Busy { port },
            _ => Self::Io { port, op, source },
        }
    }
}

/// Checks that `name` can be an interface's name (the kernel's `dev_valid_name`).
///
/// # Errors
/// [`PortError::Name`].
pub(crate) fn check_name(name: &str) -> Result<(), PortError> {
    let bad = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(PortError::Name { name: name.to_owned() });
    }
    Ok(())
}
