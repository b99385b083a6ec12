//! What the test suites share.

pub mod generate;
pub mod interpreter;
