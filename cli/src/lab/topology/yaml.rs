//! YAML as a tree whose every node and key knows its line.
//!
//! Built from the parser's events instead of through serde: the topology's errors name the line of a *key*, which serde
//! does not carry, and scalars stay the text that the file has (`10.0` is no float, `no` is no boolean). Aliases and
//! tags are refused, which also takes away the ways a small file can unfold into a large tree; depth and size are
//! bounded.

use super::Problem;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Longest file read, in bytes.
pub(crate) const MAX_LEN: usize = 1 << 20;
const MAX_DEPTH: usize = 16;

/// A node and the line it starts on, counted from 1.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    /// A scalar's text; `plain` when it was not quoted.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Node {
    /// What the node is, in a word for a person.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Whether the node is YAML's null.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

type Result<T> = std::result::Result<T, Problem>;
type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

/// Parses a file of exactly one document.
///
/// # Errors
/// What is wrong and on which line: bad YAML, an alias or a tag, a key given twice, nesting that is too deep.
pub(crate) fn parse(text: &str) -> Result<Node> {
    if text.len() > MAX_LEN {
        return Err(Problem::new(1, format!("the file is longer than {MAX_LEN} bytes")));
    }
    let mut events = Parser::new_from_str(text);
    let root = loop {
        match next(&mut events)? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd, _) => return Err(Problem::new(1, "the file is empty")),
            (event, span) => break node(&mut events, event, span, 0)?,
        }
    };
    loop {
        match next(&mut events)? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), span) => {
                return Err(Problem::new(
                    span.start.line(),
                    "a second document begins here; a topology is one document",
                ));
            }
            _ => {}
        }
    }
}

fn next<'a>(events: &mut Events<'a>) -> Result<(Event<'a>, Span)> {
    match events.next_event() {
        Some(Ok(event)) => Ok(event),
        Some(Err(error)) => Err(scan_problem(&error)),
        None => Ok((Event::StreamEnd, Span::default())),
    }
}

fn scan_problem(error: &ScanError) -> Problem {
    Problem::new(error.marker().line(), format!("bad YAML: {}", error.info()))
}

fn node<'a>(events: &mut Events<'a>, event: Event<'a>, span: Span, depth: usize) -> Result<Node> {
    let line = span.start.line();
    if depth > MAX_DEPTH {
        return Err(Problem::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
    }
    let value = match event {
        Event::Alias(_) => {
            return Err(Problem::new(line, "aliases (`*name`) are not allowed in a topology; write the value out"));
        }
        Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
            return Err(Problem::new(line, "tags (`!name`) are not allowed in a topology"));
        }
        Event::Scalar(text, style, _, None) => {
            Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
        }
        Event::SequenceStart(..) => Value::List(list(events, depth)?),
        Event::MappingStart(..) => Value::Map(map(events, depth)?),
        _ => return Err(Problem::new(line, "bad YAML: a value is missing")),
    };
    Ok(Node { line, value })
}

fn list(events: &mut Events<'_>, depth: usize) -> Result<Vec<Node>> {
    let mut items = Vec::new();
    loop {
        match next(events)? {
            (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(items),
            (event, span) => items.push(node(events, event, span, depth + 1)?),
        }
    }
}

fn map(events: &mut Events<'_>, depth: usize) -> Result<Vec<(Key, Node)>> {
    let mut entries: Vec<(Key, Node)> = Vec::new();
    loop {
        let (event, span) = next(events)?;
        let line = span.start.line();
        let text = match event {
            Event::MappingEnd | Event::StreamEnd => return Ok(entries),
            Event::Scalar(text, ..) => text.into_owned(),
            _ => return Err(Problem::new(line, "a key must be a single word")),
        };
        if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
            return Err(Problem::new(line, format!("`{text}` is given twice; first on line {}", first.line)));
        }
        let (event, span) = next(events)?;
        entries.push((Key { line, text }, node(events, event, span, depth + 1)?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_keys_know_their_lines_and_scalars_stay_text() {
        let root = parse("a: 1.10\nb:\n  - [x, \"no\"]\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("not a map") };
        assert_eq!((entries[0].0.line, entries[1].0.line), (1, 2));
        assert!(matches!(&entries[0].1.value, Value::Scalar { text, plain: true } if text == "1.10"));
        let Value::List(items) = &entries[1].1.value else { panic!("not a list") };
        assert_eq!(items[0].line, 3);
    }

    #[track_caller]
    fn refused(text: &str, line: usize, part: &str) {
        let problem = parse(text).unwrap_err();
        assert_eq!(problem.line, line, "{problem:?}");
        assert!(problem.message.contains(part), "{problem:?}");
    }

    #[test]
    fn what_could_surprise_is_refused_with_its_line() {
        refused("", 1, "empty");
        refused("a: 1\nb: [1\n", 3, "bad YAML");
        refused("a: 1\na: 2\n", 2, "first on line 1");
        refused("a: &x 1\nb: *x\n", 2, "aliases");
        refused("a: !int 1\n", 1, "tags");
        refused("a: 1\n---\nb: 1\n", 2, "second document");
        refused("[1, 2]: 3\n", 1, "single word");
        refused(&"[".repeat(40), 1, "deeper");
    }
}
