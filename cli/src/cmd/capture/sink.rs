//! Where the packets of a recording go, and what is said of them.

use super::file::Writer;
use super::{How, Label, inner};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use serde::Serialize;
use sluice_flows::key::{FlowKey, PacketKey};
use sluice_flows::packet::extract;
use sluice_flows::text::{Names, show_packet};
use sluice_proto::v1::CaptureReply;
use sluice_proto::v1::captured_frame::Direction;
use sluice_switch::api::pcapng::Packet;
use sluice_switch::api::verdict;
use std::collections::BTreeSet;

/// What was recorded so far.
#[derive(Default, Serialize)]
pub(super) struct Tally {
    pub(super) packets: u64,
    lost: u64,
    super_frames: u64,
    #[serde(skip)]
    tunnels: BTreeSet<&'static str>,
    /// Packets that were written and that were lost, of each port.
    #[serde(skip)]
    by_port: Vec<(u64, u64)>,
}

/// Where packets go.
pub(super) enum Sink {
    File { writer: Writer, path: String },
    Lines,
    Json,
}

fn way<'a>(packet: &Packet<'_>, label: &'a Label) -> &'a str {
    &label.ways[usize::from(packet.frame.direction() == Direction::Sent)]
}

/// A packet's headers, as flows are written.
fn headers(packet: &Packet<'_>) -> String {
    let mut key = PacketKey::ZERO;
    extract(packet.bytes, 0, &mut key);
    show_packet(&FlowKey::from(&key), Names::NONE).to_string()
}

/// A packet as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    time_unix_ns: u64,
    port: &'a str,
    way: &'a str,
    len_bytes: u32,
    segment_bytes: u32,
    packet: String,
    verdict: &'a str,
    reason: &'a str,
    to: Vec<&'a str>,
    owner: &'a str,
    rule: &'a str,
    owners: &'a [String],
}

impl Sink {
    fn put(&mut self, packet: &Packet<'_>, label: &Label, out: &mut Output) -> Result<(), Failure> {
        let frame = packet.frame;
        match self {
            Self::File { writer, .. } => writer.put(packet)?,
            Self::Lines => {
                let time = crate::cmd::events::time_of_day(frame.time_unix_ns);
                let (name, way, len) = (&label.name, way(packet, label), packet.len);
                let line = format!("{time}  {name}  {way}  {len} bytes  {}", headers(packet));
                out.line(format!("{line}  {}", verdict::end_of_line(frame)).trim_end())?;
            }
            Self::Json => out.json(&Line {
                time_unix_ns: frame.time_unix_ns,
                port: &label.port,
                way: way(packet, label),
                len_bytes: packet.len,
                segment_bytes: if packet.is_super_frame() { frame.segment_len } else { 0 },
                packet: headers(packet),
                verdict: verdict::verdict(frame),
                reason: &frame.reason,
                to: verdict::ports(frame),
                owner: &frame.owner,
                rule: &frame.rule,
                owners: &frame.owners,
            })?,
        }
        Ok(())
    }

    /// What was written can be read by others.
    pub(super) fn flush(&mut self, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::File { writer, .. } => writer.flush(),
            Self::Lines | Self::Json => Ok(out.flush()?),
        }
    }

    /// Says what was recorded.
    pub(super) fn finish(self, tally: &Tally, how: &How, format: Format, out: &mut Output) -> Result<Exit, Failure> {
        let inner = how.inner;
        let said = tally.said(inner);
        match self {
            Self::File { mut writer, path } => {
                let piped = writer.is_piped();
                writer.count(&tally.by_port)?;
                writer.flush()?;
                if piped {
                    how.talk(said, out)?;
                } else if format == Format::Json {
                    out.json(tally)?;
                } else {
                    let notes = tally.notes(inner);
                    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
                    out.line(format!("{said} -> {path}{notes}"))?;
                }
            }
            Self::Lines | Self::Json => out.talk(said)?,
        }
        Ok(Exit::Yes)
    }
}

impl Tally {
    /// Nothing so far, of so many ports.
    pub(super) fn of(ports: usize) -> Self {
        Self { by_port: vec![(0, 0); ports], ..Self::default() }
    }

    /// Takes the packets of a reply, `most` in all.
    pub(super) fn take(
        &mut self,
        reply: &CaptureReply,
        labels: &[Label],
        (inner, most): (bool, u64),
        sink: &mut Sink,
        out: &mut Output,
    ) -> Result<(), Failure> {
        self.lost = reply.lost;
        for ((_, lost), told) in self.by_port.iter_mut().zip(&reply.port_lost) {
            *lost = *told;
        }
        for frame in &reply.frames {
            let port = frame.port as usize;
            let Some(label) = labels.get(port) else { continue };
            let found = inner::open(frame);
            self.tunnels.extend(found.as_ref().map(|(kind, _)| inner::shown(*kind)));
            let packets: Vec<_> = match &found {
                Some((_, packets)) if inner => {
                    packets.iter().map(|bytes| Packet { frame, bytes, len: bytes.len() as u32 }).collect()
                }
                _ => vec![Packet::from(frame)],
            };
            for packet in packets.into_iter().take(usize::try_from(most - self.packets).unwrap_or(usize::MAX)) {
                self.packets += 1;
                self.super_frames += u64::from(packet.is_super_frame());
                if let Some((written, _)) = self.by_port.get_mut(port) {
                    *written += 1;
                }
                sink.put(&packet, label, out)?;
            }
            if self.packets == most {
                break;
            }
        }
        Ok(())
    }

    fn said(&self, inner: bool) -> String {
        let what = if inner { "inner packet" } else { "packet" };
        let plural = if self.packets == 1 { "" } else { "s" };
        format!("{} {what}{plural}, {} lost by capture", self.packets, self.lost)
    }

    /// What a reader of the file should know.
    fn notes(&self, inner: bool) -> Vec<String> {
        let tunnels = self.tunnels.iter().copied().collect::<Vec<_>>().join(" and ");
        let mut notes = Vec::new();
        match (self.tunnels.is_empty(), inner) {
            (false, false) => notes.push(format!("outer {tunnels}; --inner strips it")),
            (false, true) => notes.push(format!("outer {tunnels} stripped")),
            (true, _) => {}
        }
        if self.super_frames > 0 {
            let plural = if self.super_frames == 1 { "" } else { "s" };
            notes.push(format!("{} super-frame{plural} written whole", self.super_frames));
        }
        notes
    }
}
