//! Why a network or an attachment was refused: what, where, why, and what to do next.

use super::device::DeviceError;
use super::outside::OutsideError;
use super::spec::AttachmentKey;
use super::store::StoreError;
use crate::ControlError;
use crate::config::SetupError;
use thiserror::Error;

/// Why a change was refused. Nothing was changed then.
#[derive(Debug, Error)]
pub(crate) enum AttachError {
    /// What is asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// What is asked for is another's, who is named.
    #[error("{0}")]
    Taken(String),
    /// There is no such network.
    #[error("there is no network {name:?}; declare it first, or with the attachment")]
    NoNetwork {
        /// The name asked for.
        name: String,
    },
    /// There is no such attachment.
    #[error("there is no attachment {key}")]
    NoAttachment {
        /// The key asked for.
        key: AttachmentKey,
    },
    /// Nobody has confirmed it.
    #[error(
        "{key}: the node's controller has not confirmed it within {seconds} s, and it was undone; see that the node controller of \
         network {} runs and reaches the switch (`sluice cni list` shows what waits)",
        key.network
    )]
    Unconfirmed {
        /// What waited.
        key: AttachmentKey,
        /// How long.
        seconds: u64,
    },
    /// It was taken away before somebody confirmed it.
    #[error("{key}: it was detached while it waited for the node's controller; attach it again if it is to be")]
    Withdrawn {
        /// What waited.
        key: AttachmentKey,
    },
    /// Too many wait already.
    #[error(
        "{key}: {count} attachments wait for the node's controller, which has not confirmed any of them; see that it runs, and \
         try again"
    )]
    Crowded {
        /// What was to wait.
        key: AttachmentKey,
        /// How many do.
        count: usize,
    },
    /// The network has attachments.
    #[error("network {name} has {count} attachments ({first} and so on); detach them first")]
    InUse {
        /// The network.
        name: String,
        /// How many.
        count: usize,
        /// One of them.
        first: AttachmentKey,
    },
    /// The network's attachments are ports of another bridge.
    #[error("network {name} is on bridge {bridge} with {count} attachments; detach them before it moves to {wanted}")]
    Elsewhere {
        /// The network.
        name: String,
        /// Its bridge.
        bridge: String,
        /// The bridge that was asked for.
        wanted: String,
        /// How many.
        count: usize,
    },
    /// The device cannot be a port.
    #[error("{key}: {source}")]
    Device {
        /// Whose it was to be.
        key: Box<AttachmentKey>,
        /// Why.
        source: DeviceError,
    },
    /// The host's interface of a bridge.
    #[error("bridge {bridge}: {source}")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// Why.
        source: Box<DeviceError>,
    },
    /// The switch.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A bridge could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The way to the outside, or from there.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}
