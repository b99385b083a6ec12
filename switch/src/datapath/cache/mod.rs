//! The two caches of a worker.

pub(crate) mod exact;
mod lens;
pub(crate) mod megaflow;
