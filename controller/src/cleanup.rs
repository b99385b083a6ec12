//! Takes everything of ours off a machine, after an uninstall.
//!
//! A switch that ends in order takes its interfaces, routes and tables along. What is left then is files: the network's description,
//! the plugin, the state. After a crash the rest is here too, and is found by how the switch marks it.

mod netlink;
mod tables;

use crate::config::Config;
use crate::node::{CONFLIST, PLUGIN, is_ours};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the switch, the copy and the round number are kept.
const STATE: &str = "/var/lib/sluice";
/// Where sockets are.
const RUN: &str = "/run/sluice";
/// Where the plugin keeps addresses.
const ADDRESSES: &str = "/var/lib/cni/sluice";

/// What could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A file or folder.
    #[error("cannot remove {}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An interface or route.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was to be done.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A table of nftables.
    #[error("cannot {what}: {why}")]
    Table {
        /// What was to be done.
        what: String,
        /// What `nft` says.
        why: String,
    },
    /// Somebody still uses it.
    #[error("sluiced answers on {}: stop it first (delete the DaemonSet, or systemctl stop sluiced)", .0.display())]
    InUse(PathBuf),
}

/// What was done, or could not be.
pub type Line = Result<String, CleanupError>;

/// Takes everything away; with `dry_run` it only says what it would do. Nothing is touched while a switch answers.
#[must_use]
pub fn run(config: &Config, dry_run: bool) -> Vec<Line> {
    if std::os::unix::net::UnixStream::connect(&config.socket).is_ok() {
        return vec![Err(CleanupError::InUse(config.socket.clone()))];
    }
    let mut lines = description(&config.cni_conf_dir, dry_run);
    lines.extend(remove(&config.cni_bin_dir.join(PLUGIN), dry_run));
    lines.extend(netlink::clean(&config.bridge, dry_run));
    lines.extend(tables::clean(dry_run));
    for folder in [&config.state, Path::new(STATE), Path::new(ADDRESSES), Path::new(RUN)] {
        lines.extend(remove(folder, dry_run));
    }
    lines
}

/// The network's description, if it is ours.
fn description(folder: &Path, dry_run: bool) -> Vec<Line> {
    let file = folder.join(CONFLIST);
    match fs::read_to_string(&file) {
        Ok(text) if is_ours(&text) => remove(&file, dry_run),
        Ok(_) => vec![Ok(format!("{} is not ours any more, and stays", file.display()))],
        Err(_) => Vec::new(),
    }
}

/// A line for something that is done unless it is only to be said.
fn line(what: String, dry_run: bool, act: impl FnOnce() -> Result<(), CleanupError>) -> Line {
    if dry_run {
        return Ok(format!("would {what}"));
    }
    act().map(|()| format!("{what}: done"))
}

/// A file or a folder with all that is in it. A folder where something is mounted is emptied, and stays.
fn remove(path: &Path, dry_run: bool) -> Vec<Line> {
    let Ok(data) = fs::symlink_metadata(path) else { return Vec::new() };
    if data.is_dir()
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
        && fs::remove_dir(path).is_err()
    {
        return Vec::new();
    }
    let failed = |source| CleanupError::File { path: path.to_owned(), source };
    let act = || {
        if !data.is_dir() {
            return fs::remove_file(path).map_err(failed);
        }
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            other => other.map_err(failed),
        }
    };
    vec![line(format!("remove {}", path.display()), dry_run, act)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.unwrap()).collect()
    }

    #[test]
    fn a_description_of_ours_goes_and_anothers_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(CONFLIST);
        fs::write(&file, r#"{"plugins": [{"type": "sluice-cni"}]}"#).unwrap();
        assert_eq!(texts(description(folder.path(), true)), [format!("would remove {}", file.display())]);
        assert_eq!(texts(description(folder.path(), false)), [format!("remove {}: done", file.display())]);
        assert!(description(folder.path(), false).is_empty());
        fs::write(&file, r#"{"plugins": [{"type": "bridge"}]}"#).unwrap();
        assert!(texts(description(folder.path(), false))[0].ends_with("is not ours any more, and stays"));
        assert!(file.exists());
    }

    #[test]
    fn a_folder_goes_with_what_is_in_it_and_a_second_time_nothing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("state");
        fs::create_dir_all(place.join("a/b")).unwrap();
        fs::write(place.join("a/b/c"), "").unwrap();
        assert_eq!(remove(&place, false).len(), 1);
        assert!(!place.exists());
        assert!(remove(&place, false).is_empty());
    }

    #[test]
    fn nothing_is_touched_while_a_switch_answers() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("switch.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let config = Config { socket, ..Config::default() };
        let lines = run(&config, false);
        assert!(matches!(lines.as_slice(), [Err(CleanupError::InUse(_))]), "{lines:?}");
    }
}
