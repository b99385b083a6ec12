//! Containers attached to a running `sluiced` by its API, as a plugin does it: network namespaces with veth pairs and TAPs,
//! and a switch that is ended, killed and started again behind them.
//!
//! They need root, `ip` and `ping`; without, they say so and do nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod attach;
mod confirm;
mod many;
mod node;
mod restart;
