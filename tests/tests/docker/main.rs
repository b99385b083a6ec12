//! `sluice docker` under Debian's `dockerd` and `containerd`: networks, names, published ports, restarts of each program,
//! and what is left at the end.
//!
//! Each test has a machine of its own ([`machine`]): namespaces of network, mounts and processes, made by `machine.sh`.
//! The machine that the suite runs on keeps its interfaces, rules and folders.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod machine;
mod networks;
mod published;
mod restarts;
