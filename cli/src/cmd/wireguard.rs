//! `sluice wireguard`: keys for WireGuard ports. They are made here, without a switch.

use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::{Args, Subcommand};
use sluice_switch::port::wireguard::SecretKey;
use std::io::Read;

/// More than any file with a key has.
const MOST: u64 = 1024;

/// Arguments of `sluice wireguard`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  (umask 077 && sluice wireguard genkey > wg0.key)
  sluice wireguard pubkey < wg0.key")]
pub(crate) struct Wireguard {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a new private key; keep it to yourself
    #[command(after_help = "Example:
  (umask 077 && sluice wireguard genkey > wg0.key)")]
    Genkey,
    /// Print a new key for two peers to share
    #[command(after_help = "Example:
  (umask 077 && sluice wireguard genpsk > a-b.psk)")]
    Genpsk,
    /// Print the public key of the private key on standard input
    #[command(after_help = "Example:
  sluice wireguard pubkey < wg0.key")]
    Pubkey,
}

/// Runs the verb.
pub(crate) fn run(args: &Wireguard, out: &mut Output) -> Result<Exit, Failure> {
    let generate = || {
        let failed = |e| Failure::new("no key can be made").why(format!("the system gives no random numbers: {e}"));
        SecretKey::generate().map_err(failed)
    };
    let line = match args.verb {
        Verb::Genkey | Verb::Genpsk => generate()?.reveal(),
        Verb::Pubkey => public(std::io::stdin())?,
    };
    out.line(line)?;
    Ok(Exit::Yes)
}

/// The public key of the private key that is read.
fn public(from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    from.take(MOST)
        .read_to_string(&mut text)
        .map_err(|e| Failure::new("the private key cannot be read").why(e.to_string()))?;
    let key = SecretKey::parse(&text).ok_or_else(|| {
        Failure::usage("what is on standard input is no private key")
            .why("a key is 32 bytes in base64")
            .next("sluice wireguard genkey")
    })?;
    Ok(key.public().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_of_what_is_read_is_told() {
        // RFC 7748, 6.1, Alice.
        let told = public(&b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n"[..]).ok();
        assert_eq!(told.as_deref(), Some("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let failure = public(&b"my secret"[..]).err().map(|failure| failure.to_string());
        assert!(failure.is_some_and(|text| text.contains("32 bytes") && !text.contains("my secret")));
    }
}
