//! What came of a test, against what was to come of it.

use super::probe::Observed;
use crate::cmd::trace::Fate;
use crate::lab::topology::Topology;
use crate::lab::topology::resolved::test::{Probe, Test, Want};
use crate::lab::topology::resolved::{Rule, Switch};
use serde::Serialize;
use sluice_flows::Owner;
use std::time::Duration;

/// What came of a test.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) kind: &'static str,
    pub(super) want: Want,
    pub(super) result: Want,
    pub(super) passed: bool,
    /// The same in words.
    pub(super) said: String,
    /// The middle one of the round trips.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ns: Option<u64>,
    /// What the trace of it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_owner: Option<String>,
    /// How long it took.
    pub(super) duration_ns: u64,
    /// Line in the topology file.
    pub(super) line: usize,
}

impl Verdict {
    /// Judges. `fate` is what a trace says of what was not answered, where one could be asked.
    pub(super) fn of(topology: &Topology, test: &Test, seen: &Observed, fate: Option<&Fate>, took: Duration) -> Self {
        let judged = match seen {
            Observed::Ping { sent, rtts, .. } if !rtts.is_empty() => pinged(test, *sent, rtts),
            Observed::Connected(time) => {
                let via = via(topology, test).map(|name| format!(" via {name}")).unwrap_or_default();
                Judged::new(Want::Ok, format!("connected in {}{via}", millis(*time)))
            }
            Observed::Refused(time) => Judged::new(Want::Refused, format!("refused in {}", millis(*time))),
            Observed::Ping { error, .. } => dropped(topology, test, None, error.as_deref(), fate),
            Observed::Silent { waited, error } => dropped(topology, test, Some(*waited), error.as_deref(), fate),
        };
        let passed = judged.result == test.want && judged.wish.is_none();
        let wish = judged.wish.or_else(|| (!passed).then(|| test.want.name().to_owned()));
        let (drop_reason, drop_owner) = match fate {
            Some(Fate::Dropped { reason, rule }) => {
                (Some(reason.clone()), rule.as_ref().map(|(owner, _)| owner.clone()))
            }
            _ => (None, None),
        };
        let (sent, rtts) = match seen {
            Observed::Ping { sent, rtts, .. } => (Some(*sent), rtts.as_slice()),
            _ => (None, Default::default()),
        };
        Self {
            name: test.name.clone(),
            from: test.from.clone(),
            to: test.target(),
            kind: if sent.is_some() { "ping" } else { "tcp" },
            want: test.want,
            result: judged.result,
            passed,
            said: judged.said + &wish.map(|wish| format!("; want {wish}")).unwrap_or_default(),
            rtt_ns: middle(rtts).map(nanos),
            sent,
            lost: sent.map(|sent| sent.saturating_sub(u16::try_from(rtts.len()).unwrap_or(sent))),
            connect_ns: if let Observed::Connected(time) = seen { Some(nanos(*time)) } else { None },
            drop_reason,
            drop_owner,
            duration_ns: nanos(took),
            line: test.line,
        }
    }
}

/// A result in words, and what was to be beyond the result.
struct Judged {
    result: Want,
    said: String,
    /// What was wanted and is not so.
    wish: Option<String>,
}

impl Judged {
    fn new(result: Want, said: String) -> Self {
        Self { result, said, wish: None }
    }
}

/// At least one request was answered.
fn pinged(test: &Test, sent: u16, rtts: &[Duration]) -> Judged {
    let rtt = middle(rtts).unwrap_or_default();
    let mut said = format!("rtt {:.1} ms", rtt.as_secs_f64() * 1e3);
    let lost = usize::from(sent).saturating_sub(rtts.len());
    let Probe::Ping { rtt: range, max_loss } = &test.probe else { return Judged::new(Want::Ok, said) };
    let mut wish = None;
    if let Some(range) = range {
        match range.contains(rtt) {
            true => said += &format!(" (want {})", range.millis()),
            false => wish = Some(format!("{} ms", range.millis())),
        }
    }
    if lost > 0 {
        said += &format!(", {lost} of {sent} lost");
    }
    let lost = u32::try_from(lost).unwrap_or(u32::MAX);
    if let Some(most) = max_loss.filter(|most| most.is_exceeded(lost, sent.into())) {
        wish = wish.or_else(|| Some(format!("at most {most}")));
    }
    Judged { result: Want::Ok, said, wish }
}

/// Nothing came back.
fn dropped(
    topology: &Topology,
    test: &Test,
    waited: Option<Duration>,
    error: Option<&str>,
    fate: Option<&Fate>,
) -> Judged {
    let (said, is_it) = match (fate, error) {
        (Some(Fate::Dropped { reason, rule }), _) => {
            let (owner, priority) = rule.as_ref().map_or(("", 0), |(owner, priority)| (owner.as_str(), *priority));
            let found = rules(topology, owner, priority);
            let names: Vec<_> = found.iter().map(|(_, rule)| rule.name.as_str()).collect();
            let said = match found.first() {
                Some((switch, rule)) => {
                    let place = format!("{}:{}", topology.source, rule.line);
                    format!("dropped at {} by {} ({place})", switch.name, names.join(" or "))
                }
                None if reason == "rule_drop" && !owner.is_empty() => format!("dropped by {owner}"),
                None => format!("dropped: {reason}"),
            };
            let is_it = |by: &str| by == owner || names.contains(&by) || is_line(topology, by, owner);
            (said, test.by.as_deref().is_some_and(is_it))
        }
        (_, Some(error)) => (format!("no answer: {error}"), false),
        (fate, None) => {
            let waited = waited.map(|waited| format!(" in {}", millis(waited))).unwrap_or_default();
            let though = match fate {
                Some(Fate::Arrives) => ", though a trace of it arrives",
                Some(Fate::Elsewhere) => "; a trace of it goes elsewhere",
                _ => "",
            };
            (format!("no answer{waited}{though}"), false)
        }
    };
    let wish = test.by.as_ref().filter(|_| !is_it).map(|by| format!("drop by {by}"));
    Judged { result: Want::Drop, said, wish }
}

/// Whether `by` is the line of a file beside the lab's, like `firewall.flows:67`, and `owner` is that line.
fn is_line(topology: &Topology, by: &str, owner: &str) -> bool {
    let line = by.rsplit_once(':').and_then(|(path, line)| Some((path, line.parse().ok()?)));
    line.is_some_and(|(path, line)| Owner::file_line(&topology.beside(path), line).text() == owner)
}

/// The rules of switches that have this owner and priority: one, if each has a line of its own in the file.
fn rules<'a>(topology: &'a Topology, owner: &str, priority: u32) -> Vec<(&'a Switch, &'a Rule)> {
    let all = topology.switches.iter().flat_map(|switch| switch.rules.iter().map(move |rule| (switch, rule)));
    let priority = format!("priority={priority}");
    all.filter(|(_, rule)| {
        let same = rule.flow.split([',', ' ']).next() == Some(&priority);
        same && Owner::file_line(&topology.source, rule.line).to_string() == owner
    })
    .collect()
}

/// The router that the first packet of a test goes to, if its target is in another network.
fn via<'a>(topology: &'a Topology, test: &Test) -> Option<&'a str> {
    let own = topology.host(&test.from)?.interfaces.first()?;
    let to = super::address(topology, test)?;
    if own.addresses.iter().any(|net| net.contains(&to)) {
        return None;
    }
    let gateway = own.gateways.iter().find(|ip| ip.is_ipv4() == to.is_ipv4())?;
    let has_it = |router: &&crate::lab::topology::resolved::Router| {
        let same = router.interfaces.iter().filter(|i| i.vlan == own.vlan);
        same.flat_map(|i| &i.addresses).any(|net| net.addr() == *gateway)
    };
    let router = topology.routers.iter().find(has_it)?;
    Some(router.inside.as_ref().map_or(&router.name, |inside| &inside.switch))
}

/// The middle one of some times; of an even number the longer of the two.
fn middle(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `0.4 ms`, `83 ms`.
fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::topology;

    const FILE: &str = "lab: office\nvlans:\n  blue: {id: 10, subnet: 10.0.10.0/24, gateway: r1}\n  \
        green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}\n\
        switches:\n  s1: {}\n  s2: {rules: [{name: no-ssh, match: \"tcp,tcp_dst=22\", action: drop}]}\n\
        routers: {r1: {}}\nhosts: {h1: {}, h2: {}, web: {}}\nlinks:\n- {ends: [h1, s1], access: blue}\n\
        - {ends: [h2, s2], access: blue}\n- {ends: [web, s2], access: green}\n- {ends: [r1, s1], trunk: [blue, green]}\n\
        - {ends: [s1, s2], trunk: [blue, green]}\ntests:\n\
        - {name: same-vlan, ping: [h1, h2], rtt: 74..90ms, max_loss: 20%}\n\
        - {name: routed, tcp: [h1, \"web:80\"]}\n\
        - {name: ssh-blocked, tcp: [h1, \"web:22\"], want: drop, by: no-ssh}\n\
        - {name: closed, tcp: [h1, \"web:81\"], want: refused}\n";

    #[track_caller]
    fn judge(test: &str, seen: Observed, fate: Option<Fate>) -> (bool, String) {
        let topology = topology::parse(FILE, "office.yml").unwrap();
        let test = topology.tests.iter().find(|t| t.name == test).unwrap();
        let verdict = Verdict::of(&topology, test, &seen, fate.as_ref(), Duration::ZERO);
        (verdict.passed, verdict.said)
    }

    fn yes(said: &str) -> (bool, String) {
        (true, said.to_owned())
    }

    fn no(said: &str) -> (bool, String) {
        (false, said.to_owned())
    }

    fn answers(millis: &[u64]) -> Observed {
        let rtts = millis.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Observed::Ping { sent: 5, rtts, error: None }
    }

    fn dropped_by(owner: &str, priority: u32) -> Option<Fate> {
        Some(Fate::Dropped { reason: "rule_drop".to_owned(), rule: Some((owner.to_owned(), priority)) })
    }

    #[test]
    fn a_ping_is_judged_by_its_middle_round_trip_and_its_loss() {
        assert_eq!(judge("same-vlan", answers(&[160, 80, 80, 80, 80]), None), yes("rtt 80.0 ms (want 74..90)"));
        assert_eq!(judge("same-vlan", answers(&[80; 4]), None), yes("rtt 80.0 ms (want 74..90), 1 of 5 lost"));
        assert_eq!(judge("same-vlan", answers(&[20; 5]), None), no("rtt 20.0 ms; want 74..90 ms"));
        assert_eq!(
            judge("same-vlan", answers(&[80; 3]), None),
            no("rtt 80.0 ms (want 74..90), 2 of 5 lost; want at most 20%")
        );
        assert_eq!(judge("same-vlan", answers(&[]), None), no("no answer; want ok"));
    }

    #[test]
    fn a_connection_says_by_which_router_it_went() {
        let connected = Observed::Connected(Duration::from_millis(83));
        assert_eq!(judge("routed", connected.clone(), None), yes("connected in 83 ms via r1"));
        assert_eq!(judge("closed", connected, None), no("connected in 83 ms via r1; want refused"));
        let refused = Observed::Refused(Duration::from_micros(200));
        assert_eq!(judge("closed", refused.clone(), None), yes("refused in 0.2 ms"));
        assert_eq!(judge("routed", refused, None), no("refused in 0.2 ms; want ok"));
    }

    #[test]
    fn a_drop_counts_only_by_the_rule_that_is_named() {
        let silent = || Observed::Silent { waited: Duration::from_secs(2), error: None };
        let by = "dropped at s2 by no-ssh (office.yml:7)";
        assert_eq!(judge("ssh-blocked", silent(), dropped_by("file:office.yml:7", 100)), yes(by));
        assert_eq!(judge("routed", silent(), dropped_by("file:office.yml:7", 100)), no(&format!("{by}; want ok")));
        let other = no("dropped by np:shop/deny; want drop by no-ssh");
        assert_eq!(judge("ssh-blocked", silent(), dropped_by("np:shop/deny", 100)), other);
        let arrives = no("no answer in 2000 ms, though a trace of it arrives; want drop by no-ssh");
        assert_eq!(judge("ssh-blocked", silent(), Some(Fate::Arrives)), arrives);
        let reason =
            Some(Fate::Dropped { reason: "vlan_filter".to_owned(), rule: Some(("builtin:default".to_owned(), 0)) });
        assert_eq!(judge("routed", silent(), reason), no("dropped: vlan_filter; want ok"));
        let error = Observed::Silent { waited: Duration::ZERO, error: Some("No route to host".to_owned()) };
        assert_eq!(judge("routed", error, None), no("no answer: No route to host; want ok"));
    }
}
