//! The program at an interface that hands frames to sockets, by bpf(2).
//!
//! It is six instructions, so it is written here as numbers, and no compiler or loader of programs is needed:
//! `return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS)`. What comes by a queue without a socket goes to the
//! host's stack. All of it belongs to descriptors: the kernel takes the program off the interface when they are closed,
//! however the process ends.
#![expect(unsafe_code, reason = "bpf(2) has no safe form in the standard library")]

use super::socket::Xsk;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Commands of bpf(2).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;
/// The kinds of map, program and place that are used.
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// How it is to be run, in words of linux/if_link.h.
const FLAGS_SKB_MODE: u32 = 1 << 1;
const FLAGS_DRV_MODE: u32 = 1 << 2;
/// The program takes frames in several pieces.
const PROG_HAS_FRAGS: u32 = 1 << 5;
/// Where `rx_queue_index` is in `xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;
/// What becomes of frames of other queues.
const XDP_PASS: i32 = 2;
const REDIRECT_MAP: i32 = 51;
/// The map is named by its descriptor.
const PSEUDO_MAP_FD: u8 = 1;
const NAME: [u8; 16] = *b"sluice_xsk\0\0\0\0\0\0";

/// How a program is run at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Attach {
    /// By the driver, before there is a packet of the kernel's.
    Native,
    /// By the kernel's stack, for every driver.
    Generic,
}

/// The map of sockets by queue.
#[derive(Debug)]
pub(in super::super) struct SocketMap(OwnedFd);

impl SocketMap {
    /// One for queues below `queues`.
    pub(in super::super) fn new(queues: u32) -> io::Result<Self> {
        #[repr(C)]
        struct Request {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            map_flags: u32,
            inner_map_fd: u32,
            numa_node: u32,
            map_name: [u8; 16],
        }
        let mut request = Request {
            map_type: MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: queues,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: NAME,
        };
        // SAFETY: the request is laid out as bpf(2) says for this command, and has no pointers.
        Ok(Self(unsafe { bpf_fd(MAP_CREATE, &mut request) }?))
    }

    /// Has `queue` hand its frames to `socket`, which has a receive ring.
    pub(in super::super) fn insert(&self, queue: u32, socket: &Xsk) -> io::Result<()> {
        #[repr(C)]
        struct Request {
            map_fd: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let value = socket.as_fd().as_raw_fd();
        let mut request = Request {
            map_fd: self.0.as_raw_fd().unsigned_abs(),
            padding: 0,
            key: ptr::from_ref(&queue) as u64,
            value: ptr::from_ref(&value) as u64,
            flags: 0,
        };
        // SAFETY: as in `new`; key and value are of the map's sizes and live until the call returns.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut request) }.map(drop)
    }
}

/// The program, loaded.
#[derive(Debug)]
pub(in super::super) struct Program(OwnedFd);

/// One instruction, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Instruction { code, registers, offset, immediate }
}

/// The program for this map.
fn instructions(map: RawFd) -> [Instruction; 6] {
    [
        instruction(0x61, 2, 1, RX_QUEUE_INDEX, 0),  // r2 = *(u32 *)(r1 + 16)
        instruction(0x18, 1, PSEUDO_MAP_FD, 0, map), // r1 = map, 64 bits
        instruction(0, 0, 0, 0, 0),                  // their upper half
        instruction(0xb7, 3, 0, 0, XDP_PASS),        // r3 = XDP_PASS
        instruction(0x85, 0, 0, 0, REDIRECT_MAP),    // r0 = bpf_redirect_map(r1, r2, r3)
        instruction(0x95, 0, 0, 0, 0),               // return r0
    ]
}

impl Program {
    /// Loads it. One without `frags` is not run at interfaces whose frames come in several pieces.
    pub(in super::super) fn load(map: &SocketMap, frags: bool) -> io::Result<Self> {
        #[repr(C)]
        struct Request {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
            kern_version: u32,
            prog_flags: u32,
            prog_name: [u8; 16],
            prog_ifindex: u32,
            expected_attach_type: u32,
        }
        let code = instructions(map.0.as_raw_fd());
        let license = c"Apache-2.0";
        let mut request = Request {
            prog_type: PROG_TYPE_XDP,
            insn_cnt: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: if frags { PROG_HAS_FRAGS } else { 0 },
            prog_name: NAME,
            prog_ifindex: 0,
            expected_attach_type: ATTACH_XDP,
        };
        // SAFETY: as in `SocketMap::new`; the instructions and the licence live until the call returns.
        Ok(Self(unsafe { bpf_fd(PROG_LOAD, &mut request) }?))
    }
}

/// The program at an interface; it goes when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Link(OwnedFd);

impl Link {
    /// Puts the program at the interface of this index in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EBUSY` or `EEXIST` when there is another program, `EOPNOTSUPP` when the driver runs none, `EINVAL` before Linux
    /// 5.9.
    pub(in super::super) fn attach(program: &Program, index: i32, attach: Attach) -> io::Result<Self> {
        #[repr(C)]
        struct Request {
            prog_fd: u32,
            target_ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let mut request = Request {
            prog_fd: program.0.as_raw_fd().unsigned_abs(),
            target_ifindex: index.unsigned_abs(),
            attach_type: ATTACH_XDP,
            flags: match attach {
                Attach::Native => FLAGS_DRV_MODE,
                Attach::Generic => FLAGS_SKB_MODE,
            },
        };
        // SAFETY: as in `SocketMap::new`.
        Ok(Self(unsafe { bpf_fd(LINK_CREATE, &mut request) }?))
    }
}

impl Drop for Link {
    /// At once: a process that was started and has not yet come to run its program has the descriptor too.
    fn drop(&mut self) {
        #[repr(C)]
        struct Request {
            link_fd: u32,
        }
        let mut request = Request { link_fd: self.0.as_raw_fd().unsigned_abs() };
        // SAFETY: as in `SocketMap::new`. What can fail is that the interface is gone, and the program with it.
        _ = unsafe { bpf(LINK_DETACH, &mut request) };
    }
}

/// A command that returns a new descriptor, which closes on exec.
///
/// # Safety
/// As [`bpf`]; the command returns a descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, request: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for command and request; the descriptor is new and nothing else owns it.
    unsafe { bpf(command, request).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// # Safety
/// `T` is laid out as bpf(2) says for the command, and its pointers are good until the call returns.
unsafe fn bpf<T>(command: libc::c_int, request: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes at most the bytes that `request` has; the caller vouches for what is in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(request), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
