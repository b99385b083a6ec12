//! The switch.

pub mod port;
