//! Connections that outlive the switch: written down now and then, and taken up by the next start.
//!
//! Without them the tracker of a switch that was restarted knows nobody. Plain connections it would pick up; but an answer of a
//! Service's endpoint reaches its client untranslated, and the client ends the connection.
//!
//! # Rules
//! - The file is written as a whole, readable by its owner alone, and put in place by a rename.
//! - It is written every [`PERIOD`] if something has changed, or as much more seldom as it takes longer: looking and writing cost one
//!   part in [`SHARE`] of one processor at most. A last time it is written when nothing is forwarded any more. So a switch that is
//!   killed forgets what came since, and one that ends in order forgets nothing.
//! - It belongs to one run of the machine: its times are those since the boot, and connections do not outlive the machine.
//! - A file that cannot be used is told and passed over: connections begin anew then, and the next write replaces it.
//!
//! # Format
//! [`HEAD`] with the boot's id in the first line, then a line of JSON for each connection.
//!
//! # Limits
//! At most [`MOST`] connections are kept; those beyond begin anew.

use super::Datapath;
use crate::conntrack::KeptConn;
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often the file is written.
const PERIOD: Duration = Duration::from_secs(1);
/// A write is followed by a pause so many times as long.
const SHARE: u32 = 50;
/// Most connections that are kept.
const MOST: usize = 200_000;
/// What the first line begins with. The number is that of the format.
const HEAD: &str = "sluice connections 1";
/// Longest line that is read, in bytes; what is written has 450 at most.
const LINE_MAX: u64 = 512;
/// Largest file that is read, in bytes.
const SIZE_MAX: u64 = LINE_MAX * (MOST as u64 + 1);

/// Why connections of an earlier start are not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The system says so.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is a folder, a pipe or the like.
    #[error("it is no regular file")]
    NoFile,
    /// It is larger than any that is written.
    #[error("it has {0} bytes, more than any that this switch writes ({SIZE_MAX})")]
    TooLarge(u64),
    /// It is of another version, or of another program.
    #[error("it does not begin with {HEAD:?}: another version or another program has written it")]
    Foreign,
    /// The machine was started anew since.
    #[error("the machine was started anew since it was written")]
    OtherBoot,
}

/// What was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Connections that go on.
    pub connections: usize,
    /// Lines that are none, or that there was no room for.
    pub passed_over: usize,
}

impl Datapath {
    /// Writes down the connections that go on; how many.
    ///
    /// # Errors
    /// What the system says; the file is as before then.
    pub fn save_connections(&self, file: &Path) -> io::Result<usize> {
        let mut beside = file.to_path_buf().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let count = self.write_connections(&beside).and_then(|count| fs::rename(&beside, file).map(|()| count));
        if count.is_err() {
            // What is left of it would only take up room; the error is told.
            _ = fs::remove_file(&beside);
        }
        count
    }

    fn write_connections(&self, file: &Path) -> io::Result<usize> {
        let mut to = BufWriter::new(File::options().write(true).create_new(true).mode(0o600).open(file)?);
        writeln!(to, "{HEAD} {}", boot_id()?)?;
        let (mut count, mut result) = (0, Ok(()));
        self.connections(|conn| {
            if let Some(kept) = KeptConn::of(&conn) {
                result =
                    serde_json::to_writer(&mut to, &kept).map_err(io::Error::from).and_then(|()| to.write_all(b"\n"));
                count += 1;
            }
            count < MOST && result.is_ok()
        });
        result?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(count)
    }

    /// Takes up the connections that were written down. To be called before there are ports. The clock has to be the same as that of
    /// who wrote it: [`Clock::since_boot`](crate::Clock::since_boot).
    ///
    /// # Errors
    /// [`ResumeError`]; a file that is not there is none.
    pub fn resume_connections(&self, file: &Path) -> Result<Resumed, ResumeError> {
        let mut resumed = Resumed::default();
        let is_file = match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(resumed),
            other => other?.is_file(),
        };
        if !is_file {
            return Err(ResumeError::NoFile);
        }
        let from = File::open(file)?;
        let size = from.metadata()?.len();
        if size > SIZE_MAX {
            return Err(ResumeError::TooLarge(size));
        }
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        read_line(&mut from, &mut line)?;
        let boot = line.trim_ascii_end().strip_prefix(HEAD.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
        if boot.ok_or(ResumeError::Foreign)? != boot_id()?.as_bytes() {
            return Err(ResumeError::OtherBoot);
        }
        let now = self.clock().now();
        let table = &self.inner.shared.conntrack.table;
        while resumed.connections + resumed.passed_over < MOST && read_line(&mut from, &mut line)? {
            let kept = serde_json::from_slice::<KeptConn>(&line);
            if kept.is_ok_and(|kept| table.resume(&kept, now)) {
                resumed.connections += 1;
            } else {
                resumed.passed_over += 1;
            }
        }
        Ok(resumed)
    }
}

/// Which run of the machine this is.
fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Reads a line, or what fits of one; false at the end.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(from.take(LINE_MAX).read_until(b'\n', line)? > 0)
}

/// Keeps the connections of a data path in a file for as long as it lives, and writes it a last time when it is dropped.
#[derive(Debug)]
pub struct ConnectionKeeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ConnectionKeeper {
    /// Takes up what is in the file, and begins to write it. What goes wrong is told in the log: the switch works without.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(datapath: Datapath, file: PathBuf) -> io::Result<Self> {
        match datapath.resume_connections(&file) {
            Ok(Resumed { connections: 0, passed_over: 0 }) => {}
            Ok(Resumed { connections, passed_over: 0 }) => {
                info!(connections, file = %file.display(), "connections of an earlier start go on");
            }
            Ok(Resumed { connections, passed_over }) => {
                warn!(connections, passed_over, file = %file.display(), "not all connections of an earlier start go on");
            }
            Err(error) => {
                warn!(%error, file = %file.display(), "connections of an earlier start are not known and begin anew");
            }
        }
        let (stop, stopped) = bounded::<()>(0);
        let keep = move || {
            let mut writer = Writer { datapath, file, written: None, has_failed: false };
            let mut pause = PERIOD;
            // The other end is dropped when it is time for the last one.
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                let begin = Instant::now();
                writer.write();
                pause = PERIOD.max(begin.elapsed().saturating_mul(SHARE));
            }
            writer.write();
        };
        let thread = thread::Builder::new().name("sluice-keep".to_owned()).spawn(keep)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ConnectionKeeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so on stderr.
            _ = thread.join();
        }
    }
}

/// Writes the file when something has changed.
struct Writer {
    datapath: Datapath,
    file: PathBuf,
    /// What the connections were like that the file has.
    written: Option<u64>,
    has_failed: bool,
}

impl Writer {
    fn write(&mut self) {
        let fingerprint = self.datapath.connections_fingerprint();
        if self.written == Some(fingerprint) {
            return;
        }
        match self.datapath.save_connections(&self.file) {
            Ok(_) => (self.written, self.has_failed) = (Some(fingerprint), false),
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    warn!(
                        %error, file = %self.file.display(),
                        "connections cannot be kept: they would begin anew after a restart; it is tried again"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
