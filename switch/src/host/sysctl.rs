//! Settings of the kernel for the calling thread's network namespace, by files below `/proc/sys`.

use super::HostError;
use super::desired::Sysctl;
use std::io;

fn file(path: &str) -> String {
    format!("/proc/sys/{path}")
}

/// The setting's value; `None` where the kernel has no such setting (IPv6 may be missing).
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &str) -> Result<Option<String>, HostError> {
    match std::fs::read_to_string(file(path)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::Sysctl { path: path.to_owned(), source }),
    }
}

/// Sets it.
///
/// # Errors
/// The kernel refuses, or `/proc/sys` may not be written, as in many containers.
pub(super) fn write(setting: &Sysctl) -> Result<(), HostError> {
    std::fs::write(file(&setting.path), setting.value)
        .map_err(|source| HostError::Sysctl { path: setting.path.clone(), source })
}
