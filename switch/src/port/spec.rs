//! What a port is to be, as configurations and the API say it: a kind and its options by name.

use super::{
    AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, Limits, MemOptions, MemPort, NullPort, PcapOptions, PcapPort, Port,
    PortError, PortKind, Tap, TapOptions, TapPlain, TunnelOptions, TunnelPort, Wire, WireOptions, WireSettings,
    WireguardOptions, WireguardPort, XdpMode, is_limit,
};
use sluice_flows::tunnel::{Part, TunnelKind};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::path::PathBuf;
use thiserror::Error;

/// What a port is made of, opened.
pub enum PortDevice {
    /// An open device.
    Device(Box<dyn Port>),
    /// A tunnel port, which shares the socket that it receives by.
    Tunnel(Box<TunnelPort>),
    /// One end of a patch. It is up as soon as the other end is there and names this one as its peer.
    Patch {
        /// Name of the port at the other end.
        peer: String,
    },
}

impl PortDevice {
    /// What it is made of.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::Device(port) => port.kind(),
            Self::Tunnel(port) => PortKind::Tunnel(port.endpoint().kind),
            Self::Patch { .. } => PortKind::Patch,
        }
    }
}

/// What a port is to be. The number of its queues is not in it: that is the number of workers. Nor are [`Limits`] of its
/// rate, which every kind has in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// A TAP named like the port, or `dev`.
    Tap {
        /// The interface, when its name is not the port's.
        dev: Option<String>,
        /// Whether the interface exists already, is persistent, and is attached to.
        attach: bool,
        /// Hardware address.
        mac: Option<[u8; 6]>,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// A TAP without vnet header.
    TapPlain {
        /// The interface, when its name is not the port's.
        dev: Option<String>,
        /// Hardware address.
        mac: Option<[u8; 6]>,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// A packet socket on the interface named like the port, or `dev`.
    AfPacket {
        /// The interface, when its name is not the port's.
        dev: Option<String>,
        /// MTU in bytes to set on it.
        mtu: Option<u32>,
        /// Whether to send past the interface's queueing discipline.
        qdisc_bypass: bool,
    },
    /// AF_XDP sockets on the interface named like the port, or `dev`.
    AfXdp {
        /// The interface, when its name is not the port's.
        dev: Option<String>,
        /// MTU in bytes to set on it.
        mtu: Option<u32>,
        /// How frames come and go.
        mode: XdpMode,
        /// Its receive queues to take, ascending; all of them when empty.
        queues: Vec<u32>,
    },
    /// A port in memory.
    Memory {
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// Capture files.
    Pcap {
        /// File to replay.
        rx: Option<PathBuf>,
        /// File to write.
        tx: Option<PathBuf>,
        /// Whether the replay starts anew when it is through.
        repeat: bool,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// A port that discards.
    Null {
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// One end of a pair between bridges.
    Patch {
        /// The port at the other end.
        peer: String,
    },
    /// A bridge's own interface: a TAP named like the bridge.
    Local {
        /// Hardware address.
        mac: Option<[u8; 6]>,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// A tunnel to other hosts.
    Tunnel(Box<TunnelOptions>),
    /// An encrypted tunnel to other hosts.
    Wireguard(Box<WireguardOptions>),
    /// One end of a wire between bridges.
    Wire {
        /// The port at the other end.
        peer: String,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// What jitter follows from.
        seed: Option<u64>,
        /// Of what this end sends.
        settings: WireSettings,
    },
}

/// What is wrong with a kind or its options. The caller knows where they stand and says so.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// The kind has no such option.
    #[error("a port of type {kind} has no option `{option}`; it has {}", known(*.kind))]
    UnknownOption {
        /// The kind.
        kind: PortKind,
        /// The option given.
        option: String,
    },
    /// The option's value makes no sense.
    #[error("option `{option}`: `{value}` is not {wanted}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The option is for when the port is opened.
    #[error("option `{option}` cannot be changed while the port runs; {known} can")]
    Fixed {
        /// The option given.
        option: String,
        /// Those that can be changed.
        known: String,
    },
    /// The option, one of those that are named by the user, makes no sense. The value may be a secret and is not told.
    #[error("option `{option}`: {why}")]
    BadOption {
        /// The option.
        option: String,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// The kind cannot do without the option.
    #[error("a port of type {kind} needs option `{option}`")]
    Missing {
        /// The kind.
        kind: PortKind,
        /// The option.
        option: &'static str,
    },
}

impl PortSpec {
    /// Reads the options of a port of this kind. An option given twice counts as given last.
    ///
    /// # Errors
    /// [`SpecError`], for the first option that is wrong.
    pub fn parse<'a>(kind: PortKind, options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SpecError> {
        if kind == PortKind::Tunnel(TunnelKind::Wireguard) {
            return Ok(Self::Wireguard(Box::new(WireguardOptions::parse(options)?)));
        }
        if let PortKind::Tunnel(kind) = kind {
            return Ok(Self::Tunnel(Box::new(TunnelOptions::parse(kind, options)?)));
        }
        let mut read = Read::default();
        for (name, value) in options {
            let Some(name) = option_names(kind).into_iter().find(|known| *known == name) else {
                return Err(SpecError::UnknownOption { kind, option: name.to_owned() });
            };
            read.take(name, value)?;
        }
        let Read { dev, attach, mac, mtu, qdisc_bypass, mode, queues, rx, tx, repeat, peer, seed, wire } = read;
        Ok(match kind {
            PortKind::Tap => Self::Tap { dev, attach: attach.unwrap_or(false), mac, mtu },
            PortKind::TapPlain => Self::TapPlain { dev, mac, mtu },
            PortKind::AfPacket => {
                let default = AfPacketOptions::default().qdisc_bypass;
                Self::AfPacket { dev, mtu, qdisc_bypass: qdisc_bypass.unwrap_or(default) }
            }
            PortKind::AfXdp => Self::AfXdp { dev, mtu, mode: mode.unwrap_or_default(), queues },
            PortKind::Memory => Self::Memory { mtu },
            PortKind::Pcap => Self::Pcap { rx, tx, repeat: repeat.unwrap_or(false), mtu },
            PortKind::Null => Self::Null { mtu },
            PortKind::Patch => Self::Patch { peer: peer.ok_or(SpecError::Missing { kind, option: "peer" })? },
            PortKind::Local => Self::Local { mac, mtu },
            PortKind::Tunnel(kind) => Self::Tunnel(Box::new(TunnelOptions::new(kind, Part::Flow))),
            PortKind::Wire => {
                let peer = peer.ok_or(SpecError::Missing { kind, option: "peer" })?;
                wire.check()?;
                Self::Wire { peer, mtu, seed, settings: wire }
            }
        })
    }

    /// Reads the options of a port of this kind, and those of the limits of its rate.
    ///
    /// # Errors
    /// [`SpecError`], for the first option that is wrong.
    pub fn parse_with_limits<'a>(
        kind: PortKind,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, Limits), SpecError> {
        let of_limits = |(name, _): &(&str, &str)| Limits::are_for(kind) && is_limit(name);
        let (limits, own): (Vec<_>, Vec<_>) = options.into_iter().partition(of_limits);
        Ok((Self::parse(kind, own)?, Limits::default().with(limits)?))
    }

    /// The kind.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::Tap { .. } => PortKind::Tap,
            Self::TapPlain { .. } => PortKind::TapPlain,
            Self::AfPacket { .. } => PortKind::AfPacket,
            Self::AfXdp { .. } => PortKind::AfXdp,
            Self::Memory { .. } => PortKind::Memory,
            Self::Pcap { .. } => PortKind::Pcap,
            Self::Null { .. } => PortKind::Null,
            Self::Patch { .. } => PortKind::Patch,
            Self::Local { .. } => PortKind::Local,
            Self::Tunnel(options) => PortKind::Tunnel(options.kind),
            Self::Wireguard(_) => PortKind::Tunnel(TunnelKind::Wireguard),
            Self::Wire { .. } => PortKind::Wire,
        }
    }

    /// Opens the port `name` for `workers` workers, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn open(&self, name: &str, workers: usize) -> Result<PortDevice, PortError> {
        let queues = workers.max(1);
        let device: Box<dyn Port> = match self {
            Self::Tap { dev, attach, mac, mtu } => {
                let options = TapOptions { mac: *mac, mtu: *mtu, queues, ..TapOptions::default() };
                let dev = dev.as_deref().unwrap_or(name);
                Box::new(if *attach { Tap::attach(dev, &options) } else { Tap::create(dev, &options) }?)
            }
            Self::TapPlain { dev, mac, mtu } => {
                let options = TapOptions { mac: *mac, mtu: *mtu, ..TapOptions::default() };
                Box::new(TapPlain::create(dev.as_deref().unwrap_or(name), &options)?)
            }
            Self::AfPacket { dev, mtu, qdisc_bypass } => {
                let options =
                    AfPacketOptions { mtu: *mtu, queues, qdisc_bypass: *qdisc_bypass, ..AfPacketOptions::default() };
                Box::new(AfPacket::open(dev.as_deref().unwrap_or(name), &options)?)
            }
            Self::AfXdp { dev, mtu, mode, queues } => {
                let options =
                    AfXdpOptions { mtu: *mtu, mode: *mode, queues: queues.clone(), ..AfXdpOptions::default() };
                Box::new(AfXdp::open(dev.as_deref().unwrap_or(name), &options)?)
            }
            Self::Memory { mtu } => {
                let default = MemOptions::default();
                Box::new(MemPort::new(name, &MemOptions { mtu: mtu.unwrap_or(default.mtu), queues, ..default })?.0)
            }
            Self::Pcap { rx, tx, repeat, mtu } => {
                let mtu = mtu.unwrap_or(PcapOptions::default().mtu);
                let options = PcapOptions { rx: rx.clone(), tx: tx.clone(), repeat: *repeat, mtu };
                Box::new(PcapPort::open(name, &options)?)
            }
            Self::Null { mtu } => Box::new(NullPort::new(name, mtu.unwrap_or(1500))),
            Self::Patch { peer } => return Ok(PortDevice::Patch { peer: peer.clone() }),
            Self::Tunnel(options) => {
                return Ok(PortDevice::Tunnel(Box::new(TunnelPort::new(name, (**options).clone())?)));
            }
            Self::Wireguard(options) => Box::new(WireguardPort::open(name, options, queues)?),
            Self::Local { mac, mtu } => {
                let options =
                    TapOptions { mac: *mac, mtu: *mtu, queues, kind: PortKind::Local, ..TapOptions::default() };
                Box::new(Tap::create(name, &options)?)
            }
            Self::Wire { peer, mtu, seed, settings } => {
                let default = WireOptions::to(peer);
                let (mtu, seed) = (mtu.unwrap_or(default.mtu), seed.unwrap_or(default.seed));
                let settings = *settings;
                Box::new(Wire::new(name, &WireOptions { mtu, seed, settings, queues, ..default })?)
            }
        };
        Ok(PortDevice::Device(device))
    }

    /// The options that differ from their defaults, as [`Self::parse`] reads them, but for secrets, which are hidden.
    pub fn options(&self) -> Vec<(Cow<'static, str>, String)> {
        let mut out = Vec::new();
        let mut put = |name, value: Option<String>| out.extend(value.map(|value| (Cow::Borrowed(name), value)));
        let (text, flag) = (|v: &Option<String>| v.clone(), |v: bool| v.then(|| "true".to_owned()));
        let (number, path) = (
            |v: &Option<u32>| v.map(|n| n.to_string()),
            |v: &Option<PathBuf>| v.as_ref().map(|p| p.display().to_string()),
        );
        let address = |v: &Option<[u8; 6]>| v.map(|mac| Mac(mac).to_string());
        match self {
            Self::Tap { dev, attach, mac, mtu } => {
                put("dev", text(dev));
                put("attach", flag(*attach));
                put("mac", address(mac));
                put("mtu", number(mtu));
            }
            Self::TapPlain { dev, mac, mtu } => {
                put("dev", text(dev));
                put("mac", address(mac));
                put("mtu", number(mtu));
            }
            Self::AfPacket { dev, mtu, qdisc_bypass } => {
                put("dev", text(dev));
                put("mtu", number(mtu));
                let differs = *qdisc_bypass != AfPacketOptions::default().qdisc_bypass;
                put("qdisc_bypass", differs.then(|| qdisc_bypass.to_string()));
            }
            Self::AfXdp { dev, mtu, mode, queues } => {
                put("dev", text(dev));
                put("mtu", number(mtu));
                put("mode", (*mode != XdpMode::default()).then(|| mode.to_string()));
                put("queues", (!queues.is_empty()).then(|| show_queues(queues)));
            }
            Self::Memory { mtu } | Self::Null { mtu } => put("mtu", number(mtu)),
            Self::Pcap { rx, tx, repeat, mtu } => {
                put("rx", path(rx));
                put("tx", path(tx));
                put("repeat", flag(*repeat));
                put("mtu", number(mtu));
            }
            Self::Patch { peer } => put("peer", Some(peer.clone())),
            Self::Local { mac, mtu } => {
                put("mac", address(mac));
                put("mtu", number(mtu));
            }
            Self::Tunnel(options) => options.options().into_iter().for_each(|(name, value)| put(name, Some(value))),
            Self::Wireguard(options) => return options.options(),
            Self::Wire { peer, mtu, seed, settings } => {
                put("peer", Some(peer.clone()));
                put("mtu", number(mtu));
                put("seed", seed.map(|n| n.to_string()));
                let set = settings.differing(&WireSettings::default());
                set.into_iter().for_each(|(name, value)| put(name, Some(value)));
            }
        }
        out
    }
}

/// The options that a kind has.
fn option_names(kind: PortKind) -> Vec<&'static str> {
    let names: &[_] = match kind {
        PortKind::Tap => &["dev", "attach", "mac", "mtu"],
        PortKind::TapPlain => &["dev", "mac", "mtu"],
        PortKind::AfPacket => &["dev", "mtu", "qdisc_bypass"],
        PortKind::AfXdp => &["dev", "mtu", "mode", "queues"],
        PortKind::Memory | PortKind::Null => &["mtu"],
        PortKind::Pcap => &["rx", "tx", "repeat", "mtu"],
        PortKind::Patch => &["peer"],
        PortKind::Local => &["mac", "mtu"],
        PortKind::Tunnel(TunnelKind::Wireguard) => return super::wireguard::option_names(),
        PortKind::Tunnel(kind) => return super::tunnel::option_names(kind),
        PortKind::Wire => return [&["peer", "mtu", "seed"], WireSettings::NAMES].concat(),
    };
    names.to_vec()
}

fn known(kind: PortKind) -> String {
    let limits: &[_] = if Limits::are_for(kind) { &Limits::NAMES } else { &[] };
    [&option_names(kind), limits].concat().join(", ")
}

/// Options as they are read, whatever the kind.
#[derive(Default)]
struct Read {
    dev: Option<String>,
    attach: Option<bool>,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    qdisc_bypass: Option<bool>,
    mode: Option<XdpMode>,
    queues: Vec<u32>,
    rx: Option<PathBuf>,
    tx: Option<PathBuf>,
    repeat: Option<bool>,
    peer: Option<String>,
    seed: Option<u64>,
    wire: WireSettings,
}

impl Read {
    fn take(&mut self, option: &'static str, value: &str) -> Result<(), SpecError> {
        let bad = |wanted| SpecError::BadValue { option, value: value.to_owned(), wanted };
        let flag = || value.parse().map_err(|_| bad("true or false"));
        let filled = |wanted| if value.is_empty() { Err(bad(wanted)) } else { Ok(value) };
        match option {
            "dev" => self.dev = Some(filled("an interface's name")?.to_owned()),
            "attach" => self.attach = Some(flag()?),
            "mac" => self.mac = Some(Mac::parse(value).ok_or_else(|| bad("a unicast address like 02:00:00:00:00:01"))?),
            "mtu" => self.mtu = Some(value.parse().map_err(|_| bad("a number of bytes"))?),
            "qdisc_bypass" => self.qdisc_bypass = Some(flag()?),
            "mode" => {
                let wanted = "best-effort, native-with-zerocopy, native or generic";
                self.mode = Some(XdpMode::from_name(value).ok_or_else(|| bad(wanted))?);
            }
            "queues" => self.queues = parse_queues(value).ok_or_else(|| bad("queues like 0-3 or 0,2"))?,
            "rx" => self.rx = Some(filled("a file's path")?.into()),
            "tx" => self.tx = Some(filled("a file's path")?.into()),
            "repeat" => self.repeat = Some(flag()?),
            "seed" => self.seed = Some(value.parse().map_err(|_| bad("a number"))?),
            _ if WireSettings::NAMES.contains(&option) => self.wire.take(option, value)?,
            _ => self.peer = Some(filled("a port's name")?.to_owned()),
        }
        Ok(())
    }
}

/// Greatest number of a receive queue that is read.
const MAX_QUEUE: u32 = 1023;

/// Numbers and ranges of queues with commas between, like `0-3,6`, ascending and each once.
fn parse_queues(text: &str) -> Option<Vec<u32>> {
    let mut queues = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > MAX_QUEUE {
            return None;
        }
        queues.extend(first..=last);
    }
    queues.sort_unstable();
    queues.dedup();
    Some(queues)
}

/// The queues as [`parse_queues`] reads them.
fn show_queues(queues: &[u32]) -> String {
    let runs = queues.chunk_by(|a, b| a + 1 == *b);
    let show = |run: &[u32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(u32::to_string).collect(),
    };
    runs.map(show).collect::<Vec<_>>().join(",")
}

/// An Ethernet address as text.
struct Mac([u8; 6]);

impl Mac {
    /// Six pairs of hexadecimal digits with colons between; `None` for a group address or anything else.
    fn parse(text: &str) -> Option<[u8; 6]> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
    }
}

impl Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::tunnel::TunnelKind;

    fn round_trip(kind: PortKind, options: &[(&str, &str)]) {
        let spec = PortSpec::parse(kind, options.iter().copied()).unwrap();
        assert_eq!(spec.kind(), kind);
        let said = spec.options();
        assert_eq!(said.iter().map(|(k, v)| (&**k, v.as_str())).collect::<Vec<_>>(), options);
    }

    #[test]
    fn options_read_back_as_they_were_written() {
        round_trip(PortKind::Tap, &[("dev", "t0"), ("attach", "true"), ("mac", "02:00:00:0a:0b:0c"), ("mtu", "9000")]);
        round_trip(PortKind::TapPlain, &[("mac", "02:00:00:00:00:01")]);
        round_trip(PortKind::AfPacket, &[("dev", "eth0"), ("mtu", "1500"), ("qdisc_bypass", "false")]);
        round_trip(
            PortKind::AfXdp,
            &[("dev", "eth0"), ("mtu", "1500"), ("mode", "native-with-zerocopy"), ("queues", "0-2,5,7-8")],
        );
        round_trip(PortKind::Memory, &[("mtu", "1500")]);
        round_trip(PortKind::Pcap, &[("rx", "in.pcap"), ("tx", "out.pcap"), ("repeat", "true"), ("mtu", "9000")]);
        round_trip(PortKind::Null, &[]);
        round_trip(PortKind::Patch, &[("peer", "p1")]);
        round_trip(
            PortKind::Tunnel(TunnelKind::Vxlan),
            &[("remote_ip", "flow"), ("key", "flow"), ("ttl", "inherit"), ("dst_port", "8472"), ("gbp", "true")],
        );
        round_trip(
            PortKind::Tunnel(TunnelKind::Gre),
            &[("remote_ip", "2001:db8::2"), ("local_ip", "2001:db8::1"), ("in_key", "1"), ("out_key", "flow")],
        );
        round_trip(PortKind::Tunnel(TunnelKind::Ipip), &[("remote_ip", "192.0.2.2"), ("tos", "184")]);
        round_trip(PortKind::Local, &[("mac", "02:00:00:00:00:01"), ("mtu", "1400")]);
        round_trip(PortKind::Wire, &[("peer", "w1")]);
        let all = [
            ("mtu", "9000"),
            ("seed", "42"),
            ("delay", "20ms"),
            ("jitter", "3ms"),
            ("loss", "0.5%"),
            ("rate", "50mbit"),
            ("queue", "100p"),
            ("reorder", "1%"),
        ];
        round_trip(PortKind::Wire, &[&[("peer", "w1")][..], &all[..]].concat());
    }

    #[test]
    fn an_option_of_another_kind_is_refused_with_those_there_are() {
        let error = PortSpec::parse(PortKind::Tap, [("rx", "a.pcap")]).unwrap_err();
        let known = "it has dev, attach, mac, mtu, rx_rate, rx_burst, tx_rate, tx_burst";
        assert_eq!(error.to_string(), format!("a port of type tap has no option `rx`; {known}"));
    }

    #[test]
    fn a_patch_port_without_a_peer_is_refused() {
        let error = PortSpec::parse(PortKind::Patch, []).unwrap_err();
        assert_eq!(error.to_string(), "a port of type patch needs option `peer`");
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (option, value) in [
            ("mtu", "big"),
            ("mtu", "-1"),
            ("dev", ""),
            ("attach", "yes"),
            ("mac", "02:00:00:00:00"),
            ("mac", "02:00:00:00:00:01:02"),
            ("mac", "01:00:5e:00:00:01"),
            ("mac", "+2:00:00:00:00:01"),
            ("mac", "00:00:00:00:00:00"),
        ] {
            let error = PortSpec::parse(PortKind::Tap, [(option, value)]).unwrap_err();
            assert!(matches!(error, SpecError::BadValue { option: o, .. } if o == option), "{option}={value}: {error}");
        }
    }

    #[test]
    fn queues_are_read_in_any_order_and_once() {
        assert_eq!(parse_queues("3,0-1,1").unwrap(), [0, 1, 3]);
        for bad in ["", "a", "1-", "-1", "3-1", "0,,1", "0-4000000000"] {
            assert_eq!(parse_queues(bad), None, "{bad}");
        }
        assert!(PortSpec::parse(PortKind::AfXdp, [("mode", "fast")]).is_err());
    }

    #[test]
    fn a_patch_port_has_nothing_to_open() {
        let spec = PortSpec::parse(PortKind::Patch, [("peer", "p1")]).unwrap();
        assert!(matches!(spec.open("p0", 2).unwrap(), PortDevice::Patch { peer } if peer == "p1"));
    }
}
