//! The search for a free address.

use super::address::{Address, Span, Spans};
use super::error::IpamError;
use super::store::Tables;

/// The spans in the order that they are searched: from the address after `last` on, round to it.
pub(crate) fn round(spans: Vec<Span>, last: Option<Address>) -> Vec<Span> {
    let Some((n, last)) = last.and_then(|a| Some((spans.iter().position(|s| s.contains(a))?, a))) else {
        return spans;
    };
    let (before, from) = spans.split_at(n);
    let mut order = Vec::with_capacity(spans.len() + 1);
    for span in from.iter().chain(before) {
        if !span.contains(last) {
            order.push(*span);
        } else if last.bits < span.last {
            order.push(Span { first: last.bits + 1, ..*span });
        }
    }
    order.extend(from.first().map(|span| Span { last: last.bits, ..*span }));
    order
}

/// The first address of the spans that is neither taken nor kept.
pub(crate) fn first_free(
    tables: &Tables<'_>,
    network: &str,
    spans: &[Span],
    kept: &Spans,
) -> Result<Option<Address>, IpamError> {
    for span in spans {
        let mut from = Address { family: span.family, bits: span.first };
        // Each turn is past a span that is kept, or ends.
        while let Some(free) = tables.next_free(network, from)?.filter(|a| span.contains(*a)) {
            let Some(kept) = kept.find(free) else { return Ok(Some(free)) };
            let Some(bits) = kept.last.checked_add(1) else { break };
            from.bits = bits;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_begins_after_the_last_address_and_ends_with_it() {
        let span = |first, last| Span { family: 4, first, last };
        let at = |bits| Some(Address { family: 4, bits });
        let spans = vec![span(1, 3), span(5, 9), span(20, 20)];
        assert_eq!(round(spans.clone(), None), spans);
        assert_eq!(round(spans.clone(), at(4)), spans, "an address of no span any more");
        assert_eq!(round(spans.clone(), at(6)), [span(7, 9), span(20, 20), span(1, 3), span(5, 6)]);
        assert_eq!(round(spans.clone(), at(20)), [span(1, 3), span(5, 9), span(20, 20)]);
        assert_eq!(round(spans, at(1)), [span(2, 3), span(5, 9), span(20, 20), span(1, 1)]);
    }
}
