//! Instructions a packet takes, counted by valgrind's callgrind and held against what is written down: a slow-down is seen without a
//! quiet machine. They are those of the dev profile, whose switch is optimised a little, so they guard and do not boast.
//!
//! `SLUICE_INSTRUCTIONS=write cargo test --workspace --test instructions` writes them down anew: other packages have their part in how
//! libraries are built.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where they are written down: a case, flows in the traffic, instructions a packet.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions.txt");
/// How much more or fewer are let pass, in percent.
const TOLERANCE: f64 = 5.0;
/// Packets of the shorter run; the longer one has three times as many. So what happens once does not count.
const PACKETS: u64 = 100_000;
/// What is counted.
const CASES: [(&str, u32); 6] = [("l2", 1), ("l2", 100), ("normal", 100), ("acl", 1), ("acl", 100), ("ct", 100)];

/// Instructions and packets of a run.
fn count(case: &str, flows: u32, packets: u64) -> (f64, f64) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("valgrind");
    // Who looks at the counter gets its turn, so that a run ends soon after its number.
    command.args(["--quiet", "--fair-sched=yes", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", out.path().display()));
    command.arg(env!("CARGO_BIN_EXE_replay-packets")).args([case, &flows.to_string(), &packets.to_string()]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read_to_string(out.path()).unwrap();
    let total = told.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
    (total.parse().unwrap(), String::from_utf8_lossy(&output.stdout).trim().parse().unwrap())
}

fn instructions_a_packet(case: &str, flows: u32) -> f64 {
    let (short, long) = (count(case, flows, PACKETS), count(case, flows, 3 * PACKETS));
    assert!(long.1 - short.1 > PACKETS as f64, "{case}: runs of {} and {} packets tell too little", short.1, long.1);
    (long.0 - short.0) / (long.1 - short.1)
}

fn written() -> BTreeMap<(String, u32), f64> {
    let text = std::fs::read_to_string(FILE).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        ((words[0].to_owned(), words[1].parse().unwrap()), words[2].parse().unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

#[test]
fn packets_take_no_more_instructions_than_they_did() {
    if cfg!(not(target_arch = "x86_64")) || !Path::new("/usr/bin/valgrind").exists() {
        eprintln!("skipped: instructions: needs Debian's valgrind, and an x86-64 machine");
        return;
    }
    let counted = CASES.map(|(case, flows)| (case, flows, instructions_a_packet(case, flows)));
    if std::env::var_os("SLUICE_INSTRUCTIONS").is_some_and(|word| word == "write") {
        let lines: String = counted.iter().map(|(case, flows, count)| format!("{case} {flows} {count:.1}\n")).collect();
        std::fs::write(FILE, format!("# case, flows in the traffic, instructions a packet\n{lines}")).unwrap();
    }
    let written = written();
    let mut wrong = String::new();
    for (case, flows, count) in counted {
        let was = written[&(case.to_owned(), flows)];
        let more = 100.0 * (count - was) / was;
        println!("{case} {flows}: {count:.1} ({more:+.1} %)");
        if more.abs() > TOLERANCE {
            wrong +=
                &format!("{case} with {flows} flows: {count:.1} instructions a packet, {was} before ({more:+.1} %)\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}what is better is written down as well: SLUICE_INSTRUCTIONS=write");
}
