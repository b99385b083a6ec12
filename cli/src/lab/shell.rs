//! `sluice lab shell`: a prompt at which a lab is used as mininet's users know it: `h1 ping h2`, `link h1 s1 down`.
//!
//! A line is made into a command line of this program ([`line`]), which runs as a process of its own: verbs that go into
//! a lab leave the namespaces of their process for good. So every verb is here as it is anywhere else, and Ctrl-C ends the
//! verb and not the shell.

mod complete;
mod line;
mod own;
mod substitute;
mod verbs;

use super::enter;
use super::state::State;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use complete::Completion;
use line::{Own, Wish};
use nix::sys::signal::{SigSet, Signal};
use rustyline::config::{Config, Configurer};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};
use std::io::{self, BufRead, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use verbs::Verbs;

/// Lines that are remembered from one shell to the next.
const REMEMBERED: usize = 1000;
/// The code of a command that Ctrl-C has ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Arguments of `sluice lab shell`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab shell                        a prompt; `help` there says what can be typed
  sluice lab shell -c 'h1 ping h2' -c 's1 fdb'
  sluice lab shell office < check.txt     a script: a command a line, # begins a comment

Of a script or of -c the exit code is that of the first command that failed.")]
pub(crate) struct Shell {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    /// A command, instead of a prompt; may be given several times
    #[arg(short, long = "command", value_name = "LINE")]
    commands: Vec<String>,
    /// End at the first command that fails
    #[arg(short, long)]
    errexit: bool,
    #[command(flatten)]
    target: super::Target,
}

/// Runs the shell.
pub(crate) fn run(args: &Shell, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table])?;
    let (lab, state) = super::running(args.name.as_deref().or(args.target.lab.as_deref()))?;
    let mut session = Session { lab, verbs: Verbs::new(), out };
    if !args.commands.is_empty() {
        let lines = args.commands.iter().map(|line| Ok(line.clone()));
        return session.script(lines, args.errexit, Stdio::inherit);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        // What runs must not read the lines that are still to come.
        return session.script(stdin.lock().lines(), args.errexit, Stdio::null);
    }
    session.prompt(&state)
}

/// What became of a line.
enum Done {
    Ran(Exit),
    /// The person wants no more.
    Leave,
}

/// A shell of one lab.
struct Session<'a> {
    lab: String,
    verbs: Verbs,
    out: &'a mut Output,
}

impl Session<'_> {
    /// The lab as it runs now; it may have been taken down, or brought up anew, since the last line.
    fn state(&self) -> Result<State, Failure> {
        super::running(Some(&self.lab)).map(|(_, state)| state)
    }

    /// Runs every line, and says of each that failed which one it was.
    fn script(
        &mut self,
        lines: impl Iterator<Item = io::Result<String>>,
        errexit: bool,
        stdin: fn() -> Stdio,
    ) -> Result<Exit, Failure> {
        let mut first = Exit::Yes;
        for (index, line) in lines.enumerate() {
            let line = line.map_err(|error| Failure::usage(format!("cannot read line {}: {error}", index + 1)))?;
            let state = self.state()?;
            let exit = match self.obey(&line, &state, stdin()) {
                Ok(Done::Ran(exit)) => exit,
                Ok(Done::Leave) => break,
                Err(failure) if failure.is_closed_pipe() => return Err(failure),
                Err(failure) => {
                    self.out.talk(failure.to_string())?;
                    failure.exit_code()
                }
            };
            if exit.code() != 0 {
                self.out.talk(format!("line {} ended with code {}: {}", index + 1, exit.code(), line.trim()))?;
                first = if first.code() == 0 { exit } else { first };
                if errexit {
                    break;
                }
            }
        }
        Ok(first)
    }

    /// Asks for lines until there is no more.
    fn prompt(&mut self, state: &State) -> Result<Exit, Failure> {
        // The terminal's keys go to the command that runs; while none does, the editor reads them as characters.
        let keys = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
        keys.thread_block().map_err(|errno| Failure::new(format!("cannot block signals: {errno}")))?;
        let size = super::view::size(&state.topology);
        self.out.talk(format!("{}: {size}   help says what can be typed, Ctrl-D leaves", self.lab))?;
        let failed = |error: ReadlineError| Failure::new(format!("cannot read from the terminal: {error}"));
        let mut editor: Editor<Completion, FileHistory> =
            Editor::with_config(config().map_err(failed)?).map_err(failed)?;
        let history = history();
        if let Some(path) = &history {
            // There is none before the first shell.
            _ = editor.load_history(path);
        }
        let prompt = format!("{}> ", self.lab);
        loop {
            let state = self.state()?;
            editor.set_helper(Some(Completion::new(&state.topology, self.verbs.clone())));
            let line = match editor.readline(&prompt) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(failed(error)),
            };
            // It may have been taken down while we waited.
            let state = self.state()?;
            match self.obey(&line, &state, Stdio::inherit()) {
                // The next prompt is not to stand behind the ^C.
                Ok(Done::Ran(exit)) if exit.code() == INTERRUPTED => self.out.talk("")?,
                Ok(Done::Ran(_)) => {}
                Ok(Done::Leave) => break,
                Err(failure) => self.out.talk(failure.to_string())?,
            }
            // A history that cannot be kept is no reason to stop.
            if let Some(path) = &history {
                _ = editor.append_history(path);
            }
        }
        Ok(Exit::Yes)
    }

    fn obey(&mut self, line: &str, state: &State, stdin: Stdio) -> Result<Done, Failure> {
        match line::read(line, &state.topology, &self.verbs)? {
            Wish::Nothing => Ok(Done::Ran(Exit::Yes)),
            Wish::Own(Own::Leave) => Ok(Done::Leave),
            Wish::Own(own) => {
                own::show(own, &state.topology, &self.verbs, self.out)?;
                self.out.flush()?;
                Ok(Done::Ran(Exit::Yes))
            }
            Wish::Verb(words) => self.run(&words, stdin).map(Done::Ran),
        }
    }

    /// Runs this program.
    fn run(&mut self, words: &[String], stdin: Stdio) -> Result<Exit, Failure> {
        self.out.flush()?;
        let color = if self.out.is_colored() { "always" } else { "never" };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sluice").args(["--color", color]).args(words).stdin(stdin);
        let status = command.status().map_err(|error| Failure::new(format!("cannot start a command: {error}")))?;
        Ok(enter::exit(status))
    }
}

fn config() -> rustyline::Result<Config> {
    let mut config = Config::builder().max_history_size(REMEMBERED)?.history_ignore_dups(true)?.build();
    config.set_completion_type(CompletionType::List);
    config.set_auto_add_history(true);
    Ok(config)
}

/// Where lines are remembered; nowhere for a user without a home.
fn history() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = given("XDG_STATE_HOME").or_else(|| Some(given("HOME")?.join(".local/state")))?.join("sluice");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("lab-shell-history"))
}

/// A lab that the tests of every part use.
#[cfg(test)]
fn office() -> super::topology::Topology {
    let text = "
lab: office
vlans:
  blue:  {id: 10, subnet: 10.0.10.0/24, gateway: r1}
  green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}
routers: {r1: {}}
switches: {s1: {}, s2: {}}
hosts: {h1: {}, h2: {ip: 10.0.10.12}, web: {ip: 10.0.20.80, run: sleep 1}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [h2, s2], access: blue}
  - {ends: [web, s2], access: green}
  - {ends: [r1, s1], trunk: [blue, green]}
  - {ends: [s1, s2], name: wan, trunk: [blue, green], delay: 20ms}
tests:
  - {name: routed, tcp: [h1, 'web:80']}
";
    super::topology::parse(text, "office.yml").unwrap()
}
