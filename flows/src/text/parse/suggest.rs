//! The nearest word that would have done.

use super::error::{ErrorKind, Fault};
use super::token::Word;
use crate::field::FIELDS;
use crate::text::Names;

/// Longest word that is compared; nothing longer is a typing slip of a word of the language.
const LONGEST: usize = 40;

/// Number of letters to insert, delete, replace or swap with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The word of `words` that is nearest to `word`, in any case, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > LONGEST {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let far = (lower.chars().count() / 3).max(1);
    words
        .into_iter()
        .filter(|w| w.len() <= 2 * LONGEST)
        .map(|w| (distance(&lower, &w.to_ascii_lowercase()), w))
        .filter(|(d, w)| *d <= far && *d < w.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, w)| w)
}

/// Words for reserved ports.
const PORTS: [&str; 8] = ["LOCAL", "IN_PORT", "NORMAL", "FLOOD", "ALL", "CONTROLLER", "TABLE", "ANY"];

/// Words for ports.
pub(crate) fn port_words(names: &Names) -> impl Iterator<Item = &str> {
    PORTS.into_iter().chain(names.port_words())
}

/// Names of the fields, aliases too.
pub(crate) fn field_words() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().flat_map(|info| std::iter::once(info.name).chain(info.aliases.iter().copied()))
}

/// Words that can stand in a match.
pub(crate) fn match_words() -> impl Iterator<Item = &'static str> {
    field_words().chain(["dl_vlan"]).chain(super::words::protocols())
}

/// Words of OVS's language for fields that the model has not.
pub(crate) fn is_later_field(word: &str) -> bool {
    let number = |start: &str| word.strip_prefix(start).and_then(|n| n.parse::<u8>().ok());
    let reg = number("reg").is_some_and(|n| (16..32).contains(&n));
    reg || number("tun_metadata").is_some_and(|n| n < 64)
}

/// The fault of a key that is not one.
fn unknown(word: Word<'_>, kind: ErrorKind, words: impl Iterator<Item = &'static str>) -> Fault {
    let name = word.text.split_once('[').map_or(word.text, |(name, _)| name);
    if is_later_field(name) {
        return word.fault(ErrorKind::Unsupported);
    }
    // OVS takes NXM and OXM names only with brackets.
    if let Some(info) = FIELDS.iter().find(|info| info.nxm.iter().any(|n| n.eq_ignore_ascii_case(name))) {
        return word.fault(kind).suggest(Some(info.name));
    }
    word.fault(kind).suggest(nearest(name, words))
}

/// The fault of a word that means nothing in a match.
pub(crate) fn unknown_match_word(word: Word<'_>) -> Fault {
    unknown(word, ErrorKind::UnknownKeyword, match_words())
}

/// The fault of a word that means nothing in a flow, where `keys` may stand too.
pub(crate) fn unknown_flow_word(word: Word<'_>, keys: &'static [&'static str]) -> Fault {
    unknown(word, ErrorKind::UnknownKeyword, match_words().chain(keys.iter().copied()))
}

/// The fault of a word that is no field.
pub(crate) fn unknown_field(word: Word<'_>) -> Fault {
    unknown(word, ErrorKind::UnknownField, field_words())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        for (typed, meant) in
            [("nw_scr", "nw_src"), ("tp_dts", "tp_dst"), ("TCP", "tcp"), ("arp_spaa", "arp_spa"), ("icpm", "icmp")]
        {
            assert_eq!(nearest(typed, match_words()), Some(meant));
        }
    }

    #[test]
    fn nonsense_and_very_long_words_find_nothing() {
        assert_eq!(nearest("bandwidth_limit", match_words()), None);
        assert_eq!(nearest(&"tcp".repeat(1000), match_words()), None);
        assert_eq!(nearest("", match_words()), None);
    }
}
