//! `sluice packet-out`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use sluice_proto::v1::PacketOutRequest;

/// Arguments of `sluice packet-out`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice packet-out --actions output:2 ffffffffffff0200000000010806...
  sluice packet-out --in-port 1 --actions 'resubmit(,0)' 0200000000020200000000010800...")]
pub(crate) struct PacketOut {
    /// The frame in hexadecimal, from the Ethernet header on; blanks and colons are passed over
    frame: String,
    /// What to do with it, in OVS's syntax; through the tables if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    actions: String,
    /// Name or number of the port that it is to have come in by
    #[arg(long, value_name = "PORT", default_value = "", hide_default_value = true)]
    in_port: String,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(args: PacketOut, out: &mut Output) -> Result<Exit, Failure> {
    let frame = hex(&args.frame)?;
    out.format(&[Format::Table, Format::Json])?;
    let sent = serde_json::json!({"sent_bytes": frame.len()});
    let client = Client::connect(&args.target)?;
    client.call(client.packets().packet_out(PacketOutRequest {
        bridge: args.bridge.bridge,
        in_port: args.in_port,
        frame,
        actions: args.actions,
    }))?;
    out.done(&sent)
}

fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let digit = |c: char| {
        c.to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
            .ok_or_else(|| Failure::usage(format!("`{c}` is no hexadecimal digit, in the frame")))
    };
    if !digits.len().is_multiple_of(2) {
        return Err(Failure::usage(format!("the frame has {} hexadecimal digits, half a byte too many", digits.len())));
    }
    digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_with_or_without_separators() {
        assert_eq!(hex("02:00 0a\nFf").unwrap(), [2, 0, 10, 255]);
        assert!(hex("0").is_err());
        assert!(hex("0g").is_err());
    }
}
