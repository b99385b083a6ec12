//! The CNI plugin with a running switch: `sluiced` in a network namespace that stands for a machine, containers that are
//! namespaces, and the plugin called as a runtime calls it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod attach;
mod behind;
mod machine;
mod rollback;
