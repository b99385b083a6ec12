//! Tests of flow text as a whole.

mod cases;
mod errors;
mod groups;
mod packets;
