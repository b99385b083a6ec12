//! What is done at the start, and whenever another run of the switch is found: memory, switch and kernel are made to
//! agree.
//!
//! Docker tells a driver nothing after a restart of either, so the files say what Docker wants, and the kernel says what
//! of it is still alive: a container that ended took its end of the pair with it.
//!
//! | file | pair | what is done |
//! |---|---|---|
//! | joined | other end in a container | attached, unless it is |
//! | joined | gone | the container ended while nobody was told: detached, file removed |
//! | joined | both ends here | the answer to Docker was lost: taken away; the endpoint may join again |
//! | not joined | gone | stays: Docker joins it next, or removes it with its network |
//! | none | marked as this driver's | removed |
//!
//! Networks of the files are declared; networks and attachments of this driver's kind that are not in the files are
//! removed.

use super::driver::{Driver, blocking};
use super::endpoint::Endpoint;
use super::error::DriverError;
use super::link::{Links, Pair};
use super::network::{KIND, Network, is_tunnel};
use super::store::Store;
use super::switch::Run;
use sluice_proto::v1::attachment_spec::Device;
use sluice_proto::v1::{Attachment, AttachmentKey};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often the switch is asked whether it is still the same run.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Result<T> = std::result::Result<T, DriverError>;

impl Driver {
    /// Sweeps once for each run of the switch, for ever.
    pub(crate) async fn watch(&self) {
        let mut last: Option<Run> = None;
        let mut away = false;
        loop {
            match self.switch.at_once().run().await {
                Ok(run) => {
                    away = false;
                    let same = last.is_some_and(|last| last.pid == run.pid && last.uptime_ms <= run.uptime_ms);
                    if same {
                        last = Some(run);
                    } else {
                        match self.sweep().await {
                            Ok(()) => last = Some(run),
                            Err(error) => warn!(%error, "the switch has not got all of it; trying again"),
                        }
                    }
                }
                Err(error) => {
                    if !away {
                        warn!(%error, "waiting for the switch");
                    }
                    away = true;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Sweeps, unless the switch is away.
    ///
    /// # Errors
    /// It is, or the sweep failed.
    pub(crate) async fn sweep_at_once(&self) -> Result<()> {
        self.switch.at_once().run().await?;
        self.sweep().await
    }

    /// Makes memory, switch and kernel agree.
    ///
    /// # Errors
    /// The switch went away, or the state cannot be read or written. What one network or endpoint lacks is logged, and
    /// is none.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let mut store = self.store.lock().await;
        for network in store.networks() {
            match self.declare(network).await {
                Err(error @ DriverError::Away { .. }) => return Err(error),
                Err(error) => warn!(%error, network = network.name(), "the network is not in force"),
                Ok(()) => {}
            }
        }
        let attached = self.switch.attachments().await?;
        let all: Vec<Endpoint> = store.endpoints().cloned().collect();
        for endpoint in all {
            self.sweep_endpoint(&mut store, endpoint, &attached).await?;
        }
        self.sweep_switch(&store, &attached).await?;
        let known: BTreeSet<String> = store.endpoints().map(Endpoint::link).collect();
        let lost = blocking(move || Links::read()?.sweep(|name| known.contains(name))).await?;
        lost.iter().for_each(|link| info!(link, "an interface that nobody knows was removed"));
        Ok(())
    }

    async fn sweep_endpoint(&self, store: &mut Store, endpoint: Endpoint, attached: &[Attachment]) -> Result<()> {
        let of = endpoint.clone();
        let pair = blocking(move || Ok(Links::read()?.pair(&of))).await?;
        let joined = endpoint.sandbox.is_some();
        match pair {
            Pair::Joined if joined => {
                let key = endpoint.key();
                let is_own = |a: &Attachment| a.spec.as_ref().is_some_and(|s| s.container_id == key.container_id);
                if attached.iter().any(|a| is_own(a) && a.fault.is_empty()) {
                    return Ok(());
                }
                let Ok(network) = store.network(&endpoint.network) else {
                    // Without a network Docker cannot know it either.
                    self.unplug(&endpoint).await?;
                    return store.remove_endpoint(&endpoint.id);
                };
                let again = async {
                    self.switch.detach(&key).await?;
                    self.switch.attach(&network.spec(), &endpoint.spec(network)).await
                };
                match again.await {
                    Err(error @ DriverError::Away { .. }) => Err(error),
                    Err(error) => {
                        warn!(%error, port = endpoint.link(), "a container is not attached");
                        Ok(())
                    }
                    Ok(()) => {
                        info!(port = endpoint.link(), "attached again");
                        Ok(())
                    }
                }
            }
            Pair::Gone if joined => {
                self.unplug(&endpoint).await?;
                info!(port = endpoint.link(), "its container is gone");
                store.remove_endpoint(&endpoint.id)
            }
            Pair::Gone => Ok(()),
            Pair::Here | Pair::Joined => {
                self.unplug(&endpoint).await?;
                store.put_endpoint(Endpoint { sandbox: None, published: Vec::new(), ..endpoint })
            }
        }
    }

    /// Removes from the switch what is this driver's and in no file.
    async fn sweep_switch(&self, store: &Store, attached: &[Attachment]) -> Result<()> {
        let networks = self.switch.networks().await?;
        let of_kind = |name: &str| {
            networks.iter().filter_map(|n| n.spec.as_ref()).any(|spec| spec.name == name && spec.kind == KIND)
        };
        for spec in attached.iter().filter_map(|a| a.spec.as_ref()) {
            if !of_kind(&spec.network) || store.endpoint(&spec.container_id).is_ok() {
                continue;
            }
            let key = AttachmentKey {
                network: spec.network.clone(),
                container_id: spec.container_id.clone(),
                ifname: spec.ifname.clone(),
            };
            self.switch.detach(&key).await?;
            if let Some(Device::Veth(veth)) = &spec.device {
                info!(port = veth.interface, "an attachment that nobody knows was removed");
            }
        }
        let known: BTreeSet<String> = store.networks().map(Network::name).collect();
        for spec in networks.iter().filter_map(|n| n.spec.as_ref()) {
            if spec.kind == KIND && !known.contains(&spec.name) {
                self.switch.delete_network(&spec.name).await?;
                info!(network = spec.name, "a network that nobody knows was removed");
            }
        }
        let tunnels: BTreeSet<String> = store.networks().flat_map(Network::tunnels).map(|port| port.name).collect();
        for spec in self.switch.ports().await?.into_iter().filter_map(|port| port.spec) {
            if spec.r#type == "vxlan" && is_tunnel(&spec.name) && !tunnels.contains(&spec.name) {
                self.switch.delete_port(&spec.bridge, &spec.name).await?;
                info!(port = spec.name, "a tunnel that nobody knows was removed");
            }
        }
        Ok(())
    }
}
