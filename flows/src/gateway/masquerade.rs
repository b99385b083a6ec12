//! Source translation as actions that any pipeline can use, and what a gateway translates.

use crate::action::{Action, Ct, CtZone, Nat, NatDirection};
use crate::rule::TableId;
use ipnet::IpNet;
use std::net::IpAddr;

/// What a gateway translates of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The networks inside, all of one family. Only their addresses are translated.
    pub inside: Vec<IpNet>,
    /// What stays as it is: destinations that are reached with the inside address.
    pub except: Vec<IpNet>,
    /// The address that takes the place of theirs. Of no station, and of no interface of the host.
    pub address: IpAddr,
    /// The ports that take the place of theirs, if they are to be of a range.
    pub ports: Option<(u16, u16)>,
}

impl Masquerade {
    /// Of IPv4.
    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// How it is done in a zone.
    pub fn nat(&self, zone: u16) -> SourceNat {
        SourceNat { zone, address: self.address, ports: self.ports }
    }
}

/// Source translation to one address: the three ways of asking the tracker.
///
/// A pipeline asks about packets of both directions with [`Self::known`], and lets connections that are to be translated
/// [begin](Self::begin). Connections of the same zone that are not are [noted](Self::note), so that packets against their
/// direction are not taken for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// The zone.
    pub zone: u16,
    /// The address that takes the place of others.
    pub address: IpAddr,
    /// The ports that take the place of others, if they are to be of a range.
    pub ports: Option<(u16, u16)>,
}

impl SourceNat {
    /// Asks what is known of the packet's connection, translates if that was decided, and goes on in `table`.
    pub fn known(&self, table: TableId) -> Action {
        self.ct(Ct { nat: Some(Nat::default()), table: Some(table), ..Ct::default() })
    }

    /// Translates a new connection, has it remember what `remember` puts into its mark and label, and goes on in `table`.
    pub fn begin(&self, remember: Vec<Action>, table: TableId) -> Action {
        let nat = Nat {
            direction: Some(NatDirection::Src),
            addresses: Some((self.address, self.address)),
            ports: self.ports,
            ..Nat::default()
        };
        self.ct(Ct { commit: true, nat: Some(nat), exec: remember.into(), table: Some(table), ..Ct::default() })
    }

    /// Remembers a new connection as it is.
    pub fn note(&self) -> Action {
        self.ct(Ct { commit: true, ..Ct::default() })
    }

    fn ct(&self, ct: Ct) -> Action {
        Action::Ct(Box::new(Ct { zone: CtZone::Number(self.zone), ..ct }))
    }
}
