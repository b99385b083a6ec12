//! Writing a pcapng file: one interface for each port, named as the recording names it, times in nanoseconds, directions
//! as the format has them.

use super::{Label, Packet};
use crate::failure::Failure;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use sluice_proto::v1::captured_frame::Direction;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::time::Duration;

/// The two lowest bits of a packet's flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A pcapng file that is being written.
pub(super) struct Writer {
    path: String,
    to: PcapNgWriter<BufWriter<Box<dyn Write>>>,
}

impl Writer {
    /// Begins a file with an interface for each label; `-` is standard output.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn create(path: &str, labels: &[Label]) -> Result<Self, Failure> {
        let to: Box<dyn Write> = match path {
            "-" => Box::new(stdout()),
            path => Box::new(File::create(path).map_err(|error| failed(path, error))?),
        };
        let section = SectionHeaderBlock {
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
        let mut writer = Self { path: path.to_owned(), to };
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
        self.to.write_pcapng_block(block).map(|_| ()).map_err(|error| failed(&self.path, error))
    }

    /// Makes what was put readable to others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.to
            .get_mut()
            .flush()
            .map_err(|error| if self.path == "-" { error.into() } else { failed(&self.path, error) })
    }
}

fn failed(path: &str, error: impl Display) -> Failure {
    Failure::new(format!("cannot write {path}: {error}")).next("choose another file, or make room on the disk")
}
