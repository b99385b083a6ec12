//! Writing a pcapng file: one interface for each port, named as the recording names it, times in nanoseconds, directions
//! as the format has them, what became of each packet as its comment, and at the end what was lost of each port.

use super::sink::Packet;
use super::{Label, verdict};
use crate::failure::Failure;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgWriteError, PcapNgWriter};
use pcap_file::{DataLink, Endianness};
use sluice_proto::v1::captured_frame::Direction;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, SystemTime};

/// The two lowest bits of a packet's flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A pcapng file that is being written.
pub(super) struct Writer {
    path: String,
    /// Another program reads it as it is written.
    piped: bool,
    to: PcapNgWriter<BufWriter<Box<dyn Write>>>,
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
        let section = SectionHeaderBlock {
            // Wireshark takes no other while it captures.
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(concat!("sluice ", env!("CARGO_PKG_VERSION")).into())],
            ..SectionHeaderBlock::default()
        };
        let mut to =
            PcapNgWriter::with_section_header(BufWriter::new(to), section).map_err(|error| failed(path, error))?;
        for label in labels {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(label.name.as_str().into()),
                    InterfaceDescriptionOption::IfDescription(label.about.as_str().into()),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ],
            };
            to.write_pcapng_block(interface).map_err(|error| failed(path, error))?;
        }
        let mut writer = Self { path: path.to_owned(), piped, to };
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let frame = packet.frame;
        let direction = if frame.direction() == Direction::Sent { OUTBOUND } else { INBOUND };
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        if let Some(comment) = verdict::comment(frame) {
            options.push(EnhancedPacketOption::Common(CommonOption::Comment(comment.into())));
        }
        if packet.is_super_frame() {
            let comment = format!("super-frame: leaves the machine in segments of {} bytes", frame.segment_len);
            options.push(EnhancedPacketOption::Common(CommonOption::Comment(comment.into())));
        }
        let block = EnhancedPacketBlock {
            interface_id: frame.port,
            timestamp: Duration::from_nanos(frame.time_unix_ns),
            original_len: packet.len,
            data: packet.bytes.into(),
            options,
        };
        self.to.write_pcapng_block(block).map(|_| ()).map_err(|error| self.failure(error))
    }

    /// Notes of each port how many packets were written and how many were lost.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn count(&mut self, by_port: &[(u64, u64)]) -> Result<(), Failure> {
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for (interface_id, (written, lost)) in (0..).zip(by_port) {
            let options =
                vec![InterfaceStatisticsOption::IsbIfRecv(written + lost), InterfaceStatisticsOption::IsbIfDrop(*lost)];
            let block = InterfaceStatisticsBlock { interface_id, timestamp, options };
            self.to.write_pcapng_block(block).map(|_| ()).map_err(|error| self.failure(error))?;
        }
        Ok(())
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
