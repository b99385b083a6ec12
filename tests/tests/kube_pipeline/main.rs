//! The pipeline of a Kubernetes node on real switches with memory ports: packets and their answers, and what of them is translated, on
//! every way through two nodes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod direct;
mod packet;
mod policy;
mod rig;
mod services;
