//! A bridge's gateway: `sluiced` in a network namespace that stands for a machine, containers behind its ports, and a
//! server outside. The kernels' stacks, `ip` and `nft` say whether it is right; the machine that the suite runs on is not
//! touched.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod host;
mod machine;
mod traffic;
