//! The switching model of Sluice, pure: no clock, file, socket or thread, and time comes in as an argument.
//!
//! From the bottom up: [`packet`] reads and rewrites frames; [`key`] and [`field`] say where each field of a packet
//! lives and what it is called; [`Match`], [`action`] and [`rule`] are what a flow is; [`classifier`] and [`table`]
//! find the rule for a packet; [`bridge`] puts tables and ports together into a model; [`translate`] walks the model
//! with a packet and returns [`datapath`] actions with the mask they hold under; [`explain`] tells that to a person.
//! [`group`] and [`meter`] are what flows share, [`mirror`] is what is copied of the packets of ports, [`tunnel`] is what is
//! known of ports that lead to other hosts. [`text`] reads and prints all of it in Open vSwitch's syntax;
//! [`bridge_mod`], [`flow_mod`] and [`consistency`] change bridges.

pub mod action;
pub mod bridge;
pub mod bridge_mod;
pub mod classifier;
pub mod consistency;
pub mod datapath;
pub mod explain;
pub mod field;
pub mod filter;
pub mod flow_mod;
pub mod gateway;
pub mod group;
pub mod key;
mod matching;
pub mod meter;
pub mod mirror;
mod owner;
pub mod packet;
mod port;
pub mod reference;
pub mod router;
pub mod rule;
pub mod station;
pub mod table;
pub mod text;
pub mod translate;
pub mod tunnel;
mod verdict;

pub use matching::Match;
pub use owner::{FileLines, Owner};
pub use port::{DpPort, PortNo};
pub use verdict::{DropReason, Verdict};
