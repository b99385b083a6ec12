//! Reading one JSON object key by key: what is wrong is told with the key's whole name, its value, and what is wanted.

use crate::error::{Code, Failure};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// How hardware addresses are written.
pub(super) const MAC_FORM: &str = "an address of one interface such as 02:00:00:00:00:01";

/// An object of the configuration, or none, which has no keys.
pub(super) struct Keys<'a> {
    /// Where it is: `ipam.`, or empty for the whole.
    prefix: String,
    value: Option<&'a Value>,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(prefix: impl Into<String>, value: &'a Value) -> Result<Self, Failure> {
        let prefix = prefix.into();
        match value {
            Value::Null if !prefix.is_empty() => Ok(Self { prefix, value: None, map: None }),
            Value::Object(map) => Ok(Self { prefix, value: Some(value), map: Some(map) }),
            other => {
                let name = prefix.trim_end_matches('.');
                let name = if name.is_empty() { "the configuration" } else { name };
                let code = if prefix.is_empty() { Code::Decode } else { Code::InvalidConfig };
                Err(Failure::new(code, format!("{name} is {}, wanted: an object", shown(other))))
            }
        }
    }

    /// What is at a key; `null` is nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        // Programs in Go read keys in any case of letters, and containerd writes `ContainerPort` where others do `containerPort`.
        let map = self.map?;
        let same = || map.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v);
        map.get(key).or_else(same).filter(|v| !v.is_null())
    }

    /// The object itself.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// Every key with its value.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.into_iter().flatten()
    }

    /// Whether there is no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_none_or(Map::is_empty)
    }

    /// Whether a key says nothing: it is not there, or its list is empty.
    pub(super) fn is_unset(&self, key: &str) -> bool {
        self.get(key).is_none_or(|v| v.as_array().is_some_and(Vec::is_empty))
    }

    /// The failure that a key's value is not what is wanted.
    pub(super) fn wrong(&self, key: &str, wanted: &str) -> Failure {
        let found = self.get(key).map_or_else(|| "missing".to_owned(), shown);
        Failure::new(Code::InvalidConfig, format!("{}{key} is {found}, wanted: {wanted}", self.prefix))
    }

    /// The failure that a key's value cannot be done.
    pub(super) fn unsupported(&self, key: &str, wanted: &str) -> Failure {
        Failure { code: Code::UnsupportedField as u32, ..self.wrong(key, wanted) }
    }

    /// The object at a key.
    pub(super) fn inner(&self, key: &str) -> Result<Self, Failure> {
        Self::new(format!("{}{key}.", self.prefix), self.get(key).unwrap_or(&Value::Null))
    }

    /// The objects of the list at a key.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Self>, Failure> {
        let items = self.items(key)?.iter().enumerate();
        items.map(|(n, item)| Self::new(format!("{}{key}[{n}].", self.prefix), item)).collect()
    }

    fn items(&self, key: &str) -> Result<&'a [Value], Failure> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, Failure> {
        let wrong = || self.wrong(key, "true or false");
        self.get(key).map(|v| v.as_bool().ok_or_else(wrong)).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Failure> {
        let wrong = || self.wrong(key, "a text");
        self.get(key).map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).transpose()
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Failure> {
        let wrong = || self.wrong(key, "a list of texts");
        self.items(key)?.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
        let wrong = || self.wrong(key, &format!("a number from {} to {}", range.start(), range.end()));
        let number = |v: &Value| v.as_u64().filter(|n| range.contains(n)).ok_or_else(wrong);
        self.get(key).map(number).transpose()
    }

    pub(super) fn networks(&self, key: &str) -> Result<Vec<IpNet>, Failure> {
        let wrong = || self.wrong(key, "a list of networks such as 10.0.0.0/8");
        let network = |text: String| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(|n: IpNet| n.trunc())
                .map_err(|_| wrong())
        };
        self.texts(key)?.into_iter().map(network).collect()
    }

    pub(super) fn mac(&self, key: &str) -> Result<Option<[u8; 6]>, Failure> {
        let Some(text) = self.text(key)?.filter(|t| !t.is_empty()) else { return Ok(None) };
        parse_mac(&text).map(Some).ok_or_else(|| self.wrong(key, MAC_FORM))
    }
}

/// A hardware address of one interface: six parts of two digits, neither zero nor of a group.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let of_one = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && of_one).then_some(mac)
}

/// A value for a message, not too long.
fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    text.chars().take(MAX_CHARS).chain("...".chars()).collect()
}
