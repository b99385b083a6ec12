//! Reservations whose containers are gone without a DEL.
//!
//! After a reboot nothing of the containers before it is left, but their runtimes often send no DEL. On the first use of the
//! store after a reboot a reservation is freed on two proofs: it was made under another boot of the kernel, and the path of
//! its network namespace is gone or is no namespace any more. One proof is not enough: a namespace may be out of sight of the
//! process that asks, and an old boot ID alone says nothing of a container that a runtime has restored. What has no path (taken over from
//! `host-local`, or made for Docker) stays until DEL or GC.

use super::error::IpamError;
use super::store::{Record, Tables};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

/// The store notes the last boot that it was used under with this kind and name.
const NOTE: (&str, &str) = ("kernel", "boot_id");

/// A reservation that was freed without DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// The network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// Whose it was.
    pub owner: Record,
    /// Why it was freed.
    pub why: &'static str,
}

impl std::fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "released {} of {} in network {}: {}", self.address, self.owner.owner(), self.network, self.why)
    }
}

/// The ID of this boot; empty if the kernel does not say.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// Frees what two proofs say is left over of before a reboot, once after each.
pub(crate) fn after_boot(tables: &mut Tables<'_>, boot_id: &str) -> Result<Vec<Reclaimed>, IpamError> {
    let noted = tables.note(NOTE.0, NOTE.1)?;
    if boot_id.is_empty() || noted.as_deref() == Some(boot_id.as_bytes()) {
        return Ok(Vec::new());
    }
    let mut freed = Vec::new();
    for (network, address, owner) in tables.reservations(None)? {
        let earlier = !owner.boot_id.is_empty() && owner.boot_id != boot_id;
        if earlier && !owner.netns.is_empty() && is_gone(Path::new(&owner.netns)) {
            tables.release(&network, address, None)?;
            let why = "it was made before the last reboot, and its network namespace is gone";
            freed.push(Reclaimed { network, address: address.to_ip(), owner, why });
        }
    }
    tables.set_note(NOTE.0, NOTE.1, Some(boot_id.as_bytes()))?;
    Ok(freed)
}

/// Whether this boot is another than the one that the store was used under last.
pub(crate) fn is_first_use(noted: Option<&[u8]>, boot_id: &str) -> bool {
    !boot_id.is_empty() && noted != Some(boot_id.as_bytes())
}

/// The note for [`is_first_use`].
pub(crate) const fn note() -> (&'static str, &'static str) {
    NOTE
}

/// Whether there is surely no namespace at this path. What cannot be told is not gone.
fn is_gone(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Err(e) => matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        Ok(_) => statfs(path).is_ok_and(|s| s.filesystem_type() != NSFS_MAGIC),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_there_and_a_plain_file_or_nothing_is_gone() {
        assert!(!is_gone(Path::new("/proc/self/ns/net")));
        let dir = tempfile::tempdir().expect("a folder");
        assert!(is_gone(&dir.path().join("nothing")));
        std::fs::write(dir.path().join("file"), "").expect("a file");
        assert!(is_gone(&dir.path().join("file")));
        assert!(is_gone(&dir.path().join("file/below")));
    }

    #[test]
    fn the_kernel_says_which_boot_this_is() {
        assert_eq!(boot_id().len(), 36);
    }
}
