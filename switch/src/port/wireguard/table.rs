//! The peers of a port, and how they are found: by what is behind them, by where they are, by the messages they send.
//!
//! A table is built anew when the options change and swapped in whole, so workers never see half a change. Peers that
//! stay are the same objects in both tables, with their sessions.

use super::allowed::AllowedIps;
use super::identity::Identity;
use super::key::{PublicKey, SecretKey};
use super::options::{PeerOptions, WireguardOptions};
use super::peer::{Link, LinkKeys, Peer};
use crate::port::{PortError, SpecError};
use dashmap::DashMap;
use foldhash::{HashMap, HashMapExt};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

/// The bits of a receiver index that say which session it is; those above say which link.
const SESSION_BITS: u32 = 8;
/// Links have numbers below this.
const LINKS: u32 = 1 << (32 - SESSION_BITS);

/// The peers of a port.
pub(super) struct Table {
    /// Who this end is; first who it is now, then who it was, while some link still needs that.
    pub(super) identities: Vec<Arc<Identity>>,
    /// The peers, by name.
    pub(super) peers: Vec<Arc<Peer>>,
    allowed: AllowedIps,
    by_index: HashMap<u32, Arc<Peer>>,
    by_keys: HashMap<(u64, PublicKey), Arc<Peer>>,
    by_endpoint: DashMap<IpAddr, u32>,
}

/// Numbers for what is made, never given twice in a row.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    identity: u64,
    link: u32,
}

/// Secrets and addresses that options refer to, as they are now.
pub(super) struct Resolved {
    private_key: SecretKey,
    preshared: Vec<Option<SecretKey>>,
    endpoints: Vec<Option<SocketAddr>>,
}

impl Resolved {
    /// Reads the files and asks for the names that the options have. May wait for a name server.
    ///
    /// # Errors
    /// [`PortError::File`] and [`PortError::Option`].
    pub(super) fn load(port: &str, options: &WireguardOptions) -> Result<Self, PortError> {
        let load = |source: &super::options::KeySource| {
            source.load().map_err(|(path, error)| PortError::File {
                port: port.to_owned(),
                op: "read the key in",
                path: path.to_owned(),
                why: error.to_string(),
            })
        };
        let resolve = |(name, peer): (&String, &PeerOptions)| {
            let Some(text) = &peer.endpoint else { return Ok(None) };
            let failed = |why: String| {
                let why = SpecError::BadOption { option: format!("peer.{name}.endpoint"), why: why.into() };
                PortError::Option { port: port.to_owned(), why }
            };
            let mut found =
                text.to_socket_addrs().map_err(|e| failed(format!("cannot find the address of {text}: {e}")))?;
            found.next().map(Some).ok_or_else(|| failed(format!("{text} has no address")))
        };
        Ok(Self {
            private_key: load(&options.private_key)?,
            preshared: options
                .peers
                .values()
                .map(|p| p.preshared_key.as_ref().map(load).transpose())
                .collect::<Result<_, _>>()?,
            endpoints: options.peers.iter().map(resolve).collect::<Result<_, _>>()?,
        })
    }
}

impl Table {
    /// A table as the options say, with what can be kept of the one before, which `before` are the options of.
    pub(super) fn build(
        options: &WireguardOptions,
        resolved: &Resolved,
        before: Option<(&Self, &WireguardOptions)>,
        numbers: &mut Numbers,
        now: Instant,
    ) -> Self {
        let kept = before.and_then(|(table, _)| table.identities.first());
        let identity = match kept.filter(|identity| identity.secret == resolved.private_key) {
            Some(identity) => Arc::clone(identity),
            None => {
                numbers.identity += 1;
                Arc::new(Identity::new(numbers.identity, resolved.private_key.clone()))
            }
        };
        let mut build = Build { identity, before, numbers, now, taken: HashSet::new(), indexes: HashSet::new() };
        build.note_kept(options);
        let peers: Vec<_> = (options.peers.iter().zip(&resolved.preshared).zip(&resolved.endpoints))
            .map(|(((name, peer), preshared), endpoint)| build.peer(name, peer, preshared.as_ref(), *endpoint))
            .collect();
        let identity = build.identity;
        Self::of_peers(options, peers, identity, before.map(|(table, _)| table))
    }

    fn of_peers(
        options: &WireguardOptions,
        peers: Vec<Arc<Peer>>,
        identity: Arc<Identity>,
        before: Option<&Self>,
    ) -> Self {
        let prefixes =
            options.peers.values().zip(0..).flat_map(|(peer, at)| peer.allowed_ips.iter().map(move |n| (n, at)));
        let mut table = Self {
            identities: vec![identity],
            allowed: AllowedIps::new(prefixes),
            by_index: HashMap::new(),
            by_keys: HashMap::new(),
            by_endpoint: DashMap::new(),
            peers,
        };
        let mut used = HashSet::new();
        for (at, peer) in (0..).zip(&table.peers) {
            let state = peer.lock();
            if let Some(endpoint) = state.endpoint {
                table.by_endpoint.insert(endpoint.ip(), at);
            }
            for (index, keys) in state.links() {
                table.by_index.insert(index, Arc::clone(peer));
                table.by_keys.insert((keys.identity, keys.public), Arc::clone(peer));
                used.insert(keys.identity);
            }
        }
        let former = before.map_or(&[][..], |table| &table.identities[..]);
        let current = table.identities[0].number;
        let former = former.iter().filter(|former| former.number != current && used.contains(&former.number));
        table.identities.extend(former.cloned());
        table
    }

    /// The peer that has `address` behind it.
    #[inline]
    pub(super) fn behind(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.peers.get(self.allowed.find(address)? as usize)
    }

    /// The peer that is at `address`, or has it behind it.
    pub(super) fn at(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        let at = self.by_endpoint.get(&address).map(|at| *at);
        at.and_then(|at| self.peers.get(at as usize)).or_else(|| self.behind(address))
    }

    /// The peer that a message with this receiver index is from, and the index of its link.
    #[inline]
    pub(super) fn receiver(&self, index: u32) -> Option<(&Arc<Peer>, u32)> {
        let link = index >> SESSION_BITS;
        self.by_index.get(&link).map(|peer| (peer, link))
    }

    /// The peer with these keys.
    pub(super) fn peer(&self, identity: u64, public: &PublicKey) -> Option<&Arc<Peer>> {
        self.by_keys.get(&(identity, *public))
    }

    /// Notes that a peer is at another address than before.
    pub(super) fn moved(&self, peer: &Arc<Peer>, from: Option<IpAddr>, to: IpAddr) {
        let Some(at) = self.peers.iter().position(|known| Arc::ptr_eq(known, peer)) else { return };
        let at = at as u32;
        if let Some(from) = from {
            self.by_endpoint.remove_if(&from, |_, there| *there == at);
        }
        self.by_endpoint.insert(to, at);
    }
}

/// A table in the making.
struct Build<'a> {
    identity: Arc<Identity>,
    before: Option<(&'a Table, &'a WireguardOptions)>,
    numbers: &'a mut Numbers,
    now: Instant,
    /// Numbers of peers, and indexes of links, that are in use.
    taken: HashSet<u32>,
    indexes: HashSet<u32>,
}

impl Build<'_> {
    /// Notes the numbers of what stays.
    fn note_kept(&mut self, options: &WireguardOptions) {
        let Some((table, _)) = self.before else { return };
        for peer in table.peers.iter().filter(|peer| options.peers.contains_key(&*peer.name)) {
            self.taken.insert(peer.number);
        }
        self.indexes.extend(table.by_index.keys());
    }

    fn peer(
        &mut self,
        name: &str,
        options: &PeerOptions,
        preshared: Option<&SecretKey>,
        endpoint: Option<SocketAddr>,
    ) -> Arc<Peer> {
        let keys = LinkKeys {
            identity: self.identity.number,
            public: options.public_key,
            preshared: preshared.map(|key| *key.bytes()),
        };
        let known = self.before.and_then(|(table, before)| {
            Some((table.peers.iter().find(|peer| &*peer.name == name)?, before.peers.get(name)?))
        });
        let Some((peer, before)) = known else {
            let number = (1..).find(|number| !self.taken.contains(number)).unwrap_or(u32::MAX);
            self.taken.insert(number);
            let link = self.link(keys, options.persistent_keepalive);
            return Arc::new(Peer::new(name, number, link, endpoint));
        };
        let peer = Arc::clone(peer);
        let stays = peer.lock().is(&keys, options.persistent_keepalive);
        if !stays {
            let link = self.link(keys, options.persistent_keepalive);
            peer.lock().replace(link, self.now);
        }
        if before.endpoint != options.endpoint && endpoint.is_some() {
            peer.lock().endpoint = endpoint;
        }
        peer
    }

    fn link(&mut self, keys: LinkKeys, keepalive: u16) -> Link {
        loop {
            self.numbers.link = (self.numbers.link + 1) % LINKS;
            // There are far fewer peers than indexes.
            if self.indexes.insert(self.numbers.link) {
                return Link::new(&self.identity, keys, keepalive, self.numbers.link);
            }
        }
    }
}
