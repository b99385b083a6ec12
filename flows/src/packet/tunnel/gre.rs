//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! Sequence numbers are taken and not looked at: what is late is delivered late. None are sent.

use super::header::{Inner, MAX_HEADER_LEN, Params, Payload, Refused};
use crate::packet::checksum;
use crate::packet::layers::{be16, be32};
use crate::tunnel::TunnelKey;

/// Length of the header without optional fields.
const BASE_LEN: usize = 4;
/// Length of each optional field.
const FIELD_LEN: usize = 4;
const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Source routing (RFC 1701) and the bits that RFC 2784 (2.2) has receivers refuse.
const ROUTING: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// Length of a header that is written.
pub(super) const fn len(keyed: bool, checksum: bool) -> usize {
    BASE_LEN + FIELD_LEN * (keyed as usize + checksum as usize)
}

#[inline]
pub(super) fn write(key: &TunnelKey, params: &Params<'_>, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
    let mut flags = 0;
    let mut len = BASE_LEN;
    if params.checksum {
        flags |= CHECKSUM;
        out[len..len + FIELD_LEN].fill(0);
        len += FIELD_LEN;
    }
    if params.keyed {
        flags |= KEY;
        out[len..len + FIELD_LEN].copy_from_slice(&(key.id() as u32).to_be_bytes());
        len += FIELD_LEN;
    }
    out[..2].copy_from_slice(&flags.to_be_bytes());
    out[2..4].copy_from_slice(&params.payload.eth_type().to_be_bytes());
    len
}

/// Writes the checksum of a header that has one, `pieces` being all that follows it; another header is left as it is.
pub fn fill<'a>(header: &mut [u8], pieces: impl IntoIterator<Item = &'a [u8]>) {
    if be16(header, 0) & CHECKSUM == 0 {
        return;
    }
    let Some(field) = header.get_mut(BASE_LEN..BASE_LEN + 2) else { return };
    field.fill(0);
    let (mut sum, mut odd) = (checksum::sum(header), header.len() % 2 == 1);
    for piece in pieces {
        let piece_sum = checksum::sum(piece);
        // A piece that starts at an odd place has its bytes in the other halves of the words (RFC 1071, 2.B).
        sum = checksum::add(sum, if odd { piece_sum.swap_bytes() } else { piece_sum });
        odd ^= piece.len() % 2 == 1;
    }
    header[BASE_LEN..BASE_LEN + 2].copy_from_slice(&(!sum).to_be_bytes());
}

#[inline]
pub(super) fn read(bytes: &[u8]) -> Result<Inner, Refused> {
    if bytes.len() < BASE_LEN {
        return Err(Refused::Truncated);
    }
    let flags = be16(bytes, 0);
    if flags & VERSION != 0 {
        return Err(Refused::Version);
    }
    if flags & ROUTING != 0 {
        return Err(Refused::Flags);
    }
    let payload = Payload::of_eth_type(be16(bytes, 2)).ok_or(Refused::Protocol)?;
    let has = |flag| flags & flag != 0;
    let key_at = BASE_LEN + if has(CHECKSUM) { FIELD_LEN } else { 0 };
    let end = key_at + FIELD_LEN * (usize::from(has(KEY)) + usize::from(has(SEQUENCE)));
    let mut inner = Inner::new(bytes, end, payload)?;
    if has(CHECKSUM) && !checksum::verify(bytes, 0) {
        return Err(Refused::Checksum);
    }
    if has(KEY) {
        inner.keyed = true;
        inner.key.set_id(be32(bytes, key_at).into());
    }
    Ok(inner)
}
