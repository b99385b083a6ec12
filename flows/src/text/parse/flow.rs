//! Reading flows, changes to flow tables, filters, and files of them.

use super::action;
use super::error::{ErrorKind, Fault, Notice, ParseError, Parsed};
use super::matching::Builder;
use super::token::{Pair, Pairs, Word};
use super::{suggest, value};
use crate::action::{Action, GroupId};
use crate::consistency;
use crate::filter::{FlowFilter, OwnerFilter};
use crate::flow_mod::FlowMod;
use crate::matching::Match;
use crate::owner::{FileLines, Owner};
use crate::port::PortNo;
use crate::rule::{DEFAULT_PRIORITY, FlowSpec, TableId};
use crate::text::Names;
use crate::verdict::DropReason;
use std::sync::Arc;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
    DeleteStrict,
    Modify,
    ModifyStrict,
    /// A dump: which flows to show.
    Select,
}

/// Verbs that a line may begin with. As in OVS, any beginning of one will do.
const VERBS: [(&str, Verb); 5] = [
    ("add", Verb::Add),
    ("delete", Verb::Delete),
    ("delete_strict", Verb::DeleteStrict),
    ("modify", Verb::Modify),
    ("modify_strict", Verb::ModifyStrict),
];

/// Keys of flows that are no part of the match.
const KEYS: &[&str] = &[
    "table",
    "priority",
    "cookie",
    "idle_timeout",
    "hard_timeout",
    "importance",
    "send_flow_rem",
    "check_overlap",
    "reset_counts",
    "no_packet_counts",
    "no_byte_counts",
    "out_port",
    "out_group",
    "owner",
    "drop_reason",
    "actions",
    "duration",
    "n_packets",
    "n_bytes",
    "idle_age",
    "hard_age",
];

impl Verb {
    fn has_actions(self) -> bool {
        matches!(self, Self::Add | Self::Modify | Self::ModifyStrict)
    }

    fn is_strict(self) -> bool {
        matches!(self, Self::DeleteStrict | Self::ModifyStrict)
    }
}

/// A line while it is read.
struct Line<'a> {
    verb: Verb,
    names: &'a Names,
    table: Option<TableId>,
    priority: u16,
    cookie: Option<u64>,
    select_cookie: (u64, u64),
    timeouts: [u16; 3],
    send_flow_rem: bool,
    check_overlap: bool,
    reset_counts: bool,
    out_port: Option<PortNo>,
    out_group: Option<GroupId>,
    no_packet_counts: bool,
    no_byte_counts: bool,
    owner: Option<&'a str>,
    drop_reason: Option<DropReason>,
}

/// A line that was read.
struct Read<'a> {
    line: Line<'a>,
    matches: Match,
    actions: Arc<[Action]>,
    notices: Vec<Notice>,
}

fn read<'a>(text: Word<'a>, verb: Verb, names: &'a Names) -> Result<Read<'a>, Fault> {
    let mut line = Line {
        verb,
        names,
        table: None,
        priority: DEFAULT_PRIORITY,
        cookie: None,
        select_cookie: (0, 0),
        timeouts: [0; 3],
        send_flow_rem: false,
        check_overlap: false,
        reset_counts: false,
        out_port: None,
        out_group: None,
        no_packet_counts: false,
        no_byte_counts: false,
        owner: None,
        drop_reason: None,
    };
    let mut builder = Builder::new(names);
    let mut pairs = Pairs::new(text);
    let mut actions = None;
    while let Some(pair) = pairs.next() {
        if let Some(found) = actions_after(&pair, &pairs) {
            if !verb.has_actions() {
                return Err(pair.key.fault(ErrorKind::NotAllowed("only flows to add or modify have actions")));
            }
            actions = Some(found);
            break;
        }
        if !builder.read(&pair)? {
            line.pair(&pair)?;
        }
    }
    let list = match actions {
        Some(text) => action::read_list(text, names)?,
        None if verb.has_actions() => return Err(text.end().fault(ErrorKind::MissingActions)),
        None => action::List::default(),
    };
    let built = builder.finish()?;
    consistency::check(line.table.unwrap_or_default(), &built.matches, &list.actions).map_err(|error| {
        let range = error.action().checked_sub(1).and_then(|i| list.ranges.get(i)).cloned();
        Fault::new(range.unwrap_or(text.range()), error.into())
    })?;
    Ok(Read { line, matches: built.matches, actions: list.actions.into(), notices: built.notices })
}

/// The text of the actions, if `pair` begins them: `actions=` or `action=`, also with blanks before the `=`.
fn actions_after<'a>(pair: &Pair<'a>, pairs: &Pairs<'a>) -> Option<Word<'a>> {
    if !matches!(pair.key.text, "actions" | "action") {
        return None;
    }
    match pair.delimiter {
        Some(b'=') => Some(pairs.from(pair.value)),
        None => {
            let rest = pairs.rest().trim();
            rest.text.starts_with('=').then(|| rest.part(1, rest.text.len()))
        }
        Some(_) => None,
    }
}

/// Why a packet was dropped that the flow drops.
fn drop_reason(word: Word<'_>) -> Result<DropReason, Fault> {
    DropReason::from_name(word.text).ok_or_else(|| {
        let names = DropReason::ALL.iter().map(|reason| reason.name());
        let kind = ErrorKind::BadValue { what: "drop_reason", want: "a drop reason such as policy_deny" };
        word.fault(kind).suggest(suggest::nearest(word.text, names))
    })
}

/// The group that flows must name; none for `any`.
fn out_group(word: Word<'_>) -> Result<Option<GroupId>, Fault> {
    if word.text.eq_ignore_ascii_case("any") {
        return Ok(None);
    }
    let id = value::number_to(word, "out_group", GroupId::MAX.0.into())?;
    Ok(Some(GroupId(id as u32)))
}

impl<'a> Line<'a> {
    fn pair(&mut self, pair: &Pair<'a>) -> Result<(), Fault> {
        let (key, value) = (pair.key, pair.value);
        let numeric =
            |what| if value.text.is_empty() { Err(value.fault(ErrorKind::MissingValue(what))) } else { Ok(()) };
        match key.text {
            "send_flow_rem" | "check_overlap" | "reset_counts" | "no_packet_counts" | "no_byte_counts" => {
                self.flag(pair)?;
            }
            "no_readonly_table" | "allow_hidden_fields" => {}
            "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => numeric("a number")?,
            "table" => {
                numeric("a table")?;
                self.table = value::table(value, self.names)?;
            }
            "cookie" => self.cookie(pair)?,
            "priority" => {
                if !self.verb.has_actions() && !self.verb.is_strict() {
                    return Err(
                        key.fault(ErrorKind::NotAllowed("flows are selected by priority only with delete_strict"))
                    );
                }
                self.priority = value::number_u16(value, "priority")?;
            }
            "idle_timeout" => self.timeout(0, pair)?,
            "hard_timeout" => self.timeout(1, pair)?,
            "importance" => {
                if self.verb != Verb::Add {
                    return Err(key.fault(ErrorKind::NotAllowed("only flows to add have an importance")));
                }
                self.timeout(2, pair)?;
            }
            "out_port" => {
                if self.verb.has_actions() {
                    return Err(key.fault(ErrorKind::NotAllowed("only deletions and dumps select flows by out_port")));
                }
                self.out_port = Some(value::port(value, self.names)?).filter(|p| *p != PortNo::NONE);
            }
            "out_group" => {
                if self.verb.has_actions() {
                    return Err(key.fault(ErrorKind::NotAllowed("only deletions and dumps select flows by out_group")));
                }
                self.out_group = out_group(value)?;
            }
            "owner" => {
                numeric("an owner")?;
                let text = value.text;
                self.owner = Some(text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text));
            }
            "drop_reason" => {
                if !self.verb.has_actions() {
                    return Err(key.fault(ErrorKind::NotAllowed("no flows are selected by drop_reason")));
                }
                self.drop_reason = Some(drop_reason(value)?);
            }
            "actions" | "action" => return Err(key.end().fault(ErrorKind::MissingActions)),
            _ => return Err(suggest::unknown_flow_word(key, KEYS)),
        }
        Ok(())
    }

    fn flag(&mut self, pair: &Pair<'_>) -> Result<(), Fault> {
        if !self.verb.has_actions() {
            return Err(pair.key.fault(ErrorKind::NotAllowed("only flows to add or modify have flags")));
        }
        if pair.has_value() {
            return Err(pair.value.fault(ErrorKind::UnexpectedValue));
        }
        match pair.key.text {
            "send_flow_rem" => self.send_flow_rem = true,
            "check_overlap" => self.check_overlap = true,
            "reset_counts" => self.reset_counts = true,
            "no_packet_counts" => self.no_packet_counts = true,
            _ => self.no_byte_counts = true,
        }
        Ok(())
    }

    fn timeout(&mut self, which: usize, pair: &Pair<'_>) -> Result<(), Fault> {
        if !self.verb.has_actions() {
            return Err(pair.key.fault(ErrorKind::NotAllowed("only flows to add or modify have timeouts")));
        }
        self.timeouts[which] = value::number_u16(pair.value, "a 16-bit number")?;
        Ok(())
    }

    /// `cookie=V` sets, `cookie=V/M` selects.
    fn cookie(&mut self, pair: &Pair<'_>) -> Result<(), Fault> {
        if let Some((value, mask)) = pair.value.split_once("/") {
            if self.verb == Verb::Add {
                return Err(pair.value.fault(ErrorKind::NotAllowed("a flow to add has a cookie without a mask")));
            }
            self.select_cookie = (value::number_u64(value, "cookie")?, value::number_u64(mask, "cookie mask")?);
        } else if self.verb.has_actions() {
            self.cookie = Some(value::number_u64(pair.value, "cookie")?);
        } else {
            let advice = "flows are selected by cookie=VALUE/MASK, and VALUE/-1 is exactly VALUE";
            return Err(pair.value.fault(ErrorKind::NotAllowed(advice)));
        }
        Ok(())
    }
}

impl Read<'_> {
    fn spec(&mut self, default: &Owner) -> FlowSpec {
        let [idle_timeout, hard_timeout, importance] = self.line.timeouts;
        FlowSpec {
            table: self.line.table.unwrap_or_default(),
            priority: self.line.priority,
            cookie: self.line.cookie.unwrap_or(0),
            idle_timeout,
            hard_timeout,
            importance,
            send_flow_rem: self.line.send_flow_rem,
            no_packet_counts: self.line.no_packet_counts,
            no_byte_counts: self.line.no_byte_counts,
            drop_reason: self.line.drop_reason,
            ..FlowSpec::new(
                std::mem::take(&mut self.matches),
                std::mem::take(&mut self.actions),
                self.line.owner.map_or_else(|| default.clone(), Owner::new),
            )
        }
    }

    /// What it selects; `owner` counts only where it does not say whose a flow will be.
    fn filter(&self) -> FlowFilter {
        let (cookie, cookie_mask) = self.line.select_cookie;
        FlowFilter {
            table: self.line.table,
            matches: self.matches.clone(),
            strict: self.line.verb.is_strict().then_some(self.line.priority),
            cookie,
            cookie_mask,
            out_port: self.line.out_port,
            out_group: self.line.out_group,
            owner: self.line.owner.filter(|_| !self.line.verb.has_actions()).map(OwnerFilter::new),
            generation_below: None,
        }
    }

    fn flow_mod(&mut self, owner: &Owner) -> FlowMod {
        let (check_overlap, reset_counts) = (self.line.check_overlap, self.line.reset_counts);
        match self.line.verb {
            Verb::Add => FlowMod::Add { spec: self.spec(owner), check_overlap, reset_counts: true },
            Verb::Modify | Verb::ModifyStrict => FlowMod::Modify {
                filter: self.filter(),
                spec: self.spec(owner),
                set_cookie: self.line.cookie.is_some(),
                reset_counts,
            },
            Verb::Delete | Verb::DeleteStrict | Verb::Select => FlowMod::Delete { filter: self.filter() },
        }
    }
}

/// Reads a flow to add, such as `table=1,priority=100,tcp,tp_dst=80,actions=output:2`. Without `owner=` it is the
/// operator's.
///
/// # Errors
/// When a word is unknown or a value is wrong, when `actions=` is missing, and when the actions do not suit the match.
pub fn parse_flow(text: &str, names: &Names) -> Result<Parsed<FlowSpec>, ParseError> {
    match read(Word::whole(text), Verb::Add, names) {
        Ok(mut read) => {
            let value = read.spec(&Owner::user());
            Ok(Parsed { value, warnings: Notice::all_in_text(read.notices, text) })
        }
        Err(fault) => Err(fault.in_text(text)),
    }
}

/// Reads which flows to dump: a match, and `table=`, `cookie=VALUE/MASK`, `out_port=` and `owner=` (`owner=TEXT*` for
/// every owner that begins so).
///
/// # Errors
/// When a word is unknown or a value is wrong.
pub fn parse_filter(text: &str, names: &Names) -> Result<Parsed<FlowFilter>, ParseError> {
    match read(Word::whole(text), Verb::Select, names) {
        Ok(read) => Ok(Parsed { value: read.filter(), warnings: Notice::all_in_text(read.notices, text) }),
        Err(fault) => Err(fault.in_text(text)),
    }
}

/// Reads a line of a flow file: a flow, or a change behind `add`, `modify`, `modify_strict`, `delete` or
/// `delete_strict`. Lines that `dump-flows` printed are flows to add.
///
/// # Errors
/// As [`parse_flow`]; and when a word has no place in that kind of change.
pub fn parse_flow_mod(line: &str, names: &Names) -> Result<Parsed<FlowMod>, ParseError> {
    parse_flow_mod_of(&Owner::user(), line, names)
}

/// As [`parse_flow_mod`], for a flow that is `owner`'s unless it says `owner=`.
///
/// # Errors
/// As [`parse_flow_mod`].
pub fn parse_flow_mod_of(owner: &Owner, line: &str, names: &Names) -> Result<Parsed<FlowMod>, ParseError> {
    let mut notices = Vec::new();
    match read_change(owner, Word::whole(line), names, &mut notices) {
        Ok(value) => Ok(Parsed { value, warnings: Notice::all_in_text(notices, line) }),
        Err(fault) => Err(fault.in_text(line)),
    }
}

/// As [`parse_flow_mod_of`]; adds what is to be said to `notices`.
pub(crate) fn read_change(
    owner: &Owner,
    text: Word<'_>,
    names: &Names,
    notices: &mut Vec<Notice>,
) -> Result<FlowMod, Fault> {
    let begun = text.trim();
    let len = begun.text.find([',', ' ', '\t', '\r', '\n']).unwrap_or(begun.text.len());
    let (verb, rest) = match VERBS.iter().find(|(word, _)| len != 0 && word.starts_with(&begun.text[..len])) {
        Some((_, verb)) => (*verb, begun.part(len, begun.text.len())),
        None => (Verb::Add, text),
    };
    let mut read = read(rest, verb, names)?;
    notices.append(&mut read.notices);
    Ok(read.flow_mod(owner))
}

/// Reads a flow file: one flow or change a line; `#` begins a comment. `path` is what messages and owners call the file:
/// without `owner=`, the flow of line N belongs to `file:PATH:N`.
///
/// # Errors
/// The first line that [`parse_flow_mod`] refuses, with its number.
pub fn parse_flow_file(path: &str, text: &str, names: &Names) -> Result<Parsed<Vec<FlowMod>>, ParseError> {
    let label: Arc<str> = path.into();
    let mut all = Parsed { value: Vec::with_capacity(likely_lines(text)), warnings: Vec::new() };
    let owners = FileLines::new(path);
    for (number, line) in flow_lines(text) {
        let read = parse_flow_mod_of(&owners.line(number), line, names);
        let read = read.map_err(|error| error.at(&label, number))?;
        all.value.push(read.value);
        all.warnings.extend(read.warnings.into_iter().map(|warning| warning.at(&label, number)));
    }
    Ok(all)
}

/// The lines of a flow file that say something, without their comments, each with its number, counted from 1. The line
/// that `dump-flows` and `dump-groups` begin with says nothing.
pub fn flow_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let says = |line: &str| !line.is_empty() && !is_dump_header(line);
    (1..).zip(text.lines().map(without_comment)).filter(move |(_, line)| says(line.trim()))
}

/// How many changes a file is likely to have: its lines, but not more than lines of some length would make.
pub(crate) fn likely_lines(text: &str) -> usize {
    const SHORT_LINE: usize = 32;
    let ends = text.bytes().filter(|b| *b == b'\n').count() + 1;
    ends.min(text.len() / SHORT_LINE)
}

/// Whether the line is the one that a dump begins with, such as `OFPST_FLOW reply (OF1.5) (xid=0x2):`.
fn is_dump_header(line: &str) -> bool {
    ["NXST_FLOW reply", "OFPST_FLOW reply", "OFPST_GROUP_DESC reply"].iter().any(|start| line.starts_with(start))
        && line.ends_with(':')
}

/// `line` up to its comment. A `#` in quotes begins none.
fn without_comment(line: &str) -> &str {
    // Comments are rare, and this is much faster than the look at each byte.
    if !line.as_bytes().contains(&b'#') {
        return line;
    }
    let mut quoted = false;
    let end = line.bytes().position(|b| {
        quoted ^= b == b'"';
        b == b'#' && !quoted
    });
    &line[..end.unwrap_or(line.len())]
}
