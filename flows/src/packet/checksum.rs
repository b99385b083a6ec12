//! The internet checksum (RFC 1071), its incremental update (RFC 1624), and SCTP's CRC32c (RFC 9260).
//!
//! Two notions are kept apart. A **sum** is the one's complement sum itself, as the field of a partial checksum holds
//! it. A **checksum** is the complement of a sum, as it stands in a finished packet. In one's complement 0x0000 and
//! 0xffff are the same number: [`verify`] and the incremental functions treat them so, and only UDP gives them
//! different meanings (see [`udp`]).

/// The folded one's complement sum of `bytes` as big-endian 16-bit words; an odd last byte is padded with zero.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // One's complement sums do not depend on the byte order (RFC 1071, 2.B), and carries of 32-bit words can wait in
    // the upper half of 64-bit ones: this form is what compilers turn into vector code.
    let (words, tail) = bytes.as_chunks::<4>();
    let mut acc = words.iter().fold(0u64, |acc, w| acc.wrapping_add(u64::from(u32::from_ne_bytes(*w))));
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    acc = acc.wrapping_add(u64::from(u32::from_ne_bytes(last)));
    u16::from_be(fold(acc))
}

/// Folds the carries of a sum of 16- or 32-bit words back in.
#[inline]
fn fold(acc: u64) -> u16 {
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    ((acc >> 16) + acc) as u16
}

/// One's complement addition of two sums.
#[inline]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The checksum of `bytes`: what belongs in a checksum field that is zero in `bytes`.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// Whether `bytes`, checksum field included, carry a right checksum. `pseudo` is the sum of the pseudo-header, or 0.
#[inline]
pub fn verify(bytes: &[u8], pseudo: u16) -> bool {
    add(sum(bytes), pseudo) == 0xffff
}

/// A finished UDP checksum: 0 would mean "none", so its other form takes its place (RFC 768).
#[inline]
pub fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The sum of the IPv4 pseudo-header of a `len`-byte transport message (RFC 9293, 3.1).
#[inline]
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], proto: u8, len: u16) -> u16 {
    let (src, dst) = (u64::from(u32::from_be_bytes(src)), u64::from(u32::from_be_bytes(dst)));
    fold(src + dst + u64::from(proto) + u64::from(len))
}

/// The sum of the IPv6 pseudo-header of a `len`-byte transport message (RFC 8200, 8.1).
#[inline]
pub fn pseudo_v6(src: [u8; 16], dst: [u8; 16], proto: u8, len: u32) -> u16 {
    let addresses = add(sum(&src), sum(&dst));
    fold(u64::from(addresses) + u64::from(proto) + u64::from(len))
}

/// What replacing `old` by `new` adds to a sum; 0 when nothing changes. Both are big-endian numbers from the packet,
/// whose last byte lies at an odd distance from the start of what is summed.
#[inline]
pub fn diff(old: u128, new: u128) -> u16 {
    if old == new { 0 } else { add(!sum_of(old), sum_of(new)) }
}

/// The sum of the 16-bit words of a number.
#[inline]
fn sum_of(number: u128) -> u16 {
    let (high, low) = ((number >> 64) as u64, number as u64);
    let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    fold(halves(high) + halves(low))
}

/// The checksum after its data's sum grew by `diff` (RFC 1624, equation 3).
#[inline]
pub fn update(checksum: u16, diff: u16) -> u16 {
    !add(!checksum, diff)
}

/// The CRC32c of an SCTP packet whose checksum field is zero, as the four bytes that go into the field.
pub fn sctp(packet: &[u8]) -> [u8; 4] {
    crc32c::crc32c(packet).to_le_bytes()
}

/// Zeros to run a CRC over.
const ZEROS: [u8; 512] = [0; 512];

/// The bits of an SCTP packet's checksum field that change when the bits of `flips` change in the packet's first four
/// bytes, with `behind` bytes of packet after those. CRCs are linear: this takes neither the packet nor its checksum.
pub fn sctp_flips(flips: [u8; 4], behind: usize) -> [u8; 4] {
    // A register that starts at 0 gives the difference alone; the crate complements it on the way in and out.
    let mut crc = crc32c::crc32c_append(!0, &flips);
    let mut left = behind;
    while let Some(zeros) = ZEROS.get(..left.min(ZEROS.len())).filter(|zeros| !zeros.is_empty()) {
        crc = crc32c::crc32c_append(crc, zeros);
        left -= zeros.len();
    }
    (!crc).to_le_bytes()
}

/// The CRC32c of an SCTP packet, whatever its checksum field holds, as the four bytes that go there. `None` for less
/// than a common header.
pub fn sctp_of(packet: &[u8]) -> Option<[u8; 4]> {
    let (ports, rest) = packet.split_first_chunk::<8>()?;
    let (_, body) = rest.split_first_chunk::<4>()?;
    let crc = [&[0; 4], body].iter().fold(crc32c::crc32c(ports), |crc, part| crc32c::crc32c_append(crc, part));
    Some(crc.to_le_bytes())
}

/// Whether an SCTP packet carries the right CRC32c. False for less than a common header.
pub fn verify_sctp(packet: &[u8]) -> bool {
    sctp_of(packet).is_some_and(|crc| packet.get(8..12) == Some(&crc[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook way, word by word.
    fn slow_sum(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |acc, pair| {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            add(acc, word)
        })
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_0000_and_not_ffff() {
        // A checksum of 0xdd2f whose word 0x5555 becomes 0x3285.
        let diff = diff(0x5555, 0x3285);
        assert_eq!(update(0xdd2f, diff), 0x0000);
    }

    #[test]
    fn a_header_with_its_checksum_verifies() {
        let mut header = *b"\x45\x00\x00\x3c\x1c\x46\x40\x00\x40\x06\x00\x00\xac\x10\x0a\x63\xac\x10\x0a\x0c";
        assert_eq!(checksum(&header), 0xb1e6);
        header[10..12].copy_from_slice(&0xb1e6u16.to_be_bytes());
        assert!(verify(&header, 0));
        header[0] ^= 1;
        assert!(!verify(&header, 0));
    }

    #[test]
    fn replacing_bytes_by_the_same_bytes_changes_no_checksum() {
        assert_eq!(update(0xffff, diff(0x0102, 0x0102)), 0xffff);
        assert_eq!(update(0x0000, diff(0x0102, 0x0102)), 0x0000);
    }

    #[test]
    fn an_sctp_packet_verifies_until_a_bit_changes() {
        let mut packet = *b"\x0b\x59\x0b\x59\x00\x00\x0e\x50\x00\x00\x00\x00\x01\x02\x03\x04";
        let crc = sctp(&packet);
        packet[8..12].copy_from_slice(&crc);
        assert!(verify_sctp(&packet));
        packet[15] ^= 0x80;
        assert!(!verify_sctp(&packet));
        assert!(!verify_sctp(&packet[..11]));
    }

    #[test]
    fn crc32c_of_the_check_string_is_the_published_value() {
        assert_eq!(sctp(b"123456789"), 0xe306_9283u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_slow_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(sum(&bytes), slow_sum(&bytes));
        }

        #[test]
        fn pseudo_header_sums_equal_the_sum_over_their_bytes(
            v4 in any::<([u8; 4], [u8; 4])>(), v6 in any::<([u8; 16], [u8; 16])>(), proto: u8, len: u16
        ) {
            let mut bytes = [v4.0, v4.1].concat();
            bytes.extend([0, proto]);
            bytes.extend(len.to_be_bytes());
            prop_assert_eq!(pseudo_v4(v4.0, v4.1, proto, len), sum(&bytes));
            let mut bytes = [v6.0, v6.1].concat();
            bytes.extend(u32::from(len).to_be_bytes());
            bytes.extend([0, 0, 0, proto]);
            prop_assert_eq!(pseudo_v6(v6.0, v6.1, proto, len.into()), sum(&bytes));
        }

        #[test]
        fn an_updated_checksum_equals_a_new_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 26..60), at in 0usize..8, new: [u8; 16], len in 0..9usize
        ) {
            // A lone nonzero word keeps the sum off the one value that has two forms.
            bytes[24] = 1;
            let before = checksum(&bytes);
            let place = at / 2 * 2..at / 2 * 2 + len * 2;
            let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u128::from(*b));
            let diff = diff(number(&bytes[place.clone()]), number(&new[..len * 2]));
            bytes[place].copy_from_slice(&new[..len * 2]);
            prop_assert_eq!(update(before, diff), checksum(&bytes));
        }
    }
}
