//! Endpoints: the sockets by which several tunnel ports receive and send.

use super::TunnelOptions;
use crate::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue};
use sluice_flows::DpPort;
use sluice_flows::tunnel::{Tunnel, TunnelKind};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which tunnel ports share an endpoint: those of one kind and UDP port in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    /// The namespace's inode.
    pub namespace: u64,
    /// The encapsulation.
    pub kind: TunnelKind,
    /// The UDP port; 0 for what is not in UDP.
    pub port: u16,
}

/// A tunnel port that was asked for, before it has an endpoint.
#[derive(Debug)]
pub struct TunnelPort {
    name: String,
    options: TunnelOptions,
    namespace: u64,
}

impl TunnelPort {
    /// A tunnel port in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::Io`] when the namespace cannot be told.
    pub fn new(name: &str, options: TunnelOptions) -> Result<Self, PortError> {
        Ok(Self { name: name.to_owned(), options, namespace: 0 })
    }

    /// The endpoint that it needs.
    pub fn endpoint(&self) -> EndpointId {
        let port = self.options.port.unwrap_or(0);
        EndpointId { namespace: self.namespace, kind: self.options.kind, port }
    }

    /// Makes it the port `dp` of the switch, one of those that share `endpoint`.
    ///
    /// # Errors
    /// When another port of the endpoint takes the same packets.
    pub fn attach(self, endpoint: &Arc<Endpoint>, dp: DpPort) -> Result<TunnelDevice, PortError> {
        endpoint.ports.fetch_add(1, Ordering::Relaxed);
        Ok(TunnelDevice {
            device: Device::without_link(&self.name, None, u32::from(u16::MAX)),
            options: self.options,
            endpoint: Arc::clone(endpoint),
            dp,
        })
    }
}

/// The sockets by which several tunnel ports receive and send.
#[derive(Debug)]
pub struct Endpoint {
    ports: AtomicUsize,
}

impl Endpoint {
    /// Opens the sockets that `port` needs, for `workers` workers.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn open(port: &TunnelPort, _workers: usize) -> Result<Self, PortError> {
        Err(PortError::from_io(&port.name, "open the tunnel's sockets", io::ErrorKind::Unsupported.into()))
    }

    /// One receiving queue for each worker.
    ///
    /// # Errors
    /// The system's.
    pub fn queues(&self) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        Ok(Vec::new())
    }

    /// Whether no port uses it any more.
    pub fn is_unused(&self) -> bool {
        self.ports.load(Ordering::Relaxed) == 0
    }
}

/// A tunnel port of the switch.
#[derive(Debug)]
pub struct TunnelDevice {
    device: Device,
    options: TunnelOptions,
    endpoint: Arc<Endpoint>,
    dp: DpPort,
}

impl Port for TunnelDevice {
    fn kind(&self) -> PortKind {
        PortKind::Tunnel(self.options.kind)
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn tunnel(&self) -> Option<Arc<Tunnel>> {
        Some(Arc::new(self.options.tunnel()))
    }

    fn queues(&self, _count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let _ = self.dp;
        Ok(Vec::new())
    }
}

impl Drop for TunnelDevice {
    fn drop(&mut self) {
        self.endpoint.ports.fetch_sub(1, Ordering::Relaxed);
    }
}
