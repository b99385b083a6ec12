//! What a tunnel port is to be, as configurations and the API say it. Names and meanings are Open vSwitch's.

use crate::port::{PortKind, SpecError};
use sluice_flows::tunnel::{Byte, Part, Tunnel, TunnelKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every option that some kind of tunnel port has.
const OPTIONS: &[&str] = &[
    "remote_ip",
    "local_ip",
    "key",
    "in_key",
    "out_key",
    "tos",
    "ttl",
    "df_default",
    "csum",
    "dst_port",
    "gbp",
    "layer3",
];
/// The TTL of outer headers unless another is asked for, as in OVS.
const DEFAULT_TTL: u8 = 64;

/// What a tunnel port is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelOptions {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// `remote_ip`: the other end; the one that flows say if `flow`.
    pub remote: Part<IpAddr>,
    /// `local_ip`: this end; unspecified leaves the choice to the host's routes, and takes what comes for any address.
    pub local: Part<IpAddr>,
    /// `in_key`: the key of packets that are taken; `None` takes those without one, and `flow` any.
    pub in_key: Part<Option<u64>>,
    /// `out_key`: the key of packets that are sent.
    pub out_key: Part<Option<u64>>,
    /// `tos`: of the outer header.
    pub tos: Byte,
    /// `ttl`: of the outer header.
    pub ttl: Byte,
    /// `df_default`: the outer IPv4 header says "do not fragment", and what is too long for the path is answered with an
    /// ICMP error. If not, the host fragments it.
    pub df: bool,
    /// `csum`: outer UDP checksums over IPv4, and GRE checksums; `None` leaves it to the kind: UDP has them, since
    /// without them a super-frame cannot go out in one piece, and GRE has none.
    pub csum: Option<bool>,
    /// `dst_port`: the UDP port, of both ends; `None` for what is not in UDP.
    pub port: Option<u16>,
    /// `gbp`: VXLAN has the group-based policy extension.
    pub gbp: bool,
    /// `layer3`: GRE carries IP packets instead of Ethernet frames.
    pub layer3: bool,
}

impl TunnelOptions {
    /// A tunnel to `remote` with no key and all else at its default.
    pub fn new(kind: TunnelKind, remote: Part<IpAddr>) -> Self {
        let unspecified = match remote {
            Part::Fixed(IpAddr::V6(_)) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        Self {
            kind,
            remote,
            local: Part::Fixed(unspecified),
            in_key: Part::Fixed(None),
            out_key: Part::Fixed(None),
            tos: Byte::Fixed(0),
            ttl: Byte::Fixed(DEFAULT_TTL),
            df: true,
            csum: None,
            port: kind.default_port(),
            gbp: false,
            layer3: kind.is_layer3(),
        }
    }

    /// Reads the options of a tunnel port of this kind. An option given twice counts as given last.
    ///
    /// # Errors
    /// [`SpecError`], for the first option that is wrong.
    pub fn parse<'a>(
        kind: TunnelKind,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SpecError> {
        let mut read = Self::new(kind, Part::Flow);
        let mut has_remote = false;
        for (name, value) in options {
            let Some(option) = option_names(kind).into_iter().find(|known| *known == name) else {
                return Err(SpecError::UnknownOption { kind: PortKind::Tunnel(kind), option: name.to_owned() });
            };
            let bad = |wanted| SpecError::BadValue { option, value: value.to_owned(), wanted };
            let flag = || value.parse().map_err(|_| bad("true or false"));
            match option {
                "remote_ip" => {
                    read.remote = address(value).ok_or_else(|| bad("an address, or `flow`"))?;
                    has_remote = true;
                }
                "local_ip" => read.local = address(value).ok_or_else(|| bad("an address, or `flow`"))?,
                "key" => {
                    let key = key(kind, value).ok_or_else(|| bad(key_range(kind)))?;
                    (read.in_key, read.out_key) = (key, key);
                }
                "in_key" => read.in_key = key(kind, value).ok_or_else(|| bad(key_range(kind)))?,
                "out_key" => read.out_key = key(kind, value).ok_or_else(|| bad(key_range(kind)))?,
                "tos" => read.tos = byte(value, 0xfc).ok_or_else(|| bad("a multiple of 4, `inherit` or `flow`"))?,
                "ttl" => read.ttl = byte(value, 0xff).ok_or_else(|| bad("0 to 255, `inherit` or `flow`"))?,
                "df_default" => read.df = flag()?,
                "csum" => read.csum = Some(flag()?),
                "dst_port" => {
                    let port = value.parse().ok().filter(|port| *port != 0);
                    read.port = Some(port.ok_or_else(|| bad("a port, 1 to 65535"))?);
                }
                "gbp" => read.gbp = flag()?,
                _ => read.layer3 = flag()?,
            }
        }
        if !has_remote {
            return Err(SpecError::Missing { kind: PortKind::Tunnel(kind), option: "remote_ip" });
        }
        read.settle()
    }

    /// Both ends must be of one family, and no group of hosts.
    fn settle(mut self) -> Result<Self, SpecError> {
        let bad = |option, value: IpAddr, wanted| Err(SpecError::BadValue { option, value: value.to_string(), wanted });
        if let Part::Fixed(remote) = self.remote {
            if remote.is_unspecified() || remote.is_multicast() {
                return bad("remote_ip", remote, "the address of one host");
            }
            match self.local {
                Part::Fixed(local) if local.is_unspecified() => {
                    self.local = Self::new(self.kind, self.remote).local;
                }
                Part::Fixed(local) if local.is_ipv4() != remote.is_ipv4() => {
                    return bad("local_ip", local, "of the same family as remote_ip");
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// The options that differ from their defaults, as [`Self::parse`] reads them.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let default = Self::new(self.kind, self.remote);
        let mut out = Vec::new();
        let mut put = |name, value: String, differs: bool| out.extend(differs.then_some((name, value)));
        put("remote_ip", show_address(self.remote), true);
        put("local_ip", show_address(self.local), self.local != default.local);
        if self.in_key == self.out_key {
            put("key", show_key(self.in_key), self.in_key != default.in_key);
        } else {
            put("in_key", show_key(self.in_key), self.in_key != default.in_key);
            put("out_key", show_key(self.out_key), self.out_key != default.out_key);
        }
        put("tos", show_byte(self.tos), self.tos != default.tos);
        put("ttl", show_byte(self.ttl), self.ttl != default.ttl);
        put("df_default", self.df.to_string(), self.df != default.df);
        put("csum", self.csum.unwrap_or_default().to_string(), self.csum.is_some());
        put("dst_port", self.port.unwrap_or_default().to_string(), self.port != default.port);
        put("gbp", self.gbp.to_string(), self.gbp);
        put("layer3", self.layer3.to_string(), self.layer3 != default.layer3);
        out
    }

    /// What translation has to know.
    pub fn tunnel(&self) -> Tunnel {
        Tunnel {
            kind: self.kind,
            layer3: self.layer3,
            remote: self.remote,
            local: self.local,
            out_key: self.out_key,
            tos: self.tos,
            ttl: self.ttl,
        }
    }
}

/// The options that a kind of tunnel port has.
pub(crate) fn option_names(kind: TunnelKind) -> Vec<&'static str> {
    let has = |option: &&str| match *option {
        "key" | "in_key" | "out_key" => kind.has_key(),
        "dst_port" => kind.default_port().is_some(),
        "csum" => kind.default_port().is_some() || kind == TunnelKind::Gre,
        "gbp" => kind == TunnelKind::Vxlan,
        "layer3" => kind == TunnelKind::Gre,
        _ => true,
    };
    OPTIONS.iter().copied().filter(has).collect()
}

fn address(text: &str) -> Option<Part<IpAddr>> {
    if text == "flow" { Some(Part::Flow) } else { text.parse().ok().map(Part::Fixed) }
}

fn key(kind: TunnelKind, text: &str) -> Option<Part<Option<u64>>> {
    if text == "flow" {
        return Some(Part::Flow);
    }
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => text.parse().ok()?,
    };
    let bits = if kind == TunnelKind::Gre { 32 } else { 24 };
    (number >> bits == 0).then_some(Part::Fixed(Some(number)))
}

const fn key_range(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Gre => "a key, 0 to 4294967295, or `flow`",
        _ => "a VNI, 0 to 16777215, or `flow`",
    }
}

fn byte(text: &str, allowed: u8) -> Option<Byte> {
    match text {
        "inherit" => Some(Byte::Inherit),
        "flow" => Some(Byte::Flow),
        number => number.parse().ok().filter(|n| n & !allowed == 0).map(Byte::Fixed),
    }
}

fn show_address(part: Part<IpAddr>) -> String {
    match part {
        Part::Fixed(address) => address.to_string(),
        Part::Flow => "flow".to_owned(),
    }
}

fn show_key(part: Part<Option<u64>>) -> String {
    match part {
        Part::Fixed(key) => key.unwrap_or_default().to_string(),
        Part::Flow => "flow".to_owned(),
    }
}

fn show_byte(byte: Byte) -> String {
    match byte {
        Byte::Fixed(value) => value.to_string(),
        Byte::Inherit => "inherit".to_owned(),
        Byte::Flow => "flow".to_owned(),
    }
}
