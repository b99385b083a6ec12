//! Networks of containers and the outside: a switch in a network namespace that stands for a machine, containers behind it,
//! and a client outside. Gateways of several networks side by side, and ports of the machine that lead to containers. The
//! kernels' stacks, `ip`, `nft` and a netlink monitor say whether it is right.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod gateways;
mod machine;
mod ports;
mod stale;
