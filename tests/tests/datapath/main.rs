//! The data path as a whole, with memory ports: what goes in, what comes out, what is counted.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod caches;
mod devices;
mod frames;
mod learning;
mod lifecycle;
mod output;

/// The ports of a frame that left by none.
const NOWHERE: [u16; 0] = [];
