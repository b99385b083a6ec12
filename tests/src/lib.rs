//! What the test suites share.

#![expect(clippy::expect_used, reason = "this crate is test code: a panic is a failed test")]

pub mod generate;
pub mod interpreter;
pub mod netns;
