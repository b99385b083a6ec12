//! Port numbers.

use std::fmt;

/// A port of the datapath, whatever bridge it belongs to. Workers, caches and counters use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DpPort(pub u32);

/// An OpenFlow port number within one bridge: 1 to 65,279, or a reserved number.
///
/// Reserved numbers are OpenFlow 1.0's 16-bit ones, as OVS uses them inside and prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortNo(pub u16);

impl PortNo {
    /// Largest number of an ordinary port (OpenFlow's `OFPP_MAX` less one).
    pub const MAX: Self = Self(0xfeff);
    /// Not yet a real ingress port; output to it drops.
    pub const UNSET: Self = Self(0xfff7);
    /// Back out of the ingress port.
    pub const IN_PORT: Self = Self(0xfff8);
    /// Through the flow table, from a packet-out.
    pub const TABLE: Self = Self(0xfff9);
    /// What a learning switch would do.
    pub const NORMAL: Self = Self(0xfffa);
    /// Every port that floods, but the ingress port.
    pub const FLOOD: Self = Self(0xfffb);
    /// Every port but the ingress port.
    pub const ALL: Self = Self(0xfffc);
    /// The controller.
    pub const CONTROLLER: Self = Self(0xfffd);
    /// The bridge's own port.
    pub const LOCAL: Self = Self(0xfffe);
    /// No port.
    pub const NONE: Self = Self(0xffff);

    const NAMES: [(Self, &'static str); 9] = [
        (Self::UNSET, "UNSET"),
        (Self::IN_PORT, "IN_PORT"),
        (Self::TABLE, "TABLE"),
        (Self::NORMAL, "NORMAL"),
        (Self::FLOOD, "FLOOD"),
        (Self::ALL, "ALL"),
        (Self::CONTROLLER, "CONTROLLER"),
        (Self::LOCAL, "LOCAL"),
        (Self::NONE, "ANY"),
    ];

    /// The reserved name of this number, if it has one.
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(no, _)| *no == self).map(|(_, name)| *name)
    }

    /// The number that a reserved name means, in any case.
    pub fn from_reserved_name(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("NONE") {
            return Some(Self::NONE);
        }
        Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(no, _)| *no)
    }

    /// Whether this is an ordinary port's number (LOCAL is not).
    pub const fn is_ordinary(self) -> bool {
        self.0 != 0 && self.0 <= Self::MAX.0
    }
}

impl fmt::Display for PortNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for DpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_read_back_in_any_case() {
        assert_eq!(PortNo::from_reserved_name("local"), Some(PortNo::LOCAL));
        assert_eq!(PortNo::from_reserved_name("None"), Some(PortNo::NONE));
        assert_eq!(PortNo(0xfffe).to_string(), "LOCAL");
        assert_eq!(PortNo(12).to_string(), "12");
    }
}
