//! A rule: one flow of a table, with its owner and its counters.

use crate::action::Action;
use crate::key::{CT_INV, slot};
use crate::matching::Match;
use crate::owner::Owner;
use crate::verdict::DropReason;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of a flow table, 0 to 254.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(u8);

impl TableId {
    /// The table where packets enter.
    pub const FIRST: Self = Self(0);
    /// The last table.
    pub const LAST: Self = Self(254);

    /// Table `n`; `None` for 255, which OpenFlow reserves for "all tables".
    pub const fn new(n: u8) -> Option<Self> {
        if n == 255 { None } else { Some(Self(n)) }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Some tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSet([u64; 4]);

impl TableSet {
    /// Adds a table.
    pub const fn insert(&mut self, table: TableId) {
        self.0[(table.0 / 64) as usize] |= 1 << (table.0 % 64);
    }

    /// Whether a table is among them.
    pub const fn contains(&self, table: TableId) -> bool {
        self.0[(table.0 / 64) as usize] >> (table.0 % 64) & 1 != 0
    }

    /// Adds those of another.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment: milliseconds on a monotonic clock whose zero the caller chooses. The model never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to `self`, 0 if it lies ahead.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Priority of a flow that does not say one (OpenFlow's default).
pub const DEFAULT_PRIORITY: u16 = 0x8000;

/// What a flow is, without its life: what a flow file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// Table it stands in.
    pub table: TableId,
    /// Priority; higher wins. Which of two overlapping flows of one priority wins is undefined, as in OVS.
    pub priority: u16,
    /// Cookie, opaque to the switch.
    pub cookie: u64,
    /// Seconds without a packet until it is removed; 0 never.
    pub idle_timeout: u16,
    /// Seconds until it is removed; 0 never.
    pub hard_timeout: u16,
    /// Weight when a full table evicts; higher stays.
    pub importance: u16,
    /// Tell of its removal.
    pub send_flow_rem: bool,
    /// What it matches.
    pub matches: Match,
    /// Its packets are not counted.
    pub no_packet_counts: bool,
    /// Its bytes are not counted.
    pub no_byte_counts: bool,
    /// What it does; empty drops. Flows with the same actions may share them.
    pub actions: Arc<[Action]>,
    /// Who asked for it.
    pub owner: Owner,
    /// The round of its owner's programming that it belongs to: an owner that starts anew installs under a higher
    /// number, then deletes what is left under lower ones. 0 for rules that belong to no round.
    pub generation: u64,
    /// The reason counted when its actions drop; [`DropReason::RuleDrop`] if none. With a reason of its own, to be handed
    /// to the controllers is no way for a packet: they are told, and it is dropped.
    pub drop_reason: Option<DropReason>,
}

impl FlowSpec {
    /// A flow of table 0 with default priority that matches `matches` and does `actions`.
    pub fn new(matches: Match, actions: impl Into<Arc<[Action]>>, owner: Owner) -> Self {
        Self {
            table: TableId::FIRST,
            priority: DEFAULT_PRIORITY,
            cookie: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            send_flow_rem: false,
            no_packet_counts: false,
            no_byte_counts: false,
            matches,
            actions: actions.into(),
            owner,
            generation: 0,
            drop_reason: None,
        }
    }
}

/// A flow in a table: its [`FlowSpec`] and its life.
#[derive(Debug)]
pub struct Rule {
    /// What it is.
    pub spec: FlowSpec,
    /// When it was added.
    pub created: Millis,
    /// When it was last modified, or added.
    pub modified: Millis,
    /// Its counters, shared with the rule that takes its place when it is modified: what workers still credit to the
    /// old one counts for the new one.
    pub stats: Arc<RuleStats>,
}

/// Counters of a rule. Workers add to them in batches, so they lag by at most one revalidation round.
#[derive(Debug, Default)]
pub struct RuleStats {
    packets: AtomicU64,
    bytes: AtomicU64,
    used: AtomicU64,
    refreshed: AtomicU64,
}

impl RuleStats {
    /// Starts the hard timeout anew at `now`: a packet would have made the rule again.
    pub fn refresh(&self, now: Millis) {
        self.refreshed.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When the hard timeout was last started anew; zero if it never was.
    pub fn refreshed(&self) -> Millis {
        Millis(self.refreshed.load(Ordering::Relaxed))
    }

    /// Counts `packets` of `bytes` in all, the last of them at `used`.
    pub fn credit(&self, packets: u64, bytes: u64, used: Millis) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_max(used.0, Ordering::Relaxed);
    }

    /// Packets counted.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Bytes counted.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When the last packet was counted; zero if none was.
    pub fn used(&self) -> Millis {
        Millis(self.used.load(Ordering::Relaxed))
    }
}

impl Rule {
    /// A rule added at `now`.
    pub fn new(spec: FlowSpec, now: Millis) -> Self {
        Self { spec, created: now, modified: now, stats: Arc::default() }
    }

    /// The reason counted when the rule's actions drop a packet: what it says itself, else that the packet is invalid for a
    /// rule that is only for those.
    pub fn drop_reason(&self) -> DropReason {
        let (state, mask) = self.spec.matches.get(slot::CT_STATE);
        let only_invalid = state & mask & u128::from(CT_INV) != 0;
        self.spec.drop_reason.unwrap_or(if only_invalid { DropReason::CtInvalid } else { DropReason::RuleDrop })
    }
}
