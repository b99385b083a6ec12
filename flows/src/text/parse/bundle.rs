//! Reading bundle files: changes to a bridge that are made all at once or not at all.

use super::error::{ErrorKind, Fault, Notice, ParseError, Parsed};
use super::token::Word;
use super::{MeterCommand, flow, flow_lines, group, meter, suggest, table};
use crate::bridge_mod::BridgeMod;
use crate::owner::Owner;
use crate::text::Names;
use std::sync::Arc;

/// What a line is about.
#[derive(Clone, Copy)]
enum Subject {
    Flow,
    Group,
    Meter,
    Table,
}

/// Words that a line begins with. As in OVS, any beginning of one will do, and the first that fits counts.
const SUBJECTS: [(&str, Subject); 4] =
    [("flow", Subject::Flow), ("group", Subject::Group), ("meter", Subject::Meter), ("table", Subject::Table)];

/// Commands of meters.
const METER_COMMANDS: [(&str, MeterCommand); 3] =
    [("add", MeterCommand::Add), ("modify", MeterCommand::Modify), ("delete", MeterCommand::Delete)];

/// The first word of `text`, up to a comma or a blank, and what follows it.
fn first_word(text: Word<'_>) -> (Word<'_>, Word<'_>) {
    let begun = text.trim();
    let len = begun.text.find([',', ' ', '\t', '\r', '\n']).unwrap_or(begun.text.len());
    (begun.part(0, len), begun.part(len, begun.text.len()))
}

/// Reads a file as `ovs-ofctl bundle` does: each line begins with `flow` or `group`, and goes on as a line of a flow
/// file or group file. Lines of `meter`, with `add`, `modify` or `delete`, and of `table`, with what
/// [`parse_table_mod`](super::parse_table_mod) reads, are taken too. `#` begins a comment. `path` is what messages and owners call the file:
/// without `owner=`, what line N adds belongs to `file:PATH:N`.
///
/// # Errors
/// The first line that is wrong, with its number.
pub fn parse_bundle_file(path: &str, text: &str, names: &Names) -> Result<Parsed<Vec<BridgeMod>>, ParseError> {
    let label: Arc<str> = path.into();
    let mut all = Parsed { value: Vec::with_capacity(flow::likely_lines(text)), warnings: Vec::new() };
    for (number, line) in flow_lines(text) {
        let read = read_line(&Owner::file_line(path, number), line, names);
        let read = read.map_err(|error| error.at(&label, number))?;
        all.value.push(read.value);
        all.warnings.extend(read.warnings.into_iter().map(|warning| warning.at(&label, number)));
    }
    Ok(all)
}

fn read_line(owner: &Owner, line: &str, names: &Names) -> Result<Parsed<BridgeMod>, ParseError> {
    let mut notices = Vec::new();
    match read_change(owner, Word::whole(line), names, &mut notices) {
        Ok(value) => Ok(Parsed { value, warnings: Notice::all_in_text(notices, line) }),
        Err(fault) => Err(fault.in_text(line)),
    }
}

fn read_change(owner: &Owner, line: Word<'_>, names: &Names, notices: &mut Vec<Notice>) -> Result<BridgeMod, Fault> {
    let (word, rest) = first_word(line);
    let subject = SUBJECTS.iter().find(|(name, _)| !word.text.is_empty() && name.starts_with(word.text));
    let Some((_, subject)) = subject else {
        let kind = ErrorKind::BadValue { what: "a change", want: "flow, group, meter or table at the beginning" };
        return Err(word.fault(kind).suggest(suggest::nearest(word.text, SUBJECTS.iter().map(|(name, _)| *name))));
    };
    Ok(match subject {
        Subject::Flow => BridgeMod::Flow(flow::read_change(owner, rest, names, notices)?),
        Subject::Group => BridgeMod::Group(group::read_change(owner, rest, names)?),
        Subject::Table => BridgeMod::Table(table::read(rest, names)?),
        Subject::Meter => {
            let (word, after) = first_word(rest);
            let command = METER_COMMANDS.iter().find(|(name, _)| !word.text.is_empty() && name.starts_with(word.text));
            let (command, text) = command.map_or((MeterCommand::Add, rest), |(_, command)| (*command, after));
            BridgeMod::Meter(meter::read_change(owner, text, command)?)
        }
    })
}
