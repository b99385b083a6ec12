//! Benches of Sluice, each a file under `benches/`, and what they share: inputs and measures.

pub mod acl;
pub mod alloc;
pub mod cases;
pub mod routes;
pub mod windows;
