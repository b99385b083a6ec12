//! Router advertisements (RFC 4861, 4.2), with the DNS options of RFC 8106.

use super::nd::{ROUTER_ADVERTISEMENT, message, source_option};
use super::{Link, Mac};
use ipnet::IpNet;
use sluice_flows::router::{AdvertisedPrefix, Interface, RouterAdvertisement};
use std::net::Ipv6Addr;

/// Option types.
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const DNS_SERVERS: u8 = 25;
const DNS_SEARCH: u8 = 31;
/// Flags of the message: addresses, or other settings, come by DHCPv6.
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// Flags of a prefix: it is on the link, and hosts may make addresses of it.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// Most DNS servers in the message: the length of an option is one byte, in units of 8 bytes.
const MAX_SERVERS: usize = 127;
/// Longest list of search domains in bytes, for the same reason.
const MAX_SEARCH_LEN: usize = 254 * 8;
/// DNS settings are good for so many times the longest interval between advertisements (RFC 8106, 5.1).
const DNS_INTERVALS: u32 = 3;

/// What `interface` advertises, to `dst`. `own` is its link-local address. With `is_last` it says that it is no router any
/// more (RFC 4861, 6.2.5).
pub(in crate::router) fn frame(
    interface: &Interface,
    ra: &RouterAdvertisement,
    link: Link,
    (own, dst): (Ipv6Addr, Ipv6Addr),
    is_last: bool,
) -> Vec<u8> {
    let flags = if ra.managed { MANAGED } else { 0 } | if ra.other { OTHER } else { 0 };
    let [high, low] = if is_last { 0 } else { ra.lifetime }.to_be_bytes();
    message(link, (own, dst), ROUTER_ADVERTISEMENT, [ra.hop_limit, flags, high, low], &body(interface, ra, link.src))
}

fn body(interface: &Interface, ra: &RouterAdvertisement, mac: Mac) -> Vec<u8> {
    // Reachable time and retransmission timer are the hosts' own to choose.
    let mut body = vec![0; 8];
    body.extend(source_option(mac));
    if ra.mtu {
        body.extend([MTU, 1, 0, 0]);
        body.extend(u32::from(interface.mtu).to_be_bytes());
    }
    if ra.prefixes.is_empty() {
        own_prefixes(interface).for_each(|told| prefix(&mut body, &told));
    }
    ra.prefixes.iter().for_each(|told| prefix(&mut body, told));
    let dns_lifetime = DNS_INTERVALS * u32::from(ra.max_interval);
    let servers = ra.dns_servers.get(..MAX_SERVERS).unwrap_or(&ra.dns_servers);
    if !servers.is_empty() {
        body.extend([DNS_SERVERS, 1 + 2 * servers.len() as u8, 0, 0]);
        body.extend(dns_lifetime.to_be_bytes());
        servers.iter().for_each(|server| body.extend(server.octets()));
    }
    let names = names(&ra.dns_search);
    if !names.is_empty() {
        body.extend([DNS_SEARCH, 1 + (names.len() / 8) as u8, 0, 0]);
        body.extend(dns_lifetime.to_be_bytes());
        body.extend(names);
    }
    body
}

/// The prefixes of the interface's own addresses, but the link-local one.
fn own_prefixes(interface: &Interface) -> impl Iterator<Item = AdvertisedPrefix> + '_ {
    let told = interface.addresses.iter().filter_map(|net| match net {
        IpNet::V6(net) if !net.addr().is_unicast_link_local() && net.prefix_len() < 128 => Some(net.trunc()),
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    told.dedup();
    told.into_iter().map(AdvertisedPrefix::new)
}

fn prefix(body: &mut Vec<u8>, told: &AdvertisedPrefix) {
    let flags = if told.on_link { ON_LINK } else { 0 } | if told.autonomous { AUTONOMOUS } else { 0 };
    body.extend([PREFIX, 4, told.prefix.prefix_len(), flags]);
    body.extend(told.valid.to_be_bytes());
    body.extend(told.preferred.to_be_bytes());
    body.extend([0; 4]);
    body.extend(told.prefix.network().octets());
}

/// Domain names as DNS writes them (RFC 1035, 3.1), padded to a multiple of 8 bytes. Those that are none are left out, and
/// those that do not fit.
fn names(domains: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for domain in domains {
        let domain = domain.trim_end_matches('.');
        let labels: Vec<_> = domain.split('.').collect();
        let is_name = labels.iter().all(|label| (1..=63).contains(&label.len())) && domain.len() <= 253;
        if !is_name || out.len() + domain.len() + 2 > MAX_SEARCH_LEN {
            continue;
        }
        for label in labels {
            out.push(label.len() as u8);
            out.extend(label.bytes());
        }
        out.push(0);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    out
}
