//! One of a socket's rings, as it lies in the memory that is shared with the kernel (linux/if_xdp.h).
#![expect(unsafe_code, reason = "memory shared with the kernel has no safe form")]

use super::Area;
use std::io;
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::sync::atomic::AtomicU32;

/// What a ring holds: plain integers, for which all bytes are valid.
pub(in super::super) trait Entry: Copy + sealed::Plain {}
impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

mod sealed {
    pub(in super::super::super) trait Plain {}
    impl Plain for u64 {}
    impl Plain for libc::xdp_desc {}
}

/// Indexes and entries of a ring. Who may write what is the business of who uses it: one side produces, one consumes.
#[derive(Debug)]
pub(in super::super) struct Ring<T> {
    area: Area,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    mask: u32,
    kind: PhantomData<T>,
}

impl<T: Entry> Ring<T> {
    /// A ring of `size` entries, a power of two, that lies in `area` as the kernel says.
    ///
    /// # Errors
    /// `EINVAL` when it does not.
    pub(super) fn new(area: Area, at: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let place = |offset: u64, align: usize, len: usize| {
            let offset = usize::try_from(offset).ok()?;
            (offset % align == 0 && offset.checked_add(len)? <= area.len()).then_some(offset)
        };
        let index = |offset| place(offset, align_of::<AtomicU32>(), size_of::<AtomicU32>());
        let all = size_of::<T>() * size as usize;
        let places = (index(at.producer), index(at.consumer), index(at.flags), place(at.desc, align_of::<T>(), all));
        let (Some(producer), Some(consumer), Some(flags), Some(entries)) = places else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        if !size.is_power_of_two() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { area, producer, consumer, flags, entries, mask: size - 1, kind: PhantomData })
    }

    /// Entries that it holds.
    pub(in super::super) fn size(&self) -> u32 {
        self.mask + 1
    }

    /// The index that the next entry will be written at.
    pub(in super::super) fn producer(&self) -> &AtomicU32 {
        self.index(self.producer)
    }

    /// The index that the next entry will be read at.
    pub(in super::super) fn consumer(&self) -> &AtomicU32 {
        self.index(self.consumer)
    }

    /// What the kernel says of it: `XDP_RING_NEED_WAKEUP`.
    pub(in super::super) fn flags(&self) -> &AtomicU32 {
        self.index(self.flags)
    }

    fn index(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `new` made sure that the place is aligned and lies in the area, which lives as long as the borrow. The
        // kernel accesses it by whole words too.
        unsafe { AtomicU32::from_ptr(self.area.base().as_ptr().add(at).cast()) }
    }

    /// The entry at `index`, whatever turn of the ring it is in.
    #[inline]
    pub(in super::super) fn get(&self, index: u32) -> T {
        // SAFETY: the mask keeps the entry inside the room that `new` made sure of, aligned as it has to be; all bytes
        // are valid for it. The kernel wrote it before it moved its index, and does not write it again before we move
        // ours.
        unsafe { self.at(index).read() }
    }

    /// Writes the entry at `index`.
    #[inline]
    pub(in super::super) fn set(&mut self, index: u32, entry: T) {
        // SAFETY: as in `get`; the kernel reads it only after our index was moved.
        unsafe { self.at(index).write(entry) }
    }

    fn at(&self, index: u32) -> *mut T {
        let offset = self.entries + (index & self.mask) as usize * size_of::<T>();
        self.area.base().as_ptr().wrapping_add(offset).cast()
    }
}

#[cfg(test)]
impl<T: Entry> Ring<T> {
    /// Two views of one ring in fresh memory, for a test to be both sides, with both indexes at `start`.
    pub(in super::super) fn pair(size: u32, start: u32) -> [Self; 2] {
        use std::fs::File;
        use std::os::fd::{AsFd, FromRawFd};
        let at = libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc: 192 };
        let len = 192 + size_of::<T>() * size as usize;
        // SAFETY: the name is a C string; the descriptor is new and nothing else owns it.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(len as u64).unwrap();
        let views = [(); 2].map(|()| Self::new(Area::of_file(file.as_fd(), 0, len).unwrap(), &at, size).unwrap());
        views[0].producer().store(start, std::sync::atomic::Ordering::Release);
        views[0].consumer().store(start, std::sync::atomic::Ordering::Release);
        views
    }
}
