//! `sluice relay` as a process: its pipes on one side, a switch on the other.

use super::{Switch, run, sluice};
use std::io::{Read, Write};
use std::process::Stdio;

/// What an HTTP/2 client says first (RFC 9113, 3.4), with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn the_switch_answers_through_a_pair_of_pipes_and_the_relay_ends_with_its_input() {
    let switch = Switch::start();
    let mut relay = sluice(switch.folder.path(), &["relay", "--socket", "s.sock"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = relay.stdin.take().unwrap();
    stdin.write_all(PREFACE).unwrap();
    let mut stdout = relay.stdout.take().unwrap();
    let mut head = [0; 9];
    // Comes while the input is open: nothing is held back until a buffer is full or a line ends.
    stdout.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "the first frame of a server is SETTINGS: {head:?}");
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}

#[test]
fn a_relay_without_a_switch_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), &["relay", "--socket", "none.sock"], "");
    assert_eq!(said.code, Some(69));
    assert!(said.err.contains("no switch listens on none.sock"), "{said:?}");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), &["flows", "dump", "--kubeconfig", "none"], "");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("no kubeconfig") && said.err.contains("--kubeconfig or KUBECONFIG"), "{said:?}");
}

#[test]
fn as_a_plugin_of_kubectl_it_is_called_so_in_its_help() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kubectl-sluice");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), &link).unwrap();
    let output = std::process::Command::new(&link).args(["svc", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Usage: kubectl sluice svc"), "{help}");
}
