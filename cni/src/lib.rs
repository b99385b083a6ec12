//! The CNI plugin of Sluice as a library: the protocol ([`spec`]), the container's interface ([`link`]), address management
//! ([`ipam`]), and the operations over them.
//!
//! The binary `sluice-cni` is what container runtimes start, once for each operation: the configuration comes on standard
//! input, the parameters in the environment, and the answer goes to standard output. It makes and sets up the container's
//! interface, and has the running switch attach it over gRPC. Nothing here links the switch itself.

pub mod command;
pub mod error;
pub mod ipam;
pub mod lab;
pub mod link;
pub mod lock;
pub mod process;
pub mod spec;
pub mod switch;
