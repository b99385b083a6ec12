//! Classifiers: which rule of a table a packet matches.

mod linear;

pub use linear::Linear;

use crate::matching::Match;
use crate::rule::Rule;
use std::cmp::Ordering;

/// Which of two rules wins when a packet matches both: the greater.
///
/// Priority decides. Between rules of one priority, which OpenFlow leaves undefined, the one that looks at more bits
/// wins; between those the one whose mask is greater, compared word by word from the first word of the key. Two rules
/// with one mask and one priority that match one packet have the same match, so a table holds only one of them: the
/// winner never depends on the order in which rules were added.
pub fn precedence(a: &Rule, b: &Rule) -> Ordering {
    a.spec.priority.cmp(&b.spec.priority).then_with(|| specificity(&a.spec.matches, &b.spec.matches))
}

/// The second half of [`precedence`]: the order of two matches of one priority.
fn specificity(a: &Match, b: &Match) -> Ordering {
    let bits = |m: &Match| m.words().map(|(_, _, mask)| mask.count_ones()).sum::<u32>();
    bits(a).cmp(&bits(b)).then_with(|| a.mask().0.cmp(&b.mask().0))
}
