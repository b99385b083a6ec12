//! Actions that choose by a hash: `bundle`, `bundle_load`, `multipath`.

use super::{decimal, decimal_u16, words};
use crate::action::{Action, Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm, Subfield};
use crate::port::PortNo;
use crate::text::Names;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::Word;
use crate::text::parse::{subfield, suggest, value};

/// How many members a bundle may have.
const MOST_MEMBERS: usize = 2048;
/// How many links there may be.
const MOST_LINKS: u32 = 1 << 16;

/// Words for the ways in which `bundle` chooses.
pub(crate) const BUNDLE_ALGORITHMS: [(&str, BundleAlgorithm); 2] =
    [("active_backup", BundleAlgorithm::ActiveBackup), ("hrw", BundleAlgorithm::Hrw)];

/// Words for the ways in which `multipath` chooses.
pub(crate) const MULTIPATH_ALGORITHMS: [(&str, MultipathAlgorithm); 4] = [
    ("modulo_n", MultipathAlgorithm::ModuloN),
    ("hash_threshold", MultipathAlgorithm::HashThreshold),
    ("hrw", MultipathAlgorithm::Hrw),
    ("iter_hash", MultipathAlgorithm::IterHash),
];

/// What `word` means of `known`.
fn one_of<T: Copy>(
    word: Word<'_>,
    known: impl IntoIterator<Item = (&'static str, T)> + Clone,
    what: &'static str,
    want: &'static str,
) -> Result<T, Fault> {
    match known.clone().into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word.text)) {
        Some((_, meaning)) => Ok(meaning),
        None => {
            let names = known.into_iter().map(|(name, _)| name);
            Err(word.fault(ErrorKind::BadValue { what, want }).suggest(suggest::nearest(word.text, names)))
        }
    }
}

fn hash_fields(word: Word<'_>) -> Result<HashFields, Fault> {
    let want = "eth_src, nw_src, nw_dst, symmetric_l3, symmetric_l3l4, symmetric_l3l4+udp or symmetric_l4";
    one_of(word, HashFields::NAMES.map(|(fields, name)| (name, fields)), "the fields to hash", want)
}

/// The next of `words`, or the fault that it is missing.
fn next<'a>(words: &mut impl Iterator<Item = Word<'a>>, arg: Word<'_>, want: &'static str) -> Result<Word<'a>, Fault> {
    words.next().ok_or_else(|| arg.end().fault(ErrorKind::MissingValue(want)))
}

/// A subfield that holds a number up to `most`.
fn place_for(word: Word<'_>, most: u32) -> Result<Subfield, Fault> {
    let dst = subfield::read_short(word)?;
    super::fields::writable(word, dst.field)?;
    if dst.bits < 32 && most >> dst.bits != 0 {
        return Err(word.fault(ErrorKind::TooNarrow { bits: dst.bits, most }));
    }
    Ok(dst)
}

/// `bundle(FIELDS,BASIS,ALGORITHM,ofport,members:..)`; with `load`, `bundle_load(..,ofport,DST,members:..)`.
pub(super) fn bundle(arg: Word<'_>, names: &Names, load: bool) -> Result<Action, Fault> {
    let mut rest = words(arg);
    let fields = hash_fields(next(&mut rest, arg, "the fields to hash")?)?;
    let basis = decimal_u16(next(&mut rest, arg, "the basis of the hash")?, "the basis of the hash")?;
    let algorithm = next(&mut rest, arg, "active_backup or hrw")?;
    let algorithm = one_of(algorithm, BUNDLE_ALGORITHMS, "how to choose", "active_backup or hrw")?;
    one_of(next(&mut rest, arg, "ofport")?, [("ofport", ())], "the kind of members", "ofport")?;
    let dst = match load {
        true => Some(place_for(next(&mut rest, arg, "a field for the port's number")?, u16::MAX.into())?),
        false => None,
    };
    let first = next(&mut rest, arg, "members:PORT,..")?;
    let (word, first) = first.split_once(":").unwrap_or((first, first.end()));
    one_of(word, [("members", ()), ("slaves", ())], "bundle", "members:PORT,..")?;
    let mut members = Vec::new();
    for word in std::iter::once(first).chain(rest) {
        let word = word.part(word.text.len() - word.text.trim_start_matches('[').len(), word.text.len());
        let word = word.part(0, word.text.trim_end_matches(']').len());
        if word.text.is_empty() {
            continue;
        }
        members.push(member(word, names)?);
        if members.len() > MOST_MEMBERS {
            return Err(word.fault(ErrorKind::BadValue { what: "bundle", want: "at most 2048 members" }));
        }
    }
    Ok(Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members: members.into(), dst })))
}

/// A port that may be a member; none stands for one that is never up.
fn member(word: Word<'_>, names: &Names) -> Result<PortNo, Fault> {
    let port = value::port(word, names)?;
    if port == PortNo::CONTROLLER || port == PortNo::UNSET || port > PortNo::MAX && port.reserved_name().is_none() {
        let want = "ports, but not the controller";
        return Err(word.fault(ErrorKind::BadValue { what: "bundle", want }));
    }
    Ok(port)
}

/// `multipath(FIELDS,BASIS,ALGORITHM,LINKS,ARG,DST)`.
pub(super) fn multipath(arg: Word<'_>) -> Result<Action, Fault> {
    let mut rest = words(arg);
    let fields = hash_fields(next(&mut rest, arg, "the fields to hash")?)?;
    let basis = decimal_u16(next(&mut rest, arg, "the basis of the hash")?, "the basis of the hash")?;
    let algorithm = next(&mut rest, arg, "how to choose")?;
    let want = "modulo_n, hash_threshold, hrw or iter_hash";
    let algorithm = one_of(algorithm, MULTIPATH_ALGORITHMS, "how to choose", want)?;
    let word = next(&mut rest, arg, "the number of links")?;
    let links = decimal(word, "the number of links", MOST_LINKS)?;
    if links == 0 {
        return Err(word.fault(ErrorKind::BadValue { what: "the number of links", want: "1 to 65536" }));
    }
    let argument = decimal(next(&mut rest, arg, "the algorithm's argument")?, "the algorithm's argument", u32::MAX)?;
    let dst = place_for(next(&mut rest, arg, "a field for the link's number")?, links - 1)?;
    if let Some(word) = rest.next() {
        return Err(word.fault(ErrorKind::UnexpectedValue));
    }
    Ok(Action::Multipath(Box::new(Multipath { fields, basis, algorithm, links, arg: argument, dst })))
}
