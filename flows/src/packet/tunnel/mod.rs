//! The wire formats of tunnels: what stands between the outer IP or UDP header and the packet inside.
//!
//! The outer headers themselves are the host's, whose sockets send and receive them. What is here turns a
//! [`TunnelKey`](crate::tunnel::TunnelKey) into bytes and back ([`header`]), carries ECN, TOS and TTL between the two
//! IP headers ([`ecn`]) and chooses an outer source port ([`entropy`]). Super-frames stay whole up to the tunnel's
//! socket, which takes and gives trains of datagrams: [`cut`] and [`merge`].
//!
//! # Rules
//! - All of it runs per packet: no allocation, no lock, every access checked.
//! - What is read was sent by anybody. Each reader is total: it returns offsets within the bytes or a [`Refused`].
//! - What the kernel of a peer refuses is refused here too, so that a tunnel does not work in one direction only.

pub mod cut;
pub mod ecn;
pub mod entropy;
mod geneve;
pub mod gre;
pub mod header;
pub mod merge;
mod vxlan;

pub use header::{Inner, MAX_HEADER_LEN, Params, Payload, Refused, overhead, read, write};
