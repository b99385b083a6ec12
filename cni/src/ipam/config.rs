//! What the network's configuration says of addresses: the keys of the reference's `host-local`, and ours beside them.
//!
//! | Key of `ipam` | |
//! |---|---|
//! | `ranges` | sets of `{subnet, rangeStart, rangeEnd, gateway}`; an attachment gets one address of each set |
//! | `subnet`, `rangeStart`, `rangeEnd`, `gateway` | one more set, in front |
//! | `routes`, `resolvConf` | as in the result; the file of the resolver that `dns` is read from |
//! | `dataDir` | where `host-local` has its directories, whose reservations are honoured |
//! | `exclude` | addresses, networks (CIDR) and `FIRST-LAST` that are never given |
//! | `cooldown` | seconds before a released address is given to another; unset: [`COOLDOWN_S`] |
//! | `reservations` | addresses by name, given to that name and to nobody else |
//! | `pools`, `pool` | more lists of sets by name, and which of them is used instead of `ranges` |
//!
//! Sets of the capability `ipRanges` are in front of all. A `null` is as if the key were not there, and keys that are not
//! known are tolerated.

use super::address::{Address, Span, Spans};
use super::error::IpamError;
use super::range::{RangeConf, RangeSet, apart};
use crate::spec::{CniArgs, Route};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Seconds that a released address rests, unless configured: as long as Linux keeps a closed TCP connection (TIME-WAIT), and
/// a neighbour's unused cache entry, so what peers still know of the old owner is gone by the time a new one has the address.
pub const COOLDOWN_S: u64 = 60;
/// Names in `CNI_ARGS` that are about addresses: a fixed address, a name of `reservations`, one of `pools`.
pub const CNI_ARGS_NAMES: [&str; 3] = ["IP", "NAME", "POOL"];
/// Where the reference's `host-local` has its directories, unless configured.
const HOST_LOCAL_DIR: &str = "/var/lib/cni/networks";
/// Where our store is, unless configured.
const DATA_DIR: &str = "/var/lib/cni/sluice";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetConf {
    cni_version: Option<String>,
    name: Option<String>,
    data_dir: Option<PathBuf>,
    ipam: Option<IpamConf>,
    runtime_config: Option<RuntimeConf>,
    args: Option<ArgsConf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IpamConf {
    r#type: Option<String>,
    #[serde(flatten)]
    legacy: RangeConf,
    ranges: Option<Vec<Vec<RangeConf>>>,
    routes: Option<Vec<Route>>,
    resolv_conf: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    exclude: Option<Vec<String>>,
    cooldown: Option<u64>,
    reservations: Option<BTreeMap<String, OneOrMore>>,
    pools: Option<BTreeMap<String, Vec<Vec<RangeConf>>>>,
    pool: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConf {
    ips: Option<Vec<String>>,
    ip_ranges: Option<Vec<Vec<RangeConf>>>,
}

#[derive(Default, Deserialize)]
struct ArgsConf {
    cni: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Who manages the addresses of a network.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nobody: interfaces have none.
    None,
    /// We do.
    Own(Box<Settings>),
    /// This plugin.
    Delegate(String),
}

/// What every operation needs of the configuration.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) network: String,
    pub(crate) cni_version: String,
    pub(crate) kind: Kind,
}

/// The checked configuration of our own management.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The folder of our store.
    pub(crate) data_dir: PathBuf,
    /// The folder that `host-local` has for this network.
    pub(crate) host_local: PathBuf,
    /// One address comes from each.
    pub(crate) sets: Vec<RangeSet>,
    /// Never given by themselves: exclusions, gateways, and what is reserved for a name.
    pub(crate) kept: Spans,
    /// Of those, what is never given at all.
    pub(crate) excluded: Spans,
    /// By name, in the order written.
    pub(crate) reservations: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) routes: Vec<Route>,
    pub(crate) resolv_conf: Option<PathBuf>,
    /// In milliseconds.
    pub(crate) cooldown: u64,
    /// Addresses asked for, and by which way.
    pub(crate) requested: Option<Requested>,
    /// The names that this attachment has, as `reservations` may have them, the most particular first.
    pub(crate) names: Vec<String>,
}

/// Addresses that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) ips: Vec<IpAddr>,
}

impl Conf {
    /// Reads the configuration of a call that only releases. It need make no sense any more otherwise: what was reserved
    /// while it did must go.
    pub(crate) fn read_to_release(stdin: &[u8]) -> Result<Self, IpamError> {
        let conf = NetConf::read(stdin)?;
        let ipam = conf.ipam.as_ref();
        let kind = match ipam.and_then(IpamConf::delegate) {
            Some(name) => Kind::Delegate(name),
            None => Kind::Own(Box::new(Settings::bare(&conf, ipam.unwrap_or(&IpamConf::default())))),
        };
        Ok(Self { network: conf.name.unwrap_or_default(), cni_version: conf.cni_version.unwrap_or_default(), kind })
    }

    /// Reads and checks the configuration of one call.
    pub(crate) fn read(stdin: &[u8], args: &CniArgs, container_id: &str) -> Result<Self, IpamError> {
        let conf = NetConf::read(stdin)?;
        let network = conf.name.clone().unwrap_or_default();
        let cni_version = conf.cni_version.clone().unwrap_or_default();
        let runtime = conf.runtime_config.as_ref();
        let in_front = runtime.and_then(|r| r.ip_ranges.as_deref()).unwrap_or_default();
        let kind = match conf.ipam.as_ref() {
            None if in_front.is_empty() => Kind::None,
            Some(ipam) if ipam.delegate().is_some() => Kind::Delegate(ipam.delegate().unwrap_or_default()),
            ipam => match Settings::new(&conf, ipam.unwrap_or(&IpamConf::default()), args, container_id)? {
                settings if settings.sets.is_empty() => without_ranges(ipam, settings)?,
                settings => Kind::Own(Box::new(settings)),
            },
        };
        Ok(Self { network, cni_version, kind })
    }
}

/// Whether a type is not ours.
fn is_other(name: &str) -> bool {
    !matches!(name, "" | "sluice")
}

impl NetConf {
    fn read(stdin: &[u8]) -> Result<Self, IpamError> {
        serde_json::from_slice(stdin).map_err(|e| IpamError::Decode(e.to_string()))
    }
}

impl IpamConf {
    /// The plugin that manages the addresses, if we do not.
    fn delegate(&self) -> Option<String> {
        self.r#type.clone().filter(|name| is_other(name))
    }
}

/// Without ranges there are no addresses, which is an error where one was asked for, or where we were named.
fn without_ranges(ipam: Option<&IpamConf>, settings: Settings) -> Result<Kind, IpamError> {
    if ipam.is_some_and(|i| i.r#type.as_deref().is_some_and(|t| !t.is_empty()) || i.ranges.is_some()) {
        let why = "there is no range; write one, such as [[{\"subnet\": \"10.77.0.0/24\"}]]".to_owned();
        return Err(IpamError::Config { key: "ipam.ranges".into(), why });
    }
    match settings.requested {
        None => Ok(Kind::None),
        Some(asked) => Err(IpamError::Unused { addresses: joined(&asked.ips), sets: "none".into() }),
    }
}

impl Settings {
    fn new(conf: &NetConf, ipam: &IpamConf, args: &CniArgs, container_id: &str) -> Result<Self, IpamError> {
        let labels = Labels(conf.args.as_ref().and_then(|a| a.cni.as_ref()));
        let named = |name: &str| args.get(&name.to_ascii_uppercase()).map(str::to_owned).or_else(|| labels.get(name));
        let pools = pools(ipam)?;
        let sets = sets(conf, ipam, &pools, named("pool"))?;
        let excluded = exclusions(ipam.exclude.as_deref().unwrap_or_default())?;
        let reservations = reservations(ipam, &pools, &sets, &excluded)?;
        let gateways = sets.iter().flat_map(|s| &s.ranges).filter_map(|r| r.gateway).map(|g| Span::one(g.into()));
        let reserved = reservations.values().flatten().map(|ip| Span::one((*ip).into()));
        let kept = Spans::new(excluded.iter().copied().chain(gateways).chain(reserved).collect());
        let pod = args.get("K8S_POD_NAMESPACE").zip(args.get("K8S_POD_NAME")).map(|(ns, name)| format!("{ns}/{name}"));
        let names = [named("name"), pod, Some(container_id.to_owned())];
        Ok(Self {
            sets,
            kept,
            excluded,
            reservations,
            routes: ipam.routes.clone().unwrap_or_default(),
            resolv_conf: ipam.resolv_conf.clone().filter(|p| !p.as_os_str().is_empty()),
            cooldown: ipam.cooldown.unwrap_or(COOLDOWN_S).saturating_mul(1000),
            requested: requested(conf, &labels, args)?,
            names: names.into_iter().flatten().filter(|n| !n.is_empty()).collect(),
            ..Self::bare(conf, ipam)
        })
    }

    /// Where things are, and no more.
    fn bare(conf: &NetConf, ipam: &IpamConf) -> Self {
        let directory = ipam.data_dir.clone().filter(|d| !d.as_os_str().is_empty());
        let network = conf.name.as_deref().unwrap_or_default();
        Self {
            data_dir: conf.data_dir.clone().unwrap_or_else(|| DATA_DIR.into()),
            host_local: directory.unwrap_or_else(|| HOST_LOCAL_DIR.into()).join(network),
            sets: Vec::new(),
            kept: Spans::default(),
            excluded: Spans::default(),
            reservations: BTreeMap::new(),
            routes: Vec::new(),
            resolv_conf: None,
            cooldown: 0,
            requested: None,
            names: Vec::new(),
        }
    }

    /// The addresses that are reserved for this attachment, with the name.
    pub(crate) fn reserved(&self) -> Option<(&str, &[IpAddr])> {
        self.names.iter().find_map(|n| self.reservations.get_key_value(n)).map(|(n, ips)| (n.as_str(), ips.as_slice()))
    }

    /// The name that an address is reserved for.
    pub(crate) fn reserved_for(&self, ip: IpAddr) -> Option<&str> {
        self.reservations.iter().find(|(_, ips)| ips.contains(&ip)).map(|(name, _)| name.as_str())
    }
}

/// The sets of each pool.
type Pools = BTreeMap<String, Vec<RangeSet>>;

/// Every pool, also those that this attachment does not use.
fn pools(ipam: &IpamConf) -> Result<Pools, IpamError> {
    let mut all = Pools::new();
    for (name, sets) in ipam.pools.iter().flatten() {
        let sets = sets.iter().enumerate().map(|(n, s)| RangeSet::new(format!("ipam.pools.{name}[{n}]"), s));
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        apart(&sets)?;
        all.insert(name.clone(), sets);
    }
    Ok(all)
}

/// The sets in the order that addresses are given from them.
fn sets(conf: &NetConf, ipam: &IpamConf, pools: &Pools, pool: Option<String>) -> Result<Vec<RangeSet>, IpamError> {
    let mut all = Vec::new();
    let in_front = conf.runtime_config.as_ref().and_then(|r| r.ip_ranges.as_deref()).unwrap_or_default();
    for (n, set) in in_front.iter().enumerate() {
        all.push(RangeSet::new(format!("runtimeConfig.ipRanges[{n}]"), set)?);
    }
    match pool.or_else(|| ipam.pool.clone()).filter(|p| !p.is_empty()) {
        Some(name) => {
            let Some(sets) = pools.get(&name) else {
                let known: Vec<&str> = pools.keys().map(String::as_str).collect();
                let why = format!("there is no pool {name:?}; ipam.pools has {}", listed(&known));
                return Err(IpamError::Config { key: "pool".into(), why });
            };
            all.extend(sets.iter().cloned());
        }
        None => {
            if ipam.legacy.subnet.as_deref().is_some_and(|s| !s.is_empty()) {
                all.push(RangeSet::new("ipam.subnet".into(), std::slice::from_ref(&ipam.legacy))?);
            } else if ipam.legacy.range_start.is_some() || ipam.legacy.range_end.is_some() {
                let why = "rangeStart and rangeEnd need a subnet beside them".into();
                return Err(IpamError::Config { key: "ipam".into(), why });
            }
            for (n, set) in ipam.ranges.iter().flatten().enumerate() {
                all.push(RangeSet::new(format!("ipam.ranges[{n}]"), set)?);
            }
        }
    }
    apart(&all)?;
    Ok(all)
}

fn exclusions(texts: &[String]) -> Result<Spans, IpamError> {
    texts.iter().map(|text| exclusion(text)).collect::<Result<Vec<_>, _>>().map(Spans::new)
}

fn exclusion(text: &str) -> Result<Span, IpamError> {
    let wrong = || IpamError::Config {
        key: "ipam.exclude".into(),
        why: format!("{text:?} is not an address, a network such as 10.77.0.0/28, or two addresses as FIRST-LAST"),
    };
    if let Some((first, last)) = text.split_once('-') {
        let ip = |t: &str| t.trim().parse::<IpAddr>().map(Address::from).map_err(|_| wrong());
        let (first, last) = (ip(first)?, ip(last)?);
        let span = Span { family: first.family, first: first.bits, last: last.bits };
        return if first.family == last.family && first.bits <= last.bits { Ok(span) } else { Err(wrong()) };
    }
    match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) => Ok(net.into()),
        (_, Ok(ip)) => Ok(Span::one(ip.into())),
        _ => Err(wrong()),
    }
}

fn reservations(
    ipam: &IpamConf,
    pools: &Pools,
    sets: &[RangeSet],
    excluded: &Spans,
) -> Result<BTreeMap<String, Vec<IpAddr>>, IpamError> {
    let mut owners: BTreeMap<Address, &str> = BTreeMap::new();
    let mut all = BTreeMap::new();
    let all_sets: Vec<&RangeSet> = sets.iter().chain(pools.values().flatten()).collect();
    for (name, value) in ipam.reservations.iter().flatten() {
        let wrong = |why: String| IpamError::Config { key: format!("ipam.reservations.{name}"), why };
        let texts = match value {
            OneOrMore::One(text) => std::slice::from_ref(text),
            OneOrMore::More(texts) => texts.as_slice(),
        };
        let mut ips = Vec::with_capacity(texts.len());
        for text in texts {
            let ip = address(text).ok_or_else(|| wrong(format!("{text:?} is not an address")))?;
            if !all_sets.iter().any(|s| s.range_of(ip.into()).is_some()) {
                return Err(wrong(format!("{ip} is in no range")));
            }
            let gateway = all_sets.iter().flat_map(|s| &s.ranges).any(|r| r.gateway == Some(ip));
            if gateway || excluded.find(ip.into()).is_some() {
                let why = if gateway { "the gateway's" } else { "excluded" };
                return Err(wrong(format!("{ip} is {why}, and cannot be given")));
            }
            if let Some(other) = owners.insert(ip.into(), name) {
                return Err(wrong(format!("{ip} is reserved for {other:?} too")));
            }
            ips.push(ip);
        }
        all.insert(name.clone(), ips);
    }
    Ok(all)
}

/// The addresses asked for: by capability, by `args`, by `CNI_ARGS`; all that are there count.
fn requested(conf: &NetConf, labels: &Labels<'_>, args: &CniArgs) -> Result<Option<Requested>, IpamError> {
    let mut ips: Vec<IpAddr> = Vec::new();
    let mut take = |from: &'static str, text: &str| {
        let why = || "it is not an address, with or without a prefix length".to_owned();
        let ip = address(text).ok_or_else(|| IpamError::Request { from, value: text.to_owned(), why: why() })?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
        Ok::<_, IpamError>(())
    };
    for text in args.get("IP").unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()) {
        take("CNI_ARGS IP", text)?;
    }
    for text in labels.ips() {
        take("args.cni.ips", &text)?;
    }
    for text in conf.runtime_config.as_ref().and_then(|r| r.ips.as_deref()).unwrap_or_default() {
        take("runtimeConfig.ips", text)?;
    }
    Ok((!ips.is_empty()).then_some(Requested { ips }))
}

/// An address with or without a prefix length.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok().or_else(|| text.parse::<IpNet>().ok().map(|n| n.addr()))?;
    Some(ip.to_canonical())
}

/// `args.cni` of a configuration.
struct Labels<'c>(Option<&'c Map<String, Value>>);

impl Labels<'_> {
    /// A value by name: one of its own, or that of a label.
    fn get(&self, name: &str) -> Option<String> {
        let cni = self.0?;
        let text = |v: &Value| v.as_str().map(str::to_owned);
        cni.get(name).and_then(text).or_else(|| match cni.get("labels")? {
            Value::Object(labels) => labels.get(name).and_then(text),
            Value::Array(labels) => {
                labels.iter().find(|l| l.get("key").and_then(Value::as_str) == Some(name))?.get("value").and_then(text)
            }
            _ => None,
        })
    }

    fn ips(&self) -> Vec<String> {
        let list = self.0.and_then(|cni| cni.get("ips")).and_then(Value::as_array);
        list.into_iter().flatten().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect()
    }
}

/// Addresses as text.
pub(crate) fn joined(ips: &[IpAddr]) -> String {
    let texts: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

/// Names as text.
fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
