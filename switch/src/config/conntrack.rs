//! What the file says of connection tracking.

use super::check::{in_order, number};
use super::error::{Complaint, Source};
use super::raw::{RawConntrack, RawFragments, RawZone};
use crate::conntrack::{
    CtSettings, FragmentLimits, FragmentSettings, MAX_FRAGMENTS, SettingsError, TimeoutClass, ZoneSettings,
};
use std::collections::BTreeMap;
use toml::Spanned;

/// Longest timeout in seconds: what fits in 32 bits, as in OVS.
const MAX_TIMEOUT: i64 = u32::MAX as i64;
/// Most milliseconds that the first fragment of a packet may wait: an hour.
const MAX_WAIT: i64 = 3_600_000;

/// Timeouts by name, each with its place.
type RawTimeouts = BTreeMap<Spanned<String>, Spanned<i64>>;

pub(super) fn settings(source: Source<'_>, raw: RawConntrack) -> Result<CtSettings, Complaint> {
    let mut settings = CtSettings::default();
    if let Some(max) = &raw.max_connections {
        settings.max_connections = number(source, max, 1..=u32::MAX.into(), "`max_connections`")?;
    }
    if let Some(limit) = &raw.default_zone_limit {
        settings.default_zone_limit = zone_limit(source, limit)?;
    }
    settings.tcp_liberal = raw.tcp_liberal.unwrap_or(settings.tcp_liberal);
    for (class, seconds) in timeouts(source, &raw.timeouts)? {
        settings.timeouts.set(class, seconds);
    }
    for (name, raw) in in_order(raw.zones) {
        let Ok(no) = name.get_ref().parse::<u16>() else {
            let what = format!("there is no zone `{}`", name.get_ref());
            return Err(source.complain(&name.span(), what).advice("zones are 0 to 65535"));
        };
        // `01` and `1` are different keys.
        if settings.zones.insert(no, zone(source, &raw)?).is_some() {
            return Err(source.complain(&name.span(), format!("zone {no} stands here twice")));
        }
    }
    settings.fragments = fragments(source, &raw.fragments)?;
    Ok(settings)
}

fn zone(source: Source<'_>, raw: &RawZone) -> Result<ZoneSettings, Complaint> {
    Ok(ZoneSettings {
        limit: raw.limit.as_ref().map(|limit| zone_limit(source, limit)).transpose()?,
        timeouts: timeouts(source, &raw.timeouts)?.into_iter().collect(),
        tcp_liberal: raw.tcp_liberal,
    })
}

fn zone_limit(source: Source<'_>, limit: &Spanned<i64>) -> Result<u32, Complaint> {
    number(source, limit, 0..=u32::MAX.into(), "the limit of a zone, 0 for none,")
}

fn timeouts(source: Source<'_>, raw: &RawTimeouts) -> Result<Vec<(TimeoutClass, u32)>, Complaint> {
    raw.iter()
        .map(|(name, seconds)| {
            let class = TimeoutClass::parse(name.get_ref()).map_err(|error| {
                let complaint = source.complain(&name.span(), error.to_string());
                match error {
                    SettingsError::KernelTimeout { .. } => complaint,
                    _ => complaint.advice(format!("timeouts: {}", names().join(", "))),
                }
            })?;
            Ok((class, number(source, seconds, 1..=MAX_TIMEOUT, "a timeout, in seconds,")?))
        })
        .collect()
}

fn names() -> Vec<&'static str> {
    TimeoutClass::ALL.iter().map(|class| class.name()).collect()
}

fn fragments(source: Source<'_>, raw: &RawFragments) -> Result<FragmentSettings, Complaint> {
    let default = FragmentSettings::default();
    let size = |value: &Option<Spanned<i64>>, default, what: &str| match value {
        Some(value) => number(source, value, 0..=u16::MAX.into(), what),
        None => Ok(default),
    };
    let limits = default.limits;
    Ok(FragmentSettings {
        v4: raw.v4.unwrap_or(default.v4),
        v6: raw.v6.unwrap_or(default.v6),
        limits: FragmentLimits {
            max_fragments: match &raw.max {
                Some(max) => number(source, max, 0..=MAX_FRAGMENTS.into(), "the number of fragments that wait")?,
                None => limits.max_fragments,
            },
            min_v4: size(&raw.min_v4, limits.min_v4, "`min_v4`, in bytes,")?,
            min_v6: size(&raw.min_v6, limits.min_v6, "`min_v6`, in bytes,")?,
            timeout: match &raw.timeout_ms {
                Some(timeout) => number(source, timeout, 1..=MAX_WAIT, "`timeout_ms`")?,
                None => limits.timeout,
            },
        },
    })
}
