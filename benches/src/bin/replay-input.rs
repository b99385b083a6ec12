//! Makes what `benches/replay.sh` replays. `replay-input frames FLOWS FILE` writes a capture file of so many UDP flows, 60-byte
//! frames from 10.1.0.0/16 to 10.2.0.0/16 without UDP checksums, each flow as often as makes 4096 frames at least;
//! `replay-input rules RULES FILE` a file of flows with so many policy rules.

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use sluice_benches::acl;
use sluice_flows::packet::compose::compose;
use sluice_flows::text::{Names, show_flow};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

/// Frames of the shortest file, so that a port that copies a whole file at a time is not slowed down by its end.
const LEAST: usize = 4096;
/// Where a frame's UDP checksum is.
const CHECKSUM: std::ops::Range<usize> = 40..42;

const USAGE: &str = "usage: replay-input frames FLOWS FILE, or replay-input rules RULES FILE";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, count, file] = args.as_slice() else { return Err(USAGE.into()) };
    let (count, file) = (count.parse()?, BufWriter::new(File::create(file)?));
    match what.as_str() {
        "frames" => write_frames(count, file),
        "rules" => write_rules(count, file),
        _ => Err(USAGE.into()),
    }
}

fn write_rules(rules: usize, mut file: impl Write) -> Result<(), Box<dyn Error>> {
    let names = Names::new();
    for spec in acl::pipeline(rules) {
        writeln!(file, "{}", show_flow(&spec, None, &names))?;
    }
    Ok(file.flush()?)
}

fn write_frames(flows: usize, file: impl Write) -> Result<(), Box<dyn Error>> {
    let frames: Vec<_> = acl::packets(flows)
        .iter()
        .map(|key| {
            let mut frame = compose(key, &[b'x'; 18]);
            frame[CHECKSUM].fill(0);
            frame
        })
        .collect();
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(file, header)?;
    for frame in frames.iter().cycle().take(flows * LEAST.div_ceil(flows.max(1)).max(1)) {
        writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, frame)?)?;
    }
    writer.flush()?;
    Ok(())
}
