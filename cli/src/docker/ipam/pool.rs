//! One pool of addresses, as it is kept on disk: which are taken, and which is next.

use super::super::error::DriverError;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// What Docker calls it.
    pub(crate) id: String,
    /// The address space.
    pub(crate) space: String,
    /// The network.
    pub(crate) net: IpNet,
    /// The part of it that addresses are taken from.
    pub(crate) part: Option<IpNet>,
    /// How many networks use it.
    pub(crate) users: u32,
    /// The address that was taken last.
    pub(crate) last: Option<IpAddr>,
    /// The addresses that are taken, and whether by a gateway.
    pub(crate) taken: BTreeMap<IpAddr, bool>,
    /// Those of them that Docker has not asked for again since it started.
    #[serde(skip)]
    pub(crate) doubtful: BTreeSet<IpAddr>,
}

/// Addresses of both families as numbers.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The names of pools are files' names.
pub(crate) fn id(space: &str, net: IpNet, part: Option<IpNet>) -> String {
    let hex = |net: IpNet| match net {
        IpNet::V4(net) => format!("{:08x}n{}", u32::from(net.addr()), net.prefix_len()),
        IpNet::V6(net) => format!("{:032x}n{}", u128::from(net.addr()), net.prefix_len()),
    };
    format!("{space}p{}{}", hex(net), part.map(|part| format!("s{}", hex(part))).unwrap_or_default())
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

impl Pool {
    /// A pool of which nothing is taken.
    pub(crate) fn new(space: &str, net: IpNet, part: Option<IpNet>) -> Self {
        let (taken, doubtful) = (BTreeMap::new(), BTreeSet::new());
        Self { id: id(space, net, part), space: space.to_owned(), net, part, users: 0, last: None, taken, doubtful }
    }

    /// The addresses of a network that a station may have.
    fn hosts(net: IpNet) -> RangeInclusive<u128> {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        match net {
            IpNet::V4(net) if net.prefix_len() >= 31 => first..=last,
            // No broadcasts there, but the first address is that of any router (RFC 4291, section 2.6.1).
            IpNet::V6(net) if net.prefix_len() >= 127 => first..=last,
            IpNet::V6(_) => first.saturating_add(1)..=last,
            IpNet::V4(_) => first.saturating_add(1)..=last.saturating_sub(1),
        }
    }

    fn address(&self, number: u128) -> Option<IpAddr> {
        match self.net {
            IpNet::V4(_) => u32::try_from(number).ok().map(|n| IpAddr::V4(n.into())),
            IpNet::V6(_) => Some(IpAddr::V6(number.into())),
        }
    }

    /// The first address from `from` up that is not taken.
    fn free(&self, within: &RangeInclusive<u128>, from: u128) -> Option<IpAddr> {
        let mut next = from.max(*within.start());
        let first = self.address(next)?;
        for taken in self.taken.range(first..).map(|(ip, _)| number(*ip)) {
            if taken > next {
                break;
            }
            next = next.checked_add(1)?;
        }
        self.address(next).filter(|_| within.contains(&next))
    }

    /// Takes an address: `wanted`, or the next one that is free, going round; a gateway's is the first one.
    ///
    /// # Errors
    /// It is taken, or not one that a station of this network may have, or all are taken.
    pub(crate) fn take(&mut self, wanted: Option<IpAddr>, gateway: bool) -> Result<IpNet, DriverError> {
        let ip = match wanted {
            Some(ip) => self.check(ip, gateway)?,
            None => self.choose(gateway)?,
        };
        self.doubtful.remove(&ip);
        self.taken.insert(ip, gateway);
        if wanted.is_none() && !gateway {
            self.last = Some(ip);
        }
        IpNet::new(ip, self.net.prefix_len()).map_err(|_| DriverError::Address(ip.to_string()))
    }

    fn check(&self, ip: IpAddr, gateway: bool) -> Result<IpAddr, DriverError> {
        if ip.is_ipv4() != self.net.addr().is_ipv4() || !Self::hosts(self.net).contains(&number(ip)) {
            return Err(DriverError::Ipam(format!("{ip} is no address of a station of {}", self.net)));
        }
        match self.taken.get(&ip) {
            // The networks of one pool share its gateway.
            Some(true) if gateway => Ok(ip),
            Some(_) if !self.doubtful.contains(&ip) => {
                Err(DriverError::Ipam(format!("{ip} is taken; leave out --ip, or give another one")))
            }
            _ => Ok(ip),
        }
    }

    fn choose(&self, gateway: bool) -> Result<IpAddr, DriverError> {
        let within = Self::hosts(self.part.unwrap_or(self.net));
        if gateway {
            if let Some((ip, _)) = self.taken.iter().find(|(_, gateway)| **gateway) {
                return Ok(*ip);
            }
            let within = Self::hosts(self.net);
            return self.free(&within, *within.start()).ok_or_else(|| self.full());
        }
        let from = self.last.and_then(|last| number(last).checked_add(1));
        let free = from.and_then(|from| self.free(&within, from)).or_else(|| self.free(&within, *within.start()));
        // Whoever had these was not heard of again.
        let doubtful = || self.doubtful.iter().find(|ip| within.contains(&number(**ip))).copied();
        free.or_else(doubtful).ok_or_else(|| self.full())
    }

    fn full(&self) -> DriverError {
        let part = self.part.unwrap_or(self.net);
        DriverError::Ipam(format!("all addresses of {part} are taken; remove containers, or make a larger network"))
    }

    /// Gives an address back; fine if it is not taken. A gateway's stays while other networks use the pool.
    pub(crate) fn give_back(&mut self, ip: IpAddr) {
        if self.taken.get(&ip) == Some(&true) && self.users > 1 {
            return;
        }
        self.doubtful.remove(&ip);
        self.taken.remove(&ip);
    }

    /// From now on Docker asks again for what it still wants.
    pub(crate) fn doubt(&mut self) {
        self.users = 0;
        self.doubtful = self.taken.keys().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str, part: Option<&str>) -> Pool {
        Pool::new("local", net.parse().unwrap(), part.map(|part| part.parse().unwrap()))
    }

    fn next(pool: &mut Pool) -> Result<String, String> {
        pool.take(None, false).map(|net| net.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_go_round_and_given_back_ones_come_last() {
        let mut pool = pool("10.9.0.0/29", None);
        assert_eq!(pool.take(None, true).unwrap().to_string(), "10.9.0.1/29");
        assert_eq!(next(&mut pool).unwrap(), "10.9.0.2/29");
        pool.give_back("10.9.0.2".parse().unwrap());
        for last in 3..=6 {
            assert_eq!(next(&mut pool).unwrap(), format!("10.9.0.{last}/29"));
        }
        assert_eq!(next(&mut pool).unwrap(), "10.9.0.2/29");
        assert!(next(&mut pool).unwrap_err().contains("all addresses of 10.9.0.0/29"));
    }

    #[test]
    fn addresses_are_of_the_part_and_have_the_prefix_of_the_network() {
        let mut pool = pool("10.9.0.0/16", Some("10.9.5.0/30"));
        assert_eq!(pool.take(None, true).unwrap().to_string(), "10.9.0.1/16");
        assert_eq!(next(&mut pool).unwrap(), "10.9.5.1/16");
    }

    #[test]
    fn an_address_that_is_wanted_is_given_once() {
        let mut pool = pool("fd09::/64", None);
        let wanted = Some("fd09::7".parse().unwrap());
        assert_eq!(pool.take(wanted, false).unwrap().to_string(), "fd09::7/64");
        assert!(pool.take(wanted, false).unwrap_err().to_string().contains("is taken"));
        for bad in ["fd09::", "fd0a::1", "10.9.0.1"] {
            assert!(pool.take(Some(bad.parse().unwrap()), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_docker_asks_for_again_stays_and_the_rest_is_used_up_last() {
        let mut pool = pool("10.9.0.0/29", None);
        (0..5).for_each(|_| drop(next(&mut pool)));
        pool.doubt();
        let again = Some("10.9.0.2".parse().unwrap());
        assert!(pool.take(again, false).is_ok() && pool.take(again, false).is_err());
        assert_eq!(next(&mut pool).unwrap(), "10.9.0.6/29");
        assert_eq!(next(&mut pool).unwrap(), "10.9.0.1/29");
    }

    #[test]
    fn the_largest_networks_have_an_end() {
        let mut pool = pool("::/0", None);
        pool.last = Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        assert_eq!(next(&mut pool).unwrap(), "::1/0");
        let mut small = self::pool("10.9.0.0/32", None);
        assert_eq!(next(&mut small).unwrap(), "10.9.0.0/32");
        assert!(next(&mut small).is_err());
    }
}
