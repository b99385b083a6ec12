//! The stream to a switch: the input and output of `sluice relay` in the Pod beside it.

use super::error::failed;
use super::{CONTAINER, Cluster, Member, NAMESPACE, runtime};
use crate::failure::Failure;
use crate::output::Exit;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// How long a command may take to start in a Pod, and one that answers and ends to do so: a kubelet that is stuck says nothing.
const STARTS_WITHIN: Duration = Duration::from_secs(15);
const ANSWERS_WITHIN: Duration = Duration::from_secs(25);
/// What runs beside the switch.
const RELAY: &[&str] = &["sluice", "relay"];
/// Bytes under way on each side, and most that are kept of what a command says of its failures.
const BUFFER: usize = 256 << 10;
const SAID_LEN: u64 = 4 << 10;
/// Most bytes of an answer that is read whole.
const ANSWER_LEN: u64 = 16 << 20;

type ReadEnd = Box<dyn AsyncRead + Send + Unpin>;
type WriteEnd = Box<dyn AsyncWrite + Send + Unpin>;

/// What the relay has said of its failure.
pub(crate) type Said = Arc<Mutex<String>>;

/// The input and output of a process in a Pod.
pub(crate) struct Stream {
    read: ReadEnd,
    write: WriteEnd,
    said: Said,
    /// Ends with us.
    _process: AttachedProcess,
}

impl Stream {
    /// What the process says on its standard error, as it comes.
    pub(super) fn said(&self) -> Said {
        Arc::clone(&self.said)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

/// What a command that has ended printed.
#[derive(Debug)]
pub(crate) struct Answer {
    /// On standard output.
    pub(crate) out: String,
    /// On standard error.
    pub(crate) err: String,
}

/// Nothing came from a Pod.
fn silent(member: &Member, within: Duration) -> Failure {
    Failure::new(format!("the Pod {NAMESPACE}/{} runs nothing within {} s", member.pod, within.as_secs()))
        .next(format!("does the kubelet answer? kubectl describe node {}", member.node))
        .exit(Exit::NoDaemon)
}

impl Answer {
    /// Why it failed, in the first of the lines that a failure is told by; none if it said nothing.
    pub(crate) fn why(&self) -> Option<String> {
        let line = self.err.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.strip_prefix("error: ").unwrap_or(line).to_owned())
    }
}

impl Cluster {
    /// Starts the relay beside a switch.
    pub(super) async fn relay(&self, member: &Member) -> Result<Stream, Failure> {
        let mut process = self.start(member, RELAY, true).await?;
        let (Some(read), Some(write)) = (process.stdout(), process.stdin()) else {
            return Err(Failure::new("the relay has no input or no output"));
        };
        let said = Said::default();
        if let Some(stderr) = process.stderr() {
            let said = Arc::clone(&said);
            tokio::spawn(async move {
                let mut text = String::new();
                // What cannot be read adds nothing.
                _ = stderr.take(SAID_LEN).read_to_string(&mut text).await;
                if let Ok(mut said) = said.lock() {
                    *said = text;
                }
            });
        }
        Ok(Stream { read: Box::new(read), write: Box::new(write), said, _process: process })
    }

    /// Runs a command beside a switch to its end, whatever its exit code.
    ///
    /// # Errors
    /// It could not be started, or printed no text.
    pub(crate) fn run(&self, member: &Member, command: &[&str]) -> Result<Answer, Failure> {
        runtime()?.block_on(async {
            let answer = timeout(ANSWERS_WITHIN, self.answer(member.ready()?, command)).await;
            answer.unwrap_or_else(|_| Err(silent(member, ANSWERS_WITHIN)))
        })
    }

    async fn answer(&self, member: &Member, command: &[&str]) -> Result<Answer, Failure> {
        let mut process = self.start(member, command, false).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let read = async |from: Option<ReadEnd>, to: &mut String, len: u64| match from {
            Some(from) => from.take(len).read_to_string(to).await.map(|_| ()),
            None => Ok(()),
        };
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let out_end = stdout.map(|end| Box::new(end) as ReadEnd);
        let err_end = stderr.map(|end| Box::new(end) as ReadEnd);
        let both = tokio::join!(read(out_end, &mut out, ANSWER_LEN), read(err_end, &mut err, SAID_LEN));
        both.0.and(both.1).map_err(|e| Failure::new(format!("node {} answers no text: {e}", member.node)))?;
        Ok(Answer { out, err })
    }

    async fn start(&self, member: &Member, command: &[&str], stdin: bool) -> Result<AttachedProcess, Failure> {
        let pods = Api::<Pod>::namespaced(self.kube()?, NAMESPACE);
        let params = AttachParams::default().container(CONTAINER).stdin(stdin).stdout(true).stderr(true);
        let params = params.max_stdin_buf_size(BUFFER).max_stdout_buf_size(BUFFER);
        let begun = timeout(STARTS_WITHIN, pods.exec(&member.pod, command.iter().copied(), &params)).await;
        begun.map_err(|_| silent(member, STARTS_WITHIN))?.map_err(|e| {
            let what = format!("run `{}` in the Pod {NAMESPACE}/{}", command.join(" "), member.pod);
            failed(&self.server(), &what, "get and create pods/exec", e)
        })
    }
}
