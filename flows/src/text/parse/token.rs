//! Cutting flow text into `key=value`, `key:value`, `key(value)` and plain keys.

use super::error::Fault;
use std::ops::Range;

/// A piece of the text, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// The piece.
    pub(crate) text: &'a str,
    /// Its first byte's place in the whole text.
    pub(crate) at: usize,
}

impl<'a> Word<'a> {
    /// A whole text.
    pub(crate) fn whole(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Its bytes' places in the whole text.
    pub(crate) fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }

    /// Bytes `from` to `to` of it. Both must lie on character boundaries within it.
    pub(crate) fn part(self, from: usize, to: usize) -> Self {
        Self { text: &self.text[from..to], at: self.at + from }
    }

    /// It without blanks around.
    pub(crate) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        Self { text: self.text.trim(), at: self.at + start }
    }

    /// What stands before and after the first `mark`.
    pub(crate) fn split_once(self, mark: &str) -> Option<(Self, Self)> {
        // A single byte is found without a searcher for strings, which takes longer to make than to use.
        let i = match mark.as_bytes() {
            [byte] if byte.is_ascii() => self.text.bytes().position(|b| b == *byte)?,
            _ => self.text.find(mark)?,
        };
        Some((self.part(0, i), self.part(i + mark.len(), self.text.len())))
    }

    /// The place behind it, of no width.
    pub(crate) fn end(self) -> Self {
        self.part(self.text.len(), self.text.len())
    }

    /// A fault of this word.
    pub(crate) fn fault(self, kind: super::ErrorKind) -> Fault {
        Fault::new(self.range(), kind)
    }
}

/// A key and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    /// The key.
    pub(crate) key: Word<'a>,
    /// The value; empty, behind the key, if there is none.
    pub(crate) value: Word<'a>,
    /// What stood between them: `=`, `:` or `(`.
    pub(crate) delimiter: Option<u8>,
}

impl Pair<'_> {
    /// Whether a value, even an empty one, was given.
    pub(crate) fn has_value(&self) -> bool {
        self.delimiter.is_some()
    }
}

fn is_separator(b: u8) -> bool {
    matches!(b, b',' | b' ' | b'\t' | b'\r' | b'\n')
}

/// The pairs of a text, in order. Commas and blanks separate them.
#[derive(Clone, Debug)]
pub(crate) struct Pairs<'a> {
    text: Word<'a>,
    next: usize,
}

impl<'a> Pairs<'a> {
    /// The pairs of `text`.
    pub(crate) fn new(text: Word<'a>) -> Self {
        Self { text, next: 0 }
    }

    /// Everything that was not read yet.
    pub(crate) fn rest(&self) -> Word<'a> {
        self.text.part(self.next, self.text.text.len())
    }

    /// Everything from `word`, a piece of this text, to the end.
    pub(crate) fn from(&self, word: Word<'_>) -> Word<'a> {
        self.text.part(word.at - self.text.at, self.text.text.len())
    }

    /// Length of the value that starts at `from` and ends before `ends` or at the end; what stands in parentheses does not
    /// end it, nor what stands in quotes at its start.
    fn value_len(&self, from: usize, ends: impl Fn(u8) -> bool) -> usize {
        let bytes = &self.text.text.as_bytes()[from..];
        let (mut depth, mut quoted) = (0usize, false);
        let closed = bytes.first() == Some(&b'"') && bytes[1..].contains(&b'"');
        for (i, &b) in bytes.iter().enumerate() {
            match b {
                b'"' if closed && (i == 0 || quoted) => quoted = !quoted,
                _ if quoted => {}
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                _ if depth == 0 && ends(b) => return i,
                _ => {}
            }
        }
        bytes.len()
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let bytes = self.text.text.as_bytes();
        let start = self.next + bytes[self.next..].iter().position(|b| !is_separator(*b))?;
        let stop = |b: &u8| is_separator(*b) || matches!(b, b':' | b'=' | b'(');
        let key_end = bytes[start..].iter().position(stop).map_or(bytes.len(), |n| start + n);
        let key = self.text.part(start, key_end);
        let delimiter = bytes.get(key_end).copied().filter(|b| !is_separator(*b));
        let Some(mark) = delimiter else {
            self.next = key_end;
            return Some(Pair { key, value: key.end(), delimiter });
        };
        let from = key_end + 1;
        let mut end = if mark == b'(' {
            from + self.value_len(from, |b| b == b')')
        } else {
            from + self.value_len(from, is_separator)
        };
        // `key(x)->y` is one value, "x)->y".
        if mark == b'(' && bytes[end..].starts_with(b")->") {
            end = from.max(end + 1) + self.value_len(end + 1, is_separator);
        }
        self.next = if bytes.get(end) == Some(&b')') { end + 1 } else { end };
        Some(Pair { key, value: self.text.part(from, end), delimiter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&str, &str)> {
        Pairs::new(Word::whole(text)).map(|p| (p.key.text, p.value.text)).collect()
    }

    #[test]
    fn commas_and_blanks_separate_and_all_three_delimiters_give_values() {
        assert_eq!(
            pairs(" tcp,,tp_dst=80 output:2\tresubmit(1,2),note:"),
            [("tcp", ""), ("tp_dst", "80"), ("output", "2"), ("resubmit", "1,2"), ("note", "")]
        );
        assert_eq!(pairs(" , "), []);
    }

    #[test]
    fn parentheses_nest_and_an_arrow_behind_them_belongs_to_the_value() {
        assert_eq!(pairs("a(b(c),d)e"), [("a", "b(c),d"), ("e", "")]);
        assert_eq!(pairs("a(4)->reg0[1],b"), [("a", "4)->reg0[1]"), ("b", "")]);
        assert_eq!(pairs("a(b"), [("a", "b")]);
        assert_eq!(pairs("a=f(x,y),b"), [("a", "f(x,y)"), ("b", "")]);
    }

    #[test]
    fn quotes_at_the_start_of_a_value_hold_separators() {
        assert_eq!(pairs("owner=\"a, b\",ip"), [("owner", "\"a, b\""), ("ip", "")]);
        assert_eq!(pairs("owner=\"a, b"), [("owner", "\"a"), ("b", "")]);
        assert_eq!(pairs("x=a\"b c\""), [("x", "a\"b"), ("c\"", "")]);
    }

    #[test]
    fn words_know_where_they_stand() {
        let all: Vec<_> = Pairs::new(Word { text: "ip, tp_dst=80", at: 100 }).collect();
        assert_eq!(all[1].key.range(), 104..110);
        assert_eq!(all[1].value.range(), 111..113);
        assert_eq!(all[0].value.range(), 102..102);
    }
}
