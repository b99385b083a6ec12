//! The same suites by other ports and more workers.
//!
//! Suites say what they need, and take a TAP and one worker where they need nothing. The environment says otherwise:
//! `SLUICE_TEST_PORTS=af-packet` has hosts be behind packet sockets, `SLUICE_TEST_WORKERS=2` has every switch run two workers at
//! least. `cargo xtask nightly` runs them by all of these.

use crate::host::Kind;
use std::env;

/// The kind of port to use where one will do as well as another.
pub fn port() -> Kind {
    match env::var("SLUICE_TEST_PORTS").as_deref() {
        Err(_) | Ok("tap") => Kind::Tap,
        Ok("tap-plain") => Kind::TapPlain,
        Ok("af-packet") => Kind::AfPacket,
        Ok("af-xdp") => Kind::AfXdp,
        Ok(other) => panic!("SLUICE_TEST_PORTS={other}: not tap, tap-plain, af-packet or af-xdp"),
    }
}

/// How many workers a switch is to have of which `needed` are enough.
pub fn workers(needed: usize) -> usize {
    let asked = env::var("SLUICE_TEST_WORKERS").ok();
    let asked =
        asked.map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("SLUICE_TEST_WORKERS={text}: no number")));
    needed.max(asked)
}
