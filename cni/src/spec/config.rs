//! The plugin's configuration: what a runtime sends on standard input.
//!
//! Two readings: [`Config::read`] checks everything and is for ADD, CHECK and STATUS; [`Config::read_enough`] takes what names
//! things, so that DEL and GC clean up after a configuration that has since become wrong. The keys of the reference
//! plugin `bridge` keep their names, meanings and limits; keys that nobody knows are tolerated, as the specification asks.
//!
//! What a runtime adds in `runtimeConfig` beats `args.cni`, that beats `CNI_ARGS`, and that beats the file. For bandwidth
//! alone it is the other way round, as with the reference plugin: what an administrator limits stays limited.

mod capabilities;
mod keys;
#[cfg(test)]
mod tests;

pub use capabilities::{Bandwidth, PortMapping, Protocol};
pub use keys::parse_mac;

use super::{AddResult, Attachment, CniArgs, Command, Dns, Environment, Version, is_ifname, is_name};
use crate::error::{Code, Failure};
use ipnet::IpNet;
use keys::Keys;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

/// The switch's socket, when nothing else is said.
const DEFAULT_SOCKET: &str = "/run/sluice/switch.sock";
/// Where addresses and locks are kept, when nothing else is said.
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/sluice";
/// The bridge, when nothing else is said.
const DEFAULT_BRIDGE: &str = "br0";
/// Greatest VLAN ID that may be asked for, as the reference plugin has it.
const MAX_VLAN: u64 = 4094;
/// Least MTU that may be asked for: IPv4's (RFC 791).
const MIN_MTU: u64 = 68;
/// Greatest MTU that may be asked for: a packet of IPv4 cannot be longer.
const MAX_MTU: u64 = 65_535;
/// The names of `CNI_ARGS` that have a meaning here.
const KNOWN_ARGS: [&str; 8] =
    ["IP", "NAME", "POOL", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID"];
/// Where a list of valid attachments is: as the specification says it, and as older runtimes did.
const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// What every operation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The version that the answer is to be written in.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// The switch's socket.
    pub socket: PathBuf,
    /// Where addresses and locks are kept.
    pub data_dir: PathBuf,
    /// Who manages addresses.
    pub ipam: Ipam,
}

/// Who manages the addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// Nobody: interfaces have no addresses from us.
    None,
    /// We do.
    Own,
    /// The plugin of this name.
    Delegate(String),
}

/// What the interface in the container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// An end of a veth pair.
    Veth,
    /// A persistent TAP.
    Tap,
}

/// What a frame from the container is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// The hardware address.
    Mac,
    /// All addresses.
    Full,
}

/// Which VLANs an attachment carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vlans {
    /// Whatever there is.
    All,
    /// One, untagged.
    Access(u16),
    /// These, tagged, and perhaps what has no tag.
    Trunk {
        /// Tagged ones, in order.
        tagged: Vec<u16>,
        /// Whether frames without a tag pass too.
        untagged: bool,
    },
}

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What every operation needs.
    pub base: Base,
    /// Whether the network is somebody else's, who declares it in the switch.
    pub declared: bool,
    /// What the interface is.
    pub device: Device,
    /// Whether the bridge has the gateway's addresses on the host.
    pub is_gateway: bool,
    /// Whether the container's default route is by the gateway: always, never, or if it has none.
    pub default_route: Option<bool>,
    /// Whether addresses are hidden behind the host's outside.
    pub masquerade: bool,
    /// Destinations that see the container's own address all the same.
    pub masquerade_except: Vec<IpNet>,
    /// What frames are compared with.
    pub guard: Guard,
    /// Whether it reaches only the gateway and ports that are not isolated.
    pub isolated: bool,
    /// Whether frames to its own address come back to it.
    pub hairpin: bool,
    /// Which VLANs it carries.
    pub vlans: Vlans,
    /// Its MTU in bytes, if it is not the transport's.
    pub mtu: Option<u32>,
    /// Its hardware address, if it is asked for.
    pub mac: Option<[u8; 6]>,
    /// Whether the kernel looks for duplicates of its IPv6 addresses.
    pub dad: bool,
    /// Whether it is left down and without addresses.
    pub disabled: bool,
    /// Settings of the container's network namespace, in order.
    pub sysctls: Vec<(String, String)>,
    /// Whether it leaves checksums of what it sends to the switch.
    pub tx_checksum: bool,
    /// Limits of its rate.
    pub bandwidth: Bandwidth,
    /// Ports of the host that lead to it.
    pub port_mappings: Vec<PortMapping>,
    /// How names are resolved, as the file or the runtime say; empty if they do not.
    pub dns: Dns,
    /// What else is known of the container.
    pub labels: BTreeMap<String, String>,
    /// The subnets of the address ranges that are in the file, with their gateways if they say one.
    pub ranges: Vec<Range>,
    /// What the plugins before this one made, or at CHECK, all plugins together.
    pub prev_result: Option<AddResult>,
}

/// A subnet that addresses are given from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The subnet.
    pub subnet: IpNet,
    /// Its gateway, if one is said.
    pub gateway: Option<IpAddr>,
}

impl Base {
    fn from_keys(keys: &Keys<'_>) -> Result<Self, Failure> {
        let text = keys.text("cniVersion")?.unwrap_or_default();
        let version = text.parse().map_err(|error: super::UnknownVersion| {
            let next = format!("it speaks {}", Version::ALL.map(Version::as_str).join(", "));
            Failure::new(Code::IncompatibleVersion, error.to_string()).details(next)
        })?;
        let name = keys.text("name")?.unwrap_or_default();
        if name.is_empty() {
            return Err(keys.wrong("name", "the network's name, which must be there"));
        }
        is_name("the network's name", &name).map_err(|e| Failure::new(Code::InvalidConfig, format!("name: {e}")))?;
        let bridge = keys.text("bridge")?.filter(|b| !b.is_empty()).unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
        is_ifname(&bridge).map_err(|_| keys.wrong("bridge", "the name of a bridge, at most 15 bytes"))?;
        let path = |key, otherwise: &str| match keys.text(key)?.filter(|p| !p.is_empty()) {
            None => Ok(PathBuf::from(otherwise)),
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            Some(_) => Err(keys.wrong(key, "a path that begins with /")),
        };
        Ok(Self {
            version,
            name,
            bridge,
            socket: path("socket", DEFAULT_SOCKET)?,
            data_dir: path("dataDir", DEFAULT_DATA_DIR)?,
            ipam: ipam(keys)?,
        })
    }

    /// The attachment that a call is about.
    pub fn attachment(&self, environment: &Environment) -> Attachment {
        environment.attachment(&self.name)
    }
}

impl Config {
    /// Reads a configuration and checks all of it, for the call that `environment` describes.
    ///
    /// # Errors
    /// [`Code::Decode`], [`Code::IncompatibleVersion`], [`Code::InvalidConfig`], [`Code::UnsupportedField`] and, for
    /// `CNI_ARGS`, [`Code::BadEnvironment`].
    pub fn read(input: &[u8], environment: &Environment) -> Result<Self, Failure> {
        let value = decode(input)?;
        let keys = Keys::new("", &value)?;
        let base = Base::from_keys(&keys)?;
        let call = matches!(environment.command, Command::Add | Command::Check);
        if call {
            environment.args.only(&KNOWN_ARGS)?;
        }
        let runtime = keys.inner("runtimeConfig")?;
        let args = keys.inner("args")?.inner("cni")?;
        let default_route = keys.bool("isDefaultGateway")?;
        let (vlans, disabled) = (vlans(&keys)?, keys.bool("disableContainerInterface")?.unwrap_or(false));
        let hairpin = keys.bool("hairpinMode")?.unwrap_or(false);
        if hairpin && keys.bool("promiscMode")?.unwrap_or(false) {
            return Err(keys.wrong("promiscMode", "false where hairpinMode is true"));
        }
        if disabled && base.ipam != Ipam::None {
            return Err(
                keys.wrong("disableContainerInterface", "false where there is an ipam: nothing would use addresses")
            );
        }
        let mtu = keys.number("mtu", 0..=MAX_MTU)?.unwrap_or(0);
        if mtu > 0 && mtu < MIN_MTU {
            return Err(keys.wrong("mtu", "0 for the transport's, or 68 to 65535"));
        }
        Ok(Self {
            declared: keys.bool("declared")?.unwrap_or(false),
            device: device(&keys)?,
            is_gateway: default_route == Some(true) || keys.bool("isGateway")?.unwrap_or(true),
            default_route,
            masquerade: keys.bool("ipMasq")?.unwrap_or(true),
            masquerade_except: keys.networks("ipMasqExcept")?,
            guard: guard(&keys)?,
            isolated: keys.bool("portIsolation")?.unwrap_or(false),
            hairpin,
            vlans,
            mtu: u32::try_from(mtu).ok().filter(|m| *m > 0),
            mac: mac(&keys, &runtime, &args, &environment.args)?,
            dad: keys.bool("enabledad")?.unwrap_or(false),
            disabled,
            sysctls: sysctls(&keys, &environment.ifname)?,
            tx_checksum: keys.bool("txChecksum")?.unwrap_or(true),
            bandwidth: capabilities::bandwidth(&keys, &runtime)?,
            port_mappings: capabilities::port_mappings(&runtime)?,
            dns: capabilities::dns(&keys, &runtime)?,
            labels: capabilities::labels(&runtime, &args, &environment.args)?,
            ranges: ranges(&keys, &runtime)?,
            prev_result: prev_result(&value, base.version)?,
            base,
        })
    }

    /// Reads what names things, and nothing else.
    ///
    /// # Errors
    /// [`Code::Decode`], [`Code::IncompatibleVersion`], and [`Code::InvalidConfig`] for the network's name and the paths.
    pub fn read_enough(input: &[u8]) -> Result<Base, Failure> {
        let value = decode(input)?;
        Base::from_keys(&Keys::new("", &value)?)
    }
}

/// The attachments that GC is to keep, under either name that runtimes have for them. None where neither is there: libcni
/// leaves the key away when it is told of no attachment, as by `cnitool gc`.
///
/// # Errors
/// [`Code::InvalidConfig`]: it is no such list.
pub fn valid_attachments(input: &[u8], network: &str) -> Result<BTreeSet<Attachment>, Failure> {
    let value = decode(input)?;
    let mut found = VALID_ATTACHMENTS.iter().filter_map(|key| value.get(*key).map(|list| (*key, list)));
    // Where both are there they say the same; `null` in one is Go's empty list.
    let with_items = found.clone().find(|(_, list)| !list.is_null());
    let Some((key, list)) = with_items.or_else(|| found.next()) else { return Ok(BTreeSet::new()) };
    let wrong = || {
        let wanted = r#"a list such as [{"containerID": "c1", "ifname": "eth0"}]"#;
        Failure::new(Code::InvalidConfig, format!("{key} is {list}, wanted: {wanted}"))
    };
    let items = match list {
        Value::Null => return Ok(BTreeSet::new()),
        Value::Array(items) => items,
        _ => return Err(wrong()),
    };
    let attachment = |item: &Value| {
        let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Attachment { network: network.to_owned(), container_id: text("containerID")?, ifname: text("ifname")? })
    };
    items.iter().map(|item| attachment(item).ok_or_else(wrong)).collect()
}

fn decode(input: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(input).map_err(|e| {
        let msg = format!("the configuration on standard input is no JSON: {e}");
        Failure::new(Code::Decode, msg).details("send the network's configuration as one JSON object")
    })
}

/// Who manages addresses: nobody without `ipam`, or with one that says nothing while the runtime says no ranges.
fn ipam(keys: &Keys<'_>) -> Result<Ipam, Failure> {
    let ipam = keys.inner("ipam")?;
    match ipam.text("type")?.unwrap_or_default().as_str() {
        "" if ipam.is_empty() && keys.inner("runtimeConfig")?.is_unset("ipRanges") => Ok(Ipam::None),
        "" | "sluice" => Ok(Ipam::Own),
        other if other.contains('/') => Err(ipam.wrong("type", "the name of a plugin, not a path")),
        other => Ok(Ipam::Delegate(other.to_owned())),
    }
}

fn device(keys: &Keys<'_>) -> Result<Device, Failure> {
    match keys.text("device")?.unwrap_or_default().as_str() {
        "" | "veth" => Ok(Device::Veth),
        "tap" => Ok(Device::Tap),
        _ => Err(keys.wrong("device", "\"veth\" or \"tap\"")),
    }
}

fn guard(keys: &Keys<'_>) -> Result<Guard, Failure> {
    let mac_only = keys.bool("macspoofchk")?.unwrap_or(false);
    match keys.text("spoofGuard")?.unwrap_or_default().as_str() {
        "" if mac_only => Ok(Guard::Mac),
        "" | "full" => Ok(Guard::Full),
        "mac" => Ok(Guard::Mac),
        "none" if mac_only => Err(keys.wrong("spoofGuard", "\"mac\" or \"full\" where macspoofchk is true")),
        "none" => Ok(Guard::None),
        _ => Err(keys.wrong("spoofGuard", "\"full\", \"mac\" or \"none\"")),
    }
}

fn vlans(keys: &Keys<'_>) -> Result<Vlans, Failure> {
    let access = keys.number("vlan", 0..=MAX_VLAN)?.and_then(|v| u16::try_from(v).ok()).filter(|v| *v > 0);
    let mut tagged = BTreeSet::new();
    let trunk = keys.list("vlanTrunk")?;
    for part in &trunk {
        let id = part.number("id", 0..=MAX_VLAN)?;
        let (min, max) = (part.number("minID", 0..=MAX_VLAN)?, part.number("maxID", 0..=MAX_VLAN)?);
        match (min, max) {
            (Some(min), Some(max)) if min <= max => tagged.extend((min..=max).filter_map(|v| u16::try_from(v).ok())),
            (Some(_), Some(_)) => return Err(part.wrong("minID", "no greater than maxID")),
            (Some(_), None) => return Err(part.wrong("maxID", "given where minID is")),
            (None, Some(_)) => return Err(part.wrong("minID", "given where maxID is")),
            (None, None) if id.is_none() => return Err(part.wrong("id", "given, or minID and maxID")),
            (None, None) => {}
        }
        tagged.extend(id.and_then(|v| u16::try_from(v).ok()));
    }
    let untagged = keys.bool("preserveDefaultVlan")?.unwrap_or(true);
    match access {
        Some(_) if !trunk.is_empty() => {
            Err(keys.wrong("vlan", "0 where vlanTrunk is given: a port is one or the other"))
        }
        Some(vlan) => Ok(Vlans::Access(vlan)),
        None if trunk.is_empty() => Ok(Vlans::All),
        None => Ok(Vlans::Trunk { tagged: tagged.into_iter().filter(|v| *v > 0).collect(), untagged }),
    }
}

fn mac(keys: &Keys<'_>, runtime: &Keys<'_>, args: &Keys<'_>, cni_args: &CniArgs) -> Result<Option<[u8; 6]>, Failure> {
    for keys in [runtime, args] {
        if let Some(mac) = keys.mac("mac")? {
            return Ok(Some(mac));
        }
    }
    if let Some(text) = cni_args.get("MAC").filter(|t| !t.is_empty()) {
        let wrong = || {
            let msg = format!("CNI_ARGS has MAC={text}, wanted: {}", keys::MAC_FORM);
            Failure::new(Code::BadEnvironment, msg)
        };
        return parse_mac(text).map(Some).ok_or_else(wrong);
    }
    keys.mac("mac")
}

/// `IFNAME` in a name stands for the interface's, as with the reference plugin `tuning`.
fn sysctls(keys: &Keys<'_>, ifname: &str) -> Result<Vec<(String, String)>, Failure> {
    let sysctl = keys.inner("sysctl")?;
    let mut all = Vec::new();
    for (name, value) in sysctl.all() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(sysctl.wrong(name, "a text or a number")),
        };
        let ours = name.starts_with("net.") || name.starts_with("net/");
        if !ours || name.contains("..") || name.contains('\0') {
            return Err(sysctl.wrong(name, "a name that begins with net., for other settings are the host's"));
        }
        all.push((name.replace("IFNAME", ifname), value));
    }
    Ok(all)
}

/// The subnets that the file or the runtime name, in the form that the reference's address management has too. What is
/// wrong there is found by who manages the addresses.
fn ranges(keys: &Keys<'_>, runtime: &Keys<'_>) -> Result<Vec<Range>, Failure> {
    let ipam = keys.inner("ipam")?;
    let one = |from: &Value| {
        let text = |key: &str| from.get(key).and_then(Value::as_str);
        let subnet: IpNet = text("subnet")?.parse().ok()?;
        Some(Range { subnet: subnet.trunc(), gateway: text("gateway").and_then(|g| g.parse().ok()) })
    };
    let pools = ipam.inner("pools")?.all().map(|(_, sets)| sets).collect::<Vec<_>>();
    let sets = [runtime.get("ipRanges"), ipam.get("ranges")].into_iter().flatten().chain(pools);
    let in_sets = sets.filter_map(Value::as_array).flatten().filter_map(Value::as_array).flatten().filter_map(one);
    Ok(ipam.value().and_then(one).into_iter().chain(in_sets).collect())
}

fn prev_result(value: &Value, version: Version) -> Result<Option<AddResult>, Failure> {
    let Some(prev) = value.get("prevResult").filter(|p| !p.is_null()) else { return Ok(None) };
    let result = AddResult::read(prev, version).map_err(|e| {
        let failure = Failure::from(e);
        Failure { msg: format!("prevResult: {}", failure.msg), ..failure }
    })?;
    Ok(Some(result))
}
