//! Whether the flow that `learn` makes can be.

use super::ConsistencyError;
use super::state::State;
use crate::action::{Learn, LearnSource, LearnSpec};

/// Checks that `learn` reads fields that the packets have, and makes a flow whose fields have what they need in its own
/// match, in the order in which they are written: `eth_type=0x800` before `ip_src[]`.
pub(super) fn check(state: &mut State<'_>, learn: &Learn) -> Result<(), ConsistencyError> {
    if let Some(dst) = learn.result_dst {
        state.bits(dst)?;
        state.writable(dst.field)?;
        state.one_bit(dst, "result_dst")?;
    }
    let mut learned = State::of_any(state.action());
    for spec in &learn.specs {
        match *spec {
            LearnSpec::Output(src) => state.readable(src)?,
            LearnSpec::Match { dst, src } => {
                source(state, dst.bits, src)?;
                learned.readable(dst)?;
                if let LearnSource::Value(value) = src {
                    learned.learn(dst, value);
                }
            }
            LearnSpec::Load { dst, src } => {
                source(state, dst.bits, src)?;
                learned.destination(dst)?;
            }
        }
    }
    Ok(())
}

fn source(state: &mut State<'_>, bits: u8, src: LearnSource) -> Result<(), ConsistencyError> {
    match src {
        LearnSource::Field(src) if src.bits != bits => {
            Err(ConsistencyError::MoveWidths { action: state.action(), from: src.bits, to: bits })
        }
        LearnSource::Field(src) => state.readable(src),
        LearnSource::Value(value) if bits < 128 && value >> bits != 0 => {
            Err(state.bad("learn", "values that fit into their fields"))
        }
        LearnSource::Value(_) => Ok(()),
    }
}
