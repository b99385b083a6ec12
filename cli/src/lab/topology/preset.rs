//! Topologies that need no file: `single,N`, `linear,N`, `tree,DEPTH,FANOUT`, and of routers `leafspine,SPINES,LEAVES` and
//! `ring,N`.

mod routed;

use super::raw::{Raw, RawEnd, RawLink, Spot};
use super::resolve::resolve;
use super::write::write;
use super::{Topology, TopologyError, parse};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A topology that is made from a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// `hosts` hosts on one switch.
    Single {
        /// 1 to [`Preset::MAX_HOSTS`].
        hosts: u32,
    },
    /// A row of `switches` switches with one host each.
    Linear {
        /// 1 to [`Preset::MAX_SWITCHES`].
        switches: u32,
    },
    /// A tree of switches with hosts as its leaves.
    Tree {
        /// Levels of switches, from 1.
        depth: u32,
        /// Children of each switch, from 1.
        fanout: u32,
    },
    /// Leaves with a host each, and spines that join them.
    LeafSpine {
        /// 1 to [`Preset::MAX_SPINES`].
        spines: u32,
        /// 2 to [`Preset::MAX_LEAVES`].
        leaves: u32,
    },
    /// Routers in a ring with a host each.
    Ring {
        /// 3 to [`Preset::MAX_SWITCHES`].
        routers: u32,
    },
}

impl Preset {
    /// Most hosts of a preset.
    pub(crate) const MAX_HOSTS: u32 = 1000;
    /// Most switches of a preset: a frame crosses no more patch ports than the translation's bound allows.
    pub(crate) const MAX_SWITCHES: u32 = 30;
    /// Most spines of a preset: each leaf asks each spine five times a second whether it is there.
    pub(crate) const MAX_SPINES: u32 = 8;
    /// Most leaves of a preset.
    pub(crate) const MAX_LEAVES: u32 = 32;
    const FORMS: &'static str = "a preset is single,HOSTS or linear,SWITCHES or tree,DEPTH,FANOUT or \
                                 leafspine,SPINES,LEAVES or ring,ROUTERS";

    /// The name of its lab, if none is given.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single { .. } => "single",
            Self::Linear { .. } => "linear",
            Self::Tree { .. } => "tree",
            Self::LeafSpine { .. } => "leafspine",
            Self::Ring { .. } => "ring",
        }
    }

    /// The resolved topology, under this name.
    ///
    /// # Errors
    /// The preset does not fit into its subnet.
    pub(crate) fn topology(self, name: &str) -> Result<Topology, TopologyError> {
        let source = format!("--topo {self}");
        let pairs = match self {
            Self::LeafSpine { spines, leaves } => return parse(&routed::leaf_spine(name, spines, leaves), &source),
            Self::Ring { routers } => return parse(&routed::ring(name, routers), &source),
            Self::Single { hosts } => (1..=hosts).map(|h| (format!("h{h}"), "s1".to_owned())).collect(),
            Self::Linear { switches } => {
                let hosts = (1..=switches).map(|n| (format!("h{n}"), format!("s{n}")));
                hosts.chain((1..switches).map(|n| (format!("s{n}"), format!("s{}", n + 1)))).collect()
            }
            Self::Tree { depth, fanout } => tree(depth, fanout),
        };
        let hosts = pairs.iter().filter(|(end, _)| end.starts_with('h')).count();
        let mut raw = Raw { name: name.to_owned(), ..Raw::default() };
        if hosts > 254 {
            raw.subnet = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 16).ok().map(|value| Spot { line: 0, value });
        }
        let end = |node| RawEnd { line: 0, node, pin: None };
        raw.links = pairs.into_iter().map(|(a, b)| RawLink { ends: [end(a), end(b)], ..RawLink::default() }).collect();
        let mut problems = Vec::new();
        resolve(&raw, &source, &mut problems).ok_or_else(|| TopologyError::new(&source, problems))
    }
}

impl Preset {
    /// The text of a file that makes the same lab.
    ///
    /// # Errors
    /// The preset does not fit into its subnet.
    pub(crate) fn file(self, name: &str) -> Result<String, TopologyError> {
        Ok(match self {
            Self::LeafSpine { spines, leaves } => routed::leaf_spine(name, spines, leaves),
            Self::Ring { routers } => routed::ring(name, routers),
            // Every topology without routers can be written; a test has all kinds.
            _ => write(&self.topology(name)?).unwrap_or_default(),
        })
    }
}

/// Links of a tree: from each switch to its children, in the order in which a person would number them.
fn tree(depth: u32, fanout: u32) -> Vec<(String, String)> {
    let (mut links, mut level, mut switches, mut hosts) = (Vec::new(), vec![1], 1, 0);
    for depth_left in (0..depth).rev() {
        let mut next = Vec::new();
        for parent in level {
            for _ in 0..fanout {
                if depth_left == 0 {
                    hosts += 1;
                    links.push((format!("h{hosts}"), format!("s{parent}")));
                } else {
                    switches += 1;
                    next.push(switches);
                    links.push((format!("s{parent}"), format!("s{switches}")));
                }
            }
        }
        level = next;
    }
    links
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Single { hosts } => write!(f, "single,{hosts}"),
            Self::Linear { switches } => write!(f, "linear,{switches}"),
            Self::Tree { depth, fanout } => write!(f, "tree,{depth},{fanout}"),
            Self::LeafSpine { spines, leaves } => write!(f, "leafspine,{spines},{leaves}"),
            Self::Ring { routers } => write!(f, "ring,{routers}"),
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = parts.map(|n| n.parse().ok().filter(|n| *n > 0)).collect();
        let numbers =
            numbers.ok_or_else(|| format!("`{text}` has a part that is no number from 1 up; {}", Self::FORMS))?;
        let most = |what, count: u64, most: u32| match count > u64::from(most) {
            true => Err(format!("`{text}` makes too many {what}, the most is {most}")),
            false => Ok(()),
        };
        match (kind, numbers.as_slice()) {
            ("single", &[hosts]) => {
                most("hosts", hosts.into(), Self::MAX_HOSTS)?;
                Ok(Self::Single { hosts })
            }
            ("linear", &[switches]) => {
                most("switches", switches.into(), Self::MAX_SWITCHES)?;
                Ok(Self::Linear { switches })
            }
            ("tree", &[depth, fanout]) => {
                let size = |depth| u64::from(fanout).saturating_pow(depth);
                most("hosts", size(depth), Self::MAX_HOSTS)?;
                let switches =
                    (0..depth.min(Self::MAX_SWITCHES + 1)).fold(0, |sum: u64, level| sum.saturating_add(size(level)));
                most("switches", switches, Self::MAX_HOSTS)?;
                most("levels of switches", depth.into(), Self::MAX_SWITCHES / 2)?;
                Ok(Self::Tree { depth, fanout })
            }
            ("leafspine", &[spines, leaves]) => {
                most("spines", spines.into(), Self::MAX_SPINES)?;
                most("leaves", leaves.into(), Self::MAX_LEAVES)?;
                match leaves {
                    0..2 => Err(format!("`{text}` makes one leaf, the least is 2")),
                    _ => Ok(Self::LeafSpine { spines, leaves }),
                }
            }
            ("ring", &[routers]) => {
                most("routers", routers.into(), Self::MAX_SWITCHES)?;
                match routers {
                    0..3 => Err(format!("`{text}` makes no ring, the least is 3")),
                    _ => Ok(Self::Ring { routers }),
                }
            }
            _ => Err(format!("`{text}` is no preset; {}", Self::FORMS)),
        }
    }
}
