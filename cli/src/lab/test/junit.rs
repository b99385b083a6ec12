//! What came of the tests as JUnit XML, which CI systems read: one suite, called like the lab.

use super::verdict::Verdict;
use crate::xml::escape;
use std::fmt::Write;

pub(super) fn xml(lab: &str, seed: u64, verdicts: &[Verdict]) -> String {
    let failed = verdicts.iter().filter(|verdict| !verdict.passed).count();
    let time: u64 = verdicts.iter().map(|verdict| verdict.duration_ns).sum();
    let counts = format!("tests=\"{}\" failures=\"{failed}\" errors=\"0\" time=\"{}\"", verdicts.len(), seconds(time));
    let lab = escape(lab);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{lab}\" {counts}>\n  \
         <testsuite name=\"{lab}\" {counts}>\n    \
         <properties>\n      <property name=\"seed\" value=\"{seed}\"/>\n    </properties>\n"
    );
    for verdict in verdicts {
        let (name, said) = (escape(&verdict.name), escape(&verdict.said));
        let about = format!("{} {} -> {}", verdict.kind, escape(&verdict.from), escape(&verdict.to));
        let time = seconds(verdict.duration_ns);
        // Writing to a string cannot fail.
        _ = writeln!(out, "    <testcase name=\"{name}\" classname=\"{lab}\" time=\"{time}\">");
        _ = match verdict.passed {
            true => writeln!(out, "      <system-out>{about}: {said}</system-out>"),
            false => {
                writeln!(out, "      <failure message=\"{said}\" type=\"{}\">{about}</failure>", verdict.want.name())
            }
        };
        out.push_str("    </testcase>\n");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn seconds(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e9)
}
