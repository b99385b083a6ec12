//! Entries of `links`.

use super::super::Problem;
use super::super::resolved::{IMPAIRMENTS, Impairment};
use super::super::yaml::{Node, Value};
use super::Spot;
use super::value::{Fields, check_name, mtu, name_spot, one_or_more, parsed, scalar};
use ipnet::IpNet;
use sluice_switch::port::SpecError;

/// An entry of `links`.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RawLink {
    pub(in super::super) line: usize,
    pub(in super::super) name: Option<String>,
    pub(in super::super) mtu: Option<u32>,
    /// The line of `mtu`, or of the link.
    pub(in super::super) mtu_line: usize,
    pub(in super::super) ends: [RawEnd; 2],
    pub(in super::super) access: Option<Spot<String>>,
    pub(in super::super) native: Option<Spot<String>>,
    pub(in super::super) trunk: Option<Spot<Vec<Spot<String>>>>,
    /// Addresses of each end.
    pub(in super::super) ips: Option<Spot<[Vec<Spot<IpNet>>; 2]>>,
    /// Routing domain of each end.
    pub(in super::super) vrf: [Option<Spot<String>>; 2],
    pub(in super::super) impairment: Ways,
    pub(in super::super) down: bool,
}

/// What happens to frames from the first end of a link to the second, and the other way.
pub(in super::super) type Ways = [Impairment; 2];

/// One end of a link: `h1`, `h1:eth1` or `s1:3`.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RawEnd {
    pub(in super::super) line: usize,
    pub(in super::super) node: String,
    pub(in super::super) pin: Option<String>,
}

const KEYS: [&str; 10] = ["ends", "name", "mtu", "trunk", "native", "access", "ips", "vrf", "down", "back"];

/// `link` under `defaults`: what happens to frames on every link that does not say otherwise.
pub(super) fn usual(node: &Node, problems: &mut Vec<Problem>) -> Ways {
    let fields = Fields::of(node, "`link` of defaults", &[&["back"], IMPAIRMENTS].concat(), &[], problems);
    ways(&fields, node.line, Ways::default(), problems)
}

/// An entry of `links`; `usual` is what happens to frames where it says nothing.
pub(super) fn link(node: &Node, usual: Ways, problems: &mut Vec<Problem>) -> Option<RawLink> {
    if let Value::List(items) = &node.value {
        let ends = ends(node.line, items, problems)?;
        return Some(RawLink { line: node.line, mtu_line: node.line, ends, impairment: usual, ..RawLink::default() });
    }
    let fields = Fields::of(node, "a link", &[&KEYS, IMPAIRMENTS].concat(), &[], problems);
    let mut link = RawLink {
        line: node.line,
        name: fields.name("name", "a link", problems).map(|n| n.value),
        mtu: mtu(&fields, problems),
        mtu_line: fields.get("mtu").map_or(node.line, |n| n.line),
        access: fields.name("access", "a VLAN", problems),
        native: fields.name("native", "a VLAN", problems),
        trunk: trunk(&fields, problems),
        ips: ips(&fields, problems),
        vrf: vrf(&fields, problems),
        impairment: ways(&fields, node.line, usual, problems),
        down: fields.parsed("down", "true or false", problems, |text| text.parse().ok()).is_some_and(|d| d.value),
        ..RawLink::default()
    };
    if let (Some(access), true) = (&link.access, link.trunk.is_some() || link.native.is_some()) {
        let message = "access: a link is either an access link or a trunk, not both";
        problems.push(Problem::new(access.line, message));
    }
    match fields.get("ends") {
        Some(Node { value: Value::List(items), line }) => {
            link.ends = ends(*line, items, problems)?;
            Some(link)
        }
        _ if !matches!(node.value, Value::Map(_)) => None,
        _ => {
            problems.push(Problem::new(node.line, "a link needs its two ends: `[h1, s1]` or `{ends: [h1, s1]}`"));
            None
        }
    }
}

/// The impairments of both directions: what is given holds both ways, and then what is given under `back` the other way.
fn ways(fields: &Fields<'_>, line: usize, usual: Ways, problems: &mut Vec<Problem>) -> Ways {
    let (before, mut again) = (problems.len(), Vec::new());
    let there = impairment(fields, line, usual[0], problems);
    let both = impairment(fields, line, usual[1], &mut again);
    // What is wrong one way mostly is the other way too.
    if problems.len() == before {
        problems.append(&mut again);
    }
    let Some(back) = fields.get("back") else { return [there, both] };
    let of_back = Fields::of(back, "`back` of a link", IMPAIRMENTS, &[], problems);
    [there, impairment(&of_back, back.line, both, problems)]
}

/// The impairments of one direction; those that are not given are as in `other`.
fn impairment(fields: &Fields<'_>, line: usize, other: Impairment, problems: &mut Vec<Problem>) -> Impairment {
    let (mut found, before) = (other, problems.len());
    for key in IMPAIRMENTS {
        let Some(text) = fields.text(key, problems) else { continue };
        if let Err(error) = found.take(key, &text.value) {
            problems.push(Problem::new(text.line, what_is_wrong(&error)));
        }
    }
    match found.check() {
        // A mistake in one value makes misleading second errors.
        Err(error) if problems.len() == before && found != other => {
            let line = fields.get("reorder").map_or(line, |node| node.line);
            problems.push(Problem::new(line, what_is_wrong(&error)));
        }
        _ => {}
    }
    found
}

/// What a port would say of an option, as it is said of a key.
fn what_is_wrong(error: &SpecError) -> String {
    match error {
        SpecError::BadValue { option, value, wanted } => format!("{option}: `{value}` is not {wanted}"),
        SpecError::BadOption { option, why } => format!("{option}: {why}"),
        error => error.to_string(),
    }
}

fn trunk(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Spot<Vec<Spot<String>>>> {
    let line = fields.get("trunk")?.line;
    Some(Spot { line, value: fields.list("trunk", problems, |item, problems| name_spot(item, "a VLAN", problems)) })
}

/// `ips: [A, B]`: an address with its prefix length for each end, several as a list, none as `null`.
fn ips(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Spot<[Vec<Spot<IpNet>>; 2]>> {
    let node = fields.get("ips")?;
    let Value::List(items) = &node.value else {
        let message =
            format!("ips: expected one address per end like [192.0.2.1/30, 192.0.2.2/30], found {}", node.kind());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let [first, second] = items.as_slice() else {
        let message = format!("ips: expected an address for each of the two ends, found {}", items.len());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let mut end = |item: &Node| {
        let wanted = "an address with its prefix length like 192.0.2.1/30";
        let items = one_or_more(item).into_iter().filter(|item| !item.is_null());
        items.filter_map(|item| parsed(item, "ips", wanted, problems, address)).collect()
    };
    Some(Spot { line: node.line, value: [end(first), end(second)] })
}

/// An address that an interface can have, with its prefix length.
fn address(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok()?;
    let ip = net.addr();
    (text.contains('/') && !ip.is_unspecified() && !ip.is_multicast()).then_some(net)
}

/// `vrf: red` for both ends, or `vrf: [red, blue]`.
fn vrf(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> [Option<Spot<String>>; 2] {
    match fields.get("vrf") {
        Some(Node { value: Value::List(items), line }) if items.len() != 2 => {
            let message = format!("vrf: expected one name, or one for each of the two ends, found {}", items.len());
            problems.push(Problem::new(*line, message));
            [None, None]
        }
        Some(Node { value: Value::List(items), .. }) => {
            let mut end =
                |i: usize| items.get(i).filter(|n| !n.is_null()).and_then(|n| name_spot(n, "a VRF", problems));
            [end(0), end(1)]
        }
        Some(node) => {
            let name = name_spot(node, "a VRF", problems);
            [name.clone(), name]
        }
        None => [None, None],
    }
}

fn ends(line: usize, items: &[Node], problems: &mut Vec<Problem>) -> Option<[RawEnd; 2]> {
    let [first, second] = items else {
        problems.push(Problem::new(line, format!("a link joins two ends, this one has {}", items.len())));
        return None;
    };
    let (first, second) = (end(first, problems), end(second, problems));
    Some([first?, second?])
}

fn end(node: &Node, problems: &mut Vec<Problem>) -> Option<RawEnd> {
    let Some(text) = scalar(node) else {
        let message = format!("an end of a link is `h1`, `h1:eth1` or `s1:3`, found {}", node.kind());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let (node_name, pin) = match text.split_once(':') {
        Some((name, pin)) => (name, Some(pin.to_owned())),
        None => (text, None),
    };
    let sound = check_name(node_name, node.line, "a node", problems);
    sound.then(|| RawEnd { line: node.line, node: node_name.to_owned(), pin })
}
