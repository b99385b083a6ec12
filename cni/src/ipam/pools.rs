//! Addresses of Docker's networks: pools by ID, as libnetwork's IPAM protocol has them, in the same store as those of CNI.
//!
//! A pool is a subnet of an address space, or a part of it that addresses are given from (Docker's `--ip-range`); pools of
//! the same subnet share its addresses. The same pool asked for again is the same, and counted; one that overlaps another
//! subnet is refused. Without a subnet, the first of the default ones is taken that overlaps neither a pool of the space nor
//! what the caller says is in use, such as the host's routes.
//!
//! Pools and addresses stay over restarts of either side. A daemon that asks for all of them again when it starts says so
//! first, with [`Pools::begin_run`]: what is from an earlier run is then given once more as if it were new.

use super::Reserved;
use super::address::{Address, Span, Spans, V4};
use super::config::COOLDOWN_S;
use super::error::IpamError;
use super::now;
use super::search;
use super::store::{Record, Store, Tables};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Pools are noted in the store under this kind.
const NOTE: &str = "pool";
/// The run of the daemon is noted with this kind and name.
const RUN: (&str, &str) = ("docker", "run");

/// Where subnets come from if none is asked for: 4,096 of 254 addresses, and 65,536 of IPv6. Neither is among those that
/// Docker chooses from by itself.
pub const DEFAULT_POOLS: [DefaultPool; 2] = [
    DefaultPool { base: IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 208, 0, 0)), 12), prefix_len: 24 },
    DefaultPool {
        base: IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfd73, 0x6c75, 0x6964, 0, 0, 0, 0, 0)), 48),
        prefix_len: 64,
    },
];

/// A network that subnets are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultPool {
    /// The network.
    pub base: IpNet,
    /// The length of the subnets' prefixes, at least that of the network's.
    pub prefix_len: u8,
}

/// What is asked for in RequestPool.
#[derive(Clone, Debug, Default)]
pub struct PoolRequest<'a> {
    /// The address space, in which pools do not overlap.
    pub space: &'a str,
    /// The subnet; none for one of the default ones.
    pub subnet: Option<IpNet>,
    /// The part of the subnet that addresses are given from; none for all.
    pub range: Option<IpNet>,
    /// Whether a default subnet is IPv6.
    pub v6: bool,
    /// Networks that a default subnet must not overlap. A default route (prefix length 0) does not count.
    pub in_use: &'a [IpNet],
    /// Where a default subnet comes from; empty for [`DEFAULT_POOLS`].
    pub defaults: &'a [DefaultPool],
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Names it in later calls: `SPACE/SUBNET`, and with a range `SPACE/SUBNET/RANGE`.
    pub id: String,
    /// The address space.
    pub space: String,
    /// The subnet.
    pub subnet: IpNet,
    /// The part of the subnet that addresses are given from.
    pub range: Option<IpNet>,
    /// How often it was asked for and not released.
    pub references: u32,
    /// The run of the daemon that it was last asked for in.
    run: u64,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressUse {
    /// An endpoint, or one of the network's auxiliary addresses.
    Endpoint,
    /// The network's gateway.
    Gateway,
}

/// All pools of a data directory.
#[derive(Debug, Clone)]
pub struct Pools {
    store: Store,
    /// In milliseconds.
    cooldown: u64,
}

impl Pools {
    /// The pools of a data directory; nothing is touched yet.
    pub fn new(data_dir: &Path) -> Self {
        Self { store: Store::new(data_dir), cooldown: COOLDOWN_S * 1000 }
    }

    /// With another rest of released addresses, in seconds.
    #[must_use]
    pub fn with_cooldown(self, seconds: u64) -> Self {
        Self { cooldown: seconds.saturating_mul(1000), ..self }
    }

    /// Says that the daemon has started and will ask for its pools and addresses again.
    ///
    /// # Errors
    /// The store failed.
    pub fn begin_run(&self) -> Result<(), IpamError> {
        self.store.write(|tables| {
            let run = this_run(tables)?.saturating_add(1);
            tables.set_note(RUN.0, RUN.1, Some(run.to_string().as_bytes()))
        })
    }

    /// RequestPool: makes a pool, or counts one that is there.
    ///
    /// # Errors
    /// What was asked for overlaps another pool or makes no sense, no default subnet is left, or the store failed.
    pub fn request_pool(&self, request: &PoolRequest<'_>) -> Result<Pool, IpamError> {
        checked(request)?;
        self.store.write(|tables| {
            let pools = all(tables)?;
            let run = this_run(tables)?;
            let subnet = match request.subnet {
                Some(subnet) => subnet,
                None => default_subnet(request, &pools)?,
            };
            let id = match request.range {
                Some(range) => format!("{}/{subnet}/{range}", request.space),
                None => format!("{}/{subnet}", request.space),
            };
            if let Some(mut pool) = pools.iter().find(|p| p.id == id).cloned() {
                pool.references = if pool.run == run { pool.references.saturating_add(1) } else { 1 };
                pool.run = run;
                return put(tables, &pool).map(|()| pool);
            }
            let new = Span::from(subnet);
            let overlaps =
                |p: &&Pool| p.space == request.space && p.subnet != subnet && Span::from(p.subnet).overlaps(&new);
            if let Some(other) = pools.iter().find(overlaps) {
                return Err(IpamError::Pool(format!("{subnet} overlaps {} of another network", other.subnet)));
            }
            let space = request.space.to_owned();
            let pool = Pool { id, space, subnet, range: request.range, references: 1, run };
            put(tables, &pool).map(|()| pool)
        })
    }

    /// ReleasePool: counts down, and with the last frees the pool with all of its addresses. Whether it was there.
    ///
    /// # Errors
    /// The store failed.
    pub fn release_pool(&self, id: &str) -> Result<bool, IpamError> {
        self.store.write(|tables| {
            let Some(mut pool) = find(tables, id)? else { return Ok(false) };
            pool.references = pool.references.saturating_sub(1);
            if pool.references > 0 {
                return put(tables, &pool).map(|()| true);
            }
            tables.set_note(NOTE, id, None)?;
            let network = pool.network();
            for (_, address, record) in tables.reservations(Some(&network))? {
                if record.container_id == id {
                    tables.release(&network, address, None)?;
                }
            }
            if !all(tables)?.iter().any(|p| p.network() == network) {
                tables.forget_network(&network)?;
            }
            Ok(true)
        })
    }

    /// RequestAddress: the address asked for, or the next of the pool; for a gateway, the subnet's first if it is free. With
    /// the subnet's prefix length. `name` is kept with it, for people.
    ///
    /// # Errors
    /// There is no such pool, the address is taken or not of its subnet, none is left, or the store failed.
    pub fn request_address(
        &self,
        pool_id: &str,
        wanted: Option<IpAddr>,
        for_what: AddressUse,
        name: &str,
    ) -> Result<IpNet, IpamError> {
        let at = now();
        self.store.write(|tables| {
            let pool = find(tables, pool_id)?.ok_or_else(|| IpamError::NoPool(pool_id.to_owned()))?;
            let network = pool.network();
            let run = this_run(tables)?;
            let usable = hosts(pool.subnet);
            tables.cooled(&network, usable.family, at.now_ms, self.cooldown)?;
            let address = match wanted {
                Some(ip) => pool.wanted(tables, ip, run)?,
                None => pool.next(tables, for_what)?,
            };
            let record = Record {
                container_id: pool.id.clone(),
                boot_id: at.boot_id.clone(),
                time_s: at.now_ms / 1000,
                name: if for_what == AddressUse::Gateway { "gateway".into() } else { name.to_owned() },
                run,
                ..Record::default()
            };
            // What an earlier run had may have been asked for by another pool of the subnet.
            tables.release(&network, address, None)?;
            tables.reserve(&network, address, &record)?;
            let ip = address.to_ip();
            Ok(IpNet::new(ip, pool.subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(ip)))
        })
    }

    /// ReleaseAddress. Whether it was taken.
    ///
    /// # Errors
    /// The store failed.
    pub fn release_address(&self, pool_id: &str, ip: IpAddr) -> Result<bool, IpamError> {
        let now_ms = now().now_ms;
        self.store.write(|tables| match find(tables, pool_id)? {
            Some(pool) => Ok(tables.release(&pool.network(), ip.into(), Some(now_ms))?.is_some()),
            None => Ok(false),
        })
    }

    /// All pools with the addresses that are taken in their subnets.
    ///
    /// # Errors
    /// The store failed.
    pub fn list(&self) -> Result<Vec<(Pool, Reserved)>, IpamError> {
        let listed = self.store.read(|view| {
            let mut listed = Vec::new();
            for pool in decoded(view.notes(NOTE)?) {
                let taken = view.reservations(Some(&pool.network()))?;
                listed.push((pool, taken.into_iter().map(|(_, a, record)| (a.to_ip(), record)).collect()));
            }
            Ok(listed)
        })?;
        Ok(listed.unwrap_or_default())
    }
}

impl Pool {
    /// What its addresses are under in the store. No network of CNI has such a name.
    fn network(&self) -> String {
        format!("pool:{}/{}", self.space, self.subnet)
    }

    /// The address that was asked for.
    fn wanted(&self, tables: &Tables<'_>, ip: IpAddr, run: u64) -> Result<Address, IpamError> {
        let address = Address::from(ip);
        if !hosts(self.subnet).contains(address) {
            let why = format!("it is not an address of a host in {}", self.subnet);
            return Err(IpamError::Unavailable { address: ip, why });
        }
        match tables.owner(&self.network(), address)? {
            Some(record) if record.run == run => {
                let owner = if record.name.is_empty() { "an endpoint of this subnet".into() } else { record.name };
                Err(IpamError::Taken { address: ip, owner })
            }
            _ => Ok(address),
        }
    }

    /// The next address of the pool.
    fn next(&self, tables: &mut Tables<'_>, for_what: AddressUse) -> Result<Address, IpamError> {
        let network = self.network();
        let all = hosts(self.subnet);
        let first = Address { family: all.family, bits: all.first };
        if for_what == AddressUse::Gateway && tables.next_free(&network, first)? == Some(first) {
            return Ok(first);
        }
        let span = self.range.and_then(|r| Span::from(r).within(&all)).unwrap_or(all);
        let order = search::round(vec![span], tables.last(&network, &self.id)?);
        let found = match search::first_free(tables, &network, &order, &Spans::default())? {
            Some(free) => Some(free),
            None => tables.longest_cooling(&network, span.family, |a| span.contains(a))?,
        };
        let Some(address) = found else {
            let (set, ranges) = (format!("pool {}", self.id), span.to_string());
            return Err(IpamError::Exhausted { set, ranges, size: span.count() });
        };
        tables.set_last(&network, &self.id, address)?;
        Ok(address)
    }
}

/// The addresses that hosts may have.
fn hosts(subnet: IpNet) -> Span {
    let all = Span::from(subnet);
    if all.count() <= 2 {
        return all;
    }
    Span { first: all.first + 1, last: if all.family == V4 { all.last - 1 } else { all.last }, ..all }
}

/// Checks what can be told without the store.
fn checked(request: &PoolRequest<'_>) -> Result<(), IpamError> {
    let wrong = |why: String| Err(IpamError::Pool(why));
    match (request.subnet, request.range) {
        (None, Some(range)) => wrong(format!("range {range} is of no subnet; say the subnet too")),
        (Some(net), _) if net.addr() != net.network() => {
            wrong(format!("subnet {net} has host bits set; the network is {}", net.trunc()))
        }
        (Some(net), Some(range)) if range.addr() != range.network() || !net.contains(&range) => {
            wrong(format!("range {range} is not a part of subnet {net}"))
        }
        (Some(net), _) if request.v6 && net.addr().is_ipv4() => wrong(format!("{net} is not IPv6")),
        _ => Ok(()),
    }
}

/// The first default subnet that overlaps nothing.
fn default_subnet(request: &PoolRequest<'_>, pools: &[Pool]) -> Result<IpNet, IpamError> {
    let in_use = request.in_use.iter().filter(|n| n.prefix_len() > 0);
    let ours = pools.iter().filter(|p| p.space == request.space).map(|p| &p.subnet);
    let busy = Spans::new(in_use.chain(ours).map(|n| Span::from(*n)).collect());
    let defaults = if request.defaults.is_empty() { &DEFAULT_POOLS[..] } else { request.defaults };
    for pool in defaults.iter().filter(|d| d.base.addr().is_ipv6() == request.v6) {
        if let Some(subnet) = free_subnet(pool, &busy) {
            return Ok(subnet);
        }
    }
    let family = if request.v6 { "IPv6" } else { "IPv4" };
    Err(IpamError::Pool(format!("all default subnets of {family} are in use; say which subnet the network is to have")))
}

fn free_subnet(pool: &DefaultPool, busy: &Spans) -> Option<IpNet> {
    let all = Span::from(pool.base);
    let host_bits = u32::from(pool.base.max_prefix_len().checked_sub(pool.prefix_len)?);
    let size_less_one = 1u128.checked_shl(host_bits)?.wrapping_sub(1);
    let mut first = all.first;
    // Each turn is past a span that is in use.
    loop {
        let subnet = Span { family: all.family, first, last: first | size_less_one };
        if pool.prefix_len < pool.base.prefix_len() || subnet.last > all.last {
            return None;
        }
        match busy.overlap(&subnet) {
            None => return IpNet::new(Address { family: all.family, bits: first }.to_ip(), pool.prefix_len).ok(),
            Some(other) => first = (other.last | size_less_one).checked_add(1)?,
        }
    }
}

fn this_run(tables: &Tables<'_>) -> Result<u64, IpamError> {
    let noted = tables.note(RUN.0, RUN.1)?;
    Ok(noted.and_then(|n| String::from_utf8(n).ok()?.parse().ok()).unwrap_or(1))
}

fn all(tables: &Tables<'_>) -> Result<Vec<Pool>, IpamError> {
    Ok(decoded(tables.notes(NOTE)?))
}

fn decoded(notes: Vec<(String, Vec<u8>)>) -> Vec<Pool> {
    notes.into_iter().filter_map(|(_, value)| serde_json::from_slice(&value).ok()).collect()
}

fn find(tables: &Tables<'_>, id: &str) -> Result<Option<Pool>, IpamError> {
    Ok(tables.note(NOTE, id)?.and_then(|value| serde_json::from_slice(&value).ok()))
}

fn put(tables: &mut Tables<'_>, pool: &Pool) -> Result<(), IpamError> {
    let value = serde_json::to_vec(pool).map_err(|e| IpamError::Decode(e.to_string()))?;
    tables.set_note(NOTE, &pool.id, Some(&value))
}
