//! Networks of containers, and the attachments of containers to them.
//!
//! A network is a bridge, perhaps with a gateway to the host and masquerade behind it; an attachment is one interface of one
//! container: a port of that bridge, with flows that keep it to its own addresses.

mod outside;
pub mod spec;
