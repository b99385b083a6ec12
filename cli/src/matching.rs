//! MATCH: the words that say which packets, flows or connections a verb is about.
//!
//! It is OVS's field syntax, and beside it names of ends, ports of any transport protocol, and `!`: `tcp,src=h1,!dport=22`. All
//! words have to be true. The switch knows addresses and not who has them, so names are looked up here. A word of OVS's goes to
//! the switch as it is, and what is wrong with it is the switch's to say.
//!
//! # Limits
//! A name is looked up once, when the verb begins.

use crate::client::Client;
use crate::cmd::flows::owned;
use crate::failure::Failure;
use crate::kube;
use crate::lab::{self, closest};
use ipnet::IpNet;
use sluice_flows::text::{Names, parse_match};
use sluice_proto::v1::PacketCondition;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The words that are ours.
const WORDS: [&str; 8] = ["src", "dst", "host", "addr", "pod", "sport", "dport", "port"];
/// What flows are selected by that is in no packet.
const OF_FLOWS: [&str; 7] = ["table", "cookie", "owner", "out_port", "out_group", "priority", "in_port"];

/// One end of a packet, or either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Src,
    Dst,
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// A word of OVS's.
    Plain(String),
    /// It is one of these.
    End(Side, Vec<End>),
    Port(Side, String),
}

/// An address or a network, as the switch reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    ip: IpAddr,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    not: bool,
    test: Test,
}

/// A MATCH that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words(Vec<Word>);

/// Who has which names.
pub(crate) trait Who {
    /// The addresses of a node, a Pod or a Service.
    ///
    /// # Errors
    /// There is none of this name.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Failure>;
}

/// A switch knows the nodes of the lab that it is of, the Pods that are attached to it, and Services.
impl Who for Client {
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let found = if let Some(service) = name.strip_prefix("svc:") {
            service_addresses(&owned(self, &format!("svc:{service}"))?)
        } else if name.contains('/') {
            let spec = kube::find_pod(self, name)?.spec.unwrap_or_default();
            spec.addresses.iter().filter_map(|address| Some(address.parse::<IpNet>().ok()?.addr())).collect()
        } else {
            let no_lab = || {
                Failure::usage(format!("`{name}` is no address, and the switch is no lab's, which would have names"))
                    .next("NS/POD of a Pod, svc:NS/NAME of a Service")
            };
            lab::addresses_of(&lab::of(self)?.ok_or_else(no_lab)?, name)?
        };
        match found.is_empty() {
            true => Err(Failure::new(format!("{name} has no address that is known here"))),
            false => Ok(found),
        }
    }
}

/// The addresses that a Service's flows are for.
fn service_addresses(matches: &[String]) -> Vec<IpAddr> {
    let words = matches.iter().flat_map(|text| text.split(','));
    let values = words.filter_map(|word| word.strip_prefix("nw_dst=").or_else(|| word.strip_prefix("ipv6_dst=")));
    values.filter_map(|value| value.parse().ok()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Reads a MATCH.
///
/// # Errors
/// A word of ours has no value or a wrong one, or a name is nobody's.
pub(crate) fn read(text: &str, who: &dyn Who) -> Result<Words, Failure> {
    let words = split(text).into_iter().map(|word| {
        let (not, word) = word.strip_prefix('!').map_or((false, word), |word| (true, word));
        if word.is_empty() {
            return Err(Failure::usage("`!` stands in front of a word: `!icmp`"));
        }
        Ok(Word { not, test: test(word, who)? })
    });
    words.collect::<Result<_, _>>().map(Words)
}

/// The words of a text: commas and blanks are between them, but for those in parentheses, brackets and quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut words, mut depth, mut quoted, mut start) = (Vec::new(), 0_usize, false, 0);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            ',' | ' ' | '\t' | '\n' if !quoted && depth == 0 => {
                words.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[start..]);
    words.retain(|word| !word.is_empty());
    words
}

fn test(word: &str, who: &dyn Who) -> Result<Test, Failure> {
    let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
    if !WORDS.contains(&key) {
        return Ok(Test::Plain(word.to_owned()));
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        let example = if key.ends_with("port") { "80" } else { "10.0.0.7" };
        return Err(Failure::usage(format!("`{key}` needs a value, such as {key}={example}")));
    };
    let side = match key {
        "src" | "sport" => Side::Src,
        "dst" | "dport" => Side::Dst,
        _ => Side::Either,
    };
    if key.ends_with("port") {
        return Ok(Test::Port(side, value.to_owned()));
    }
    let mut ends = Vec::new();
    for one in value.split('|') {
        // Behind a slash is a prefix length or a mask, or a Pod's name behind its namespace.
        match one.split('/').next().map(str::parse) {
            Some(Ok(ip)) => ends.push(End { ip, text: one.to_owned() }),
            _ => ends.extend(who.addresses(one)?.into_iter().map(|ip| End { ip, text: ip.to_string() })),
        }
    }
    Ok(Test::End(side, ends))
}

impl Words {
    /// The words of OVS's that have to be true, as the switch reads them.
    pub(crate) fn plain(&self) -> String {
        let plain = self.0.iter().filter(|word| !word.not).filter_map(|word| match &word.test {
            Test::Plain(text) => Some(text.as_str()),
            Test::End(..) | Test::Port(..) => None,
        });
        plain.collect::<Vec<_>>().join(",")
    }

    /// What has to hold beside [`Self::plain`], each as matches in OVS's syntax.
    ///
    /// # Errors
    /// A word that is negated says nothing without another one that is not there.
    pub(crate) fn conditions(&self) -> Result<Vec<PacketCondition>, Failure> {
        let plain = self.plain();
        let rest = self.0.iter().filter(|word| word.not || !matches!(word.test, Test::Plain(_)));
        let conditions = rest.map(|word| {
            let any = match &word.test {
                Test::Plain(text) => vec![complete(text, &plain)?],
                Test::End(side, ends) => ends.iter().flat_map(|end| of_end(*side, end)).collect(),
                Test::Port(side, port) => of_port(*side, port),
            };
            Ok(PacketCondition { any, not: word.not })
        });
        conditions.collect()
    }

    /// The same in the words that select connections.
    pub(crate) fn of_connections(&self) -> String {
        let words = self.0.iter().map(|word| {
            let text = match &word.test {
                Test::Plain(text) => text.clone(),
                Test::Port(Side::Src, port) => format!("tp_src={port}"),
                Test::Port(Side::Dst, port) => format!("tp_dst={port}"),
                Test::Port(Side::Either, port) => format!("port={port}"),
                Test::End(side, ends) => {
                    let key = match side {
                        Side::Src => "src",
                        Side::Dst => "dst",
                        Side::Either => "addr",
                    };
                    let ends: Vec<_> = ends.iter().map(|end| end.text.as_str()).collect();
                    format!("{key}={}", ends.join("|"))
                }
            };
            format!("{}{text}", if word.not { "!" } else { "" })
        });
        words.collect::<Vec<_>>().join(",")
    }
}

/// A negated word with what it needs to say anything: `tp_dst=22` means nothing without `tcp`.
fn complete(text: &str, plain: &str) -> Result<String, Failure> {
    let key = text.split(['=', '[']).next().unwrap_or_default();
    if OF_FLOWS.contains(&key) {
        return Ok(text.to_owned());
    }
    let whole = |text: &str| parse_match(text, Names::NONE).is_ok_and(|read| read.warnings.is_empty());
    let among = if plain.is_empty() { text.to_owned() } else { format!("{plain},{text}") };
    if whole(text) {
        return Ok(text.to_owned());
    } else if whole(&among) {
        return Ok(among);
    }
    let failure = Failure::usage(match parse_match(&among, Names::NONE) {
        Ok(read) => {
            let notices: Vec<_> = read.warnings.iter().map(|warning| warning.message.to_string()).collect();
            format!("`!{text}` says nothing: {}", notices.join("; "))
        }
        Err(error) => format!("`!{text}`: {error}{}", closest(key, WORDS.into_iter())),
    });
    Err(failure.next("sluice capture --help has the words of a MATCH"))
}

/// Matches of packets that have this end. ARP has such ends too.
fn of_end(side: Side, end: &End) -> Vec<String> {
    let (fields, arp): ([&str; 2], &[&str]) = match end.ip {
        IpAddr::V4(_) => (["ip,nw_src", "ip,nw_dst"], &["arp,arp_spa", "arp,arp_tpa"]),
        IpAddr::V6(_) => (["ipv6,ipv6_src", "ipv6,ipv6_dst"], &[]),
    };
    let [src, dst] = [0, 1].map(|end| [fields.get(end), arp.get(end)].into_iter().flatten());
    let matches =
        |fields: &mut dyn Iterator<Item = &&str>| fields.map(|field| format!("{field}={}", end.text)).collect();
    match side {
        Side::Src => matches(&mut src.into_iter()),
        Side::Dst => matches(&mut dst.into_iter()),
        Side::Either => matches(&mut src.into_iter().chain(dst)),
    }
}

fn of_port(side: Side, port: &str) -> Vec<String> {
    let ends: &[&str] = match side {
        Side::Src => &["src"],
        Side::Dst => &["dst"],
        Side::Either => &["src", "dst"],
    };
    let protocols = ["tcp", "tcp6", "udp", "udp6", "sctp", "sctp6"];
    protocols.iter().flat_map(|proto| ends.iter().map(move |end| format!("{proto},tp_{end}={port}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab;

    impl Who for Lab {
        fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
            match name {
                "h1" => Ok(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
                "shop/web" => Ok(vec!["10.244.1.5".parse().unwrap()]),
                name => Err(Failure::usage(format!("no {name}"))),
            }
        }
    }

    fn words(text: &str) -> Words {
        read(text, &Lab).unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    fn conditions(text: &str) -> Vec<(bool, String)> {
        let all = words(text).conditions().unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
        all.into_iter().map(|condition| (condition.not, condition.any.join(" | "))).collect()
    }

    #[test]
    fn words_of_ovs_go_to_the_switch_as_they_are() {
        let text = "table=1,tcp tp_dst=80,in_port=\"a,b\",ct_state=+trk,learn(x,y)";
        let read = words(text);
        assert_eq!(read.plain(), "table=1,tcp,tp_dst=80,in_port=\"a,b\",ct_state=+trk,learn(x,y)");
        assert_eq!(read.conditions().unwrap(), []);
    }

    #[test]
    fn names_are_addresses_of_both_ip_versions() {
        assert_eq!(
            conditions("tcp,src=h1"),
            [(false, "ip,nw_src=10.0.0.1 | arp,arp_spa=10.0.0.1 | ipv6,ipv6_src=fd00::1".to_owned())]
        );
        assert_eq!(
            conditions("!pod=shop/web"),
            [(
                true,
                "ip,nw_src=10.244.1.5 | arp,arp_spa=10.244.1.5 | ip,nw_dst=10.244.1.5 | arp,arp_tpa=10.244.1.5"
                    .to_owned()
            )]
        );
        assert_eq!(conditions("dst=10.9.8.7/8"), [(false, "ip,nw_dst=10.9.8.7/8 | arp,arp_tpa=10.9.8.7/8".to_owned())]);
        assert!(read("host=h7", &Lab).is_err() && read("src", &Lab).is_err() && read("dst=shop/db", &Lab).is_err());
    }

    #[test]
    fn every_condition_is_a_match_that_loses_nothing() {
        for text in ["host=h1", "port=53", "!sport=1", "tcp,!tp_dst=22", "!icmp", "!dl_src=02:00:00:00:00:01", "!arp"] {
            for (_, any) in conditions(text) {
                for one in any.split(" | ") {
                    let read = parse_match(one, Names::NONE).unwrap_or_else(|error| panic!("{one}: {error}"));
                    assert!(read.warnings.is_empty() && !read.value.is_any(), "{one}");
                }
            }
        }
    }

    #[test]
    fn a_negated_word_that_says_nothing_is_refused() {
        assert_eq!(conditions("tcp,!tp_dst=22"), [(true, "tcp,tp_dst=22".to_owned())]);
        assert_eq!(conditions("!table=3"), [(true, "table=3".to_owned())]);
        for wrong in ["!tp_dst=22", "!hots=h1", "!tcp_dst=x"] {
            assert!(words(wrong).conditions().is_err(), "{wrong}");
        }
        assert!(read("tcp,!", &Lab).is_err() && read("port=", &Lab).is_err());
    }

    #[test]
    fn connections_are_selected_by_the_same_words() {
        let text = words("zone=5,tcp,src=h1,!host=10.0.0.9|h1,dport=80,port=53/0xff,!nat").of_connections();
        assert_eq!(text, "zone=5,tcp,src=10.0.0.1|fd00::1,!addr=10.0.0.9|10.0.0.1|fd00::1,tp_dst=80,port=53/0xff,!nat");
    }

    #[test]
    fn a_service_has_the_addresses_that_its_flows_are_for() {
        let flows = ["tcp,nw_dst=10.96.0.5,tp_dst=80", "udp,nw_dst=10.96.0.5", "tcp6,ipv6_dst=fd00::5", "reg3=0x2"];
        assert_eq!(service_addresses(&flows.map(str::to_owned)).len(), 2);
    }
}
