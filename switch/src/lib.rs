//! The switch.

pub mod api;
pub mod config;
pub mod port;
