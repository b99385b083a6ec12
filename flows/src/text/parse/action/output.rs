//! Where a packet goes: ports, the controller, groups, other tables.

use super::{bytes, number_u32, unknown_key};
use crate::action::{Action, ControllerAction, Fragment, GroupId, MeterId, PacketInReason};
use crate::port::PortNo;
use crate::text::Names;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::{Pairs, Word};
use crate::text::parse::{subfield, suggest, value};

/// Length of an Ethernet header: no packet is cut shorter.
const ETH_LEN: u32 = 14;

/// Output to the port that `word` names.
pub(super) fn to(word: Word<'_>, port: PortNo) -> Result<Action, Fault> {
    if port == PortNo::CONTROLLER {
        return Ok(Action::Controller(Box::default()));
    }
    if port > PortNo::MAX && port.reserved_name().is_none() || port == PortNo::NONE || port == PortNo::UNSET {
        return Err(word.fault(ErrorKind::BadOutputPort));
    }
    Ok(Action::Output(port))
}

/// `output:PORT`, `output:FIELD[..]`, `output(port=PORT,max_len=LEN)`.
pub(super) fn output(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    if arg.text.is_empty() {
        return Err(arg.fault(ErrorKind::MissingValue("a port or a field that holds one")));
    }
    match value::port(arg, names) {
        Ok(port) => to(arg, port),
        Err(_) if arg.text.contains("port") && arg.text.contains("max_len") => truncated(arg, names),
        Err(fault) => match subfield::read(arg) {
            Ok(part) => Ok(Action::OutputField(part)),
            Err(bits) if arg.text.contains('[') => Err(bits),
            Err(_) => Err(fault),
        },
    }
}

/// `port=PORT,max_len=LEN`.
fn truncated(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let (mut to, mut len) = (None, None);
    for pair in Pairs::new(arg) {
        let at = pair.value;
        match pair.key.text {
            "port" => {
                let port = value::port(at, names)?;
                if port > PortNo::MAX && port != PortNo::LOCAL && port != PortNo::IN_PORT {
                    let want = "a port from 0 to 65279, LOCAL or IN_PORT: to others no packet goes cut";
                    return Err(at.fault(ErrorKind::BadValue { what: "port", want }));
                }
                to = Some(port);
            }
            "max_len" => match number_u32(at, "max_len")? {
                0..ETH_LEN => {
                    let want = "at least 14 bytes, an Ethernet header";
                    return Err(at.fault(ErrorKind::BadValue { what: "max_len", want }));
                }
                long => len = Some(long),
            },
            _ => return Err(unknown_key(pair.key, "output", "port= and max_len=", &["port", "max_len"])),
        }
    }
    match (to, len) {
        (Some(port), Some(max_len)) => Ok(Action::OutputTruncated { port, max_len }),
        (None, _) => Err(arg.end().fault(ErrorKind::MissingValue("port="))),
        (_, None) => Err(arg.end().fault(ErrorKind::MissingValue("max_len="))),
    }
}

/// Names of the reasons for which a packet goes to a controller.
pub(crate) const REASONS: [(&str, PacketInReason); 6] = [
    ("no_match", PacketInReason::NoMatch),
    ("action", PacketInReason::Action),
    ("invalid_ttl", PacketInReason::InvalidTtl),
    ("action_set", PacketInReason::ActionSet),
    ("group", PacketInReason::Group),
    ("packet_out", PacketInReason::PacketOut),
];

/// `controller`, `controller:LEN`, `controller(..)`.
pub(super) fn controller(arg: Word<'_>) -> Result<Action, Fault> {
    const KEYS: [&str; 6] = ["max_len", "id", "reason", "userdata", "pause", "meter_id"];
    let mut to = ControllerAction::default();
    if !arg.text.is_empty() && arg.text.bytes().all(|b| b.is_ascii_digit()) {
        to.max_len = value::number_u16(arg, "max_len")?;
        return Ok(Action::Controller(Box::new(to)));
    }
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "max_len" => to.max_len = value::number_u16(pair.value, "max_len")?,
            "id" => to.controller_id = value::number_u16(pair.value, "id")?,
            "reason" => to.reason = reason(pair.value)?,
            "userdata" => to.userdata = bytes(pair.value, "userdata")?,
            "pause" => {
                super::no_argument(&pair)?;
                to.pause = true;
            }
            "meter_id" => to.meter = Some(meter(pair.value, "meter_id")?),
            _ => {
                let want = "a length, or max_len=, id=, reason=, userdata=, pause, meter_id=";
                return Err(unknown_key(pair.key, "controller", want, &KEYS));
            }
        }
    }
    to.extended = ControllerAction { max_len: u16::MAX, ..to.clone() } != ControllerAction::default();
    Ok(Action::Controller(Box::new(to)))
}

fn reason(word: Word<'_>) -> Result<PacketInReason, Fault> {
    if let Some((_, reason)) = REASONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.text)) {
        return Ok(*reason);
    }
    let want = "no_match, action, invalid_ttl, action_set, group or packet_out";
    let kind = ErrorKind::BadValue { what: "reason", want };
    Err(word.fault(kind).suggest(suggest::nearest(word.text, REASONS.iter().map(|(name, _)| *name))))
}

/// `fragment(mtu=N,..)`.
pub(super) fn fragment(arg: Word<'_>) -> Result<Action, Fault> {
    const KEYS: [&str; 3] = ["mtu", "id", "userdata"];
    let mut fragment = Fragment { mtu: 0, controller_id: 0, userdata: Box::default() };
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "mtu" => match value::number_u16(pair.value, "mtu")? {
                0..Fragment::MIN_MTU => {
                    let want = "at least 68 bytes, what every link of IPv4 carries";
                    return Err(pair.value.fault(ErrorKind::BadValue { what: "mtu", want }));
                }
                mtu => fragment.mtu = mtu,
            },
            "id" => fragment.controller_id = value::number_u16(pair.value, "id")?,
            "userdata" => fragment.userdata = bytes(pair.value, "userdata")?,
            _ => return Err(unknown_key(pair.key, "fragment", "mtu=, id= and userdata=", &KEYS)),
        }
    }
    if fragment.mtu == 0 {
        return Err(arg.end().fault(ErrorKind::MissingValue("mtu=, the longest IP packet in bytes")));
    }
    Ok(Action::Fragment(Box::new(fragment)))
}

/// The number of a meter.
pub(super) fn meter(word: Word<'_>, what: &'static str) -> Result<MeterId, Fault> {
    match value::number_to(word, what, MeterId::MAX.0.into())? as u32 {
        0 => Err(word.fault(ErrorKind::BadValue { what, want: "a meter's number, from 1" })),
        id => Ok(MeterId(id)),
    }
}

/// `enqueue:PORT:QUEUE`, `enqueue(PORT,QUEUE)`.
pub(super) fn enqueue(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let Some(at) = arg.text.rfind([':', ',']).or_else(|| arg.text.rfind('q')) else {
        return Err(arg.fault(ErrorKind::BadValue { what: "enqueue", want: "PORT:QUEUE" }));
    };
    let (port_word, queue_word) = (arg.part(0, at).trim(), arg.part(at + 1, arg.text.len()).trim());
    let port = value::port(port_word, names)?;
    let queue = number_u32(queue_word, "a queue")?;
    if port > PortNo::MAX && port != PortNo::LOCAL && port != PortNo::IN_PORT {
        let want = "a port from 0 to 65279, LOCAL or IN_PORT: others have no queues";
        return Err(port_word.fault(ErrorKind::BadValue { what: "enqueue", want }));
    }
    Ok(Action::Enqueue { port, queue })
}

/// `group:ID`.
pub(super) fn group(arg: Word<'_>) -> Result<Action, Fault> {
    let id = value::number_to(arg, "group", GroupId::MAX.0.into())?;
    Ok(Action::Group(GroupId(id as u32)))
}

/// `goto_table:TABLE`.
pub(super) fn goto_table(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let table = value::table(arg, names)?;
    Ok(Action::GotoTable(table.ok_or_else(|| arg.fault(ErrorKind::UnknownTable))?))
}

/// `word` without blanks around, if anything is left.
fn given(word: Option<Word<'_>>) -> Option<Word<'_>> {
    word.map(Word::trim).filter(|w| !w.text.is_empty())
}

/// `resubmit:PORT`, `resubmit([PORT],[TABLE][,ct])`.
pub(super) fn resubmit(key: Word<'_>, arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let (first, rest) = arg.split_once(",").map_or((arg, None), |(a, b)| (a, Some(b)));
    let (second, third) = match rest {
        Some(rest) => rest.split_once(",").map_or((Some(rest), None), |(a, b)| (Some(a), Some(b))),
        None => (None, None),
    };
    let ct = match given(third) {
        None => false,
        Some(word) if word.text == "ct" => true,
        Some(word) => {
            return Err(word.fault(ErrorKind::BadValue { what: "resubmit", want: "[PORT],[TABLE][,ct]" }));
        }
    };
    let port = match given(Some(first)) {
        Some(word) => Some(value::port(word, names)?).filter(|p| *p != PortNo::IN_PORT),
        None => None,
    };
    let table = match given(second) {
        Some(word) => value::table(word, names)?,
        None => None,
    };
    if port.is_none() && table.is_none() {
        let word = if arg.text.is_empty() { key } else { arg };
        return Err(word.fault(ErrorKind::BadValue { what: "resubmit", want: "a port, a table or both" }));
    }
    Ok(Action::Resubmit { port, table, ct, extended: table.is_some() || ct })
}
