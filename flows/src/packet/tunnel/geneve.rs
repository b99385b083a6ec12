//! Geneve (RFC 8926), with options of four bytes each.

use super::header::{Inner, MAX_HEADER_LEN, Payload, Refused};
use crate::key::TUN_FLAG_OAM;
use crate::packet::layers::{be16, be32};
use crate::tunnel::{TUN_OPTIONS, Tlv, TlvMap, TunnelKey};

/// Length of the header without options.
pub(super) const BASE_LEN: usize = 8;
/// Length of an option's own header.
const OPTION_HEADER_LEN: usize = 4;
/// Length of an option with its header.
pub(super) const OPTION_LEN: usize = OPTION_HEADER_LEN + 4;
/// A control packet.
const OAM: u8 = 0x80;
/// There are options that must be understood.
const CRITICAL: u8 = 0x40;
/// The bit of an option's type that says it must be understood.
const CRITICAL_TYPE: u8 = 0x80;

#[inline]
pub(super) fn write(key: &TunnelKey, payload: Payload, tlvs: &TlvMap, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
    let mut flags = if key.flags() & TUN_FLAG_OAM != 0 { OAM } else { 0 };
    let mut len = BASE_LEN;
    let values = (0..TUN_OPTIONS as u8).map(|n| key.option(n));
    for (tlv, value) in tlvs.0.iter().zip(values) {
        let (Some(tlv), Some(value)) = (tlv, value) else { continue };
        let Some(option) = out.get_mut(len..len + OPTION_LEN) else { break };
        let [high, low] = tlv.class.to_be_bytes();
        option[..OPTION_HEADER_LEN].copy_from_slice(&[high, low, tlv.kind, 1]);
        option[OPTION_HEADER_LEN..].copy_from_slice(&value.to_be_bytes());
        if tlv.kind & CRITICAL_TYPE != 0 {
            flags |= CRITICAL;
        }
        len += OPTION_LEN;
    }
    out[0] = ((len - BASE_LEN) / 4) as u8;
    out[1] = flags;
    out[2..4].copy_from_slice(&payload.eth_type().to_be_bytes());
    out[4..8].copy_from_slice(&((key.id() as u32) << 8).to_be_bytes());
    len
}

#[inline]
pub(super) fn read(bytes: &[u8], tlvs: &TlvMap) -> Result<Inner, Refused> {
    let Some(&[first, flags, ..]) = bytes.first_chunk::<BASE_LEN>() else {
        return Err(Refused::Truncated);
    };
    if first >> 6 != 0 {
        return Err(Refused::Version);
    }
    let payload = Payload::of_eth_type(be16(bytes, 2)).ok_or(Refused::Protocol)?;
    let end = BASE_LEN + usize::from(first & 0x3f) * 4;
    let mut inner = Inner::new(bytes, end, payload)?;
    inner.keyed = true;
    inner.key.set_id(u64::from(be32(bytes, 4) >> 8));
    inner.key.set_flags(if flags & OAM != 0 { TUN_FLAG_OAM } else { 0 });
    options(bytes.get(BASE_LEN..end).unwrap_or_default(), tlvs, &mut inner.key)?;
    Ok(inner)
}

/// Reads options into `key`. Every turn takes at least an option's header off, which bounds it. Of an option that is
/// there twice, the last counts.
#[inline]
fn options(mut rest: &[u8], tlvs: &TlvMap, key: &mut TunnelKey) -> Result<(), Refused> {
    while !rest.is_empty() {
        let (header, behind) = rest.split_first_chunk::<OPTION_HEADER_LEN>().ok_or(Refused::Options)?;
        let len = usize::from(header[3] & 0x1f) * 4;
        let (value, behind) = behind.split_at_checked(len).ok_or(Refused::Options)?;
        rest = behind;
        let tlv = Tlv { class: be16(header, 0), kind: header[2] };
        match (tlvs.number(tlv), value) {
            (Some(n), &[a, b, c, d]) => key.set_option(n, u32::from_be_bytes([a, b, c, d])),
            (Some(_), _) => return Err(Refused::Options),
            (None, _) if tlv.kind & CRITICAL_TYPE != 0 => return Err(Refused::CriticalOption),
            (None, _) => {}
        }
    }
    Ok(())
}
