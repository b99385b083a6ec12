//! Reading `encap` and `decap`.

use super::unknown_key;
use crate::action::{Action, Encap, NshTlv, PacketType};
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::{Pair, Pairs, Word};
use crate::text::parse::value;

/// Longest value of an NSH metadata item, in bytes: a whole number of words below 128 (RFC 8300, 2.5.1).
const LONGEST_TLV: usize = 124;

/// `encap(ethernet|nsh|nsh(..)|mpls|mpls_mc)`.
pub(super) fn encap(key: Word<'_>, arg: Word<'_>) -> Result<Action, Fault> {
    const WANT: &str = "ethernet, nsh, nsh(..), mpls or mpls_mc";
    let mut pairs = Pairs::new(arg);
    let header = pairs.next().ok_or_else(|| key.fault(ErrorKind::MissingValue(WANT)))?;
    let plain = |encap| super::no_argument(&header).map(|()| encap);
    let encap = match header.key.text {
        "ethernet" => plain(Encap::Ethernet)?,
        "mpls" => plain(Encap::Mpls)?,
        "mpls_mc" => plain(Encap::MplsMulticast)?,
        "nsh" => nsh(header.value)?,
        _ => return Err(unknown_key(header.key, "encap", WANT, &["ethernet", "nsh", "mpls", "mpls_mc"])),
    };
    end(pairs)?;
    Ok(Action::Encap(encap))
}

/// Refuses what is left of `pairs`.
fn end(mut pairs: Pairs<'_>) -> Result<(), Fault> {
    pairs.next().map_or(Ok(()), |extra| Err(extra.key.fault(ErrorKind::UnexpectedValue)))
}

/// `[md_type=1|2][,tlv(CLASS,TYPE,VALUE)]..`
fn nsh(arg: Word<'_>) -> Result<Encap, Fault> {
    let (mut md_type, mut tlvs) = (None, Vec::new());
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "md_type" => match value::number_u8(pair.value, "md_type")? {
                given @ 1..=2 if md_type.is_none() => md_type = Some(given),
                1..=2 => return Err(pair.key.fault(ErrorKind::NotAllowed("md_type is given already"))),
                _ => return Err(pair.value.fault(ErrorKind::BadValue { what: "md_type", want: "1 or 2" })),
            },
            "tlv" => tlvs.push(tlv(pair.value)?),
            _ => return Err(unknown_key(pair.key, "nsh", "md_type= and tlv(..)", &["md_type", "tlv"])),
        }
    }
    Ok(Encap::Nsh { md_type, tlvs: tlvs.into() })
}

/// `0xCLASS,TYPE,0xVALUE`.
fn tlv(arg: Word<'_>) -> Result<NshTlv, Fault> {
    const WANT: &str = "0xCLASS,TYPE,0xVALUE with a type up to 255 and a value of 1 to 124 bytes";
    let bad = |word: Word<'_>| word.fault(ErrorKind::BadValue { what: "tlv", want: WANT });
    let (class, rest) = arg.split_once(",").ok_or_else(|| bad(arg))?;
    let (ty, value) = rest.split_once(",").ok_or_else(|| bad(arg))?;
    let (class, ty, value) = (class.trim(), ty.trim(), value.trim());
    if !class.text.starts_with("0x") {
        return Err(bad(class));
    }
    let digits = value.text.strip_prefix("0x").ok_or_else(|| bad(value))?;
    let bytes = super::bytes(value.part(2, value.text.len()), "tlv")?;
    if bytes.is_empty() || bytes.len() > LONGEST_TLV || digits.len() != 2 * bytes.len() {
        return Err(bad(value));
    }
    let ty = super::decimal(ty, "a type", u8::MAX.into())? as u8;
    Ok(NshTlv { class: value::number_u16(class, "a class")?, ty, value: bytes })
}

/// `decap`, `decap(packet_type(ns=NS,type=TYPE))`.
pub(super) fn decap(arg: Word<'_>) -> Result<Action, Fault> {
    let mut pairs = Pairs::new(arg);
    let Some(pair) = pairs.next() else {
        return Ok(Action::Decap(None));
    };
    if pair.key.text != "packet_type" {
        return Err(unknown_key(pair.key, "decap", "packet_type(ns=NS,type=TYPE)", &["packet_type"]));
    }
    end(pairs)?;
    let mut parts = Pairs::new(pair.value);
    let ns = part(&mut parts, &pair, "ns")?;
    // ONF's name space and that of EtherTypes are the only ones in which a packet can have a type here.
    let ns = match value::number_u16(ns, "ns")? {
        known @ 0..=1 => known,
        _ => return Err(ns.fault(ErrorKind::BadValue { what: "ns", want: "0 or 1" })),
    };
    let ty = value::number_u16(part(&mut parts, &pair, "type")?, "type")?;
    end(parts)?;
    Ok(Action::Decap(Some(PacketType { ns, ty })))
}

/// The value of the next pair, whose key must be `key`.
fn part<'a>(parts: &mut Pairs<'a>, whole: &Pair<'_>, key: &'static str) -> Result<Word<'a>, Fault> {
    match parts.next() {
        Some(pair) if pair.key.text == key => Ok(pair.value),
        Some(pair) => Err(unknown_key(pair.key, "packet_type", "ns=NS,type=TYPE", &[key])),
        None => Err(whole.value.end().fault(ErrorKind::MissingValue(key))),
    }
}
