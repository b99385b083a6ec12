//! The TLV map as text, as `ovs-ofctl add-tlv-map` has it: `{class=0x102,type=0x80,len=4}->tun_metadata0`, several of
//! them separated by commas.

use super::{TUN_OPTIONS, Tlv, TlvMap};
use std::fmt;
use std::str::FromStr;

/// What is wrong with the text of a TLV map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvMapError {
    /// Not the form that is wanted.
    #[error("`{0}` is not of the form {{class=0x102,type=0x80,len=4}}->tun_metadata0")]
    Form(String),
    /// Options of another length than four bytes cannot be matched.
    #[error("`{0}`: an option has four bytes here; say len=4")]
    Length(String),
    /// There are eight.
    #[error("`{0}`: there are tun_metadata0 to tun_metadata7")]
    Number(String),
    /// An option, or a field, is there already.
    #[error("`{0}`: the option, or the field, is mapped already; give each once")]
    Twice(String),
}

impl FromStr for TlvMap {
    type Err = TlvMapError;

    fn from_str(text: &str) -> Result<Self, TlvMapError> {
        let mut map = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let form = || TlvMapError::Form(rest.to_owned());
            let (fields, tail) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or_else(form)?;
            let tail = tail.strip_prefix("->tun_metadata").ok_or_else(form)?;
            let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let (number, tail) = tail.split_at(digits);
            let whole = &rest[..rest.len() - tail.len()];
            let tlv = tlv(fields, whole)?;
            let number = number.parse::<usize>().ok().filter(|n| *n < TUN_OPTIONS);
            let number = number.ok_or_else(|| TlvMapError::Number(whole.to_owned()))?;
            if map.number(tlv).is_some() || map.0[number].replace(tlv).is_some() {
                return Err(TlvMapError::Twice(whole.to_owned()));
            }
            rest = tail.trim_start();
            if let Some(more) = rest.strip_prefix(',').map(str::trim_start).filter(|more| !more.is_empty()) {
                rest = more;
            } else if !rest.is_empty() {
                return Err(TlvMapError::Form(rest.to_owned()));
            }
        }
        Ok(map)
    }
}

/// Reads `class=..,type=..,len=4`.
fn tlv(fields: &str, whole: &str) -> Result<Tlv, TlvMapError> {
    let form = || TlvMapError::Form(whole.to_owned());
    let (mut class, mut kind, mut len) = (None, None, None);
    for field in fields.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or_else(form)?;
        let number = match value.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16),
            None => value.parse(),
        };
        let place = match name {
            "class" => &mut class,
            "type" => &mut kind,
            "len" => &mut len,
            _ => return Err(form()),
        };
        *place = Some(number.map_err(|_| form())?);
    }
    let (Some(class), Some(kind), Some(len)) = (class, kind, len) else { return Err(form()) };
    if len != 4 {
        return Err(TlvMapError::Length(whole.to_owned()));
    }
    Ok(Tlv { class, kind: u8::try_from(kind).map_err(|_| form())? })
}

impl fmt::Display for TlvMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = self.0.iter().enumerate().filter_map(|(n, tlv)| Some((n, (*tlv)?)));
        for (i, (n, Tlv { class, kind })) in mapped.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{{class={class:#x},type={kind:#x},len=4}}->tun_metadata{n}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_reads_back_as_it_was_written() {
        for text in [
            "",
            "{class=0x102,type=0x80,len=4}->tun_metadata0",
            "{class=0x102,type=0x80,len=4}->tun_metadata1,{class=0x0,type=0x1,len=4}->tun_metadata7",
        ] {
            assert_eq!(text.parse::<TlvMap>().unwrap().to_string(), text);
        }
        let map: TlvMap = " {class=258, type=128, len=4}->tun_metadata3 ".parse().unwrap();
        assert_eq!(map.0[3], Some(Tlv { class: 0x102, kind: 0x80 }));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let error = |text: &str| text.parse::<TlvMap>().unwrap_err().to_string();
        assert!(error("{class=1,type=2,len=8}->tun_metadata0").contains("len=4"));
        assert!(error("{class=1,type=2,len=4}->tun_metadata8").contains("tun_metadata7"));
        assert!(error("{class=1,type=2,len=4}->tun_metadata0,{class=1,type=2,len=4}->tun_metadata1").contains("once"));
        assert!(error("{class=1,type=2,len=4}->tun_metadata0,{class=1,type=3,len=4}->tun_metadata0").contains("once"));
        for text in [
            "{",
            "{}",
            "{class=1,type=300,len=4}->tun_metadata0",
            "{class=1,type=2,len=4}",
            "x",
            "{class=1,type=2,len=4}->tun_metadata0 x",
        ] {
            assert!(error(text).contains("form"), "{text}");
        }
    }
}
