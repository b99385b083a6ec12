//! Connection tracking and address translation: real traffic between network namespaces, and packets made by hand,
//! through the pipelines of `examples/stateful-firewall`, `examples/snat-gateway` and `examples/load-balancer`.
//!
//! The kernels' stacks are the oracle for real traffic. What they never send (both ends open at once, a port used again
//! too early) is made by hand, and Open vSwitch with the same files says what is to become of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod answers;
mod balancer;
mod download;
mod errors;
mod firewall;
mod fragments;
mod ftp;
mod gateway;
mod labs;
mod ovs;
mod programs;
mod scripts;
mod sctp;

/// Bytes of a short stream, each way.
const STREAM: usize = 1 << 20;
