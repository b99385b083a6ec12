//! Forgetting connections by ports of the host that came, went, or lead elsewhere.

use super::Key;
use crate::Datapath;
use crate::host::HostPort;
use crate::host::gateway::GatewayConfig;
use crate::host::netlink::Netlink;
use sluice_flows::field::IP_PROTO_UDP;
use sluice_flows::gateway::Service;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

/// What changed between two states of some gateways.
#[derive(Debug, Default)]
struct Changes {
    /// Services that are not there any more, with the zones of their gateways.
    gone: HashSet<(u16, IpAddr, u8, u16)>,
    /// Ports at the link that ports of the host do not lead to any more.
    left: HashSet<(IpAddr, u8, u16)>,
    /// Ports of the host that were not there before, of protocols without connections of their own.
    new: HashSet<HostPort>,
    /// Where those lead to.
    served: HashSet<(u16, IpAddr, u16)>,
}

impl Changes {
    fn of(keys: &BTreeSet<Key>, before: &BTreeMap<Key, GatewayConfig>, after: &BTreeMap<Key, GatewayConfig>) -> Self {
        let mut changes = Self::default();
        for key in keys {
            let services = |all: &BTreeMap<Key, GatewayConfig>| -> HashSet<(u16, Service)> {
                let config = all.get(key);
                config.into_iter().flat_map(|c| c.share.services.iter().map(|s| (c.zone(), *s))).collect()
            };
            let (old, new) = (services(before), services(after));
            changes.gone.extend(old.difference(&new).map(|(zone, s)| (*zone, s.address, s.protocol, s.port)));
            let begun: Vec<_> = new.difference(&old).filter(|(_, s)| s.protocol == IP_PROTO_UDP).collect();
            changes.served.extend(begun.iter().map(|(zone, s)| (*zone, s.to, s.to_port)));
            let begun: HashSet<_> = begun.iter().map(|(_, s)| (s.to.is_ipv6(), s.protocol, s.port)).collect();
            let led =
                ports(after.get(key)).filter(|(port, number, _)| begun.contains(&(port.v6, port.protocol, *number)));
            changes.new.extend(led.map(|(port, ..)| port));
            // Where somebody else's flows decide, there are no services.
            let (old, new): (HashSet<_>, HashSet<_>) =
                (ports(before.get(key)).collect(), ports(after.get(key)).collect());
            changes.left.extend(old.difference(&new).map(|(port, number, to)| (*to, port.protocol, *number)));
            let came = new.difference(&old).map(|(port, ..)| *port).filter(|port| port.protocol == IP_PROTO_UDP);
            changes.new.extend(came);
        }
        changes
    }
}

/// The ports of the host of a gateway, each with where it leads to at the link.
fn ports(config: Option<&GatewayConfig>) -> impl Iterator<Item = (HostPort, u16, IpAddr)> {
    config.into_iter().flat_map(|config| {
        let incoming = |v6: bool| config.share.incoming.iter().find(move |to| to.is_ipv6() == v6).copied();
        config.share.ports.iter().filter_map(move |(port, number)| Some((*port, *number, incoming(port.v6)?)))
    })
}

/// Forgets what the switch and the host know of connections by what changed.
pub(super) fn forget(
    datapath: &Datapath,
    keys: &BTreeSet<Key>,
    before: &BTreeMap<Key, GatewayConfig>,
    after: &BTreeMap<Key, GatewayConfig>,
) {
    let changes = Changes::of(keys, before, after);
    if !changes.gone.is_empty() || !changes.served.is_empty() {
        datapath.flush_connections_where(|conn| {
            let t = &conn.original;
            changes.gone.contains(&(t.zone, t.dst(), t.proto, t.dst_port))
                || t.proto == IP_PROTO_UDP && changes.served.contains(&(t.zone, t.src(), t.src_port))
        });
    }
    let mut gone: HashSet<_> =
        changes.gone.iter().map(|(_, address, protocol, port)| (*address, *protocol, *port)).collect();
    gone.extend(&changes.left);
    if gone.is_empty() && changes.new.is_empty() {
        return;
    }
    // Whoever sent to the port before had an answer from the host itself, or none.
    let own: HashSet<IpAddr> = Netlink::open()
        .and_then(|mut netlink| netlink.addresses())
        .map(|all| all.into_iter().map(|a| a.address.addr()).collect())
        .unwrap_or_default();
    let begun = |target: IpAddr, protocol, port| {
        let any = HostPort { v6: target.is_ipv6(), address: None, protocol, port };
        let one = HostPort { address: Some(target), ..any };
        changes.new.contains(&one) || changes.new.contains(&any) && (own.contains(&target) || target.is_loopback())
    };
    super::forget(|original, reply| {
        gone.contains(&(reply.source, reply.protocol, reply.source_port))
            || begun(original.target, original.protocol, original.target_port)
    });
}
