//! Replaying a capture file through flows.

use super::run;
use std::path::Path;

/// A pcap file of these frames.
fn pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        bytes.extend([[0; 4], [0; 4], len, len].concat());
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).unwrap();
}

/// UDP packets of so many connections, without checksums.
fn packets(connections: u8) -> Vec<Vec<u8>> {
    let packet = |number| {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0x66, 0xbd - number, 10, 0, 0, 1, 10, 0, 0, 2 + number]);
        frame.extend([0x10, 0, 0, 53, 0, 26, 0, 0]);
        frame.extend([b'x'; 18]);
        frame
    };
    (0..connections).map(packet).collect()
}

const FLOWS: &str = "\
priority=100,ip,ct_state=-trk,actions=ct(table=1)
table=1,priority=100,ip,ct_state=+trk+new,actions=ct(commit),output:2
table=1,priority=100,ip,ct_state=+trk+est,actions=output:2
";

fn replay(folder: &Path, more: &[&str]) -> super::Said {
    let args = ["bench", "replay", "--pcap", "in.pcap", "--flows", "t.flows", "--seconds", "0.3", "--warmup", "0.3"];
    run(folder, &[&args[..], more].concat(), "")
}

#[test]
fn a_replay_tells_packets_cycles_and_who_answered() {
    let folder = tempfile::tempdir().unwrap();
    pcap(&folder.path().join("in.pcap"), &packets(7));
    std::fs::write(folder.path().join("t.flows"), FLOWS).unwrap();
    let said = replay(folder.path(), &["-o", "json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let number = |path: &str| answer.pointer(path).and_then(serde_json::Value::as_f64).unwrap();
    assert_eq!((number("/v"), number("/frames")), (1.0, 7.0));
    let packets = number("/packets");
    assert!(packets > 0.0 && (number("/packets_per_second") - packets / number("/seconds")).abs() < 1.0);
    assert!(number("/forwarded_packets") > 0.0);
    assert_eq!(number("/dropped_packets"), 0.0);
    if cfg!(target_arch = "x86_64") {
        let per_cpu_second = number("/packets_per_cpu_second");
        let product = number("/cycles_per_packet") * per_cpu_second;
        assert!((product / number("/tsc_hz") - 1.0).abs() < 0.001, "cycles are those of the worker's time: {answer}");
    }
    let shares = ["exact", "megaflow", "miss", "stale"].map(|name| number(&format!("/shares/{name}")));
    // The counters are read while the worker counts, so one burst may be missing here or there.
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 0.05, "{answer}");
    assert!(number("/shares/connection") > 0.9, "connections are answered in one lookup: {answer}");
    assert!(number("/passes_per_packet") < 0.1, "{answer}");
    let table = replay(folder.path(), &[]).out;
    for name in ["packets/s", "cycles/packet", "exact cache", "megaflow cache", "connections", "translated"] {
        assert!(table.contains(name), "{name} is missing: {table}");
    }
}

#[test]
fn a_replay_that_forwards_nothing_says_so() {
    let folder = tempfile::tempdir().unwrap();
    pcap(&folder.path().join("in.pcap"), &packets(1));
    std::fs::write(folder.path().join("t.flows"), "in_port=2 actions=output:1\n").unwrap();
    let said = replay(folder.path(), &["-o", "json"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("no frame was forwarded"), "{}", said.err);
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(answer["drops"]["no_rule"].as_u64() > Some(0), "{answer}");
}

#[test]
fn what_cannot_be_replayed_is_a_usage_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("t.flows", "nonsense\n", "t.flows:1"), ("t.flows", "ip actions=group:9\n", "--groups")];
    pcap(&folder.path().join("in.pcap"), &packets(1));
    for (file, text, says) in files {
        std::fs::write(folder.path().join(file), text).unwrap();
        let said = replay(folder.path(), &[]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(says), "{}", said.err);
    }
    std::fs::write(folder.path().join("t.flows"), FLOWS).unwrap();
    pcap(&folder.path().join("in.pcap"), &[]);
    let said = replay(folder.path(), &[]);
    assert_eq!((said.code, said.err.contains("in.pcap has no frames")), (Some(2), true), "{said:?}");
    let said = replay(folder.path(), &["--seconds", "-1"]);
    assert_eq!(said.code, Some(2), "{said:?}");
}
