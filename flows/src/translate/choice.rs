//! Choosing by a hash of the packet: buckets of select groups, `multipath` and `bundle`.
//!
//! The hashes are our own and have no secret, so that a trace chooses what the switch chooses. Whatever is hashed goes
//! into the mask: packets that agree under it choose alike. The fragments of a packet choose alike too: ports, which only
//! the first has, are not hashed of any.

use super::{At, MacLookup, TraceSink, Walk};
use crate::action::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm};
use crate::field::{Field, Prereq, Stage};
use crate::key::slot;
use crate::port::PortNo;

/// Multiplier and shifts of a mixing step (David Stafford's variant 13, as in SplitMix64).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Adds a value to a hash.
const fn add(hash: u64, value: u128) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = mix(hash.wrapping_add(STEP) ^ value as u64);
    mix(hash.wrapping_add(STEP) ^ (value >> 64) as u64)
}

/// Of the candidates (index, number, weight) the one with the highest random weight: each is chosen in proportion to its
/// weight, and when one goes only its own packets choose anew. One of weight 0 is never chosen.
pub(super) fn heaviest(hash: u64, candidates: impl Iterator<Item = (usize, u64, u16)>) -> Option<usize> {
    let score = |number: u64, weight: u16| {
        // Uniform in (0, 1]; the greatest ln(u)/w of several wins in proportion to their w.
        let uniform = ((add(hash, number.into()) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        uniform.ln() / f64::from(weight)
    };
    let weighted = candidates.filter(|(.., weight)| *weight != 0);
    weighted
        .map(|(index, number, weight)| (index, score(number, weight)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(index, _)| index)
}

/// A hash of the connection, the same in both directions: Ethernet addresses, VLAN, EtherType, IP and its ports.
pub(super) fn symmetric_l4<M: MacLookup, S: TraceSink>(walk: &mut Walk<'_, M, S>, basis: u64) -> u64 {
    let mut hash = add(basis, walk.read(slot::ETH_SRC) ^ walk.read(slot::ETH_DST));
    hash = add(hash, walk.read(slot::ETH_TYPE));
    hash = add(hash, walk.read(slot::VLAN_TCI) & 0xfff);
    symmetric_l3l4(walk, hash, false)
}

/// A hash of IP addresses and of the ports of TCP and SCTP (and UDP if asked for), the same in both directions.
fn symmetric_l3l4<M: MacLookup, S: TraceSink>(walk: &mut Walk<'_, M, S>, basis: u64, udp: bool) -> u64 {
    let hash = symmetric_l3(walk, basis);
    if !walk.has(Prereq::Ip) {
        return hash;
    }
    let hash = add(hash, walk.read(slot::IP_PROTO));
    if walk.is_fragment() {
        hash
    } else if walk.has(Prereq::Tcp) || walk.has(Prereq::Sctp) || udp && walk.has(Prereq::Udp) {
        add(hash, walk.read(slot::TP_SRC) ^ walk.read(slot::TP_DST))
    } else {
        hash
    }
}

fn symmetric_l3<M: MacLookup, S: TraceSink>(walk: &mut Walk<'_, M, S>, basis: u64) -> u64 {
    if walk.has(Prereq::Ipv4) {
        add(basis, walk.read(slot::IP_SRC) ^ walk.read(slot::IP_DST))
    } else if walk.has(Prereq::Ipv6) {
        add(basis, walk.read(slot::IPV6_SRC) ^ walk.read(slot::IPV6_DST))
    } else {
        basis
    }
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    /// A hash of these fields under their masks; fields that the packet does not have count as 0, and so do those of the
    /// transport in a fragment.
    pub(super) fn hash_fields(&mut self, fields: &[(Field, u128)], basis: u64) -> u64 {
        fields.iter().fold(basis, |hash, (field, mask)| {
            let whole = field.slot().max();
            if !self.has(field.info().prereq) || field.info().stage == Stage::L4 && self.is_fragment() {
                return add(hash, 0);
            }
            let mut read = crate::key::FlowMask::ZERO;
            read.set(field.slot(), mask & whole);
            self.absorb(&read);
            add(hash, self.flow.key.get(field.slot()) & mask)
        })
    }

    fn hash_of(&mut self, fields: HashFields, basis: u16) -> u64 {
        let basis = u64::from(basis);
        match fields {
            HashFields::EthSrc => add(basis, self.read(slot::ETH_SRC)),
            HashFields::SymmetricL4 => symmetric_l4(self, basis),
            HashFields::SymmetricL3L4 => symmetric_l3l4(self, basis, false),
            HashFields::SymmetricL3L4Udp => symmetric_l3l4(self, basis, true),
            HashFields::SymmetricL3 => symmetric_l3(self, basis),
            HashFields::NwSrc => self.hash_address(slot::IP_SRC, slot::IPV6_SRC, basis),
            HashFields::NwDst => self.hash_address(slot::IP_DST, slot::IPV6_DST, basis),
        }
    }

    fn hash_address(&mut self, v4: crate::key::Slot, v6: crate::key::Slot, basis: u64) -> u64 {
        if self.has(Prereq::Ipv4) {
            add(basis, self.read(v4))
        } else if self.has(Prereq::Ipv6) {
            add(basis, self.read(v6))
        } else {
            basis
        }
    }

    pub(super) fn multipath(&mut self, path: &Multipath) {
        let hash = self.hash_of(path.fields, path.basis);
        let links = u64::from(path.links.max(1));
        let link = match path.algorithm {
            MultipathAlgorithm::ModuloN => hash % links,
            // The upper bits of the product are the region that the hash lies in.
            MultipathAlgorithm::HashThreshold => ((u128::from(hash) * u128::from(links)) >> 64) as u64,
            MultipathAlgorithm::Hrw => (0..links).max_by_key(|link| add(hash, (*link).into())).unwrap_or(0),
            MultipathAlgorithm::IterHash => iterate(hash, links, path.arg),
        };
        self.set_field(path.dst.field, u128::from(link) << path.dst.ofs, path.dst.mask());
    }

    pub(super) fn bundle(&mut self, bundle: &Bundle, at: At<'a>) {
        let is_up = |no: &PortNo| self.bridge.ports.get(no).is_some_and(|port| port.up);
        let live: Vec<PortNo> = bundle.members.iter().copied().filter(is_up).collect();
        let chosen = match bundle.algorithm {
            BundleAlgorithm::ActiveBackup => live.first().copied(),
            BundleAlgorithm::Hrw => {
                let hash = self.hash_of(bundle.fields, bundle.basis);
                live.into_iter().max_by_key(|port| add(hash, port.0.into()))
            }
        };
        match bundle.dst {
            Some(dst) => {
                let port = chosen.unwrap_or(PortNo::NONE);
                self.set_field(dst.field, u128::from(port.0) << dst.ofs, dst.mask());
            }
            None => match chosen {
                Some(port) => self.output(port, at),
                None => self.note("no member of the bundle is up"),
            },
        }
    }
}

/// Hashes until the number of a link comes out, at most `tries` times (OVS's `iter_hash`), else takes the remainder.
fn iterate(hash: u64, links: u64, tries: u32) -> u64 {
    let range = links.next_power_of_two();
    let tries = tries.clamp(1, 64);
    let draws = (0..tries).map(|i| add(hash, i.into()) & (range - 1));
    draws.into_iter().find(|link| *link < links).unwrap_or(hash % links)
}
