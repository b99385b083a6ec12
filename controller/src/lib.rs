//! The controllers that make a Kubernetes network of switches.
//!
//! `sluice-controller node` runs on each node, beside `sluiced`: it watches Nodes, Services and EndpointSlices, and programs the
//! node's switch, so that Pods reach each other, Services and the outside.
//!
//! # The way of a change
//! `watch` keeps the cluster's objects as they are listed; `services` and `node` turn them into plain facts ([`facts`]);
//! [`pipeline`] turns facts into flows and groups ([`flow`]), one [`flow::Part`] for each object; `program` brings the switch from
//! what it has to what all parts together say. What an event carries is never looked at: an event says only that it is time to look at
//! what is listed.

pub mod cleanup;
pub mod cluster;
pub mod config;
pub mod copy;
pub mod facts;
pub mod flow;
pub mod http;
pub mod install;
pub mod metrics;
pub mod node;
pub mod pipeline;
pub mod policy;
pub mod program;
pub mod services;
pub mod stream;
pub mod watch;
