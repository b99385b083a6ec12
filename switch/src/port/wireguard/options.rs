//! What a WireGuard port is to be, as configurations and the API say it.
//!
//! Options are names and values, as of every port; those of a peer begin with `peer.NAME.`, so that any number of peers
//! have their place in one flat map, and a peer keeps its name when its key changes.

use super::key::{KEY_WANTED, PublicKey, SecretKey};
use crate::port::{PortKind, SpecError};
use ipnet::IpNet;
use sluice_flows::tunnel::TunnelKind;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const KIND: PortKind = PortKind::Tunnel(TunnelKind::Wireguard);
/// The options of the port itself, then those of a peer as they are told in messages.
const OPTIONS: &[&str] = &["private_key", "private_key_file", "listen_port", "mtu"];
const PEER_OPTIONS: &[&str] =
    &["public_key", "endpoint", "allowed_ips", "preshared_key", "preshared_key_file", "persistent_keepalive"];
/// Put in the place of secrets.
pub(super) const HIDDEN: &str = "(hidden)";
/// The MTU inside unless another is asked for: what 1500 bytes outside leave, over IPv6 too.
pub const DEFAULT_MTU: u32 = 1420;
/// RFC 791: what every IPv4 link must carry.
const MIN_MTU: u32 = 68;
/// Most peers of a port.
pub const MAX_PEERS: usize = 16_384;
/// Most bytes in a peer's name.
const MAX_NAME_LEN: usize = 63;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// It was given.
    Given(SecretKey),
    /// It is in this file, which is read when the port is opened or changed.
    File(PathBuf),
}

impl KeySource {
    /// The key.
    ///
    /// # Errors
    /// The system's word about the file, or what is wrong with its content.
    pub fn load(&self) -> Result<SecretKey, (&Path, std::io::Error)> {
        match self {
            Self::Given(key) => Ok(key.clone()),
            Self::File(path) => SecretKey::read(path).map_err(|error| (path.as_path(), error)),
        }
    }
}

/// A peer as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// `public_key`: who it is.
    pub public_key: PublicKey,
    /// `endpoint`: `HOST:PORT`. Without, it has to send first; then it is where that came from.
    pub endpoint: Option<String>,
    /// `allowed_ips`: what is behind it. Packets to these go to it, and only packets from these are taken from it.
    pub allowed_ips: Vec<IpNet>,
    /// `preshared_key`, `preshared_key_file`: a secret shared with it, mixed into the handshake.
    pub preshared_key: Option<KeySource>,
    /// `persistent_keepalive`: seconds between packets that keep a NAT's mapping alive; 0 for none.
    pub persistent_keepalive: u16,
}

/// What a WireGuard port is to be.
#[derive(Clone, PartialEq, Eq)]
pub struct WireguardOptions {
    /// `private_key`, `private_key_file`: who this end is.
    pub private_key: KeySource,
    /// `listen_port`: the UDP port, 1 to 65535.
    pub listen_port: u16,
    /// `mtu`: longest packet inside, in bytes.
    pub mtu: u32,
    /// The peers, by name.
    pub peers: BTreeMap<String, PeerOptions>,
    /// What all of this was read from.
    text: BTreeMap<String, String>,
}

impl fmt::Debug for WireguardOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.options()).finish()
    }
}

impl WireguardOptions {
    /// Reads the options of a WireGuard port. An option given twice counts as given last.
    ///
    /// # Errors
    /// [`SpecError`], for the first option that is wrong; none tells a secret.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SpecError> {
        let text = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::read(text)
    }

    /// These options with some of them changed: one with an empty value goes, and `peer.NAME` with an empty value takes
    /// all of that peer with it.
    ///
    /// # Errors
    /// As [`Self::parse`], and for an option to be taken away that is not there.
    pub fn changed<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SpecError> {
        let mut text = self.text.clone();
        for (name, value) in changes {
            if !value.is_empty() {
                // A key is given or in a file: the new way takes the place of the old.
                let other = name.strip_suffix("_file").map_or_else(|| format!("{name}_file"), str::to_owned);
                if other.ends_with("_key") || other.ends_with("_key_file") {
                    text.remove(&other);
                }
                text.insert(name.to_owned(), value.to_owned());
                continue;
            }
            let before = text.len();
            let below = format!("{name}.");
            text.retain(|known, _| known != name && !known.starts_with(&below));
            if text.len() == before {
                return Err(bad(name, "is not set, so it cannot be taken away"));
            }
        }
        Self::read(text)
    }

    fn read(text: BTreeMap<String, String>) -> Result<Self, SpecError> {
        let mut port: HashMap<&str, &str> = HashMap::new();
        let mut peers: BTreeMap<&str, HashMap<&str, &str>> = BTreeMap::new();
        for (name, value) in &text {
            match name.strip_prefix("peer.").and_then(|rest| rest.rsplit_once('.')) {
                Some((peer, option)) if PEER_OPTIONS.contains(&option) => {
                    if !is_name(peer) {
                        return Err(bad(name, "a peer's name has up to 63 letters, digits, `-` and `_`"));
                    }
                    peers.entry(peer).or_default().insert(option, value);
                }
                None if OPTIONS.contains(&name.as_str()) => {
                    port.insert(name, value);
                }
                _ => return Err(SpecError::UnknownOption { kind: KIND, option: name.clone() }),
            }
        }
        if peers.len() > MAX_PEERS {
            return Err(bad("peer", "there are more peers than the 16384 that a port can have"));
        }
        let private_key = key_source(&port, "private_key", "private_key")?
            .ok_or(SpecError::Missing { kind: KIND, option: "private_key_file" })?;
        let listen_port = match port.get("listen_port") {
            Some(value) => value.parse().ok().filter(|port| *port != 0),
            None => TunnelKind::Wireguard.default_port(),
        };
        let mtu = match port.get("mtu") {
            Some(value) => value.parse().ok().filter(|mtu| (MIN_MTU..=crate::port::fit::MAX_MTU).contains(mtu)),
            None => Some(DEFAULT_MTU),
        };
        let read = Self {
            private_key,
            listen_port: listen_port.ok_or_else(|| bad("listen_port", "not a port, 1 to 65535"))?,
            mtu: mtu.ok_or_else(|| bad("mtu", "not a number of bytes, 68 to 65535"))?,
            peers: peers
                .into_iter()
                .map(|(name, options)| Ok((name.to_owned(), peer(name, &options)?)))
                .collect::<Result<_, SpecError>>()?,
            text: BTreeMap::new(),
        };
        read.check_peers()?;
        Ok(Self { text, ..read })
    }

    /// No two peers may be one, or have the same addresses behind them.
    fn check_peers(&self) -> Result<(), SpecError> {
        let (mut keys, mut nets) = (HashMap::new(), HashMap::new());
        for (name, peer) in &self.peers {
            if let Some(other) = keys.insert(peer.public_key, name) {
                return Err(bad(&format!("peer.{name}.public_key"), format!("peer {other} has this key already")));
            }
            for net in &peer.allowed_ips {
                if let Some(other) = nets.insert(net, name).filter(|other| *other != name) {
                    return Err(bad(&format!("peer.{name}.allowed_ips"), format!("peer {other} has {net} already")));
                }
            }
        }
        Ok(())
    }

    /// The options that were given, as [`Self::parse`] reads them, but for secrets: those are hidden.
    pub fn options(&self) -> Vec<(Cow<'static, str>, String)> {
        let secret = |name: &str| name.ends_with("private_key") || name.ends_with("preshared_key");
        let shown = |name: &str, value: &str| if secret(name) { HIDDEN.to_owned() } else { value.to_owned() };
        self.text.iter().map(|(name, value)| (Cow::Owned(name.clone()), shown(name, value))).collect()
    }
}

/// The options that there are, for messages.
pub(crate) fn option_names() -> Vec<&'static str> {
    OPTIONS
        .iter()
        .copied()
        .chain([
            "peer.NAME.public_key",
            "peer.NAME.endpoint",
            "peer.NAME.allowed_ips",
            "peer.NAME.preshared_key",
            "peer.NAME.preshared_key_file",
            "peer.NAME.persistent_keepalive",
        ])
        .collect()
}

fn bad(option: &str, why: impl Into<Cow<'static, str>>) -> SpecError {
    SpecError::BadOption { option: option.to_owned(), why: why.into() }
}

fn is_name(name: &str) -> bool {
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(ordinary)
}

fn peer(name: &str, options: &HashMap<&str, &str>) -> Result<PeerOptions, SpecError> {
    let full = |option: &str| format!("peer.{name}.{option}");
    let key =
        options.get("public_key").ok_or_else(|| bad(&full("public_key"), "is missing: it says who the peer is"))?;
    let endpoint = options.get("endpoint").map(|text| {
        let valid = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if valid { Ok((*text).to_owned()) } else { Err(bad(&full("endpoint"), "not HOST:PORT, or [IPv6]:PORT")) }
    });
    let mut allowed_ips = Vec::new();
    for text in options.get("allowed_ips").map_or("", |v| v).split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let net = net.ok_or_else(|| bad(&full("allowed_ips"), format!("`{text}` is no prefix like 10.0.0.0/24")))?;
        allowed_ips.push(net.trunc());
    }
    let keepalive = options.get("persistent_keepalive").map_or(Ok(0), |text| {
        text.parse().map_err(|_| bad(&full("persistent_keepalive"), "not a number of seconds, 0 to 65535"))
    })?;
    Ok(PeerOptions {
        public_key: PublicKey::parse(key).ok_or_else(|| bad(&full("public_key"), KEY_WANTED))?,
        endpoint: endpoint.transpose()?,
        allowed_ips,
        preshared_key: key_source(options, "preshared_key", &full("preshared_key"))?,
        persistent_keepalive: keepalive,
    })
}

/// A secret that is given, or in a file.
fn key_source(options: &HashMap<&str, &str>, option: &str, full: &str) -> Result<Option<KeySource>, SpecError> {
    let file = options.iter().find(|(name, _)| name.strip_suffix("_file") == Some(option)).map(|(_, path)| *path);
    match (options.get(option), file) {
        (None, None) => Ok(None),
        (Some(key), None) => {
            SecretKey::parse(key).map(|key| Some(KeySource::Given(key))).ok_or_else(|| bad(full, KEY_WANTED))
        }
        (None, Some(path)) if !path.is_empty() => Ok(Some(KeySource::File(path.into()))),
        (None, Some(_)) => Err(bad(&format!("{full}_file"), "not a file's path")),
        (Some(_), Some(_)) => Err(bad(full, format!("is given, and {full}_file too; keep one of them"))),
    }
}

#[cfg(test)]
mod tests;
