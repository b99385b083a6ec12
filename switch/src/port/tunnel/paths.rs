//! Path MTUs, as the host knows them: from its routes, and from what routers on the way have told it.

use super::sys::{Family, Socket};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an answer holds. What changes meanwhile, the kernel says with the first packet that is too long.
const FRESH: Duration = Duration::from_secs(2);
/// Destinations that are known at a time; one more, and all are asked for again.
const LIMIT: usize = 4096;

/// One worker's sockets to ask by.
#[derive(Debug)]
pub(crate) struct Probes {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Probes {
    /// Opens them in the calling thread's namespace; a family that the host does not speak has none.
    pub(crate) fn open() -> Self {
        Self { v4: Socket::udp(Family::V4).ok(), v6: Socket::udp(Family::V6).ok() }
    }

    fn ask(&self, (remote, local): Ends) -> Option<u32> {
        let socket = if remote.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.as_ref()?.path_mtu(remote, local).ok()
    }
}

/// Other end, and this one if it is said.
type Ends = (IpAddr, Option<IpAddr>);

#[derive(Debug)]
struct Known {
    /// `None` without a route.
    mtu: Option<u32>,
    asked: Instant,
}

/// The path MTUs that one queue has asked for.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: HashMap<Ends, Known, RandomState>,
}

impl Paths {
    /// The path's MTU: length in bytes of the longest IP packet. `None` without a route.
    pub(crate) fn mtu(&mut self, ends: Ends, probes: &Probes, now: Instant) -> Option<u32> {
        if let Some(known) = self.known.get(&ends)
            && now.duration_since(known.asked) < FRESH
        {
            return known.mtu;
        }
        self.ask(ends, probes, now)
    }

    #[cold]
    fn ask(&mut self, ends: Ends, probes: &Probes, now: Instant) -> Option<u32> {
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        let mtu = probes.ask(ends);
        self.known.insert(ends, Known { mtu, asked: now });
        mtu
    }

    /// Has the path asked for again.
    pub(crate) fn forget(&mut self, ends: Ends) {
        self.known.remove(&ends);
    }
}
