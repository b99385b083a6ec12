//! Reading `ct(..)` and what stands within it.

use super::{Reader, decimal, no_argument, unknown_key, verify, whole};
use crate::action::{Action, Ct, CtAlg, CtZone, Nat, NatChoice, NatDirection};
use crate::consistency::Place;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::{Pairs, Word};
use crate::text::parse::{subfield, suggest, value};
use std::net::{IpAddr, Ipv6Addr};

const KEYS: [&str; 7] = ["commit", "force", "zone", "table", "nat", "alg", "exec"];

/// What is read of a `ct(..)`, and where that was written which only the end decides.
#[derive(Default)]
struct Reading<'a> {
    ct: Ct,
    exec: Vec<Action>,
    force: Option<Word<'a>>,
    needs_commit: Option<Word<'a>>,
}

/// `ct([commit,][force,][zone=..,][table=..,][nat..,][alg=..,][exec(..)])`.
pub(super) fn ct(reader: Reader<'_>, arg: Word<'_>) -> Result<Action, Fault> {
    let mut reading = Reading::default();
    for pair in Pairs::new(arg) {
        let at = pair.value;
        match pair.key.text {
            "commit" => {
                no_argument(&pair)?;
                reading.ct.commit = true;
            }
            "force" => {
                no_argument(&pair)?;
                reading.force = Some(pair.key);
            }
            "zone" => reading.ct.zone = zone(at)?,
            "table" => {
                let table = value::table(at, reader.names)?;
                reading.ct.table = Some(table.ok_or_else(|| at.fault(ErrorKind::UnknownTable))?);
            }
            "alg" => reading.ct.alg = Some(alg(at)?),
            "nat" => reading.nat(pair.key, at)?,
            "exec" => exec(reader, &mut reading, pair.key, at)?,
            _ => {
                let want = "commit, force, zone=, table=, nat, alg= and exec(..)";
                return Err(unknown_key(pair.key, "ct", want, &KEYS));
            }
        }
    }
    if let Some(word) = reading.force.or(reading.needs_commit).filter(|_| !reading.ct.commit) {
        return Err(word.fault(ErrorKind::NotAllowed("it needs commit beside it")));
    }
    let force = reading.force.is_some();
    Ok(Action::Ct(Box::new(Ct { force, exec: reading.exec.into(), ..reading.ct })))
}

impl<'a> Reading<'a> {
    fn nat(&mut self, key: Word<'a>, arg: Word<'_>) -> Result<(), Fault> {
        if self.ct.nat.is_some() {
            return Err(key.fault(ErrorKind::NotAllowed("nat is given already")));
        }
        let nat = nat(arg)?;
        if nat.direction.is_some() {
            self.needs_commit.get_or_insert(key);
        }
        self.ct.nat = Some(nat);
        Ok(())
    }
}

/// `exec(..)`: sets of mark and label; as in OVS, `nat` may stand among them and means what it means outside.
fn exec<'a>(reader: Reader<'_>, reading: &mut Reading<'a>, key: Word<'a>, arg: Word<'a>) -> Result<(), Fault> {
    let (mut actions, mut ranges) = (Vec::new(), Vec::new());
    for pair in Pairs::new(arg) {
        match pair.key.text.to_ascii_lowercase().as_str() {
            "nat" => reading.nat(pair.key, pair.value)?,
            "drop" => no_argument(&pair)?,
            // Nothing that has a list of its own may stand here, so that no more than one level is read.
            "set_field" | "load" | "move" => {
                actions.push(reader.action(&pair)?);
                ranges.push(whole(&pair, arg));
            }
            _ => {
                let want = "set_field, load and move to ct_mark and ct_label";
                return Err(unknown_key(pair.key, "exec", want, &["set_field", "load", "move"]));
            }
        }
    }
    verify(&actions, &ranges, arg, Place::Ct)?;
    if !actions.is_empty() {
        reading.needs_commit.get_or_insert(key);
    }
    reading.exec.extend(actions);
    Ok(())
}

/// A number, or 16 bits of a field.
fn zone(word: Word<'_>) -> Result<CtZone, Fault> {
    if word.text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) || word.text.is_empty() {
        return value::number_u16(word, "zone").map(CtZone::Number);
    }
    let src = subfield::read(word)?;
    if src.bits != 16 {
        let want = "a number, or 16 bits of a field such as reg0[0..15]";
        return Err(word.fault(ErrorKind::BadValue { what: "zone", want }));
    }
    Ok(CtZone::Field(src))
}

fn alg(word: Word<'_>) -> Result<CtAlg, Fault> {
    match word.text {
        "ftp" => Ok(CtAlg::Ftp),
        "tftp" => Ok(CtAlg::Tftp),
        _ => {
            let kind = ErrorKind::BadValue { what: "alg", want: "ftp or tftp" };
            Err(word.fault(kind).suggest(suggest::nearest(word.text, ["ftp", "tftp"])))
        }
    }
}

/// `nat`, `nat(src|dst[=RANGE][,persistent][,hash|random])`.
fn nat(arg: Word<'_>) -> Result<Nat, Fault> {
    let mut nat = Nat::default();
    let mut flag = None;
    for pair in Pairs::new(arg) {
        match pair.key.text {
            side @ ("src" | "dst") => {
                if nat.direction.is_some() {
                    return Err(pair.key.fault(ErrorKind::NotAllowed("nat translates one side: src or dst, once")));
                }
                nat.direction = Some(if side == "src" { NatDirection::Src } else { NatDirection::Dst });
                if !pair.value.text.is_empty() {
                    range(pair.value, &mut nat)?;
                }
            }
            "persistent" => {
                no_argument(&pair)?;
                nat.persistent = true;
                flag.get_or_insert(pair.key);
            }
            word @ ("hash" | "random") => {
                no_argument(&pair)?;
                let choice = if word == "hash" { NatChoice::Hash } else { NatChoice::Random };
                if ![NatChoice::Any, choice].contains(&nat.choice) {
                    return Err(pair.key.fault(ErrorKind::NotAllowed("hash and random exclude each other")));
                }
                nat.choice = choice;
                flag.get_or_insert(pair.key);
            }
            _ => {
                let keys = ["src", "dst", "persistent", "hash", "random"];
                return Err(unknown_key(pair.key, "nat", "src=, dst=, persistent, hash or random", &keys));
            }
        }
    }
    match flag {
        Some(word) if nat.direction.is_none() => {
            Err(word.fault(ErrorKind::NotAllowed("it needs src or dst beside it")))
        }
        _ => Ok(nat),
    }
}

const WANT: &str = "ADDRESS[-ADDRESS][:PORT[-PORT]], from lower to higher; IPv6 addresses with ports in [ ]";

/// `ADDRESS[-ADDRESS][:PORT[-PORT]]`.
fn range(word: Word<'_>, nat: &mut Nat) -> Result<(), Fault> {
    let bad = |word: Word<'_>| word.fault(ErrorKind::BadValue { what: "nat", want: WANT });
    let (first, rest) = address(word)?;
    let (last, rest) = match rest.text.strip_prefix('-') {
        Some(_) => address(rest.part(1, rest.text.len()))?,
        None => (first, rest),
    };
    let one_family = first.is_ipv4() == last.is_ipv4();
    if !one_family || last < first || first.is_unspecified() && last != first {
        return Err(bad(word));
    }
    nat.addresses = Some((first, last));
    if rest.text.is_empty() {
        return Ok(());
    }
    let ports = rest.text.strip_prefix(':').map(|_| rest.part(1, rest.text.len())).ok_or_else(|| bad(rest))?;
    let (low, high) = ports.split_once("-").unwrap_or((ports, ports));
    let (low_port, high_port) = (port(low)?, port(high)?);
    if high_port < low_port {
        return Err(bad(ports));
    }
    nat.ports = Some((low_port, high_port));
    Ok(())
}

fn port(word: Word<'_>) -> Result<u16, Fault> {
    match decimal(word, "a port", 0xffff) {
        Ok(port @ 1..) => Ok(port as u16),
        _ => Err(word.fault(ErrorKind::BadValue { what: "nat", want: "ports from 1 to 65535" })),
    }
}

/// The address that `word` begins with, and what is left.
fn address(word: Word<'_>) -> Result<(IpAddr, Word<'_>), Fault> {
    let bad = || word.fault(ErrorKind::BadValue { what: "nat", want: WANT });
    if let Some(inner) = word.text.strip_prefix('[') {
        let (address, rest) = inner.split_once(']').ok_or_else(bad)?;
        let address = address.parse::<Ipv6Addr>().map_err(|_| bad())?;
        return Ok((address.into(), word.part(word.text.len() - rest.len(), word.text.len())));
    }
    let v6_len = word.text.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.').unwrap_or(word.text.len());
    let v4_len = word.text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.text.len());
    // An IPv4 address may have `:PORT` behind it, an IPv6 address only in brackets.
    if word.text[..v4_len].contains('.') {
        let text = word.part(0, v4_len);
        let address = value::ipv4(text, "nat", WANT)?;
        return Ok((IpAddr::V4(address.into()), word.part(v4_len, word.text.len())));
    }
    let address = word.text[..v6_len].parse::<Ipv6Addr>().map_err(|_| bad())?;
    Ok((address.into(), word.part(v6_len, word.text.len())))
}
