//! The kernel's side of AF_XDP: memory shared with it, sockets, rings, and the program that hands them frames.

mod area;
mod bpf;
mod channels;
mod ring;
mod socket;

pub(super) use area::Area;
pub(super) use bpf::{Attach, Link, Program, SocketMap};
pub(super) use channels::receive_queues;
pub(super) use ring::{Entry, Ring};
pub(super) use socket::{RingKind, Xsk};
