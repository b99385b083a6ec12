//! The two caches of a worker.

pub(crate) mod exact;
mod lens;
mod lists;
pub(crate) mod megaflow;
