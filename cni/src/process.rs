//! What tells a process from every other that had or will have its number: when it started, and in which boot.

use std::io::{self, ErrorKind};

/// The kernel's flag of a process that is ending (`PF_EXITING`, field 9 of `/proc/PID/stat`).
const EXITING: u32 = 4;

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// It is more than a zombie, which holds nothing any more.
    pub lives: bool,
    /// When it started, in clock ticks since boot.
    pub ticks: u64,
    /// It has been killed, and the kernel is at work on what it held.
    pub ending: bool,
}

/// What the kernel says of the process with this number.
///
/// # Errors
/// There is none, or `/proc` is not readable.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the command's name in parentheses and may hold anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let state = fields.next().and_then(|field| field.chars().next());
    let flags: Option<u32> = fields.nth(5).and_then(|field| field.parse().ok());
    let ticks = fields.nth(12).and_then(|field| field.parse().ok());
    let stat = state.zip(flags).zip(ticks).map(|((state, flags), ticks)| Stat {
        lives: !matches!(state, 'Z' | 'X'),
        ticks,
        ending: flags & EXITING != 0,
    });
    stat.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat has another form")))
}

/// Which boot this is.
///
/// # Errors
/// `/proc` is not readable.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
