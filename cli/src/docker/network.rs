//! A network: what Docker asks for and what was typed with `-o`, read into a record, and what the switch is told of it.

use super::error::DriverError;
use super::wire::{CreateNetwork, GENERIC, INTERNAL, IpamData, Options};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_proto::v1::{Guard, NetworkSpec, PortSpec, PortVlan, port_vlan::Mode};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the switch's lists call networks of this driver.
pub(crate) const KIND: &str = "docker";
/// What their names there begin with.
const NAME_PREFIX: &str = "docker-";
/// What the names of bridges of their own begin with.
const BRIDGE_PREFIX: &str = "sl-";
/// What the names of their tunnel ports begin with.
const TUNNEL_PREFIX: &str = "sv";
/// Characters of an ID that names are made of, as in Docker's own lists.
const SHORT: usize = 12;
/// Characters of an ID in the name of a tunnel port.
const SHORTER: usize = 8;
/// Other hosts that a network may have tunnels to.
const MAX_REMOTES: usize = 255;
/// VXLAN's UDP port (RFC 7348, section 4).
const VXLAN_PORT: u16 = 4789;

/// The options, and what each takes. The second name, where there is one, is that of Docker's own bridge driver.
pub(crate) const OPTIONS: &[(&str, Option<&str>, &str)] = &[
    ("bridge", None, "a bridge of the switch"),
    ("gateway", None, "host, external or none"),
    ("guard", None, "full, mac or none"),
    ("ipmasq", Some("com.docker.network.bridge.enable_ip_masquerade"), "true or false"),
    ("isolated", None, "true or false"),
    ("mtu", Some("com.docker.network.driver.mtu"), "68 to 65535"),
    ("vlan", None, "1 to 4094"),
    ("vxlan.port", None, "1 to 65535"),
    ("vxlan.remotes", None, "addresses of other hosts, with commas between"),
    ("vxlan.vni", None, "0 to 16777215"),
];

/// Where a network's gateway address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GatewayPlace {
    /// On the host's interface on the bridge.
    #[default]
    Host,
    /// On a router that is on the network; the host is not.
    External,
    /// Nowhere: containers get no default route.
    None,
}

/// What a frame that a container sends is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GuardKind {
    /// MAC and IP addresses.
    #[default]
    Full,
    /// The MAC address.
    Mac,
    /// Nothing.
    None,
}

/// Tunnels to the same network on other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vxlan {
    /// The network's number on the wire, 24 bits.
    pub(crate) vni: u32,
    /// The other hosts.
    pub(crate) remotes: Vec<IpAddr>,
    /// UDP port of all of them.
    pub(crate) port: u16,
}

/// A network as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Docker's ID.
    pub(crate) id: String,
    /// The bridge that was given; none for one of its own.
    pub(crate) bridge: Option<String>,
    /// Its networks.
    pub(crate) subnets: Vec<IpNet>,
    /// Docker's gateway addresses.
    pub(crate) gateways: Vec<IpNet>,
    /// Where those are.
    pub(crate) gateway: GatewayPlace,
    /// Whether it reaches nothing outside.
    pub(crate) internal: bool,
    /// Whether its addresses are hidden behind the host's.
    pub(crate) masquerade: bool,
    /// The VLAN.
    pub(crate) vlan: Option<u16>,
    /// Longest network-layer packet; the bridge's if none.
    pub(crate) mtu: Option<u32>,
    /// Whether its containers reach each other not.
    pub(crate) isolated: bool,
    /// What frames are compared with.
    pub(crate) guard: GuardKind,
    /// Tunnels.
    pub(crate) vxlan: Option<Vxlan>,
}

/// The first characters of an ID, as in Docker's lists.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// What the switch calls the network of this ID.
pub(crate) fn name_of(id: &str) -> String {
    format!("{NAME_PREFIX}{}", short(id))
}

/// Whether the switch's port of this name is a tunnel of some network of this driver.
pub(crate) fn is_tunnel(port: &str) -> bool {
    let rest = port.strip_prefix(TUNNEL_PREFIX).and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(id, n)| {
        id.len() == SHORTER
            && id.bytes().all(|b| b.is_ascii_hexdigit())
            && !n.is_empty()
            && n.bytes().all(|b| b.is_ascii_digit())
    })
}

impl Network {
    /// Reads what Docker asks for.
    ///
    /// # Errors
    /// An option that there is not, or a value that it cannot have.
    pub(crate) fn of(request: &CreateNetwork) -> Result<Self, DriverError> {
        let mut network = Self {
            id: request.network_id.clone(),
            bridge: None,
            subnets: Vec::new(),
            gateways: Vec::new(),
            gateway: GatewayPlace::Host,
            internal: request.options.get(INTERNAL).is_some_and(is_true),
            masquerade: true,
            vlan: None,
            mtu: None,
            isolated: false,
            guard: GuardKind::Full,
            vxlan: None,
        };
        for IpamData { pool, gateway } in request.ipv4.iter().chain(&request.ipv6) {
            if !pool.is_empty() {
                network.subnets.push(address(pool)?.trunc());
            }
            if !gateway.is_empty() {
                network.gateways.push(address(gateway)?);
            }
        }
        network.set(&given(&request.options)?)?;
        Ok(network)
    }

    fn set(&mut self, given: &BTreeMap<&'static str, String>) -> Result<(), DriverError> {
        let get = |name: &'static str| given.get(name).map(|value| Given { name, value });
        self.bridge = get("bridge").map(Given::bridge).transpose()?;
        if let Some(given) = get("gateway") {
            self.gateway = given.one_of(&[
                ("host", GatewayPlace::Host),
                ("external", GatewayPlace::External),
                ("none", GatewayPlace::None),
            ])?;
        }
        if let Some(given) = get("guard") {
            let all = [("full", GuardKind::Full), ("mac", GuardKind::Mac), ("none", GuardKind::None)];
            self.guard = given.one_of(&all)?;
        }
        if let Some(given) = get("ipmasq") {
            self.masquerade = given.truth()?;
        }
        if let Some(given) = get("isolated") {
            self.isolated = given.truth()?;
        }
        self.mtu = get("mtu").map(|given| given.number(68, 65_535)).transpose()?;
        self.vlan = get("vlan").map(|given| given.number(1, 4094)).transpose()?;
        self.vxlan = vxlan(get("vxlan.vni"), get("vxlan.remotes"), get("vxlan.port"))?;
        if self.vxlan.is_some() && self.isolated {
            let problem = "containers that are isolated have no tunnels; leave one of the two out".to_owned();
            return Err(DriverError::Option { name: "isolated", value: "true".into(), problem });
        }
        Ok(())
    }

    /// What the switch calls it.
    pub(crate) fn name(&self) -> String {
        name_of(&self.id)
    }

    /// Its bridge.
    pub(crate) fn bridge_name(&self) -> String {
        self.bridge.clone().unwrap_or_else(|| format!("{BRIDGE_PREFIX}{}", short(&self.id)))
    }

    /// What the switch is told of it.
    pub(crate) fn spec(&self) -> NetworkSpec {
        let on_host = self.gateway == GatewayPlace::Host;
        let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
        NetworkSpec {
            name: self.name(),
            bridge: self.bridge_name(),
            make_bridge: self.bridge.is_none(),
            gateway: if on_host { texts(&self.gateways) } else { Vec::new() },
            vlan: self.vlan.unwrap_or(0).into(),
            masquerade: if on_host && self.masquerade && !self.internal { texts(&self.subnets) } else { Vec::new() },
            masquerade_except: Vec::new(),
            mtu_bytes: self.mtu.unwrap_or(0),
            keep: true,
            internal: self.internal,
            kind: KIND.to_owned(),
            ..NetworkSpec::default()
        }
    }

    /// The default router of a container with this address; `None` if it has none.
    pub(crate) fn router_of(&self, own: IpNet) -> Option<IpAddr> {
        if self.internal || self.gateway == GatewayPlace::None {
            return None;
        }
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == own.addr().is_ipv4();
        let mut all = self.gateways.iter().filter(same_family);
        all.clone().find(|net| net.contains(&own.addr())).or_else(|| all.next()).map(IpNet::addr)
    }

    /// Which VLANs its containers carry: one, without a tag.
    pub(crate) fn port_vlan(&self) -> PortVlan {
        PortVlan { mode: Mode::Access.into(), tag: self.vlan.unwrap_or(0).into(), trunks: Vec::new() }
    }

    /// What frames are compared with, as the switch is told.
    pub(crate) fn guard(&self) -> Guard {
        match self.guard {
            GuardKind::Full => Guard::Full,
            GuardKind::Mac => Guard::Mac,
            GuardKind::None => Guard::None,
        }
    }

    /// Its tunnel ports, one for each other host.
    pub(crate) fn tunnels(&self) -> Vec<PortSpec> {
        let Some(vxlan) = &self.vxlan else { return Vec::new() };
        let id = self.id.get(..SHORTER).unwrap_or(&self.id);
        let port = |(n, remote): (usize, &IpAddr)| PortSpec {
            bridge: self.bridge_name(),
            name: format!("{TUNNEL_PREFIX}{id}-{n}"),
            r#type: "vxlan".to_owned(),
            options: [
                ("remote_ip", remote.to_string()),
                ("key", vxlan.vni.to_string()),
                ("dst_port", vxlan.port.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            vlan: Some(self.port_vlan()),
            // Every host has a tunnel to every other one: what came by one has been everywhere.
            protected: true,
            ..PortSpec::default()
        };
        vxlan.remotes.iter().enumerate().map(port).collect()
    }
}

/// An option that was given.
struct Given<'a> {
    name: &'static str,
    value: &'a String,
}

impl Given<'_> {
    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, DriverError> {
        Err(DriverError::Option { name: self.name, value: self.value.clone(), problem: problem.into() })
    }

    fn one_of<T: Copy>(&self, all: &[(&str, T)]) -> Result<T, DriverError> {
        match all.iter().find(|(name, _)| name == self.value) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
                self.wrong(format!("it is one of {}", names.join(", ")))
            }
        }
    }

    fn truth(&self) -> Result<bool, DriverError> {
        match self.value.as_str() {
            // What `-o isolated` alone sends.
            "" => Ok(true),
            "1" => Ok(true),
            "0" => Ok(false),
            _ => self.one_of(&[("true", true), ("false", false)]),
        }
    }

    fn number<T: TryFrom<u32>>(&self, first: u32, last: u32) -> Result<T, DriverError> {
        let number = self.value.parse::<u32>().ok().filter(|n| (first..=last).contains(n));
        match number.and_then(|n| T::try_from(n).ok()) {
            Some(number) => Ok(number),
            None => self.wrong(format!("it is a number from {first} to {last}")),
        }
    }

    fn bridge(self) -> Result<String, DriverError> {
        let good =
            (1..=15).contains(&self.value.len()) && self.value.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if good { Ok(self.value.clone()) } else { self.wrong("a bridge's name has 1 to 15 characters") }
    }
}

fn vxlan(
    vni: Option<Given<'_>>,
    remotes: Option<Given<'_>>,
    port: Option<Given<'_>>,
) -> Result<Option<Vxlan>, DriverError> {
    let (vni, remotes) = match (vni, remotes, &port) {
        (Some(vni), Some(remotes), _) => (vni, remotes),
        (None, None, None) => return Ok(None),
        (Some(given), None, _) => return given.wrong("-o vxlan.remotes=ADDRESS,... belongs to it"),
        (None, Some(given), _) => return given.wrong("-o vxlan.vni=NUMBER belongs to it"),
        (None, None, Some(given)) => return given.wrong("-o vxlan.vni and -o vxlan.remotes belong to it"),
    };
    let mut all: Vec<IpAddr> = Vec::new();
    for text in remotes.value.split(',').map(str::trim) {
        match text.parse() {
            Ok(remote) if !all.contains(&remote) => all.push(remote),
            Ok(_) => return remotes.wrong(format!("{text} is there twice")),
            Err(_) => return remotes.wrong(format!("`{text}` is no address")),
        }
    }
    if all.len() > MAX_REMOTES {
        return remotes.wrong(format!("there are at most {MAX_REMOTES}"));
    }
    let port = port.map(|given| given.number(1, 65_535)).transpose()?.unwrap_or(VXLAN_PORT);
    Ok(Some(Vxlan { vni: vni.number(0, 0xff_ffff)?, remotes: all, port }))
}

/// The options that were typed, by the driver's own names.
fn given(options: &Options) -> Result<BTreeMap<&'static str, String>, DriverError> {
    let mut all = BTreeMap::new();
    for (name, value) in options.get(GENERIC).and_then(Value::as_object).into_iter().flatten() {
        let known = OPTIONS.iter().find(|(own, other, _)| own == name || *other == Some(name));
        let Some((known, ..)) = known else {
            let known: Vec<_> = OPTIONS.iter().map(|(name, ..)| *name).collect();
            return Err(DriverError::UnknownOption { name: name.clone(), known: known.join(", ") });
        };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.insert(*known, value);
    }
    Ok(all)
}

/// Options that were not typed come as booleans or as texts.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str() == Some("true"))
}

/// An address with its prefix.
pub(crate) fn address(text: &str) -> Result<IpNet, DriverError> {
    text.parse().map_err(|_| DriverError::Address(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ec60a2aca4a0ab99ecb618d236bbc5f42a62d84aa9cfe5fce7a5daab4b4ac8d2";

    fn network(generic: &str, others: &str) -> Result<Network, DriverError> {
        let text = format!(
            r#"{{"NetworkID":"{ID}","Options":{{"com.docker.network.enable_ipv6":false,{others}
            "com.docker.network.generic":{generic}}},"IPv4Data":[{{"AddressSpace":"LocalDefault",
            "Gateway":"10.9.0.1/16","Pool":"10.9.0.0/16"}}],"IPv6Data":[]}}"#
        );
        Network::of(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_network_without_options_has_a_bridge_a_gateway_and_a_masquerade_of_its_own() {
        let spec = network("{}", "").unwrap().spec();
        assert_eq!((spec.name.as_str(), spec.bridge.as_str()), ("docker-ec60a2aca4a0", "sl-ec60a2aca4a0"));
        assert!(spec.make_bridge && spec.keep && !spec.internal);
        assert_eq!((spec.gateway, spec.masquerade), (vec!["10.9.0.1/16".to_owned()], vec!["10.9.0.0/16".to_owned()]));
    }

    #[test]
    fn an_internal_network_has_a_gateway_but_no_way_out() {
        let network = network("{}", r#""com.docker.network.internal":true,"#).unwrap();
        assert!(network.spec().internal && network.spec().masquerade.is_empty());
        assert_eq!(network.router_of("10.9.0.2/16".parse().unwrap()), None);
    }

    #[test]
    fn docker_s_own_names_of_options_mean_the_same() {
        let generic = r#"{"com.docker.network.driver.mtu":"1400","vlan":"10","bridge":"br0","isolated":""}"#;
        let network = network(generic, "").unwrap();
        assert_eq!((network.mtu, network.vlan, network.isolated), (Some(1400), Some(10), true));
        assert_eq!((network.spec().bridge.as_str(), network.spec().make_bridge), ("br0", false));
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_list() {
        let error = network(r#"{"vlna":"10"}"#, "").unwrap_err().to_string();
        assert!(error.contains("`vlna`") && error.contains("vlan, vxlan.port"), "{error}");
    }

    #[test]
    fn values_that_an_option_cannot_have_are_refused_with_those_it_can() {
        for (generic, said) in [
            (r#"{"vlan":"4095"}"#, "1 to 4094"),
            (r#"{"mtu":"x"}"#, "68 to 65535"),
            (r#"{"guard":"some"}"#, "full, mac, none"),
            (r#"{"ipmasq":"maybe"}"#, "true, false"),
            (r#"{"bridge":""}"#, "1 to 15"),
            (r#"{"vxlan.vni":"7"}"#, "vxlan.remotes"),
            (r#"{"vxlan.vni":"7","vxlan.remotes":"192.0.2.2,x"}"#, "`x`"),
            (r#"{"vxlan.vni":"7","vxlan.remotes":"192.0.2.2,192.0.2.2"}"#, "twice"),
            (r#"{"vxlan.vni":"16777216","vxlan.remotes":"192.0.2.2"}"#, "16777215"),
        ] {
            let error = network(generic, "").unwrap_err().to_string();
            assert!(error.contains(said), "{generic}: {error}");
        }
    }

    #[test]
    fn a_network_over_vxlan_has_a_tunnel_port_for_each_other_host() {
        let network = network(r#"{"vxlan.vni":"100","vxlan.remotes":"192.0.2.2, 192.0.2.3"}"#, "").unwrap();
        let names: Vec<_> = network.tunnels().into_iter().map(|port| port.name).collect();
        assert_eq!(names, ["svec60a2ac-0", "svec60a2ac-1"]);
        assert!(names.iter().all(|name| is_tunnel(name)));
        assert!(!is_tunnel("sv1") && !is_tunnel("svec60a2ac-x"));
    }

    #[test]
    fn the_router_is_that_of_the_container_s_own_network() {
        let mut network = network("{}", "").unwrap();
        network.gateways.push("10.8.0.1/24".parse().unwrap());
        network.gateways.push("fd09::1/64".parse().unwrap());
        let router = |own: &str| network.router_of(own.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(router("10.8.0.7/24").as_deref(), Some("10.8.0.1"));
        assert_eq!(router("10.9.0.7/16").as_deref(), Some("10.9.0.1"));
        assert_eq!(router("fd09::7/64").as_deref(), Some("fd09::1"));
    }
}
