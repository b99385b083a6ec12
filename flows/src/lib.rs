//! The switching model of Sluice.
pub mod field;
pub mod key;
mod owner;
pub mod packet;
mod verdict;

pub use owner::Owner;
pub use verdict::{DropReason, Verdict};
