//! The README and the book are true: every command in a `console` block runs, and prints what the page says it prints.
//!
//! The commands of a page run in one shell, one after the other, beside the folder `examples`. Each must end with 0.
//! Numbers may differ (times, counters, process ids), and so may MAC addresses; runs of blanks count as one, and a line of
//! `...` stands for any lines. Commands of `cargo` are left out, as they are what runs this test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use nix::sched::{CloneFlags, unshare};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command of a page with what it prints.
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_block = false;
    for (i, line) in readme.lines().enumerate() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            steps.push(Step { line: i + 1, command: command.to_owned(), output: Vec::new() });
        } else if in_block && let Some(step) = steps.last_mut() {
            step.output.push(line.to_owned());
        }
    }
    steps.retain(|s| !s.command.starts_with("cargo ") && !s.command.starts_with("git clone"));
    steps
}

/// The line with each number, each MAC address and each run of blanks made alike.
fn normal(line: &str) -> String {
    let is_mac = |word: &str| word.len() == 17 && word.split(':').count() == 6;
    let line = line.split_whitespace().map(|w| if is_mac(w) { "MAC" } else { w }).collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() {
            while chars.next_if(|c| c.is_ascii_digit() || *c == '.').is_some() {}
            out.push('#');
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether `lines` are what `expected` says, with `...` for any number of lines.
fn agrees(expected: &[String], lines: &[String]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((dots, rest)) if dots.trim() == "..." => (0..=lines.len()).any(|n| agrees(rest, &lines[n..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, others)| normal(first) == normal(line) && agrees(rest, others))
        }
    }
}

/// What a shell prints between its answers to two steps.
const MARK: &str = "@@ ended with";

/// Runs the steps in one shell, in a folder of their own with the examples in it and in a network namespace of their
/// own. Gives the exit code and the lines of each step that was reached.
fn run(steps: &[Step]) -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root.join("examples"), folder.path().join("examples")).unwrap();
    let mut script = "exec 2>&1\n".to_owned();
    for step in steps {
        writeln!(script, "{}\necho \"{MARK} $?\"", step.command).unwrap();
    }
    // What the steps left behind ends with them.
    script.push_str("sluice lab down --all\nkill $(jobs -p)\nwait\n");
    let file = folder.path().join("steps.sh");
    std::fs::write(&file, script).unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut command = Command::new("timeout");
        command.args(["120", "bash"]).arg(file).current_dir(folder.path()).stdin(Stdio::null());
        command.env("PATH", path).env("SLUICE_RUNTIME_DIR", folder.path().join("run")).env("NO_COLOR", "1");
        command.env_remove("SLUICE_SOCKET").output().unwrap()
    });
    let output = output.join().unwrap();
    let mut answers = Vec::new();
    let mut lines = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix(MARK) {
            Some(code) => answers.push((code.trim().to_owned(), std::mem::take(&mut lines))),
            None => lines.push(line.to_owned()),
        }
    }
    answers
}

/// Fails with every step of the page that printed something else than the page says.
fn check(page: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: {page} makes network namespaces and TAPs, which needs root here");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let steps = steps(&std::fs::read_to_string(root.join(page)).unwrap());
    assert!(steps.len() > 5, "{page} has {} commands: is its form still the one this test reads?", steps.len());
    let answers = run(&steps);
    let mut wrong = String::new();
    for (i, step) in steps.iter().enumerate() {
        let (code, lines) = answers.get(i).cloned().unwrap_or(("nothing: it was not reached".to_owned(), Vec::new()));
        if code != "0" || !agrees(&step.output, &lines) {
            let (lines, output) = (lines.join("\n"), step.output.join("\n"));
            let (line, command) = (step.line, &step.command);
            writeln!(
                wrong,
                "{page}:{line}: `{command}` ended with {code} and printed\n{lines}\ninstead of\n{output}\n"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_command_of_the_readme_prints_what_it_says() {
    check("README.md");
}

#[test]
fn every_command_of_the_page_on_labs_prints_what_it_says() {
    check("docs/lab.md");
}

#[test]
fn every_command_of_the_page_on_links_prints_what_it_says() {
    check("docs/links.md");
}

#[test]
fn every_command_of_the_page_on_policies_prints_what_it_says() {
    check("docs/kubernetes-policy.md");
}

#[test]
fn every_command_of_the_page_on_flows_prints_what_it_says() {
    check("docs/flows.md");
}

#[test]
fn every_command_of_the_page_on_match_prints_what_it_says() {
    check("docs/match.md");
}

#[test]
fn every_command_of_the_page_on_traces_prints_what_it_says() {
    check("docs/trace.md");
}

#[test]
fn every_command_of_the_page_on_groups_prints_what_it_says() {
    check("docs/groups.md");
}

#[test]
fn every_command_of_the_page_on_connections_prints_what_it_says() {
    check("docs/conntrack.md");
}

#[test]
fn every_command_of_the_pages_of_examples_prints_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let page = entry.unwrap().path().join("README.md");
        pages.extend(page.exists().then(|| page.strip_prefix(root).unwrap().to_str().unwrap().to_owned()));
    }
    assert!(pages.len() >= 16, "{pages:?}");
    let failed: Vec<_> =
        pages.iter().filter(|page| std::panic::catch_unwind(|| check_with_sluiced(page)).is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_command_of_the_page_on_the_hosts_gateway_prints_what_it_says() {
    check_with_sluiced("docs/gateway.md");
}

#[test]
fn every_command_of_the_page_on_containers_prints_what_it_says() {
    check_with_sluiced("docs/cni.md");
}

#[test]
fn every_command_of_the_page_on_the_switch_prints_what_it_says() {
    check_with_sluiced("docs/switch.md");
}

/// Needs the other programs beside `sluice`, where building the workspace puts them.
fn check_with_sluiced(page: &str) {
    for program in ["sluiced", "sluice-cni"] {
        if !Path::new(env!("CARGO_BIN_EXE_sluice")).with_file_name(program).exists() {
            eprintln!("skipped: {program} is not built; `cargo build` makes it");
            return;
        }
    }
    check(page);
}
