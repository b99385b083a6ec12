//! The taken addresses of a network as spans that neither touch nor overlap, so that the next free one is at most one span
//! away wherever the search begins: constant work (two look-ups) whether none or all but one are taken.

use super::super::address::{Address, Span};
use redb::{ReadableTable, StorageError, Table};

type Key = (&'static str, u8, u128);

/// The span of taken addresses that has this one, or the nearest below it.
fn at_or_below(taken: &impl ReadableTable<Key, u128>, network: &str, a: Address) -> Result<Option<Span>, StorageError> {
    let mut below = taken.range((network, a.family, 0)..=(network, a.family, a.bits))?;
    let Some(entry) = below.next_back() else { return Ok(None) };
    let (first, last) = entry?;
    Ok(Some(Span { family: a.family, first: first.value().2, last: last.value() }))
}

/// The first address from this one on that is not taken.
pub(crate) fn next_free(
    taken: &impl ReadableTable<Key, u128>,
    network: &str,
    from: Address,
) -> Result<Option<Address>, StorageError> {
    Ok(match at_or_below(taken, network, from)? {
        Some(span) if span.contains(from) => span.last.checked_add(1).map(|bits| Address { bits, ..from }),
        _ => Some(from),
    })
}

/// Spans that overlap this one, in order, cut to it.
pub(crate) fn spans_in(
    taken: &impl ReadableTable<Key, u128>,
    network: &str,
    within: Span,
) -> Result<Vec<Span>, StorageError> {
    let start = Address { family: within.family, bits: within.first };
    let mut spans: Vec<Span> =
        at_or_below(taken, network, start)?.and_then(|s| s.within(&within)).into_iter().collect();
    for entry in taken.range((network, within.family, within.first)..=(network, within.family, within.last))? {
        let (first, last) = entry?;
        let span = Span { family: within.family, first: first.value().2, last: last.value() };
        spans.extend(span.within(&within).filter(|s| spans.last() != Some(s)));
    }
    Ok(spans)
}

/// Takes an address; one that is taken stays so.
pub(super) fn take(taken: &mut Table<'_, Key, u128>, network: &str, a: Address) -> Result<(), StorageError> {
    let below = at_or_below(taken, network, a)?;
    if below.is_some_and(|s| s.contains(a)) {
        return Ok(());
    }
    let first = below.filter(|s| s.last.checked_add(1) == Some(a.bits)).map_or(a.bits, |s| s.first);
    let above = match a.bits.checked_add(1) {
        Some(next) => taken.remove((network, a.family, next))?.map(|last| last.value()),
        None => None,
    };
    taken.insert((network, a.family, first), above.unwrap_or(a.bits))?;
    Ok(())
}

/// Makes an address free; one that is free stays so.
pub(super) fn free(taken: &mut Table<'_, Key, u128>, network: &str, a: Address) -> Result<(), StorageError> {
    let Some(span) = at_or_below(taken, network, a)?.filter(|s| s.contains(a)) else { return Ok(()) };
    if span.first == a.bits {
        taken.remove((network, a.family, a.bits))?;
    } else {
        taken.insert((network, a.family, span.first), a.bits - 1)?;
    }
    if span.last > a.bits {
        taken.insert((network, a.family, a.bits + 1), span.last)?;
    }
    Ok(())
}
