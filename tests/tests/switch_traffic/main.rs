//! Real traffic between hosts, each a network namespace, through the whole switch: the same suite over every kind of
//! port that a kernel's network stack can be behind.
//!
//! The kernels' stacks are the oracle: they check every checksum that arrives finished, put streams and fragments
//! together again, and the bytes are compared. A checksum that arrives partial is believed by the receiving kernel, so
//! what rewrites do to super-frames shows where they leave by a plain TAP, which takes only finished frames.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod delay;
mod normal;
mod reject;
mod removal;
mod rewrite;
mod steering;
mod vlan;

use sluice_tests::host::Kind;

/// Pairs of kinds: each with itself, and those that finish frames behind those that do not.
const PAIRS: [[Kind; 2]; 6] = [
    [Kind::Tap, Kind::Tap],
    [Kind::TapPlain, Kind::TapPlain],
    [Kind::AfPacket, Kind::AfPacket],
    [Kind::Tap, Kind::AfPacket],
    [Kind::Tap, Kind::TapPlain],
    [Kind::AfPacket, Kind::TapPlain],
];

/// Bytes of a stream, each way.
const STREAM: usize = 3 << 20;
