//! Reading single values: the fields of a mapping, names, numbers, subnets, addresses and durations.

use super::super::Problem;
use super::super::yaml::{Node, Value};
use super::Spot;
use std::collections::BTreeMap;

/// Keys that the format knows and this version does not carry out: the key, the one value that changes nothing, and what is so
/// instead.
pub(super) type Later = &'static [(&'static str, &'static str, &'static str)];

/// The entries of a mapping that are known and not null.
pub(super) struct Fields<'a> {
    entries: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: &'a Node, what: &str, known: &[&str], later: Later, problems: &mut Vec<Problem>) -> Self {
        let mut entries = BTreeMap::new();
        let map = match &node.value {
            Value::Map(map) => map.as_slice(),
            _ if node.is_null() => &[],
            _ => {
                let message = format!("{what}: expected a mapping of {}, found {}", known.join(", "), node.kind());
                problems.push(Problem::new(node.line, message));
                &[]
            }
        };
        for (key, value) in map {
            let text = key.text.as_str();
            if known.contains(&text) {
                if !value.is_null() {
                    entries.insert(text, value);
                }
            } else if let Some((_, harmless, instead)) = later.iter().find(|(name, ..)| *name == text) {
                let same = matches!(&value.value, Value::Scalar { text, .. } if text == harmless);
                if !same && !value.is_null() {
                    let message = format!("{text}: not supported yet by this version; {instead}");
                    problems.push(Problem::new(key.line, message));
                }
            } else {
                let all = known.iter().copied().chain(later.iter().map(|(name, ..)| *name));
                let message = format!("unknown key `{text}` in {what}{}", nearest(text, all));
                problems.push(Problem::new(key.line, message));
            }
        }
        Self { entries }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.get(key).copied()
    }

    pub(super) fn text(&self, key: &str, problems: &mut Vec<Problem>) -> Option<Spot<String>> {
        let node = self.get(key)?;
        let found = scalar(node);
        if found.is_none() {
            problems.push(Problem::new(node.line, format!("{key}: expected a single value, found {}", node.kind())));
        }
        found.map(|text| Spot { line: node.line, value: text.to_owned() })
    }

    /// The items of a list, read one by one; none if the key is not there.
    pub(super) fn list<T>(
        &self,
        key: &str,
        problems: &mut Vec<Problem>,
        read: fn(&Node, &mut Vec<Problem>) -> Option<T>,
    ) -> Vec<T> {
        match self.get(key) {
            Some(Node { value: Value::List(items), .. }) => {
                items.iter().filter_map(|item| read(item, problems)).collect()
            }
            Some(node) => {
                let message = format!("{key}: expected a list, found {}", node.kind());
                problems.push(Problem::new(node.line, message));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A name.
    pub(super) fn name(&self, key: &str, what: &str, problems: &mut Vec<Problem>) -> Option<Spot<String>> {
        self.get(key).and_then(|node| name_spot(node, what, problems))
    }

    /// A value that `read` understands; `wanted` says for a person what that is.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        wanted: &str,
        problems: &mut Vec<Problem>,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Spot<T>> {
        self.get(key).and_then(|node| parsed(node, key, wanted, problems, read))
    }

    /// A number with its line.
    pub(super) fn number_spot(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        problems: &mut Vec<Problem>,
    ) -> Option<Spot<u64>> {
        let line = self.get(key)?.line;
        self.number(key, range, problems).map(|value| Spot { line, value })
    }

    pub(super) fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        problems: &mut Vec<Problem>,
    ) -> Option<u64> {
        let text = self.text(key, problems)?;
        let number = text.value.parse().ok().filter(|n| range.contains(n));
        if number.is_none() {
            let message = match *range.end() {
                u64::MAX => format!("{key}: `{}` is not a number from {} up", text.value, range.start()),
                end => format!("{key}: `{}` is not a number from {} to {end}", text.value, range.start()),
            };
            problems.push(Problem::new(text.line, message));
        }
        number
    }
}

pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => None,
    }
}

/// `; did you mean ...?`, or the list of what there is when nothing is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    match closest(word, known.iter().copied()) {
        near if !near.is_empty() || known.is_empty() => near,
        _ => format!("; known: {}", known.join(", ")),
    }
}

/// `; did you mean ...?`, or nothing when nothing is near.
pub(crate) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|k| (strsim::osa_distance(word, k), k)).min_by_key(|(distance, _)| *distance);
    let near = best.filter(|(distance, _)| *distance <= 1 + word.chars().count() / 4);
    near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"))
}

/// Whether a name keeps to `[a-z][a-z0-9-]{0,19}`.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= 20
        && chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What [`is_name`] asks for, for a person.
pub(crate) const NAME_RULE: &str = "a name is a lower-case letter, then up to 19 of a-z, 0-9 and -";

pub(super) fn check_name(text: &str, line: usize, what: &str, problems: &mut Vec<Problem>) -> bool {
    let problem = if text == "all" {
        format!("{what} cannot be named `all`: that word means every host")
    } else if !is_name(text) {
        format!("`{text}` cannot name {what}: {NAME_RULE}")
    } else {
        return true;
    };
    problems.push(Problem::new(line, problem));
    false
}

pub(super) fn name(node: &Node, what: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let Some(text) = scalar(node) else {
        problems.push(Problem::new(node.line, format!("{what}: expected a name, found {}", node.kind())));
        return None;
    };
    check_name(text, node.line, what, problems).then(|| text.to_owned())
}

pub(super) fn mtu(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<u32> {
    // 68 is IPv4's least (RFC 791), 65,521 what a TAP device takes.
    fields.number("mtu", 68..=65_521, problems).and_then(|mtu| u32::try_from(mtu).ok())
}

pub(super) fn subnet<N: std::str::FromStr + PartialEq + std::fmt::Display>(
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    trunc: fn(&N) -> N,
    problems: &mut Vec<Problem>,
) -> Option<Spot<N>> {
    let text = fields.text(key, problems)?;
    let message = match text.value.parse::<N>() {
        Ok(net) if trunc(&net) == net => return Some(Spot { line: text.line, value: net }),
        Ok(net) => format!("{key}: `{}` has bits behind its prefix; did you mean `{}`?", text.value, trunc(&net)),
        Err(_) => format!("{key}: `{}` is not a subnet like {example}", text.value),
    };
    problems.push(Problem::new(text.line, message));
    None
}

/// A name and its line.
pub(super) fn name_spot(node: &Node, what: &str, problems: &mut Vec<Problem>) -> Option<Spot<String>> {
    name(node, what, problems).map(|value| Spot { line: node.line, value })
}

/// A value that `read` understands; `wanted` says for a person what that is.
pub(super) fn parsed<T>(
    node: &Node,
    key: &str,
    wanted: &str,
    problems: &mut Vec<Problem>,
    read: impl Fn(&str) -> Option<T>,
) -> Option<Spot<T>> {
    let message = match scalar(node) {
        Some(text) => match read(text) {
            Some(value) => return Some(Spot { line: node.line, value }),
            None => format!("{key}: `{text}` is not {wanted}"),
        },
        None => format!("{key}: expected {wanted}, found {}", node.kind()),
    };
    problems.push(Problem::new(node.line, message));
    None
}

/// A value or a list of them, as one list.
pub(super) fn one_or_more(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![node],
    }
}
