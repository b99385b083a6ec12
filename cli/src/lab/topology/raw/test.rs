//! Entries of `tests`.

use super::super::Problem;
use super::super::resolved::test::{Loss, Range, Want};
use super::super::yaml::{Node, Value};
use super::Spot;
use super::value::{Fields, name_spot, nearest, scalar};
use sluice_switch::port::parse_time;
use std::net::IpAddr;
use std::time::Duration;

/// An entry of `tests`.
#[derive(Clone, Debug)]
pub(in super::super) struct RawTest {
    pub(in super::super) line: usize,
    pub(in super::super) name: Option<Spot<String>>,
    pub(in super::super) from: Spot<String>,
    pub(in super::super) to: Spot<RawTarget>,
    /// Where TCP connects to; none for a ping.
    pub(in super::super) port: Option<u16>,
    pub(in super::super) want: Want,
    pub(in super::super) by: Option<Spot<String>>,
    pub(in super::super) rtt: Option<Range>,
    pub(in super::super) max_loss: Option<Loss>,
    pub(in super::super) within: Option<Duration>,
}

/// What is tested from a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum RawTarget {
    Host(String),
    Address(IpAddr),
}

const KEYS: [&str; 8] = ["name", "ping", "tcp", "want", "by", "rtt", "max_loss", "within"];
/// Longest time for which a test may be tried.
const WITHIN_MAX: Duration = Duration::from_secs(60);

pub(super) fn test(node: &Node, problems: &mut Vec<Problem>) -> Option<RawTest> {
    let fields = Fields::of(node, "a test", &KEYS, &[], problems);
    let name = fields.name("name", "a test", problems);
    let want = want(&fields, problems);
    let by = fields.text("by", problems);
    let rtt = fields.parsed("rtt", "a range like 74..90ms, ..90ms or 74ms..", problems, range);
    let max_loss = fields.parsed("max_loss", "a share like 20%", problems, loss);
    let time = |text: &str| parse_time(text).filter(|time| *time <= WITHIN_MAX);
    let within = fields.parsed("within", "a time like 10s, at most 60s", problems, time);
    let (ping, tcp) = (fields.get("ping"), fields.get("tcp"));
    let (key, pair) = match (ping, tcp) {
        (Some(pair), None) => ("ping", pair),
        (None, Some(pair)) => ("tcp", pair),
        (first, _) => {
            if matches!(node.value, Value::Map(_)) {
                let found = if first.is_some() { "this one has both" } else { "this one has neither" };
                let message = format!("a test has `ping: [h1, h2]` or `tcp: [h1, \"h2:22\"]`; {found}");
                problems.push(Problem::new(node.line, message));
            }
            return None;
        }
    };
    check_keys(key, want, &fields, problems);
    let (from, (to, port)) = ends(key, pair, problems)?;
    let (rtt, max_loss) = (rtt.map(|rtt| rtt.value), max_loss.map(|loss| loss.value));
    let within = within.map(|time| time.value);
    Some(RawTest { line: node.line, name, from, to, port, want, by, rtt, max_loss, within })
}

fn want(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Want {
    let Some(text) = fields.text("want", problems) else { return Want::Ok };
    Want::from_name(&text.value).unwrap_or_else(|| {
        let near = nearest(&text.value, Want::NAMES.iter().map(|(name, _)| *name));
        problems.push(Problem::new(text.line, format!("want: unknown `{}`{near}", text.value)));
        Want::Ok
    })
}

/// Refuses keys that say nothing about a test of this kind.
fn check_keys(kind: &str, want: Want, fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    let mut refuse = |key: &str, why: &str| {
        if let Some(node) = fields.get(key) {
            problems.push(Problem::new(node.line, format!("{key}: {why}")));
        }
    };
    if kind == "tcp" || want != Want::Ok {
        refuse("rtt", "only a ping that is to be answered has a round trip");
        refuse("max_loss", "only a ping that is to be answered can lose some of its probes");
    }
    if want == Want::Drop {
        refuse("within", "that nothing comes is not awaited");
    } else {
        refuse("by", "names the rule that drops, so it needs `want: drop`");
    }
    if kind == "ping" && want == Want::Refused {
        refuse("want", "only TCP is refused; a ping is answered (ok) or not (drop)");
    }
}

type Ends = (Spot<String>, (Spot<RawTarget>, Option<u16>));

fn ends(key: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Ends> {
    let form = if key == "ping" { "[h1, h2]" } else { "[h1, \"h2:22\"]" };
    let Value::List(items) = &node.value else {
        let message = format!("{key}: expected who and to whom, like {form}, found {}", node.kind());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let [from, to] = items.as_slice() else {
        let message = format!("{key}: expected who and to whom, like {form}, found {} items", items.len());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let from = name_spot(from, "a host", problems);
    let target = scalar(to).and_then(|text| if key == "ping" { Some((target(text)?, None)) } else { with_port(text) });
    let Some((value, port)) = target else {
        let wanted = match key {
            "ping" => "a host or an address",
            _ => "a host or an address with a port, like \"h2:22\", \"10.0.0.2:22\" or \"[fd00::2]:22\"",
        };
        let found = scalar(to).map_or_else(|| to.kind().to_owned(), |text| format!("`{text}`"));
        problems.push(Problem::new(to.line, format!("{key}: expected {wanted}, found {found}")));
        return None;
    };
    Some((from?, (Spot { line: to.line, value }, port)))
}

fn target(text: &str) -> Option<RawTarget> {
    match text.parse() {
        Ok(address) => Some(RawTarget::Address(address)),
        Err(_) => super::is_name(text).then(|| RawTarget::Host(text.to_owned())),
    }
}

fn with_port(text: &str) -> Option<(RawTarget, Option<u16>)> {
    let (target_text, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare = target_text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let found = match bare {
        Some(address) => RawTarget::Address(address.parse().ok().filter(IpAddr::is_ipv6)?),
        // Without brackets it could not be told where an IPv6 address ends.
        None if target_text.contains(':') => return None,
        None => target(target_text)?,
    };
    Some((found, Some(port)))
}

/// `74..90ms`: the unit may be left out where the other end has it.
fn range(text: &str) -> Option<Range> {
    let (low, high) = text.split_once("..")?;
    let unit = high.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let least = match low {
        "" => None,
        low if low.ends_with(|c: char| c.is_ascii_digit()) => Some(parse_time(&format!("{low}{unit}"))?),
        low => Some(parse_time(low)?),
    };
    let most = if high.is_empty() { None } else { Some(parse_time(high)?) };
    let ordered = least.zip(most).is_none_or(|(least, most)| least <= most);
    (ordered && (least.is_some() || most.is_some())).then_some(Range { least, most })
}

/// `0.5%`, to a millionth.
fn loss(text: &str) -> Option<Loss> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || part.len() > 4 || !digits(whole) || !digits(part) {
        return None;
    }
    let part: u32 = format!("{part:0<4}").parse().ok()?;
    let millionths = whole.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(part)?;
    (millionths <= 1_000_000).then_some(Loss { millionths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_leave_out_an_end_or_a_unit() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(range("74..90ms"), Some(Range { least: ms(74), most: ms(90) }));
        assert_eq!(range("500us..1.5s"), Some(Range { least: Some(Duration::from_micros(500)), most: ms(1500) }));
        assert_eq!(range("..90ms"), Some(Range { least: None, most: ms(90) }));
        assert_eq!(range("74ms.."), Some(Range { least: ms(74), most: None }));
        for wrong in ["", "..", "90..74ms", "74..90", "74-90ms", "x..90ms", "74.."] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_is_read_to_a_millionth() {
        let read = |text| loss(text).map(|loss| loss.millionths);
        assert_eq!(["20%", "0.5%", "0.0001%", "100%"].map(read), [200_000, 5_000, 1, 1_000_000].map(Some));
        assert_eq!(["20", "101%", "%", "-1%", "1.00001%", "1e2%", ".5%"].map(read), [None; 7]);
    }

    #[test]
    fn a_port_stands_behind_a_name_or_an_address() {
        let host = |name: &str| RawTarget::Host(name.to_owned());
        assert_eq!(with_port("h2:22"), Some((host("h2"), Some(22))));
        assert_eq!(with_port("10.0.0.2:80"), Some((RawTarget::Address(IpAddr::from([10, 0, 0, 2])), Some(80))));
        let v6 = RawTarget::Address("fd00::2".parse().unwrap());
        assert_eq!(with_port("[fd00::2]:80"), Some((v6.clone(), Some(80))));
        assert_eq!(target("fd00::2"), Some(v6));
        for wrong in ["h2", "h2:", "h2:0", "h2:70000", "fd00::2:80", "H2:1", "[10.0.0.2]:1"] {
            assert_eq!(with_port(wrong), None, "{wrong}");
        }
    }
}
