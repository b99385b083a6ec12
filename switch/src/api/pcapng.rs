//! Captured packets as a pcapng file: one interface for each port, times in nanoseconds, directions as the format has them, what
//! became of each packet as its comment, and at the end what was lost of each port.

use super::verdict;
pub use pcap_file::pcapng::PcapNgWriteError;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use sluice_proto::v1::CapturedFrame;
use sluice_proto::v1::captured_frame::Direction;
use std::io::Write;
use std::time::{Duration, SystemTime};

/// The two lowest bits of a packet's flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A pcapng file that is being written.
pub struct PcapNg<W: Write> {
    to: PcapNgWriter<W>,
}

/// A packet for a file: a frame, or what was in it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The frame.
    pub frame: &'a CapturedFrame,
    /// Its bytes, or those of the packet inside, as many as were kept.
    pub bytes: &'a [u8],
    /// How many there were.
    pub len: u32,
}

impl<'a> From<&'a CapturedFrame> for Packet<'a> {
    fn from(frame: &'a CapturedFrame) -> Self {
        Self { frame, bytes: &frame.frame, len: frame.frame_len }
    }
}

impl Packet<'_> {
    /// Whether it is to be cut into several when it leaves the machine.
    pub fn is_super_frame(&self) -> bool {
        // What was in a tunnel has been cut.
        self.frame.segment_len > 0 && self.bytes.len() == self.frame.frame.len()
    }
}

impl<W: Write> PcapNg<W> {
    /// Begins a file with an interface for each port of the capture: its name, and what it is for a person.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin<'a>(
        to: W,
        interfaces: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, PcapNgWriteError> {
        let section = SectionHeaderBlock {
            // Wireshark takes no other while it captures.
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(concat!("sluice ", env!("CARGO_PKG_VERSION")).into())],
            ..SectionHeaderBlock::default()
        };
        let mut to = PcapNgWriter::with_section_header(to, section)?;
        for (name, about) in interfaces {
            to.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(name.into()),
                    InterfaceDescriptionOption::IfDescription(about.into()),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ],
            })?;
        }
        Ok(Self { to })
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&mut self, packet: &Packet<'_>) -> Result<(), PcapNgWriteError> {
        let frame = packet.frame;
        let direction = if frame.direction() == Direction::Sent { OUTBOUND } else { INBOUND };
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        let whole = || format!("super-frame: leaves the machine in segments of {} bytes", frame.segment_len);
        let comments = [verdict::comment(frame), packet.is_super_frame().then(whole)];
        let comments = comments.into_iter().flatten().map(|text| CommonOption::Comment(text.into()));
        options.extend(comments.map(EnhancedPacketOption::Common));
        let block = EnhancedPacketBlock {
            interface_id: frame.port,
            timestamp: Duration::from_nanos(frame.time_unix_ns),
            original_len: packet.len,
            data: packet.bytes.into(),
            options,
        };
        self.to.write_pcapng_block(block).map(drop)
    }

    /// Notes of each port how many packets were written and how many were lost.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn count(&mut self, by_port: &[(u64, u64)]) -> Result<(), PcapNgWriteError> {
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for (interface_id, (written, lost)) in (0..).zip(by_port) {
            let options =
                vec![InterfaceStatisticsOption::IsbIfRecv(written + lost), InterfaceStatisticsOption::IsbIfDrop(*lost)];
            self.to.write_pcapng_block(InterfaceStatisticsBlock { interface_id, timestamp, options })?;
        }
        Ok(())
    }

    /// Where it is written to.
    pub fn get_mut(&mut self) -> &mut W {
        self.to.get_mut()
    }

    /// Where it was written to.
    pub fn into_inner(self) -> W {
        self.to.into_inner()
    }
}
