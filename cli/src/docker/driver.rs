//! The network driver: what each method of libnetwork's protocol does.
//!
//! Rules:
//! - Each method may be called twice, and in any order: Docker calls again after a lost answer, and forgets to call after
//!   a crash. What removes is content with nothing to remove.
//! - What a method wants is on disk before it changes anything, so that the next start can finish it or take it back.
//! - One method at a time changes something. Waiting for a switch that is away is done before, so that it holds up
//!   nobody else.

use super::endpoint::{Endpoint, PREFIX, Published};
use super::error::DriverError;
use super::link;
use super::network::{GatewayPlace, Network, name_of, short};
use super::publish::{asked, choose, is_used, taken};
use super::store::{Store, check_id};
use super::switch::Switch;
use super::wire::{CreateNetwork, EndpointRequest, Interface, InterfaceName, JoinReply, NetworkOnly, PortBinding};
use sluice_proto::v1::PortMappings;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::Mutex;
use tracing::{info, warn};

/// Times that a port which was free is chosen anew because somebody else was faster.
const TRIES: usize = 3;

/// The driver.
#[derive(Debug)]
pub(crate) struct Driver {
    /// The switch.
    pub(super) switch: Switch,
    /// What is known, and the right to change something.
    pub(super) store: Mutex<Store>,
}

type Result<T> = std::result::Result<T, DriverError>;

/// Runs what may wait for the kernel or a disk outside the threads that answer.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            warn!(%error, "a task ended by itself");
            Err(DriverError::Lost)
        }
    }
}

impl Driver {
    /// A driver of this switch that knows what `store` does.
    pub(crate) fn new(switch: Switch, store: Store) -> Self {
        Self { switch, store: Mutex::new(store) }
    }

    /// Waits for a switch that is away.
    async fn wait(&self) -> Result<()> {
        self.switch.run().await.map(drop)
    }

    /// `CreateNetwork`.
    pub(crate) async fn create_network(&self, request: CreateNetwork) -> Result<()> {
        check_id(&request.network_id)?;
        let network = Network::of(&request)?;
        self.wait().await?;
        let mut store = self.store.lock().await;
        if store.networks().any(|other| other.id != network.id && short(&other.id) == short(&network.id)) {
            return Err(DriverError::SameId(short(&network.id).to_owned()));
        }
        store.put_network(network.clone())?;
        if let Err(error) = self.declare(&network).await {
            self.forget(&mut store, &network).await;
            return Err(error);
        }
        info!(network = network.name(), bridge = network.bridge_name(), "network created");
        Ok(())
    }

    /// Declares a network to the switch, with its tunnels.
    pub(super) async fn declare(&self, network: &Network) -> Result<()> {
        self.switch.put_network(&network.spec()).await?;
        let tunnels = network.tunnels();
        if tunnels.is_empty() {
            return Ok(());
        }
        let there = self.switch.ports().await?;
        for tunnel in tunnels {
            let same = |port: &sluice_proto::v1::Port| port.spec.as_ref().is_some_and(|spec| spec.name == tunnel.name);
            if !there.iter().any(same) {
                self.switch.add_port(&tunnel).await?;
            }
        }
        Ok(())
    }

    /// Takes back what `create_network` did. What cannot be taken back now is found at the next start.
    async fn forget(&self, store: &mut Store, network: &Network) {
        let quick = self.switch.at_once();
        for tunnel in network.tunnels() {
            _ = quick.delete_port(&tunnel.bridge, &tunnel.name).await;
        }
        _ = quick.delete_network(&network.name()).await;
        if let Err(error) = store.remove_network(&network.id) {
            warn!(%error, "a network that was not created stays on disk");
        }
    }

    /// `DeleteNetwork`.
    pub(crate) async fn delete_network(&self, request: NetworkOnly) -> Result<()> {
        check_id(&request.network_id)?;
        self.wait().await?;
        let mut store = self.store.lock().await;
        // Docker removes a network when nothing is in it: what is left of it here, Docker has forgotten.
        let left: Vec<_> = store.endpoints().filter(|e| e.network == request.network_id).cloned().collect();
        for endpoint in left {
            self.unplug(&endpoint).await?;
            store.remove_endpoint(&endpoint.id)?;
        }
        if let Ok(network) = store.network(&request.network_id) {
            for tunnel in network.tunnels() {
                self.switch.delete_port(&tunnel.bridge, &tunnel.name).await?;
            }
        }
        let name = name_of(&request.network_id);
        self.switch.delete_network(&name).await?;
        store.remove_network(&request.network_id)?;
        info!(network = name, "network deleted");
        Ok(())
    }

    /// `CreateEndpoint`.
    pub(crate) async fn create_endpoint(&self, request: EndpointRequest) -> Result<Interface> {
        check_id(&request.endpoint_id)?;
        let endpoint = Endpoint::of(&request)?;
        // What makes no sense is told before anything is made.
        asked(&request.options)?;
        let mut store = self.store.lock().await;
        let network = store.network(&request.network_id)?;
        for address in &endpoint.addresses {
            if !network.subnets.is_empty() && !network.subnets.iter().any(|net| net.contains(&address.addr())) {
                return Err(DriverError::Foreign { address: address.addr(), network: network.name() });
            }
        }
        let answer = match request.interface.mac_address.is_empty() {
            true => Interface { mac_address: endpoint.mac.clone(), ..Interface::default() },
            false => Interface::default(),
        };
        let again = store.endpoint(&endpoint.id).is_ok_and(|old| old.sandbox.is_some());
        if !again {
            store.put_endpoint(endpoint)?;
        }
        Ok(answer)
    }

    /// `DeleteEndpoint`.
    pub(crate) async fn delete_endpoint(&self, request: EndpointRequest) -> Result<()> {
        let mut store = self.store.lock().await;
        let Ok(endpoint) = store.endpoint(&request.endpoint_id).cloned() else { return Ok(()) };
        self.unplug(&endpoint).await?;
        store.remove_endpoint(&endpoint.id)
    }

    /// `EndpointOperInfo`.
    pub(crate) async fn endpoint_info(&self, request: EndpointRequest) -> Result<BTreeMap<String, serde_json::Value>> {
        Ok(self.store.lock().await.endpoint(&request.endpoint_id)?.info())
    }

    /// `Join`.
    pub(crate) async fn join(&self, request: EndpointRequest) -> Result<JoinReply> {
        self.wait().await?;
        let mut store = self.store.lock().await;
        let network = store.network(&request.network_id)?.clone();
        let mut endpoint = store.endpoint(&request.endpoint_id)?.clone();
        let mtu = self.switch.ready(&network.spec()).await?;
        endpoint.sandbox = Some(request.sandbox_key);
        endpoint.published.clear();
        store.put_endpoint(endpoint.clone())?;
        if let Err(error) = self.plug(&network, &endpoint, network.mtu.unwrap_or(mtu)).await {
            // The first error is the one to tell; Docker asks to leave as well, and the next start looks again.
            if let Err(error) = self.unplug(&endpoint).await {
                warn!(%error, endpoint = short(&endpoint.id), "what was made stays until it leaves");
            }
            endpoint.sandbox = None;
            store.put_endpoint(endpoint)?;
            return Err(error);
        }
        info!(network = network.name(), port = endpoint.link(), addresses = ?endpoint.addresses, "joined");
        Ok(Self::answer(&network, &endpoint))
    }

    /// Makes the pair and attaches it, in place of one that may be there.
    async fn plug(&self, network: &Network, endpoint: &Endpoint, mtu: u32) -> Result<()> {
        self.switch.detach(&endpoint.key()).await?;
        let of = endpoint.clone();
        blocking(move || link::make(&of, mtu)).await?;
        self.switch.attach(&network.spec(), &endpoint.spec(network)).await
    }

    /// Takes an endpoint's attachment and pair away; fine if there are none.
    pub(super) async fn unplug(&self, endpoint: &Endpoint) -> Result<()> {
        // The pair goes whatever the switch says: a switch that is away finds at its start that it is gone.
        let detached = self.switch.at_once().detach(&endpoint.key()).await;
        let of = endpoint.clone();
        blocking(move || link::remove(&of)).await?;
        match detached {
            Err(DriverError::Away { .. }) => Ok(()),
            other => other,
        }
    }

    fn answer(network: &Network, endpoint: &Endpoint) -> JoinReply {
        let router = |v4: bool| {
            let own = endpoint.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
            own.and_then(|own| network.router_of(*own)).as_ref().map(IpAddr::to_string).unwrap_or_default()
        };
        let (gateway, gateway_ipv6) = (router(true), router(false));
        JoinReply {
            interface_name: InterfaceName { src_name: endpoint.peer(), dst_prefix: PREFIX },
            disable_gateway_service: gateway.is_empty() && gateway_ipv6.is_empty(),
            gateway,
            gateway_ipv6,
        }
    }

    /// `Leave`.
    pub(crate) async fn leave(&self, request: EndpointRequest) -> Result<()> {
        let mut store = self.store.lock().await;
        let Ok(mut endpoint) = store.endpoint(&request.endpoint_id).cloned() else { return Ok(()) };
        self.unplug(&endpoint).await?;
        endpoint.sandbox = None;
        endpoint.published.clear();
        info!(port = endpoint.link(), "left");
        store.put_endpoint(endpoint)
    }

    /// `ProgramExternalConnectivity`: Docker says by it which of a container's networks its published ports lead to.
    pub(crate) async fn publish(&self, request: EndpointRequest) -> Result<()> {
        let bindings = asked(&request.options)?;
        if bindings.is_empty() {
            return self.revoke(request).await;
        }
        self.wait().await?;
        let mut store = self.store.lock().await;
        let network = store.network(&request.network_id)?;
        if network.gateway != GatewayPlace::Host {
            return Err(DriverError::NotOnHost(network.name()));
        }
        let mut endpoint = store.endpoint(&request.endpoint_id)?.clone();
        let mut tries = 0;
        loop {
            tries += 1;
            let taken = taken(&self.switch.attachments().await?, &endpoint.id);
            let wanted = bindings.clone();
            endpoint.published = blocking(move || choose(&wanted, &taken, is_used)).await?;
            match self.set_published(&endpoint).await {
                Err(DriverError::Refused(_)) if tries < TRIES && bindings.iter().any(PortBinding::leaves_a_choice) => {}
                other => break other?,
            }
        }
        let ports: Vec<_> = endpoint.published.iter().map(ToString::to_string).collect();
        info!(port = endpoint.link(), published = ports.join(" "), "ports published");
        store.put_endpoint(endpoint)
    }

    /// `RevokeExternalConnectivity`.
    pub(crate) async fn revoke(&self, request: EndpointRequest) -> Result<()> {
        let mut store = self.store.lock().await;
        let Ok(mut endpoint) = store.endpoint(&request.endpoint_id).cloned() else { return Ok(()) };
        if endpoint.published.is_empty() {
            return Ok(());
        }
        endpoint.published.clear();
        match self.set_published(&endpoint).await {
            // It has no ports without the switch, and the switch gets none from what is on disk.
            Err(DriverError::Away { .. } | DriverError::Refused(_)) | Ok(()) => store.put_endpoint(endpoint),
            Err(error) => Err(error),
        }
    }

    async fn set_published(&self, endpoint: &Endpoint) -> Result<()> {
        let mappings = endpoint.published.iter().map(Published::mapping).collect();
        self.switch.publish(&endpoint.key(), &PortMappings { mappings }).await
    }
}
