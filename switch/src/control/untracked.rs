//! Refuses what needs connection tracking, which the switch does not have. The model reads, prints and traces it.

use sluice_flows::action::Action;
use sluice_flows::bridge::Bridge;
use sluice_flows::bridge_mod::{BridgeMod, ModError};
use sluice_flows::flow_mod::{Applied, FlowMod};
use sluice_flows::group::{BucketSpec, GroupMod};
use sluice_flows::rule::Millis;
use thiserror::Error;

/// Why a change to a bridge was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// The model does not allow it.
    #[error(transparent)]
    Refused(#[from] ModError),
    /// Packets would have to be tracked.
    #[error("connection tracking is not part of this switch yet; leave out the actions ct and ct_clear")]
    Untracked,
}

/// Makes one change to a bridge of the switch at `now`.
pub(crate) fn apply(bridge: &mut Bridge, change: BridgeMod, now: Millis) -> Result<Applied, ChangeError> {
    let tracks = match &change {
        BridgeMod::Flow(FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. }) => tracks(&spec.actions),
        BridgeMod::Group(GroupMod::Add(spec) | GroupMod::Modify { spec, .. }) => any_tracks(&spec.buckets),
        BridgeMod::Group(GroupMod::InsertBuckets { buckets, .. }) => any_tracks(buckets),
        _ => false,
    };
    if tracks { Err(ChangeError::Untracked) } else { Ok(bridge.make(change, now)?) }
}

fn any_tracks(buckets: &[BucketSpec]) -> bool {
    buckets.iter().any(|bucket| tracks(&bucket.actions))
}

/// Whether actions need connection tracking; how deep they nest is bounded where they are read.
pub(crate) fn tracks(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Ct(_) | Action::CtClear => true,
        Action::Clone(inner) | Action::WriteActions(inner) => tracks(inner),
        _ => false,
    })
}
