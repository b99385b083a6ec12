//! OpenFlow numbers of a bridge's ports: which one a port gets that asks for none.
//!
//! A number rests for an hour after its port has gone, as in Open vSwitch: flows of whoever has not heard of that yet would send
//! what was for the old port to the new one. A port that comes back by its name has its number back.

use sluice_flows::PortNo;
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a number rests, in milliseconds.
const REST: u64 = 60 * 60 * 1000;

/// Numbers that rest: whose each was, and since when it is free.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<PortNo, (Arc<str>, Millis)>);

impl Numbers {
    /// The number of a port with this name: its last one if that still rests, the lowest one that does not rest, or else the one
    /// that rests longest. `None` when all are taken.
    pub(super) fn pick(&mut self, name: &str, is_taken: impl Fn(PortNo) -> bool, now: Millis) -> Option<PortNo> {
        self.0.retain(|_, (_, since)| now.0.saturating_sub(since.0) < REST);
        let rests = || self.0.iter().filter(|(no, _)| !is_taken(**no));
        let own = rests().find(|(_, (last, _))| **last == *name).map(|(no, _)| *no);
        let all = || (1..=PortNo::MAX.0).map(PortNo);
        let unused = || all().find(|no| !is_taken(*no) && !self.0.contains_key(no));
        own.or_else(unused).or_else(|| rests().min_by_key(|(_, (_, since))| since.0).map(|(no, _)| *no))
    }

    /// A port has gone.
    pub(super) fn rest(&mut self, no: PortNo, name: &Arc<str>, now: Millis) {
        self.0.insert(no, (Arc::clone(name), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_number_rests_and_is_kept_for_its_port() {
        let mut numbers = Numbers::default();
        let mut taken: BTreeSet<PortNo> = [PortNo(1), PortNo(3)].into();
        let mut pick = |numbers: &mut Numbers, name: &str, now| {
            let no = numbers.pick(name, |no| taken.contains(&no), Millis(now)).unwrap();
            taken.insert(no);
            no.0
        };
        assert_eq!((pick(&mut numbers, "a", 0), pick(&mut numbers, "b", 0)), (2, 4));
        taken.remove(&PortNo(2));
        numbers.rest(PortNo(2), &"a".into(), Millis(10));
        let mut pick = |name: &str, now| numbers.pick(name, |no| taken.contains(&no), Millis(now)).unwrap().0;
        assert_eq!(pick("c", 20), 5, "2 rests");
        assert_eq!(pick("a", 20), 2, "it is back");
        assert_eq!(pick("c", 10 + REST), 2, "it has rested");
    }

    #[test]
    fn when_no_other_is_left_the_one_that_rests_longest_is_taken() {
        let mut numbers = Numbers::default();
        for no in 1..=PortNo::MAX.0 {
            numbers.rest(PortNo(no), &"gone".into(), Millis(u64::from(no.wrapping_sub(7))));
        }
        assert_eq!(numbers.pick("new", |_| false, Millis(1 << 16)), Some(PortNo(7)));
        assert_eq!(numbers.pick("new", |no| no == PortNo(7), Millis(1 << 16)), Some(PortNo(8)));
        assert_eq!(numbers.pick("new", |_| true, Millis(1 << 16)), None);
    }
}
