//! Container images without a registry and without a runtime: a tree of files, written as an archive that runtimes load, or as a
//! folder (OCI image layout 1.0 and image specification 1.0).
//!
//! The same tree gives the same bytes: entries are sorted, and have neither times nor owners of the machine that wrote them.
//! The archive also has the `manifest.json` that `docker load` of before version 25 looks for.
//!
//! Everything is held in memory until it is written: images here are some tens of megabytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// What every media type begins with.
const MEDIA: &str = "application/vnd.oci.image";

/// How a runtime starts what is in an image.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Folders where programs are looked for, with colons between them.
    pub path: &'a str,
    /// What runs unless the container says otherwise; empty for nothing.
    pub command: &'a [&'a str],
}

#[derive(Debug)]
enum Entry {
    Folder(u32),
    File(Vec<u8>, u32),
    Link(PathBuf),
}

/// What is in an image, by path. Paths are taken from the root, with or without a slash in front.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Makes a folder with these permissions, and those above it.
    pub fn folder(&mut self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), Entry::Folder(mode));
    }

    /// Makes a file with these permissions, and the folders above it.
    pub fn file(&mut self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.put(path.as_ref(), Entry::File(bytes.into(), mode));
    }

    /// Makes a symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, to: impl Into<PathBuf>) {
        self.put(path.as_ref(), Entry::Link(to.into()));
    }

    /// Puts a program of this machine at `path`, and the shared libraries that it names where this machine has them.
    ///
    /// # Errors
    /// It or a library is not there, or cannot be read.
    pub fn program(&mut self, from: &Path, path: impl AsRef<Path>) -> io::Result<()> {
        for library in libraries(from)? {
            let bytes = read(&library)?;
            self.file(library, bytes, 0o755);
        }
        self.file(path, read(from)?, 0o755);
        Ok(())
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.entries.entry(above.to_owned()).or_insert(Entry::Folder(0o755));
        }
        self.entries.insert(path, entry);
    }

    /// Writes the archive; `name` is what a runtime knows the image by.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_archive(&self, path: &Path, name: &str, start: Start<'_>) -> io::Result<()> {
        let layer = self.layer()?;
        let config = config(&layer, start).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{MEDIA}.manifest.v1+json"),
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "mediaType": format!("{MEDIA}.index.v1+json"), "manifests": [entry]});
        let docker = json!([{"Config": blob(&config), "RepoTags": [name], "Layers": [blob(&layer)]}]);
        let file = File::create(path).map_err(|error| at(path, &error))?;
        let mut archive = Builder::new(BufWriter::new(file));
        append_file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append_file(&mut archive, "index.json", index.to_string().as_bytes())?;
        append_file(&mut archive, "manifest.json", docker.to_string().as_bytes())?;
        for bytes in [&layer, &config, &manifest] {
            append_file(&mut archive, &blob(bytes), bytes)?;
        }
        archive.into_inner()?.flush()
    }

    /// Writes the tree into a folder, which is made; what is there and not in the tree stays.
    ///
    /// # Errors
    /// Something cannot be written.
    pub fn write_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        for (path, entry) in &self.entries {
            let path = folder.join(path);
            let written = match entry {
                Entry::Folder(mode) => fs::create_dir_all(&path).and_then(|()| set_mode(&path, *mode)),
                Entry::File(bytes, mode) => fs::write(&path, bytes).and_then(|()| set_mode(&path, *mode)),
                Entry::Link(to) => match fs::read_link(&path) {
                    Ok(there) if there == *to => Ok(()),
                    _ => symlink(to, &path),
                },
            };
            written.map_err(|error| at(&path, &error))?;
        }
        Ok(())
    }

    /// The one layer, as a tar archive.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder(mode) => {
                    archive.append_data(&mut header(EntryType::Directory, *mode, 0), path, io::empty())?;
                }
                Entry::File(bytes, mode) => {
                    let mut header = header(EntryType::Regular, *mode, bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())?;
                }
                Entry::Link(to) => archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, to)?,
            }
        }
        archive.into_inner()
    }
}

fn config(layer: &[u8], start: Start<'_>) -> Value {
    let mut config = json!({"Env": [format!("PATH={}", start.path)], "WorkingDir": "/"});
    if !start.command.is_empty() {
        config["Cmd"] = json!(start.command);
    }
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))]},
    })
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    let digest = format!("sha256:{}", hex(bytes));
    json!({"mediaType": format!("{MEDIA}.{kind}"), "digest": digest, "size": bytes.len()})
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append_file<W: Write>(archive: &mut Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), path, bytes)
}

/// The shared libraries and the loader that a program names, as the machine has them; none for a static one.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().map_err(|error| at(Path::new("ldd"), &error))?.stdout;
    let listed = String::from_utf8_lossy(&listed);
    if listed.contains("not found") {
        let lacking: Vec<_> = listed.lines().filter(|line| line.contains("not found")).map(str::trim).collect();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} needs libraries that this machine lacks: {}", program.display(), lacking.join(", ")),
        ));
    }
    Ok(listed
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| at(path, &error))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The error with the file's name.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(order: [usize; 3]) -> Tree {
        let mut tree = Tree::default();
        for part in order {
            match part {
                0 => tree.file("/usr/bin/one", "1", 0o755),
                1 => tree.folder("tmp", 0o1777),
                _ => tree.link("bin", "usr/bin"),
            }
        }
        tree
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        tree.write_archive(&path, "localhost/image:1", Start { path: "/bin", command: &["one"] }).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_in_whatever_order_they_came() {
        assert_eq!(archive(&tree([0, 1, 2])), archive(&tree([2, 1, 0])));
    }

    #[test]
    fn every_blob_has_the_digest_that_names_it() {
        let bytes = archive(&tree([0, 1, 2]));
        let mut blobs = 0;
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, hex(&content));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3, "layer, configuration and manifest");
    }

    #[test]
    fn a_folder_gets_files_links_and_permissions_and_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            tree([0, 1, 2]).write_folder(folder.path()).unwrap();
        }
        assert_eq!(fs::read_to_string(folder.path().join("bin/one")).unwrap(), "1");
        assert_eq!(fs::metadata(folder.path().join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn a_program_brings_its_libraries_and_one_that_is_missing_is_named() {
        let mut tree = Tree::default();
        tree.program(Path::new("/bin/sh"), "bin/sh").unwrap();
        assert!(
            tree.entries.keys().any(|path| path.to_string_lossy().contains("libc.so")),
            "{:?}",
            tree.entries.keys()
        );
        let missing = tree.program(Path::new("/no/such"), "no").unwrap_err();
        assert!(missing.to_string().contains("/no/such"), "{missing}");
    }
}
