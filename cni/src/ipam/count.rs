//! How many addresses are free, used and resting, in each set of ranges.

use super::address::{Address, Span, Spans};
use super::error::IpamError;
use super::own::{Own, ranges_text};
use super::range::RangeSet;
use super::store::View;

/// A set of ranges in numbers. `size` is `free`, `used` and `cooling` together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The set, as the configuration names it.
    pub set: String,
    /// Its ranges.
    pub ranges: String,
    /// Addresses that may be given, without the gateway and what is excluded.
    pub size: u128,
    /// Taken by containers, of which some may be `host-local`'s, or kept by a reservation.
    pub used: u128,
    /// Released, and resting.
    pub cooling: u128,
    /// Neither.
    pub free: u128,
}

impl Own {
    /// Counts every set.
    pub(crate) fn counts(&self) -> Result<Vec<Count>, IpamError> {
        let sets = &self.settings.sets;
        let counted = self.store().read(|view| sets.iter().map(|s| self.count(Some(view), s)).collect())?;
        match counted {
            Some(counts) => Ok(counts),
            None => sets.iter().map(|s| self.count(None, s)).collect(),
        }
    }

    fn count(&self, view: Option<&View>, set: &RangeSet) -> Result<Count, IpamError> {
        let never = self.never_given();
        let mut count = Count { set: set.key.clone(), ranges: ranges_text(set), size: 0, used: 0, cooling: 0, free: 0 };
        for span in set.ranges.iter().map(|r| r.span) {
            let mut not_free: Vec<Span> = self.settings.kept.iter().filter_map(|k| k.within(&span)).collect();
            let out: u128 = never.iter().filter_map(|n| n.within(&span)).map(|n| n.count()).sum();
            if let Some(view) = view {
                not_free.extend(view.taken_in(&self.network, span)?);
                let cooling = view.cooling_in(&self.network, span)?;
                count.cooling += cooling.iter().filter(|a| self.settings.kept.find(**a).is_none()).count() as u128;
            }
            let not_free: u128 = Spans::new(not_free).iter().map(Span::count).sum();
            let (size, free) = (span.count().saturating_sub(out), span.count().saturating_sub(not_free));
            count.size = count.size.saturating_add(size);
            count.free = count.free.saturating_add(free);
        }
        count.used = count.size.saturating_sub(count.free).saturating_sub(count.cooling);
        Ok(count)
    }

    /// Gateways and exclusions.
    fn never_given(&self) -> Spans {
        let gateways = self.settings.sets.iter().flat_map(|s| &s.ranges).filter_map(|r| r.gateway);
        let gateways = gateways.map(|g| Span::one(Address::from(g)));
        Spans::new(self.settings.excluded.iter().copied().chain(gateways).collect())
    }

    /// Whether an ADD that asks for nothing particular would get an address of every set now.
    pub(crate) fn has_room(&self, view: &View) -> Result<(), IpamError> {
        for set in &self.settings.sets {
            if !self.set_has_room(view, set)? {
                return Err(self.exhausted(set));
            }
        }
        Ok(())
    }

    fn set_has_room(&self, view: &View, set: &RangeSet) -> Result<bool, IpamError> {
        for span in set.ranges.iter().map(|r| r.span) {
            let mut from = Address { family: span.family, bits: span.first };
            while let Some(free) = view.next_free(&self.network, from)?.filter(|a| span.contains(*a)) {
                let Some(kept) = self.settings.kept.find(free) else { return Ok(true) };
                let Some(bits) = kept.last.checked_add(1) else { break };
                from.bits = bits;
            }
            if view.cooling_in(&self.network, span)?.iter().any(|a| self.settings.kept.find(*a).is_none()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
