//! Limits of a port's rate.

mod limits;

pub use limits::{Limits, Rate};
