//! The parts that a bundle arrives in, and the pieces of them that are read at a time.

use sluice_flows::text::flow_lines;
use sluice_proto::v1::FlowLines;
use sluice_proto::v1::bridge_mod::Change;
use tonic::Status;

/// Most changes in a bundle, and most lines.
const MAX_MODS: usize = 1_000_000;
/// Changes that are read at a time.
const CHUNK: usize = 500;
/// Bytes of lines that are read at a time; a longer line is read alone.
const CHUNK_LEN: usize = 64 << 10;

/// What a bundle changes, in order.
#[derive(Default)]
pub(super) struct Parts {
    parts: Vec<Part>,
    /// Number of changes that came one by one.
    single: usize,
    /// Number of lines.
    lines: usize,
}

enum Part {
    Changes(Vec<Change>),
    Lines(FlowLines),
}

/// Changes that are read at a time.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    /// Some that came one by one.
    Changes {
        /// Number of the first, counted from 0.
        first: usize,
        changes: &'a [Change],
    },
    /// Lines of a file.
    Lines {
        of: &'a FlowLines,
        /// Number of the first line, counted from 1.
        first: usize,
        text: &'a str,
    },
}

impl Parts {
    /// Adds changes.
    pub(super) fn add(&mut self, changes: Vec<Change>) -> Result<(), Status> {
        self.single += changes.len();
        if !changes.is_empty() {
            self.parts.push(Part::Changes(changes));
        }
        self.check()
    }

    /// Adds lines of a flow file.
    pub(super) fn add_lines(&mut self, lines: FlowLines) -> Result<(), Status> {
        self.lines += ends(&lines.text) + 1;
        self.parts.push(Part::Lines(lines));
        self.check()
    }

    fn check(&self) -> Result<(), Status> {
        if self.single + self.lines <= MAX_MODS {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!("a bundle has at most {MAX_MODS} changes or lines; send several")))
    }

    /// Whether it is not worth a thread to read it.
    pub(super) fn are_few(&self) -> bool {
        self.single + self.lines <= CHUNK
    }

    /// The changes that came one by one.
    pub(super) fn single(&self) -> impl Iterator<Item = &Change> {
        let changes = self.parts.iter().map(|part| match part {
            Part::Changes(changes) => changes.as_slice(),
            Part::Lines(_) => &[],
        });
        changes.flatten()
    }

    /// All changes, in pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut next = 0;
        self.parts.iter().flat_map(move |part| {
            let (changes, lines) = match part {
                Part::Changes(changes) => {
                    let first = next;
                    next += changes.len();
                    (Some((first, changes)), None)
                }
                Part::Lines(lines) => (None, Some(lines)),
            };
            let changes = changes.into_iter().flat_map(|(first, changes)| {
                let numbered = (first..).step_by(CHUNK).zip(changes.chunks(CHUNK));
                numbered.map(|(first, changes)| Piece::Changes { first, changes })
            });
            changes.chain(lines.into_iter().flat_map(cut))
        })
    }

    /// Names a change: where it stands, or else its number.
    pub(super) fn place(&self, piece: Piece<'_>, index: usize) -> String {
        let (first, changes) = match piece {
            Piece::Changes { first, changes } => (first, changes),
            Piece::Lines { of, first, text } => {
                let number = flow_lines(text).nth(index).map_or(0, |(number, _)| number - 1);
                return format!("{}:{}", of.file, first + number);
            }
        };
        let (what, owner) = match changes.get(index) {
            Some(Change::Flow(flow)) => ("flow", flow.owner.as_str()),
            Some(Change::Group(group)) => ("group", group.owner.as_str()),
            Some(Change::Meter(meter)) => ("meter", meter.owner.as_str()),
            Some(Change::Table(_)) | None => ("table", ""),
        };
        let number = first + index + 1;
        match owner.strip_prefix("file:") {
            Some(place) => place.to_owned(),
            None if self.single().all(|c| matches!(c, Change::Flow(_))) => {
                format!("flow {number} of {}", self.single)
            }
            None => format!("change {number} of {}, a {what}", self.single),
        }
    }
}

impl<'a> Piece<'a> {
    /// The text of a change.
    pub(super) fn text(self, index: usize) -> &'a str {
        let text = match self {
            Self::Changes { changes, .. } => match changes.get(index) {
                Some(Change::Flow(flow)) => &flow.flow,
                Some(Change::Group(group)) => &group.group,
                Some(Change::Meter(meter)) => &meter.meter,
                Some(Change::Table(_)) | None => "",
            },
            Self::Lines { text, .. } => flow_lines(text).nth(index).map_or("", |(_, line)| line),
        };
        text.trim()
    }
}

/// Cuts lines into pieces of whole lines.
fn cut(of: &FlowLines) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = of.text.as_str();
    let mut next = usize::try_from(of.first).unwrap_or(usize::MAX / 2).clamp(1, usize::MAX / 2);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let near = rest.as_bytes().get(CHUNK_LEN..).and_then(|after| after.iter().position(|b| *b == b'\n'));
        let (text, after) = rest.split_at(near.map_or(rest.len(), |at| CHUNK_LEN + at + 1));
        rest = after;
        let first = next;
        next += ends(text);
        Some(Piece::Lines { of, first, text })
    })
}

/// Number of line ends.
fn ends(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_lines_and_keep_their_numbers() {
        let line = |n: usize| format!("priority={n},{} actions=drop\n", " ".repeat(n % 90));
        let text: String = (10..5_000).map(line).collect();
        let lines = FlowLines { file: "f".into(), first: 10, text: text.clone(), owner: String::new() };
        let mut parts = Parts::default();
        parts.add_lines(lines).unwrap();
        let mut whole = String::new();
        for piece in parts.pieces() {
            let Piece::Lines { first, text, .. } = piece else { panic!("only lines") };
            assert!(text.starts_with(&format!("priority={first},")), "{first}");
            assert!(text.len() <= CHUNK_LEN + 200 && text.ends_with('\n'));
            assert_eq!(parts.place(piece, 3), format!("f:{}", first + 3));
            assert!(piece.text(3).starts_with(&format!("priority={},", first + 3)));
            whole.push_str(text);
        }
        assert_eq!(whole, text);
    }

    #[test]
    fn a_bundle_of_too_many_lines_is_refused() {
        let mut parts = Parts::default();
        let lines = |len| FlowLines { text: "\n".repeat(len), ..FlowLines::default() };
        assert!(parts.add_lines(lines(MAX_MODS / 2)).is_ok());
        assert!(parts.add_lines(lines(MAX_MODS / 2)).is_err());
    }
}
