//! VXLAN (RFC 7348) with group-based policy (draft-smith-vxlan-group-policy).
//!
//! As in Linux: a flag that is not known is refused, although the RFC has receivers ignore it, because it may say that
//! what follows is something else; and group policy is there only when it has something to say.

use super::header::{Inner, MAX_HEADER_LEN, Payload, Refused};
use crate::packet::layers::be32;
use crate::tunnel::TunnelKey;

/// Length of the header.
pub(super) const LEN: usize = 8;
/// There is a VNI.
const VNI: u32 = 1 << 27;
/// There is group policy.
const POLICY: u32 = 1 << 31;
/// What belongs to group policy when there is one: flags, reserved bits and the identifier.
const POLICY_BITS: u32 = POLICY | 0x00ff_ffff;
/// The flags of group policy: do not learn the source, and policy was applied.
const POLICY_FLAGS: u8 = 0x48;

#[inline]
pub(super) fn write(key: &TunnelKey, gbp: bool, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
    let (group, flags) = key.gbp();
    let flags = flags & POLICY_FLAGS;
    let policy = if gbp && (group, flags) != (0, 0) { POLICY | u32::from(flags) << 16 | u32::from(group) } else { 0 };
    let vni = (key.id() as u32) << 8;
    out[..4].copy_from_slice(&(VNI | policy).to_be_bytes());
    out[4..LEN].copy_from_slice(&vni.to_be_bytes());
    LEN
}

#[inline]
pub(super) fn read(bytes: &[u8]) -> Result<Inner, Refused> {
    let mut inner = Inner::new(bytes, LEN, Payload::Ethernet)?;
    let (flags, vni) = (be32(bytes, 0), be32(bytes, 4));
    inner.gbp = flags & POLICY != 0;
    let rest = if inner.gbp { flags & !POLICY_BITS } else { flags };
    if rest != VNI || vni & 0xff != 0 {
        return Err(Refused::Flags);
    }
    if inner.gbp {
        inner.key.set_gbp(flags as u16, (flags >> 16) as u8 & POLICY_FLAGS);
    }
    inner.keyed = true;
    inner.key.set_id(u64::from(vni >> 8));
    Ok(inner)
}
