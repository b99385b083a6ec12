//! Addresses of both families as numbers, which is how the store orders them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Family of IPv4 in the store.
pub(crate) const V4: u8 = 4;
/// Family of IPv6 in the store.
pub(crate) const V6: u8 = 6;

/// An address: its family, [`V4`] or [`V6`], and its bits. IPv4 is before IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) family: u8,
    pub(crate) bits: u128,
}

impl Address {
    /// The address with these bits. Bits beyond 32 of an IPv4 address are left off.
    pub(crate) fn to_ip(self) -> IpAddr {
        if self.family == V4 {
            #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address has 32 bits")]
            let bits = self.bits as u32;
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.bits))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { family: V4, bits: u128::from(ip.to_bits()) },
            IpAddr::V6(ip) => Self { family: V6, bits: ip.to_bits() },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// Addresses of one family from the first to the last, both in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) family: u8,
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl Span {
    pub(crate) fn one(address: Address) -> Self {
        Self { family: address.family, first: address.bits, last: address.bits }
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.family == address.family && (self.first..=self.last).contains(&address.bits)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// The part that both have.
    pub(crate) fn within(&self, other: &Self) -> Option<Self> {
        let both = Self { family: self.family, first: self.first.max(other.first), last: self.last.min(other.last) };
        self.overlaps(other).then_some(both)
    }

    /// How many addresses; all of IPv6 count as one less.
    pub(crate) fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

impl From<ipnet::IpNet> for Span {
    fn from(net: ipnet::IpNet) -> Self {
        match net {
            ipnet::IpNet::V4(n) => {
                Self { family: V4, first: u128::from(n.network().to_bits()), last: u128::from(n.broadcast().to_bits()) }
            }
            ipnet::IpNet::V6(n) => Self { family: V6, first: n.network().to_bits(), last: n.broadcast().to_bits() },
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |bits| Address { family: self.family, bits }.to_ip();
        if self.first == self.last {
            write!(f, "{}", ip(self.first))
        } else {
            write!(f, "{}-{}", ip(self.first), ip(self.last))
        }
    }
}

/// Spans in order, none of which touch: addresses that are never given by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// Sorts and joins them.
    pub(crate) fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable();
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.family == span.family && span.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(span.last);
                }
                _ => joined.push(span),
            }
        }
        Self(joined)
    }

    /// The span that has the address.
    pub(crate) fn find(&self, address: Address) -> Option<&Span> {
        let after = self.0.partition_point(|s| (s.family, s.first) <= (address.family, address.bits));
        self.0.get(after.checked_sub(1)?).filter(|s| s.contains(address))
    }

    /// The first of the spans that overlaps this one.
    pub(crate) fn overlap(&self, other: &Span) -> Option<&Span> {
        let at = self.0.partition_point(|s| (s.family, s.last) < (other.family, other.first));
        self.0.get(at).filter(|s| s.overlaps(other))
    }

    /// The spans in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Span> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn an_address_is_the_same_after_the_store() {
        for text in
            ["0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "fd00::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        {
            assert_eq!(ip(text).to_string(), text);
        }
    }

    #[test]
    fn spans_that_touch_or_overlap_become_one_and_find_says_which_has_an_address() {
        let of = |a: &str, b: &str| Span { family: ip(a).family, first: ip(a).bits, last: ip(b).bits };
        let spans = Spans::new(vec![
            of("10.0.0.5", "10.0.0.6"),
            of("fd00::", "fd00::f"),
            of("10.0.0.1", "10.0.0.4"),
            of("10.0.0.9", "10.0.0.9"),
        ]);
        assert_eq!(spans.iter().count(), 3);
        assert_eq!(spans.find(ip("10.0.0.6")), Some(&of("10.0.0.1", "10.0.0.6")));
        assert_eq!(spans.find(ip("10.0.0.7")), None);
        assert_eq!(spans.find(ip("fd00::f")), Some(&of("fd00::", "fd00::f")));
        assert_eq!(spans.find(ip("::1")), None, "families are apart");
    }

    #[test]
    fn the_ends_of_all_addresses_do_not_overflow() {
        let all = Span::from("::/0".parse::<ipnet::IpNet>().expect("a network"));
        assert_eq!(all.count(), u128::MAX);
        assert_eq!(Spans::new(vec![all, all]).iter().count(), 1);
    }
}
