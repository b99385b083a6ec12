//! Packets: the frame in its buffer, and what can be read from and written to its bytes.

pub mod answer;
pub mod checksum;
pub mod compose;
pub mod encap;
pub mod fragment;
mod frame;
pub mod hop;
mod layers;
pub mod membership;
mod offload;
pub mod readdress;
pub mod reject;
pub mod rewrite;
pub mod segment;
#[cfg(test)]
pub(crate) mod testing;
pub mod tunnel;

pub use frame::{Frame, HEADROOM, MAX_FRAME_LEN};
pub use layers::{L3, L4, Layers, extract, extract_into};
pub use offload::{GsoKind, Offload};
