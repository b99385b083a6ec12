//! Groups, meters and tables, and files of them.

use super::{Switch, run};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// A flow, a group and a meter in one file, as `ovs-ofctl bundle` reads them.
const BUNDLE: &str = "\
group group_id=1,type=select,bucket=bucket_id:0,weight:100,actions=output:1,bucket=bucket_id:1,weight:50,actions=output:2
meter meter=5,kbps,bands=type=drop,rate=50000   # fifty megabits
flow add table=1,tcp,actions=meter:5,group:1
delete table=7
table=0 actions=goto_table:1
";

#[test]
fn what_a_dump_prints_in_ovs_s_words_can_be_fed_back() {
    let switch = Switch::start();
    switch.out(&[
        "flows",
        "add",
        "cookie=0x7,priority=9,tcp,tp_dst=80 actions=output:2",
        "idle_timeout=60,arp actions=drop",
    ]);
    let dump = switch.out(&["flows", "dump", "-o", "ofctl"]);
    assert!(dump.starts_with("NXST_FLOW reply (xid=0x4):\n cookie=0x0, duration="), "{dump}");
    let before = switch.out(&["flows", "dump", "-o", "ofctl", "--no-stats"]);
    switch.out(&["flows", "del", "--all"]);
    let said = switch.run_with(&["flows", "add", "--file", "-"], &dump);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(switch.out(&["flows", "dump", "-o", "ofctl", "--no-stats"]), before);
}

#[test]
fn a_bundle_file_mixes_flows_groups_and_meters() {
    let switch = Switch::start();
    switch.write("bundle.txt", BUNDLE);
    assert_eq!(
        switch.out(&["flows", "add", "--file", "bundle.txt"]),
        "2 added, 0 modified, 0 deleted, 0 unchanged; groups, meters and tables: 2 added, 0 modified, 0 deleted\n"
    );
    // A second time, the group is there already, and nothing of the file is done.
    let said = switch.run(&["flows", "add", "--file", "bundle.txt"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.starts_with("error: bundle.txt:1: "), "{}", said.err);
}

#[test]
fn groups_are_shown_with_their_buckets_and_owners() {
    let switch = Switch::start();
    switch.write("bundle.txt", BUNDLE);
    switch.out(&["flows", "add", "--file", "bundle.txt"]);
    switch.out(&[
        "groups",
        "add",
        "--owner",
        "svc:shop/web",
        "group_id=2,type=ff,bucket=watch_port:1,actions=output:1",
    ]);
    assert_eq!(
        switch.out(&["groups"]),
        "\
GROUP  TYPE    OWNER              FLOWS  PKTS  BUCKET  WEIGHT  PKTS  ACTIONS
    1  select  file:bundle.txt:1      1     0       0     100     0  output:1
                                                    1      50     0  output:2
    2  ff      svc:shop/web           0     0       0       -     0  output:1
"
    );
    assert_eq!(
        switch.out(&["groups", "dump", "1", "-o", "ofctl", "--names"]),
        "\
OFPST_GROUP_DESC reply (OF1.5) (xid=0x2):
 group_id=1,type=select,bucket=bucket_id:0,weight:100,actions=output:p1,bucket=bucket_id:1,weight:50,actions=output:p2
"
    );
    let stats = switch.out(&["groups", "dump", "1", "-o", "ofctl", "--stats"]);
    let (duration, rest) = stats.split_once(",ref_count=").expect("counters");
    assert!(duration.starts_with("OFPST_GROUP reply (OF1.5) (xid=0x6):\n group_id=1,duration="), "{stats}");
    let buckets = "bucket0:packet_count=0,byte_count=0,bucket1:packet_count=0,byte_count=0";
    assert_eq!(rest, format!("1,packet_count=0,byte_count=0,{buckets}\n"));
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["groups", "-o", "json"])).expect("JSON");
    assert_eq!((&json["v"], &json["groups"][0]["buckets"][1]["weight"]), (&1.into(), &50.into()));
}

#[test]
fn a_dump_of_groups_can_be_fed_back() {
    let switch = Switch::start();
    switch.write("bundle.txt", BUNDLE);
    switch.out(&["flows", "add", "--file", "bundle.txt"]);
    let dump = switch.out(&["groups", "dump", "-o", "ofctl"]);
    assert_eq!(
        switch.out(&["groups", "del", "--all"]),
        "0 added, 0 modified, 1 deleted; flows: 0 added, 0 modified, 1 deleted, 0 unchanged\n"
    );
    let said = switch.run_with(&["groups", "add", "--file", "-"], &dump);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "1 added, 0 modified, 0 deleted\n", ""));
    assert_eq!(switch.out(&["groups", "dump", "-o", "ofctl"]), dump);
}

#[test]
fn buckets_come_and_go() {
    let switch = Switch::start();
    switch.out(&["groups", "add", "group_id=1,type=all,bucket=bucket_id:4,actions=output:1"]);
    switch.out(&["groups", "insert-buckets", "1", "--at", "first", "bucket=bucket_id:9,actions=output:2"]);
    switch.out(&["groups", "insert-buckets", "1", "bucket=bucket_id:2,actions=in_port"]);
    let order = |switch: &Switch| -> Vec<u64> {
        let json: serde_json::Value = serde_json::from_str(&switch.out(&["groups", "-o", "json"])).expect("JSON");
        let buckets = json["groups"][0]["buckets"].as_array().expect("buckets").iter();
        buckets.map(|b| b["bucket"].as_u64().expect("a number")).collect()
    };
    assert_eq!(order(&switch), [9, 4, 2]);
    switch.out(&["groups", "remove-buckets", "1", "4"]);
    switch.out(&["groups", "remove-buckets", "1", "last"]);
    assert_eq!(order(&switch), [9]);
    let said = switch.run(&["groups", "remove-buckets", "1", "77"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("77"), "{}", said.err);
}

#[test]
fn meters_are_shown_with_their_bands_in_three_forms() {
    let switch = Switch::start();
    let two = "meter=2,pktps,burst,bands=type=drop,rate=10,burst_size=5,type=drop,rate=20,burst_size=9";
    switch.out(&["meters", "add", "--owner", "egress:web", "meter=1,kbps,bands=type=drop,rate=50000"]);
    switch.out(&["meters", "add", two]);
    switch.out(&["flows", "add", "ip actions=meter:1,NORMAL"]);
    assert_eq!(
        switch.out(&["meters"]),
        "\
METER  OWNER       FLOWS  PKTS  BYTES          RATE   BURST  DROPPED
    1  egress:web      1     0      0  50000 kbit/s       -        0
    2  user            0     0      0     10 pkts/s  5 pkts        0
                                          20 pkts/s  9 pkts        0
"
    );
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["meters", "-o", "json"])).expect("JSON");
    assert_eq!(json["meters"][0]["bands"][0]["rate_kbps"], 50_000);
    assert_eq!(json["meters"][1]["bands"][1]["burst_packets"], 9);
    assert_eq!(
        switch.out(&["meters", "dump", "2", "-o", "ofctl"]),
        "\
OFPST_METER_CONFIG reply (OF1.5) (xid=0x2):
meter=2 pktps burst bands=
type=drop rate=10 burst_size=5
type=drop rate=20 burst_size=9

"
    );
    assert_eq!(
        switch.out(&["meters", "del", "1"]),
        "0 added, 0 modified, 1 deleted; flows: 0 added, 0 modified, 1 deleted, 0 unchanged\n"
    );
}

#[test]
fn tables_are_named_and_limited() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "table=1,arp actions=drop"]);
    switch.out(&["tables", "set", "1", "--name", "acl", "--miss", "continue"]);
    switch.out(&["tables", "set", "9", "--max-flows", "1", "--evict", "yes"]);
    assert_eq!(
        switch.out(&["tables"]),
        "\
TABLE  NAME  FLOWS      LIMIT  MISS
    1  acl       1          -  continue
    9  -         0  1, evicts  drop
"
    );
    switch.write("t.tables", "1 name:first drop  # of all\n2 name:second\n");
    assert_eq!(switch.out(&["tables", "set", "--file", "t.tables"]), "0 added, 2 modified, 0 deleted\n");
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["tables", "-o", "json"])).expect("JSON");
    let names: Vec<_> = json["tables"].as_array().expect("tables").iter().map(|t| t["name"].as_str()).collect();
    assert_eq!(names, [Some("first"), Some("second"), None]);
    switch.write("bad.tables", "1 name:one\n2 nmae:two\n");
    let said = switch.run(&["tables", "set", "--file", "bad.tables"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with("error: bad.tables:2: column 3: `nmae`: "), "{}", said.err);
}

#[test]
fn a_watched_dump_comes_again_until_nobody_reads_it() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "arp actions=drop"]);
    let mut child =
        super::sluice(switch.folder.path(), &["flows", "dump", "-w=0.1", "--socket", "s.sock", "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command was built");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for _ in 0..3 {
        assert!(lines.next().expect("a line").expect("text").starts_with("{\"v\":1,\"flows\":[{"));
    }
    drop(lines);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = run(folder.path(), &["flows", "add", "--file", "."], "");
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with("error: cannot read .: "), "{}", said.err);
    std::fs::write(folder.path().join("long.flows"), "x".repeat((8 << 20) + 1)).expect("room");
    let said = run(folder.path(), &["flows", "add", "--file", "long.flows"], "");
    let why = "error: long.flows:1: the line has 8388609 bytes; it may have 8388608\n";
    assert_eq!((said.code, said.err.as_str()), (Some(2), why));
}
