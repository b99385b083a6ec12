//! Another plugin that manages the addresses: found by `ipam.type` in `CNI_PATH`, run with our environment and all of our
//! standard input, its errors passed on with their numbers, its results read in any version.
//!
//! CHECK is asked for since 0.4.0, GC and STATUS since 1.1.0, as those are when plugins must know them. One that does not
//! know them all the same is said so: its answer is no "yes".

use super::error::IpamError;
use crate::error::{Code, Failure};
use crate::spec::{AddResult, Attachment, Version};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_LEN: u64 = 16 << 20;
/// How often and how far apart a program is started that is just being written.
const BUSY_TRIES: usize = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// What a plugin answers to a command that it does not know.
const BAD_ENVIRONMENT: u32 = Code::BadEnvironment as u32;

/// The plugin and what it is asked with.
#[derive(Debug)]
pub(crate) struct Delegate {
    program: PathBuf,
    version: Version,
    stdin: Vec<u8>,
}

/// Whom an operation is about, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) who: Option<&'a Attachment>,
    pub(crate) netns: &'a str,
    pub(crate) path: &'a [PathBuf],
}

impl Delegate {
    /// Finds the plugin.
    pub(crate) fn find(name: &str, path: &[PathBuf], version: &str, stdin: &[u8]) -> Result<Self, IpamError> {
        if name.contains('/') || name == "." || name == ".." {
            let why = format!("{name:?} is a path; it is the name of a program in CNI_PATH");
            return Err(IpamError::Config { key: "ipam.type".into(), why });
        }
        let version = version.parse().map_err(|e: crate::spec::UnknownVersion| {
            IpamError::Delegate(Failure::new(Code::IncompatibleVersion, e.to_string()))
        })?;
        let program = path.iter().filter(|d| !d.as_os_str().is_empty()).map(|d| d.join(name)).find(|p| is_program(p));
        match program {
            Some(program) => Ok(Self { program, version, stdin: stdin.to_vec() }),
            None => {
                let folders: Vec<String> = path.iter().map(|p| p.display().to_string()).collect();
                let msg = format!("the IPAM plugin {name:?} is not in CNI_PATH ({})", folders.join(":"));
                let next = "install it there, or leave ipam.type out, to have addresses managed here";
                Err(IpamError::Delegate(Failure::new(Code::Delegate, msg).details(next)))
            }
        }
    }

    pub(crate) fn add(&self, subject: &Subject<'_>) -> Result<AddResult, IpamError> {
        let answer = self.run("ADD", subject)?;
        let wrong = |why: String| self.failed(Code::Delegate, &format!("answered ADD with {why}"));
        let value: Value = serde_json::from_slice(&answer).map_err(|e| wrong(format!("no JSON: {e}")))?;
        AddResult::read(&value, self.version).map_err(|e| wrong(format!("a result that cannot be used: {e}")))
    }

    pub(crate) fn del(&self, subject: &Subject<'_>) -> Result<(), IpamError> {
        self.run("DEL", subject).map(drop)
    }

    pub(crate) fn check(&self, subject: &Subject<'_>) -> Result<(), IpamError> {
        if self.version < Version::V0_4_0 { Ok(()) } else { self.known("CHECK", subject) }
    }

    pub(crate) fn gc(&self, subject: &Subject<'_>) -> Result<(), IpamError> {
        if self.version < Version::V1_1_0 { Ok(()) } else { self.known("GC", subject) }
    }

    pub(crate) fn status(&self, subject: &Subject<'_>) -> Result<(), IpamError> {
        if self.version < Version::V1_1_0 { Ok(()) } else { self.known("STATUS", subject) }
    }

    /// Runs a command that the plugin may not know, which is then said.
    fn known(&self, command: &str, subject: &Subject<'_>) -> Result<(), IpamError> {
        match self.run(command, subject) {
            Err(IpamError::Delegate(f))
                if f.code == BAD_ENVIRONMENT && f.msg.to_ascii_lowercase().contains("unknown") =>
            {
                let msg = format!(
                    "the IPAM plugin {} does not know {command}, which version {} of CNI has; it answered: {}",
                    self.program.display(),
                    self.version,
                    f.msg
                );
                let next = "install a newer version of it, or say an older cniVersion in the configuration";
                Err(IpamError::Delegate(Failure::new(Code::Delegate, msg).details(next)))
            }
            other => other.map(drop),
        }
    }

    /// Runs the plugin; what it printed.
    fn run(&self, command: &str, subject: &Subject<'_>) -> Result<Vec<u8>, IpamError> {
        let mut child = self.start(command, subject)?;
        let input = child.stdin.take();
        let stdin = self.stdin.clone();
        // By another thread, since a plugin may answer before it has read all.
        let writer = std::thread::spawn(move || input.map(|mut pipe| pipe.write_all(&stdin)));
        let mut answer = Vec::new();
        let read = child.stdout.take().map(|pipe| pipe.take(MAX_ANSWER_LEN).read_to_end(&mut answer));
        let status = child.wait();
        // A plugin need not read its input: that it could not be written is no failure.
        drop(writer.join());
        match (read, status) {
            (Some(Err(e)), _) | (_, Err(e)) => Err(self.failed(Code::Io, &format!("could not be talked to: {e}"))),
            (_, Ok(status)) if status.success() => Ok(answer),
            (_, Ok(status)) => Err(self.answered(command, status, &answer)),
        }
    }

    fn start(&self, command: &str, subject: &Subject<'_>) -> Result<Child, IpamError> {
        let mut program = Command::new(&self.program);
        program.env("CNI_COMMAND", command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some(who) = subject.who {
            program.env("CNI_CONTAINERID", &who.container_id).env("CNI_IFNAME", &who.ifname);
            program.env("CNI_NETNS", subject.netns);
        }
        if let Ok(path) = std::env::join_paths(subject.path) {
            program.env("CNI_PATH", path);
        }
        for _ in 1..BUSY_TRIES {
            match program.spawn() {
                Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
                other => return other.map_err(|e| self.failed(Code::Delegate, &format!("cannot be run: {e}"))),
            }
        }
        program.spawn().map_err(|e| self.failed(Code::Delegate, &format!("cannot be run: {e}")))
    }

    /// The plugin's own error, or if it printed none, how it ended.
    fn answered(&self, command: &str, status: ExitStatus, answer: &[u8]) -> IpamError {
        match serde_json::from_slice::<Failure>(answer) {
            Ok(failure) => IpamError::Delegate(failure),
            Err(_) => self.failed(Code::Delegate, &format!("failed at {command} without saying why ({status})")),
        }
    }

    fn failed(&self, code: Code, what: &str) -> IpamError {
        IpamError::Delegate(Failure::new(code, format!("the IPAM plugin {} {what}", self.program.display())))
    }
}

/// Whether this is a file that may be executed.
fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
