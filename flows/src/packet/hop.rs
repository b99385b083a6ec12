//! What a hop does to a packet, in one step: new Ethernet addresses, a new TTL, and new addresses and ports if it translates.
//!
//! # Why
//! Nearly every routed packet is changed so and then sent. As one [`set_field`](super::rewrite::set_field) for each field
//! that is a jump, a wide read, a mask and a sum a field; here it is two stores under a mask and one sum.

use super::layers::{ETH_LEN, be16};
use super::readdress::Readdress;
use super::{Frame, L3, Layers, checksum};
use crate::datapath::{Change, DpAction};
use crate::field::Field;

/// Bytes of an Ethernet header's two addresses.
const ADDRESSES: usize = 12;
/// Where the TTL and the protocol behind it lie in an IPv4 header, and its checksum.
const V4_TTL: usize = 8;
const V4_CHECKSUM: usize = 10;
/// Where the hop limit lies in an IPv6 header.
const V6_TTL: usize = 7;

/// The bits of destination and source address, as they lie in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    front: u64,
    back: u32,
}

impl Bits {
    fn of(bytes: [u8; ADDRESSES]) -> Self {
        let [a, b, c, d, e, f, g, h, back @ ..] = bytes;
        Self { front: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), back: u32::from_ne_bytes(back) }
    }
}

/// Changes of headers that do not depend on each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Bits of the addresses that stay, and those that are new; nothing if all stay.
    addresses: Option<(Bits, Bits)>,
    ttl: Option<u8>,
    readdress: Option<Box<Readdress>>,
}

impl Hop {
    /// What these actions come to; `None` if one of them does something else, or the order could matter.
    pub fn of(actions: &[DpAction]) -> Option<Self> {
        let (mut hop, mut keep, mut bits) = (Self::default(), [0xff; ADDRESSES], [0; ADDRESSES]);
        for action in actions {
            match action {
                DpAction::Set(changes) => {
                    for change in changes {
                        match change.field {
                            Field::EthDst => address(&mut keep, &mut bits, 0, change),
                            Field::EthSrc => address(&mut keep, &mut bits, 6, change),
                            Field::IpTtl if change.mask & 0xff == 0xff => hop.ttl = Some(change.value as u8),
                            _ => return None,
                        }
                    }
                }
                DpAction::Readdress(new) if hop.readdress.is_none() => hop.readdress = Some(new.clone()),
                _ => return None,
            }
        }
        hop.addresses = (keep != [0xff; ADDRESSES]).then(|| (Bits::of(keep), Bits::of(bits)));
        Some(hop)
    }

    /// Changes a frame with these layers; headers that are not there stay so, as with
    /// [`set_field`](super::rewrite::set_field).
    #[inline]
    pub fn apply(&self, frame: &mut Frame, layers: &Layers) {
        if let Some(readdress) = &self.readdress {
            readdress.apply(frame, layers);
        }
        let (bytes, l3) = (frame.bytes_mut(), usize::from(layers.l3_ofs));
        if let Some((keep, new)) = self.addresses
            && l3 >= ETH_LEN
            && let Some((front, rest)) = bytes.split_first_chunk_mut::<8>()
            && let Some(back) = rest.first_chunk_mut::<4>()
        {
            *front = (u64::from_ne_bytes(*front) & keep.front | new.front).to_ne_bytes();
            *back = (u32::from_ne_bytes(*back) & keep.back | new.back).to_ne_bytes();
        }
        match (self.ttl, layers.l3) {
            (Some(ttl), L3::Ipv4) => {
                let old = be16(bytes, l3 + V4_TTL);
                let new = u16::from(ttl) << 8 | old & 0xff;
                if let Some(header) = bytes.get_mut(l3 + V4_TTL..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    let sum = u16::from_be_bytes([header[V4_CHECKSUM - V4_TTL], header[V4_CHECKSUM - V4_TTL + 1]]);
                    let sum = checksum::update(sum, checksum::diff(old.into(), new.into()));
                    *header = (u32::from(new) << 16 | u32::from(sum)).to_be_bytes();
                }
            }
            (Some(ttl), L3::Ipv6) => {
                if let Some(place) = bytes.get_mut(l3 + V6_TTL) {
                    *place = ttl;
                }
            }
            _ => {}
        }
    }
}

/// New bits of the address at `from`, on top of what was new before.
fn address(keep: &mut [u8; ADDRESSES], bits: &mut [u8; ADDRESSES], from: usize, change: &Change) {
    let new = change.value.to_be_bytes().into_iter().zip(change.mask.to_be_bytes()).skip(10);
    for ((keep, bits), (value, mask)) in keep.iter_mut().zip(bits).skip(from).zip(new) {
        *keep &= !mask;
        *bits = *bits & !mask | value & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite::set_field;
    use super::super::testing::{arp, eth, ipv4_frag, ipv6};
    use super::*;
    use crate::key::PacketKey;
    use crate::packet::extract;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let packets: [(u16, Vec<u8>); 4] = [
            (0x0800, ipv4_frag(17, 0, &[], &[9; 20])),
            (0x0800, ipv4_frag(6, 0, &[1, 1, 1, 0], &[7; 20])),
            (0x86dd, ipv6(17, &[5; 20])),
            (0x0806, arp(1)),
        ];
        let tags: [&[(u16, u16)]; 2] = [&[], &[(0x8100, 5)]];
        let frames = packets.iter().flat_map(|(kind, packet)| tags.map(|tags| eth(tags, *kind, packet)));
        let whole: Vec<_> = frames.collect();
        // And what was cut off on its way.
        let cut = whole.iter().flat_map(|frame| (0..40).map(|len| frame[..len.min(frame.len())].to_vec()));
        whole.iter().cloned().chain(cut).map(|bytes| Frame::from_bytes(&bytes)).collect()
    }

    fn layers(frame: &Frame) -> Layers {
        let mut key = PacketKey::ZERO;
        extract(frame.bytes(), 0, &mut key)
    }

    proptest! {
        #[test]
        fn a_hop_does_what_its_fields_do_one_by_one(
            changes in prop::collection::vec((0..3_usize, any::<u64>(), any::<u64>()), 0..5),
        ) {
            let changes: Vec<_> = changes.into_iter().map(|(field, value, mask)| match field {
                0 => Change { field: Field::EthDst, value: value.into(), mask: mask.into() },
                1 => Change { field: Field::EthSrc, value: value.into(), mask: mask.into() },
                _ => Change { field: Field::IpTtl, value: value.into(), mask: 0xff },
            }).collect();
            let hop = Hop::of(&[DpAction::Set(changes.clone().into())]).unwrap();
            for mut frame in frames() {
                let mut one_by_one = Frame::from_bytes(frame.bytes());
                let layers = layers(&frame);
                for change in &changes {
                    set_field(&mut one_by_one, &layers, change.field, change.value, change.mask);
                }
                hop.apply(&mut frame, &layers);
                prop_assert_eq!(frame.bytes(), one_by_one.bytes());
            }
        }
    }

    #[test]
    fn other_actions_are_no_hop() {
        let change = |field, mask| DpAction::Set([Change { field, value: 1, mask }].into_iter().collect());
        assert_eq!(Hop::of(&[DpAction::PopVlan]), None);
        assert_eq!(Hop::of(&[change(Field::IpDst, u128::MAX)]), None);
        assert_eq!(Hop::of(&[change(Field::IpTtl, 0x0f)]), None);
        assert!(Hop::of(&[change(Field::IpTtl, 0xff), change(Field::EthDst, 0xff)]).is_some());
    }
}
