//! `sluice relay`: joins standard input and output to the switch's socket.
//!
//! It runs in the Pod beside a switch, started through the API server by a `sluice` elsewhere, which speaks gRPC over it.
//! Each direction ends by itself: when the input ends, the switch is told that nothing more comes, and what it still says is
//! passed on; when the switch has said all, the relay ends.

use crate::client::Target;
use crate::failure::Failure;
use crate::output::Exit;
use clap::Args;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Bytes that are passed on at once.
const BUFFER: usize = 64 << 10;

/// Arguments of `sluice relay`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl -n sluice-system exec -i sluice-x7k2p -c sluiced -- sluice relay
What `sluice` starts by itself where it reaches a switch through the API server.")]
pub(crate) struct Relay {
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
///
/// # Errors
/// Nothing listens on the socket.
pub(crate) fn run(args: &Relay) -> Result<Exit, Failure> {
    let socket = args.target.connect_here()?;
    // Without the buffer of lines that standard output has.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    join(stdin, stdout, &socket)
}

/// Copies both ways until the switch has said all.
fn join(stdin: impl Read + Send + 'static, stdout: impl Write, socket: &UnixStream) -> Result<Exit, Failure> {
    let to_switch = socket.try_clone()?;
    // Nobody waits for it: a reader of standard input cannot be woken.
    std::thread::spawn(move || {
        // A switch that no longer listens ends the other direction too.
        _ = copy(stdin, &to_switch);
        _ = to_switch.shutdown(Shutdown::Write);
    });
    match copy(socket, stdout) {
        Ok(()) => Ok(Exit::Yes),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Exit::Yes),
        Err(error) => Err(error.into()),
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => to.write_all(buffer.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_the_switch_says_after_the_input_has_ended_still_arrives() {
        let (socket, switch) = UnixStream::pair().unwrap();
        switch.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let answer = std::thread::spawn(move || {
            let mut asked = String::new();
            (&switch).read_to_string(&mut asked).unwrap();
            // Only the end of the input ends this read.
            (&switch).write_all(format!("{asked}?").repeat(50_000).as_bytes()).unwrap();
        });
        let mut out = Vec::new();
        join(io::Cursor::new(b"status".to_vec()), &mut out, &socket).unwrap();
        answer.join().unwrap();
        assert_eq!(out.len(), "status?".len() * 50_000);
    }

    #[test]
    fn a_relay_ends_with_the_switch_although_its_input_is_open() {
        let (socket, switch) = UnixStream::pair().unwrap();
        let (silent, _held) = UnixStream::pair().unwrap();
        drop(switch);
        join(silent, Vec::new(), &socket).unwrap();
    }
}
