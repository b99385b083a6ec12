//! Meters of a bridge.

use super::{Fate, ModError, Touched};
use crate::action::MeterId;
use crate::bridge::Bridge;
use crate::flow_mod::Applied;
use crate::meter::{Meter, MeterMod, MeterSpec};
use crate::reference::Reference;
use crate::rule::Millis;
use crate::table::RemovedReason;
use std::ops::RangeInclusive;
use std::sync::Arc;
use thiserror::Error;

/// Most meters that a bridge may have.
pub const MAX_METERS: usize = 1 << 18;
/// Most bands that a meter may have.
pub const MAX_BANDS: usize = 8;

/// Meters that limit what goes to the controller, and what leaves the fast path.
const VIRTUAL: [MeterId; 2] = [MeterId(0xffff_fffe), MeterId(0xffff_fffd)];

/// Why a [`MeterMod`] was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MeterModError {
    /// The number is taken.
    #[error("there is a meter {meter} already, of owner {owner}; modify it instead, or choose another number")]
    Exists {
        /// The meter.
        meter: MeterId,
        /// Owner of the meter that is there.
        owner: crate::owner::Owner,
    },
    /// There is no such meter.
    #[error("there is no meter {meter} to modify; add it first")]
    Unknown {
        /// The meter.
        meter: MeterId,
    },
    /// A number that no meter has.
    #[error("{meter} cannot be a meter's number; it is 1 to {max}", max = MeterId::MAX)]
    BadNumber {
        /// The number.
        meter: MeterId,
    },
    /// Too many or too few bands.
    #[error("meter {meter} has {bands} bands; a meter has 1 to {MAX_BANDS}")]
    Bands {
        /// The meter.
        meter: MeterId,
        /// How many.
        bands: usize,
    },
    /// There are too many meters.
    #[error("the bridge has {MAX_METERS} meters already; delete one first")]
    TooMany,
}

impl Bridge {
    pub(super) fn apply_meter(&mut self, change: &MeterMod, now: Millis) -> Result<Applied, ModError> {
        match change {
            MeterMod::Add(spec) => self.add_meter(spec, now).map_err(ModError::from),
            MeterMod::Modify(spec) => self.modify_meter(spec, now).map_err(ModError::from),
            MeterMod::Delete(which) => Ok(self.delete_meters(*which)),
        }
    }

    fn add_meter(&mut self, spec: &MeterSpec, now: Millis) -> Result<Applied, MeterModError> {
        check(spec)?;
        if let Some(there) = self.meters.get(&spec.id) {
            return Err(MeterModError::Exists { meter: spec.id, owner: there.spec.owner.clone() });
        }
        if self.meters.len() >= MAX_METERS {
            return Err(MeterModError::TooMany);
        }
        self.meters.insert(spec.id, Arc::new(Meter::new(spec.clone(), now)));
        Ok(Applied::touching(Touched::Meter(spec.id, Fate::Added)))
    }

    fn modify_meter(&mut self, spec: &MeterSpec, now: Millis) -> Result<Applied, MeterModError> {
        check(spec)?;
        let old = self.meters.get(&spec.id).ok_or(MeterModError::Unknown { meter: spec.id })?;
        let mut meter = Meter::new(spec.clone(), now);
        meter.created = old.created;
        self.meters.insert(spec.id, Arc::new(meter));
        Ok(Applied::touching(Touched::Meter(spec.id, Fate::Modified)))
    }

    fn delete_meters(&mut self, which: Option<MeterId>) -> Applied {
        let mut applied = Applied::default();
        let range: RangeInclusive<MeterId> = which.map_or(MeterId(0)..=MeterId(u32::MAX), |id| id..=id);
        let ids: Vec<_> = self.meters.range(range).map(|(id, _)| *id).collect();
        for id in ids {
            self.meters.remove(&id);
            let rules: Vec<_> = self.tables.references().of(Reference::Meter(id)).cloned().collect();
            self.remove_rules(rules, RemovedReason::MeterDelete, &mut applied.removed);
            applied.touched.push(Touched::Meter(id, Fate::Deleted));
        }
        applied
    }
}

fn check(spec: &MeterSpec) -> Result<(), MeterModError> {
    let ordinary = spec.id.0 != 0 && spec.id <= MeterId::MAX;
    if !ordinary && !VIRTUAL.contains(&spec.id) {
        return Err(MeterModError::BadNumber { meter: spec.id });
    }
    if !(1..=MAX_BANDS).contains(&spec.bands.len()) {
        return Err(MeterModError::Bands { meter: spec.id, bands: spec.bands.len() });
    }
    Ok(())
}
