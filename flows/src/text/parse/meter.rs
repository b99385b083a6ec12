//! Reading meters and changes to them, as `ovs-ofctl` reads them.

use super::error::{ErrorKind, Fault, ParseError};
use super::token::{Pairs, Word};
use super::{suggest, value};
use crate::action::MeterId;
use crate::meter::{MeterBand, MeterMod, MeterSpec, MeterUnit};
use crate::owner::Owner;

/// What a meter text asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterCommand {
    /// Add a meter.
    Add,
    /// Give a meter other bands.
    Modify,
    /// Delete one meter or all of them.
    Delete,
}

/// Meters that have a word rather than a number: they limit what goes to the controller, and what leaves the fast path.
pub(crate) const VIRTUAL_METERS: [(&str, MeterId); 2] =
    [("controller", MeterId(0xffff_fffe)), ("slowpath", MeterId(0xffff_fffd))];

/// Keys of meters.
const KEYS: [&str; 7] = ["meter", "kbps", "pktps", "burst", "stats", "bands", "owner"];
/// Keys of bands.
const BAND_KEYS: [&str; 3] = ["type", "rate", "burst_size"];

/// Most bands that a meter may have, as in OVS's datapath.
const MAX_BANDS: usize = 8;

/// Reads the number of a meter, or one of the words for virtual meters.
pub(crate) fn meter_id(word: Word<'_>) -> Result<MeterId, Fault> {
    if let Some((_, id)) = VIRTUAL_METERS.iter().find(|(name, _)| *name == word.text) {
        return Ok(*id);
    }
    match value::number_to(word, "meter", MeterId::MAX.0.into())? {
        0 => Err(word.fault(ErrorKind::BadValue { what: "meter", want: "1 to 4294901760, controller or slowpath" })),
        id => Ok(MeterId(id as u32)),
    }
}

/// The flags of a meter, each with the word that set it.
#[derive(Default)]
struct Keys<'a> {
    id: Option<MeterId>,
    all: bool,
    unit: Option<MeterUnit>,
    burst: bool,
    stats: bool,
    bands: Option<Word<'a>>,
    owner: Option<&'a str>,
}

/// The text of the bands: all that stands behind `bands=`, which has to be last.
fn split(text: Word<'_>) -> (Word<'_>, Option<Word<'_>>) {
    for pair in Pairs::new(text) {
        if matches!(pair.key.text, "bands" | "band") && pair.delimiter == Some(b'=') {
            let keys = text.part(0, pair.key.at - text.at);
            return (keys, Some(text.part(pair.value.at - text.at, text.text.len())));
        }
    }
    (text, None)
}

fn keys<'a>(text: Word<'a>, command: MeterCommand) -> Result<Keys<'a>, Fault> {
    let (keys_text, bands) = split(text);
    let mut keys = Keys { bands, ..Keys::default() };
    for pair in Pairs::new(keys_text) {
        let (key, value) = (pair.key, pair.value);
        if command == MeterCommand::Delete && key.text != "meter" {
            return Err(key.fault(ErrorKind::NotAllowed("meters are deleted by meter=NUMBER or meter=all")));
        }
        match key.text {
            "meter" if value.text == "all" && command == MeterCommand::Delete => keys.all = true,
            "meter" => keys.id = Some(meter_id(value)?),
            "owner" => {
                let text = value.text;
                keys.owner = Some(text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text));
            }
            "kbps" | "pktps" | "burst" | "stats" => {
                super::matching::no_value(&pair)?;
                let unit = match key.text {
                    "kbps" => MeterUnit::Kbps,
                    "pktps" => MeterUnit::Pktps,
                    word => {
                        keys.burst |= word == "burst";
                        keys.stats |= word == "stats";
                        continue;
                    }
                };
                if keys.unit.replace(unit).is_some_and(|before| before != unit) {
                    return Err(key.fault(ErrorKind::NotAllowed("a meter counts either kbps or pktps")));
                }
            }
            word => return Err(key.fault(ErrorKind::UnknownKeyword).suggest(suggest::nearest(word, KEYS))),
        }
    }
    Ok(keys)
}

/// A band while it is read.
#[derive(Default)]
struct Band {
    rate: Option<u32>,
    burst_size: Option<u32>,
}

impl Band {
    fn finish(self, burst: bool, text: Word<'_>) -> Result<MeterBand, Fault> {
        let rate = self.rate.ok_or_else(|| text.fault(ErrorKind::MissingKey("rate=NUMBER in each band")))?;
        match (burst, self.burst_size) {
            (true, None) => {
                Err(text.fault(ErrorKind::MissingKey("burst_size=NUMBER in each band, as it says `burst`")))
            }
            (false, Some(_)) => {
                Err(text.fault(ErrorKind::NotAllowed("bands have a burst_size only if it says `burst`")))
            }
            (_, size) => Ok(MeterBand { rate, burst_size: size.unwrap_or(0) }),
        }
    }
}

fn bands(text: Word<'_>, burst: bool) -> Result<Vec<MeterBand>, Fault> {
    let mut all = Vec::new();
    let mut band: Option<Band> = None;
    let number = |word| value::number_to(word, "a 32-bit number", u32::MAX.into()).map(|n| n as u32);
    for pair in Pairs::new(text) {
        match (pair.key.text, &mut band) {
            ("type", _) => {
                if pair.value.text != "drop" {
                    let kind = ErrorKind::BadValue { what: "type", want: "drop, the only kind of band" };
                    return Err(pair.value.fault(kind));
                }
                if let Some(done) = band.replace(Band::default()) {
                    all.push(done.finish(burst, text)?);
                }
                if all.len() >= MAX_BANDS {
                    return Err(pair.key.fault(ErrorKind::TooLarge { what: "the bands", max: MAX_BANDS as u128 }));
                }
            }
            ("rate", Some(band)) => band.rate = Some(number(pair.value)?),
            ("burst_size", Some(band)) => band.burst_size = Some(number(pair.value)?),
            ("rate" | "burst_size", None) => {
                return Err(pair.key.fault(ErrorKind::NotAllowed("a band begins with type=drop")));
            }
            (word, _) => {
                return Err(pair.key.fault(ErrorKind::UnknownKeyword).suggest(suggest::nearest(word, BAND_KEYS)));
            }
        }
    }
    match band {
        Some(last) => all.push(last.finish(burst, text)?),
        None => return Err(text.fault(ErrorKind::MissingKey("type=drop,rate=NUMBER behind bands="))),
    }
    Ok(all)
}

fn spec(owner: &Owner, text: Word<'_>, command: MeterCommand) -> Result<MeterSpec, Fault> {
    let keys = keys(text, command)?;
    let missing = |what| text.end().fault(ErrorKind::MissingKey(what));
    let id = keys.id.ok_or_else(|| missing("meter=NUMBER"))?;
    let unit = keys.unit.ok_or_else(|| missing("kbps or pktps"))?;
    let bands = bands(keys.bands.ok_or_else(|| missing("bands=type=drop,rate=NUMBER"))?, keys.burst)?;
    let owner = keys.owner.map_or_else(|| owner.clone(), Owner::new);
    Ok(MeterSpec { id, unit, burst: keys.burst, stats: keys.stats, bands, owner })
}

/// Reads a meter, such as `meter=1,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=100`. Without `owner=` it is
/// the operator's.
///
/// # Errors
/// When a word is unknown or a value is wrong, and when the number, the unit or the bands are missing.
pub fn parse_meter(text: &str) -> Result<MeterSpec, ParseError> {
    spec(&Owner::user(), Word::whole(text), MeterCommand::Add).map_err(|fault| fault.in_text(text))
}

/// Reads what `command` takes: a meter to add or modify; `meter=NUMBER`, `meter=all` or nothing to delete.
///
/// # Errors
/// As [`parse_meter`].
pub fn parse_meter_mod(text: &str, command: MeterCommand) -> Result<MeterMod, ParseError> {
    read_change(&Owner::user(), Word::whole(text), command).map_err(|fault| fault.in_text(text))
}

/// As [`parse_meter_mod`], for a meter that is `owner`'s unless it says `owner=`.
pub(crate) fn read_change(owner: &Owner, text: Word<'_>, command: MeterCommand) -> Result<MeterMod, Fault> {
    match command {
        MeterCommand::Add => spec(owner, text, command).map(MeterMod::Add),
        MeterCommand::Modify => spec(owner, text, command).map(MeterMod::Modify),
        MeterCommand::Delete => {
            let keys = keys(text, command)?;
            if keys.bands.is_some() {
                return Err(text.fault(ErrorKind::NotAllowed("meters are deleted by meter=NUMBER or meter=all")));
            }
            Ok(MeterMod::Delete(keys.id.filter(|_| !keys.all)))
        }
    }
}
