//! The addresses of one bridge: a map, and per port a list in the order in which they were last seen.
//!
//! The lists make ageing and eviction cost what they remove and nothing else, under a flood of addresses too.

use super::{MacChange, MacEntry};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sluice_flows::PortNo;
use sluice_flows::bridge::{BridgeId, VlanId};
use sluice_flows::rule::Millis;

/// VLAN and address.
pub(super) type Key = (VlanId, u64);

/// "No node", in links.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    key: Key,
    port: PortNo,
    seen: Millis,
    older: u32,
    newer: u32,
}

/// The ends of a port's list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
    len: usize,
}

/// The addresses of one bridge.
#[derive(Debug, Default)]
pub(super) struct Learned {
    map: HashMap<Key, u32, RandomState>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    ports: HashMap<PortNo, Ends, RandomState>,
}

impl Learned {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn port_of(&self, key: &Key) -> Option<PortNo> {
        self.map.get(key).map(|&i| self.nodes[i as usize].port)
    }

    /// Notes that `key` was seen behind `port` at `now`.
    pub(super) fn learn(&mut self, key: Key, port: PortNo, now: Millis) -> MacChange {
        let Some(&index) = self.map.get(&key) else {
            let index = self.add(Node { key, port, seen: now, older: NIL, newer: NIL });
            self.link(index);
            return MacChange::Learned;
        };
        let from = self.nodes[index as usize].port;
        self.unlink(index);
        let node = &mut self.nodes[index as usize];
        node.port = port;
        node.seen = node.seen.max(now);
        self.link(index);
        if from == port { MacChange::None } else { MacChange::Moved { from } }
    }

    /// Notes that `key` was seen until `now`, if it is known to be behind `port`.
    pub(super) fn refresh(&mut self, key: Key, port: PortNo, now: Millis) {
        if self.port_of(&key) == Some(port) {
            self.learn(key, port, now);
        }
    }

    /// Forgets the oldest address of the port that holds most, and returns it.
    pub(super) fn evict(&mut self) -> Option<Key> {
        let ends = self.ports.values().max_by_key(|e| e.len)?;
        Some(self.remove(ends.oldest).key)
    }

    /// Moves the addresses not seen for `ageing` milliseconds to `out`.
    pub(super) fn expire(&mut self, now: Millis, ageing: u64, out: &mut Vec<MacEntry>) {
        let oldest: Vec<PortNo> = self.ports.keys().copied().collect();
        for port in oldest {
            while let Some(ends) = self.ports.get(&port) {
                if now.since(self.nodes[ends.oldest as usize].seen) < ageing {
                    break;
                }
                out.push(entry(&self.remove(ends.oldest)));
            }
        }
    }

    /// Moves all addresses, or those behind `port`, to `out`.
    pub(super) fn flush(&mut self, port: Option<PortNo>, out: &mut Vec<MacEntry>) {
        let ports: Vec<PortNo> = self.ports.keys().copied().filter(|p| port.is_none_or(|only| only == *p)).collect();
        for port in ports {
            while let Some(ends) = self.ports.get(&port) {
                out.push(entry(&self.remove(ends.oldest)));
            }
        }
    }

    /// Adds every address to `out`.
    pub(super) fn all(&self, out: &mut Vec<MacEntry>) {
        out.extend(self.map.values().map(|&i| entry(&self.nodes[i as usize])));
    }

    fn add(&mut self, node: Node) -> u32 {
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.map.insert(node.key, index);
        index
    }

    fn remove(&mut self, index: u32) -> Node {
        self.unlink(index);
        let node = self.nodes[index as usize];
        self.map.remove(&node.key);
        self.free.push(index);
        node
    }

    /// Puts a node at the newest end of its port's list.
    fn link(&mut self, index: u32) {
        let port = self.nodes[index as usize].port;
        let ends = self.ports.entry(port).or_insert(Ends { oldest: NIL, newest: NIL, len: 0 });
        let before = ends.newest;
        ends.newest = index;
        ends.len += 1;
        if before == NIL {
            ends.oldest = index;
        }
        self.nodes[index as usize].older = before;
        self.nodes[index as usize].newer = NIL;
        if before != NIL {
            self.nodes[before as usize].newer = index;
        }
    }

    /// Takes a node out of its port's list; a list without nodes goes.
    fn unlink(&mut self, index: u32) {
        let Node { port, older, newer, .. } = self.nodes[index as usize];
        if older != NIL {
            self.nodes[older as usize].newer = newer;
        }
        if newer != NIL {
            self.nodes[newer as usize].older = older;
        }
        let Some(ends) = self.ports.get_mut(&port) else { return };
        if ends.oldest == index {
            ends.oldest = newer;
        }
        if ends.newest == index {
            ends.newest = older;
        }
        ends.len -= 1;
        if ends.len == 0 {
            self.ports.remove(&port);
        }
    }
}

fn entry(node: &Node) -> MacEntry {
    MacEntry { bridge: BridgeId(0), vlan: node.key.0, mac: node.key.1, port: node.port, seen: node.seen }
}
