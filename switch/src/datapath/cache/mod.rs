//! The two caches of a worker.

pub(crate) mod exact;
mod lens;
pub(crate) mod lists;
pub(crate) mod megaflow;
