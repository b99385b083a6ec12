//! Verbs besides the lab, one file per family.

pub(crate) mod completion;
pub(crate) mod man;
