//! Binaries that run on any Linux of their architecture: static and stripped.
//!
//! They are linked with glibc itself, so nothing has to be installed but Rust and a C library's development files. The
//! plugin's own code is built for size, since runtimes start it for each container; all else for speed.

use crate::command::{cargo_with, target_dir};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;

/// What is built: package, binary, and its profile of `Cargo.toml`. To optimize a program as a whole takes minutes; only the switch's
/// packets and the plugin's starts are worth it.
pub(crate) const BINARIES: [(&str, &str, &str); 4] = [
    ("sluice-switch", "sluiced", "dist"),
    ("sluice-cli", "sluice", "tools"),
    ("sluice-controller", "sluice-controller", "tools"),
    ("sluice-cni", "sluice-cni", "dist"),
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
    for goal in ["tools", "dist"] {
        let binaries = BINARIES.iter().filter(|(_, _, profile)| *profile == goal);
        let what: Vec<&str> =
            binaries.flat_map(|(package, binary, _)| ["--package", package, "--bin", binary]).collect();
        let how = ["build", "--locked", "--profile", goal, "--target", &target];
        cargo_with(&[("RUSTFLAGS", flags)], &[&how[..], &what].concat())?;
    }
    for (_, binary, profile) in BINARIES {
        let built: PathBuf = [target.as_str(), profile, binary].iter().collect();
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
