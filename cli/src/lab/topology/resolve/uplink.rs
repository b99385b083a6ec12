//! The uplink: its switch and its VLAN.

use super::super::Problem;
use super::super::raw::{Raw, RawOutside};
use super::super::resolved::Mac;
use super::super::resolved::uplink::{Outside, Uplink};
use super::links::Numbering;
use super::nodes::Nodes;
use super::tunnels::check_end;
use super::{MTU, vlans};

/// Resolves the uplink but for its MAC address and its addresses.
pub(super) fn resolve(
    raw: &Raw,
    nodes: &Nodes,
    numbering: &mut Numbering<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Uplink> {
    let uplink = raw.uplink.as_ref()?;
    let before = problems.len();
    check_end("switch", "the uplink is a port of a switch", &uplink.switch, nodes, problems);
    let vlan = uplink.vlan.as_ref().and_then(|name| vlans::known(raw, "vlan", name, problems));
    if problems.len() > before {
        return None;
    }
    let outside = match &uplink.outside {
        RawOutside::Nat => Outside::Nat { mac: Mac([0; 6]), addresses: Vec::new() },
        RawOutside::Device(name) => Outside::Device(name.clone()),
    };
    let (switch, mtu) = (uplink.switch.value.clone(), raw.mtu.unwrap_or(MTU));
    Some(Uplink { port: numbering.port(&switch), switch, vlan, mtu, outside })
}
