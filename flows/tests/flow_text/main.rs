//! Properties of flow text: what is printed reads back, nothing that is read panics, and Open vSwitch agrees.

#![expect(clippy::expect_used, reason = "a panic is a failed test")]

mod actions;
mod generate;
mod matches;
mod oracle;
mod router;

use proptest::prelude::*;
use sluice_flows::consistency;
use sluice_flows::text::*;
use std::fmt::Write;

proptest! {
    #[test]
    fn a_printed_match_reads_back(matches in generate::matches(generate::Tags::Any)) {
        let text = show_match(&matches, Names::NONE).to_string();
        let read = parse_match(&text, Names::NONE).map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        prop_assert_eq!(&read.value, &matches, "{}", &text);
        prop_assert!(read.warnings.is_empty(), "{}: {}", text, read.warnings[0]);
        prop_assert_eq!(show_match(&read, Names::NONE).to_string(), text);
    }

    #[test]
    fn printed_actions_read_back(actions in generate::actions()) {
        let text = show_actions(&actions, Names::NONE).to_string();
        let read = parse_actions(&text, Names::NONE).map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        prop_assert_eq!(&*read, &*actions, "{}", text);
    }

    #[test]
    fn a_printed_flow_reads_back_if_its_actions_fit(spec in generate::flows(), ms in any::<u32>()) {
        let stats = FlowStats { duration_ms: ms.into(), packets: 1, bytes: 60, idle_age: 3, hard_age: 1 };
        for stats in [None, Some(stats)] {
            let text = show_flow(&spec, stats, Names::NONE).to_string();
            match (parse_flow(&text, Names::NONE), consistency::check(spec.table, &spec.matches, &spec.actions)) {
                (Ok(read), Ok(())) => prop_assert_eq!(&read.value, &spec, "{}", text),
                (Err(error), Err(why)) => prop_assert_eq!(error.kind(), &ErrorKind::Inconsistent(why)),
                (read, check) => return Err(TestCaseError::fail(format!("{text}: {read:?}, {check:?}"))),
            }
        }
    }

    #[test]
    fn a_printed_packet_reads_back(key in generate::packets()) {
        let text = show_packet(&key, Names::NONE).to_string();
        let read = parse_packet(&text, Names::NONE).map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        prop_assert_eq!(read, key, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_within_it(text in generate::soup()) {
        read_every_way(&text)?;
    }

    #[test]
    fn any_characters_are_read_or_refused(text in "\\PC{0,80}") {
        read_every_way(&text)?;
    }

    #[test]
    fn a_flow_with_one_character_changed_is_read_or_refused(
        spec in generate::flows(),
        at in any::<prop::sample::Index>(),
        with in any::<char>(),
    ) {
        let mut text: Vec<char> = show_flow(&spec, None, Names::NONE).to_string().chars().collect();
        let at = at.index(text.len());
        text[at] = with;
        read_every_way(&text.into_iter().collect::<String>())?;
    }
}

/// Groups, meters and tables as they are written.
const OTHERS: [&str; 5] = [
    "group_id=1,type=select,selection_method=hash,selection_method_param=7,fields(ip_src=255.0.0.0,tcp_dst),\
     bucket=bucket_id:3,weight:10,watch_port:1,actions=set_field:5->reg0,output:1,bucket=watch_group=2,resubmit(,3)",
    "group_id=7,command_bucket_id=5,bucket=1,bucket=weight:3,ct(commit,table=1)",
    "meter=2 pktps burst stats bands=type=drop rate=100 burst_size=7 type=drop,rate=9,burst_size=1",
    "group insert_bucket group_id=7,command_bucket_id=first,bucket=actions=drop",
    "table 9 name:acl evict,flow_limit:10",
];

proptest! {
    #[test]
    fn a_group_or_meter_with_one_character_changed_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in any::<char>(),
    ) {
        let mut text: Vec<char> = which.get(&OTHERS).chars().collect();
        let at = at.index(text.len());
        text[at] = with;
        read_every_way(&text.into_iter().collect::<String>())?;
    }
}

/// Reads `text` as everything there is, and prints the errors.
fn read_every_way(text: &str) -> Result<(), TestCaseError> {
    let errors = [
        parse_match(text, Names::NONE).err(),
        parse_actions(text, Names::NONE).err(),
        parse_flow(text, Names::NONE).err(),
        parse_flow_mod(text, Names::NONE).err(),
        parse_filter(text, Names::NONE).err(),
        parse_packet(text, Names::NONE).err(),
        parse_flow_file("f", text, Names::NONE).err(),
        parse_group(text, Names::NONE).err(),
        parse_group_mod(text, GroupCommand::InsertBuckets, Names::NONE).err(),
        parse_group_mod(text, GroupCommand::RemoveBuckets, Names::NONE).err(),
        parse_group_file("f", text, Names::NONE).err(),
        parse_meter(text).err(),
        parse_meter_mod(text, MeterCommand::Delete).err(),
        parse_table_mod(text, Names::NONE).err(),
        parse_bundle_file("f", text, Names::NONE).err(),
    ];
    for error in errors.into_iter().flatten() {
        let columns = error.columns();
        prop_assert!(columns.start <= columns.end && columns.end <= error.text().chars().count() + 1, "{error:?}");
        let mut shown = String::new();
        write!(shown, "{error} {error:#}").expect("a String takes everything");
        prop_assert_eq!(shown.lines().count(), 3);
    }
    Ok(())
}

/// Were any of these read in quadratic time, this test would take minutes instead of seconds.
#[test]
fn long_hostile_texts_are_read_in_linear_time() {
    const LEN: usize = 1 << 17;
    for piece in [
        "(",
        "a=(",
        "a(",
        ")",
        "\"",
        "a=\"",
        "a=\",",
        ",",
        "a,",
        "ip,",
        "reg0=1,",
        "ip,tp_dst=80,",
        "1|",
        "output:1,",
        "note:00.",
        "#",
        "\n",
        "add ip actions=drop\n",
        "tcp,tcp_flags=+syn-",
        "é",
        "actions=",
        "dl_vlan=5000,",
        "->",
        "clone(",
        "write_actions(clone(",
        "ct(exec(",
        "ct(nat(src=1.2.3.4-",
        "encap(nsh(tlv(",
        "conjunction(1,1/2),",
        "learn(reg0=reg1,",
        "dec_ttl(1,",
        "meter:1,",
        "1 2 ",
        "nw_src=1.2.3.4,",
        "nsh_c1[0]=1,",
        "mpls_label=5,",
        "ct_nw_src=1.2.3.4,",
        "ct_state=+trk-",
        "bucket=",
        "bucket=1,",
        "bucket=actions=",
        "bucket=weight:1,",
        "group_id=1,",
        "group add group_id=1,type=all,bucket=1\n",
        "fields(reg0,",
        "type=drop,rate=1,",
        "bands=",
        "meter add meter=1,kbps,bands=type=drop,rate=1\n",
    ] {
        let text = piece.repeat(LEN / piece.len());
        let _ = (parse_match(&text, Names::NONE), parse_actions(&text, Names::NONE));
        let _ = (parse_flow_mod(&text, Names::NONE), parse_flow_file("f", &text, Names::NONE));
        for within in
            ["set_field:", "learn(", "ct(", "ct(exec(", "bundle(eth_src,0,hrw,ofport,members:", "dec_ttl(", "note:"]
        {
            let _ = parse_actions(&format!("{within}{text}"), Names::NONE);
        }
        let _ = (parse_packet(&text, Names::NONE), parse_group(&text, Names::NONE), parse_meter(&text));
        let _ = parse_group(&format!("group_id=1,type=select,bucket={text}"), Names::NONE);
        let _ = parse_meter(&format!("meter=1,kbps,bands={text}"));
        let _ = (parse_group_file("f", &text, Names::NONE), parse_bundle_file("f", &text, Names::NONE));
    }
}
