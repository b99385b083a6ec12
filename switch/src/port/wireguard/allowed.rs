//! Allowed IPs: which peer has an address behind it ("cryptokey routing").
//!
//! One hash map for each prefix length that is in use, asked from the longest on: a node's table has few lengths and
//! many prefixes of each, so a lookup costs the same with ten peers as with ten thousand.

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;
use std::net::IpAddr;

/// Prefixes, and the number of the peer that each belongs to.
#[derive(Debug, Default)]
pub(super) struct AllowedIps {
    v4: Vec<Length<u32>>,
    v6: Vec<Length<u128>>,
}

/// The prefixes of one length.
#[derive(Debug)]
struct Length<A> {
    len: u8,
    peers: HashMap<A, u32>,
}

impl AllowedIps {
    /// A table of these. A prefix given twice belongs to the last peer it was given.
    pub(super) fn new<'a>(prefixes: impl IntoIterator<Item = (&'a IpNet, u32)>) -> Self {
        let mut table = Self::default();
        for (prefix, peer) in prefixes {
            match prefix {
                IpNet::V4(net) => insert(&mut table.v4, net.prefix_len(), net.network().into(), peer),
                IpNet::V6(net) => insert(&mut table.v6, net.prefix_len(), net.network().into(), peer),
            }
        }
        table.v4.sort_by_key(|length| u8::MAX - length.len);
        table.v6.sort_by_key(|length| u8::MAX - length.len);
        table
    }

    /// The peer with the longest prefix that `address` is in.
    #[inline]
    pub(super) fn find(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                let masked = |len: u8| bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                self.v4.iter().find_map(|length| length.peers.get(&masked(length.len))).copied()
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                let masked = |len: u8| bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                self.v6.iter().find_map(|length| length.peers.get(&masked(length.len))).copied()
            }
        }
    }
}

fn insert<A: std::hash::Hash + Eq>(lengths: &mut Vec<Length<A>>, len: u8, network: A, peer: u32) {
    let at = lengths.iter().position(|length| length.len == len).unwrap_or_else(|| {
        lengths.push(Length { len, peers: HashMap::new() });
        lengths.len() - 1
    });
    lengths[at].peers.insert(network, peer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_has_the_address() {
        let nets =
            ["0.0.0.0/0", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::7/128"];
        let nets = nets.map(|net| net.parse::<IpNet>().unwrap());
        let table = AllowedIps::new(nets.iter().zip(0..));
        for (address, peer) in [
            ("192.0.2.1", 0),
            ("10.1.3.1", 1),
            ("10.1.2.4", 2),
            ("10.1.2.3", 3),
            ("2001:db9::1", 4),
            ("2001:db8::8", 5),
            ("2001:db8::7", 6),
        ] {
            assert_eq!(table.find(address.parse().unwrap()), Some(peer), "{address}");
        }
    }

    #[test]
    fn an_address_in_no_prefix_has_no_peer() {
        let net = "10.0.0.0/8".parse::<IpNet>().unwrap();
        let table = AllowedIps::new([(&net, 0)]);
        assert_eq!(table.find("11.0.0.1".parse().unwrap()), None);
        assert_eq!(table.find("::ffff:10.0.0.1".parse().unwrap()), None);
    }
}
