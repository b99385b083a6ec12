//! Asking a daemon of OVS over its control socket: JSON-RPC 1.0, one request and one reply at a time.

use serde_json::de::IoRead;
use serde_json::{StreamDeserializer, Value, json};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a reply may take: OVS prints megabytes for packets that go round in circles.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a control socket.
pub struct Unixctl {
    socket: UnixStream,
    replies: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    id: u64,
}

impl Unixctl {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> std::io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(socket.try_clone()?);
        Ok(Self { socket, replies: serde_json::Deserializer::from_reader(reader).into_iter(), id: 0 })
    }

    /// Runs a command: what it prints.
    ///
    /// # Errors
    /// What it refused it with, or that the daemon is gone.
    pub fn ask(&mut self, command: &str, args: &[&str]) -> Result<String, String> {
        self.id += 1;
        let request = json!({ "id": self.id, "method": command, "params": args }).to_string();
        let sent = self.socket.write_all(request.as_bytes());
        let reply = self.replies.next().filter(|_| sent.is_ok());
        let reply = match reply {
            Some(Ok(reply)) => reply,
            other => return Err(format!("OVS died or hangs: {other:?}")),
        };
        match reply.get("result").and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(reply.get("error").and_then(Value::as_str).unwrap_or_default().trim().to_owned()),
        }
    }
}
