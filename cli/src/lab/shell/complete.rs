//! What the Tab key offers: nodes, links and verbs with what is below them.

use super::line::{LINK_VERBS, OWN, is_bridge};
use super::verbs::Verbs;
use crate::lab::exec::ALL;
use crate::lab::topology::Topology;
use crate::lab::topology::resolved::IMPAIRMENTS;
use clap::Command;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// What can be completed: the names of one lab.
pub(super) struct Completion {
    topology: Topology,
    verbs: Verbs,
}

impl Completion {
    pub(super) fn new(topology: &Topology, verbs: Verbs) -> Self {
        Self { topology: topology.clone(), verbs }
    }

    /// What may stand behind these words.
    fn behind(&self, words: &[&str], is_option: bool) -> Vec<String> {
        let topology = &self.topology;
        let nodes = || topology.node_names().map(str::to_owned);
        let [first, rest @ ..] = words else {
            let own = OWN.iter().map(|(word, ..)| (*word).to_owned());
            let verbs = self.verbs.all().map(|(verb, _)| verb.to_owned());
            return nodes().chain([ALL.to_owned()]).chain(own).chain(verbs).collect();
        };
        let (verb, rest) = match self.verbs.find(first) {
            Some((_, verb)) => (verb, rest),
            None if is_bridge(topology, first) => match rest {
                [] => return self.verbs.of_node().map(|(verb, _)| verb.to_owned()).collect(),
                [verb, rest @ ..] => match self.verbs.find(verb) {
                    Some((_, verb)) => (verb, rest),
                    None => return Vec::new(),
                },
            },
            None => return nodes().chain(rest.is_empty().then(|| "ping".to_owned())).collect(),
        };
        if is_option {
            return options(below(verb, rest));
        }
        match (*first, rest) {
            ("help", _) => self.verbs.all().map(|(verb, _)| verb.to_owned()).collect(),
            ("link", _) => self.of_link(rest),
            ("ping" | "pingall" | "trace", _) | ("sh" | "exec", []) => hosts(topology, |_| true),
            ("logs", _) => hosts(topology, |host| host.run.is_some()),
            ("capture", []) => nodes().chain(links(topology)).collect(),
            ("test", [.., "-t" | "--test"]) => topology.tests.iter().map(|test| test.name.clone()).collect(),
            (_, rest) => below(verb, rest).get_subcommands().map(|verb| verb.get_name().to_owned()).collect(),
        }
    }

    fn of_link(&self, words: &[&str]) -> Vec<String> {
        let verbs = || LINK_VERBS.map(str::to_owned).into_iter();
        let nodes = || self.topology.node_names().map(str::to_owned);
        let is_node = |word: &str| self.topology.node_names().any(|node| node == word);
        let typed = words.iter().find(|word| LINK_VERBS.contains(word));
        let named = words.iter().filter(|word| !LINK_VERBS.contains(word)).count();
        let complete = named > 1 || named == 1 && words.iter().all(|word| !is_node(word));
        match typed {
            Some(&"set") if complete => IMPAIRMENTS.iter().map(|name| format!("{name}=")).collect(),
            Some(_) if complete => Vec::new(),
            None if complete => verbs().collect(),
            None if named == 0 => verbs().chain(links(&self.topology)).chain(nodes()).collect(),
            Some(_) if named == 0 => links(&self.topology).chain(nodes()).collect(),
            _ => nodes().collect(),
        }
    }
}

fn hosts(topology: &Topology, wanted: impl Fn(&crate::lab::topology::resolved::Host) -> bool) -> Vec<String> {
    topology.hosts.iter().filter(|host| wanted(host)).map(|host| host.name.clone()).collect()
}

fn links(topology: &Topology) -> impl Iterator<Item = String> {
    topology.links.iter().map(|link| link.name.clone())
}

/// The verb that the words lead to.
fn below<'a>(verb: &'a Command, words: &[&str]) -> &'a Command {
    words.iter().fold(verb, |verb, word| verb.find_subcommand(word).unwrap_or(verb))
}

fn options(verb: &Command) -> Vec<String> {
    let longs = verb.get_arguments().filter(|argument| !argument.is_hide_set()).filter_map(|a| a.get_long());
    longs.map(|long| format!("--{long}")).collect()
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(candidates(self, &line[..at]))
    }
}

/// Where the last word of a line begins, and what it may become.
fn candidates(completion: &Completion, line: &str) -> (usize, Vec<Pair>) {
    let start =
        line.rfind(char::is_whitespace).map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
    let (words, begun) = (line[..start].split_whitespace().collect::<Vec<_>>(), &line[start..]);
    let mut found = completion.behind(&words, begun.starts_with('-'));
    found.retain(|word| word.starts_with(begun));
    found.sort_unstable();
    found.dedup();
    let pair = |display: String| {
        let end = if display.ends_with('=') { "" } else { " " };
        Pair { replacement: format!("{display}{end}"), display }
    };
    (start, found.into_iter().map(pair).collect())
}

impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::super::office;
    use super::*;

    #[track_caller]
    fn offers(line: &str, wanted: &[&str]) {
        let (start, found) = candidates(&Completion::new(&office(), Verbs::new()), line);
        let found: Vec<_> = found.into_iter().map(|pair| format!("{}{}", &line[..start], pair.replacement)).collect();
        for wanted in wanted {
            assert!(found.iter().any(|line| line == wanted), "{line:?}: no {wanted:?} in {found:?}");
        }
        assert_eq!(found.is_empty(), wanted.is_empty(), "{line:?}: {found:?}");
    }

    #[test]
    fn what_fits_where_the_cursor_is_is_offered() {
        offers("", &["h1 ", "s1 ", "r1 ", "ping ", "link ", "trace ", "exit ", "all "]);
        offers("pi", &["ping "]);
        offers("h1 p", &["h1 ping "]);
        offers("h1 ping -c 1 w", &["h1 ping -c 1 web "]);
        offers("s1 f", &["s1 fdb ", "s1 flows "]);
        offers("s1 flows d", &["s1 flows dump ", "s1 flows del "]);
        offers("flows dump --n", &["flows dump --nonzero ", "flows dump --names "]);
        offers("link ", &["link down ", "link wan ", "link h1 "]);
        offers("link down w", &["link down wan ", "link down web "]);
        offers("link wan d", &["link wan down "]);
        offers("link h1 s1 u", &["link h1 s1 up "]);
        offers("link set wan l", &["link set wan loss="]);
        offers("logs ", &["logs web "]);
        offers("test -t r", &["test -t routed "]);
        offers("nothing x", &[]);
        offers("é\u{3000}h", &["é\u{3000}h1 "]);
    }
}
