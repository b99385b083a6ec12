//! Where OVS is known to differ, by what it looks like: each puts what we sent in the place of what OVS did.
//! `docs/ovs-compatibility.md` has the reasons.

use sluice_tests::conversation::programs::{LABEL, SOURCE, STATE, TARGET};
use sluice_tests::conversation::{
    Body, Difference, Event, Known, Out, Packet, Pair, Reading, Scenario, mark, state_words,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

const NEW: u8 = 0x01;
const EST: u8 = 0x02;
const REL: u8 = 0x04;
const RPL: u8 = 0x08;
const INV: u8 = 0x10;
const TRK: u8 = 0x20;
const NAT: u8 = 0xc0;

/// Milliseconds after which connections may expire.
const SHORTEST_TIMEOUT: u64 = 30_000;

/// Flags of TCP.
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A difference with a name: the bytes of the frame that it is in, if it applies.
type Excuse = (&'static str, fn(&Pair<'_>) -> Option<Range<usize>>);

const EXCUSES: [Excuse; 5] = [
    ("bytes of an ICMPv6 error that are taken for a checksum", error_checksum),
    ("the original tuple of a related packet that is no reply", related_original),
    ("ports of the original tuple of a later fragment", later_fragment),
    ("an ICMP identifier that is translated", identifier),
    ("the same within an ICMP error", inner_identifier),
];

/// What a conversation of TCP was like so far.
#[derive(Clone, Debug, Default)]
struct Opening {
    /// The first packet: who sent it, and the sequence number if it was a SYN.
    first: Option<(bool, Option<u32>)>,
    /// Another packet came since.
    other: bool,
    /// By zone, whether OVS has told of an established packet of either direction.
    established: BTreeMap<u16, [bool; 2]>,
    /// OVS has told of a translation.
    translated: bool,
    /// That was long ago.
    stale: bool,
    /// Much time passed since the first packet.
    rested: bool,
    /// A SYN came that OVS and we make something else of.
    odd: bool,
}

/// What a run came to, and what it is known to differ in.
#[derive(Default, Debug)]
pub(crate) struct Excuses {
    pub(crate) count: Count,
    /// What both do is printed.
    verbose: bool,
    openings: BTreeMap<usize, Opening>,
    /// Most programs tell of all zones; those of many do not.
    many_zones: bool,
}

/// What a run came to.
#[derive(Default, Debug)]
pub(crate) struct Count {
    pub(crate) programs: usize,
    pub(crate) packets: usize,
    pub(crate) sent: usize,
    /// Times that OVS died.
    pub(crate) died: usize,
    /// Conversations that were not compared to their ends.
    pub(crate) excused: usize,
    /// Copies by state.
    pub(crate) states: BTreeMap<String, usize>,
}

impl Excuses {
    /// With everything printed that both do.
    pub(crate) fn verbose() -> Self {
        Self { verbose: true, ..Self::default() }
    }

    /// Another scenario begins.
    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        self.openings.clear();
        let actions = scenario.flows.iter().flat_map(|flow| &flow.actions);
        let zones = actions.flat_map(|action| action.split("zone=").skip(1));
        let zones: BTreeSet<_> = zones.map(|rest| rest.split([',', ')']).next()).collect();
        self.many_zones = zones.len() > 2;
    }
}

impl Known for Excuses {
    fn seen(&mut self, packets: &[(u16, &Packet)], theirs: &[Out], ours: &[Out]) {
        self.count.packets += packets.len();
        let mut told = BTreeMap::new();
        for out in theirs {
            match mark(out) {
                Some((STATE, [.., hi, lo, state])) => {
                    let zone = u16::from_be_bytes([hi, lo]);
                    *self.count.states.entry(state_words(state)).or_default() += 1;
                    told.entry(out.number).or_insert_with(Vec::new).push((zone, state));
                }
                Some(_) => {}
                None => self.count.sent += 1,
            }
        }
        if self.verbose {
            packets.iter().for_each(|(number, packet)| println!("  packet {number}: {packet}"));
            theirs.iter().for_each(|out| println!("    OVS {}: {out}", out.number));
            ours.iter().for_each(|out| println!("    we  {}: {out}", out.number));
        }
        for (number, packet) in packets {
            let opening = self.openings.entry(packet.conversation).or_default();
            opening.takes(packet, told.get(number).map_or(&[], Vec::as_slice), self.many_zones);
        }
    }

    fn happens(&mut self, event: &Event) {
        if let Event::Wait(millis) = event {
            // Some may be forgotten now.
            for opening in self.openings.values_mut() {
                opening.established.clear();
                opening.rested |= *millis >= SHORTEST_TIMEOUT;
                opening.stale |= opening.translated && *millis >= SHORTEST_TIMEOUT;
            }
        }
    }

    fn mended(&self, pair: &Pair<'_>) -> Vec<u8> {
        let mut frame = pair.theirs.frame.clone();
        for range in EXCUSES.iter().filter_map(|(_, applies)| applies(pair)) {
            if let (Some(to), Some(from)) = (frame.get_mut(range.clone()), pair.ours.frame.get(range)) {
                to.copy_from_slice(from);
            }
        }
        frame
    }

    fn excuses(&mut self, conversation: usize, difference: &Difference) -> bool {
        let opening = self.openings.get(&conversation).cloned().unwrap_or_default();
        let odd = opening.odd
            || opening.stale && finds_no_parent(difference)
            || exhausted(difference)
            || dropped(difference)
            || broken_error(difference);
        self.count.excused += usize::from(odd);
        odd
    }
}

impl Opening {
    /// A packet, of which OVS has told this in these zones.
    fn takes(&mut self, packet: &Packet, told: &[(u16, u8)], many_zones: bool) {
        self.translated |= told.iter().any(|(_, state)| state & NAT != 0);
        let Body::Tcp { flags, seq, window, scale, .. } = packet.body else { return };
        // OVS takes the window for 0 if the other end does not scale.
        self.odd |= flags & SYN != 0 && window == u16::MAX && scale.is_some_and(|scale| scale > 0);
        // What ends a connection counts for its timeout when it comes, or with the next packet.
        self.odd |= self.rested && flags & (FIN | RST) != 0;
        let syn = (flags & (SYN | ACK) == SYN).then_some(seq);
        let settled =
            !many_zones && !self.established.is_empty() && self.established.values().all(|both| *both == [true; 2]);
        if settled && syn.is_some() && told.iter().all(|(_, state)| state & EST == 0) {
            // The translation of a connection that is replaced stays with OVS for some time, and is in the way.
            *self = Self { odd: self.odd | self.translated, stale: self.stale, rested: self.rested, ..Self::default() };
        }
        // As long as a connection begins, OVS keeps the numbers that it has of a SYN's sender, or none.
        self.other |= *self.first.get_or_insert((packet.reply, syn)) != (packet.reply, syn);
        self.odd |= syn.is_some() && self.other && !settled;
        for (zone, state) in told.iter().filter(|(_, state)| state & TRK != 0) {
            let both = self.established.entry(*zone).or_default();
            both[usize::from(state & RPL != 0)] |= state & EST != 0;
        }
    }
}

/// Whether OVS had nothing left to translate a packet without ports to: translations of connections that have expired stay
/// for some time.
fn exhausted(difference: &Difference) -> bool {
    let [theirs, ours] = &difference.frames;
    let has_ports = |out: &Out| Reading::of(&out.frame).headers.first().is_some_and(|h| matches!(h.proto, 6 | 17));
    let states = |all: &[Out]| all.iter().filter_map(mark).filter(|m| m.0 == STATE).map(|m| m.1[5]).collect::<Vec<_>>();
    let untranslated = |(theirs, ours): (&u8, &u8)| theirs & (NEW | NAT) == NEW && ours & (NEW | NAT) > NEW;
    let earlier = states(theirs).iter().zip(&states(ours)).any(untranslated);
    let is_range = |out: &Out| match Reading::of(&out.frame).headers.first().map(|first| first.src.addr) {
        Some(IpAddr::V4(addr)) => addr.octets()[0] == 192,
        Some(IpAddr::V6(addr)) => addr.segments()[0] == 0x2001,
        None => false,
    };
    let unseen = theirs.iter().zip(ours).any(|(theirs, ours)| !is_range(theirs) && is_range(ours));
    !theirs.iter().any(has_ports) && (earlier || unseen)
}

/// Whether OVS has found the translation of a connection that has expired, and not the connection.
fn finds_no_parent(difference: &Difference) -> bool {
    difference.frames[0].iter().any(|out| matches!(mark(out), Some((STATE, [.., state])) if state & INV != 0))
}

/// Whether a packet was dropped because nothing was left to translate it to, or because its connection's replies would be
/// packets of another one. OVS lets the first go on as they are, and has both of the others.
fn dropped(difference: &Difference) -> bool {
    let [theirs, ours] = &difference.frames;
    difference.full && ours.len() < theirs.len()
}

/// Whether an ICMPv6 error of OVS is not about a packet of whom it is for, and so not known to the next zone: see
/// [`error_checksum`].
fn broken_error(difference: &Difference) -> bool {
    difference.frames[0].iter().any(|out| match &Reading::of(&out.frame).headers[..] {
        [outer, inner] => outer.proto == 58 && inner.proto == 6 && inner.src.addr != outer.dst.addr,
        _ => false,
    })
}

/// When it translates the addresses of an ICMPv6 error, OVS 3.1 updates the checksum of the protocol that the error is
/// about, at its place behind the error's own IP header, where none is.
fn error_checksum(pair: &Pair<'_>) -> Option<Range<usize>> {
    const ICMP: usize = 14 + 40;
    const INNER: usize = ICMP + 8;
    let frame = &pair.theirs.frame;
    let error = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == 58 && *frame.get(ICMP)? < 128;
    match *frame.get(INNER + 6).filter(|_| error)? {
        6 => Some(ICMP + 16..ICMP + 18),
        17 => Some(ICMP + 6..ICMP + 8),
        _ => None,
    }
}

/// OVS reads the original tuple only of packets that are new, established or replies.
fn related_original(pair: &Pair<'_>) -> Option<Range<usize>> {
    let untold = pair.state & (NEW | EST | REL | RPL) == REL;
    match mark(pair.theirs).filter(|_| untold)? {
        (LABEL, _) => Some(0..1),
        (SOURCE | TARGET, _) => Some(0..6),
        _ => None,
    }
}

/// OVS reads the ports of the original tuple only where the packet itself has ports.
fn later_fragment(pair: &Pair<'_>) -> Option<Range<usize>> {
    let later = Reading::of(&pair.theirs.frame).headers.first()?.offset != 0;
    matches!(mark(pair.theirs), Some((SOURCE | TARGET, _)) if later).then_some(0..6)
}

/// OVS 3.1 translates ports of TCP and UDP only; we take identifiers of the range of ports. Those of conversations are
/// small numbers.
fn identifier(pair: &Pair<'_>) -> Option<Range<usize>> {
    identifier_of(pair, 0)
}

/// The same within an ICMP error.
fn inner_identifier(pair: &Pair<'_>) -> Option<Range<usize>> {
    identifier_of(pair, 1)
}

fn identifier_of(pair: &Pair<'_>, level: usize) -> Option<Range<usize>> {
    let id = |out: &Out| {
        let reading = Reading::of(&out.frame);
        let headers = reading.headers.get(level).filter(|headers| matches!(headers.proto, 1 | 58))?;
        Some((headers.src.port, headers.fragment)).filter(|(id, _)| *id != 0)
    };
    let ((theirs, fragment), (ours, _)) = (id(pair.theirs)?, id(pair.ours)?);
    let header = match pair.theirs.frame.get(12..14)? == [0x86, 0xdd] {
        true => 40 + if fragment { 8 } else { 0 },
        false => 20,
    };
    let at = 14 + header + level * (8 + header) + 4;
    (theirs < 1_000 && ours >= 5_000).then_some(at..at + 2)
}
