//! The versions of the specification.

use std::fmt;
use std::str::FromStr;

/// A version of the specification that we speak; they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: results say `ip4` and `ip6`.
    V0_1_0,
    /// 0.2.0: with VERSION.
    V0_2_0,
    /// 0.3.0: results have interfaces and lists of addresses.
    V0_3_0,
    /// 0.3.1: as 0.3.0.
    V0_3_1,
    /// 0.4.0: with CHECK, and the previous result at DEL.
    V0_4_0,
    /// 1.0.0: addresses do not say their family.
    V1_0_0,
    /// 1.1.0: with GC and STATUS, and more of interfaces and routes.
    V1_1_0,
}

/// A version that we do not speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this plugin does not speak version {0:?} of CNI")]
pub struct UnknownVersion(pub String);

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As configurations and results have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    /// An empty text is 0.1.0, which configurations did not have to name.
    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}
