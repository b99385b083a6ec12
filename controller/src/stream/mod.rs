//! The stream of policies from the cluster role to the nodes.
//!
//! [`Hub`] is the cluster role's end, [`Told`] a node's. Both speak `sluice.v1.PolicyService` over mutual TLS.
//!
//! # Rules
//! - Whose share a stream is, the client's certificate says, and nothing that the client sends. A node gets the certificate for a
//!   token of its own Pod ([`server`]).
//! - A node begins with what it has, as digests. It is sent what differs, so a stream that was torn costs what has changed meanwhile,
//!   whoever leads now, and whoever told the node before: its own look at the cluster, or what it kept on disk.
//! - A batch is put in as one. What a node knows is at every moment what the cluster role knew at some moment.
//! - What cannot be sent at once is not kept: [`Cluster`](crate::policy::Cluster) knows what of a node's share has changed, and
//!   what is sent is as it is when it can be sent.
//!
//! # Limits
//! Messages have about [`PART_SIZE`] bytes; a stream ends after the life of a certificate, and the node comes back with another one.

pub mod certs;
mod client;
pub(crate) mod digests;
pub mod places;
mod server;
pub mod tls;
pub mod words;

#[cfg(test)]
mod tests;

pub use client::{Credentials, FollowError, Place, Told, follow};
pub(crate) use server::now_s;
pub use server::{Hub, Review, Service, Sums, serve};

/// About how many bytes of updates a message has.
pub const PART_SIZE: usize = 256 * 1024;
