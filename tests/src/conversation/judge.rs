//! Whether two switches do the same to the packets of a scenario.
//!
//! Everything must be equal, to the byte, but for addresses and ports that were translated: which of a range is taken
//! depends on a hash. They must both be in a range of the flows, and stand for each other as long as the connection
//! lives.

use super::programs::{KIND, SOURCE, STATE, TARGET};
use super::{End, Event, MONITOR, Out, Packet, Reading, Round, Scenario, rounds};
use crate::generate::program::FlowLine;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

/// More than there are addresses of one kind in a frame: each frame of a packet may be behind another translation.
const PLACES: usize = 8;
/// The bit of `est` in a state.
const EST: u8 = 2;
/// The bit of `new`.
const NEW: u8 = 1;

/// The ranges that flows translate to.
#[derive(Clone, Debug, Default)]
struct Ranges {
    addresses: Vec<RangeInclusive<IpAddr>>,
    ports: Vec<RangeInclusive<u16>>,
    /// Some translation has no range of ports: any port may be taken when its own is in use.
    any_port: bool,
}

impl Ranges {
    /// Those in the flows' text.
    fn of(flows: &[FlowLine]) -> Self {
        let mut ranges = Self::default();
        for text in flows.iter().flat_map(|flow| &flow.actions) {
            for nat in text.split("nat(").skip(1) {
                let spec = nat.split(')').next().unwrap_or_default();
                let range = spec.split(',').next().unwrap_or_default();
                let Some((side, range)) = range.split_once('=') else { continue };
                // When all destinations are in use, the source port changes.
                ranges.any_port |= side == "dst";
                ranges.read(range);
            }
        }
        ranges
    }

    /// `A`, `A-B`, `A:P`, `A-B:P-Q`; with ports, IPv6 addresses stand in brackets.
    fn read(&mut self, range: &str) {
        let split = match range.rfind(']') {
            Some(end) => range.split_at(end + 1),
            None if range.matches(':').count() == 1 => range.split_at(range.find(':').unwrap_or(range.len())),
            None => (range, ""),
        };
        let addresses = split.0.replace(['[', ']'], "");
        let (first, last) = addresses.split_once('-').unwrap_or((&addresses, &addresses));
        if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
            self.addresses.push(first..=last);
        }
        match split.1.trim_start_matches(':') {
            "" => self.any_port = true,
            ports => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                    self.ports.push(first..=last);
                }
            }
        }
    }

    fn has(&self, end: End, other: End) -> bool {
        let address = end.addr == other.addr || self.addresses.iter().any(|range| range.contains(&end.addr));
        let port = end.port == other.port || self.any_port || self.ports.iter().any(|range| range.contains(&end.port));
        address && port
    }
}

/// What differs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The packet, by number.
    pub number: u16,
    /// What is different, in a word or two.
    pub what: String,
    /// [`Side::full`] of our side is not 0.
    pub full: bool,
    /// What they sent of it, and what we.
    pub frames: [Vec<Out>; 2],
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "packet {}: {}", self.number, self.what)?;
        for (who, frames) in ["they", "we"].iter().zip(&self.frames) {
            writeln!(f, "  {who}: {} frames", frames.len())?;
            for out in frames {
                writeln!(f, "    {out}")?;
            }
        }
        Ok(())
    }
}

impl Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self))
    }
}

/// A frame in words.
fn show(out: &Out) -> String {
    let mut text = format!("port {}", out.port);
    if out.port == MONITOR {
        match mark(out) {
            Some((STATE, [label1, label0, mark, zone1, zone0, state])) => {
                let zone = u16::from_be_bytes([zone1, zone0]);
                text += &format!(" {} zone={zone} mark={mark:#x} label={label1:x}.{label0:x}", state_words(state));
            }
            Some((kind, bytes)) => text += &format!(" kind {kind} {bytes:x?}"),
            None => text += " short",
        }
    }
    for headers in Reading::of(&out.frame).headers {
        let [a, b] = [headers.src, headers.dst];
        text += &format!(" [{} {}.{} > {}.{}", headers.proto, a.addr, a.port, b.addr, b.port);
        if headers.fragment {
            text += &format!(" fragment {}", headers.offset);
        }
        if headers.checksum == Some(false) {
            text += " bad checksum";
        }
        text += "]";
    }
    text + &format!(" {} bytes", out.frame.len())
}

/// The flags of a state by name.
pub fn state_words(state: u8) -> String {
    let names = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
    let set = (0..).zip(names).filter(|(bit, _)| state >> bit & 1 == 1).map(|(_, name)| name);
    set.collect::<Vec<_>>().join("|")
}

/// The kind of a copy for the monitor, and what it says.
pub fn mark(out: &Out) -> Option<(u8, [u8; 6])> {
    let kind = *out.frame.get(KIND)?;
    Some((kind, *out.frame.first_chunk()?)).filter(|_| out.port == MONITOR)
}

/// What is compared: a frame of each side, and the state that the tracker told of last.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "said above")]
pub struct Pair<'a> {
    pub theirs: &'a Out,
    pub ours: &'a Out,
    pub state: u8,
}

/// What is known to be different.
pub trait Known {
    /// Learns what was sent, and what they and we did.
    fn seen(&mut self, _packets: &[(u16, &Packet)], _theirs: &[Out], _ours: &[Out]) {}

    /// Learns what else happens.
    fn happens(&mut self, _event: &Event) {}

    /// The frame of theirs as it would be without what is known to be different.
    fn mended(&self, pair: &Pair<'_>) -> Vec<u8> {
        pair.theirs.frame.clone()
    }

    /// Whether a conversation was such that the two sides may not agree on it any more, as they do here.
    fn excuses(&mut self, _conversation: usize, _difference: &Difference) -> bool {
        false
    }
}

/// What stands for what while connections live.
pub struct Judge {
    ranges: Ranges,
    /// The packet is one of an established connection.
    settled: bool,
    /// By conversation, place in a packet, and what they show: what we show; and the other way round.
    pairs: HashMap<(usize, usize, bool, End), End>,
}

impl Judge {
    /// A judge for these flows.
    pub fn new(flows: &[FlowLine]) -> Self {
        Self { ranges: Ranges::of(flows), settled: false, pairs: HashMap::new() }
    }

    /// Compares what came out of one round. `conversation` tells that of a number.
    pub fn compare(
        &mut self,
        theirs: &[Out],
        ours: &[Out],
        known: &impl Known,
        conversation: impl Fn(u16) -> Option<usize>,
    ) -> Vec<Difference> {
        let mut numbers: Vec<_> = theirs.iter().chain(ours).map(|out| out.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let of = |all: &[Out], number| all.iter().filter(|out| out.number == number).cloned().collect::<Vec<_>>();
        let mut all = Vec::new();
        for number in numbers {
            let frames = [of(theirs, number), of(ours, number)];
            let talk = conversation(number).unwrap_or(usize::MAX);
            if let Some(what) = self.differs(talk, known, &frames) {
                all.push(Difference { number, what, full: false, frames });
            }
        }
        all
    }

    fn differs(&mut self, talk: usize, known: &impl Known, [theirs, ours]: &[Vec<Out>; 2]) -> Option<String> {
        // Other connections of the same ends may be translated otherwise; once both sides were seen, it is one.
        let told = || theirs.iter().filter_map(mark).filter(|(kind, _)| *kind == STATE).map(|(_, told)| told[5]);
        self.settled = told().any(|state| state & EST != 0) && told().all(|state| state & (EST | NEW) != NEW);
        if !self.settled {
            self.pairs.retain(|(of, ..), _| *of != talk);
        }
        let ports = |all: &[Out]| all.iter().map(|out| (out.port, mark(out).map(|(kind, _)| kind))).collect::<Vec<_>>();
        for (a, b) in theirs.iter().zip(ours) {
            if let (Some((STATE, a)), Some((STATE, b))) = (mark(a), mark(b))
                && a != b
            {
                return Some(format!("state {} and {}", state_words(a[5]), state_words(b[5])));
            }
        }
        if ports(theirs) != ports(ours) {
            return Some(String::from("other ports"));
        }
        let mut state = 0;
        theirs.iter().zip(ours).enumerate().find_map(|(at, (theirs, ours))| {
            if let Some((STATE, [.., told])) = mark(theirs) {
                state = told;
            }
            self.frames_differ((talk, at), known, &Pair { theirs, ours, state })
        })
    }

    fn frames_differ(&mut self, (talk, at): (usize, usize), known: &impl Known, pair: &Pair<'_>) -> Option<String> {
        let a = &Out { frame: known.mended(pair), ..pair.theirs.clone() };
        let b = pair.ours;
        let [mut left, mut right] = [&a.frame, &b.frame].map(|frame| Reading::of(frame));
        // What is excused is part of what their checksum is of.
        if let (Some(left), Some(right)) = (left.headers.first_mut(), Reading::of(&pair.theirs.frame).headers.first()) {
            left.checksum = right.checksum;
        }
        if let (Some((kind @ (SOURCE | TARGET), a)), Some((_, b))) = (mark(a), mark(b)) {
            let [a, b] = [a, b].map(|bytes| original(bytes, left.headers.first().map(|h| h.src.addr)));
            if !self.stand_for_each_other((talk, PLACES * at + usize::from(kind)), a, b) {
                return Some(format!("original {kind}: {a:?} and {b:?}"));
            }
            left.rest[..6].fill(0);
            right.rest[..6].fill(0);
        }
        if left.headers.len() != right.headers.len() {
            return Some(String::from("other headers"));
        }
        for (place, (x, y)) in left.headers.iter().zip(&right.headers).enumerate() {
            if (x.proto, x.offset, x.fragment) != (y.proto, y.offset, y.fragment) {
                return Some(String::from("other headers"));
            }
            if x.checksum != y.checksum {
                return Some(format!("checksum {:?} and {:?}", x.checksum, y.checksum));
            }
            for (a, b) in [(x.src, y.src), (x.dst, y.dst)] {
                if !self.stand_for_each_other((talk, PLACES * at + place), a, b) {
                    return Some(format!("{a:?} and {b:?}"));
                }
            }
        }
        let at = left.rest.iter().zip(&right.rest).position(|(a, b)| a != b);
        match at {
            Some(at) => Some(format!("byte {at}: {:#04x} and {:#04x}", left.rest[at], right.rest[at])),
            None if left.rest.len() != right.rest.len() => Some(String::from("length")),
            None => None,
        }
    }

    fn stand_for_each_other(&mut self, (talk, place): (usize, usize), theirs: End, ours: End) -> bool {
        if theirs == ours {
            return true;
        }
        let both = self.ranges.has(theirs, ours) && self.ranges.has(ours, theirs);
        if !self.settled {
            return both;
        }
        both && *self.pairs.entry((talk, place, false, theirs)).or_insert(ours) == ours
            && *self.pairs.entry((talk, place, true, ours)).or_insert(theirs) == theirs
    }
}

/// An address, or as much of it as there is room for, and a port. Half an address of IPv6 is told with the prefix that
/// the flows use.
fn original([p1, p0, a, b, c, d]: [u8; 6], like: Option<IpAddr>) -> End {
    let low = u32::from_be_bytes([a, b, c, d]);
    let addr = match like {
        Some(IpAddr::V6(_)) if low < 0x1_0000 => {
            std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(low)).into()
        }
        Some(IpAddr::V6(_)) => std::net::Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(low)).into(),
        _ => Ipv4Addr::from_bits(low).into(),
    };
    End { addr, port: u16::from_be_bytes([p1, p0]) }
}

/// A switch that is given a scenario.
pub trait Side {
    /// Sends packets by their numbers: what comes out, in order of number and port.
    fn send(&mut self, packets: &[(u16, &Packet)]) -> Vec<Out>;
    /// Packets that nothing was left to translate to, and those whose connection's replies would be packets of another.
    fn full(&self) -> u64 {
        0
    }
    /// Whatever else happens.
    fn happen(&mut self, event: &Event);
}

/// Puts the scenario through two sides that have its flows: what is different first. At most `together` packets are
/// sent at once.
pub fn difference(
    (theirs, ours): (&mut impl Side, &mut impl Side),
    scenario: &Scenario,
    together: usize,
    known: &mut impl Known,
) -> Option<Difference> {
    let later = scenario.events.iter().filter_map(|event| match event {
        Event::Flow(flow) => Some(flow.clone()),
        _ => None,
    });
    let mut judge = Judge::new(&scenario.flows.iter().cloned().chain(later).collect::<Vec<_>>());
    let mut excused = HashSet::new();
    let talk = |number: u16| match scenario.events.get(usize::from(number)) {
        Some(Event::Send(packet)) => Some(packet.conversation),
        _ => None,
    };
    for round in rounds(&scenario.events, together) {
        match round {
            Round::Other(event) => {
                theirs.happen(&event);
                ours.happen(&event);
                known.happens(&event);
            }
            Round::Packets(packets) => {
                let numbered: Vec<_> = packets.iter().map(|(at, packet)| (*at as u16, packet)).collect();
                let left = theirs.send(&numbered);
                let right = ours.send(&numbered);
                known.seen(&numbered, &left, &right);
                for found in judge.compare(&left, &right, known, talk) {
                    let difference = Difference { full: ours.full() > 0, ..found };
                    let talk = talk(difference.number);
                    if excused.contains(&talk) {
                        continue;
                    }
                    if !talk.is_some_and(|talk| known.excuses(talk, &difference)) {
                        return Some(difference);
                    }
                    excused.insert(talk);
                }
            }
        }
    }
    None
}
