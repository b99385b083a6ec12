//! The plugin under real container runtimes: Debian's containerd and podman, and the reference client cnitool, in
//! namespaces that stand for a machine of their own. Images are made on the spot; no registry is asked.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod cnitool;
mod labs;
mod node;
mod podman;
mod runtime;
mod storm;
