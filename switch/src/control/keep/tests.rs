use super::*;
use crate::conntrack::{ConnFilter, Tuple};
use crate::{Clock, Config};
use std::os::unix::fs::PermissionsExt;

/// A switch whose clock is the machine's.
fn switch() -> Datapath {
    Datapath::start(Config { clock: Clock::since_boot(), ..Config::default() }).unwrap()
}

/// As many connections of UDP, seen just now, kept as a switch writes them.
fn text(count: u16) -> String {
    let seen = Clock::since_boot().now().0;
    let line = |port: u16| {
        format!(
            r#"{{"zone":5,"proto":17,"original":[["10.0.0.1",{port}],["10.96.0.1",53]],"reply":[["10.0.0.2",53],["10.0.0.1",{port}]],"nat":"dst","mark":3,"seen":{seen},"state":{{"plain":2}}}}"#
        )
    };
    let lines: Vec<_> = (1..=count).map(line).collect();
    format!("{HEAD} {}\n{}\n", boot_id().unwrap(), lines.join("\n"))
}

const fn resumed(connections: usize, passed_over: usize) -> Resumed {
    Resumed { connections, passed_over }
}

#[test]
fn connections_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connections");
    fs::write(&file, text(30)).unwrap();
    let first = switch();
    let keeper = ConnectionKeeper::start(first.clone(), file.clone()).unwrap();
    assert_eq!(first.connections_len(), 30);
    fs::remove_file(&file).unwrap();
    first.shutdown();
    drop(keeper);

    let second = switch();
    assert_eq!(second.resume_connections(&file).unwrap(), resumed(30, 0));
    assert_eq!(second.count_connections(&ConnFilter::default()), 30);
    let mut marks = Vec::new();
    second.connections(|conn| {
        let reply = Tuple::new(5, 17, "10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert_eq!(conn.reply, reply.with_ports(53, conn.original.src_port));
        marks.push(conn.marks().mark);
        true
    });
    assert_eq!(marks, [3; 30]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    second.shutdown();
}

#[test]
fn a_file_that_is_missing_foreign_or_damaged_is_borne() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connections");
    let datapath = switch();
    let read = || datapath.resume_connections(&file);
    assert_eq!(read().unwrap(), resumed(0, 0));
    assert!(matches!(datapath.resume_connections(folder.path()), Err(ResumeError::NoFile)));
    for foreign in ["", "\n", "something else\n", "\u{0}\u{0}\u{0}", HEAD] {
        fs::write(&file, foreign).unwrap();
        assert!(matches!(read(), Err(ResumeError::Foreign)), "{foreign:?}");
    }
    fs::write(&file, text(9).replacen(HEAD, "sluice connections 2", 1)).unwrap();
    assert!(matches!(read(), Err(ResumeError::Foreign)));
    fs::write(&file, text(9).replacen(&boot_id().unwrap(), "0b5f21b0-0000-0000-0000-000000000000", 1)).unwrap();
    assert!(matches!(read(), Err(ResumeError::OtherBoot)));
    File::create(&file).unwrap().set_len(SIZE_MAX + 1).unwrap();
    assert!(matches!(read(), Err(ResumeError::TooLarge(_))));
    // Cut off in a line, and with one that is no connection before it.
    let whole = text(3).replacen("\"zone\":5", "\"zone\":\"x\"", 1);
    fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    assert_eq!(read().unwrap(), resumed(1, 2));
    // Bytes that mean nothing are as many lines as there is room for.
    fs::write(&file, format!("{HEAD} {}\n{}", boot_id().unwrap(), "\n".repeat(2 * MOST))).unwrap();
    assert_eq!(read().unwrap(), resumed(0, MOST));
    datapath.shutdown();
}

#[test]
fn timeouts_go_on_while_the_switch_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connections");
    let seen = |text: &str, ago: u64| {
        let now = Clock::since_boot().now().0;
        let at = text.find("\"seen\":").unwrap() + 7;
        let end = at + text[at..].find(',').unwrap();
        format!("{}{}{}", &text[..at], now.saturating_sub(ago), &text[end..])
    };
    // The machine has to have run for as long, which all that build this have.
    for (ago, count) in [(5_000, 1), (31_000, 0)] {
        let datapath = switch();
        fs::write(&file, seen(&text(1), ago)).unwrap();
        datapath.resume_connections(&file).unwrap();
        assert_eq!(datapath.count_connections(&ConnFilter::default()), count, "{ago} ms ago");
        datapath.shutdown();
    }
}

#[test]
fn the_file_is_written_when_something_has_changed_and_not_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connections");
    let datapath = switch();
    let mut writer = Writer { datapath: datapath.clone(), file: file.clone(), written: None, has_failed: false };
    writer.write();
    fs::remove_file(&file).unwrap();
    writer.write();
    assert!(!file.exists(), "there is nothing new");
    let other = folder.path().join("other");
    fs::write(&other, text(2)).unwrap();
    datapath.resume_connections(&other).unwrap();
    writer.write();
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
    let mut no_folder = Writer { file: folder.path().join("none/file"), written: None, ..writer };
    no_folder.write();
    assert!(no_folder.has_failed);
    datapath.shutdown();
}
