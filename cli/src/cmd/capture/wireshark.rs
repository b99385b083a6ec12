//! Wireshark that reads a capture as it is made.

use crate::client::End;
use crate::failure::Failure;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often it is looked whether Wireshark was closed.
const LOOK: Duration = Duration::from_millis(200);

/// A Wireshark that was started.
pub(super) struct Wireshark(Child);

impl Wireshark {
    /// Starts Wireshark, and returns what it reads from.
    ///
    /// # Errors
    /// It is not installed, or cannot be started.
    pub(super) fn open() -> Result<(Self, Box<dyn Write>), Failure> {
        let mut command = Command::new("wireshark");
        command.args(["-k", "-i", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        // Ctrl-C ends the capture, not the window with what was captured.
        command.process_group(0);
        let failed = |why: String| {
            Failure::new("cannot open Wireshark")
                .why(why)
                .next(format!("install wireshark (apt install wireshark), or where it is: {}", by_pipe()))
        };
        let mut child = command.spawn().map_err(|error| {
            failed(match error.kind() {
                ErrorKind::NotFound => "there is no `wireshark` on this machine's PATH".to_owned(),
                _ => error.to_string(),
            })
        })?;
        let input = child.stdin.take().ok_or_else(|| failed("it has no input".to_owned()))?;
        Ok((Self(child), Box::new(input)))
    }

    /// `end`, or when Wireshark is closed.
    pub(super) fn end_with(mut self, end: End) -> End {
        Box::pin(async move {
            let closed = async {
                while let Ok(None) = self.0.try_wait() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                () = closed => {}
                () = end => {}
            }
        })
    }
}

/// This very command with a pipe to Wireshark, which may be on another machine.
fn by_pipe() -> String {
    let args = std::env::args().skip(1).filter(|arg| arg != "--wireshark");
    let words: Vec<_> = std::iter::once("sluice".to_owned()).chain(args.map(|arg| quoted(&arg))).collect();
    format!("{} -w - | wireshark -k -i -", words.join(" "))
}

/// The argument as a shell reads it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_quoted_where_a_shell_would_change_it() {
        for (arg, text) in [("tcp,tcp_dst=80", "tcp,tcp_dst=80"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(arg), text);
        }
    }
}
