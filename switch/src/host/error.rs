//! Why the host's side of a gateway cannot be made what it is to be.

use super::netlink::NetlinkError;
use nftables::helper::NftablesError;
use std::io;
use thiserror::Error;

/// Why the host's side of a gateway cannot be made what it is to be.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel refused something.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The interface is not there.
    #[error("there is no interface {link}: it comes with the bridge's local port, or with a port of type tap")]
    NoLink {
        /// The interface.
        link: String,
    },
    /// The address is in use.
    #[error("the address {address} is on {holder} already: take it away there, or give {link} another one")]
    AddressTaken {
        /// The address.
        address: ipnet::IpNet,
        /// The interface that has it.
        holder: String,
        /// The interface that was to have it.
        link: String,
    },
    /// There is a route of somebody else in the same place.
    #[error(
        "there is a route of another program's to {wanted}: `{there}`; delete it, or give ours another metric or table"
    )]
    RouteTaken {
        /// The route that was to be.
        wanted: ipnet::IpNet,
        /// The one that is there.
        there: String,
    },
    /// There is another rule with the same priority.
    #[error("there is a rule of another program's with priority {priority}: `{there}`; give ours another priority")]
    RuleTaken {
        /// The priority.
        priority: u32,
        /// The one that is there.
        there: String,
    },
    /// The nftables table with our name is somebody else's.
    #[error("the nftables table {table} is another program's (`nft list table inet {table}`): delete it or rename it")]
    TableTaken {
        /// The table.
        table: String,
    },
    /// A setting of the kernel cannot be read or written.
    #[error("cannot set /proc/sys/{path}: {source}; set it before the switch starts, or allow it to")]
    Sysctl {
        /// Its path below `/proc/sys`.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// There is no `nft`.
    #[error("cannot run `nft`: {source}; install nftables, or set `host_rule = false` under `masquerade`")]
    NoNft {
        /// The system's error.
        source: io::Error,
    },
    /// `nft` failed.
    #[error("nft: {what}")]
    Nft {
        /// What it said.
        what: String,
    },
}

impl From<NftablesError> for HostError {
    fn from(error: NftablesError) -> Self {
        match error {
            NftablesError::NftExecution { inner, .. } => Self::NoNft { source: inner },
            NftablesError::NftFailed { stderr, .. } => {
                Self::Nft { what: stderr.lines().next().unwrap_or("it failed and did not say why").to_owned() }
            }
            other => Self::Nft { what: other.to_string() },
        }
    }
}

impl HostError {
    /// Whether it is a matter of privileges.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Netlink(error) => error.source.kind() == io::ErrorKind::PermissionDenied,
            Self::Sysctl { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}
