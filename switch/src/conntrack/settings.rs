//! What can be set about connection tracking, while it runs.
//!
//! Settings are one value, checked as a whole and swapped in one step. A change takes effect at once, for connections
//! that are there too: nothing is noted in them, when one expires is computed from when it was last seen.

use super::conn::Conn;
use super::fragments::{FragmentLimits, MAX_FRAGMENTS};
use super::timeouts::{TimeoutClass, Timeouts};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;
use thiserror::Error;

/// Timeouts that the Linux kernel's tracker has and this one, as OVS's in user space, has not.
const KERNEL_ONLY: [&str; 5] = ["tcp_close_wait", "tcp_last_ack", "tcp_syn_sent2", "tcp_retransmit", "tcp_unack"];

/// Most milliseconds that a datagram's fragments may wait: an hour.
const MAX_FRAGMENT_TIMEOUT: u64 = 3_600_000;

/// Settings of connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtSettings {
    /// Most connections of all zones together, at least 1. When it is reached, new connections take the place of some
    /// that were never answered, or are refused.
    pub max_connections: u32,
    /// Most connections of a zone that has no limit of its own; 0 for as many as there is room for.
    pub default_zone_limit: u32,
    /// Seconds until a connection without packets is forgotten, in zones that say nothing else.
    pub timeouts: Timeouts,
    /// Whether the windows of TCP are not looked at, in zones that say nothing else.
    pub tcp_liberal: bool,
    /// Zones that differ.
    pub zones: BTreeMap<u16, ZoneSettings>,
    /// Fragments.
    pub fragments: FragmentSettings,
}

impl Default for CtSettings {
    /// OVS's: 3,000,000 connections, which take about 1 GB when they are there, and no limit by zone.
    fn default() -> Self {
        Self {
            max_connections: 3_000_000,
            default_zone_limit: 0,
            timeouts: Timeouts::default(),
            tcp_liberal: false,
            zones: BTreeMap::new(),
            fragments: FragmentSettings::default(),
        }
    }
}

/// In what a zone differs from the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Most connections; 0 for as many as there is room for.
    pub limit: Option<u32>,
    /// Seconds for the classes that differ.
    pub timeouts: BTreeMap<TimeoutClass, u32>,
    /// Whether the windows of TCP are not looked at.
    pub tcp_liberal: Option<bool>,
}

/// How fragments are put together to be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentSettings {
    /// Whether those of IPv4 are put together; otherwise they are invalid.
    pub v4: bool,
    /// Whether those of IPv6 are put together; otherwise they are invalid.
    pub v6: bool,
    /// What bounds those that wait.
    pub limits: FragmentLimits,
}

impl Default for FragmentSettings {
    /// Both families, with OVS's limits.
    fn default() -> Self {
        Self { v4: true, v6: true, limits: FragmentLimits::default() }
    }
}

/// Why settings are refused. Those in force stay.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// No connection would be allowed.
    #[error("max_connections is 0: allow at least 1 connection")]
    NoConnections,
    /// A timeout is 0.
    #[error("timeout {class} of {} is 0: connections would end at once, set 1 s or more", zone_name(*zone))]
    NoTime {
        /// Of this zone; `None` for the default.
        zone: Option<u16>,
        /// The timeout.
        class: TimeoutClass,
    },
    /// There is no such timeout.
    #[error("there is no timeout `{name}`{}", nearest.map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    UnknownTimeout {
        /// What was asked for.
        name: String,
        /// What it is most like.
        nearest: Option<TimeoutClass>,
    },
    /// The timeout exists in Linux only.
    #[error("timeout `{name}` is one of the Linux kernel's tracker, this one has no such state: leave it out")]
    KernelTimeout {
        /// What was asked for.
        name: String,
    },
    /// A bound of fragments is out of range.
    #[error("fragments: {what} is {value}, and has to be {least} to {most}")]
    Fragments {
        /// Which.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// Least.
        least: u64,
        /// Greatest.
        most: u64,
    },
}

fn zone_name(zone: Option<u16>) -> String {
    zone.map_or_else(|| "all zones".to_owned(), |zone| format!("zone {zone}"))
}

impl TimeoutClass {
    /// The class with this name in settings.
    ///
    /// # Errors
    /// [`SettingsError::UnknownTimeout`], [`SettingsError::KernelTimeout`].
    pub fn parse(name: &str) -> Result<Self, SettingsError> {
        if let Some(class) = Self::from_name(name) {
            return Ok(class);
        }
        let name = name.to_owned();
        if KERNEL_ONLY.contains(&name.as_str()) {
            return Err(SettingsError::KernelTimeout { name });
        }
        let distance = |class: &Self| strsim::damerau_levenshtein(class.name(), &name);
        let nearest = Self::ALL.iter().copied().min_by_key(distance).filter(|class| distance(class) <= 3);
        Err(SettingsError::UnknownTimeout { name, nearest })
    }
}

impl CtSettings {
    /// Whether they can be in force.
    ///
    /// # Errors
    /// [`SettingsError`], the first that is found.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.max_connections == 0 {
            return Err(SettingsError::NoConnections);
        }
        let zones = self.zones.iter().flat_map(|(zone, z)| z.timeouts.iter().map(|(c, s)| (Some(*zone), *c, *s)));
        let all = self.timeouts.iter().map(|(class, seconds)| (None, class, seconds)).chain(zones);
        if let Some((zone, class, _)) = all.into_iter().find(|(.., seconds)| *seconds == 0) {
            return Err(SettingsError::NoTime { zone, class });
        }
        let FragmentLimits { max_fragments, timeout, .. } = self.fragments.limits;
        for (what, value, least, most) in [
            ("max_fragments", max_fragments.into(), 0, MAX_FRAGMENTS.into()),
            ("timeout", timeout, 1, MAX_FRAGMENT_TIMEOUT),
        ] {
            if !(least..=most).contains(&value) {
                return Err(SettingsError::Fragments { what, value, least, most });
            }
        }
        Ok(())
    }
}

/// What is in force in one zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneRules {
    /// 0 for none.
    pub(crate) limit: u32,
    pub(crate) timeouts: Timeouts,
    pub(crate) tcp_liberal: bool,
}

/// Settings that were checked, made ready to be asked for each packet.
#[derive(Debug)]
pub(crate) struct InForce {
    settings: CtSettings,
    default: ZoneRules,
    zones: HashMap<u16, ZoneRules, RandomState>,
}

impl Default for InForce {
    fn default() -> Self {
        Self::of(CtSettings::default())
    }
}

impl InForce {
    /// # Errors
    /// [`SettingsError`].
    pub(crate) fn new(settings: CtSettings) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self::of(settings))
    }

    fn of(settings: CtSettings) -> Self {
        let CtSettings { default_zone_limit: limit, timeouts, tcp_liberal, .. } = settings;
        let default = ZoneRules { limit, timeouts, tcp_liberal };
        let rules = |zone: &ZoneSettings| {
            let mut rules = ZoneRules {
                limit: zone.limit.unwrap_or(limit),
                timeouts,
                tcp_liberal: zone.tcp_liberal.unwrap_or(tcp_liberal),
            };
            zone.timeouts.iter().for_each(|(class, seconds)| rules.timeouts.set(*class, *seconds));
            rules
        };
        let zones = settings.zones.iter().map(|(no, zone)| (*no, rules(zone))).collect();
        Self { settings, default, zones }
    }

    /// As they were set.
    pub(crate) fn settings(&self) -> &CtSettings {
        &self.settings
    }

    /// What holds in a zone.
    #[inline]
    pub(crate) fn zone(&self, zone: u16) -> &ZoneRules {
        if self.zones.is_empty() { &self.default } else { self.zones.get(&zone).unwrap_or(&self.default) }
    }

    /// When the connection expires if no packet comes.
    #[inline]
    pub(crate) fn expires(&self, conn: &Conn) -> Millis {
        let seconds = self.zone(conn.original.zone).timeouts.get(conn.timeout_class());
        Millis(conn.seen().0.saturating_add(u64::from(seconds) * 1000))
    }

    /// Whether the connection has expired, swept or not.
    #[inline]
    pub(crate) fn is_expired(&self, conn: &Conn, now: Millis) -> bool {
        now >= self.expires(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conn::Protocol;
    use super::super::tuple::Tuple;
    use super::*;

    #[test]
    fn what_is_wrong_with_settings_is_told() {
        let good = CtSettings::default();
        let zone = |zone: ZoneSettings| CtSettings { zones: [(7, zone)].into(), ..good.clone() };
        let mut no_time = good.clone();
        no_time.timeouts.set(TimeoutClass::IcmpReply, 0);
        let fragments = |limits| FragmentSettings { limits, ..FragmentSettings::default() };
        let limits = FragmentLimits::default();
        for (settings, expected) in [
            (CtSettings { max_connections: 0, ..good.clone() }, "max_connections is 0: allow at least 1 connection"),
            (no_time, "timeout icmp_reply of all zones is 0: connections would end at once, set 1 s or more"),
            (
                zone(ZoneSettings { timeouts: [(TimeoutClass::UdpFirst, 0)].into(), ..ZoneSettings::default() }),
                "timeout udp_first of zone 7 is 0: connections would end at once, set 1 s or more",
            ),
            (
                CtSettings { fragments: fragments(FragmentLimits { max_fragments: 5001, ..limits }), ..good.clone() },
                "fragments: max_fragments is 5001, and has to be 0 to 5000",
            ),
            (
                CtSettings { fragments: fragments(FragmentLimits { timeout: 0, ..limits }), ..good.clone() },
                "fragments: timeout is 0, and has to be 1 to 3600000",
            ),
        ] {
            assert_eq!(settings.check().unwrap_err().to_string(), expected);
        }
        assert_eq!(good.check(), Ok(()));
        assert_eq!(zone(ZoneSettings { limit: Some(0), ..ZoneSettings::default() }).check(), Ok(()));
    }

    #[test]
    fn every_timeout_has_a_name_that_is_understood() {
        for class in TimeoutClass::ALL {
            assert_eq!(TimeoutClass::parse(class.name()), Ok(*class));
            assert_eq!(Timeouts::default().get(*class), class.default_seconds());
        }
        for (name, expected) in [
            ("tcp_established_", "there is no timeout `tcp_established_`: did you mean `tcp_established`?"),
            ("minutes", "there is no timeout `minutes`"),
            (
                "tcp_unack",
                "timeout `tcp_unack` is one of the Linux kernel's tracker, this one has no such state: leave it out",
            ),
        ] {
            assert_eq!(TimeoutClass::parse(name).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_zone_differs_only_in_what_it_says() {
        let timeouts = [(TimeoutClass::UdpFirst, 5)].into();
        let zone = ZoneSettings { timeouts, tcp_liberal: Some(true), limit: None };
        let mut settings = CtSettings { default_zone_limit: 9, zones: [(7, zone)].into(), ..CtSettings::default() };
        settings.timeouts.set(TimeoutClass::UdpSingle, 77);
        let rules = InForce::new(settings).unwrap();
        let of = |zone| {
            let ZoneRules { limit, timeouts, tcp_liberal } = rules.zone(zone);
            let [first, single] = [TimeoutClass::UdpFirst, TimeoutClass::UdpSingle].map(|class| timeouts.get(class));
            (*limit, first, single, *tcp_liberal)
        };
        assert_eq!((of(7), of(8)), ((9, 5, 77, true), (9, 60, 77, false)));
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let expires = |zone| {
            let tuple = Tuple::new(zone, 17, a, b);
            let protocol = Protocol::default();
            rules.expires(&Conn::new(tuple, tuple.reversed().unwrap(), protocol, None, Millis(100)))
        };
        assert_eq!((expires(7), expires(8)), (Millis(5100), Millis(60_100)));
    }
}
