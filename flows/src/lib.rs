//! The switching model of Sluice.

pub mod action;
pub mod bridge;
pub mod classifier;
pub mod consistency;
pub mod datapath;
pub mod field;
pub mod filter;
pub mod flow_mod;
pub mod key;
mod matching;
mod owner;
pub mod packet;
mod port;
pub mod rule;
pub mod table;
pub mod text;
pub mod translate;
mod verdict;

pub use matching::Match;
pub use owner::Owner;
pub use port::{DpPort, PortNo};
pub use verdict::{DropReason, Verdict};
