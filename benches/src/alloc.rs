//! An allocator that counts, to tell how much memory a data structure takes, and what allocates.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An allocator, the system's if nothing else is said, that counts the bytes that are in use, and how often some were asked for.
/// Sizes are those asked for, without what the allocator adds to round them up.
#[derive(Debug, Default)]
pub struct CountingAlloc<A = System> {
    inner: A,
    in_use: AtomicUsize,
    made: AtomicUsize,
}

impl CountingAlloc {
    /// The system's, with nothing in use.
    pub const fn new() -> Self {
        Self::over(System)
    }
}

impl<A> CountingAlloc<A> {
    /// Another allocator, with nothing in use.
    pub const fn over(inner: A) -> Self {
        Self { inner, in_use: AtomicUsize::new(0), made: AtomicUsize::new(0) }
    }

    /// Bytes in use.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Allocations so far, those that change a size included.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

// SAFETY: every call goes to the inner allocator unchanged; the counters have no part in it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for CountingAlloc<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.in_use.fetch_add(layout.size(), Ordering::Relaxed);
        self.made.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.inner.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { self.inner.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.in_use.fetch_add(new_size, Ordering::Relaxed);
        self.made.fetch_add(1, Ordering::Relaxed);
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { self.inner.realloc(ptr, layout, new_size) }
    }
}
