//! Makes what `benches/replay.sh` replays: `replay-input FLOWS FILE` writes a capture file of so many UDP flows, 60-byte
//! frames from 10.1.0.0/16 to 10.2.0.0/16 without UDP checksums, each flow as often as makes 4096 frames at least.

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use sluice_benches::acl;
use sluice_flows::packet::compose::compose;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;

/// Frames of the shortest file, so that a port that copies a whole file at a time is not slowed down by its end.
const LEAST: usize = 4096;
/// Where a frame's UDP checksum is.
const CHECKSUM: std::ops::Range<usize> = 40..42;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flows, file] = args.as_slice() else { return Err("usage: replay-input FLOWS FILE".into()) };
    let flows: usize = flows.parse()?;
    let frames: Vec<_> = acl::packets(flows)
        .iter()
        .map(|key| {
            let mut frame = compose(key, &[b'x'; 18]);
            frame[CHECKSUM].fill(0);
            frame
        })
        .collect();
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(BufWriter::new(File::create(file)?), header)?;
    for frame in frames.iter().cycle().take(flows * LEAST.div_ceil(flows.max(1)).max(1)) {
        writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, frame)?)?;
    }
    writer.flush()?;
    Ok(())
}
