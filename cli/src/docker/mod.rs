//! Sluice as a network driver of Docker: networks of `docker network create -d sluice` are networks of the switch.
//!
//! Docker speaks libnetwork's remote driver and IPAM protocol (JSON over HTTP, [`wire`], [`server`]) on a socket that it
//! finds by name. The driver ([`driver`]) keeps what Docker told it on disk ([`store`]), makes the veth pairs of
//! endpoints ([`link`]), and has the switch take them ([`switch`]) by the same API as the CNI plugin does. What both may
//! have missed of each other while one was away is put right by [`sweep`].
//!
//! Limits: scope local (no swarm); one driver for each switch.

mod driver;
mod endpoint;
mod error;
mod ipam;
mod link;
mod network;
mod publish;
mod server;
mod store;
mod sweep;
mod switch;
mod wire;

pub(crate) use endpoint::Endpoint;
pub(crate) use error::DriverError;
pub(crate) use network::Network;
pub(crate) use store::Store;
pub(crate) use switch::Switch;

use driver::Driver;
use ipam::Pools;
use server::Plugin;
use sluice_switch::systemd;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The switch's socket.
    pub(crate) switch: PathBuf,
    /// The plugin's.
    pub(crate) plugin: PathBuf,
    /// The folder of what survives.
    pub(crate) state: PathBuf,
}

/// Serves until it is asked to end.
///
/// # Errors
/// The state or the socket cannot be used.
pub(crate) async fn serve(paths: &Paths) -> Result<(), DriverError> {
    let failed = |what| move |source| DriverError::File { what, path: paths.plugin.clone(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("take signals for"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("take signals for"))?;
    let driver = Arc::new(Driver::new(Switch::at(&paths.switch)?, Store::open(&paths.state)?));
    let plugin = Plugin { driver: Arc::clone(&driver), pools: Arc::new(Pools::new(&paths.state)) };
    // Docker is answered about what is, not about what was.
    if let Err(error) = driver.sweep_at_once().await {
        warn!(%error, "what was missed meanwhile is put right when the switch is there");
    }
    let listener = bind(&paths.plugin).map_err(failed("listen on"))?;
    let watch = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.watch().await }
    });
    info!(plugin = %paths.plugin.display(), switch = %paths.switch.display(), state = %paths.state.display(), "ready");
    systemd::notify("READY=1");
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("ending");
        systemd::notify("STOPPING=1");
    };
    let result = axum::serve(listener, server::router(plugin)).with_graceful_shutdown(end).await;
    watch.abort();
    // Others find out at once that nobody listens.
    if let Err(error) = std::fs::remove_file(&paths.plugin) {
        warn!(%error, "the socket stays");
    }
    result.map_err(failed("serve"))
}

/// Listens on a socket, in place of one that nobody listens on.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on it")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
