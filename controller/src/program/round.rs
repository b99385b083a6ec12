//! The number of this start: what a flow's generation says.
//!
//! It is one more at each start of the controller, so that a dump of flows tells which start has last asked for each of them.

use crate::copy::write_renamed;
use std::fs;
use std::io;
use std::path::Path;

/// Takes the next number: one more than the file says, 1 if there is no such file, or nothing of use in it. The file says it from then
/// on, also after a crash of the machine.
///
/// # Errors
/// The file cannot be read or written; folders are made as needed.
pub(super) fn next(path: &Path) -> io::Result<u64> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => 0,
        Err(error) => return Err(error),
    };
    let round = u64::saturating_add(before, 1);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write_renamed(path, format!("{round}\n").as_bytes())?;
    Ok(round)
}

#[cfg(test)]
mod tests {
    use super::next;
    use std::fs;

    #[test]
    fn each_start_has_the_next_number_and_a_damaged_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node/round");
        assert_eq!((next(&path).unwrap(), next(&path).unwrap()), (1, 2));
        fs::write(&path, "41\n").unwrap();
        assert_eq!(next(&path).unwrap(), 42);
        fs::write(&path, [0xff, 0x00]).unwrap();
        assert_eq!((next(&path).unwrap(), next(&path).unwrap()), (1, 2));
        assert!(next(folder.path()).is_err());
    }
}
