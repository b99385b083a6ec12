//! Actions that read or change fields of a packet, named as subfields.

use super::arrow;
use crate::action::{Action, Subfield};
use crate::field::Field;
use crate::key::VLAN_PRESENT;
use crate::text::Names;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::Word;
use crate::text::parse::{subfield, suggest, value};

/// `set_field:VALUE[/MASK]->FIELD`.
pub(super) fn set_field(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let (text, name) = arrow(arg)?;
    if name.text == "dl_vlan" {
        return Err(name.fault(ErrorKind::NotAllowed("write mod_vlan_vid:VID or set_field:0x1000+VID->vlan_vid")));
    }
    let field = subfield::field_named(name.text).ok_or_else(|| suggest::unknown_field(name))?;
    let info = field.info();
    writable(name, field)?;
    let (mut value, mask) = value::field_value(field, text, names)?;
    let max = largest(field);
    if value > max {
        return Err(text.fault(ErrorKind::TooLarge { what: info.name, max }));
    }
    if field == Field::NwTos && value & 3 != 0 {
        return Err(text.fault(ErrorKind::BadValue { what: "nw_tos", want: "a multiple of 4 up to 252" }));
    }
    if field == Field::VlanVid {
        if mask & max != max {
            return Err(text.fault(ErrorKind::BadMask("vlan_vid")));
        }
        value |= u128::from(VLAN_PRESENT);
    }
    let whole = field.slot().max();
    let mask = if mask & whole == whole { u128::MAX } else { mask & whole };
    Ok(Action::SetField { field, value: value & mask, mask })
}

/// The largest value that `field` is set to.
fn largest(field: Field) -> u128 {
    match field {
        Field::VlanVid => 0x1fff,
        // RFC 8300, 2.2: six bits.
        Field::NshTtl => 63,
        _ => field.slot().max(),
    }
}

/// `load:VALUE->FIELD[..]`.
pub(super) fn load(arg: Word<'_>) -> Result<Action, Fault> {
    let (text, name) = arrow(arg)?;
    let dst = subfield::read(name)?;
    let value = value::number_to(text, dst.field.info().name, dst.mask() >> dst.ofs)?;
    writable(name, dst.field)?;
    Ok(Action::Load { value, dst })
}

/// `move:FIELD[..]->FIELD[..]`.
pub(super) fn move_bits(arg: Word<'_>) -> Result<Action, Fault> {
    let (src, dst) = both_ends(arg)?;
    Ok(Action::Move { src, dst })
}

/// Two subfields of one width, of which the second can be written.
pub(super) fn both_ends(arg: Word<'_>) -> Result<(Subfield, Subfield), Fault> {
    let (from, to) = arrow(arg)?;
    let (src, dst) = (subfield::read(from)?, subfield::read(to)?);
    if src.bits != dst.bits {
        return Err(arg.fault(ErrorKind::WidthMismatch { src: src.bits, dst: dst.bits }));
    }
    writable(to, dst.field)?;
    Ok((src, dst))
}

/// `push:FIELD[..]`.
pub(super) fn push(arg: Word<'_>) -> Result<Action, Fault> {
    Ok(Action::Push(subfield::read(arg)?))
}

/// `pop:FIELD[..]`.
pub(super) fn pop(arg: Word<'_>) -> Result<Action, Fault> {
    let dst = subfield::read(arg)?;
    writable(arg, dst.field)?;
    Ok(Action::Pop(dst))
}

/// Refuses a field that no action changes.
pub(super) fn writable(word: Word<'_>, field: Field) -> Result<(), Fault> {
    let info = field.info();
    if info.writable { Ok(()) } else { Err(word.fault(ErrorKind::ReadOnly(info.name))) }
}

/// A subfield of one bit that can be written, for `what`.
pub(super) fn bit(word: Word<'_>, what: &'static str) -> Result<Subfield, Fault> {
    let dst = subfield::read(word)?;
    writable(word, dst.field)?;
    if dst.bits != 1 {
        return Err(word.fault(ErrorKind::BadValue { what, want: "one bit, such as reg0[0]" }));
    }
    Ok(dst)
}

/// `delete_field:tun_metadataN`.
pub(super) fn delete_field(arg: Word<'_>) -> Result<Action, Fault> {
    let field = Field::from_name(arg.text).ok_or_else(|| suggest::unknown_field(arg))?;
    if !(Field::TunMetadata0..=Field::TunMetadata7).contains(&field) {
        let want = "a Geneve option, tun_metadata0 to tun_metadata7: nothing else can be deleted";
        return Err(arg.fault(ErrorKind::BadValue { what: "delete_field", want }));
    }
    Ok(Action::DeleteField(field))
}

/// `check_pkt_larger(LEN)->FIELD[BIT]`.
pub(super) fn check_pkt_larger(arg: Word<'_>) -> Result<Action, Fault> {
    let (text, name) = arrow(arg)?;
    let digits = text.text.strip_suffix(')').map_or(text.text.len(), str::len);
    let len = value::number_u16(text.part(0, digits), "check_pkt_larger")?;
    Ok(Action::CheckPktLarger { len, dst: bit(name, "check_pkt_larger")? })
}

/// `write_metadata:VALUE[/MASK]`.
pub(super) fn write_metadata(arg: Word<'_>) -> Result<Action, Fault> {
    let (value, mask) = arg.split_once("/").map_or((arg, None), |(value, mask)| (value, Some(mask)));
    let value = value::number_u64(value, "write_metadata")?;
    let mask = mask.map_or(Ok(u64::MAX), |mask| value::number_u64(mask, "write_metadata"))?;
    Ok(Action::WriteMetadata { value, mask })
}
