//! What can go wrong with a container's interface.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Why an interface was not made, deleted or looked at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is nothing at the path.
    #[error("the network namespace {} is gone; the container has ended, or its runtime has not made it yet", path.display())]
    NetnsGone {
        /// The path.
        path: PathBuf,
    },
    /// There is something else at the path.
    #[error(
        "{} is no network namespace but {found}; give the path of one, such as /run/netns/NAME or /proc/PID/ns/net",
        path.display()
    )]
    NotNetns {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// It is the namespace that the caller is in.
    #[error(
        "{} is the host's own network namespace; a container needs one of its own (no host networking)",
        path.display()
    )]
    HostNetns {
        /// The path.
        path: PathBuf,
    },
    /// The container has an interface of that name.
    #[error(
        "there is an interface {ifname} in {} already; delete what made it first, or choose another interface name",
        netns.display()
    )]
    Exists {
        /// The container's namespace.
        netns: PathBuf,
        /// The name.
        ifname: String,
    },
    /// The host has an interface of that name.
    #[error(
        "there is an interface {name} on the host already{}; run DEL for this container first, or delete it",
        of(alias)
    )]
    HostExists {
        /// The name.
        name: String,
        /// What is written on it.
        alias: Option<String>,
    },
    /// An interface that should be this attachment's is another's, and is left alone.
    #[error("the interface {name} {place} is not this attachment's{}; it was left alone", of(alias))]
    Foreign {
        /// Its name.
        name: String,
        /// Where it is.
        place: String,
        /// What is written on it.
        alias: Option<String>,
    },
    /// Not a name for an interface.
    #[error(
        "`{name}` is no name for an interface: it takes 1 to 15 bytes without `/`, `:` and white space, not `.` or `..`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A sysctl that was not set.
    #[error("cannot set the sysctl {key} to `{value}` in {}: {why}", netns.display())]
    Sysctl {
        /// As it was asked for.
        key: String,
        /// Its value.
        value: String,
        /// The container's namespace.
        netns: PathBuf,
        /// Why not.
        why: String,
    },
    /// Somebody else has the address.
    #[error("the address {address} of {ifname} in {} is in use on the network already; release it or take another", netns.display())]
    Duplicate {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifname: String,
        /// The container's namespace.
        netns: PathBuf,
    },
    /// Duplicate address detection does not end.
    #[error(
        "the addresses of {ifname} in {} are still being looked for on the network after {seconds} s; is its link up?",
        netns.display()
    )]
    Unsettled {
        /// The interface.
        ifname: String,
        /// The container's namespace.
        netns: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// A TAP's offloads are chosen by whoever opens it.
    #[error(
        "{ifname} cannot have checksum offload off: with a TAP, the switch chooses offloads; use device veth for that"
    )]
    TapChecksum {
        /// The interface.
        ifname: String,
    },
    /// The kernel has no TAPs.
    #[error("cannot open /dev/net/tun: {source}; load the module `tun`, or use veth interfaces")]
    NoTun {
        /// Its reason.
        source: io::Error,
    },
    /// The kernel would not.
    #[error("cannot {what} {place}: {}{}", Reason(source), hint(source))]
    Kernel {
        /// What it was to do.
        what: String,
        /// Where.
        place: String,
        /// Its reason.
        source: io::Error,
    },
}

/// An error of the kernel without the number that Rust appends.
struct Reason<'a>(&'a io::Error);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => f.write_str(nix::errno::Errno::from_raw(number).desc()),
            None => self.0.fmt(f),
        }
    }
}

fn of(alias: &Option<String>) -> String {
    alias.as_ref().map(|alias| format!(" (its alias is `{alias}`)")).unwrap_or_default()
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "; the gateway is not on the link",
        Some(libc::EADDRNOTAVAIL) => "; the hardware address must be a unicast one",
        Some(libc::EOPNOTSUPP) => "; the kernel lacks what it needs for this",
        _ => "",
    }
}

impl LinkError {
    pub(super) fn kernel(what: impl Into<String>, place: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { what: what.into(), place: place.into(), source: source.into() }
    }

    /// Whether the container's namespace is gone, which for a deletion means that all that was in it is gone too.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NetnsGone { .. } | Self::NotNetns { .. })
    }

    pub(super) fn os(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// How errors name the container's side.
pub(super) fn inside(netns: &Path) -> String {
    format!("in {}", netns.display())
}

/// How errors name the host's side.
pub(super) const ON_HOST: &str = "on the host";
