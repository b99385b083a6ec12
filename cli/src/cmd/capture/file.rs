//! Where a pcapng file goes: onto the disk, or to another program as it is written.

use super::Label;
use crate::failure::Failure;
use sluice_switch::api::pcapng::{Packet, PcapNg, PcapNgWriteError};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::os::unix::fs::FileTypeExt;

/// A pcapng file that is being written.
pub(super) struct Writer {
    path: String,
    /// Another program reads it as it is written.
    piped: bool,
    to: PcapNg<BufWriter<Box<dyn Write>>>,
}

impl Writer {
    /// Begins a file with an interface for each label; `-` is standard output.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn create(path: &str, labels: &[Label]) -> Result<Self, Failure> {
        if path == "-" {
            return Self::pipe(path, Box::new(stdout()), labels);
        }
        let file = File::create(path).map_err(|error| failed(path, error))?;
        let piped = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        Self::begin(path, piped, Box::new(file), labels)
    }

    /// Begins what another program, called `path`, reads by `to`.
    ///
    /// # Errors
    /// It does not take it.
    pub(super) fn pipe(path: &str, to: Box<dyn Write>, labels: &[Label]) -> Result<Self, Failure> {
        Self::begin(path, true, to, labels)
    }

    fn begin(path: &str, piped: bool, to: Box<dyn Write>, labels: &[Label]) -> Result<Self, Failure> {
        let interfaces = labels.iter().map(|label| (label.name.as_str(), label.about.as_str()));
        let to = PcapNg::begin(BufWriter::new(to), interfaces).map_err(|error| failed(path, error))?;
        let mut writer = Self { path: path.to_owned(), piped, to };
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        self.to.put(packet).map_err(|error| self.failure(error))
    }

    /// Notes of each port how many packets were written and how many were lost.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn count(&mut self, by_port: &[(u64, u64)]) -> Result<(), Failure> {
        self.to.count(by_port).map_err(|error| self.failure(error))
    }

    /// Whether another program reads it as it is written.
    pub(super) fn is_piped(&self) -> bool {
        self.piped
    }

    /// Makes what was put readable to others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.to.get_mut().flush();
        flushed.map_err(|error| self.failure(error.into()))
    }

    fn failure(&self, error: PcapNgWriteError) -> Failure {
        match error {
            // Whoever reads may have seen enough.
            PcapNgWriteError::Io(error) if self.piped => error.into(),
            error => failed(&self.path, error),
        }
    }
}

fn failed(path: &str, error: impl Display) -> Failure {
    Failure::new(format!("cannot write {path}: {error}")).next("choose another file, or make room on the disk")
}
