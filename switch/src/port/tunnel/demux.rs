//! Which tunnel port a packet that arrived belongs to.
//!
//! As in Open vSwitch, the most specific port takes it: a port with a key of its own comes before one that leaves the
//! key to flows, then a fixed other end before one for all peers, then an address of ours that was named, any, or left
//! to flows. Each of these shapes is one look into a hash table, and shapes that no port has are not looked for.
//!
//! GRE packets that carry Ethernet and those that carry IP belong to different ports. No key is the same as key 0.

use super::TunnelOptions;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::DpPort;
use sluice_flows::tunnel::Part;
use std::net::IpAddr;

/// What is known of a port that takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ingress {
    /// The port.
    pub(crate) port: DpPort,
    /// VXLAN's group policy is understood.
    pub(crate) gbp: bool,
}

/// What a packet that arrived is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) remote: IpAddr,
    pub(crate) local: IpAddr,
    pub(crate) key: u64,
    /// It carries IP, without an Ethernet header.
    pub(crate) layer3: bool,
}

/// How a port says which address of ours it takes packets for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Local {
    Fixed(IpAddr),
    Any,
    Flow,
}

/// The packets that a port takes; `None` stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Match {
    key: Option<u64>,
    remote: Option<IpAddr>,
    local: Local,
    layer3: bool,
}

/// Ways to leave something open: key, remote end, and three for the local one.
const SHAPES: usize = 12;

impl Match {
    fn of(options: &TunnelOptions) -> Self {
        let key = match options.in_key {
            Part::Fixed(key) => Some(key.unwrap_or(0)),
            Part::Flow => None,
        };
        let remote = match options.remote {
            Part::Fixed(remote) => Some(remote),
            Part::Flow => None,
        };
        let local = match options.local {
            Part::Fixed(local) if local.is_unspecified() => Local::Any,
            Part::Fixed(local) => Local::Fixed(local),
            Part::Flow => Local::Flow,
        };
        Self { key, remote, local, layer3: options.layer3 }
    }

    /// The number of its shape: the lower, the more specific.
    fn shape(&self) -> usize {
        let local = match self.local {
            Local::Fixed(_) => 0,
            Local::Any => 1,
            Local::Flow => 2,
        };
        usize::from(self.key.is_none()) * 6 + usize::from(self.remote.is_none()) * 3 + local
    }

    /// What a port of this shape would have to say to take a packet.
    fn wanted(shape: usize, outer: &Outer) -> Self {
        Self {
            key: (shape < 6).then_some(outer.key),
            remote: (shape % 6 < 3).then_some(outer.remote),
            local: match shape % 3 {
                0 => Local::Fixed(outer.local),
                1 => Local::Any,
                _ => Local::Flow,
            },
            layer3: outer.layer3,
        }
    }
}

/// The ports of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    ports: HashMap<Match, (Ingress, String), RandomState>,
    /// Bit N is set when a port has shape N.
    shapes: u16,
}

impl Table {
    /// Adds the port `name`. An error names the port that takes the same packets.
    pub(crate) fn add(&mut self, name: &str, options: &TunnelOptions, port: DpPort) -> Result<(), String> {
        let wanted = Match::of(options);
        if let Some((_, other)) = self.ports.get(&wanted) {
            return Err(other.clone());
        }
        self.shapes |= 1 << wanted.shape();
        self.ports.insert(wanted, (Ingress { port, gbp: options.gbp }, name.to_owned()));
        Ok(())
    }

    /// Takes the port with these options out.
    pub(crate) fn remove(&mut self, options: &TunnelOptions) {
        self.ports.remove(&Match::of(options));
        self.shapes = self.ports.keys().fold(0, |shapes, taken| shapes | 1 << taken.shape());
    }

    /// Whether no port is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The port that a packet belongs to.
    pub(crate) fn find(&self, outer: &Outer) -> Option<Ingress> {
        (0..SHAPES)
            .filter(|shape| self.shapes & 1 << shape != 0)
            .find_map(|shape| self.ports.get(&Match::wanted(shape, outer)))
            .map(|(ingress, _)| *ingress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::tunnel::TunnelKind;

    fn table(ports: &[&[(&str, &str)]]) -> Table {
        let mut table = Table::default();
        for (n, options) in ports.iter().enumerate() {
            let options = TunnelOptions::parse(TunnelKind::Gre, options.iter().copied()).unwrap();
            table.add(&format!("p{n}"), &options, DpPort(n as u32)).unwrap();
        }
        table
    }

    fn found(table: &Table, remote: &str, local: &str, key: u64) -> Option<u32> {
        let outer = Outer { remote: remote.parse().unwrap(), local: local.parse().unwrap(), key, layer3: false };
        table.find(&outer).map(|ingress| ingress.port.0)
    }

    #[test]
    fn the_most_specific_port_takes_a_packet() {
        let flow = ("remote_ip", "flow");
        let peer = ("remote_ip", "192.0.2.1");
        let here = ("local_ip", "192.0.2.9");
        let table = table(&[
            &[flow, ("key", "flow")],
            &[peer, ("key", "flow")],
            &[flow, ("key", "7")],
            &[peer, ("key", "7")],
            &[peer, ("key", "7"), here],
            &[flow, ("key", "flow"), ("local_ip", "flow")],
        ]);
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 7), Some(4));
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.8", 7), Some(3));
        assert_eq!(found(&table, "192.0.2.2", "192.0.2.9", 7), Some(2), "a key of its own comes before a remote end");
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 8), Some(1));
        assert_eq!(found(&table, "2001:db8::1", "2001:db8::9", 8), Some(0), "any address comes before those of flows");
    }

    #[test]
    fn no_port_takes_the_packets_of_another_key_or_payload() {
        let table = table(&[&[("remote_ip", "192.0.2.1"), ("key", "7")]]);
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 7), Some(0));
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 8), None);
        assert_eq!(found(&table, "192.0.2.2", "192.0.2.9", 7), None);
        let layer3 =
            Outer { remote: "192.0.2.1".parse().unwrap(), local: "192.0.2.9".parse().unwrap(), key: 7, layer3: true };
        assert_eq!(table.find(&layer3), None);
    }

    #[test]
    fn a_port_that_takes_the_same_packets_is_refused_until_the_first_has_gone() {
        let mut table = table(&[&[("remote_ip", "192.0.2.1")]]);
        let same = TunnelOptions::parse(TunnelKind::Gre, [("remote_ip", "192.0.2.1"), ("key", "0")]).unwrap();
        assert_eq!(table.add("p1", &same, DpPort(1)), Err("p0".to_owned()));
        table.remove(&same);
        assert!(table.is_empty());
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 0), None);
        table.add("p1", &same, DpPort(1)).unwrap();
        assert_eq!(found(&table, "192.0.2.1", "192.0.2.9", 0), Some(1));
    }
}
