//! The CPU's time-stamp counter.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction has no safe form in the standard library")
)]

/// What the counter says; the same on every CPU of a machine whose counter is invariant, as all of this century's
/// second decade are. `None` on architectures without one.
pub(crate) fn ticks() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 CPU has RDTSC. Where the kernel forbids it to programs (prctl PR_SET_TSC, which nothing
        // here asks for) the process is ended, and no memory is touched either way.
        Some(unsafe { core::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}
