//! Helpers of protocols whose connections announce others: FTP and TFTP.
//!
//! A connection that was committed with `alg=..` remembers its [`Helper`]. Each of its packets comes to [`follow`]
//! after it was tracked and translated: what it announces is [expected](expect), and if the connection is translated,
//! its text is made to name the address that the peer knows (`rewrite.rs`), which moves TCP's numbers for the rest of
//! the connection (`skew.rs`). No cache answers for such a connection. The data connection is an ordinary one: related,
//! with mark and label of its parent, and translated as its parent is.
//!
//! # As Open vSwitch's user-space tracker, but
//! - Only a whole line counts, and the address in it has to be that of its sender, as it sees itself or as its peer
//!   does. A line that is malformed or names another address makes the packet invalid and is sent on as it is.
//! - A retransmission is moved as far as the segment that it repeats, where Open vSwitch moves it by all that came
//!   later too; both directions can be rewritten in one connection; selective acknowledgements move too; an IPv4
//!   address in `EPRT` keeps its dots.
//! - A port that was promised to a data connection that leads elsewhere (of another client behind the same address) is
//!   replaced by one nearby, in the text and back again in the data connection.
//! - A related connection has no helper of its own, so that there are no chains of them.
//! - An expectation ends after five minutes, and there are at most eight for each control connection.
//!
//! Limits: TCP numbers in the segment that an ICMP error quotes are not moved; a line that shrinks or grows cannot be cut
//! into the fragments that it came in, and is lost (`fragments.rs`).

mod expect;
mod ftp;
mod rewrite;
mod skew;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tftp;

pub(crate) use expect::{Expectations, Expected};

use super::conn::Conn;
use super::tcp::TcpSegment;
use super::tuple::{Direction, Tuple};
use expect::MOST_EACH;
use ftp::{Announced, Line, Replacement};
use skew::Skew;
use sluice_flows::action::CtAlg;
use sluice_flows::field::{IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::packet::{Frame, Layers};
use sluice_flows::rule::Millis;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a control connection remembers.
#[derive(Debug)]
pub(crate) struct Helper {
    alg: CtAlg,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was rewritten, by direction.
    skews: [Skew; 2],
    /// What is expected, oldest first.
    promises: Vec<Promise>,
}

/// A data connection that was announced, and the tuple that it was promised.
#[derive(Clone, Copy, Debug)]
struct Promise {
    sender: Direction,
    port: u16,
    tuple: Tuple,
}

impl Helper {
    /// The helper of a new connection that begins with `original` and was committed with `alg`. None where there is
    /// nothing to do for that protocol.
    pub(crate) fn new(alg: Option<CtAlg>, original: &Tuple) -> Option<Box<Self>> {
        let alg = alg?;
        let proto = match alg {
            CtAlg::Ftp => IP_PROTO_TCP,
            CtAlg::Tftp => IP_PROTO_UDP,
        };
        (original.proto == proto).then(|| Box::new(Self { alg, state: Mutex::default() }))
    }

    /// Which it is.
    pub(crate) const fn alg(&self) -> CtAlg {
        self.alg
    }

    /// Puts the acknowledgement number of a segment of `direction`, as it arrived, in terms of the sequence numbers that
    /// the tracker knows: those of who sent what it acknowledges.
    pub(crate) fn acknowledges(&self, direction: Direction, segment: &mut TcpSegment) {
        segment.ack = self.state().skews[direction.opposite() as usize].unshift(segment.ack);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a valid packet of a connection that has a helper, behind the translation of its headers. `translate` if its
/// payload and its TCP numbers are to be translated too: the connection's translation was done for it, and just now.
///
/// False if it says something malformed: it counts as invalid.
pub(crate) fn follow(
    (frame, layers): (&mut Frame, &Layers),
    (conn, direction): (&Arc<Conn>, Direction),
    expectations: &Expectations,
    translate: bool,
    now: Millis,
) -> bool {
    let Some(helper) = &conn.helper else { return true };
    let announcing = Announcing { conn, sender: direction, expectations, translate, now };
    match helper.alg {
        CtAlg::Ftp => announcing.ftp(frame, layers, &mut helper.state()),
        CtAlg::Tftp => {
            if let Some((port, wanted)) = tftp::request(conn, direction) {
                announcing.expect(&mut helper.state(), port, wanted, false);
            }
            true
        }
    }
}

/// A packet of a control connection that may announce something.
struct Announcing<'a> {
    conn: &'a Arc<Conn>,
    sender: Direction,
    expectations: &'a Expectations,
    translate: bool,
    now: Millis,
}

impl Announcing<'_> {
    fn ftp(&self, frame: &mut Frame, layers: &Layers, state: &mut State) -> bool {
        let Some(segment) = rewrite::segment(frame, layers) else { return true };
        let payload = &frame.bytes()[usize::from(layers.payload_ofs)..segment.end];
        let replacement = match ftp::read(payload, self.conn.original.is_v6()) {
            Line::Other => None,
            Line::Announced(line) if self.is_own(&line) => self.announced(&line, payload, state),
            Line::Announced(_) | Line::Malformed => return false,
        };
        if self.translate {
            self.rewrite(frame, layers, state, replacement);
        }
        true
    }

    /// Whether a line names nobody else than who sent it: a server that connects to whomever it is told to is not to be
    /// let through to them.
    fn is_own(&self, line: &Announced) -> bool {
        let Some((address, _)) = &line.address else { return true };
        *address == self.conn.tuple(self.sender).src() || *address == self.known_as()
    }

    /// The address that the peer knows the packet's sender by.
    fn known_as(&self) -> std::net::IpAddr {
        self.conn.tuple(self.sender.opposite()).dst()
    }

    /// Expects what was announced. Returns what to write instead, if the connection is translated.
    fn announced(&self, line: &Announced, payload: &[u8], state: &mut State) -> Option<Replacement> {
        let promised = self.expect(state, line.port, line.port, self.translate)?;
        self.translate.then(|| line.saying(self.known_as(), promised, payload))?
    }

    /// Expects a connection to `port`, which shows the destination port `wanted`. Returns the one that it was promised.
    fn expect(&self, state: &mut State, port: u16, wanted: u16, may_move: bool) -> Option<u16> {
        let (mark, label) = {
            let marks = self.conn.marks();
            (marks.mark, marks.label)
        };
        let expected = Expected { parent: Arc::clone(self.conn), sender: self.sender, port, mark, label };
        let known = state.promises.iter().position(|p| (p.sender, p.port) == (self.sender, port));
        let wanted = known.map_or(wanted, |index| state.promises[index].tuple.dst_port);
        let tuple = self.expectations.add(&expected, wanted, may_move, self.now)?;
        if let Some(index) = known {
            state.promises.remove(index);
        } else if state.promises.len() == MOST_EACH {
            let oldest = state.promises.remove(0);
            self.expectations.remove(self.conn, [oldest.tuple]);
        }
        state.promises.push(Promise { sender: self.sender, port, tuple });
        Some(tuple.dst_port)
    }

    /// Rewrites the payload, if it fits, and moves the numbers by what was rewritten before.
    fn rewrite(&self, frame: &mut Frame, layers: &Layers, state: &mut State, replacement: Option<Replacement>) {
        let [original, reply] = &mut state.skews;
        let (own, other) = match self.sender {
            Direction::Original => (original, &*reply),
            Direction::Reply => (reply, &*original),
        };
        if replacement.is_none() && own.is_none() && other.is_none() {
            return;
        }
        let Some(sent) = rewrite::sequence(frame, layers.l4_ofs.into()) else { return };
        let sequence = own.shift(sent);
        let acknowledged = |ack| other.unshift(ack);
        if let Some(replacement) = replacement {
            let mut skewed = own.clone();
            let at = sent.wrapping_add(replacement.at.start as u32);
            if skewed.replaced(at, replacement.at.len() as u32, replacement.text.len() as u32)
                && rewrite::rewrite(frame, layers, sequence, acknowledged, Some(&replacement))
            {
                *own = skewed;
                return;
            }
        }
        rewrite::rewrite(frame, layers, sequence, acknowledged, None);
    }
}
