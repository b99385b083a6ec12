//! `sluice lab shell`: scripts, commands of the command line, and a prompt in a terminal.

use super::terminal::Terminal;
use super::{Said, User, is_root};
use std::io::Write;
use std::process::Stdio;

/// Runs the shell with these lines as its standard input.
fn script(user: &User, args: &[&str], lines: &str) -> Said {
    let mut command = user.command(&[&["lab", "shell"], args].concat());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn a_script_runs_to_its_end_and_tells_of_the_first_that_failed() {
    if !is_root("a script of the lab's shell") {
        return;
    }
    let user = User::new();
    user.fails("lab shell -c nodes", 69, &["no lab is running"]);
    user.ok("lab up --topo single,3 --name hello");
    let lines = "\
# the first lines
h1 ping h2
h1 cat /sys/class/net/eth0/address; cat
h1 echo h2 'h2' | tr . -

s1 flows
trace h1 h3:80 tcp
link h2 s1 down
h1 exit 7
ping h1 h2
link h2-s1 up
pnig
nodes
";
    let said = script(&user, &[], lines);
    assert_eq!(said.code, 7, "{said:#?}");
    let wanted = [
        "2/2 pairs reachable",
        "02:00:00:00:00:01\n",
        "10-0-0-2 h2\n",
        "TABLE  PRIO",
        "DELIVERED",
        "0/2",
        "h3    host",
    ];
    let mut rest = said.out.as_str();
    for part in wanted {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?}, in this order, in {said:#?}"));
        rest = &rest[at..];
    }
    for part in ["line 9 ended with code 7: h1 exit 7", "line 10 ended with code 1", "did you mean `ping`", "line 12"] {
        assert!(said.err.contains(part), "no {part:?} in {said:#?}");
    }
    assert!(!said.err.contains("line 11"), "{said:#?}");

    let said = script(&user, &["hello", "-e"], "h1 false\nnodes\n");
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let said = user.command(&["lab", "shell", "-c", "all hostname", "-c", "exit", "-c", "h1 false"]).output().unwrap();
    let mut names: Vec<_> = std::str::from_utf8(&said.stdout).unwrap().lines().collect();
    names.sort_unstable();
    assert_eq!((said.status.code(), names), (Some(0), vec!["h1: h1", "h2: h2", "h3: h3"]));
    // The lab is gone in the middle of a script.
    let said = script(&user, &[], "down\nnodes\n");
    assert_eq!(said.code, 69, "{said:#?}");
}

#[test]
fn a_prompt_completes_remembers_and_outlives_ctrl_c() {
    if !is_root("the lab's shell in a terminal") {
        return;
    }
    let user = User::new();
    user.ok("lab up --topo single,2 --name hello");
    let folder = user.folder.path().display().to_string();
    let environment = format!("env -u XDG_STATE_HOME HOME={folder} SLUICE_RUNTIME_DIR={}", user.runtime().display());
    let command = format!("{environment} {} lab shell; echo code $?; sleep 60", user.program.display());
    let Some(terminal) = Terminal::open(user.folder.path(), &command, "the lab's shell in a terminal") else { return };
    terminal.shows(&["hello: 2 hosts, 1 switch", "hello>"]);
    terminal.press(&["h1 pi", "Tab", "h", "Tab", "Tab"]);
    terminal.shows(&["hello> h1 ping h", "h1  h2"]);
    terminal.press(&["2", "Enter"]);
    terminal.shows(&["2/2 pairs reachable"]);
    terminal.press(&["h1 echo began; sleep 60", "Enter"]);
    terminal.shows(&["\nbegan"]);
    terminal.press(&["C-c"]);
    terminal.shows(&["^C"]);
    terminal.press(&["h1 sh", "C-c"]);
    terminal.press(&["h2 echo my name is $(hostname)", "Enter"]);
    terminal.shows(&["my name is h2"]);
    terminal.press(&["hlep", "Enter"]);
    terminal.shows(&["did you mean `help`"]);
    terminal.press(&["Up", "Up", "C-a", "C-k", "links", "Enter"]);
    terminal.shows(&["h2-s1  h2:eth0"]);
    terminal.press(&["C-d"]);
    terminal.shows(&["code 0"]);
    let history = std::fs::read_to_string(user.folder.path().join(".local/state/sluice/lab-shell-history")).unwrap();
    assert!(history.contains("h1 ping h2\n") && history.ends_with("links\n"), "{history}");
}
