//! What a lab's file says that is to be so, commands of hosts, and drawings.

use super::*;
use std::io::{BufRead, BufReader};

const OFFICE: &str = include_str!("../../../examples/office/office.lab.yml");

/// Every topology file among the examples.
fn examples() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yml")
                && fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with("lab:"))
            {
                files.push(path);
            }
        }
    }
    assert!(files.len() >= 8, "{files:?}");
    files
}

#[test]
fn tests_of_a_lab_say_what_is_so_and_whose_rule_drops() {
    if !is_root("tests_of_a_lab_say_what_is_so_and_whose_rule_drops") {
        return;
    }
    let user = User::new();
    fs::write(user.folder.path().join("office.yml"), OFFICE).unwrap();
    user.ok("lab up office.yml");
    let out = user.ok("lab test --junit out.xml");
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("ok 1 same-vlan    h1 -> h2      ping  rtt "), "{out}");
    assert!(lines[0].ends_with(" ms (want 74..110)"), "{out}");
    assert!(lines[1].starts_with("ok 2 routed       h1 -> web:80  tcp   connected in "), "{out}");
    assert!(lines[1].ends_with(" ms via r1"), "{out}");
    assert_eq!(lines[2], "ok 3 ssh-blocked  h1 -> web:22  tcp   dropped at s2 by no-ssh (office.yml:11)");
    assert!(lines[3].starts_with("ok 4 closed       h1 -> web:81  tcp   refused in "), "{out}");
    assert_eq!(lines[4], "4 passed, 0 failed   seed 42");
    let xml = fs::read_to_string(user.folder.path().join("out.xml")).unwrap();
    assert!(xml.contains("<testsuite name=\"office\" tests=\"4\" failures=\"0\" errors=\"0\""), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), 4, "{xml}");

    // Another rule drops what was to arrive: the test fails and says which.
    user.command(&[
        "flows",
        "add",
        "--bridge",
        "s1",
        "--owner",
        "np:shop/deny",
        "priority=200,tcp,tp_dst=80 actions=drop",
    ])
    .status()
    .unwrap();
    let said = user.run("lab test -t routed --junit out.xml");
    assert_eq!(said.code, 1, "{said:#?}");
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(
        lines,
        ["not ok 1 routed  h1 -> web:80  tcp  dropped by np:shop/deny; want ok", "0 passed, 1 failed   seed 42",]
    );
    let xml = fs::read_to_string(user.folder.path().join("out.xml")).unwrap();
    assert!(xml.contains("<failure message=\"dropped by np:shop/deny; want ok\" type=\"ok\">"), "{xml}");
    let json: Value = serde_json::from_str(&user.run("lab test office -t routed -t closed -o json").out).unwrap();
    assert_eq!((json["passed"].as_u64(), json["failed"].as_u64()), (Some(1), Some(1)), "{json}");
    assert_eq!(json["tests"][0]["drop_owner"], "np:shop/deny", "{json}");
    user.fails("lab test -t rooted", 2, &["has no test named rooted; did you mean `routed`?"]);
}

#[test]
fn a_lab_without_tests_or_a_wrong_one_is_a_mistake() {
    let user = User::new();
    let file = "lab: a\nhosts: {h1: {}, h2: {}}\nswitches: {s1: }\nlinks: [[h1, s1], [h2, s1]]\ntests:\n  \
                - {ping: [h1, h3]}\n  - {tcp: [h1, h2]}\n  - {ping: [h1, h2], want: dorp}\n";
    fs::write(user.folder.path().join("a.yml"), file).unwrap();
    let lines = [
        "a.yml:7: tcp: expected a host or an address with a port",
        "a.yml:8: want: unknown `dorp`; did you mean `drop`?",
    ];
    user.fails("lab up a.yml", 2, &lines);
    if !is_root("a_lab_without_tests_or_a_wrong_one_is_a_mistake") {
        return;
    }
    user.ok("lab up --topo single,2");
    user.fails("lab test", 2, &["the lab single has no tests"]);
}

/// Processes that this user has started, and what these have: all that keeps namespaces and interfaces.
fn processes(user: &User) -> Vec<String> {
    let mark = format!("SLUICE_RUNTIME_DIR={}\0", user.runtime().display());
    let is_theirs = |folder: &PathBuf| {
        fs::read(folder.join("environ")).is_ok_and(|all| String::from_utf8_lossy(&all).contains(&mark))
    };
    let folders = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(is_theirs);
    folders.map(|folder| fs::read_to_string(folder.join("cmdline")).unwrap_or_default()).collect()
}

#[test]
fn every_example_has_a_page_passes_its_tests_and_leaves_nothing() {
    if !is_root("every_example_has_a_page_passes_its_tests_and_leaves_nothing") {
        return;
    }
    let user = User::new();
    for example in examples() {
        let path = example.to_str().unwrap();
        let page = example.with_file_name("README.md");
        assert!(page.exists(), "{} is missing: what the example shows, and how to go on", page.display());
        user.ok(&format!("lab up {path}"));
        assert!(!processes(&user).is_empty(), "{path}");
        let said = user.run("lab test -o json");
        assert_eq!(said.code, 0, "{path}: {said:#?}");
        let report: Value = serde_json::from_str(&said.out).unwrap();
        assert!(report["passed"].as_u64() > Some(0), "{path}: {report}");
        let down = user.ok("lab down");
        assert!(down.ends_with("; nothing left behind\n"), "{path}: {down}");
        assert_eq!(processes(&user), Vec::<String>::new(), "{path}");
        assert_eq!(fs::read_dir(user.runtime().join("labs")).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn files_of_flows_and_commands_are_found_beside_the_labs() {
    if !is_root("files_of_flows_and_commands_are_found_beside_the_labs") {
        return;
    }
    let user = User::new();
    let folder = user.folder.path().join("there");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.flows"), "priority=9,icmp,in_port=h1 actions=drop\n").unwrap();
    let file = "lab: a\nhosts: {h1: {run: 'echo $LAB_DIR'}, h2: {}}\nswitches: {s1: {flows: a.flows}}\n\
                links: [[h1, s1], [h2, s1]]\ntests:\n  - {name: held, ping: [h1, h2], want: drop, by: 'a.flows:1'}\n  \
                - {name: other, ping: [h2, h1], want: drop, by: 'a.flows:2'}\n  \
                - {name: never, ping: [h1, h2], within: 300ms}\n  - {name: soon, ping: [h1, h2], within: 60s}\n";
    fs::write(folder.join("a.lab.yml"), file).unwrap();
    user.ok("lab up there/a.lab.yml");
    assert_eq!(
        user.ok("lab test -t held").lines().next(),
        Some("ok 1 held  h1 -> h2  ping  dropped by file:there/a.flows:1")
    );
    let other = user.run("lab test -t other");
    assert_eq!(other.code, 1, "the request arrives, its answer does not: {other:#?}");
    assert_eq!(user.run("lab test -t never").code, 1);
    let begin = Instant::now();
    while user.ok("lab logs h1") != format!("{}\nsluice: the command ended with 0\n", folder.display()) {
        assert!(begin.elapsed() < PATIENCE, "{}", user.ok("lab logs h1"));
    }
    // A test that has time passes once its reason is there.
    let mut trying = user.command(&["lab", "test", "-t", "soon"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    user.ok("flows del --bridge s1 icmp");
    assert!(trying.wait().unwrap().success());
    assert!(user.ok("lab save").contains("  s1: {flows: \"a.flows\"}\n"), "{}", user.ok("lab save"));
}

#[test]
fn commands_of_hosts_run_while_the_lab_is_up_and_end_with_it() {
    if !is_root("commands_of_hosts_run_while_the_lab_is_up_and_end_with_it") {
        return;
    }
    let user = User::new();
    let file = "lab: a\nhosts: {web: {run: 'sluice lab serve 80'}, h1: {run: 'echo in $(hostname) of $PWD; exit 3'}, h2: {}}\n\
                switches: {s1: }\nlinks: [[web, s1], [h1, s1], [h2, s1]]\ntests: [{tcp: [h2, 'web:80']}]\n";
    fs::write(user.folder.path().join("a.yml"), file).unwrap();
    user.ok("lab up a.yml");
    user.ok("lab test");
    let bash = "exec 3<>/dev/tcp/10.0.0.1/80; cat <&3";
    let said = user.command(&["lab", "exec", "h2", "--", "bash", "-c", bash]).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "web\n");
    let log = user.ok("lab logs web");
    assert!(log.lines().all(|line| line.starts_with("connection from 10.0.0.3:")) && log.lines().count() == 2, "{log}");
    let wanted = format!("in h1 of {}\nsluice: the command ended with 3\n", user.folder.path().display());
    let begin = Instant::now();
    while user.ok("lab logs h1") != wanted {
        assert!(begin.elapsed() < PATIENCE, "{}", user.ok("lab logs h1"));
    }
    assert_eq!(user.json("lab logs h1 -o json")["lines"][1], "sluice: the command ended with 3");
    user.fails("lab logs h2", 2, &["h2 runs no command", "one of: web, h1"]);
    // Who follows is told of the end of the lab by the end of the log.
    let mut following = user.command(&["lab", "logs", "web", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap());
    let mut followed = String::new();
    lines.read_line(&mut followed).unwrap();
    let traces = Traces::of(&user, "a");
    user.ok("lab down");
    lines.read_to_string(&mut followed).unwrap();
    assert_eq!((followed, following.wait().unwrap().code()), (log, Some(0)));
    traces.are_gone();
}

#[test]
fn drawings_are_of_files_and_of_running_labs() {
    let user = User::new();
    fs::write(user.folder.path().join("office.yml"), OFFICE).unwrap();
    let drawn = user.ok("lab graph --file office.yml");
    assert!(drawn.starts_with("h1 --blue-- s1 ==wan 20/60ms +-3ms"), "{drawn}");
    assert!(user.ok("lab graph --file office.yml -o svg").starts_with("<svg "));
    assert!(user.ok("lab graph --file office.yml -o mermaid").starts_with("graph LR\n"));
    assert!(user.ok("lab graph --file office.yml -o dot").starts_with("graph \"office\" {\n"));
    assert_eq!(user.json("lab graph --file office.yml -o json")["links"].as_array().unwrap().len(), 5);
    user.fails("lab graph --file office.yml -o ofctl", 2, &["this verb does not write"]);
    if !is_root("drawings_are_of_files_and_of_running_labs") {
        return;
    }
    user.ok("lab up office.yml");
    assert_eq!(user.ok("lab graph"), drawn);
    user.ok("lab link set wan delay=5ms");
    assert!(user.ok("lab graph office").contains("==wan 5ms"), "{}", user.ok("lab graph office"));
}

#[test]
fn files_are_checked_without_making_anything() {
    let user = User::new();
    for example in examples() {
        let path = example.to_str().unwrap();
        let said = user.ok(&format!("lab validate {path}"));
        assert!(said.starts_with(&format!("{path}: ok   ")), "{said}");
    }
    fs::write(user.folder.path().join("a.lab.yml"), "lab: a\nlnks: []\nseed: x\nlinks: [[h1]]\n").unwrap();
    let said = user.run("lab validate");
    assert_eq!((said.code, said.out.lines().count()), (1, 3), "{said:#?}");
    assert!(
        said.out.starts_with("a.lab.yml:2: unknown key `lnks` in the topology; did you mean `links`?\n"),
        "{said:#?}"
    );
    let json: Value = serde_json::from_str(&user.run("lab validate a.lab.yml -o json").out).unwrap();
    assert_eq!(
        (json["files"][0]["valid"].as_bool(), json["files"][0]["mistakes"][2]["line"].as_u64()),
        (Some(false), Some(4))
    );
    for preset in ["single,3", "linear,3", "tree,2,2", "leafspine,2,3", "ring,4"] {
        let file = user.ok(&format!("lab new {preset} --name made"));
        fs::write(user.folder.path().join("made.yml"), &file).unwrap();
        assert!(user.ok("lab validate made.yml").starts_with("made.yml: ok   "), "{file}");
    }
    user.fails("lab new star,3", 2, &["is no preset"]);
    let plan = user.ok("lab up made.yml --dry-run");
    assert!(plan.starts_with("made: would make 4 hosts, 0 switches, 4 routers, 8 links "), "{plan}");
    let schema: Value = serde_json::from_str(&user.ok("lab schema")).unwrap();
    assert_eq!(schema["title"], "A lab of Sluice");
    assert!(!user.runtime().exists(), "nothing is made");
}

#[test]
fn presets_of_routers_reach_each_other() {
    if !is_root("presets_of_routers_reach_each_other") {
        return;
    }
    let user = User::new();
    for (preset, pairs) in [("leafspine,2,3", 6), ("ring,4", 12), ("leafspine,2,24", 552)] {
        user.ok(&format!("lab up --topo {preset}"));
        let ping = user.json("lab ping -o json");
        assert_eq!((ping["reachable"].as_u64(), ping["lost"].as_u64()), (Some(pairs), Some(0)), "{preset}: {ping}");
        user.ok("lab down");
    }
}

#[test]
fn the_doctor_tries_what_labs_need() {
    if !is_root("the_doctor_tries_what_labs_need") {
        return;
    }
    let before = interfaces();
    let root = User::new().json("lab doctor -o json");
    assert_eq!(root["usable"], true, "{root}");
    let names: Vec<_> =
        root["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["namespaces", "joints", "runtime folder", "open files", "memory", "neighbours"]);
    assert_eq!(interfaces(), before);
    // A folder that cannot be made is told with what to do, and ends with 5.
    let mut user = User::without_privilege();
    user.through = ["env", "SLUICE_RUNTIME_DIR=/proc/none"].map(str::to_owned).to_vec();
    let said = user.run("lab doctor");
    assert_eq!(said.code, 5, "{said:#?}");
    assert!(said.out.contains("fix for runtime folder: set SLUICE_RUNTIME_DIR"), "{said:#?}");
    user.through.clear();
}
