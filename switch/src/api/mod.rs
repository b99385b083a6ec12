//! The control API's server: gRPC on a unix socket.
//!
//! One [`Api`] answers every service; each area of `sluice.v1` has its file here. This is the only part of the crate
//! that knows tokio. The rest is threads, so whatever may wait (a device that opens, workers that are asked, a bundle)
//! runs where blocking is allowed, and a single async thread carries the connections.
//!
//! # Limits
//! A message has at most [`MAX_MESSAGE_LEN`] bytes, a bundle a million changes, a connection 64 calls at a time, the
//! server 64 watchers of events, connections and packets. Dumps are made in parts as the caller takes them.
//!
//! # Security
//! Whoever may open the socket (mode 0600) may do everything. There is no TCP, but for the [`page`] where an operator asks for it.

mod attachment;
mod bridge;
mod bundle;
mod capture;
mod ct;
mod error;
mod event;
mod fdb;
mod flow;
mod gateway;
mod group;
mod meter;
mod mirror;
mod packet;
pub mod page;
pub mod pcapng;
mod port;
mod router;
mod socket;
mod stats;
mod status;
mod table;
mod trace;
mod tunnel;
pub mod verdict;
mod watch;

pub use socket::{Socket, SocketError};
pub use trace::trace_reply;

use crate::Datapath;
use sluice_flows::bridge::Bridge;
use sluice_proto::v1::attachment_service_server::AttachmentServiceServer;
use sluice_proto::v1::bridge_service_server::BridgeServiceServer;
use sluice_proto::v1::capture_service_server::CaptureServiceServer;
use sluice_proto::v1::connection_service_server::ConnectionServiceServer;
use sluice_proto::v1::event_service_server::EventServiceServer;
use sluice_proto::v1::fdb_service_server::FdbServiceServer;
use sluice_proto::v1::flow_service_server::FlowServiceServer;
use sluice_proto::v1::gateway_service_server::GatewayServiceServer;
use sluice_proto::v1::group_service_server::GroupServiceServer;
use sluice_proto::v1::meter_service_server::MeterServiceServer;
use sluice_proto::v1::mirror_service_server::MirrorServiceServer;
use sluice_proto::v1::packet_service_server::PacketServiceServer;
use sluice_proto::v1::port_service_server::PortServiceServer;
use sluice_proto::v1::router_service_server::RouterServiceServer;
use sluice_proto::v1::stats_service_server::StatsServiceServer;
use sluice_proto::v1::status_service_server::StatusServiceServer;
use sluice_proto::v1::table_service_server::TableServiceServer;
use sluice_proto::v1::trace_service_server::TraceServiceServer;
use sluice_proto::v1::tunnel_service_server::TunnelServiceServer;
use sluice_proto::{FILE_DESCRIPTOR_SET, MAX_MESSAGE_LEN};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::Status;
use tonic::server::NamedService;
use tonic::transport::Server;

/// Calls at a time on one connection.
const MAX_CALLS: u32 = 64;
/// Watchers of events, connections and packets, over all connections: each has a thread.
const MAX_WATCHERS: usize = 64;
/// How long calls may still run once the server is to end.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of a call that may be under way before they are read: a bundle need not wait for each other message.
const WINDOW: u32 = 1 << 20;
/// Parts of a dump that wait for a slow reader.
const PARTS_WAITING: usize = 4;

/// Why the server ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system is out of threads or descriptors.
    #[error("cannot serve the control API: {0}")]
    System(#[from] io::Error),
    /// The transport failed.
    #[error("the control API failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the control API of `datapath` on `socket` until `shutdown` completes; calls still running then have two
/// seconds. Returns with the socket gone.
///
/// # Errors
/// The system or the transport failed.
pub async fn serve(datapath: Datapath, socket: Socket, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let (ending, ended) = tokio::sync::watch::channel(false);
    let api = Api {
        datapath,
        started: Instant::now(),
        ended: ended.clone(),
        watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
    };
    let incoming = UnixListenerStream::new(UnixListener::from_std(socket.listener()?)?);
    let mut until = ended;
    let server = router(&api).await.serve_with_incoming_shutdown(incoming, async move {
        // An error means that the sender is gone, which is an end as well.
        _ = until.wait_for(|ended| *ended).await;
    });
    let patience = async {
        shutdown.await;
        _ = ending.send(true);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = patience => Ok(()),
    }
}

/// Every service, with its limits, and health and reflection.
async fn router(api: &Api) -> tonic::transport::server::Router {
    macro_rules! limited {
        ($server:ident) => {
            $server::new(api.clone())
                .max_decoding_message_size(MAX_MESSAGE_LEN)
                .max_encoding_message_size(MAX_MESSAGE_LEN)
        };
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    // Named one by one: the descriptors tell of a service, too, that the cluster role serves, not the switch.
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
    macro_rules! serving {
        ($($server:ident),+) => { $(
            health.set_serving::<$server<Api>>().await;
            reflection = reflection.with_service_name(<$server<Api> as NamedService>::NAME);
        )+ };
    }
    serving!(BridgeServiceServer, PortServiceServer, FlowServiceServer, StatsServiceServer, FdbServiceServer);
    serving!(TraceServiceServer, PacketServiceServer, EventServiceServer, StatusServiceServer);
    serving!(GroupServiceServer, MeterServiceServer, TableServiceServer, ConnectionServiceServer);
    serving!(RouterServiceServer, CaptureServiceServer, TunnelServiceServer, GatewayServiceServer);
    serving!(AttachmentServiceServer, MirrorServiceServer);
    Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(health_service)
        // The descriptors are compiled in, and a test asks for them.
        .add_optional_service(reflection.build_v1().ok())
        .add_service(limited!(BridgeServiceServer))
        .add_service(limited!(PortServiceServer))
        .add_service(limited!(FlowServiceServer))
        .add_service(limited!(GroupServiceServer))
        .add_service(limited!(MeterServiceServer))
        .add_service(limited!(TableServiceServer))
        .add_service(limited!(StatsServiceServer))
        .add_service(limited!(FdbServiceServer))
        .add_service(limited!(TraceServiceServer))
        .add_service(limited!(PacketServiceServer))
        .add_service(limited!(EventServiceServer))
        .add_service(limited!(StatusServiceServer))
        .add_service(limited!(ConnectionServiceServer))
        .add_service(limited!(RouterServiceServer))
        .add_service(limited!(CaptureServiceServer))
        .add_service(limited!(TunnelServiceServer))
        .add_service(limited!(GatewayServiceServer))
        .add_service(limited!(AttachmentServiceServer))
        .add_service(limited!(MirrorServiceServer))
}

/// A server on a thread of its own, for programs that are not async. It ends on drop.
#[derive(Debug)]
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// Serves the control API of `datapath` on `path` from a thread of its own. Clients can connect when this returns.
///
/// # Errors
/// [`ServeError`]; nothing is left behind.
pub fn spawn(datapath: Datapath, path: &Path) -> Result<Running, ServeError> {
    let socket = Socket::bind(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("sluice-api".to_owned()).spawn(move || {
        let result = runtime.block_on(serve(datapath, socket, async {
            // An error means that `Running` is gone, which is an end as well.
            _ = stopped.await;
        }));
        runtime.shutdown_timeout(GRACE);
        result
    })?;
    Ok(Running { stop: Some(stop), thread: Some(thread) })
}

impl Running {
    /// Ends the server and waits for it.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ServeError> {
        // Both fail only when the thread has ended already.
        _ = self.stop.take().map(|stop| stop.send(()));
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("its thread panicked").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the control API did not end well");
        }
    }
}

/// What answers calls.
#[derive(Clone)]
struct Api {
    datapath: Datapath,
    started: Instant,
    /// True once the server is to end.
    ended: tokio::sync::watch::Receiver<bool>,
    /// One permit for each watcher.
    watchers: Arc<Semaphore>,
}

/// The stream that a dump or watch answers with.
type Parts<T> = ReceiverStream<Result<T, Status>>;

impl Api {
    /// Does work that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Datapath) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let datapath = self.datapath.clone();
        match tokio::task::spawn_blocking(move || work(&datapath)).await {
            Ok(result) => result,
            Err(error) => Err(Status::internal(format!("the request failed inside: {error}"))),
        }
    }

    /// Does work that gives its answer in parts. `send` returns false when nobody takes them any more.
    fn parts<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Datapath, &dyn Fn(T) -> bool) -> Result<(), Status> + Send + 'static,
    ) -> Parts<T> {
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let datapath = self.datapath.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(status) = work(&datapath, &|part| sender.blocking_send(Ok(part)).is_ok()) {
                // The caller may be gone.
                _ = sender.blocking_send(Err(status));
            }
        });
        ReceiverStream::new(receiver)
    }
}

/// The bridge that a request means: the one named, or the only one there is.
fn find_bridge(datapath: &Datapath, name: &str) -> Result<Arc<Bridge>, Status> {
    if !name.is_empty() {
        return datapath.bridge(name).map_err(error::status);
    }
    let mut bridges = datapath.bridges();
    match bridges.len() {
        0 => Err(Status::failed_precondition("the switch has no bridge yet; add one first")),
        1 => Ok(bridges.remove(0)),
        _ => {
            let names: Vec<_> = bridges.iter().map(|b| &*b.name).collect();
            Err(Status::invalid_argument(format!("which bridge? There are {}", names.join(", "))))
        }
    }
}

/// The name of the bridge that a request narrows its answer to, if it does.
fn only(name: &str) -> Option<&str> {
    Some(name).filter(|n| !n.is_empty())
}

/// A hardware address as text.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
