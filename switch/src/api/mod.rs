//! The control API's server: gRPC on a unix socket.

mod socket;

pub use socket::{Socket, SocketError};
