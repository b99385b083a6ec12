//! Priorities of the flows of rules that come before and after NetworkPolicies: one for each rule, the first highest.
//!
//! They depend on the rules alone, so that a restart finds them the same, and leave room, so that a rule that comes rarely moves others:
//! each of the 1001 priorities that a policy may have begins [`ROOM`] below the one before it. Where more rules have one
//! priority, those behind them make way as far as they have to.

use crate::facts::policy::{Direction, Policy, PolicyName, Tier};
use std::collections::HashMap;

/// The highest one.
const TOP: u16 = 64_999;
/// The last priority of a policy.
const LAST: u16 = 1000;
/// How far the priorities of flows of neighbouring priorities of policies are apart.
const ROOM: u16 = 64;

/// Rules by name: policy, direction and index.
pub(super) type Priorities = HashMap<(PolicyName, Direction, u32), u16, foldhash::fast::RandomState>;

/// The priority of each rule of these policies that has one of its own.
pub(super) fn priorities<'a>(policies: impl Iterator<Item = &'a Policy>) -> Priorities {
    let mut policies: Vec<&Policy> = policies.filter(|policy| policy.tier != Tier::Network).collect();
    policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
    let mut all = Priorities::default();
    for tier in policies.chunk_by(|a, b| a.tier == b.tier) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let of_way = |policy: &'a Policy| policy.rules.iter().filter(move |rule| rule.direction == direction);
            let rules: Vec<_> =
                tier.iter().flat_map(|policy| of_way(policy).map(move |rule| (*policy, rule))).collect();
            let numbers = spread(&rules.iter().map(|(policy, _)| policy.priority).collect::<Vec<_>>());
            let named = rules.iter().map(|(policy, rule)| (policy.name.clone(), direction, rule.index));
            all.extend(named.zip(numbers));
        }
    }
    all
}

/// A number for each of these priorities of policies, which ascend; the numbers descend. Beyond 64,999 all get 1.
fn spread(priorities: &[u16]) -> Vec<u16> {
    let mut free = Some(TOP);
    let spread: Option<Vec<u16>> = priorities
        .iter()
        .map(|priority| {
            let number = free?.min(TOP - ROOM * (*priority).min(LAST));
            free = number.checked_sub(1).filter(|free| *free > 0);
            Some(number)
        })
        .collect();
    // So many that there is no room to be left.
    spread.unwrap_or_else(|| (0..priorities.len()).map(|n| TOP - n.min(usize::from(TOP) - 1) as u16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_priority_have_room_and_others_make_way() {
        assert_eq!(spread(&[0, 0, 1, 1000]), [64_999, 64_998, 64_935, 999]);
        let crowded: Vec<u16> = [vec![7; 100], vec![8; 2], vec![9]].concat();
        let numbers = spread(&crowded);
        assert!(numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
        assert_eq!((numbers[0], numbers[100]), (TOP - 7 * ROOM, TOP - 7 * ROOM - 100));
        assert_eq!(numbers[102], TOP - 9 * ROOM, "as far as there is room again");
    }

    #[test]
    fn without_any_room_they_are_in_order_all_the_same() {
        for count in [2000, 64_999] {
            let numbers = spread(&vec![1000; count]);
            assert!(numbers.is_sorted_by(|a, b| a > b) && *numbers.last().unwrap() > 0, "{count}");
        }
        assert_eq!(spread(&vec![0; 70_000]).last(), Some(&1));
    }
}
