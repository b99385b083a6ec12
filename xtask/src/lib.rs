//! What chores and test suites share: writing container images.

pub mod oci;
pub mod toolbox;
