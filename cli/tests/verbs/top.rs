//! `sluice top` as a table, as JSON, and in a terminal, which is tmux's.

use super::terminal::Terminal;
use super::{Switch, udp};
use serde_json::Value;

fn switch() -> Switch {
    let switch = Switch::start();
    switch.out(&["flows", "add", "priority=9,udp,tp_dst=53,owner=file:x:1 actions=output:2"]);
    switch.out(&["flows", "add", "priority=8,udp,owner=file:x:2 actions=drop"]);
    (0..3).for_each(|_| switch.receive(&udp(4000, 53)));
    switch.receive(&udp(4000, 54));
    switch
}

#[test]
fn each_view_is_printed_once_and_sorted_by_what_happens() {
    let switch = switch();
    let ports = switch.out(&["top", "--once", "--every", "0.1"]);
    assert!(ports.starts_with("BRIDGE  NO  NAME") && ports.contains("p1") && ports.contains("p2"), "{ports}");
    for view in ["ports", "flows", "drops", "connections", "workers"] {
        let answer = switch.out(&["top", view, "--once", "--every", "0.1", "-o", "json"]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["v"], &answer["view"]), (&1.into(), &view.into()));
        assert!(answer["seconds"].as_f64().unwrap() >= 0.1);
        let rows = answer["rows"].as_array().unwrap();
        let packets: Vec<_> = rows.iter().map(|row| row["packets"].as_f64()).collect();
        match view {
            "flows" => assert_eq!(packets, [Some(3.0), Some(1.0)], "{answer}"),
            "drops" => assert_eq!((rows.len(), &rows[0]["owner"]), (1, &"file:x:2".into()), "{answer}"),
            _ => {}
        }
    }
    let said = switch.run(&["top"]);
    assert_eq!((said.code, said.err.contains("--once")), (Some(2), true), "{said:?}");
}

#[test]
fn a_terminal_shows_views_and_obeys_keys() {
    let switch = switch();
    let command = format!("{} top --every 0.2 --socket s.sock; echo code $?; sleep 60", env!("CARGO_BIN_EXE_sluice"));
    let Some(terminal) = Terminal::open(switch.folder.path(), &command, "top in a terminal") else { return };
    terminal.shows(&["sluiced", "NAME", "p1", "p2", "q quit"]);
    terminal.press(&["Tab"]);
    terminal.shows(&["OWNER", "file:x:1", "file:x:2"]);
    terminal.press(&["/", "x:1", "Enter"]);
    let screen = terminal.shows(&["filter: x:1", "file:x:1"]);
    assert!(!screen.contains("file:x:2"), "{screen}");
    terminal.press(&["Escape"]);
    terminal.shows(&["file:x:2"]);
    terminal.press(&["3"]);
    terminal.shows(&["REASON", "rule_drop"]);
    terminal.press(&["Enter"]);
    terminal.shows(&["LAST PACKET", "br0:p1"]);
    terminal.press(&["x", "t"]);
    terminal.shows(&["sluice trace", "Datapath actions: drop"]);
    terminal.press(&["x", "p"]);
    terminal.shows(&["PAUSED"]);
    terminal.press(&["?"]);
    terminal.shows(&["another view"]);
    terminal.press(&["x", "q"]);
    terminal.shows(&["code 0"]);
}
