//! Sysctls of a container's namespace, by `/proc/sys/net`, which shows the namespace of the thread that opens it.

use super::error::LinkError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file of the sysctl `key`, in which `IFNAME` stands for `ifname`.
///
/// As sysctl(8) has it: where the first separator is a dot, dots separate and slashes stand for dots (which the names of
/// VLAN interfaces have); where it is a slash, slashes separate.
pub(super) fn path(key: &str, ifname: &str) -> Result<PathBuf, String> {
    let dots = key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('.'));
    let mut path = PathBuf::from("/proc/sys");
    let mut depth = 0;
    for part in key.split(if dots { '.' } else { '/' }) {
        let part = if dots { part.replace('/', ".") } else { part.to_owned() };
        if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
            return Err("it is no name of a sysctl".to_owned());
        }
        if depth == 0 && part != "net" {
            return Err("only sysctls that begin with `net` belong to a network namespace".to_owned());
        }
        path.push(if part == "IFNAME" { ifname } else { &part });
        depth += 1;
    }
    if depth < 3 { Err("it names a group of sysctls".to_owned()) } else { Ok(path) }
}

/// Sets a sysctl in the calling thread's namespace, which errors call `netns`.
pub(super) fn set(key: &str, value: &str, ifname: &str, netns: &Path) -> Result<(), LinkError> {
    let refused =
        |why: String| LinkError::Sysctl { key: key.to_owned(), value: value.to_owned(), netns: netns.to_owned(), why };
    let path = path(key, ifname).map_err(refused)?;
    fs::write(&path, value).map_err(|error| refused(reason(&error, &path)))
}

/// What is wrong with a sysctl in the calling thread's namespace, in words that go after its name.
pub(super) fn differs(key: &str, value: &str, ifname: &str) -> Option<String> {
    let found = path(key, ifname).and_then(|path| fs::read_to_string(&path).map_err(|error| reason(&error, &path)));
    match found {
        // Values of several numbers are separated by tabs when read.
        Ok(found) if found.split_whitespace().eq(value.split_whitespace()) => None,
        Ok(found) => Some(format!("is `{}`, not `{value}`", found.trim())),
        Err(why) => Some(format!("cannot be read: {why}")),
    }
}

fn reason(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{} is not there; is the name right, and its module loaded?", path.display())
        }
        io::ErrorKind::ReadOnlyFilesystem => "/proc/sys is read-only here; mount it writable for the plugin".to_owned(),
        io::ErrorKind::InvalidInput => "the kernel does not take the value".to_owned(),
        _ => error.to_string(),
    }
}
