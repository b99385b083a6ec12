//! Filters as text.

use super::{ConnFilter, Direction, End, MAX_TERMS, Masked, Network, Term, Test};
use crate::config::did_you_mean;
use crate::conntrack::state::STATES;
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::filter::OwnerFilter;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// Words that have no value.
const FLAGS: [&str; 16] = [
    "ip",
    "ipv6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "sctp",
    "sctp6",
    "icmp",
    "icmp6",
    "snat",
    "dnat",
    "nat",
    "replied",
    "unreplied",
    "related",
];
/// Words that have one.
const KEYS: [&str; 25] = [
    "zone",
    "nw_proto",
    "nw_src",
    "nw_dst",
    "ipv6_src",
    "ipv6_dst",
    "tp_src",
    "tp_dst",
    "reply_nw_src",
    "reply_nw_dst",
    "reply_ipv6_src",
    "reply_ipv6_dst",
    "reply_tp_src",
    "reply_tp_dst",
    "src",
    "dst",
    "addr",
    "port",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    "ct_mark",
    "ct_label",
    "state",
    "owner",
];

/// Why a text selects no connections.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// There is no such word.
    #[error("`{word}` says nothing of connections{near} The words are {}", words())]
    Unknown {
        /// The word.
        word: String,
        /// The nearest one there is, as a question; or a full stop.
        near: String,
    },
    /// The word needs a value.
    #[error("`{0}` needs a value, such as {0}={example}", example = example(.0))]
    NoValue(&'static str),
    /// The word has no value.
    #[error("`{0}` stands alone, without a value")]
    Value(&'static str),
    /// The value is none.
    #[error("{word}={value}: want {want}")]
    BadValue {
        /// The word.
        word: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        want: String,
    },
    /// There are too many words.
    #[error("a filter has at most {MAX_TERMS} words")]
    TooMany,
}

fn words() -> String {
    [FLAGS.as_slice(), KEYS.as_slice()].concat().join(", ")
}

fn example(word: &str) -> &'static str {
    match word {
        "nw_src" | "nw_dst" | "reply_nw_src" | "reply_nw_dst" | "src" | "dst" | "addr" => "10.0.0.0/8",
        "ipv6_src" | "ipv6_dst" | "reply_ipv6_src" | "reply_ipv6_dst" => "fd00::/64",
        "ct_mark" | "ct_label" => "0x10/0xf0",
        "state" => "ESTABLISHED",
        "owner" => "np:*",
        "nw_proto" => "6",
        "zone" => "5",
        _ => "80",
    }
}

impl FromStr for ConnFilter {
    type Err = FilterError;

    /// Words are separated by commas or blanks; an empty text selects every connection.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut terms = Vec::new();
        for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
            let (negated, word) = match word.strip_prefix('!') {
                Some(word) => (true, word),
                None => (false, word),
            };
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            if terms.len() == MAX_TERMS {
                return Err(FilterError::TooMany);
            }
            let (turned, test) = match value {
                None => flag(key)?,
                Some(value) => (false, keyed(key, value)?),
            };
            terms.push(Term { negated: negated != turned, test });
        }
        Ok(Self { terms })
    }
}

/// The word as it is listed, under any of its names.
fn listed(word: &str, list: &[&'static str]) -> Option<&'static str> {
    let word = match word {
        "ct_zone" => "zone",
        "mark" => "ct_mark",
        "label" | "labels" | "ct_labels" => "ct_label",
        "ip_proto" | "ct_nw_proto" | "proto" => "nw_proto",
        "ct_nw_src" => "nw_src",
        "ct_nw_dst" => "nw_dst",
        "ct_ipv6_src" => "ipv6_src",
        "ct_ipv6_dst" => "ipv6_dst",
        "ct_tp_src" | "tcp_src" | "udp_src" | "sctp_src" => "tp_src",
        "ct_tp_dst" | "tcp_dst" | "udp_dst" | "sctp_dst" => "tp_dst",
        "icmpv6_type" => "icmp_type",
        "icmpv6_code" => "icmp_code",
        "icmpv6" => "icmp6",
        word => word,
    };
    list.iter().find(|listed| **listed == word).copied()
}

fn unknown(word: &str) -> FilterError {
    let word: String = word.chars().take(40).collect();
    let near = match did_you_mean(&word, FLAGS.into_iter().chain(KEYS)) {
        near if near.is_empty() => ".".to_owned(),
        near => near,
    };
    FilterError::Unknown { word, near }
}

/// A word without a value. True beside it if it has to be false.
fn flag(word: &str) -> Result<(bool, Test), FilterError> {
    let Some(word) = listed(word, &FLAGS) else {
        return Err(listed(word, &KEYS).map_or_else(|| unknown(word), FilterError::NoValue));
    };
    let kind = |v6, proto| Test::Kind { v6, proto: Some(proto) };
    let test = match word {
        "ip" => Test::Kind { v6: false, proto: None },
        "ipv6" => Test::Kind { v6: true, proto: None },
        "tcp" => kind(false, IP_PROTO_TCP),
        "tcp6" => kind(true, IP_PROTO_TCP),
        "udp" => kind(false, IP_PROTO_UDP),
        "udp6" => kind(true, IP_PROTO_UDP),
        "sctp" => kind(false, IP_PROTO_SCTP),
        "sctp6" => kind(true, IP_PROTO_SCTP),
        "icmp" => kind(false, IP_PROTO_ICMP),
        "icmp6" => kind(true, IP_PROTO_ICMPV6),
        "snat" => Test::Snat,
        "dnat" => Test::Dnat,
        "nat" => Test::Nat,
        "replied" => Test::Replied,
        "unreplied" => return Ok((true, Test::Replied)),
        _ => Test::Related,
    };
    Ok((false, test))
}

/// A word with its value.
fn keyed(word: &str, value: &str) -> Result<Test, FilterError> {
    let Some(word) = listed(word, &KEYS) else {
        return Err(listed(word, &FLAGS).map_or_else(|| unknown(word), FilterError::Value));
    };
    let bad =
        |want: &str| FilterError::BadValue { word, value: value.chars().take(80).collect(), want: want.to_owned() };
    let number = |most: u128, want: &str| masked(value, most).ok_or_else(|| bad(want));
    let exact = |most: u128, want: &str| {
        let number = number(most, want)?;
        if number.mask == most { Ok(number.value) } else { Err(bad(want)) }
    };
    let port = || {
        let port = number(0xffff, "a port from 0 to 65535, or PORT/MASK")?;
        Ok(Masked { value: port.value as u16, mask: port.mask as u16 })
    };
    let networks = |v6: Option<bool>, test: &dyn Fn(Network) -> Test| {
        let mut all = value.split('|').map(|one| network(one, v6).map(test).ok_or_else(|| bad(wanted_network(v6))));
        match value.split('|').count() {
            1 => all.next().unwrap_or_else(|| Err(bad(wanted_network(v6)))),
            2..=MAX_TERMS => all.collect::<Result<_, _>>().map(Test::Or),
            _ => Err(FilterError::TooMany),
        }
    };
    let way = if word.starts_with("reply_") { Direction::Reply } else { Direction::Original };
    let end = if word.ends_with("_src") { End::Src } else { End::Dst };
    Ok(match word {
        "zone" => Test::Zone(exact(0xffff, "a zone from 0 to 65535")? as u16),
        "nw_proto" => Test::Proto(exact(0xff, "an IP protocol number from 0 to 255")? as u8),
        "icmp_type" => Test::IcmpType(exact(0xff, "a number from 0 to 255")? as u8),
        "icmp_code" => Test::IcmpCode(exact(0xff, "a number from 0 to 255")? as u8),
        "icmp_id" => Test::IcmpId(exact(0xffff, "a number from 0 to 65535")? as u16),
        "ct_mark" => {
            let mark = number(u32::MAX.into(), "a number of 32 bits, or VALUE/MASK")?;
            Test::Mark(Masked { value: mark.value as u32, mask: mark.mask as u32 })
        }
        "ct_label" => Test::Label(number(u128::MAX, "a number of 128 bits, or VALUE/MASK")?),
        "state" => {
            let upper = value.to_ascii_uppercase();
            let known = STATES.iter().find(|state| **state == upper);
            Test::State(known.ok_or_else(|| bad(&format!("one of {}", STATES.join(", "))))?)
        }
        "owner" => Test::Owner(OwnerFilter::new(value)),
        "addr" => networks(None, &Test::AnyAddress)?,
        "port" => Test::AnyPort(port()?),
        "src" => networks(None, &|network| Test::Address(way, End::Src, network))?,
        "dst" => networks(None, &|network| Test::Address(way, End::Dst, network))?,
        word if word.contains("nw_") => networks(Some(false), &|network| Test::Address(way, end, network))?,
        word if word.contains("ipv6_") => networks(Some(true), &|network| Test::Address(way, end, network))?,
        _ => Test::Port(way, end, port()?),
    })
}

fn wanted_network(v6: Option<bool>) -> &'static str {
    match v6 {
        Some(false) => "an IPv4 address, ADDRESS/PREFIX or ADDRESS/MASK",
        Some(true) => "an IPv6 address, ADDRESS/PREFIX or ADDRESS/MASK",
        None => "an address of IPv4 or IPv6, or ADDRESS/PREFIX",
    }
}

/// `VALUE` or `VALUE/MASK`, decimal or hexadecimal, of at most the bits of `most`.
fn masked(text: &str, most: u128) -> Option<Masked<u128>> {
    let number = |text: &str| {
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) if !digits.starts_with('+') => u128::from_str_radix(digits, 16).ok()?,
            Some(_) => return None,
            None if text.starts_with('+') => return None,
            None => text.parse().ok()?,
        };
        (number <= most).then_some(number)
    };
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(text)?, most),
    };
    Some(Masked { value: value & mask, mask })
}

/// `ADDRESS`, `ADDRESS/PREFIX` or `ADDRESS/MASK`, of the family that is wanted.
fn network(text: &str, v6: Option<bool>) -> Option<Network> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok().filter(|a: &IpAddr| v6.is_none_or(|v6| v6 == a.is_ipv6()))?;
    let width = if address.is_ipv6() { 128 } else { 32 };
    let all = u128::MAX >> (128 - width);
    let mask = match mask {
        None => all,
        Some(mask) => match mask.parse::<IpAddr>() {
            Ok(mask) if mask.is_ipv6() == address.is_ipv6() => super::bits(mask),
            Ok(_) => return None,
            Err(_) => {
                let len: u32 = mask.parse().ok().filter(|len| *len <= width)?;
                all & !all.checked_shr(len).unwrap_or(0)
            }
        },
    };
    Some(Network { v6: address.is_ipv6(), bits: Masked { value: super::bits(address) & mask, mask } })
}
