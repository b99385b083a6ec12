//! The addresses: Docker's IPAM protocol over the pools that the CNI plugin's store has.
//!
//! Docker asks again for pools and addresses when it starts (a replay), which begins with `Plugin.Activate`. What is asked
//! for again then is given again; the same address asked for twice in one run of Docker is refused the second time.

use super::driver::blocking;
use super::error::DriverError;
use super::network::address;
use super::wire::{ADDRESS_TYPE, AddressRequest, GATEWAY_ADDRESS, PoolReply, RequestPool};
use ipnet::IpNet;
use sluice_cni::ipam::{AddressUse, PoolRequest};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use tracing::warn;

/// The address space of networks of one host.
pub(crate) const LOCAL: &str = "sluice-local";
/// That of networks of several hosts.
pub(crate) const GLOBAL: &str = "sluice-global";
/// For how long an address that was given back is not given anew, in seconds: neighbours have forgotten it by then.
const COOLDOWN_S: u64 = 60;
/// What the store keeps with an address, for people.
const NAME: &str = "docker";

/// All pools.
#[derive(Debug)]
pub(crate) struct Pools(sluice_cni::ipam::Pools);

type Result<T> = std::result::Result<T, DriverError>;

impl Pools {
    /// The pools below the folder of the state.
    pub(crate) fn new(state: &Path) -> Self {
        Self(sluice_cni::ipam::Pools::new(&state.join("ipam")).with_cooldown(COOLDOWN_S))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&sluice_cni::ipam::Pools) -> std::result::Result<T, sluice_cni::ipam::IpamError> + Send + 'static,
    ) -> Result<T> {
        let pools = self.0.clone();
        blocking(move || work(&pools).map_err(|error| DriverError::Ipam(error.to_string()))).await
    }

    /// From now on Docker asks again for what it still wants.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn expect_replay(&self) -> Result<()> {
        self.with(|pools| match pools.list()?.is_empty() {
            // Nothing is made where nobody uses it.
            true => Ok(()),
            false => pools.begin_run(),
        })
        .await
    }

    /// `RequestPool`.
    pub(crate) async fn request(&self, request: RequestPool) -> Result<PoolReply> {
        if let Some(name) = request.options.keys().next() {
            return Err(DriverError::Ipam(format!("there is no --ipam-opt `{name}`; there is none at all")));
        }
        let net = |text: &str| Some(text).filter(|text| !text.is_empty()).map(address).transpose();
        let (subnet, range) =
            (net(&request.pool)?.map(|net| net.trunc()), net(&request.sub_pool)?.map(|net| net.trunc()));
        let space = if request.address_space == GLOBAL { GLOBAL } else { LOCAL };
        let v6 = request.v6;
        let pool = self
            .with(move |pools| {
                let in_use = if subnet.is_none() { host_nets() } else { Vec::new() };
                pools.request_pool(&PoolRequest { space, subnet, range, v6, in_use: &in_use, defaults: &[] })
            })
            .await?;
        Ok(PoolReply { pool_id: pool.id, pool: pool.subnet.to_string(), data: BTreeMap::new() })
    }

    /// `ReleasePool`; fine if there is none.
    pub(crate) async fn release(&self, request: AddressRequest) -> Result<()> {
        self.with(move |pools| pools.release_pool(&request.pool_id).map(drop)).await
    }

    /// `RequestAddress`: the address with the network's prefix.
    pub(crate) async fn request_address(&self, request: AddressRequest) -> Result<IpNet> {
        let gateway = request.options.get(ADDRESS_TYPE).and_then(|v| v.as_str()) == Some(GATEWAY_ADDRESS);
        let for_what = if gateway { AddressUse::Gateway } else { AddressUse::Endpoint };
        let wanted = Some(&request.address).filter(|text| !text.is_empty());
        let wanted = wanted.map(|text| plain(text)).transpose()?;
        self.with(move |pools| pools.request_address(&request.pool_id, wanted, for_what, NAME)).await
    }

    /// `ReleaseAddress`; fine if it is not taken.
    pub(crate) async fn release_address(&self, request: AddressRequest) -> Result<()> {
        let ip = plain(&request.address)?;
        self.with(move |pools| pools.release_address(&request.pool_id, ip).map(drop)).await
    }
}

/// Docker gives addresses with and without a prefix.
fn plain(text: &str) -> Result<IpAddr> {
    text.parse().or_else(|_| address(text).map(|net| net.addr()))
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

    fn of(pool_id: &str, address: &str) -> AddressRequest {
        AddressRequest { pool_id: pool_id.into(), address: address.into(), ..AddressRequest::default() }
    }

    #[test]
    fn an_address_is_given_once_in_a_run_of_docker_and_again_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::new(folder.path());
        let wanted = || RequestPool { pool: "10.9.0.0/16".into(), ..RequestPool::default() };
        let id = block(pools.request(wanted())).unwrap().pool_id;
        assert_eq!(block(pools.request_address(of(&id, "10.9.0.7"))).unwrap().to_string(), "10.9.0.7/16");
        let error = block(Pools::new(folder.path()).request_address(of(&id, "10.9.0.7"))).unwrap_err();
        assert!(error.to_string().contains("10.9.0.7"), "{error}");
        block(pools.expect_replay()).unwrap();
        block(pools.request(wanted())).unwrap();
        assert_eq!(block(pools.request_address(of(&id, "10.9.0.7/16"))).unwrap().to_string(), "10.9.0.7/16");
        block(pools.release_address(of(&id, "10.9.0.7"))).unwrap();
        block(pools.release(of(&id, ""))).unwrap();
        block(pools.release(of(&id, ""))).unwrap();
        assert!(block(pools.request_address(of(&id, ""))).is_err());
    }

    #[test]
    fn a_plugin_that_gives_no_addresses_writes_nothing_about_them() {
        let folder = tempfile::tempdir().unwrap();
        block(Pools::new(folder.path()).expect_replay()).unwrap();
        assert!(!folder.path().join("ipam").exists());
    }
}
