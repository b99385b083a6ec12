//! The verbs that the shell knows: those of this program that are about a running lab, as the command tree has them.

use crate::args::Cli;
use clap::{Command, CommandFactory};

/// Another word for a verb, mininet's.
const PINGALL: (&str, &str) = ("pingall", "ping");

/// Verbs that are about clusters, containers and the machine, though they can be asked of any switch; and `lab`, whose verbs
/// are here without it.
const OTHERS: [&str; 5] = ["lab", "gateway", "log", "svc", "cni"];

/// The command tree.
#[derive(Clone)]
pub(super) struct Verbs {
    tree: Command,
}

impl Verbs {
    pub(super) fn new() -> Self {
        Self { tree: Cli::command() }
    }

    /// Every verb with what it does, those of `sluice lab` first.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, String)> {
        let lab = || self.tree.find_subcommand("lab").into_iter().flat_map(Command::get_subcommands);
        let is_lab = move |verb: &Command| lab().any(|other| other.get_name() == verb.get_name());
        let own = lab().filter(|verb| is_shown(verb));
        let others = self.tree.get_subcommands().filter(move |verb| is_shown(verb) && !is_lab(verb));
        own.chain(others).map(|verb| (verb.get_name(), verb.get_about().map(ToString::to_string).unwrap_or_default()))
    }

    /// How this program calls a verb of the shell: its words, and what the tree says of it.
    pub(super) fn find(&self, word: &str) -> Option<(Vec<String>, &Command)> {
        let word = if word == PINGALL.0 { PINGALL.1 } else { word };
        let lab = self.tree.find_subcommand("lab")?;
        if let Some(verb) = lab.find_subcommand(word).filter(|verb| is_shown(verb)) {
            return Some((vec!["lab".to_owned(), word.to_owned()], verb));
        }
        let verb = self.tree.find_subcommand(word).filter(|verb| is_shown(verb))?;
        Some((vec![word.to_owned()], verb))
    }

    /// The verbs that take a switch or a router, and by which option.
    pub(super) fn of_node(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let option = |verb| ["router", "bridge"].into_iter().find(|option| takes(verb, option));
        let verbs = self.tree.get_subcommands().filter(|verb| is_shown(verb));
        verbs.filter_map(move |verb| Some((verb.get_name(), option(verb)?)))
    }
}

/// Whether a verb is about a lab that runs, and is not the shell itself.
fn is_shown(verb: &Command) -> bool {
    !verb.is_hide_set() && verb.get_name() != "shell" && !OTHERS.contains(&verb.get_name()) && takes(verb, "lab")
}

/// Whether a verb, or one of those below it, has an option.
pub(super) fn takes(verb: &Command, option: &str) -> bool {
    let own = verb.get_arguments().any(|argument| argument.get_long() == Some(option));
    own || verb.get_subcommands().any(|below| takes(below, option))
}
