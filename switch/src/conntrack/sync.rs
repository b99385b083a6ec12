//! What the shards need of the standard library, so that a model checker's can stand in its place.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread::yield_now;
