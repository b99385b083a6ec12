//! From what the file says to what it means: ranges, names, and what goes with what.

use super::error::{Complaint, ConfigError, Source, did_you_mean};
use super::raw::{RawBridge, RawConfig, RawPort, RawTable};
use super::{BridgeConfig, Config, FlowLine, LogFormat, PortConfig, read};
use crate::port::{PortKind, PortSpec, SpecError};
use sluice_flows::PortNo;
use sluice_flows::bridge::{TableConfig, TableMiss, VlanId, VlanMode};
use sluice_flows::bridge_mod::check_table_name;
use sluice_flows::rule::TableId;
use sluice_flows::text::flow_lines;
use sluice_flows::tunnel::{TlvMap, TlvMapError};
use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

/// Most workers.
const MAX_WORKERS: i64 = 64;
/// Longest time for which a worker may spin: ten seconds.
const MAX_SPIN_US: i64 = 10_000_000;
/// Longest name of a bridge or port: an interface name without its NUL.
const MAX_NAME_LEN: usize = 15;

pub(super) fn config(source: Source<'_>, raw: RawConfig) -> Result<Config, ConfigError> {
    let workers =
        raw.workers.as_ref().map(|w| number(source, w, 1..=MAX_WORKERS, "the number of workers")).transpose()?;
    let mac_age_s =
        raw.mac_age.as_ref().map(|a| number(source, a, 1..=1_000_000, "`mac_age`, in seconds,")).transpose()?;
    let spin_us =
        raw.spin_us.as_ref().map(|s| number(source, s, 0..=MAX_SPIN_US, "`spin_us`, in microseconds,")).transpose()?;
    let mut pin = Vec::new();
    if let Some(cpus) = &raw.pin {
        for cpu in cpus.get_ref() {
            pin.push(number(source, cpu, 0..=1023, "a CPU")?);
        }
        if workers.is_some_and(|w: usize| w != pin.len()) {
            let what = "`pin` must name one CPU for each worker";
            let advice = format!("workers = {}, pin names {}", workers.unwrap_or(0), pin.len());
            return Err(source.complain(&cpus.span(), what).advice(advice).into());
        }
    }
    let mut ports = HashMap::new();
    let (mut bridges, mut gateways) = (Vec::new(), Vec::new());
    for (name, raw) in in_order(raw.bridges) {
        let bridge = bridge(source, &name, raw, &mut ports)?;
        gateways.extend(bridge.gateway.clone().map(|gateway| (name, gateway)));
        bridges.push(bridge);
    }
    super::gateway::check_all(source, &gateways)?;
    let routers = super::routers::check(source, raw.router, &bridges)?;
    Ok(Config {
        socket: raw.socket,
        state: raw.state,
        workers: workers.or(Some(pin.len()).filter(|n| *n > 0)),
        pin,
        spin_us,
        mac_age_s,
        tlv_map: raw.tlv_map.as_ref().map_or(Ok(TlvMap::default()), |map| tlv_map(source, map))?,
        log_level: raw.log.level.map(|l| log_level(source, l)).transpose()?,
        log_format: raw.log.format.as_ref().map(|f| log_format(source, f)).transpose()?,
        conntrack: super::conntrack::settings(source, raw.conntrack)?,
        bridges,
        routers,
    })
}

fn tlv_map(source: Source<'_>, map: &Spanned<String>) -> Result<TlvMap, Complaint> {
    map.get_ref().parse().map_err(|error: TlvMapError| source.complain(&map.span(), format!("`tlv_map`: {error}")))
}

/// The entries of a table in the order in which they stand in the file.
pub(super) fn in_order<T>(map: BTreeMap<Spanned<String>, T>) -> Vec<(Spanned<String>, T)> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Names seen so far, with where they were given: ports and bridges are interfaces of one host.
type Names = HashMap<String, Range<usize>>;

fn bridge(
    source: Source<'_>,
    name: &Spanned<String>,
    raw: RawBridge,
    names: &mut Names,
) -> Result<BridgeConfig, ConfigError> {
    take_name(source, name, names)?;
    let mut numbers = HashMap::new();
    let mut ports = Vec::new();
    for (name, raw) in in_order(raw.ports) {
        take_name(source, &name, names)?;
        ports.push(port(source, &name, raw, &mut numbers)?);
    }
    let own = raw.local_port.unwrap_or(true).then_some(name.get_ref().as_str());
    let mut bridge = BridgeConfig {
        name: name.get_ref().clone(),
        local_port: raw.local_port.unwrap_or(true),
        mcast_snooping: raw.mcast_snooping.unwrap_or(false),
        flows: match (raw.flows, raw.flow_files) {
            (None, None) => None,
            (flows, files) => Some(lines(source, flows, files)?),
        },
        groups: lines(source, raw.groups, raw.group_files)?,
        meters: lines(source, raw.meters, None)?,
        tables: tables(source, raw.tables)?,
        mirrors: super::mirrors::mirrors(source, raw.mirrors, &ports, own)?,
        ports,
        gateway: None,
    };
    bridge.gateway = raw.gateway.map(|raw| super::gateway::gateway(source, &bridge, raw)).transpose()?;
    Ok(bridge)
}

fn take_name(source: Source<'_>, name: &Spanned<String>, names: &mut Names) -> Result<(), Complaint> {
    let word = name.get_ref();
    let ordinary = |c: char| c.is_ascii_graphic() && c != '/' && c != ':' && c != ',' && c != '"';
    if word.is_empty() || word.len() > MAX_NAME_LEN || !word.chars().all(ordinary) || word == "." || word == ".." {
        return Err(source
            .complain(&name.span(), format!("`{word}` cannot be a name"))
            .advice(format!("names have 1 to {MAX_NAME_LEN} printable characters, without / : , \" or blanks")));
    }
    match names.insert(word.clone(), name.span()) {
        None => Ok(()),
        Some(first) => {
            let (line, _) = source.place(first.start);
            Err(source
                .complain(&name.span(), format!("the name `{word}` is taken"))
                .advice(format!("line {line} gives it first; bridges and ports share one set of names")))
        }
    }
}

fn port(
    source: Source<'_>,
    name: &Spanned<String>,
    raw: RawPort,
    numbers: &mut HashMap<u16, String>,
) -> Result<PortConfig, ConfigError> {
    let vlan = vlan(source, &raw)?;
    let Some(word) = &raw.r#type else {
        return Err(source
            .complain(&name.span(), format!("port `{}` has no `type`", name.get_ref()))
            .advice(format!("types: {}", port_types().join(", ")))
            .into());
    };
    let kind = port_kind(source, word)?;
    let number = match &raw.number {
        None => None,
        Some(n) => {
            let no: u16 = number(source, n, 1..=i64::from(PortNo::MAX.0), "a port number")?;
            if let Some(other) = numbers.insert(no, name.get_ref().clone()) {
                return Err(source.complain(&n.span(), format!("number {no} is taken by port `{other}`")).into());
            }
            Some(PortNo(no))
        }
    };
    let options = options(source, kind, word.span(), &raw)?;
    Ok(PortConfig {
        name: name.get_ref().clone(),
        kind,
        number,
        vlan,
        up: raw.up.unwrap_or(true),
        flood: raw.flood.unwrap_or(true),
        protected: raw.protected.unwrap_or(false),
        options,
    })
}

/// The port's options as text, checked as the port itself will check them.
fn options(
    source: Source<'_>,
    kind: PortKind,
    kind_span: Range<usize>,
    raw: &RawPort,
) -> Result<BTreeMap<String, String>, Complaint> {
    let mut text = BTreeMap::new();
    raw.options.iter().for_each(|(name, value)| value.get_ref().flatten(name.get_ref(), &mut text));
    let options = text.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let Err(error) = PortSpec::parse_with_limits(kind, options) else { return Ok(text) };
    let top = |wanted: &str| wanted.split('.').next().map(str::to_owned);
    let entry = |wanted: &str| raw.options.iter().find(|(name, _)| Some(name.get_ref()) == top(wanted).as_ref());
    let span = match &error {
        SpecError::UnknownOption { option, .. } => entry(option).map(|(name, _)| name.span()),
        SpecError::BadValue { option, .. } => entry(option).map(|(_, value)| value.span()),
        SpecError::Missing { .. } | SpecError::Fixed { .. } => None,
        SpecError::BadOption { option, .. } => entry(option).map(|(_, value)| value.span()),
    };
    Err(source.complain(&span.unwrap_or(kind_span), error.to_string()))
}

/// The types that a port of the file may have: a bridge has its local port by itself, and exactly one.
fn port_types() -> Vec<&'static str> {
    PortKind::ALL.iter().filter(|k| **k != PortKind::Local).map(|k| k.name()).collect()
}

fn port_kind(source: Source<'_>, word: &Spanned<String>) -> Result<PortKind, Complaint> {
    match PortKind::from_name(word.get_ref()) {
        Some(PortKind::Local) => Err(source
            .complain(&word.span(), "a bridge has its local port by itself")
            .advice("set `local_port = false` on the bridge to leave it out")),
        Some(kind) => Ok(kind),
        None => {
            let near = did_you_mean(word.get_ref(), port_types());
            Err(source
                .complain(&word.span(), format!("unknown port type `{}`{near}", word.get_ref()))
                .advice(format!("types: {}", port_types().join(", "))))
        }
    }
}

fn vlan(source: Source<'_>, raw: &RawPort) -> Result<VlanMode, Complaint> {
    if let (Some(access), Some(other)) =
        (&raw.access, raw.trunk.as_ref().map(Spanned::span).or(raw.native.as_ref().map(Spanned::span)))
    {
        let (line, _) = source.place(access.span().start);
        return Err(source
            .complain(&other, "an access port carries one VLAN")
            .advice(format!("drop `access` (line {line}) to make it a trunk")));
    }
    if let (Some(tagged), None) = (&raw.native_tagged, &raw.native) {
        return Err(source.complain(&tagged.span(), "`native_tagged` without `native`"));
    }
    if let Some(access) = &raw.access {
        return Ok(VlanMode::Access(vlan_id(source, access)?));
    }
    let listed = raw.trunk.as_ref().map(Spanned::get_ref).into_iter().flatten();
    let trunks: Arc<[VlanId]> = listed.map(|v| vlan_id(source, v)).collect::<Result<_, _>>()?;
    Ok(match &raw.native {
        None => VlanMode::Trunk { trunks },
        Some(native) => VlanMode::Native {
            trunks,
            native: vlan_id(source, native)?,
            tagged: raw.native_tagged.as_ref().is_some_and(|t| *t.get_ref()),
        },
    })
}

pub(super) fn vlan_id(source: Source<'_>, value: &Spanned<i64>) -> Result<VlanId, Complaint> {
    let id = number::<u16>(source, value, 0..=4095, "a VLAN ID")?;
    VlanId::new(id).ok_or_else(|| source.complain(&value.span(), "a VLAN ID is 0 to 4095"))
}

/// What is said of flow tables; each stands under its number.
fn tables(
    source: Source<'_>,
    raw: BTreeMap<Spanned<String>, RawTable>,
) -> Result<BTreeMap<TableId, TableConfig>, Complaint> {
    let mut tables = BTreeMap::new();
    let mut names = HashMap::new();
    for (key, raw) in in_order(raw) {
        let Some(id) = key.get_ref().parse().ok().and_then(TableId::new) else {
            let what = format!("there is no table `{}`", key.get_ref());
            return Err(source.complain(&key.span(), what).advice(format!("tables are 0 to {}", TableId::LAST)));
        };
        let table = table(source, &raw)?;
        if let (Some(name), Some(spanned)) = (&table.name, &raw.name)
            && let Some(other) = names.insert(name.clone(), id)
        {
            return Err(source.complain(&spanned.span(), format!("table {other} has the name `{name}`")));
        }
        // `01` and `1` are different keys.
        if tables.insert(id, table).is_some() {
            return Err(source.complain(&key.span(), format!("table {id} stands here twice")));
        }
    }
    Ok(tables)
}

fn table(source: Source<'_>, raw: &RawTable) -> Result<TableConfig, Complaint> {
    let miss = match raw.miss.as_ref().map(|m| (m, m.get_ref().as_str())) {
        None | Some((_, "drop")) => TableMiss::Drop,
        Some((_, "controller")) => TableMiss::Controller,
        Some((_, "continue")) => TableMiss::Continue,
        Some((word, other)) => {
            let near = did_you_mean(other, ["drop", "controller", "continue"]);
            return Err(source
                .complain(&word.span(), format!("unknown `miss` `{other}`{near}"))
                .advice("allowed: drop, controller, continue"));
        }
    };
    if let Some(name) = &raw.name {
        check_table_name(name.get_ref()).map_err(|e| source.complain(&name.span(), e.to_string()))?;
    }
    let most = i64::from(u32::MAX);
    Ok(TableConfig {
        name: raw.name.as_ref().map(|n| n.get_ref().as_str().into()),
        miss,
        max_flows: raw.max_flows.as_ref().map(|n| number(source, n, 1..=most, "`max_flows`")).transpose()?,
        evict: raw.evict.unwrap_or(false),
    })
}

/// Lines of the file itself, then those of other files.
fn lines(
    source: Source<'_>,
    lines: Option<Vec<Spanned<String>>>,
    files: Option<Vec<Spanned<std::path::PathBuf>>>,
) -> Result<Vec<FlowLine>, ConfigError> {
    let mut out = Vec::new();
    for flow in lines.unwrap_or_default() {
        let (line, column) = source.place(flow.span().start);
        out.push(FlowLine { text: flow.into_inner(), path: source.path.to_owned(), line, column: column + 1 });
    }
    for file in files.unwrap_or_default() {
        let path = source.path.parent().unwrap_or(Path::new("")).join(file.get_ref());
        let text = read(&path).map_err(|e| source.complain(&file.span(), e.to_string()))?;
        let lines = flow_lines(&text);
        out.extend(lines.map(|(line, l)| FlowLine { text: l.to_owned(), path: path.clone(), line, column: 1 }));
    }
    Ok(out)
}

pub(super) fn number<T: TryFrom<i64>>(
    source: Source<'_>,
    value: &Spanned<i64>,
    range: RangeInclusive<i64>,
    what: &str,
) -> Result<T, Complaint> {
    let n = *value.get_ref();
    match T::try_from(n) {
        Ok(out) if range.contains(&n) => Ok(out),
        _ => Err(source.complain(&value.span(), format!("{n} is out of range")).advice(format!(
            "{what} is {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

/// The filter that a level or list of directives means.
///
/// # Errors
/// It is none. A bare word that is no level is one such: as a directive it would be the name of a crate to show
/// everything of, and a slip such as `inof` would silence the rest.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.iter().any(|l| l.eq_ignore_ascii_case(word));
    if let Some(word) = text.split(',').map(str::trim).find(|w| !w.contains(['=', '[']) && !is_level(w)) {
        return Err(format!("`{word}` is no log level{}", did_you_mean(word, levels)));
    }
    EnvFilter::builder().parse(text).map_err(|e| format!("`{text}` is no log level: {e}"))
}

fn log_level(source: Source<'_>, level: Spanned<String>) -> Result<String, Complaint> {
    match log_filter(level.get_ref()) {
        Ok(_) => Ok(level.into_inner()),
        Err(error) => Err(source
            .complain(&level.span(), error)
            .advice("error, warn, info, debug, trace, or directives such as `info,sluice_switch=debug`")),
    }
}

fn log_format(source: Source<'_>, word: &Spanned<String>) -> Result<LogFormat, Complaint> {
    match word.get_ref().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => {
            let near = did_you_mean(other, ["text", "json"]);
            Err(source
                .complain(&word.span(), format!("unknown log format `{other}`{near}"))
                .advice("formats: text, json"))
        }
    }
}
