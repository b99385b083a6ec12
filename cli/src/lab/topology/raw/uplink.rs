//! The entry `uplink`.

use super::super::Problem;
use super::super::resolved::INTERFACE_NAME_MAX;
use super::super::yaml::Node;
use super::Spot;
use super::value::{Fields, nearest};

/// What the entry `uplink` says.
#[derive(Clone, Debug)]
pub(in super::super) struct RawUplink {
    pub(in super::super) switch: Spot<String>,
    pub(in super::super) vlan: Option<Spot<String>>,
    pub(in super::super) outside: RawOutside,
}

/// How the lab meets the machine's network.
#[derive(Clone, Debug)]
pub(in super::super) enum RawOutside {
    /// Behind the machine's own addresses.
    Nat,
    /// In the network of this interface.
    Device(String),
}

pub(super) fn uplink(node: &Node, problems: &mut Vec<Problem>) -> Option<RawUplink> {
    let fields = Fields::of(node, "the uplink", &["switch", "vlan", "mode", "dev"], &[], problems);
    let switch = fields.name("switch", "a node", problems);
    if fields.get("switch").is_none() {
        problems.push(Problem::new(node.line, "the uplink needs `switch:`, the switch that it is a port of"));
    }
    let vlan = fields.name("vlan", "a VLAN", problems);
    let mode = fields.text("mode", problems);
    if let Some(mode) = mode.as_ref().filter(|mode| mode.value != "nat") {
        let near = nearest(&mode.value, ["nat"].into_iter());
        problems.push(Problem::new(mode.line, format!("mode: there is no `{}`{near}", mode.value)));
    }
    let device = fields.parsed("dev", "the name of an interface of the machine, like eth0", problems, |name| {
        let is_name = (1..=INTERFACE_NAME_MAX).contains(&name.len()) && !name.contains(['/', ' ', '\0']);
        is_name.then(|| name.to_owned())
    });
    let outside = match (mode, device, fields.get("dev")) {
        (Some(mode), _, Some(_)) => {
            let message = "mode: with `dev:` the lab is in that interface's network, and nothing is translated";
            problems.push(Problem::new(mode.line, message));
            return None;
        }
        (_, Some(device), _) => RawOutside::Device(device.value),
        (_, None, Some(_)) => return None,
        (Some(_), None, None) => RawOutside::Nat,
        (None, None, None) => {
            problems.push(Problem::new(node.line, "the uplink needs `mode: nat`, or `dev:` and an interface's name"));
            return None;
        }
    };
    Some(RawUplink { switch: switch?, vlan, outside })
}
