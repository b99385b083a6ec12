//! Why the driver could not do what Docker asked for. Docker shows the text to whoever typed the command.

use sluice_switch::host::netlink::NetlinkError;
use std::net::IpAddr;
use std::path::PathBuf;
use tonic::{Code, Status};

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// The body of a request was not what its method takes.
    #[error("the request is not understood: {0}; dockerd and sluice may be of versions that do not fit")]
    Request(#[from] serde_json::Error),
    /// An ID that no file can be named after.
    #[error("`{0}` is no ID of a network or an endpoint")]
    Id(String),
    /// A network that was not created here.
    #[error("network {0} is not known to the driver; remove it with `docker network rm` and create it again")]
    NoNetwork(String),
    /// An endpoint that was not created here.
    #[error("endpoint {0} is not known to the driver; restart the container")]
    NoEndpoint(String),
    /// Another network has the same first twelve characters.
    #[error("another network's ID begins with {0} too; create this one again")]
    SameId(String),
    /// An option with a name that is not known.
    #[error("there is no option `{name}`; there are: {known}")]
    UnknownOption {
        /// Its name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// An option whose value is not one that it can have.
    #[error("`-o {name}={value}`: {problem}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What it was to be.
        value: String,
        /// Why it cannot.
        problem: String,
    },
    /// An address that is none.
    #[error("`{0}` is no address with a prefix length")]
    Address(String),
    /// A hardware address that is none.
    #[error("`{0}` is no hardware address of one station")]
    Mac(String),
    /// A published port that makes no sense.
    #[error("the published port {0}")]
    Published(String),
    /// A process of the host has the port.
    #[error("port {port}/{protocol} of the host is used by a process of the host; publish another one")]
    PortUsed {
        /// The port.
        port: u16,
        /// Of which protocol.
        protocol: &'static str,
    },
    /// All ports that would do are taken.
    #[error("none of the host's {protocol} ports {first} to {last} is free")]
    NoPort {
        /// Of which protocol.
        protocol: &'static str,
        /// The first that was tried.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// Ports of the host cannot lead to a network that the host is not on.
    #[error("network {0} has no gateway on this host, so no port of the host leads there; leave out -p, or -o gateway")]
    NotOnHost(String),
    /// The kernel would not do something to an interface.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// A file of the state.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the state does not say what it should.
    #[error("{path} is damaged: {source}; move it away and start again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The switch is away.
    #[error("no switch answers on {socket}: {why}; start it (systemctl start sluiced), then try again", socket = socket.display())]
    Away {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        why: String,
    },
    /// The switch is of another version.
    #[error(
        "the switch does not know this request: sluiced is older than `sluice docker`; install the same version of both"
    )]
    OldSwitch,
    /// The switch would not do it.
    #[error("the switch refuses: {0}")]
    Refused(String),
    /// The switch would not make an attachment now.
    #[error("the switch cannot take containers now: {0}; `sluice status` says more")]
    NotReady(String),
    /// A pool of addresses.
    #[error("{0}")]
    Ipam(String),
    /// An address that is not in a network.
    #[error("{address} is in none of the networks of {network}")]
    Foreign {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// A task that ended by itself.
    #[error("the work was given up inside; the log of `sluice docker` says more")]
    Lost,
}

impl DriverError {
    /// What the switch answered.
    pub(crate) fn of(status: &Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::OldSwitch,
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}
