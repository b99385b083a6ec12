//! One connection to the switch.
//!
//! A channel of gRPC connects again by itself; ours does not, since behind the next connection there may be another switch, which
//! must be told everything before anything else.

use super::SwitchError;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// How long the connection may be silent before the switch is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long its answer may take.
const PING_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that may be under way before they are read.
const WINDOW: u32 = 1 << 20;

/// Connects to the switch that listens on `socket`.
///
/// # Errors
/// [`SwitchError::Away`]: nothing listens there, or nothing that speaks as the switch does.
pub(super) async fn connect(socket: &Path) -> Result<Channel, SwitchError> {
    let away = |why: String| SwitchError::Away { socket: socket.to_owned(), why };
    // Says more about what is wrong than the channel would.
    let stream = UnixStream::connect(socket).await.map_err(|e| away(in_words(&e)))?;
    let path: PathBuf = socket.to_owned();
    let used = Arc::new(AtomicBool::new(false));
    drop(stream);
    let connector = service_fn(move |_| {
        let (path, again) = (path.clone(), used.swap(true, Ordering::Relaxed));
        async move {
            if again {
                return Err(io::Error::other("the connection to the switch is lost"));
            }
            UnixStream::connect(path).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://switch")
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    endpoint.connect_with_connector(connector).await.map_err(|e| away(e.to_string()))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}
