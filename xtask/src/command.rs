//! Running commands from the root of the checkout, each shown before it runs.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Runs cargo.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    program(Path::new(env!("CARGO")), args)
}

/// Runs cargo with more in its environment.
pub(crate) fn cargo_with(environment: &[(&str, &str)], args: &[&str]) -> Result<()> {
    let program = Path::new(env!("CARGO"));
    let set: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    eprintln!("$ {} cargo {}", set.join(" "), args.join(" "));
    let status = Command::new(program)
        .args(args)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "`cargo {}` failed ({status})", args.join(" "));
    Ok(())
}

/// Runs a script of the repository.
pub(crate) fn script(path: &str, args: &[&str]) -> Result<()> {
    program(&root().join(path), args)
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a program.
pub(crate) fn program(program: &Path, args: &[&str]) -> Result<()> {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    eprintln!("$ {name} {}", args.join(" "));
    let status = Command::new(program)
        .args(args)
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "`{name} {}` failed ({status})", args.join(" "));
    Ok(())
}
