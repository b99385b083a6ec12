//! The README's tour is true: every command in it runs, and prints what the README says it prints.
//!
//! Numbers may differ (times, counters, process ids) and runs of blanks count as one; a line of `...` stands for any
//! lines. Commands of `cargo` are left out, as they are what runs this test.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// A command of the tour with what it prints.
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

/// The line with each number, and each run of blanks, made alike.
fn normal(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() {
            while chars.next_if(|c| c.is_ascii_digit() || *c == '.').is_some() {}
            out.push('#');
        } else if c.is_whitespace() {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            out.push(' ');
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

#[test]
fn every_command_of_the_tour_prints_what_the_readme_says() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: the tour makes network namespaces and TAPs, which needs root here");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let steps = steps(&std::fs::read_to_string(root.join("README.md")).unwrap());
    assert!(steps.len() > 5, "the tour has {} commands: is its form still the one this test reads?", steps.len());
    let runtime = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |command: &str| {
        Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(root)
            .env("PATH", &path)
            .env("SLUICE_RUNTIME_DIR", runtime.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    };
    let mut wrong = String::new();
    for step in &steps {
        let output = run(&step.command);
        let lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        if !output.status.success() || !agrees(&step.output, &lines) {
            writeln!(
                wrong,
                "README.md:{}: `{}` ended with {} and printed\n{}\ninstead of\n{}\n",
                step.line,
                step.command,
                output.status,
                lines.join("\n"),
                step.output.join("\n")
            )
            .unwrap();
        }
    }
    run("sluice lab down --all");
    assert!(wrong.is_empty(), "{wrong}");
}
