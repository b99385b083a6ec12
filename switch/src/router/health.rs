//! Whether the routers that routes lead to are alive.
//!
//! A next hop is dead when its neighbour does not answer address resolution, or when so many pings in a row were lost
//! where it is probed. What had failed is asked for again and again, since no packets would: nobody sends to the dead.

use super::neighbors::Key;
use super::packets::echo::Echo;
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;

/// Milliseconds between two looks at the neighbours that routes lead to.
pub(super) const CHECK_EVERY: u64 = 5000;
/// Bytes that a ping carries.
pub(super) const PAYLOAD: [u8; 32] = *b"sluice next hop probe, RFC 792  ";

/// A next hop that is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// The interface that it is behind, and its address.
    pub next_hop: Key,
    /// Milliseconds between two pings, 100 to 3,600,000.
    pub interval_ms: u32,
    /// Pings in a row that have to be lost until it counts as dead, 1 to 100.
    pub losses: u8,
}

impl ProbeSpec {
    /// What the interval may be.
    pub const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;
    /// What the number of losses may be.
    pub const LOSSES: std::ops::RangeInclusive<u8> = 1..=100;
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    spec: ProbeSpec,
    id: u16,
    sequence: u16,
    /// The last ping was answered.
    answered: bool,
    lost: u8,
    due: Millis,
}

/// What the probes have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Ping it.
    Ping(Key, Echo),
    /// It does not answer pings.
    Dead(Key),
    /// It answers them again.
    Alive(Key),
}

/// The probes of a router's next hops.
#[derive(Debug, Default)]
pub(super) struct Probes {
    probes: BTreeMap<Key, Probe>,
}

impl Probes {
    /// Probes these next hops from `now` on; identifiers of pings begin at `id`.
    pub(super) fn new(specs: &[ProbeSpec], id: u16, now: Millis) -> Self {
        let probe = |(n, spec): (u16, &ProbeSpec)| {
            let probe = Probe { spec: *spec, id: id.wrapping_add(n), sequence: 0, answered: true, lost: 0, due: now };
            (spec.next_hop, probe)
        };
        Self { probes: (0..).zip(specs).map(probe).collect() }
    }

    /// A ping was answered by `key`.
    pub(super) fn answered(&mut self, key: Key, echo: Echo) -> Option<Found> {
        let probe = self.probes.get_mut(&key)?;
        if probe.id != echo.id || probe.sequence != echo.sequence || probe.answered {
            return None;
        }
        probe.answered = true;
        let was_dead = probe.lost >= probe.spec.losses;
        probe.lost = 0;
        was_dead.then_some(Found::Alive(key))
    }

    /// The pings that are due, and who has lost too many.
    pub(super) fn tick(&mut self, now: Millis) -> Vec<Found> {
        let mut found = Vec::new();
        for (key, probe) in &mut self.probes {
            if probe.due > now {
                continue;
            }
            if !probe.answered && probe.lost < probe.spec.losses {
                probe.lost += 1;
                if probe.lost == probe.spec.losses {
                    found.push(Found::Dead(*key));
                }
            }
            probe.answered = false;
            probe.sequence = probe.sequence.wrapping_add(1);
            probe.due = Millis(now.0 + u64::from(probe.spec.interval_ms));
            found.push(Found::Ping(*key, Echo { id: probe.id, sequence: probe.sequence }));
        }
        found
    }

    /// Whether pings say that a next hop is dead.
    pub(super) fn is_dead(&self, key: &Key) -> bool {
        self.probes.get(key).is_some_and(|probe| probe.lost >= probe.spec.losses)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next(&self) -> Option<Millis> {
        self.probes.values().map(|probe| probe.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::router::InterfaceId;
    use std::net::Ipv4Addr;

    #[test]
    fn so_many_lost_pings_in_a_row_kill_a_next_hop_and_one_answer_revives_it() {
        let key = (InterfaceId(1), Ipv4Addr::new(10, 0, 0, 1).into());
        let spec = ProbeSpec { next_hop: key, interval_ms: 1000, losses: 3 };
        let mut probes = Probes::new(&[spec], 7, Millis(0));
        let echo = |sequence| Echo { id: 7, sequence };
        assert_eq!(probes.tick(Millis(0)), [Found::Ping(key, echo(1))]);
        assert_eq!(probes.tick(Millis(999)), []);
        assert_eq!(probes.answered(key, echo(1)), None);
        assert_eq!(probes.tick(Millis(1000)), [Found::Ping(key, echo(2))]);
        assert_eq!(probes.answered(key, echo(1)), None, "an answer to an older one");
        for t in [2000, 3000] {
            assert!(matches!(probes.tick(Millis(t))[..], [Found::Ping(..)]));
        }
        assert_eq!(probes.tick(Millis(4000)), [Found::Dead(key), Found::Ping(key, echo(5))]);
        assert!(probes.is_dead(&key));
        assert!(matches!(probes.tick(Millis(5000))[..], [Found::Ping(..)]), "told once");
        assert_eq!(probes.answered(key, Echo { id: 8, sequence: 6 }), None, "somebody else's");
        assert_eq!(probes.answered(key, echo(6)), Some(Found::Alive(key)));
        assert_eq!((probes.is_dead(&key), probes.next()), (false, Some(Millis(6000))));
    }
}
