//! Puts the CNI plugin where the container runtime looks for it.

use crate::copy::write_renamed_with;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the plugin is in the image.
pub const PLUGIN: &str = "/usr/bin/sluice-cni";
/// Who may do what with it.
const MODE: u32 = 0o755;

/// Why it was not installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .file.display())]
pub struct InstallError {
    what: &'static str,
    file: PathBuf,
    source: io::Error,
}

/// Copies the plugin into a folder. It is put in place by a rename, so that a runtime that starts it at that moment starts the old
/// one or the new one; one that is there already is left alone. What was done is returned.
///
/// # Errors
/// [`InstallError`]; what was there is still there then.
pub fn install(from: &Path, to: &Path) -> Result<String, InstallError> {
    let failed = |what, file: &Path| {
        let file = file.to_owned();
        move |source| InstallError { what, file, source }
    };
    let bytes = fs::read(from).map_err(failed("read the plugin", from))?;
    fs::create_dir_all(to).map_err(failed("make the folder", to))?;
    let file = to.join(crate::node::PLUGIN);
    if fs::read(&file).is_ok_and(|there| there == bytes) && is_executable(&file) {
        return Ok(format!("{} is there already", file.display()));
    }
    write_renamed_with(&file, &bytes, MODE).map_err(failed("write", &file))?;
    Ok(format!("installed {}", file.display()))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o777 == MODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_executable_replaces_what_is_there_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("plugin");
        let to = folder.path().join("opt/cni/bin");
        for text in ["one", "two"] {
            fs::write(&from, text).unwrap();
            assert!(install(&from, &to).unwrap().starts_with("installed "));
            assert!(install(&from, &to).unwrap().ends_with(" is there already"));
            let file = to.join("sluice-cni");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        }
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn a_plugin_that_is_not_there_is_said() {
        let error = install(Path::new("/nowhere/sluice-cni"), Path::new("/tmp")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the plugin /nowhere/sluice-cni: "), "{error}");
    }
}
