//! What names an attachment, and the names in the kernel that follow from it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name of an interface, in bytes: the kernel's 16 less the zero at the end.
const MAX_IFNAME_LEN: usize = 15;
/// Longest network name, in bytes, as a file name.
const MAX_NETWORK_LEN: usize = 255;
/// Longest alias, in bytes, that the kernel takes.
const MAX_ALIAS_LEN: usize = 255;
/// What the names of our interfaces on the host begin with.
const HOST_NAME: &str = "sl";
/// What the aliases of our interfaces begin with.
const ALIAS: &str = "sluice:";

/// An interface of a container in a network, which is what ADD makes and DEL removes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The container's ID.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
}

/// A name that CNI or the kernel does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not valid: {wanted}")]
pub struct InvalidName {
    /// What it is a name of.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// How names of its kind are.
    pub wanted: &'static str,
}

impl Attachment {
    /// The name of the host's end: `sl` and 12 hexadecimal digits, the same whenever it is asked for.
    pub fn host_name(&self) -> String {
        let mut all = Fnv::new();
        for part in [&self.network, &self.container_id, &self.ifname] {
            all.add(part.as_bytes());
            // No name has this byte, so names cannot run into one another.
            all.add(&[0]);
        }
        format!("{HOST_NAME}{:012x}", all.end() >> 16)
    }

    /// Whether this may be the [host name](Self::host_name) of an attachment.
    pub fn is_host_name(name: &str) -> bool {
        let digits = name.strip_prefix(HOST_NAME).unwrap_or_default();
        digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// The interface's alias in the kernel, `sluice:NETWORK:CONTAINER:IFNAME`, cut after 255 bytes.
    pub fn alias(&self) -> String {
        cut(format!("{}{}:{}", Self::alias_prefix(&self.network), self.container_id, self.ifname))
    }

    /// What the aliases of a network's interfaces begin with. Of the longest names it is cut, and then says too little.
    pub fn alias_prefix(network: &str) -> String {
        cut(format!("{ALIAS}{network}:"))
    }

    /// Checks all three names.
    ///
    /// # Errors
    /// The first that is not valid.
    pub fn validate(&self) -> Result<(), InvalidName> {
        is_name("the network's name", &self.network)?;
        is_name("the container's ID", &self.container_id)?;
        is_ifname(&self.ifname)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// Whether a network's name or a container's ID is as the specification wants it, and fits a file's name.
///
/// # Errors
/// It is not.
pub fn is_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= MAX_NETWORK_LEN && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Ok(());
    }
    let wanted = "1 to 255 letters, digits, '_', '.' and '-', the first a letter or digit";
    Err(InvalidName { what, name: name.to_owned(), wanted })
}

/// Whether the kernel and the specification take this name of an interface.
///
/// # Errors
/// They do not.
pub fn is_ifname(name: &str) -> Result<(), InvalidName> {
    let length = (1..=MAX_IFNAME_LEN).contains(&name.len());
    let odd = name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if length && !odd && name != "." && name != ".." {
        return Ok(());
    }
    let wanted = "1 to 15 bytes without '/', ':' and white space, and not '.' or '..'";
    Err(InvalidName { what: "the interface's name", name: name.to_owned(), wanted })
}

/// What the kernel takes of an alias.
fn cut(mut alias: String) -> String {
    let end = (0..=MAX_ALIAS_LEN.min(alias.len())).rev().find(|end| alias.is_char_boundary(*end)).unwrap_or(0);
    alias.truncate(end);
    alias
}

/// FNV-1a, 64 bits, with a last round that spreads what the last bytes changed: short, and the same in every program that
/// has to find our interfaces.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn end(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^ (x >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(network: &str, id: &str, ifname: &str) -> Attachment {
        Attachment { network: network.to_owned(), container_id: id.to_owned(), ifname: ifname.to_owned() }
    }

    #[test]
    fn an_attachment_has_the_same_host_name_in_every_version_of_this_program() {
        assert_eq!(attachment("n", "c", "eth0").host_name(), "sl9e795d9bbf08");
    }

    #[test]
    fn host_names_are_told_from_others() {
        assert!(Attachment::is_host_name(&attachment("n", "c", "eth0").host_name()));
        for other in ["", "sl", "slirp0", "veth0a1b2c3d4e5f", "sl9e795d9bbf0", "sl9e795d9bbf0x"] {
            assert!(!Attachment::is_host_name(other), "{other}");
        }
    }

    #[test]
    fn names_that_run_together_the_same_are_told_apart() {
        assert_ne!(attachment("ab", "c", "eth0").host_name(), attachment("a", "bc", "eth0").host_name());
    }

    #[test]
    fn a_thousand_containers_have_a_thousand_host_names() {
        let names: std::collections::BTreeSet<String> =
            (0..1000).map(|n| attachment("n", &format!("c{n}"), "eth0").host_name()).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn the_alias_says_all_names_and_begins_as_that_of_its_network() {
        let one = attachment("blue", "c1", "eth0");
        assert_eq!(one.alias(), "sluice:blue:c1:eth0");
        assert!(one.alias().starts_with(&Attachment::alias_prefix("blue")));
        assert!(!one.alias().starts_with(&Attachment::alias_prefix("blu")));
    }

    #[test]
    fn the_longest_names_make_an_alias_that_the_kernel_takes() {
        let (network, id) = ("n".repeat(255), "c".repeat(255));
        let long = attachment(&network, &id, "fifteen-letters");
        assert!(long.validate().is_ok());
        assert_eq!(long.alias().len(), 255);
    }

    #[test]
    fn names_of_networks_and_containers_are_the_specifications() {
        for good in ["a", "9", "a.b", "A_b-c.9", "n".repeat(255).as_str()] {
            assert!(is_name("the network's name", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "_a", "a/b", "a b", "a:b", "ä", "a\n", "n".repeat(256).as_str()] {
            assert!(is_name("the network's name", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_interfaces_are_the_kernels() {
        for good in ["eth0", "a", "fifteen-letters", "e.1"] {
            assert!(is_ifname(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u{0}b", "sixteen-letters-"] {
            assert!(is_ifname(bad).is_err(), "{bad:?}");
        }
    }
}
