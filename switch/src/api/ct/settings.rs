//! Settings of connection tracking as messages.

use crate::conntrack::{CtSettings, FragmentLimits, FragmentSettings, SettingsError, TimeoutClass, ZoneSettings};
use sluice_proto::v1::{self as proto, ConnectionSettings, FragmentChange, SetConnectionSettingsRequest, ZoneChange};
use std::collections::HashMap;
use thiserror::Error;

/// Why settings cannot be changed so.
#[derive(Debug, Error)]
pub(super) enum ChangeError {
    /// There is no such zone.
    #[error("there is no zone {0}; zones are 0 to 65535")]
    NoZone(u32),
    /// No fragment is as large.
    #[error("a smallest fragment of {0} bytes cannot be; sizes are 0 to 65535")]
    Size(u32),
    /// A name or a value.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The settings as they are.
pub(super) fn message(settings: &CtSettings) -> ConnectionSettings {
    let seconds = |(class, seconds): (TimeoutClass, u32)| (class.name().to_owned(), seconds);
    let zone = |(no, zone): (&u16, &ZoneSettings)| proto::ZoneSettings {
        zone: (*no).into(),
        limit: zone.limit,
        timeouts_s: zone.timeouts.iter().map(|(class, s)| seconds((*class, *s))).collect(),
        tcp_liberal: zone.tcp_liberal,
    };
    let FragmentSettings { v4, v6, limits } = settings.fragments;
    let FragmentLimits { max_fragments, min_v4, min_v6, timeout } = limits;
    ConnectionSettings {
        max_connections: settings.max_connections,
        default_zone_limit: settings.default_zone_limit,
        timeouts_s: settings.timeouts.iter().map(seconds).collect(),
        tcp_liberal: settings.tcp_liberal,
        zones: settings.zones.iter().map(zone).collect(),
        fragments: Some(proto::FragmentSettings {
            max_fragments,
            ipv4_min_size: min_v4.into(),
            ipv6_min_size: min_v6.into(),
            timeout_ms: timeout,
            ipv4: v4,
            ipv6: v6,
        }),
    }
}

/// What the request makes of the settings.
///
/// # Errors
/// [`ChangeError`]; the values as a whole are not checked yet.
pub(super) fn change(settings: &mut CtSettings, request: &SetConnectionSettingsRequest) -> Result<(), ChangeError> {
    put(&mut settings.max_connections, request.max_connections);
    put(&mut settings.default_zone_limit, request.default_zone_limit);
    put(&mut settings.tcp_liberal, request.tcp_liberal);
    for (class, seconds) in timeouts(&request.timeouts_s)? {
        settings.timeouts.set(class, seconds);
    }
    for change in &request.zones {
        let no = u16::try_from(change.zone).map_err(|_| ChangeError::NoZone(change.zone))?;
        let zone = settings.zones.entry(no).or_default();
        change_zone(zone, change)?;
        if *zone == ZoneSettings::default() {
            settings.zones.remove(&no);
        }
    }
    if let Some(change) = &request.fragments {
        let FragmentChange { max_fragments, ipv4_min_size, ipv6_min_size, timeout_ms, ipv4, ipv6 } = change;
        let size = |size: &u32| u16::try_from(*size).map_err(|_| ChangeError::Size(*size));
        put(&mut settings.fragments.v4, *ipv4);
        put(&mut settings.fragments.v6, *ipv6);
        let fragments = &mut settings.fragments.limits;
        put(&mut fragments.max_fragments, *max_fragments);
        put(&mut fragments.min_v4, ipv4_min_size.as_ref().map(size).transpose()?);
        put(&mut fragments.min_v6, ipv6_min_size.as_ref().map(size).transpose()?);
        put(&mut fragments.timeout, *timeout_ms);
    }
    Ok(())
}

fn change_zone(zone: &mut ZoneSettings, change: &ZoneChange) -> Result<(), SettingsError> {
    if change.clear_limit {
        zone.limit = None;
    }
    if change.clear_timeouts {
        zone.timeouts.clear();
    }
    if change.clear_tcp_liberal {
        zone.tcp_liberal = None;
    }
    zone.limit = change.limit.or(zone.limit);
    zone.tcp_liberal = change.tcp_liberal.or(zone.tcp_liberal);
    zone.timeouts.extend(timeouts(&change.timeouts_s)?);
    Ok(())
}

fn timeouts(named: &HashMap<String, u32>) -> Result<Vec<(TimeoutClass, u32)>, SettingsError> {
    named.iter().map(|(name, seconds)| Ok((TimeoutClass::parse(name)?, *seconds))).collect()
}

fn put<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}
