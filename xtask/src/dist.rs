//! Binaries that run on any Linux of their architecture: static and stripped.
//!
//! They are linked with glibc itself, so nothing has to be installed but Rust and a C library's development files. The
//! plugin is built for size, since runtimes start it for each container; the others for speed.

use crate::command::{cargo_with, target_dir};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;

/// What is built: package, binary, and how the optimizer is to weigh speed against size.
pub(crate) const BINARIES: [(&str, &str, &str); 4] = [
    ("sluice-switch", "sluiced", "3"),
    ("sluice-cli", "sluice", "3"),
    ("sluice-controller", "sluice-controller", "3"),
    ("sluice-cni", "sluice-cni", "s"),
];

/// Builds into `target/dist/`, says how large the files are, and returns where they are.
pub(crate) fn dist() -> Result<Vec<PathBuf>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    ensure!(
        ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"].contains(&target.as_str()),
        "no static binaries for {target}: they are made for x86_64 and aarch64"
    );
    // Flags in the environment beat those in files of cargo, so nothing else changes what is built. With a target named, they
    // are not those of build scripts.
    let flags = "-C target-feature=+crt-static -C relocation-model=static";
    let folder = target_dir().join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut files = Vec::new();
    for (package, binary, level) in BINARIES {
        let environment = [("RUSTFLAGS", flags), ("CARGO_PROFILE_DIST_OPT_LEVEL", level)];
        let what = ["--package", package, "--bin", binary];
        let how = ["build", "--locked", "--profile", "dist", "--target", &target];
        cargo_with(&environment, &[&how[..], &what[..]].concat())?;
        let built: PathBuf = [target.as_str(), "dist", binary].iter().collect();
        let (from, to) = (target_dir().join(built), folder.join(binary));
        // Renamed into place, so that a binary that runs can be replaced.
        let new = folder.join(format!(".{binary}"));
        let copied = fs::copy(&from, &new).and_then(|len| fs::rename(&new, &to).map(|()| len));
        let len = copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        println!("{}: {:.1} MB", to.display(), len as f64 / 1e6);
        files.push(to);
    }
    Ok(files)
}
