//! Capturing: copies of frames as a stream.
//!
//! Verdicts are put into words here, by the names that ports have now: workers only hand over numbers and rules.
//!
//! Frames go in messages of many, so that the stream keeps up with more than the caller's turns. Between messages the
//! thread looks whether the caller is still there.

use super::stats::rule_text;
use super::watch::Watched;
use super::{Api, error};
use crate::{Capture, Captured, CapturedVerdict, Condition, Direction, Sight};
use sluice_flows::bridge::Model;
use sluice_flows::packet::GsoKind;
use sluice_flows::rule::Rule;
use sluice_flows::text::{Names, parse_match};
use sluice_flows::{DropReason, Match};
use sluice_proto::v1::capture_request::Point;
use sluice_proto::v1::capture_service_server::CaptureService;
use sluice_proto::v1::captured_frame::Verdict;
use sluice_proto::v1::{CaptureReply, CaptureRequest, CapturedFrame, CapturedOutput, CapturedPort, captured_frame};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How often the thread looks whether anybody still reads.
const LOOK: Duration = Duration::from_millis(50);
/// Frames and bytes of a message at most; a frame more may come on top.
const FRAMES: usize = 256;
const BYTES: usize = 1 << 20;
/// Conditions of a capture, and matches of each, at most.
const CONDITIONS: usize = 64;
const MATCHES: usize = 256;
/// Messages on their way to the caller.
const ON_THE_WAY: usize = 4;

#[tonic::async_trait]
impl CaptureService for Api {
    type CaptureStream = Watched<CaptureReply>;

    async fn capture(&self, request: Request<CaptureRequest>) -> Result<Response<Self::CaptureStream>, Status> {
        let request = request.into_inner();
        let point = request.point();
        let CaptureRequest { ports, r#match, snaplen, dropped, conditions, .. } = request;
        let permit = self.watch_permit()?;
        let read = |text: &String| {
            let parsed = parse_match(text, Names::NONE);
            parsed.map(|parsed| parsed.value).map_err(|error| Status::invalid_argument(format!("{error:#}")))
        };
        let matches = if r#match.is_empty() { Match::any() } else { read(&r#match)? };
        if conditions.len() > CONDITIONS || conditions.iter().any(|condition| condition.any.len() > MATCHES) {
            let message = format!("a capture has at most {CONDITIONS} conditions of {MATCHES} matches");
            return Err(Status::invalid_argument(message));
        }
        let conditions = conditions.iter().map(|condition| {
            let any = condition.any.iter().map(read).collect::<Result<_, _>>()?;
            Ok(Condition { any, not: condition.not })
        });
        let conditions = conditions.collect::<Result<_, Status>>()?;
        let sight = Sight {
            snaplen: if snaplen == 0 { usize::MAX } else { snaplen as usize },
            received: point != Point::Out,
            sent: point != Point::In,
            dropped,
            conditions,
            ..Sight::of(matches)
        };
        let (capture, first) = self
            .blocking(move |datapath| {
                let capture = datapath.capture(&ports, &sight).map_err(error::status)?;
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
        let datapath = self.datapath.clone();
        tokio::task::spawn_blocking(move || {
            let mut next = Some(first);
            let mut told = 0;
            let mut words = Words::default();
            while !sender.is_closed() && !*ended.borrow() {
                if next.take().is_some_and(|reply| sender.blocking_send(Ok(reply)).is_err()) {
                    break;
                }
                next = collect(&capture, told, || datapath.model(), &mut words);
                told = next.as_ref().map_or(told, |reply| reply.lost);
            }
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The frames that wait, if there are any or some were lost besides the `told`.
fn collect(capture: &Capture, told: u64, model: impl Fn() -> Arc<Model>, words: &mut Words) -> Option<CaptureReply> {
    let mut copies = Vec::new();
    let mut bytes = 0;
    let mut patience = LOOK;
    while copies.len() < FRAMES
        && bytes < BYTES
        && let Some(copy) = capture.next(patience)
    {
        bytes += copy.bytes.len();
        copies.push(copy);
        patience = Duration::ZERO;
    }
    let port_lost: Vec<_> = capture.lost().collect();
    let lost = port_lost.iter().sum();
    if copies.is_empty() && lost == told {
        return None;
    }
    let model = model();
    let frames = copies.into_iter().map(|copy| frame(copy, &model, words)).collect();
    Some(CaptureReply { frames, lost, port_lost, ..CaptureReply::default() })
}

fn frame(copy: Captured, model: &Model, words: &mut Words) -> CapturedFrame {
    let super_frame = copy.offload.gso != GsoKind::None;
    let (verdict, reason) = match copy.verdict {
        CapturedVerdict::Forwarded => (Verdict::Forwarded, None),
        CapturedVerdict::Dropped(reason) => (Verdict::Dropped, Some(reason)),
        CapturedVerdict::Waits => (Verdict::Waits, None),
        CapturedVerdict::Answer => (Verdict::Answer, None),
    };
    let name = |reason: Option<DropReason>| reason.map_or_else(String::new, |reason| reason.name().to_owned());
    let outputs = copy.outputs.iter().map(|(port, lost)| CapturedOutput {
        port: model.port(*port).map_or_else(String::new, |(_, port)| port.name.to_string()),
        reason: name(*lost),
    });
    let mut owners: Vec<String> = Vec::new();
    for rule in &copy.rules {
        let owner = &words.of(rule).owner;
        if !owners.contains(owner) {
            owners.push(owner.clone());
        }
    }
    CapturedFrame {
        port: copy.port as u32,
        direction: match copy.direction {
            Direction::Received => captured_frame::Direction::Received,
            Direction::Sent => captured_frame::Direction::Sent,
        }
        .into(),
        time_unix_ns: u64::try_from(copy.time.as_nanos()).unwrap_or(u64::MAX),
        frame_len: u32::try_from(copy.len).unwrap_or(u32::MAX),
        segment_len: if super_frame { copy.offload.gso_size.into() } else { 0 },
        partial_checksum: copy.offload.csum_partial,
        verdict: verdict.into(),
        reason: name(reason),
        outputs: outputs.collect(),
        owner: copy.rules.last().map_or_else(String::new, |rule| words.of(rule).owner.clone()),
        rule: copy.rules.last().map_or_else(String::new, |rule| words.of(rule).rule.clone()),
        owners,
        frame: copy.bytes.into_vec(),
    }
}

/// Rules in words by their addresses, so that each is put into words only once.
#[derive(Default)]
struct Words(HashMap<usize, Said>);

struct Said {
    /// Keeps the address its own.
    _rule: Arc<Rule>,
    owner: String,
    rule: String,
}

impl Words {
    /// Rules kept at most.
    const MOST: usize = 1024;

    fn of(&mut self, rule: &Arc<Rule>) -> &Said {
        let address = Arc::as_ptr(rule).addr();
        if self.0.len() >= Self::MOST && !self.0.contains_key(&address) {
            self.0.clear();
        }
        self.0.entry(address).or_insert_with(|| Said {
            _rule: Arc::clone(rule),
            owner: rule.spec.owner.to_string(),
            rule: rule_text(&rule.spec),
        })
    }
}
