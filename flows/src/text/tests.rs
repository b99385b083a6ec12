//! Tests of flow text as a whole.

mod actions;
mod cases;
mod errors;
mod groups;
mod packets;
