//! TFTP (RFC 1350): the server answers a request from a port of its own choice, to the port that the request came from.
//!
//! As in Open vSwitch every packet of the client's counts as a request, so that one that is repeated goes on being
//! answered; what it says is not looked at.

use super::super::conn::Conn;
use super::super::tuple::Direction;

/// The port that the client waits at, and the one that the server knows it by, if a packet of `direction` is a request.
pub(super) fn request(conn: &Conn, direction: Direction) -> Option<(u16, u16)> {
    (direction == Direction::Original).then_some((conn.original.src_port, conn.reply.dst_port))
}
