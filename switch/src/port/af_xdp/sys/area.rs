//! Memory that the kernel reads and writes too: chunks for frames, and rings.
#![expect(unsafe_code, reason = "memory shared with the kernel has no safe form")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// A mapping of whole pages, unmapped when dropped. What the kernel has pinned of it stays valid for the kernel.
#[derive(Debug)]
pub(in super::super) struct Area {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an area is memory that belongs to nobody's thread, and every access goes through a borrow of it or through
// atomics.
unsafe impl Send for Area {}

impl Area {
    /// Zeroed memory of `len` bytes, rounded up to whole pages, present from the start.
    pub(in super::super) fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: no address is asked for, so nothing that is there is replaced.
        Self::mapped(len, unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) })
    }

    /// `len` bytes of what `fd` has at `offset`, shared with the kernel.
    pub(super) fn of_file(fd: BorrowedFd<'_>, offset: libc::off_t, len: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: as in `anonymous`; the descriptor is open for the length of the call.
        Self::mapped(len, unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd.as_raw_fd(), offset) })
    }

    fn mapped(len: usize, base: *mut libc::c_void) -> io::Result<Self> {
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where it is.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(in super::super) fn len(&self) -> usize {
        self.len
    }

    /// `len` bytes at `at`, which the kernel does not write meanwhile; `None` where they are not all inside.
    pub(in super::super) fn bytes(&self, at: usize, len: usize) -> Option<&[u8]> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the range lies in the mapping, which was zeroed and lives as long as the borrow. Whoever asks owns the
        // chunk: the kernel has handed it over by a ring, and writes to it again only after it was handed back.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) })
    }

    /// The same, to write to.
    pub(in super::super) fn bytes_mut(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: as in `bytes`, and the area is borrowed for itself.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
