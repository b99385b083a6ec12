//! Packets: the frame in its buffer, and what can be read from and written to its bytes.

mod frame;
mod offload;

pub use frame::{Frame, HEADROOM, MAX_FRAME_LEN};
pub use offload::{GsoKind, Offload};
