//! Ranges of addresses and sets of them, checked: what a configuration may say of where addresses come from.
//!
//! The rules are those of the reference's `host-local`: a subnet without host bits that has room for two hosts beside the
//! network's own address and IPv4's broadcast; the gateway is the first address unless named; addresses come from the one
//! after the network's own to the last that a host may have. A set has ranges of one family, and no address is in two ranges.

use super::address::{Address, Span};
use super::error::IpamError;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

/// A range as configurations and capabilities write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RangeConf {
    pub(crate) subnet: Option<String>,
    pub(crate) range_start: Option<String>,
    pub(crate) range_end: Option<String>,
    pub(crate) gateway: Option<String>,
}

/// Addresses of one subnet that may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) subnet: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) span: Span,
}

impl Range {
    /// Checks what a configuration says; `key` says where, for messages.
    pub(crate) fn new(key: &str, conf: &RangeConf) -> Result<Self, IpamError> {
        let wrong = |why: String| IpamError::Config { key: key.to_owned(), why };
        let text = conf.subnet.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err(wrong("there is no subnet; write one, such as \"10.77.0.0/24\"".into()));
        }
        let subnet: IpNet = text.parse().map_err(|_| {
            wrong(format!("subnet {text:?} is not an address and a prefix length, such as 10.77.0.0/24"))
        })?;
        if subnet.addr() != subnet.network() {
            let meant = subnet.trunc();
            return Err(wrong(format!("subnet {subnet} has host bits set; the network is {meant}")));
        }
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            let most = subnet.max_prefix_len() - 2;
            return Err(wrong(format!("subnet {subnet} is too small to give addresses from; /{most} is the smallest")));
        }
        let all = Span::from(subnet);
        let last = if all.family == super::address::V4 { all.last - 1 } else { all.last };
        let ip = |name: &str, text: &Option<String>| match text.as_deref().filter(|t| !t.is_empty()) {
            None => Ok(None),
            Some(t) => t.parse::<IpAddr>().map(Some).map_err(|_| wrong(format!("{name} {t:?} is not an address"))),
        };
        let end = |name: &str, text: &Option<String>, unset: u128| match ip(name, text)? {
            None => Ok(unset),
            Some(ip) if all.contains(ip.into()) => Ok(Address::from(ip).bits),
            Some(ip) => Err(wrong(format!("{name} {ip} is not in subnet {subnet}"))),
        };
        let (first, last) =
            (end("rangeStart", &conf.range_start, all.first + 1)?, end("rangeEnd", &conf.range_end, last)?);
        let span = Span { family: all.family, first, last };
        if first > last {
            return Err(wrong(format!("rangeStart {} is after rangeEnd {}", at(span, first), at(span, last))));
        }
        let gateway = ip("gateway", &conf.gateway)?.unwrap_or_else(|| at(all, all.first + 1));
        if Address::from(gateway).family != all.family {
            return Err(wrong(format!("gateway {gateway} is not of the same family as subnet {subnet}")));
        }
        if !all.contains(gateway.into()) && !is_link_local(gateway) {
            return Err(wrong(format!("gateway {gateway} is not in subnet {subnet}")));
        }
        Ok(Self { subnet, gateway: Some(gateway), span })
    }

    /// The address with the subnet's prefix length.
    pub(crate) fn with_prefix(&self, ip: IpAddr) -> IpNet {
        IpNet::new(ip, self.subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(ip))
    }
}

fn at(span: Span, bits: u128) -> IpAddr {
    Address { family: span.family, bits }.to_ip()
}

/// Gateways that are reached on the link whatever the subnet is.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Ranges of which an attachment gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// What the store remembers the last address given under.
    pub(crate) key: String,
    /// At least one, of one family.
    pub(crate) ranges: Vec<Range>,
}

impl RangeSet {
    /// Checks the ranges and that they go together.
    pub(crate) fn new(key: String, confs: &[RangeConf]) -> Result<Self, IpamError> {
        let wrong = |why: String| IpamError::Config { key: key.clone(), why };
        if confs.is_empty() {
            return Err(wrong("there is no range in the set".into()));
        }
        let ranges: Vec<Range> = confs
            .iter()
            .enumerate()
            .map(|(n, conf)| Range::new(&format!("{key}[{n}]"), conf))
            .collect::<Result<_, _>>()?;
        if let Some(odd) = ranges.iter().find(|r| r.span.family != ranges[0].span.family) {
            let first = ranges[0].subnet;
            return Err(wrong(format!(
                "{first} and {} are of two families; for an address of each, put them into two sets",
                odd.subnet
            )));
        }
        Ok(Self { key, ranges })
    }

    /// The range that has the address.
    pub(crate) fn range_of(&self, address: Address) -> Option<&Range> {
        self.ranges.iter().find(|r| r.span.contains(address))
    }
}

/// Checks that no address is in two ranges.
pub(crate) fn apart(sets: &[RangeSet]) -> Result<(), IpamError> {
    let mut all: Vec<(&Range, &str)> = sets.iter().flat_map(|s| s.ranges.iter().map(|r| (r, s.key.as_str()))).collect();
    all.sort_by_key(|(r, _)| r.span);
    for pair in all.windows(2) {
        let [(a, key), (b, other)] = pair else { continue };
        if a.span.overlaps(&b.span) {
            let why = format!("{} overlaps {} of {other}", a.span, b.span);
            return Err(IpamError::Config { key: (*key).to_owned(), why });
        }
    }
    Ok(())
}
