//! What connection tracking asks of a packet.

use super::{State, describe};
use crate::action::{Action, Ct, CtAlg, CtZone, Nat};
use crate::consistency::ConsistencyError;
use crate::consistency::order::{Place, verify};
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, IP_PROTO_TCP, IP_PROTO_UDP, Prereq};
use crate::key::{CT_INV, slot};
use std::net::IpAddr;

impl State<'_> {
    /// Whether a `ct` can be done with every packet.
    pub(super) fn ct(&mut self, action: &Action, ct: &Ct) -> Result<(), ConsistencyError> {
        if !ct.commit && (ct.force || !ct.exec.is_empty() || ct.nat.is_some_and(|nat| nat.direction.is_some())) {
            return Err(self.bad("ct", "commit beside force, exec and nat with a direction"));
        }
        let eth_type = self.key().get(slot::ETH_TYPE) as u16;
        if !matches!(eth_type, ETH_TYPE_IPV4 | ETH_TYPE_IPV6) {
            let (needs, advice) = describe(Prereq::Ip);
            return Err(self.needs("ct", needs, advice));
        }
        if ct.commit && self.key().get(slot::CT_STATE) as u8 & CT_INV != 0 {
            return Err(ConsistencyError::CommitOfInvalid { action: self.action });
        }
        let proto = self.key().get(slot::IP_PROTO) as u8;
        match ct.alg {
            Some(CtAlg::Ftp) if proto != IP_PROTO_TCP => {
                return Err(self.needs("alg=ftp", "TCP packets", "add tcp or tcp6 to the match"));
            }
            Some(CtAlg::Tftp) if proto != IP_PROTO_UDP => {
                return Err(self.needs("alg=tftp", "UDP packets", "add udp or udp6 to the match"));
            }
            _ => {}
        }
        if let CtZone::Field(src) = ct.zone {
            self.readable(src)?;
            if src.bits != 16 {
                return Err(self.bad("ct", "a zone of 16 bits"));
            }
            // OVS looks no further then: what nat and exec ask of the match is not asked.
            return verify(&ct.exec, Place::Ct).map_err(|error| error.at(self.action)).and_then(|()| {
                ct.exec.iter().try_for_each(|set| match set {
                    Action::Move { src, dst } => self.bits(*src).and_then(|()| self.same_width(*src, *dst)),
                    Action::Load { dst, .. } => self.bits(*dst),
                    _ => Ok(()),
                })
            });
        }
        if let Some(nat) = &ct.nat {
            self.nat(nat, eth_type)?;
        }
        self.nested(action, &ct.exec, Place::Ct)
    }

    /// Whether a `nat` suits packets of this EtherType.
    fn nat(&self, nat: &Nat, eth_type: u16) -> Result<(), ConsistencyError> {
        let Some((first, last)) = nat.addresses else {
            return if nat.ports.is_some() { Err(self.bad("nat", "an address beside ports")) } else { Ok(()) };
        };
        if first > last || nat.ports.is_some_and(|(low, high)| low > high || low == 0) {
            return Err(self.bad("nat", "ranges from lower to higher"));
        }
        match (first, last, eth_type) {
            (IpAddr::V4(_), IpAddr::V4(_), ETH_TYPE_IPV4) | (IpAddr::V6(_), IpAddr::V6(_), ETH_TYPE_IPV6) => Ok(()),
            (IpAddr::V4(_), ..) => {
                let (needs, advice) = describe(Prereq::Ipv4);
                Err(self.needs("nat to an IPv4 address", needs, advice))
            }
            (IpAddr::V6(_), ..) => {
                let (needs, advice) = describe(Prereq::Ipv6);
                Err(self.needs("nat to an IPv6 address", needs, advice))
            }
        }
    }
}
