//! What became of a packet. Every packet ends in exactly one [`Verdict`]; every drop has one [`DropReason`].

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// Why a packet was dropped: a closed list, in dumps, traces, logs and metrics alike.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason's name, as every output spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One sentence for a person: what happened.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+)),+ }
            }
        }
    };
}

drop_reasons! {
    /// A rule of a network policy denies the packet.
    PolicyDeny = "policy_deny";
    /// A network policy selects the endpoint and none of its rules allows the packet.
    PolicyDefaultDeny = "policy_default_deny";
    /// The actions of the rule that matched last output nothing.
    RuleDrop = "rule_drop";
    /// No rule matched in a table that the packet reached.
    NoRule = "no_rule";
    /// The source address does not belong to the port that the packet came in by.
    SpoofGuard = "spoof_guard";
    /// The ingress port does not carry the packet's VLAN.
    VlanFilter = "vlan_filter";
    /// The output port is administratively down or has lost its device.
    PortDown = "port_down";
    /// The output port does not exist, or no port is left to send to.
    NoPort = "no_port";
    /// Connection tracking found the packet invalid and a rule drops such packets, or it is a fragment whose datagram
    /// never became whole.
    CtInvalid = "ct_invalid";
    /// The connection table or a zone's share of it is full, or nothing is left to translate the connection to.
    CtFull = "ct_full";
    /// The Service has no endpoint to send to.
    ServiceNoEndpoint = "service_no_endpoint";
    /// The TTL or hop limit reached zero.
    TtlExpired = "ttl_expired";
    /// The frame is larger than the output port can send and may not be cut.
    MtuExceeded = "mtu_exceeded";
    /// No route leads to the destination.
    NoRoute = "no_route";
    /// The next hop does not answer address resolution.
    NoNeighbor = "no_neighbor";
    /// The tunnel is down or its remote end is unknown.
    TunnelDown = "tunnel_down";
    /// A meter's rate was exceeded.
    Meter = "meter";
    /// The output port's queue was full.
    QueueFull = "queue_full";
    /// The packet would go round in circles: a bound on resubmits or patch ports was reached.
    Loop = "loop";
    /// The frame is shorter than an Ethernet header or longer than a port can carry.
    ParseError = "parse_error";
    /// A checksum was wrong where it had to be right.
    Checksum = "checksum";
    /// The link's configured loss took the packet.
    LinkLoss = "link_loss";
    /// The link is configured down.
    LinkDown = "link_down";
    /// The switch had no room to take the packet.
    Overload = "overload";
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It left by at least one port, or was handed to the controller.
    Forward,
    /// It went nowhere, for this reason.
    Drop(DropReason),
}

impl Verdict {
    /// Why the packet went nowhere, if it did.
    pub const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::Forward => None,
            Self::Drop(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward => f.write_str("forward"),
            Self::Drop(reason) => write!(f, "drop ({reason})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_name(reason.name()), Some(*reason));
        }
        assert_eq!(DropReason::from_name("bad luck"), None);
    }
}
