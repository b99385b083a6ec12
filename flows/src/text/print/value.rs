//! Printing values with their masks.

use crate::field::{Field, Format};
use crate::port::PortNo;
use crate::text::Names;
use crate::text::parse::{CT_FLAGS, FRAGS, TCP_FLAGS, TUN_FLAGS};
use std::fmt::{self, Display};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A number in hexadecimal with `0x`, or `0`.
pub(crate) fn hex(value: u128) -> impl Display {
    fmt::from_fn(move |f| if value == 0 { f.write_str("0") } else { write!(f, "{value:#x}") })
}

/// An Ethernet address.
pub(crate) fn mac(address: u64) -> impl Display {
    let [_, _, a, b, c, d, e, g] = address.to_be_bytes();
    fmt::from_fn(move |f| write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
}

/// An Ethernet address with its mask, if it is not all ones.
pub(crate) fn mac_masked(value: u128, mask: u128) -> impl Display {
    const WHOLE: u128 = 0xffff_ffff_ffff;
    fmt::from_fn(move |f| match mask & WHOLE {
        WHOLE => write!(f, "{}", mac(value as u64)),
        part => write!(f, "{}/{}", mac(value as u64), mac(part as u64)),
    })
}

/// The length of the prefix that `mask` is in `bits` bits, if it is one.
fn prefix_len(mask: u128, bits: u32) -> Option<u32> {
    let mask = mask << (128 - bits);
    let len = mask.leading_ones();
    (len == 128 || mask << len == 0).then_some(len)
}

/// An IPv4 address with its prefix length or mask, if it is not whole.
pub(crate) fn ipv4_masked(value: u128, mask: u128) -> impl Display {
    fmt::from_fn(move |f| {
        Ipv4Addr::from_bits(value as u32).fmt(f)?;
        let mask = mask & 0xffff_ffff;
        match prefix_len(mask, 32) {
            Some(32) => Ok(()),
            Some(len) => write!(f, "/{len}"),
            None => write!(f, "/{}", Ipv4Addr::from_bits(mask as u32)),
        }
    })
}

/// An IPv6 address as C's `inet_ntop` writes it: RFC 5952, and IPv4-compatible addresses with a dotted quad.
pub(crate) fn ipv6(value: u128) -> impl Display {
    fmt::from_fn(move |f| match (value >> 32, value >> 16) {
        (0, 1..) => write!(f, "::{}", Ipv4Addr::from_bits(value as u32)),
        _ => Ipv6Addr::from_bits(value).fmt(f),
    })
}

/// An IPv6 address with its prefix length or mask, if it is not whole.
pub(crate) fn ipv6_masked(value: u128, mask: u128) -> impl Display {
    fmt::from_fn(move |f| {
        ipv6(value).fmt(f)?;
        match prefix_len(mask, 128) {
            Some(128) => Ok(()),
            Some(len) => write!(f, "/{len}"),
            None => write!(f, "/{}", ipv6(mask)),
        }
    })
}

/// A port: its reserved name, its name, or its number.
pub(crate) fn port(no: PortNo, names: &Names) -> impl Display + '_ {
    fmt::from_fn(move |f| match names.port_name(no).filter(|_| no.reserved_name().is_none()) {
        Some(name) => name_or_quoted(name).fmt(f),
        None => no.fmt(f),
    })
}

/// A name; in quotes if it could be taken for something else.
pub(crate) fn name_or_quoted(name: &str) -> impl Display + '_ {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    fmt::from_fn(move |f| if plain { f.write_str(name) } else { write!(f, "\"{name}\"") })
}

/// A fragment state.
pub(crate) fn frag(value: u128, mask: u128) -> impl Display {
    let (value, mask) = ((value & mask & 3) as u8, (mask & 3) as u8);
    let name = FRAGS.iter().find(|(_, m, v)| (*m, *v) == (mask, value)).map_or("<error>", |(name, ..)| name);
    fmt::from_fn(move |f| f.write_str(name))
}

/// Flags with these names, from the least significant bit: all of them as `syn|ack`, some as `+syn-ack`.
pub(crate) fn flags(value: u128, mask: u128, names: &'static [&'static str]) -> impl Display {
    let all = (1 << names.len()) - 1;
    fmt::from_fn(move |f| {
        if mask & all != all {
            return signed_flags(f, value, mask, names);
        }
        let mut begun = false;
        for (_, name) in names.iter().enumerate().filter(|(bit, _)| value >> bit & 1 != 0) {
            write!(f, "{}{name}", if std::mem::replace(&mut begun, true) { "|" } else { "" })?;
        }
        if begun { Ok(()) } else { f.write_str("0") }
    })
}

/// Writes the flags in `mask` as `+syn-ack`.
fn signed_flags(f: &mut fmt::Formatter<'_>, value: u128, mask: u128, names: &[&str]) -> fmt::Result {
    let mut some = names.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0);
    some.try_for_each(|(bit, name)| write!(f, "{}{name}", if value >> bit & 1 != 0 { '+' } else { '-' }))
}

/// Tunnel flags: always as `+oam`, for that is how OVS prints them.
pub(crate) fn tunnel_flags(value: u128, mask: u128) -> impl Display {
    fmt::from_fn(move |f| signed_flags(f, value, mask, &TUN_FLAGS))
}

/// A packet type: name space and type.
pub(crate) fn packet_type(value: u32) -> impl Display {
    fmt::from_fn(move |f| match (value >> 16, value & 0xffff) {
        (1, ty) => write!(f, "(1,{ty:#x})"),
        (ns, ty) => write!(f, "({ns},{ty})"),
    })
}

/// A value of `field` as `set_field` prints it, with its mask if it is not whole.
pub(crate) fn of_field<'a>(field: Field, value: u128, mask: u128, names: &'a Names) -> impl Display + 'a {
    let whole = field.slot().max();
    let mask = mask & whole;
    fmt::from_fn(move |f| match field.info().format {
        _ if mask == 0 => f.write_str("*"),
        Format::Port if mask == whole => port(PortNo(value as u16), names).fmt(f),
        Format::Mac => mac_masked(value, mask).fmt(f),
        Format::Ipv4 => ipv4_masked(value, mask).fmt(f),
        Format::Ipv6 => ipv6_masked(value, mask).fmt(f),
        Format::Frag => frag(value, mask).fmt(f),
        Format::TcpFlags => flags(value, mask, &TCP_FLAGS).fmt(f),
        Format::CtState => flags(value, mask, &CT_FLAGS).fmt(f),
        Format::TunFlags => tunnel_flags(value, mask).fmt(f),
        Format::PacketType => packet_type(value as u32).fmt(f),
        _ => {
            if field.info().format == Format::Hex {
                hex(value).fmt(f)?;
            } else {
                value.fmt(f)?;
            }
            if mask == whole { Ok(()) } else { write!(f, "/{}", hex(mask)) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_written_as_inet_ntop_does() {
        for (value, text) in [
            (0, "::"),
            (1, "::1"),
            (0x1_0000, "::0.1.0.0"),
            (0x0102_0304, "::1.2.3.4"),
            (0xffff_0102_0304, "::ffff:1.2.3.4"),
            (0xfe80 << 112, "fe80::"),
            (0x2001_0db8_0000_0000_0001_0000_0000_0001, "2001:db8::1:0:0:1"),
        ] {
            assert_eq!(ipv6(value).to_string(), text);
        }
    }

    #[test]
    fn masks_that_are_prefixes_are_lengths() {
        assert_eq!(ipv4_masked(0x0a00_0000, 0xff00_0000).to_string(), "10.0.0.0/8");
        assert_eq!(ipv4_masked(0x0a00_0000, 0xff00_ff00).to_string(), "10.0.0.0/255.0.255.0");
        assert_eq!(ipv4_masked(0x0a00_0001, u128::MAX).to_string(), "10.0.0.1");
        assert_eq!(ipv6_masked(0, 1).to_string(), "::/::1");
        assert_eq!(ipv6_masked(0, 0).to_string(), "::/0");
    }
}
