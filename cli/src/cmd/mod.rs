//! Verbs besides the lab, one file per family.

pub(crate) mod bench;
pub(crate) mod bridge_files;
pub(crate) mod bridges;
pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod completion;
pub(crate) mod ct;
pub(crate) mod docker;
pub(crate) mod drops;
pub(crate) mod events;
pub(crate) mod fdb;
pub(crate) mod flows;
pub(crate) mod gateway;
pub(crate) mod groups;
pub(crate) mod man;
pub(crate) mod mdb;
pub(crate) mod meters;
pub(crate) mod neighbors;
pub(crate) mod packet_out;
pub(crate) mod ports;
pub(crate) mod routes;
pub(crate) mod status;
pub(crate) mod tables;
pub(crate) mod trace;
pub(crate) mod tunnels;
pub(crate) mod wireguard;
