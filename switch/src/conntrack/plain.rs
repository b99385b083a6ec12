//! Protocols without states of their own (UDP, ICMP queries, everything unknown): what was seen of a connection.

use super::conn::Update;
use super::tuple::Direction;
use std::sync::atomic::{AtomicU8, Ordering};

/// State of a connection of a protocol without states: what was seen decides how long it lives.
#[derive(Debug, Default)]
pub(crate) struct PlainState(AtomicU8);

/// How much of a connection without states of its own was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Seen {
    /// One packet.
    First = 0,
    /// More, all in one direction.
    Multiple = 1,
    /// Both directions.
    Both = 2,
}

impl PlainState {
    /// Of a connection of which as much was seen as a [`Seen`] says, by number.
    pub(super) fn resumed(seen: u8) -> Self {
        Self(AtomicU8::new(seen.min(Seen::Both as u8)))
    }

    /// What was seen.
    #[inline]
    pub(crate) fn get(&self) -> Seen {
        match self.0.load(Ordering::Relaxed) {
            0 => Seen::First,
            1 => Seen::Multiple,
            _ => Seen::Both,
        }
    }

    /// Whether a packet of `direction` would tell nothing new.
    #[inline]
    pub(crate) fn admits(&self, direction: Direction) -> bool {
        self.get() >= least(direction)
    }

    /// Takes in a packet. Never forgets what other workers have seen meanwhile.
    pub(crate) fn update(&self, direction: Direction) -> Update {
        self.0.fetch_max(least(direction) as u8, Ordering::Relaxed);
        match self.get() {
            Seen::Both => Update::Valid,
            _ => Update::New,
        }
    }
}

/// What was seen after a packet of `direction` that was not the first, at least.
const fn least(direction: Direction) -> Seen {
    match direction {
        Direction::Original => Seen::Multiple,
        Direction::Reply => Seen::Both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_new_until_the_other_side_answers() {
        let state = PlainState::default();
        assert!(!state.admits(Direction::Original) && !state.admits(Direction::Reply));
        assert_eq!((state.update(Direction::Original), state.get()), (Update::New, Seen::Multiple));
        assert!(state.admits(Direction::Original) && !state.admits(Direction::Reply));
        assert_eq!((state.update(Direction::Reply), state.get()), (Update::Valid, Seen::Both));
        assert_eq!((state.update(Direction::Original), state.get()), (Update::Valid, Seen::Both));
        assert!(state.admits(Direction::Original) && state.admits(Direction::Reply));
    }
}
