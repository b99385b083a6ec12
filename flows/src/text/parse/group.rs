//! Reading groups and changes to them, as `ovs-ofctl` reads them.
//!
//! A group is keys, then buckets: the first `bucket=` ends the keys, and the next one ends the bucket. In a bucket,
//! what is none of the bucket's own keys is an action, with or without `actions=` before it.

use super::error::{ErrorKind, Fault, ParseError, Parsed};
use super::token::{Pair, Pairs, Word};
use super::{action, suggest, value};
use crate::action::{Action, GroupId};
use crate::field::Field;
use crate::group::{BucketChoice, BucketPlace, BucketSpec, GroupKind, GroupMod, GroupSpec, MAX_BUCKETS, Selection};
use crate::owner::Owner;
use crate::port::PortNo;
use crate::text::Names;
use std::collections::HashSet;
use std::sync::Arc;

/// What a group text asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupCommand {
    /// Add a group.
    Add,
    /// Give a group another kind and other buckets.
    Modify,
    /// As [`Modify`](Self::Modify), but add the group when there is none.
    AddOrModify,
    /// Delete one group or all of them.
    Delete,
    /// Add buckets to a group.
    InsertBuckets,
    /// Remove buckets from a group.
    RemoveBuckets,
}

/// Commands that a line may begin with. As in OVS, any beginning of one will do, and the first that fits counts.
const COMMANDS: [(&str, GroupCommand); 6] = [
    ("add", GroupCommand::Add),
    ("delete", GroupCommand::Delete),
    ("modify", GroupCommand::Modify),
    ("add_or_mod", GroupCommand::AddOrModify),
    ("insert_bucket", GroupCommand::InsertBuckets),
    ("remove_bucket", GroupCommand::RemoveBuckets),
];

/// Keys of groups.
const KEYS: [&str; 8] = [
    "group_id",
    "type",
    "selection_method",
    "selection_method_param",
    "fields",
    "command_bucket_id",
    "bucket",
    "owner",
];

/// Words for kinds of groups.
const KINDS: [(&str, GroupKind); 5] = [
    ("all", GroupKind::All),
    ("select", GroupKind::Select),
    ("indirect", GroupKind::Indirect),
    ("ff", GroupKind::FastFailover),
    ("fast_failover", GroupKind::FastFailover),
];

/// The largest number of a bucket.
const BUCKET_MAX: u128 = 0xffff_feff;

/// A group text while it is read.
#[derive(Default)]
struct Keys<'a> {
    id: Option<GroupId>,
    all: bool,
    kind: Option<GroupKind>,
    method: Option<Word<'a>>,
    param: Option<(Word<'a>, u64)>,
    fields: Option<(Word<'a>, Vec<(Field, u128)>)>,
    bucket: Option<BucketChoice>,
    owner: Option<&'a str>,
}

impl<'a> Keys<'a> {
    fn pair(&mut self, pair: &Pair<'a>, command: GroupCommand, names: &Names) -> Result<(), Fault> {
        let (key, value) = (pair.key, pair.value);
        let spec = matches!(command, GroupCommand::Add | GroupCommand::Modify | GroupCommand::AddOrModify);
        let describes = |key: Word<'_>| match spec {
            true => Ok(()),
            false => Err(key.fault(ErrorKind::NotAllowed("only groups to add or modify have a type and a selection"))),
        };
        match key.text {
            "group_id" if value.text == "all" && command == GroupCommand::Delete => self.all = true,
            "group_id" => self.id = Some(group_id(value)?),
            "type" => {
                describes(key)?;
                self.kind = Some(kind(value)?);
            }
            "selection_method" => {
                describes(key)?;
                self.method = Some(value);
            }
            "selection_method_param" => {
                describes(key)?;
                self.param = Some((key, value::number_u64(value, "selection_method_param")?));
            }
            "fields" => {
                describes(key)?;
                self.fields = Some((key, selection_fields(value, names)?));
            }
            "command_bucket_id" => {
                if !matches!(command, GroupCommand::InsertBuckets | GroupCommand::RemoveBuckets) {
                    let advice = "only insertions and removals of buckets have a command_bucket_id";
                    return Err(key.fault(ErrorKind::NotAllowed(advice)));
                }
                self.bucket = Some(bucket_choice(value)?);
            }
            "owner" => {
                let text = value.text;
                self.owner = Some(text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text));
            }
            word => {
                return Err(key.fault(ErrorKind::UnknownKeyword).suggest(suggest::nearest(word, KEYS)));
            }
        }
        Ok(())
    }

    fn selection(&mut self, kind: GroupKind) -> Result<Selection, Fault> {
        let Some(method) = self.method else {
            return match (&self.param, &self.fields) {
                (Some((key, _)), _) => {
                    Err(key.fault(ErrorKind::NotAllowed("say selection_method=hash or =dp_hash too")))
                }
                (_, Some((key, fields))) if !fields.is_empty() => {
                    Err(key.fault(ErrorKind::NotAllowed("fields go with selection_method=hash")))
                }
                _ => Ok(Selection::Default),
            };
        };
        if kind != GroupKind::Select {
            return Err(method.fault(ErrorKind::NotAllowed("only a group of type=select has a selection_method")));
        }
        let param = self.param.map_or(0, |(_, param)| param);
        let fields = self.fields.take();
        match (method.text, fields) {
            ("hash", fields) => {
                Ok(Selection::Hash { param, fields: fields.map_or_else(Vec::new, |(_, fields)| fields).into() })
            }
            ("dp_hash", Some((key, fields))) if !fields.is_empty() => {
                Err(key.fault(ErrorKind::NotAllowed("fields go with selection_method=hash")))
            }
            ("dp_hash", _) => Ok(Selection::DpHash { param }),
            (word, _) => {
                let kind = ErrorKind::BadValue { what: "selection_method", want: "hash or dp_hash" };
                Err(method.fault(kind).suggest(suggest::nearest(word, ["hash", "dp_hash"])))
            }
        }
    }
}

/// Reads the number of a group.
pub(crate) fn group_id(word: Word<'_>) -> Result<GroupId, Fault> {
    value::number_to(word, "group_id", GroupId::MAX.0.into()).map(|id| GroupId(id as u32))
}

fn kind(word: Word<'_>) -> Result<GroupKind, Fault> {
    KINDS.iter().find(|(name, _)| *name == word.text).map(|(_, kind)| *kind).ok_or_else(|| {
        let kind = ErrorKind::BadValue { what: "type", want: "all, select, indirect or fast_failover (ff)" };
        word.fault(kind).suggest(suggest::nearest(word.text, KINDS.iter().map(|(name, _)| *name)))
    })
}

fn bucket_choice(word: Word<'_>) -> Result<BucketChoice, Fault> {
    Ok(match word.text {
        "first" => BucketChoice::First,
        "last" => BucketChoice::Last,
        "all" => BucketChoice::All,
        _ => BucketChoice::Id(value::number_to(word, "command_bucket_id", BUCKET_MAX)? as u32),
    })
}

/// The fields that a selection hashes: each with the bits that count as its value, all of them if it has none.
fn selection_fields(text: Word<'_>, names: &Names) -> Result<Vec<(Field, u128)>, Fault> {
    let mut fields: Vec<(Field, u128)> = Vec::new();
    for pair in Pairs::new(text) {
        let field = super::words::field(pair.key.text).ok_or_else(|| suggest::unknown_field(pair.key))?;
        let name = field.info().name;
        if fields.iter().any(|(known, _)| *known == field) {
            return Err(pair.key.fault(ErrorKind::NotAllowed("this was said before")));
        }
        let mask = match pair.value.text {
            "" => u128::MAX,
            _ => value::field_value(field, pair.value, names)?.0,
        };
        let whole = field.slot().max();
        if mask == 0 {
            return Err(pair.value.fault(ErrorKind::BadValue { what: name, want: "some bits that count" }));
        }
        if mask != u128::MAX && mask != whole && field.info().maskable == crate::field::Maskable::Exact {
            return Err(pair.value.fault(ErrorKind::BadMask(name)));
        }
        fields.push((field, if mask == whole { u128::MAX } else { mask }));
    }
    fields.sort_by_key(|(field, _)| super::order::rank(*field));
    Ok(fields)
}

/// The next place, from byte `from` on, where a bucket begins: its `bucket=`.
fn next_bucket(text: &str, from: usize) -> Option<usize> {
    const MARK: &str = "bucket=";
    let mut at = from;
    while let Some(found) = text[at..].find(MARK) {
        let start = at + found;
        let before = text.as_bytes()[..start].last();
        if before.is_none_or(|b| matches!(b, b',' | b' ' | b'\t' | b'\r' | b'\n')) {
            return Some(start);
        }
        at = start + MARK.len();
    }
    None
}

/// The pieces of a text: its keys, and what stands behind each `bucket=`.
fn split(text: Word<'_>) -> (Word<'_>, Vec<Word<'_>>) {
    let Some(mut start) = next_bucket(text.text, 0) else {
        return (text, Vec::new());
    };
    let keys = text.part(0, start);
    let mut buckets = Vec::new();
    loop {
        let from = start + "bucket=".len();
        match next_bucket(text.text, from) {
            Some(next) => {
                buckets.push(text.part(from, next));
                start = next;
            }
            None => {
                buckets.push(text.part(from, text.text.len()));
                return (keys, buckets);
            }
        }
    }
}

/// Reads what stands behind `bucket=`. `kind` is none when buckets go into a group that is there.
fn bucket(text: Word<'_>, kind: Option<GroupKind>, names: &Names) -> Result<BucketSpec, Fault> {
    let weight = u16::from(kind == Some(GroupKind::Select));
    let mut out = BucketSpec { id: None, weight, watch_port: None, watch_group: None, actions: Arc::new([]) };
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    let mut apart = true;
    for pair in Pairs::new(text) {
        let end = pair.value.range().end.max(pair.key.range().end) - text.at;
        let from = match pair.key.text.to_ascii_lowercase().as_str() {
            "weight" => {
                out.weight = value::number_u16(pair.value, "weight")?;
                None
            }
            "watch_port" => {
                out.watch_port = watch_port(pair.value, names)?;
                None
            }
            "watch_group" => {
                out.watch_group = Some(group_id(pair.value)?);
                None
            }
            "bucket_id" => {
                out.id = Some(value::number_to(pair.value, "bucket_id", BUCKET_MAX)? as u32);
                None
            }
            "action" | "actions" => Some(pair.value.at - text.at),
            _ => Some(pair.key.at - text.at),
        };
        // A parenthesis that ends the action belongs to it.
        let end = if text.text.as_bytes().get(end) == Some(&b')') { end + 1 } else { end };
        match (from, pieces.last_mut()) {
            (Some(_), Some(last)) if !apart && !pair.key.text.to_ascii_lowercase().starts_with("action") => {
                last.1 = end
            }
            (Some(from), _) => pieces.push((from, end)),
            (None, _) => {}
        }
        apart = from.is_none();
    }
    if pieces.is_empty() {
        return Err(text.end().fault(ErrorKind::MissingBucketActions));
    }
    out.actions = bucket_actions(text, &pieces, names)?.into();
    check_bucket(&out, text, kind)?;
    Ok(out)
}

/// The actions that these pieces of `text` say.
fn bucket_actions(text: Word<'_>, pieces: &[(usize, usize)], names: &Names) -> Result<Vec<Action>, Fault> {
    let mut actions = Vec::new();
    for &(from, to) in pieces {
        actions.extend(action::read_bucket(text.part(from, to.max(from)), names)?.actions);
    }
    Ok(actions)
}

fn watch_port(word: Word<'_>, names: &Names) -> Result<Option<PortNo>, Fault> {
    match value::port(word, names)? {
        PortNo::NONE => Ok(None),
        port if port <= PortNo::MAX => Ok(Some(port)),
        _ => Err(word.fault(ErrorKind::BadValue { what: "watch_port", want: "a port's number or name, or ANY" })),
    }
}

fn check_bucket(bucket: &BucketSpec, text: Word<'_>, kind: Option<GroupKind>) -> Result<(), Fault> {
    let watches = bucket.watch_port.is_some() || bucket.watch_group.is_some();
    let wrong = match kind {
        Some(GroupKind::FastFailover) if !watches => {
            "a bucket of a fast_failover group has a watch_port or watch_group"
        }
        Some(GroupKind::All | GroupKind::Indirect) if watches => {
            "only buckets of select and fast_failover groups watch ports and groups"
        }
        Some(GroupKind::All | GroupKind::Indirect | GroupKind::FastFailover) if bucket.weight != 0 => {
            "only buckets of select groups have a weight"
        }
        _ => return Ok(()),
    };
    Err(text.fault(ErrorKind::NotAllowed(wrong)))
}

/// Reads every bucket.
fn buckets(texts: &[Word<'_>], kind: Option<GroupKind>, names: &Names) -> Result<Vec<BucketSpec>, Fault> {
    if let (Some(GroupKind::Indirect), Some(second)) = (kind, texts.get(1)) {
        return Err(second.fault(ErrorKind::NotAllowed("an indirect group has one bucket")));
    }
    if let Some(text) = texts.get(MAX_BUCKETS) {
        return Err(text.fault(ErrorKind::TooLarge { what: "the number of buckets", max: MAX_BUCKETS as u128 }));
    }
    let mut ids = HashSet::new();
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let bucket = bucket(*text, kind, names)?;
        if bucket.id.is_some_and(|id| !ids.insert(id)) {
            return Err(text.fault(ErrorKind::NotAllowed("another bucket has this bucket_id")));
        }
        all.push(bucket);
    }
    Ok(all)
}

fn read(text: Word<'_>, command: GroupCommand, names: &Names, owner: &Owner) -> Result<GroupMod, Fault> {
    let (keys_text, bucket_texts) = split(text);
    let mut keys = Keys::default();
    for pair in Pairs::new(keys_text) {
        keys.pair(&pair, command, names)?;
    }
    let takes_buckets = !matches!(command, GroupCommand::Delete | GroupCommand::RemoveBuckets);
    if let (false, Some(first)) = (takes_buckets, bucket_texts.first()) {
        return Err(first.fault(ErrorKind::NotAllowed("what deletes or removes has no buckets")));
    }
    let id = || keys.id.ok_or_else(|| keys_text.end().fault(ErrorKind::MissingKey("group_id=NUMBER")));
    Ok(match command {
        GroupCommand::Delete => GroupMod::Delete(keys.id.filter(|_| !keys.all)),
        GroupCommand::RemoveBuckets => {
            GroupMod::RemoveBuckets { group: id()?, which: keys.bucket.unwrap_or(BucketChoice::All) }
        }
        GroupCommand::InsertBuckets => {
            let place = match keys.bucket {
                Some(BucketChoice::First) => BucketPlace::First,
                Some(BucketChoice::Last) => BucketPlace::Last,
                Some(BucketChoice::Id(id)) => BucketPlace::After(id),
                Some(BucketChoice::All) => {
                    let advice = "buckets go in first, last or behind a bucket";
                    return Err(keys_text.fault(ErrorKind::NotAllowed(advice)));
                }
                None => {
                    return Err(keys_text.end().fault(ErrorKind::MissingKey("command_bucket_id=first|last|NUMBER")));
                }
            };
            GroupMod::InsertBuckets { group: id()?, place, buckets: buckets(&bucket_texts, None, names)? }
        }
        GroupCommand::Add | GroupCommand::Modify | GroupCommand::AddOrModify => {
            let id = id()?;
            let kind = keys.kind.ok_or_else(|| keys_text.end().fault(ErrorKind::MissingKey("type=KIND")))?;
            let selection = keys.selection(kind)?;
            let buckets = buckets(&bucket_texts, Some(kind), names)?;
            if kind == GroupKind::Indirect && buckets.is_empty() {
                return Err(text.end().fault(ErrorKind::MissingKey("bucket=ACTIONS: an indirect group has one")));
            }
            let owner = keys.owner.map_or_else(|| owner.clone(), Owner::new);
            let spec = GroupSpec { id, kind, selection, buckets, owner };
            match command {
                GroupCommand::Add => GroupMod::Add(spec),
                _ => GroupMod::Modify { spec, may_create: command == GroupCommand::AddOrModify },
            }
        }
    })
}

/// Reads a group to add, such as `group_id=1,type=select,bucket=weight:10,actions=output:1,bucket=output:2`. Without
/// `owner=` it is the operator's.
///
/// # Errors
/// When a word is unknown or a value is wrong, when `group_id=` or `type=` is missing, and when a bucket has no actions,
/// or says what its kind of group has not.
pub fn parse_group(text: &str, names: &Names) -> Result<Parsed<GroupSpec>, ParseError> {
    match read(Word::whole(text), GroupCommand::Add, names, &Owner::user()) {
        Ok(GroupMod::Add(value)) => Ok(Parsed { value, warnings: Vec::new() }),
        Ok(_) => Err(Word::whole(text).fault(ErrorKind::NotAllowed("want a group to add")).in_text(text)),
        Err(fault) => Err(fault.in_text(text)),
    }
}

/// Reads what `command` takes: a group to add or modify; `group_id=` or nothing to delete; `group_id=` with
/// `command_bucket_id=` and buckets to insert, or without buckets to remove.
///
/// As in OVS, buckets to insert have weight 0 unless they say one.
///
/// # Errors
/// As [`parse_group`]; and when a word has no place in that kind of change.
pub fn parse_group_mod(text: &str, command: GroupCommand, names: &Names) -> Result<GroupMod, ParseError> {
    read(Word::whole(text), command, names, &Owner::user()).map_err(|fault| fault.in_text(text))
}

/// Reads a line of a group file: a group to add, or a change behind `add`, `modify`, `add_or_mod`, `delete`,
/// `insert_bucket` or `remove_bucket`. Without `owner=` a group is `owner`'s.
///
/// # Errors
/// As [`parse_group_mod`].
pub fn parse_group_line(owner: &Owner, line: &str, names: &Names) -> Result<GroupMod, ParseError> {
    read_change(owner, Word::whole(line), names).map_err(|fault| fault.in_text(line))
}

/// As [`parse_group_line`].
pub(crate) fn read_change(owner: &Owner, text: Word<'_>, names: &Names) -> Result<GroupMod, Fault> {
    let begun = text.trim();
    let len = begun.text.find([',', ' ', '\t', '\r', '\n']).unwrap_or(begun.text.len());
    let (command, rest) = match COMMANDS.iter().find(|(word, _)| len != 0 && word.starts_with(&begun.text[..len])) {
        Some((_, command)) => (*command, begun.part(len, begun.text.len())),
        None => (GroupCommand::Add, text),
    };
    read(rest, command, names, owner)
}

/// Reads a group file as `ovs-ofctl add-groups` does: one group or change a line; `#` begins a comment. `path` is what
/// messages and owners call the file: without `owner=`, the group of line N belongs to `file:PATH:N`.
///
/// # Errors
/// The first line that [`parse_group_line`] refuses, with its number.
pub fn parse_group_file(path: &str, text: &str, names: &Names) -> Result<Vec<GroupMod>, ParseError> {
    let label: Arc<str> = path.into();
    super::flow_lines(text)
        .map(|(number, line)| {
            parse_group_line(&Owner::file_line(path, number), line, names).map_err(|error| error.at(&label, number))
        })
        .collect()
}
