//! The topology of a lab, in three steps: what the file says ([`raw`]), what will be made ([`resolved`]), and what runs
//! (the lab's state file).
//!
//! Every mistake is reported with its line, all of them at once, and an unknown word comes with the nearest known one.
//! What the format knows but this version cannot do is refused by name: a lab never comes up different from its file.

pub(crate) mod files;
pub(crate) mod preset;
mod raw;
mod resolve;
pub(crate) mod resolved;
pub(crate) mod write;
mod yaml;

#[cfg(test)]
mod tests;

use crate::failure::Failure;
use crate::output::Exit;
pub(crate) use raw::{NAME_RULE, closest, is_name, nearest};
pub(crate) use resolve::MAX_LINKS;
pub(crate) use resolved::Topology;
use std::path::{Path, PathBuf};

/// One mistake in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, counted from 1; 0 when there is no file.
    pub(crate) line: usize,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
    /// The place comes behind the message, because that begins with what it is about: something on another line.
    behind: bool,
}

impl Problem {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), behind: false }
    }

    fn behind(line: usize, message: impl Into<String>) -> Self {
        Self { behind: true, ..Self::new(line, message) }
    }
}

/// Everything that is wrong with a topology.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopologyError {
    source: String,
    problems: Vec<Problem>,
}

impl TopologyError {
    const SHOWN: usize = 20;

    fn new(source: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.line);
        Self { source: source.to_owned(), problems }
    }

    /// Every mistake, in the order of the file.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// A mistake with its place, for a person.
    pub(crate) fn told(&self, problem: &Problem) -> String {
        match problem.line {
            0 => format!("{}: {}", self.source, problem.message),
            line if problem.behind => format!("{} ({}:{line})", problem.message, self.source),
            line => format!("{}:{line}: {}", self.source, problem.message),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.problems.iter().take(Self::SHOWN).map(|problem| self.told(problem)).collect();
        if self.problems.len() > Self::SHOWN {
            lines.push(format!("and {} more", self.problems.len() - Self::SHOWN));
        }
        lines
    }
}

impl From<TopologyError> for Failure {
    fn from(error: TopologyError) -> Self {
        Self::new(error.lines().join("\nerror: ")).exit(Exit::Usage)
    }
}

/// Parses and resolves the text of the topology file `source`.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn parse(text: &str, source: &str) -> Result<Topology, TopologyError> {
    let mut problems = Vec::new();
    let topology = yaml::parse(text).map_err(|p| TopologyError::new(source, vec![p])).map(|root| {
        let raw = raw::read(&root, &mut problems);
        // Half-read files make misleading second errors.
        if problems.is_empty() { resolve::resolve(&raw, source, &mut problems) } else { None }
    })?;
    topology.filter(|_| problems.is_empty()).ok_or_else(|| TopologyError::new(source, problems))
}

/// As [`parse`], and reads the files of flows that it names.
///
/// # Errors
/// Every mistake in it, or in these files.
pub(crate) fn examine(text: &str, source: &str) -> Result<Topology, TopologyError> {
    let mut problems = Vec::new();
    let mut topology = parse(text, source)?;
    files::read(&mut topology, &mut problems);
    if problems.is_empty() { Ok(topology) } else { Err(TopologyError::new(source, problems)) }
}

/// Reads and resolves a topology file.
///
/// # Errors
/// The file cannot be read, or every mistake in it.
pub(crate) fn load(path: &Path) -> Result<Topology, Failure> {
    Ok(examine(&read(path)?, &path.display().to_string())?)
}

/// The text of a topology file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()))
            .next("sluice lab up --topo single,2 needs no file")
    })
}

/// Finds the topology of the current folder: the one `*.lab.yml`, or the only `*.yml` with a `lab:` key.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn find(folder: &Path) -> Result<PathBuf, Failure> {
    let unreadable = |error| Failure::usage(format!("cannot list {}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yml" || e == "yaml") && path.is_file())
        .collect();
    files.sort();
    let marked = |path: &PathBuf| {
        path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|extension| extension == "lab"))
    };
    let mut found: Vec<_> = files.iter().filter(|path| marked(path)).cloned().collect();
    if found.is_empty() {
        found = files.into_iter().filter(|path| has_lab_key(path)).collect();
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path)),
        Err(found) if found.is_empty() => Err(Failure::usage("no topology file in this folder")
            .why("looked for *.lab.yml, and for a *.yml with the key `lab:`")
            .next("sluice lab up FILE, or sluice lab up --topo single,2")),
        Err(found) => {
            let names: Vec<_> = found.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(Failure::usage(format!("more than one topology file in this folder: {}", names.join(", ")))
                .next(format!("sluice lab up {}", names.first().map_or("FILE", |n| n.as_ref()))))
        }
    }
}

fn has_lab_key(path: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    match yaml::parse(&text) {
        Ok(root) => raw::has_lab_key(&root),
        // A file with a mistake in it is still the one that is meant.
        Err(_) => text.lines().any(|line| line.starts_with("lab:")),
    }
}
