//! The configuration of the node role: a file of TOML, read once at the start.
//!
//! Every key has a default, so an empty file is good. A value that cannot be done is an error that says key, value, what is
//! allowed and the file. A key that is not known is a warning: a file for a newer version still starts an older one, which has
//! to be possible in the middle of a rolling update.

mod keys;

use ipnet::IpNet;
use keys::Keys;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the configuration is unless said otherwise.
pub const DEFAULT_FILE: &str = "/etc/sluice/node.toml";
/// The variable with the name of the node, which the DaemonSet sets from `spec.nodeName`.
pub const NODE_NAME: &str = "NODE_NAME";
/// The variable with the namespace of Sluice's own objects.
pub const NAMESPACE: &str = "POD_NAMESPACE";
/// That namespace where nothing else is said.
pub const DEFAULT_NAMESPACE: &str = "sluice-system";

/// Smallest MTU that is taken: what IPv6 asks of a link (RFC 8200, section 5).
const MTU_MIN: i64 = 1280;
/// Largest MTU that is taken.
const MTU_MAX: i64 = 65_000;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {what}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and what.
        what: String,
    },
    /// A value that cannot be done.
    #[error("{key} = {value} in {}: {allowed}", .file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value as the file has it.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// How what Pods send to other nodes' Pods gets there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Always in a tunnel.
    #[default]
    Encap,
    /// As it is: the network between the nodes has routes to the Pods' networks, or the nodes are in one subnet.
    NoEncap,
    /// As it is to nodes in the same subnet, in a tunnel to the others.
    Hybrid,
}

/// What the tunnel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tunnel {
    /// RFC 8926.
    #[default]
    Geneve,
    /// RFC 7348.
    Vxlan,
}

/// Which of the node's addresses answer to node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All.
    #[default]
    All,
    /// Those that the Node has as its InternalIP.
    Primary,
    /// Those in these networks; of a family that none of them is of, all.
    Networks(Vec<IpNet>),
}

impl Tunnel {
    /// The UDP port that it has been given by IANA.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Geneve => 6081,
            Self::Vxlan => 4789,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encap => "encap",
            Self::NoEncap => "no-encap",
            Self::Hybrid => "hybrid",
        })
    }
}

impl fmt::Display for Tunnel {
    /// The type of the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Geneve => "geneve",
            Self::Vxlan => "vxlan",
        })
    }
}

/// Where a node's policies come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicySource {
    /// From the cluster role where there is one; else, and while it has nothing to say, from the node's own look at the cluster.
    #[default]
    Auto,
    /// From the node's own look at the cluster.
    Node,
    /// From the cluster role.
    Cluster,
}

impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Node => "node",
            Self::Cluster => "cluster",
        })
    }
}

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `node_name`: the name of the node; else [`NODE_NAME`] of the environment, else the host's name.
    pub node_name: Option<String>,
    /// `bridge`: the bridge of Pods, made if it is not there.
    pub bridge: String,
    /// `socket`: where the switch is.
    pub socket: PathBuf,
    /// `state`: the folder of the copy of the cluster's objects and of the round number.
    pub state: PathBuf,
    /// `api_servers`: URLs of the API server, tried in turn before what the environment says.
    pub api_servers: Vec<String>,
    /// `mode`.
    pub mode: Mode,
    /// `tunnel`.
    pub tunnel: Tunnel,
    /// `tunnel_port`: its UDP port.
    pub tunnel_port: u16,
    /// `no_snat`: whether Pods are seen outside with their own addresses.
    pub no_snat: bool,
    /// `masquerade_except`: destinations outside that see Pods' own addresses all the same.
    pub masquerade_except: Vec<IpNet>,
    /// `mtu`: of Pods' interfaces, in bytes; none for that of the transport interface less the tunnel's headers.
    pub mtu: Option<u16>,
    /// `transport_interface`: the interface whose address other nodes are reached from; else the one with the node's address.
    pub transport_interface: Option<String>,
    /// `transport_cidrs`: networks that the nodes' transport addresses are in; any if empty.
    pub transport_cidrs: Vec<IpNet>,
    /// `service_cidrs`: networks of Services' addresses; else those that the cluster's ServiceCIDR objects say.
    pub service_cidrs: Vec<IpNet>,
    /// `node_port_addresses`.
    pub node_port_addresses: NodePortAddresses,
    /// `cni_conf_dir`: where the container runtime looks for networks.
    pub cni_conf_dir: PathBuf,
    /// `cni_bin_dir`: where it looks for plugins.
    pub cni_bin_dir: PathBuf,
    /// `policy_source`.
    pub policy_source: PolicySource,
    /// `metrics_address`: where metrics and probes are answered.
    pub metrics_address: SocketAddr,
    /// `metrics_pods`: whether each Pod's port has series of its own in the metrics.
    pub metrics_pods: bool,
    /// `log`: a level, or directives such as `info,kube=debug`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: None,
            bridge: "sluice0".to_owned(),
            socket: PathBuf::from("/run/sluice/switch.sock"),
            state: PathBuf::from("/var/lib/sluice/node"),
            api_servers: Vec::new(),
            mode: Mode::default(),
            tunnel: Tunnel::default(),
            tunnel_port: Tunnel::default().default_port(),
            no_snat: false,
            masquerade_except: Vec::new(),
            mtu: None,
            transport_interface: None,
            transport_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_port_addresses: NodePortAddresses::default(),
            cni_conf_dir: PathBuf::from("/etc/cni/net.d"),
            cni_bin_dir: PathBuf::from("/opt/cni/bin"),
            policy_source: PolicySource::default(),
            metrics_address: SocketAddr::from(([0u16; 8], 9477)),
            metrics_pods: false,
            log: "info".to_owned(),
        }
    }
}

impl Config {
    /// Reads `file`. With it come warnings, one for each key that is not known.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read or used.
    pub fn load(file: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// Reads `text`, which is that of `file`.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be used.
    pub fn parse(text: &str, file: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let mut keys = Keys::parse(text, file)?;
        let mut config = Self::default();
        config.take_places(&mut keys)?;
        config.take_transport(&mut keys)?;
        config.service_cidrs = keys.networks("service_cidrs")?.unwrap_or_default();
        config.node_port_addresses = node_port_addresses(&mut keys)?;
        let sources = [("auto", PolicySource::Auto), ("node", PolicySource::Node), ("cluster", PolicySource::Cluster)];
        config.policy_source = keys.choice("policy_source", &sources)?.unwrap_or_default();
        if let Some(address) = keys.parsed("metrics_address", "an address and a port, such as \"127.0.0.1:9477\"")? {
            config.metrics_address = address;
        }
        config.metrics_pods = keys.boolean("metrics_pods")?.unwrap_or_default();
        if let Some(log) = keys.string("log")? {
            config.log = log;
        }
        Ok((config, keys.unknown()))
    }

    fn take_places(&mut self, keys: &mut Keys) -> Result<(), ConfigError> {
        self.node_name = keys.string("node_name")?;
        if let Some(bridge) = keys.string("bridge")? {
            let good = (1..=15).contains(&bridge.len()) && !bridge.contains(|c: char| c == '/' || c.is_whitespace());
            if !good {
                return Err(keys.wrong("bridge", &format!("{bridge:?}"), "an interface's name, 1 to 15 bytes"));
            }
            self.bridge = bridge;
        }
        for (key, place) in [
            ("socket", &mut self.socket),
            ("state", &mut self.state),
            ("cni_conf_dir", &mut self.cni_conf_dir),
            ("cni_bin_dir", &mut self.cni_bin_dir),
        ] {
            if let Some(path) = keys.string(key)? {
                if !path.starts_with('/') {
                    return Err(keys.wrong(key, &format!("{path:?}"), "an absolute path"));
                }
                *place = PathBuf::from(path);
            }
        }
        self.api_servers = keys.strings("api_servers")?.unwrap_or_default();
        if let Some(bad) = self.api_servers.iter().find(|url| !url.starts_with("https://")) {
            return Err(keys.wrong("api_servers", &format!("{bad:?}"), "URLs that begin with https://"));
        }
        Ok(())
    }

    fn take_transport(&mut self, keys: &mut Keys) -> Result<(), ConfigError> {
        let modes = [("encap", Mode::Encap), ("no-encap", Mode::NoEncap), ("hybrid", Mode::Hybrid)];
        self.mode = keys.choice("mode", &modes)?.unwrap_or_default();
        let tunnels = [("geneve", Tunnel::Geneve), ("vxlan", Tunnel::Vxlan)];
        self.tunnel = keys.choice("tunnel", &tunnels)?.unwrap_or_default();
        self.tunnel_port = match keys.number("tunnel_port", 1, 65_535)? {
            Some(port) => u16::try_from(port).unwrap_or_default(),
            None => self.tunnel.default_port(),
        };
        self.no_snat = keys.boolean("no_snat")?.unwrap_or_default();
        self.masquerade_except = keys.networks("masquerade_except")?.unwrap_or_default();
        self.mtu = match keys.number("mtu", 0, MTU_MAX)? {
            None | Some(0) => None,
            Some(mtu) if mtu < MTU_MIN => {
                let allowed = format!("0 for that of the transport interface, or {MTU_MIN} to {MTU_MAX}");
                return Err(keys.wrong("mtu", &mtu.to_string(), &allowed));
            }
            Some(mtu) => u16::try_from(mtu).ok(),
        };
        self.transport_interface = keys.string("transport_interface")?;
        self.transport_cidrs = keys.networks("transport_cidrs")?.unwrap_or_default();
        Ok(())
    }
}

/// Networks, or the one word `primary`.
fn node_port_addresses(keys: &mut Keys) -> Result<NodePortAddresses, ConfigError> {
    const KEY: &str = "node_port_addresses";
    let texts = keys.strings(KEY)?.unwrap_or_default();
    if texts.is_empty() {
        return Ok(NodePortAddresses::All);
    }
    if texts == ["primary"] {
        return Ok(NodePortAddresses::Primary);
    }
    let network = |text: &String| match text.parse::<IpNet>() {
        Ok(network) => Ok(network.trunc()),
        Err(_) => {
            Err(keys.wrong(KEY, &format!("{text:?}"), "networks, such as \"192.0.2.0/24\", or \"primary\" alone"))
        }
    };
    texts.iter().map(network).collect::<Result<_, _>>().map(NodePortAddresses::Networks)
}

#[cfg(test)]
mod tests;
