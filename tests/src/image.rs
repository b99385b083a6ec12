//! Container images without a registry: an OCI archive of a static busybox, and of programs of this machine with the
//! libraries that they need (OCI image layout 1.0, image specification 1.0).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// Where Debian's busybox-static has it.
const BUSYBOX: &str = "/bin/busybox";
/// What every media type begins with.
const MEDIA: &str = "application/vnd.oci.image";

/// Writes the archive of an image with busybox and these programs to `path`; `name` is what a runtime knows it by.
///
/// # Errors
/// A program is not there, or the archive cannot be written.
pub fn write(path: &Path, name: &str, programs: &[&str]) -> io::Result<()> {
    let layer = layer(programs)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "config": {"Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"], "Cmd": ["sleep", "1000000"]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{MEDIA}.manifest.v1+json"),
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let mut archive = Builder::new(File::create(path)?);
    put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    put(&mut archive, "index.json", index.to_string().as_bytes(), 0o644)?;
    for blob in [&layer, &config, &manifest] {
        put(&mut archive, &format!("blobs/sha256/{}", hex(blob)), blob, 0o644)?;
    }
    archive.into_inner()?.flush()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": format!("{MEDIA}.{kind}"), "digest": digest(bytes), "size": bytes.len()})
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn put<W: Write>(archive: &mut Builder<W>, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, mode, bytes.len() as u64), path, bytes)
}

/// The one layer, as a tar archive.
fn layer(programs: &[&str]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for folder in ["bin", "etc", "proc", "sys", "dev", "root"] {
        make_folder(&mut archive, &mut folders, Path::new(folder))?;
    }
    archive.append_data(&mut header(EntryType::Directory, 0o1777, 0), "tmp", io::empty())?;
    put(&mut archive, "bin/busybox", &fs::read(BUSYBOX)?, 0o755)?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), format!("bin/{applet}"), BUSYBOX)?;
    }
    put(&mut archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)?;
    put(&mut archive, "etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    let mut files = BTreeSet::new();
    for program in programs {
        files.insert(PathBuf::from(program));
        files.extend(libraries(program)?);
    }
    for file in files {
        let inside = file.strip_prefix("/").unwrap_or(&file);
        if let Some(parent) = inside.parent() {
            make_folder(&mut archive, &mut folders, parent)?;
        }
        put(&mut archive, &inside.to_string_lossy(), &fs::read(&file)?, 0o755)?;
    }
    archive.into_inner()
}

/// The shared libraries and the loader that a program names, as the machine has them.
fn libraries(program: &str) -> io::Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output()?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn make_folder<W: Write>(archive: &mut Builder<W>, made: &mut BTreeSet<PathBuf>, folder: &Path) -> io::Result<()> {
    let mut ancestors: Vec<_> = folder.ancestors().filter(|a| !a.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for folder in ancestors {
        if made.insert(folder.to_owned()) {
            archive.append_data(&mut header(EntryType::Directory, 0o755, 0), folder, io::empty())?;
        }
    }
    Ok(())
}
