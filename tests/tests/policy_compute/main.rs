//! What the controller makes of random clusters, against the reference evaluator: each node's share, what the controller says of
//! connections by it, and what becomes of their packets in the flows of all nodes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod flows;
mod judged;
mod node;
mod shares;

/// Random clusters to try: more in the nightly run. The seed is a cluster's number.
fn worlds() -> std::ops::Range<u64> {
    const WORLDS: u64 = 300;
    0..std::env::var("SLUICE_POLICY_WORLDS").map_or(WORLDS, |value| value.parse().unwrap())
}
