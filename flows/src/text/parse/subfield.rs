//! Reading subfields: `reg0[0..7]`, `NXM_OF_ETH_DST[]`, `tcp_dst`.

use super::error::{ErrorKind, Fault};
use super::suggest;
use super::token::Word;
use crate::action::Subfield;
use crate::field::{FIELDS, Field};

/// The field that `word` names, by its name or an alias. NXM and OXM names are for subfields only.
pub(crate) fn field_named(word: &str) -> Option<Field> {
    super::words::field(word)
}

/// The field that `word` names in a subfield: NXM and OXM names count, in upper case, with or without `_W`.
fn field_in_subfield(word: &str) -> Option<Field> {
    let nxm = word.strip_suffix("_W").filter(|w| !w.is_empty()).unwrap_or(word);
    FIELDS.iter().find(|info| info.nxm.contains(&nxm)).map(|info| info.field).or_else(|| field_named(word))
}

/// Reads all of `word` as a subfield; without brackets it is the whole field.
pub(crate) fn read(word: Word<'_>) -> Result<Subfield, Fault> {
    let (name, bits) = match word.text.find('[') {
        Some(i) => (word.part(0, i), Some(word.part(i, word.text.len()))),
        None => (word, None),
    };
    let field = field_in_subfield(name.text).ok_or_else(|| suggest::unknown_field(name))?;
    let Some(bits) = bits else {
        return Ok(Subfield::whole(field));
    };
    let last = field.width() - 1;
    let bad = || bits.fault(ErrorKind::BadBits { field: field.info().name, last });
    let inner = bits.text.strip_prefix('[').and_then(|b| b.strip_suffix(']')).ok_or_else(bad)?;
    if inner.is_empty() {
        return Ok(Subfield::whole(field));
    }
    let (start, end) = inner.split_once("..").unwrap_or((inner, inner));
    let bit = |text: &str| text.trim().parse::<u8>().ok().filter(|n| *n <= last);
    match (bit(start), bit(end)) {
        (Some(start), Some(end)) if start <= end => Ok(Subfield { field, ofs: start, bits: end - start + 1 }),
        _ => Err(bad()),
    }
}

/// As [`read`], for a place that has room for the short names of OpenFlow's fields only: not for experimenters' fields,
/// whose names are long on the wire.
pub(crate) fn read_short(word: Word<'_>) -> Result<Subfield, Fault> {
    const LONG: [&str; 3] = ["NXOXM_", "ONFOXM_", "ERICOXM_"];
    let part = read(word)?;
    let name = part.field.info().nxm.first();
    match name.is_none_or(|name| LONG.iter().any(|experimenter| name.starts_with(experimenter))) {
        true => Err(word.fault(ErrorKind::NotAllowed("an experimenter's field, which OpenFlow has no room for here"))),
        false => Ok(part),
    }
}
