//! What the test suites share.

#![expect(clippy::expect_used, clippy::panic, reason = "this crate is test code: a panic is a failed test")]

pub mod computed;
pub mod conversation;
pub mod daemon;
pub mod events;
pub mod generate;
pub mod host;
pub mod image;
pub mod interpreter;
pub mod lan;
pub mod netns;
pub mod ovs;
pub mod policy;
pub mod programs;
pub mod switch;
pub mod traffic;
pub mod unixctl;
pub mod variant;
mod watched;
