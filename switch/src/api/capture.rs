//! Capturing: copies of frames as a stream.
//!
//! Frames go in messages of many, so that the stream keeps up with more than the caller's turns. Between messages the
//! thread looks whether the caller is still there.

use super::watch::Watched;
use super::{Api, error};
use crate::{Capture, Captured, Direction};
use sluice_flows::Match;
use sluice_flows::packet::GsoKind;
use sluice_flows::text::{Names, parse_match};
use sluice_proto::v1::capture_service_server::CaptureService;
use sluice_proto::v1::{CaptureReply, CaptureRequest, CapturedFrame, CapturedPort, captured_frame};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How often the thread looks whether anybody still reads.
const LOOK: Duration = Duration::from_millis(50);
/// Frames and bytes of a message at most; a frame more may come on top.
const FRAMES: usize = 256;
const BYTES: usize = 1 << 20;
/// Messages on their way to the caller.
const ON_THE_WAY: usize = 4;

#[tonic::async_trait]
impl CaptureService for Api {
    type CaptureStream = Watched<CaptureReply>;

    async fn capture(&self, request: Request<CaptureRequest>) -> Result<Response<Self::CaptureStream>, Status> {
        let CaptureRequest { ports, r#match, snaplen } = request.into_inner();
        let permit = self.watch_permit()?;
        let matches = if r#match.is_empty() {
            Match::any()
        } else {
            let parsed = parse_match(&r#match, Names::NONE);
            parsed.map_err(|error| Status::invalid_argument(format!("{error:#}")))?.value
        };
        let snaplen = if snaplen == 0 { usize::MAX } else { snaplen as usize };
        let (capture, first) = self
            .blocking(move |datapath| {
                let capture = datapath.capture(&ports, &matches, snaplen).map_err(error::status)?;
                let all = datapath.ports(None).map_err(error::status)?;
                let told = ports.iter().map(|name| {
                    let port = all.iter().find(|p| *p.port.name == **name);
                    port.map_or_else(CapturedPort::default, |p| CapturedPort {
                        name: name.clone(),
                        bridge: p.bridge_name.to_string(),
                        number: p.port.no.0.into(),
                        r#type: p.kind.name().to_owned(),
                    })
                });
                Ok((capture, CaptureReply { ports: told.collect(), ..CaptureReply::default() }))
            })
            .await?;
        let (sender, receiver) = mpsc::channel(ON_THE_WAY);
        let ended = self.ended.clone();
        tokio::task::spawn_blocking(move || {
            let mut next = Some(first);
            let mut told = 0;
            while !sender.is_closed() && !*ended.borrow() {
                if next.take().is_some_and(|reply| sender.blocking_send(Ok(reply)).is_err()) {
                    break;
                }
                next = collect(&capture, told);
                told = next.as_ref().map_or(told, |reply| reply.lost);
            }
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The frames that wait, if there are any or some were lost besides the `told`.
fn collect(capture: &Capture, told: u64) -> Option<CaptureReply> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    let mut patience = LOOK;
    while frames.len() < FRAMES
        && bytes < BYTES
        && let Some(copy) = capture.next(patience)
    {
        bytes += copy.bytes.len();
        frames.push(frame(copy));
        patience = Duration::ZERO;
    }
    let lost = capture.lost();
    (!frames.is_empty() || lost != told).then(|| CaptureReply { frames, lost, ..CaptureReply::default() })
}

fn frame(copy: Captured) -> CapturedFrame {
    let super_frame = copy.offload.gso != GsoKind::None;
    CapturedFrame {
        port: copy.port as u32,
        direction: match copy.direction {
            Direction::Received => captured_frame::Direction::Received,
            Direction::Sent => captured_frame::Direction::Sent,
        }
        .into(),
        time_unix_ns: u64::try_from(copy.time.as_nanos()).unwrap_or(u64::MAX),
        frame: copy.bytes.into_vec(),
        frame_len: u32::try_from(copy.len).unwrap_or(u32::MAX),
        segment_len: if super_frame { copy.offload.gso_size.into() } else { 0 },
        partial_checksum: copy.offload.csum_partial,
    }
}
