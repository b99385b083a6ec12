//! Reading values: numbers, addresses, ports, flags, each with its mask where it takes one.

use super::error::{ErrorKind, Fault};
use super::suggest;
use super::token::Word;
use crate::field::{Field, Format, Maskable};
use crate::key::{FRAG_ANY, FRAG_LATER};
use crate::port::PortNo;
use crate::rule::TableId;
use crate::text::Names;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A value and the bits of it that count; a mask of [`u128::MAX`] means the whole field.
pub(crate) type Masked = (u128, u128);

/// Why a number could not be read.
enum NumberError {
    Syntax,
    Range,
}

/// Reads a number as C's `strtoull(.., 0)` does: decimal, `0x` hexadecimal, `0` octal, with a sign. Hexadecimal ones may
/// have up to 128 bits, others 64. A negative number counts down from 2^64.
fn number(text: &str) -> Result<u128, NumberError> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return digits_value(digits, 16, u128::MAX);
    }
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let max = u128::from(u64::MAX);
    let value = match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => digits_value(octal, 8, max)?,
        _ => digits_value(text, 10, max)?,
    };
    Ok(if negative { u128::from((value as u64).wrapping_neg()) } else { value })
}

fn digits_value(digits: &str, radix: u32, max: u128) -> Result<u128, NumberError> {
    /// Digits that fit into 64 bits in every base.
    const SHORT: usize = 16;
    let bytes = digits.as_bytes();
    if bytes.is_empty() || !bytes.iter().all(|b| char::from(*b).is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    if bytes.len() <= SHORT {
        let digit = |b: &u8| char::from(*b).to_digit(radix).unwrap_or(0);
        let value = bytes.iter().fold(0u64, |value, b| value * u64::from(radix) + u64::from(digit(b)));
        return if u128::from(value) <= max { Ok(value.into()) } else { Err(NumberError::Range) };
    }
    u128::from_str_radix(digits, radix).ok().filter(|v| *v <= max).ok_or(NumberError::Range)
}

/// Reads the number `word` of at most `max`, for `what`.
pub(crate) fn number_to(word: Word<'_>, what: &'static str, max: u128) -> Result<u128, Fault> {
    match number(word.text) {
        Ok(value) if value <= max => Ok(value),
        Err(NumberError::Syntax) if word.text.is_empty() => Err(word.fault(ErrorKind::MissingValue("a number"))),
        Err(NumberError::Syntax) => Err(word.fault(ErrorKind::BadValue { what, want: "a number, decimal or 0x" })),
        Ok(_) | Err(NumberError::Range) => Err(word.fault(ErrorKind::TooLarge { what, max })),
    }
}

/// Reads a 16-bit number.
pub(crate) fn number_u16(word: Word<'_>, what: &'static str) -> Result<u16, Fault> {
    number_to(word, what, u16::MAX.into()).map(|v| v as u16)
}

/// Reads an 8-bit number.
pub(crate) fn number_u8(word: Word<'_>, what: &'static str) -> Result<u8, Fault> {
    number_to(word, what, u8::MAX.into()).map(|v| v as u8)
}

/// Reads a 64-bit number; `-1` is all ones.
pub(crate) fn number_u64(word: Word<'_>, what: &'static str) -> Result<u64, Fault> {
    number_to(word, what, u64::MAX.into()).map(|v| v as u64)
}

/// Bits of the whole bytes that OpenFlow keeps `field` in: the widest number that may be written for it.
fn written_bits(field: Field) -> u32 {
    match field.width() {
        0..=8 => 8,
        9..=16 => 16,
        17..=32 => 32,
        33..=48 => 48,
        49..=64 => 64,
        _ => 128,
    }
}

/// The largest number that may be written for `field`.
pub(crate) fn written_max(field: Field) -> u128 {
    u128::MAX >> (128 - written_bits(field))
}

/// Reads a value of `field`, with a mask if there is one; `*` is any.
pub(crate) fn field_value(field: Field, word: Word<'_>, names: &Names) -> Result<Masked, Fault> {
    let info = field.info();
    if word.text == "*" {
        return Ok((0, 0));
    }
    let (value, mask) = match info.format {
        Format::Decimal | Format::Hex => integer(word, info.name, written_max(field))?,
        Format::Port => (port(word, names)?.0.into(), u128::MAX),
        Format::Mac => mac_masked(word, info.name)?,
        Format::Ipv4 => ipv4_masked(word, info.name)?,
        Format::Ipv6 => ipv6_masked(word, info.name)?,
        Format::Frag => frag(word)?,
        Format::TcpFlags => TCP.read(word)?,
        Format::CtState => CT.read(word)?,
        Format::TunFlags => TUN.read(word)?,
        Format::PacketType => packet_type(word)?,
    };
    if info.maskable == Maskable::Exact && mask != 0 && mask != u128::MAX {
        return Err(word.fault(ErrorKind::BadMask(info.name)));
    }
    Ok((value, mask))
}

/// Reads a number of at most `max`, with a mask if there is one; `*` is any.
pub(crate) fn integer(word: Word<'_>, what: &'static str, max: u128) -> Result<Masked, Fault> {
    if word.text == "*" {
        return Ok((0, 0));
    }
    let Some((value, mask)) = word.split_once("/") else {
        return Ok((number_to(word, what, max)?, u128::MAX));
    };
    let (value, mask) = (number_to(value, what, max)?, number_to(mask, what, max)?);
    Ok((value, if mask == max { u128::MAX } else { mask }))
}

/// Reads a port: a number, a reserved name, or a name that `names` knows, also in quotes.
pub(crate) fn port(word: Word<'_>, names: &Names) -> Result<PortNo, Fault> {
    /// What OpenFlow 1.1 adds to OpenFlow 1.0's reserved numbers.
    const OPENFLOW11_OFFSET: u32 = 0xffff_0000;
    let text = word.text;
    if let Ok(number) = text.parse::<u32>() {
        let low = if number >= OPENFLOW11_OFFSET + 0xff00 { number - OPENFLOW11_OFFSET } else { number };
        return match u16::try_from(low) {
            Ok(no) => Ok(PortNo(no)),
            Err(_) => Err(word.fault(ErrorKind::TooLarge { what: "a port", max: 0xffff })),
        };
    }
    if let Some(no) = PortNo::from_reserved_name(text).or_else(|| names.port(unquoted(text))) {
        return Ok(no);
    }
    Err(word.fault(ErrorKind::UnknownPort).suggest(suggest::nearest(text, suggest::port_words(names))))
}

/// Reads a table: a number or a name that `names` knows; `None` for 255, which stands for "none given".
pub(crate) fn table(word: Word<'_>, names: &Names) -> Result<Option<TableId>, Fault> {
    if let Ok(number) = word.text.parse::<u8>() {
        return Ok(TableId::new(number));
    }
    if let Some(table) = names.table(unquoted(word.text)) {
        return Ok(Some(table));
    }
    Err(word.fault(ErrorKind::UnknownTable).suggest(suggest::nearest(word.text, names.table_words())))
}

/// `text` without the quotes around it.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// Reads an Ethernet address without a mask.
pub(crate) fn mac(word: Word<'_>, what: &'static str) -> Result<u64, Fault> {
    let bad = || word.fault(ErrorKind::BadValue { what, want: "an Ethernet address such as 02:00:00:00:00:01" });
    let mut address = 0;
    let mut octets = 0;
    for octet in word.text.split(':') {
        if octet.is_empty() || octet.len() > 4 || !octet.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let value = u64::from_str_radix(octet, 16).ok().filter(|v| *v < 256).ok_or_else(bad)?;
        address = address << 8 | value;
        octets += 1;
    }
    if octets == 6 { Ok(address) } else { Err(bad()) }
}

fn mac_masked(word: Word<'_>, what: &'static str) -> Result<Masked, Fault> {
    match word.split_once("/") {
        None => Ok((mac(word, what)?.into(), u128::MAX)),
        Some((value, mask)) => Ok((mac(value, what)?.into(), whole_if(mac(mask, what)?.into(), 48))),
    }
}

/// `mask`, or [`u128::MAX`] if its low `bits` are all set.
fn whole_if(mask: u128, bits: u32) -> u128 {
    if mask == u128::MAX >> (128 - bits) { u128::MAX } else { mask }
}

/// The mask of a prefix of `len` of `bits` bits.
fn prefix_mask(len: u32, bits: u32) -> u128 {
    let ones = u128::MAX >> (128 - bits);
    ones & !(ones.checked_shr(len).unwrap_or(0))
}

const IPV4_WANT: &str = "an IPv4 address, with /PREFIX or /MASK if not whole";
const IPV6_WANT: &str = "an IPv6 address, with /PREFIX or /MASK if not whole";

/// Reads an IPv4 address without a mask. As in OVS, leading zeros do not make a number octal.
pub(crate) fn ipv4(word: Word<'_>, what: &'static str, want: &'static str) -> Result<u32, Fault> {
    let bad = || word.fault(ErrorKind::BadValue { what, want });
    let mut octets = [0; 4];
    let mut parts = word.text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| p.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
        *octet = part.parse::<u8>().map_err(|_| bad())?;
    }
    if parts.next().is_some() { Err(bad()) } else { Ok(Ipv4Addr::from(octets).to_bits()) }
}

fn ipv4_masked(word: Word<'_>, what: &'static str) -> Result<Masked, Fault> {
    let Some((address, mask)) = word.split_once("/") else {
        return Ok((ipv4(word, what, IPV4_WANT)?.into(), u128::MAX));
    };
    let value = ipv4(address, what, IPV4_WANT)?.into();
    let mask = match mask.text.contains('.') {
        true => u128::from(ipv4(mask, what, IPV4_WANT)?),
        false => prefix_mask(prefix_len(mask, "an IPv4 prefix", 32)?, 32),
    };
    Ok((value, whole_if(mask, 32)))
}

fn prefix_len(word: Word<'_>, what: &'static str, max: u32) -> Result<u32, Fault> {
    let bad = ErrorKind::BadValue { what, want: "a prefix length" };
    let len = word.text.parse::<u32>().map_err(|_| word.fault(bad))?;
    if len > max { Err(word.fault(ErrorKind::TooLarge { what, max: max.into() })) } else { Ok(len) }
}

fn ipv6(word: Word<'_>, what: &'static str) -> Result<u128, Fault> {
    let bad = |_| word.fault(ErrorKind::BadValue { what, want: IPV6_WANT });
    word.text.parse::<Ipv6Addr>().map(Ipv6Addr::to_bits).map_err(bad)
}

fn ipv6_masked(word: Word<'_>, what: &'static str) -> Result<Masked, Fault> {
    let Some((address, mask)) = word.split_once("/") else {
        return Ok((ipv6(word, what)?, u128::MAX));
    };
    let value = ipv6(address, what)?;
    let mask = match mask.text.contains(':') {
        true => ipv6(mask, what)?,
        false => prefix_mask(prefix_len(mask, "an IPv6 prefix", 128)?, 128),
    };
    Ok((value, mask))
}

/// Names of fragment states, with mask and value; the first that fits is what is printed.
pub(crate) const FRAGS: [(&str, u8, u8); 7] = [
    ("no", FRAG_ANY | FRAG_LATER, 0),
    ("first", FRAG_ANY | FRAG_LATER, FRAG_ANY),
    ("later", FRAG_ANY | FRAG_LATER, FRAG_ANY | FRAG_LATER),
    ("no", FRAG_ANY, 0),
    ("yes", FRAG_ANY, FRAG_ANY),
    ("not_later", FRAG_LATER, 0),
    ("later", FRAG_LATER, FRAG_LATER),
];

fn frag(word: Word<'_>) -> Result<Masked, Fault> {
    match FRAGS.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(word.text)) {
        Some((_, mask, value)) => Ok(((*value).into(), whole_if((*mask).into(), 2))),
        None => {
            let kind = ErrorKind::BadValue { what: "ip_frag", want: "no, yes, first, later or not_later" };
            Err(word.fault(kind).suggest(suggest::nearest(word.text, FRAGS.iter().map(|(name, ..)| *name))))
        }
    }
}

/// Names of the TCP flags, from the least significant bit.
pub(crate) const TCP_FLAGS: [&str; 12] =
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
/// Names of the flags of a connection's state, from the least significant bit.
pub(crate) const CT_FLAGS: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// Names of the flags of a tunnel, from the least significant bit.
pub(crate) const TUN_FLAGS: [&str; 1] = ["oam"];

/// How the flags of a field are written.
struct Flags {
    what: &'static str,
    names: &'static [&'static str],
    want: &'static str,
}

const TCP: Flags = Flags {
    what: "tcp_flags",
    names: &TCP_FLAGS,
    want: "+FLAG-FLAG.., FLAG|FLAG.. or VALUE/MASK, of fin syn rst psh ack urg ece cwr ns",
};
const CT: Flags = Flags {
    what: "ct_state",
    names: &CT_FLAGS,
    want: "+FLAG-FLAG.., FLAG|FLAG.. or VALUE/MASK, of new est rel rpl inv trk snat dnat",
};
const TUN: Flags = Flags { what: "tun_flags", names: &TUN_FLAGS, want: "+oam, -oam, oam or 0" };

impl Flags {
    fn all(&self) -> u128 {
        (1 << self.names.len()) - 1
    }

    fn flag(&self, word: Word<'_>) -> Result<u128, Fault> {
        match self.names.iter().position(|name| *name == word.text) {
            Some(bit) => Ok(1 << bit),
            None => {
                let kind = ErrorKind::BadValue { what: self.what, want: self.want };
                let named = self.names.iter().copied().filter(|name| !name.starts_with('['));
                Err(word.fault(kind).suggest(suggest::nearest(word.text, named)))
            }
        }
    }

    fn number(&self, word: Word<'_>) -> Result<u128, Fault> {
        number_to(word, self.what, self.all())
    }

    fn read(&self, word: Word<'_>) -> Result<Masked, Fault> {
        if word.text.starts_with(['+', '-']) {
            return self.signed(word);
        }
        if let Some((value, mask)) = word.split_once("/") {
            let mask = self.number(mask)?;
            return Ok((self.number(value)?, self.whole_if_all(mask)));
        }
        let mut value = 0;
        let mut rest = Some(word);
        while let Some(now) = rest {
            let (flag, next) = now.split_once("|").map_or((now, None), |(a, b)| (a, Some(b)));
            value |= match flag.text.starts_with(|c: char| c.is_ascii_digit()) {
                true => self.number(flag)?,
                false => self.flag(flag)?,
            };
            rest = next.filter(|w| !w.text.is_empty());
        }
        Ok((value, u128::MAX))
    }

    fn signed(&self, word: Word<'_>) -> Result<Masked, Fault> {
        let (mut value, mut mask, mut at) = (0, 0, 0);
        while at < word.text.len() {
            let set = word.text.as_bytes()[at] == b'+';
            let len = word.text[at + 1..].find(['+', '-']).unwrap_or(word.text.len() - at - 1);
            let name = word.part(at + 1, at + 1 + len);
            let bit = self.flag(name)?;
            if mask & bit != 0 {
                return Err(name.fault(ErrorKind::BadValue { what: self.what, want: "each flag once" }));
            }
            mask |= bit;
            value |= if set { bit } else { 0 };
            at += 1 + len;
        }
        Ok((value, self.whole_if_all(mask)))
    }

    fn whole_if_all(&self, mask: u128) -> u128 {
        if mask == self.all() { u128::MAX } else { mask }
    }
}

/// `(NS,TYPE)`: a name space and a type within it.
fn packet_type(word: Word<'_>) -> Result<Masked, Fault> {
    let bad = || word.fault(ErrorKind::BadValue { what: "packet_type", want: "(NAMESPACE,TYPE), such as (1,0x894f)" });
    let inner = word.text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(bad)?;
    let (ns, ty) = inner.split_once(',').ok_or_else(bad)?;
    let part = |text: &str| number(text.trim()).ok().filter(|n| *n <= 0xffff).ok_or_else(bad);
    Ok((part(ns)? << 16 | part(ty)?, u128::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(field: Field, text: &str) -> Option<Masked> {
        field_value(field, Word::whole(text), Names::NONE).ok()
    }

    #[test]
    fn numbers_are_read_in_three_bases() {
        assert_eq!(masked(Field::Reg0, "10"), Some((10, u128::MAX)));
        assert_eq!(masked(Field::Reg0, "010"), Some((8, u128::MAX)));
        assert_eq!(masked(Field::Reg0, "0x10/0xff"), Some((16, 0xff)));
        assert_eq!(masked(Field::Reg0, "1/0xffffffff"), Some((1, u128::MAX)));
        assert_eq!(masked(Field::Metadata, "-1"), Some((u64::MAX.into(), u128::MAX)));
        for bad in ["", "0x", "08", "1/", "/1", "-1", "0x1ffffffff", "1.5", "a", "1 "] {
            assert_eq!(masked(Field::Reg0, bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_take_prefixes_and_masks() {
        assert_eq!(masked(Field::IpSrc, "10.0.0.1/8"), Some((0x0a00_0001, 0xff00_0000)));
        assert_eq!(masked(Field::IpSrc, "10.0.0.1/255.0.255.0"), Some((0x0a00_0001, 0xff00_ff00)));
        assert_eq!(masked(Field::IpSrc, "10.0.0.1/32"), Some((0x0a00_0001, u128::MAX)));
        assert_eq!(masked(Field::IpSrc, "10.0.0.1/0"), Some((0x0a00_0001, 0)));
        assert_eq!(masked(Field::Ipv6Src, "::1/128"), Some((1, u128::MAX)));
        assert_eq!(masked(Field::Ipv6Src, "fe80::/10"), Some((0xfe80 << 112, 0xffc0 << 112)));
        assert_eq!(masked(Field::EthSrc, "1:2:3:4:5:6"), Some((0x0102_0304_0506, u128::MAX)));
        let multicast = "01:00:00:00:00:00/01:00:00:00:00:00";
        assert_eq!(masked(Field::EthDst, multicast), Some((1 << 40, 1 << 40)));
        for bad in ["10.0.0", "10.0.0.256", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1.2", "10.0.0.+1"] {
            assert_eq!(masked(Field::IpSrc, bad), None, "{bad}");
        }
    }

    #[test]
    fn tcp_flags_are_signed_or_listed_or_numbers() {
        assert_eq!(masked(Field::TcpFlags, "+syn-ack"), Some((2, 0x12)));
        assert_eq!(masked(Field::TcpFlags, "syn|ack"), Some((0x12, u128::MAX)));
        assert_eq!(masked(Field::TcpFlags, "0x12"), Some((0x12, u128::MAX)));
        assert_eq!(masked(Field::TcpFlags, "0x2/0x2"), Some((2, 2)));
        assert_eq!(masked(Field::TcpFlags, "+[200]"), Some((0x200, 0x200)));
        for bad in ["+syn+syn", "+", "+foo", "0x1000", "syn,", ""] {
            assert_eq!(masked(Field::TcpFlags, bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_are_decimal_reserved_or_named() {
        let mut names = Names::new();
        names.add_port(PortNo(7), "eth7");
        let read = |text| port(Word::whole(text), &names).ok();
        assert_eq!(read("7"), Some(PortNo(7)));
        assert_eq!(read("local"), Some(PortNo::LOCAL));
        assert_eq!(read("4294967294"), Some(PortNo::LOCAL));
        assert_eq!(read("eth7"), Some(PortNo(7)));
        assert_eq!(read("\"eth7\""), Some(PortNo(7)));
        for bad in ["0x7", "65536", "-1", "eth8", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
