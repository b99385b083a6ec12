//! The cluster's objects, as the API server lists them.
//!
//! [`Store`] has the objects, trimmed to what a node needs ([`trim`]). Reflectors ([`reflect`]) keep it as the API server has it;
//! [`link`] finds the API server. Who reads the store is told which names were touched ([`Touched`]) and reads what is there
//! then: many changes of one object are one look at it.

pub mod link;
pub mod policies;
pub mod reflect;
mod store;
mod table;
mod touched;
pub mod trim;

pub use store::{Objects, Store};
pub use touched::{Kind, Touched};

#[cfg(test)]
mod tests;
