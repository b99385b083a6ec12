//! Running commands from the root of the checkout, each shown before it runs.

use crate::failures;
use anyhow::{Context, Result, ensure};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// What a suite left running may still hold its output: so long after cargo's end nothing more is waited for.
const SILENCE: Duration = Duration::from_secs(1);

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

/// Runs suites by cargo, and tells again at the end what failed.
pub(crate) fn suites(args: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", args.join(" "));
    // One pipe for both, so that what is said stays in order.
    let (output, input) = io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(root()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn().context("cannot start cargo")?;
    // It holds the ends that are written to, and output ends with the last of them.
    drop(command);
    let (sender, lines) = channel();
    thread::spawn(move || {
        BufReader::new(output).split(b'\n').map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let next = || loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) if matches!(child.try_wait(), Ok(None)) => {}
            Err(_) => return None,
        }
    };
    let failed = failures::tell(std::iter::from_fn(next), io::stdout().lock())?;
    let status = child.wait()?;
    for line in &failed {
        println!("{line}");
    }
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
