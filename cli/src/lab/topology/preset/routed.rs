//! Presets of routers, as topology files.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// The first of the networks of four addresses that links of routers have.
const LINKS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
/// Every network of hosts is in it.
const ALL_HOSTS: &str = "10.0.0.0/8";

/// The two addresses of a link.
fn link(index: u32) -> [Ipv4Addr; 2] {
    [1, 2].map(|end| Ipv4Addr::from_bits(LINKS.to_bits() + 4 * index + end))
}

/// The network of a router's host, without its last byte: `10.0.3`, `10.1.4`.
fn rack(number: u32) -> String {
    format!("10.{}.{}", number >> 8, number & 255)
}

fn list<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn hosts(out: &mut String, count: u32, router: &str) {
    // Writing to a string cannot fail.
    _ = writeln!(out, "hosts: {{{}}}\nlinks:", list((1..=count).map(|n| format!("h{n}: {{}}"))));
    for n in 1..=count {
        let rack = rack(n);
        _ = writeln!(out, "  - {{ends: [h{n}, {router}{n}], ips: [{rack}.2/24, {rack}.1/24]}}");
    }
}

/// A host at each leaf, and every leaf at every spine. Flows between leaves are spread over the spines.
pub(super) fn leaf_spine(name: &str, spines: u32, leaves: u32) -> String {
    let between = |leaf: u32, spine: u32| link((leaf - 1) * spines + spine - 1);
    let mut out = format!("lab: {name}\nrouters:\n");
    for leaf in 1..=leaves {
        let via = list((1..=spines).map(|spine| between(leaf, spine)[1]));
        _ = writeln!(out, "  leaf{leaf}: {{routes: [{{to: {ALL_HOSTS}, via: [{via}]}}]}}");
    }
    for spine in 1..=spines {
        let route = |leaf| format!("{{to: {}.0/24, via: {}}}", rack(leaf), between(leaf, spine)[0]);
        _ = writeln!(out, "  spine{spine}: {{routes: [{}]}}", list((1..=leaves).map(route)));
    }
    hosts(&mut out, leaves, "leaf");
    for leaf in 1..=leaves {
        for spine in 1..=spines {
            let [a, b] = between(leaf, spine);
            _ = writeln!(out, "  - {{ends: [leaf{leaf}, spine{spine}], ips: [{a}/30, {b}/30]}}");
        }
    }
    out
}

/// Routers in a ring with a host each. Packets go the shorter way, and either way if both are as long.
pub(super) fn ring(name: &str, routers: u32) -> String {
    // Link n joins router n to the next; the last one joins the last router to the first.
    let next = |n: u32| n % routers + 1;
    let before = |n: u32| (n + routers - 2) % routers + 1;
    let mut out = format!("lab: {name}\nrouters:\n");
    for n in 1..=routers {
        let route = |steps: u32| {
            let (forth, back) = (link(n - 1)[1], link(before(n) - 1)[0]);
            let via = match (steps * 2).cmp(&routers) {
                std::cmp::Ordering::Less => forth.to_string(),
                std::cmp::Ordering::Equal => format!("[{forth}, {back}]"),
                std::cmp::Ordering::Greater => back.to_string(),
            };
            format!("{{to: {}.0/24, via: {via}}}", rack((n - 1 + steps) % routers + 1))
        };
        _ = writeln!(out, "  r{n}: {{routes: [{}]}}", list((1..routers).map(route)));
    }
    hosts(&mut out, routers, "r");
    for n in 1..=routers {
        let [a, b] = link(n - 1);
        _ = writeln!(out, "  - {{ends: [r{n}, r{}], ips: [{a}/30, {b}/30]}}", next(n));
    }
    out
}
