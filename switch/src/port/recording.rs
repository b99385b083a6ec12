//! The frames of a capture file, or made by a program, in memory.

use super::PortError;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use sluice_flows::packet::MAX_FRAME_LEN;
use sluice_flows::packet::tunnel::{Payload, entropy};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// The first block of every pcapng file says so.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The frames of a capture file, in the order of the file. Their times are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
}

impl Recording {
    /// Reads a pcap or pcapng file of Ethernet frames whole. A frame of which only the front was captured is taken as
    /// it is. `port` is who errors say wanted the file.
    ///
    /// # Errors
    /// [`PortError::File`] when the file cannot be read, is damaged, has frames of another kind of link, or has frames
    /// longer than [`MAX_FRAME_LEN`].
    pub fn load(port: &str, path: &Path) -> Result<Self, PortError> {
        let mut recording = Self::default();
        match recording.read(path) {
            Ok(()) => Ok(recording),
            Err(why) => Err(PortError::File { port: port.to_owned(), op: "read", path: path.to_owned(), why }),
        }
    }

    /// These frames, each cut at [`MAX_FRAME_LEN`].
    pub fn from_frames<B: AsRef<[u8]>>(frames: impl IntoIterator<Item = B>) -> Self {
        let mut recording = Self::default();
        for frame in frames {
            let frame = frame.as_ref();
            recording.bytes.extend_from_slice(&frame[..frame.len().min(MAX_FRAME_LEN)]);
            recording.ends.push(recording.bytes.len());
        }
        recording
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of frame `i`, from 0.
    pub fn frame(&self, i: usize) -> Option<&[u8]> {
        let start = i.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(i)?)
    }

    /// The frames in `count` parts, each in their order: a flow is whole in one of them, chosen by its hash, as devices with several
    /// queues do. A part may be empty.
    pub fn by_flow(&self, count: u16) -> Vec<Self> {
        let mut parts = vec![Self::default(); usize::from(count)];
        for frame in (0..self.len()).filter_map(|i| self.frame(i)) {
            let part = entropy::port(entropy::flow_hash(frame, Payload::Ethernet), 0, count.saturating_sub(1));
            if let Some(part) = parts.get_mut(usize::from(part)) {
                part.bytes.extend_from_slice(frame);
                part.ends.push(part.bytes.len());
            }
        }
        parts
    }

    fn read(&mut self, path: &Path) -> Result<(), String> {
        let mut file = File::open(path).map_err(say)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(|_| "it is no capture file: pcap and pcapng are read".to_owned())?;
        file.rewind().map_err(say)?;
        if magic == PCAPNG_MAGIC { self.read_pcapng(file) } else { self.read_pcap(file) }
    }

    fn read_pcap(&mut self, file: File) -> Result<(), String> {
        let mut reader = PcapReader::new(file).map_err(|e| format!("it is no pcap or pcapng file: {e}"))?;
        let link = reader.header().datalink;
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(|e| format!("frame {} is damaged: {e}", self.len() + 1))?;
            self.push(link, packet.data())?;
        }
        Ok(())
    }

    fn read_pcapng(&mut self, file: File) -> Result<(), String> {
        let mut reader = PcapNgReader::new(file).map_err(say)?;
        while let Some(block) = reader.next_block() {
            let (block, state) = block.map_err(|e| format!("the block after frame {} is damaged: {e}", self.len()))?;
            let (interface, data) = match &block {
                Block::EnhancedPacket(packet) => (packet.interface_id as usize, &packet.data),
                Block::SimplePacket(packet) => (0, &packet.data),
                Block::Packet(packet) => (usize::from(packet.interface_id), &packet.data),
                _ => continue,
            };
            let link = state.interfaces().get(interface).map(|interface| interface.linktype);
            self.push(link.ok_or_else(|| format!("frame {} has no interface", self.len() + 1))?, data)?;
        }
        Ok(())
    }

    fn push(&mut self, link: DataLink, frame: &[u8]) -> Result<(), String> {
        if link != DataLink::ETHERNET {
            return Err(format!("frame {} is of link type {link:?}; only Ethernet is switched", self.len() + 1));
        }
        if frame.len() > MAX_FRAME_LEN {
            let (n, len) = (self.len() + 1, frame.len());
            return Err(format!("frame {n} has {len} bytes; the longest the switch carries has {MAX_FRAME_LEN}"));
        }
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
        Ok(())
    }
}

fn say(error: impl Display) -> String {
    error.to_string()
}
