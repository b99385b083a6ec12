//! Whether the actions of a flow fit its table and its match: what Open vSwitch checks when a flow is added.
//!
//! Actions that name fields (`set_field`, `load`, `move`, `push`, `learn`, `output:FIELD`, ..) need the match to guarantee
//! that their fields exist: a flow that sets `ip_src` must match `ip`. `ct` needs an IP match, `resubmit(,,ct)` a match on
//! tracked packets. OpenFlow 1.0's actions (`mod_*`, `strip_vlan`, `pop_vlan`, `dec_ttl`, those of MPLS) are accepted
//! under any match and do nothing to a packet that lacks the header, as under `ovs-ofctl` with its default protocols.
//!
//! Actions change what is known of the packet: behind `push_mpls` it is MPLS, behind `push_vlan` it has a tag. What a list
//! within another one changes is forgotten behind it.
//!
//! Whether groups and meters exist is not looked at here: that needs the bridge.

mod error;
mod learn;
mod order;
mod state;

pub use error::ConsistencyError;
pub(crate) use order::{Place, verify};

use crate::action::Action;
use crate::matching::Match;
use crate::rule::TableId;
use state::State;

/// Checks the actions of a flow in `table` that matches `matches`.
///
/// # Errors
/// The first action that does not fit, and why.
pub fn check(table: TableId, matches: &Match, actions: &[Action]) -> Result<(), ConsistencyError> {
    verify(actions, Place::Flow)?;
    State::new(table, matches).list(actions)
}

#[cfg(test)]
mod tests;
