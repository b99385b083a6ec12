//! What a line of the shell means.
//!
//! ```text
//! NODE COMMAND...            in a host, by the machine's /bin/sh: pipes and redirections are the host's
//! NODE ping NODE...          our own ping, which needs no program and ends
//! NODE VERB...               a switch's or router's: flows, ports, fdb, routes
//! link NODE NODE VERB...     as mininet has it; also `link NAME VERB` and `link VERB NAME`
//! VERB...                    as this program has it
//! ```

use super::substitute::addresses;
use super::verbs::Verbs;
use crate::failure::Failure;
use crate::lab::exec::ALL;
use crate::lab::topology::Topology;
use crate::lab::topology::closest;
use crate::lab::topology::resolved::End;
use clap::Command;

/// What is the shell's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Help,
    Nodes,
    Links,
    Leave,
}

/// The shell's own words, with what they do.
pub(super) const OWN: &[(&str, Own, &str)] = &[
    ("nodes", Own::Nodes, "The nodes with their addresses"),
    ("links", Own::Links, "The links with their ends and what they carry"),
    ("help", Own::Help, "This; `help VERB` says more of a verb"),
    ("exit", Own::Leave, "Leave; the lab goes on. So does Ctrl-D, and `quit`"),
    ("quit", Own::Leave, ""),
];

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Own(Own),
    /// A command line of this program.
    Verb(Vec<String>),
}

/// The verbs of `link`, of which the first is meant when none is typed.
pub(super) const LINK_VERBS: [&str; 5] = ["show", "set", "down", "up", "flap"];

/// Reads a line.
///
/// # Errors
/// A quote is not closed, or the first words are nothing that the shell knows.
pub(super) fn read(line: &str, topology: &Topology, verbs: &Verbs) -> Result<Wish, Failure> {
    let line = line.trim();
    let first = line.split_whitespace().next().unwrap_or_default();
    if first.is_empty() || first.starts_with('#') {
        return Ok(Wish::Nothing);
    }
    let is_verb = verbs.find(first).is_some() || OWN.iter().any(|(word, ..)| *word == first);
    if !is_verb && (first == ALL || has_namespace(topology, first)) {
        let command = line[first.len()..].trim();
        if let Some(wish) = in_node(first, command, topology, verbs)? {
            return Ok(wish);
        }
    }
    let words = split(line)?;
    let [first, rest @ ..] = words.as_slice() else { return Ok(Wish::Nothing) };
    if !is_verb && is_bridge(topology, first) {
        return of_bridge(first, rest, topology, verbs).map(Wish::Verb);
    }
    if let Some((_, own, _)) = OWN.iter().find(|(word, ..)| word == first) {
        return match (own, rest) {
            (_, []) => Ok(Wish::Own(*own)),
            (Own::Help, [verb, ..]) => help(verb, rest, verbs),
            _ => Err(Failure::usage(format!("`{first}` takes nothing behind it"))),
        };
    }
    let Some((call, verb)) = verbs.find(first) else { return Err(unknown(first, topology, verbs)) };
    let rest = if first == "link" { link(rest, topology)? } else { rest.to_vec() };
    let words = call.into_iter().chain(complete(verb, rest)).collect();
    Ok(Wish::Verb(with_option(words, "lab", &topology.name)))
}

fn split(line: &str) -> Result<Vec<String>, Failure> {
    shlex::split(line).ok_or_else(|| Failure::usage(format!("a quote or a backslash is left open: {line}")))
}

/// A command in a host; `None` when it is a verb of the switch that has this namespace.
fn in_node(node: &str, command: &str, topology: &Topology, verbs: &Verbs) -> Result<Option<Wish>, Failure> {
    if command.is_empty() {
        let next = format!("`{node} ip addr`, or `sh {node}` for a shell there");
        return Err(Failure::usage(format!("which command is to run in {node}?")).next(next));
    }
    if is_bridge(topology, node) {
        let word = command.split_whitespace().next().unwrap_or_default();
        if verbs.of_node().any(|(verb, _)| verb == word) {
            return Ok(None);
        }
    }
    let is_host = |name: &str| topology.host(name).is_some();
    let words: Vec<_> = command.split_whitespace().collect();
    let words = match words.as_slice() {
        ["ping", others @ ..] if !others.is_empty() && is_host(node) && others.iter().all(|other| is_host(other)) => {
            let hosts = [node].into_iter().chain(others.iter().copied());
            with_option(["lab", "ping"].into_iter().chain(hosts).map(str::to_owned).collect(), "lab", &topology.name)
        }
        _ => {
            let script = addresses(command, node, topology);
            let call = ["lab", "exec", node, "--lab", &topology.name, "--", "/bin/sh", "-c", &script];
            call.map(str::to_owned).to_vec()
        }
    };
    Ok(Some(Wish::Verb(words)))
}

/// A verb of one switch or router.
fn of_bridge(node: &str, words: &[String], topology: &Topology, verbs: &Verbs) -> Result<Vec<String>, Failure> {
    let known: Vec<_> = verbs.of_node().collect();
    let names = || known.iter().map(|(verb, _)| *verb);
    let [word, rest @ ..] = words else {
        return Err(Failure::usage(format!("what of {node}?")).next(format!("`{node} VERB`: {}", list(names()))));
    };
    let Some((_, option)) = known.iter().find(|(verb, _)| verb == word) else {
        let failure = Failure::usage(format!("{node} has no `{word}`{}", closest(word, names())));
        return Err(failure.next(format!("`{node} VERB`: {}", list(names()))));
    };
    let of = match *option {
        // The router inside of a switch has a name of its own.
        "router" => {
            let is_it = |router: &&crate::lab::topology::resolved::Router| {
                router.name == node || router.inside.as_ref().is_some_and(|inside| inside.switch == node)
            };
            let router = topology.routers.iter().find(is_it);
            router.map(|router| router.name.as_str()).ok_or_else(|| {
                Failure::usage(format!("{node} does not route")).why("it is a switch that no VLAN has as its gateway")
            })?
        }
        _ => node,
    };
    let Some((call, verb)) = verbs.find(word) else { return Err(unknown(word, topology, verbs)) };
    let words = call.into_iter().chain(complete(verb, rest.to_vec())).collect();
    Ok(with_option(with_option(words, option, of), "lab", &topology.name))
}

/// `flows` alone means `flows dump`.
fn complete(verb: &Command, mut words: Vec<String>) -> Vec<String> {
    const DUMP: &str = "dump";
    let is_below = words.first().is_some_and(|word| word == "help" || verb.find_subcommand(word).is_some());
    if verb.find_subcommand(DUMP).is_some() && !is_below {
        words.insert(0, DUMP.to_owned());
    }
    words
}

/// The words with an option, unless it was typed; what follows `--` is no option's place.
fn with_option(mut words: Vec<String>, option: &str, value: &str) -> Vec<String> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let long = format!("--{option}");
    if !words[..end].iter().any(|word| *word == long || word.starts_with(&format!("{long}="))) {
        words.splice(end..end, [long, value.to_owned()]);
    }
    words
}

/// The words behind `link` as `sluice lab link` wants them: the verb, then the link's name.
fn link(words: &[String], topology: &Topology) -> Result<Vec<String>, Failure> {
    let is_verb = |word: &String| LINK_VERBS.contains(&word.as_str());
    let (verb, words) = match words {
        [] => return Ok(vec![LINK_VERBS[0].to_owned()]),
        [verb, rest @ ..] if is_verb(verb) => (Some(verb), rest),
        _ => (None, words),
    };
    let (name, rest) = match words {
        [a, b, rest @ ..] if is_node(topology, a) && is_node(topology, b) => (between(topology, a, b)?, rest),
        [name, rest @ ..] if topology.links.iter().any(|link| link.name == *name) => (name.clone(), rest),
        // What is wrong with it, the verb itself says.
        _ => return Ok(verb.into_iter().chain(words).cloned().collect()),
    };
    let (verb, rest) = match (verb, rest) {
        (Some(verb), rest) => (verb.clone(), rest),
        (None, [verb, rest @ ..]) if is_verb(verb) => (verb.clone(), rest),
        (None, []) => (LINK_VERBS[0].to_owned(), rest),
        (None, [word, ..]) => {
            let near = closest(word, LINK_VERBS.into_iter());
            return Err(Failure::usage(format!("a link has no `{word}`{near}"))
                .next(format!("`link {name} VERB`: {}", list(LINK_VERBS.into_iter()))));
        }
    };
    Ok([verb, name].into_iter().chain(rest.iter().cloned()).collect())
}

/// The name of the only link of two nodes.
fn between(topology: &Topology, a: &str, b: &str) -> Result<String, Failure> {
    let joins = |ends: [&str; 2]| ends == [a, b] || ends == [b, a];
    let names: Vec<_> =
        topology.links.iter().filter(|l| joins(l.ends.each_ref().map(End::node))).map(|l| l.name.as_str()).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        [] => Err(Failure::usage(format!("no link joins {a} and {b}")).next("links")),
        _ => Err(Failure::usage(format!("more than one link joins {a} and {b}"))
            .next(format!("say which: {}", list(names.iter().copied())))),
    }
}

fn help(verb: &str, words: &[String], verbs: &Verbs) -> Result<Wish, Failure> {
    let Some((call, _)) = verbs.find(verb) else {
        return Err(Failure::usage(format!("there is no verb `{verb}`{}", closest(verb, verbs.all().map(|(v, _)| v)))));
    };
    Ok(Wish::Verb(call.into_iter().chain(words[1..].iter().cloned()).chain(["--help".to_owned()]).collect()))
}

fn unknown(word: &str, topology: &Topology, verbs: &Verbs) -> Failure {
    let own = OWN.iter().map(|(word, ..)| *word);
    let near = closest(word, topology.node_names().chain(own).chain(verbs.all().map(|(verb, _)| verb)));
    Failure::usage(format!("`{word}` is no node of the lab {} and no verb{near}", topology.name))
        .next("help says what can be typed")
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn has_namespace(topology: &Topology, name: &str) -> bool {
    topology.host(name).is_some() || topology.stacks().contains(&name)
}

/// Whether a node has a bridge.
pub(super) fn is_bridge(topology: &Topology, name: &str) -> bool {
    topology.switches.iter().any(|switch| switch.name == name)
        || topology.own_routers().any(|router| router.name == name)
}

fn is_node(topology: &Topology, name: &str) -> bool {
    topology.node_names().any(|node| node == name)
}

#[cfg(test)]
mod tests {
    use super::super::office;
    use super::*;

    fn words(line: &str) -> String {
        match read(line, &office(), &Verbs::new()).unwrap() {
            Wish::Verb(words) => words.join(" "),
            other => format!("{other:?}"),
        }
    }

    #[track_caller]
    fn fails(line: &str, part: &str) {
        let failure = read(line, &office(), &Verbs::new()).unwrap_err();
        assert_eq!(failure.exit_code(), crate::output::Exit::Usage);
        assert!(failure.to_string().contains(part), "{line}: no {part:?} in {failure}");
    }

    #[test]
    fn a_hosts_command_is_a_line_of_a_shell_there() {
        let inside = "lab exec h1 --lab office -- /bin/sh -c";
        assert_eq!(words("h1 ip route | head -1"), format!("{inside} ip route | head -1"));
        assert_eq!(words("  h1 ping -c 1 h2 "), format!("{inside} ping -c 1 10.0.10.12"));
        assert_eq!(words("h1 echo 'a  b' \"$X\""), format!("{inside} echo 'a  b' \"$X\""));
        assert_eq!(words("all hostname"), "lab exec all --lab office -- /bin/sh -c hostname");
        fails("h1", "which command");
    }

    #[test]
    fn pings_by_names_alone_are_our_own() {
        assert_eq!(words("h1 ping h2"), "lab ping h1 h2 --lab office");
        assert_eq!(words("ping"), "lab ping --lab office");
        assert_eq!(words("pingall -c 2"), "lab ping -c 2 --lab office");
        assert_eq!(words("ping h1 web"), "lab ping h1 web --lab office");
    }

    #[test]
    fn what_is_asked_of_a_switch_is_asked_of_its_bridge() {
        assert_eq!(words("s1 flows"), "flows dump --bridge s1 --lab office");
        assert_eq!(words("s1 flows tcp --nonzero"), "flows dump tcp --nonzero --bridge s1 --lab office");
        let line = "s2 flows add 'priority=9,tcp actions=drop'";
        assert_eq!(words(line), "flows add priority=9,tcp actions=drop --bridge s2 --lab office");
        assert_eq!(words("s1 fdb flush"), "fdb flush --bridge s1 --lab office");
        assert_eq!(words("r1 ports"), "ports --bridge r1 --lab office");
        assert_eq!(words("r1 routes get 10.0.10.12"), "routes get 10.0.10.12 --router r1 --lab office");
        fails("s1 routes", "s1 does not route");
        fails("s1 flosw", "did you mean `flows`");
        fails("s1", "what of s1");
    }

    #[test]
    fn a_link_is_named_or_told_by_its_ends_on_either_side_of_the_verb() {
        for line in ["link down wan", "link wan down", "link s1 s2 down", "link s2 s1 down", "link down s1 s2"] {
            assert_eq!(words(line), "lab link down wan --lab office", "{line}");
        }
        assert_eq!(words("link"), "lab link show --lab office");
        assert_eq!(words("link h1 s1"), "lab link show h1-s1 --lab office");
        assert_eq!(words("link wan set loss=5% --from s2"), "lab link set wan loss=5% --from s2 --lab office");
        assert_eq!(words("link flap wan --times 2"), "lab link flap wan --times 2 --lab office");
        fails("link wan dwon", "did you mean `down`");
        fails("link h1 h2 down", "no link joins h1 and h2");
    }

    #[test]
    fn other_verbs_are_as_anywhere_but_for_the_lab() {
        assert_eq!(words("trace h1 web:80 tcp"), "trace h1 web:80 tcp --lab office");
        assert_eq!(words("test -t routed"), "lab test -t routed --lab office");
        assert_eq!(words("drops --lab other"), "drops --lab other");
        assert_eq!(words("exec h1 -- ls -l"), "lab exec h1 --lab office -- ls -l");
        assert_eq!(words("help link set"), "lab link set --help");
        assert_eq!(words("quit"), "Own(Leave)");
        assert_eq!(words("nodes"), "Own(Nodes)");
        assert_eq!((words(""), words(" # s1 flows")), ("Nothing".to_owned(), "Nothing".to_owned()));
    }

    #[test]
    fn a_bad_word_is_told_with_the_nearest() {
        fails("pnig", "did you mean `ping`");
        fails("wbe curl h1", "did you mean `web`");
        fails("up office.yml", "no verb");
        fails("svc", "no verb");
        fails("help lnik", "did you mean `link`");
        fails("nodes h1", "takes nothing");
        fails("trace 'h1", "left open");
    }
}
