//! What became of a captured packet, in words: as a packet's comment, made to be filtered by, and as the end of a line.

use sluice_proto::v1::captured_frame::{Direction, Verdict};
use sluice_proto::v1::{CapturedFrame, CapturedOutput};

/// What a packet's comment says: `verdict=` first, then what belongs to it, a word each but for the rule, which is last.
/// For tshark and Wireshark: `frame.comment contains "verdict=drop reason=rule_drop"`.
pub fn comment(frame: &CapturedFrame) -> Option<String> {
    let mut words = match frame.verdict() {
        Verdict::Unspecified => return None,
        Verdict::Forwarded => format!("verdict=forward to={}", to(frame)),
        Verdict::Dropped => format!("verdict=drop reason={}", frame.reason),
        Verdict::Waits => "verdict=waits reason=fragment".to_owned(),
        Verdict::Answer => format!("verdict=answer to={}", to(frame)),
    };
    for lost in lost(frame) {
        words.push_str(&format!(" lost={}:{}", name(lost), lost.reason));
    }
    if !frame.owner.is_empty() {
        words.push_str(&format!(" owner={} owners={} rule={}", frame.owner, frame.owners.join(","), frame.rule));
    }
    Some(words)
}

/// The end of a packet's line: where it went, or why nowhere and by whom. Nothing for one that a port sent, as is plain.
pub fn end_of_line(frame: &CapturedFrame) -> String {
    let by = if frame.owner.is_empty() { String::new() } else { format!(" by {}", frame.owner) };
    let lost: Vec<_> = lost(frame).map(|output| format!("LOST at {}: {}", name(output), output.reason)).collect();
    let sent = frame.direction() == Direction::Sent;
    let mut words = match frame.verdict() {
        Verdict::Dropped => vec![format!("DROPPED {}{by}", frame.reason)],
        Verdict::Waits => vec!["waits for its other fragments".to_owned()],
        Verdict::Forwarded if !sent => vec![format!("-> {}", to(frame))],
        _ => Vec::new(),
    };
    words.extend(lost);
    words.join("  ")
}

/// The verdict as JSON has it; empty when the switch has not said.
pub fn verdict(frame: &CapturedFrame) -> &'static str {
    match frame.verdict() {
        Verdict::Unspecified => "",
        Verdict::Forwarded => "forward",
        Verdict::Dropped => "drop",
        Verdict::Waits => "waits",
        Verdict::Answer => "answer",
    }
}

/// The ports that it left by.
pub fn ports(frame: &CapturedFrame) -> Vec<&str> {
    frame.outputs.iter().filter(|output| output.reason.is_empty()).map(name).collect()
}

fn to(frame: &CapturedFrame) -> String {
    let ports = ports(frame);
    // What is forwarded by no port was handed to a controller.
    if ports.is_empty() { "controller".to_owned() } else { ports.join(",") }
}

fn lost(frame: &CapturedFrame) -> impl Iterator<Item = &CapturedOutput> {
    frame.outputs.iter().filter(|output| !output.reason.is_empty())
}

fn name(output: &CapturedOutput) -> &str {
    // It was removed since.
    if output.port.is_empty() { "?" } else { &output.port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(verdict: Verdict, outputs: &[(&str, &str)]) -> CapturedFrame {
        let outputs = outputs
            .iter()
            .map(|(port, reason)| CapturedOutput { port: (*port).to_owned(), reason: (*reason).to_owned() });
        CapturedFrame { verdict: verdict.into(), outputs: outputs.collect(), ..Default::default() }
    }

    #[test]
    fn a_comment_says_what_became_of_the_packet() {
        let drop = CapturedFrame {
            reason: "rule_drop".to_owned(),
            owner: "lab:no-ssh".to_owned(),
            owners: vec!["builtin:default".to_owned(), "lab:no-ssh".to_owned()],
            rule: "table=0,priority=9,tcp,tcp_dst=22".to_owned(),
            ..frame(Verdict::Dropped, &[])
        };
        for (frame, said, line) in [
            (frame(Verdict::Unspecified, &[]), None, ""),
            (frame(Verdict::Forwarded, &[("p2", ""), ("p3", "")]), Some("verdict=forward to=p2,p3"), "-> p2,p3"),
            (frame(Verdict::Forwarded, &[]), Some("verdict=forward to=controller"), "-> controller"),
            (
                frame(Verdict::Forwarded, &[("p2", ""), ("", "queue_full")]),
                Some("verdict=forward to=p2 lost=?:queue_full"),
                "-> p2  LOST at ?: queue_full",
            ),
            (frame(Verdict::Waits, &[]), Some("verdict=waits reason=fragment"), "waits for its other fragments"),
            (
                drop,
                Some(
                    "verdict=drop reason=rule_drop owner=lab:no-ssh owners=builtin:default,lab:no-ssh \
                     rule=table=0,priority=9,tcp,tcp_dst=22",
                ),
                "DROPPED rule_drop by lab:no-ssh",
            ),
        ] {
            assert_eq!((comment(&frame).as_deref(), end_of_line(&frame).as_str()), (said, line));
        }
    }
}
