//! The addresses: Docker's IPAM protocol over [`Pool`]s, one file each.
//!
//! Docker asks again for pools and addresses when it starts (a replay), which begins with `Plugin.Activate`. From then on
//! all that is on disk is doubtful until it was asked for again: so an address that is wanted twice is refused, but one
//! that is wanted again after a restart is not, and what a crash of Docker left behind is used once the rest is used up.

mod pool;

use super::error::DriverError;
use super::network::address;
use super::store::Folder;
use super::wire::{ADDRESS_TYPE, AddressRequest, GATEWAY_ADDRESS, PoolReply, RequestPool};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pool::{Pool, overlap};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use tokio::sync::Mutex;
use tracing::warn;

/// The address space of networks of one host.
pub(crate) const LOCAL: &str = "sluicelocal";
/// That of networks of several hosts.
pub(crate) const GLOBAL: &str = "sluiceglobal";
/// Networks that are tried when none is asked for.
const DEFAULTS: u8 = 100;

/// All pools.
#[derive(Debug)]
pub(crate) struct Pools {
    all: Mutex<(Folder, BTreeMap<String, Pool>)>,
}

type Result<T> = std::result::Result<T, DriverError>;

impl Pools {
    /// The pools below the folder of the state.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let folder = Folder::open(&state.join("pools"))?;
        let all = folder.read()?;
        Ok(Self { all: Mutex::new((folder, all)) })
    }

    /// From now on Docker asks again for what it still wants.
    pub(crate) async fn expect_replay(&self) {
        self.all.lock().await.1.values_mut().for_each(Pool::doubt);
    }

    /// `RequestPool`.
    pub(crate) async fn request(&self, request: RequestPool) -> Result<PoolReply> {
        if let Some(name) = request.options.keys().next() {
            return Err(DriverError::Ipam(format!("there is no --ipam-opt `{name}`; there is none at all")));
        }
        let space = if request.address_space == GLOBAL { GLOBAL } else { LOCAL };
        let mut all = self.all.lock().await;
        let (folder, pools) = &mut *all;
        let net = match request.pool.is_empty() {
            true => default_net(pools, request.v6)?,
            false => address(&request.pool)?.trunc(),
        };
        let part = Some(&request.sub_pool).filter(|part| !part.is_empty());
        let part = part.map(|part| address(part)).transpose()?.map(|part| part.trunc());
        if let Some(part) = part.filter(|part| !net.contains(part)) {
            return Err(DriverError::Ipam(format!("--ip-range {part} is not inside of --subnet {net}")));
        }
        let new = Pool::new(space, net, part);
        make_room(folder, pools, &new)?;
        let mut pool = pools.get(&new.id).cloned().unwrap_or(new);
        pool.users = pool.users.saturating_add(1);
        let answer = PoolReply { pool_id: pool.id.clone(), pool: net.to_string(), data: BTreeMap::new() };
        folder.write(&pool.id, &pool)?;
        pools.insert(pool.id.clone(), pool);
        Ok(answer)
    }

    /// `ReleasePool`; fine if there is none.
    pub(crate) async fn release(&self, request: AddressRequest) -> Result<()> {
        let mut all = self.all.lock().await;
        let (folder, pools) = &mut *all;
        let Some(pool) = pools.get_mut(&request.pool_id) else { return Ok(()) };
        pool.users = pool.users.saturating_sub(1);
        if pool.users > 0 {
            return folder.write(&pool.id, pool);
        }
        folder.remove(&request.pool_id)?;
        pools.remove(&request.pool_id);
        Ok(())
    }

    /// `RequestAddress`: the address with the network's prefix.
    pub(crate) async fn request_address(&self, request: AddressRequest) -> Result<IpNet> {
        let gateway = request.options.get(ADDRESS_TYPE).and_then(|v| v.as_str()) == Some(GATEWAY_ADDRESS);
        let wanted = Some(&request.address).filter(|text| !text.is_empty());
        let wanted = wanted.map(|text| plain(text)).transpose()?;
        let mut all = self.all.lock().await;
        let (folder, pools) = &mut *all;
        let unknown = || DriverError::Ipam(format!("pool {} is not known; create the network again", request.pool_id));
        let mut pool = pools.get(&request.pool_id).cloned().ok_or_else(unknown)?;
        let taken = pool.take(wanted, gateway)?;
        folder.write(&pool.id, &pool)?;
        pools.insert(pool.id.clone(), pool);
        Ok(taken)
    }

    /// `ReleaseAddress`; fine if it is not taken.
    pub(crate) async fn release_address(&self, request: AddressRequest) -> Result<()> {
        let ip = plain(&request.address)?;
        let mut all = self.all.lock().await;
        let (folder, pools) = &mut *all;
        let Some(pool) = pools.get_mut(&request.pool_id) else { return Ok(()) };
        pool.give_back(ip);
        folder.write(&pool.id, pool)
    }
}

/// Docker gives addresses with and without a prefix.
fn plain(text: &str) -> Result<IpAddr> {
    text.parse().or_else(|_| address(text).map(|net| net.addr()))
}

/// Refuses a pool that overlaps another one of its space, unless that is of a Docker that has forgotten it, or both are
/// apart in one network.
fn make_room(folder: &Folder, pools: &mut BTreeMap<String, Pool>, new: &Pool) -> Result<()> {
    let apart = |other: &Pool| match (new.part, other.part) {
        (Some(a), Some(b)) => new.net == other.net && !overlap(a, b),
        _ => false,
    };
    let in_the_way =
        |other: &&Pool| other.id != new.id && other.space == new.space && overlap(other.net, new.net) && !apart(other);
    let others: Vec<_> =
        pools.values().filter(in_the_way).map(|other| (other.id.clone(), other.net, other.users)).collect();
    if let Some((_, net, _)) = others.iter().find(|(_, _, users)| *users > 0) {
        let new = new.net;
        return Err(DriverError::Ipam(format!(
            "{new} overlaps {net}, which another network has; give another --subnet"
        )));
    }
    for (id, ..) in others {
        folder.remove(&id)?;
        pools.remove(&id);
    }
    Ok(())
}

/// A network that neither a pool nor the host has.
fn default_net(pools: &BTreeMap<String, Pool>, v6: bool) -> Result<IpNet> {
    let host = host_nets();
    let free =
        |net: &IpNet| !pools.values().map(|p| p.net).chain(host.iter().copied()).any(|other| overlap(other, *net));
    let nth = |n: u8| match v6 {
        true => {
            Ipv6Net::new(Ipv6Addr::new(0xfd73, 0x6c75, 0x6963, 0xd000 + u16::from(n), 0, 0, 0, 0), 64).map(IpNet::V6)
        }
        false => Ipv4Net::new(Ipv4Addr::new(10, 128 + n, 0, 0), 16).map(IpNet::V4),
    };
    let none = || DriverError::Ipam("no network is free any more; give one with --subnet".to_owned());
    (0..DEFAULTS).filter_map(|n| nth(n).ok()).find(free).ok_or_else(none)
}

/// The networks that the host has addresses of.
fn host_nets() -> Vec<IpNet> {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            warn!(%error, "the host's addresses are not known");
            return Vec::new();
        }
    };
    let net = |interface: nix::ifaddrs::InterfaceAddress| {
        let (address, mask) = (interface.address?, interface.netmask?);
        if let (Some(ip), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            return IpNet::with_netmask(ip.ip().into(), mask.ip().into()).ok();
        }
        IpNet::with_netmask(address.as_sockaddr_in6()?.ip().into(), mask.as_sockaddr_in6()?.ip().into()).ok()
    };
    interfaces.filter_map(net).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn pool(pools: &Pools, net: &str, part: &str) -> Result<String> {
        let request = RequestPool { pool: net.into(), sub_pool: part.into(), ..RequestPool::default() };
        block(pools.request(request)).map(|answer| answer.pool_id)
    }

    fn of(pool_id: &str, address: &str) -> AddressRequest {
        AddressRequest { pool_id: pool_id.into(), address: address.into(), ..AddressRequest::default() }
    }

    #[test]
    fn pools_outlive_the_process_and_end_with_their_last_network() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::open(folder.path()).unwrap();
        let id = pool(&pools, "10.9.0.0/16", "").unwrap();
        assert_eq!(pool(&pools, "10.9.0.0/16", "").unwrap(), id);
        assert_eq!(block(pools.request_address(of(&id, ""))).unwrap().to_string(), "10.9.0.1/16");
        let pools = Pools::open(folder.path()).unwrap();
        assert!(block(pools.request_address(of(&id, "10.9.0.1"))).is_err());
        block(pools.release(of(&id, ""))).unwrap();
        block(pools.release_address(of(&id, "10.9.0.1"))).unwrap();
        assert_eq!(block(pools.request_address(of(&id, "10.9.0.1"))).unwrap().to_string(), "10.9.0.1/16");
        block(pools.release(of(&id, ""))).unwrap();
        block(pools.release(of(&id, ""))).unwrap();
        assert!(block(pools.request_address(of(&id, ""))).unwrap_err().to_string().contains("not known"));
        assert_eq!(std::fs::read_dir(folder.path().join("pools")).unwrap().count(), 0);
    }

    #[test]
    fn networks_that_overlap_are_refused_unless_docker_has_forgotten_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::open(folder.path()).unwrap();
        pool(&pools, "10.9.0.0/16", "10.9.1.0/24").unwrap();
        assert!(pool(&pools, "10.9.0.0/24", "").unwrap_err().to_string().contains("overlaps 10.9.0.0/16"));
        assert!(pool(&pools, "10.9.0.0/16", "10.9.2.0/24").is_ok());
        assert!(pool(&pools, "10.9.0.0/16", "10.9.0.0/22").is_err());
        block(pools.expect_replay());
        assert!(pool(&pools, "10.9.0.0/24", "").is_ok());
    }

    #[test]
    fn a_network_that_nobody_asked_for_is_free_on_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::open(folder.path()).unwrap();
        let nets = [pool(&pools, "", "").unwrap(), pool(&pools, "", "").unwrap()];
        assert_ne!(nets[0], nets[1]);
        let v6 = RequestPool { v6: true, ..RequestPool::default() };
        assert!(block(pools.request(v6)).unwrap().pool.ends_with("::/64"));
    }
}
