//! A port that replays a capture file and writes what is sent to it into another.
//!
//! The file to replay is read whole when the port is opened, so replay costs a copy per frame and no system call; frames
//! come as fast as they are asked for. What is sent is written as finished frames with the time of the burst, behind a
//! lock that the workers share: this port is for tests and for looking, not for speed.

use super::finish::Finisher;
use super::recording::Recording;
use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit, sys};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, pcap::PcapTsResolution};
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Longest frame that a reader of the file must expect, in bytes; what tcpdump writes.
const SNAPLEN: u32 = 262_144;

/// Which files a pcap port reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapOptions {
    /// File to replay, pcap or pcapng; nothing is received when `None`.
    pub rx: Option<PathBuf>,
    /// Pcap file to write what is sent into, replaced when it exists; frames are discarded when `None`.
    pub tx: Option<PathBuf>,
    /// Whether the replay starts anew when it is through.
    pub repeat: bool,
    /// MTU in bytes, up to 65,535.
    pub mtu: u32,
}

impl Default for PcapOptions {
    fn default() -> Self {
        Self { rx: None, tx: None, repeat: false, mtu: 1500 }
    }
}

/// A port on capture files.
pub struct PcapPort {
    device: Device,
    replay: Option<Replay>,
    /// Whether queues share what is replayed, by flow; otherwise one replays all of it, so that the file's order holds.
    by_flow: bool,
    writer: Option<Arc<Mutex<Writer>>>,
}

type Writer = PcapWriter<BufWriter<File>>;

#[derive(Clone)]
struct Replay {
    recording: Arc<Recording>,
    repeat: bool,
    /// Readable until the replay is through.
    event: Arc<File>,
}

impl PcapPort {
    /// Reads the file to replay and creates the one to write.
    ///
    /// # Errors
    /// [`PortError::File`].
    pub fn open(name: &str, options: &PcapOptions) -> Result<Self, PortError> {
        let replay = match &options.rx {
            None => None,
            Some(path) => Some(Replay::new(name, Recording::load(name, path)?, options.repeat)?),
        };
        let writer = match &options.tx {
            None => None,
            Some(path) => {
                let failed =
                    |why: String| PortError::File { port: name.to_owned(), op: "write", path: path.clone(), why };
                let file = File::create(path).map_err(|e| failed(e.to_string()))?;
                let header = PcapHeader {
                    snaplen: SNAPLEN,
                    datalink: DataLink::ETHERNET,
                    ts_resolution: PcapTsResolution::NanoSecond,
                    ..PcapHeader::default()
                };
                let mut writer =
                    PcapWriter::with_header(BufWriter::new(file), header).map_err(|e| failed(e.to_string()))?;
                writer.flush().map_err(|e| failed(e.to_string()))?;
                Some(Arc::new(Mutex::new(writer)))
            }
        };
        Ok(Self { device: Device::without_link(name, None, options.mtu), replay, by_flow: false, writer })
    }

    /// A port that gives `frames` over and over, and discards what is sent to it. Each of several queues gives the flows of its
    /// part ([`Recording::by_flow`]).
    ///
    /// # Errors
    /// The system's, when it has no descriptor left.
    pub fn repeating(name: &str, frames: Recording, mtu: u32) -> Result<Self, PortError> {
        let replay = Some(Replay::new(name, frames, true)?);
        Ok(Self { device: Device::without_link(name, None, mtu), replay, by_flow: true, writer: None })
    }

    /// The same port with one queue, for all frames.
    #[must_use]
    pub fn on_one_queue(self) -> Self {
        Self { by_flow: false, ..self }
    }

    /// What each of the first queues replays, of so many.
    fn parts(&self, queues: usize) -> Vec<Option<Replay>> {
        match (&self.replay, u16::try_from(queues)) {
            (Some(replay), Ok(queues @ 2..)) if self.by_flow => {
                let part = |part| Replay { recording: Arc::new(part), ..replay.clone() };
                let parts = replay.recording.by_flow(queues).into_iter();
                parts.map(|frames| (!frames.is_empty()).then(|| part(frames))).collect()
            }
            (replay, _) => vec![replay.clone()],
        }
    }
}

impl Replay {
    fn new(name: &str, recording: Recording, repeat: bool) -> Result<Self, PortError> {
        let event = sys::eventfd().map_err(|e| PortError::from_io(name, "make an eventfd", e))?;
        (&event).write_all(&1_u64.to_ne_bytes()).map_err(|e| PortError::from_io(name, "set an eventfd", e))?;
        Ok(Self { recording: Arc::new(recording), repeat, event: Arc::new(event) })
    }
}

impl Port for PcapPort {
    fn kind(&self) -> PortKind {
        PortKind::Pcap
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::NONE
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let mut parts = self.parts(count).into_iter();
        Ok((0..count)
            .map(|_| {
                Box::new(PcapQueue {
                    mtu: self.device.shared_mtu(),
                    replay: parts.next().flatten(),
                    next: 0,
                    writer: self.writer.clone(),
                    finisher: Finisher::new(),
                }) as Box<dyn PortQueue>
            })
            .collect())
    }
}

/// One worker's queue of a [`PcapPort`].
struct PcapQueue {
    mtu: Arc<AtomicU32>,
    replay: Option<Replay>,
    next: usize,
    writer: Option<Arc<Mutex<Writer>>>,
    finisher: Finisher,
}

impl PortQueue for PcapQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.replay.as_ref().map(|replay| replay.event.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let Some(replay) = &self.replay else { return Ok(0) };
        let mut count = 0;
        while let Some(frame) = frames.get_mut(count) {
            if self.next >= replay.recording.len() && replay.repeat {
                self.next = 0;
            }
            let Some(bytes) = replay.recording.frame(self.next) else {
                // Through: no longer readable, so that a worker may park.
                _ = (&*replay.event).read(&mut [0; 8]);
                break;
            };
            frame.copy_from(bytes);
            self.next += 1;
            count += 1;
        }
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut writer = self.writer.as_ref().map(|writer| writer.lock().unwrap_or_else(PoisonError::into_inner));
        let finisher = &mut self.finisher;
        fit::send_each(frames, outcomes, &self.mtu, |frame| {
            finisher.send(frame, |bytes| match &mut writer {
                Some(writer) => write(writer, now, bytes),
                None => TxOutcome::Sent,
            })
        });
        if let Some(writer) = &mut writer {
            // So that the file can be read while it is written. What is wrong shows at the next frame.
            _ = writer.flush();
        }
    }
}

fn write(writer: &mut Writer, time: Duration, bytes: &[u8]) -> TxOutcome {
    let packet = u32::try_from(bytes.len()).ok().and_then(|len| PcapPacket::new(time, len, bytes).ok());
    match packet.map(|packet| writer.write_packet(&packet)) {
        Some(Ok(_)) => TxOutcome::Sent,
        // No room on the disk, or no disk.
        Some(Err(_)) => TxOutcome::Dropped(DropReason::PortDown),
        None => TxOutcome::Dropped(DropReason::ParseError),
    }
}
