//! The plugin's socket: HTTP with one path for each method, JSON in and out.
//!
//! Every answer has status 200 and, where something went wrong, `Err` (the network driver) or `Error` (IPAM) in it;
//! methods that are optional and not served are 404, as the protocol wants it.

use super::driver::Driver;
use super::error::DriverError;
use super::ipam::Pools;
use super::wire::{AddressRequest, CreateNetwork, EndpointRequest, NetworkOnly, RequestPool};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::warn;

/// Largest body of a request.
const MAX_BODY: usize = 1 << 20;
/// What the protocol calls itself.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    /// The network driver.
    pub(crate) driver: Arc<Driver>,
    /// The addresses.
    pub(crate) pools: Arc<Pools>,
}

type Result = std::result::Result<Value, DriverError>;

/// The paths, and who answers on each.
pub(crate) fn router(plugin: Plugin) -> Router {
    let capabilities =
        || async { answer(json!({"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": true})) };
    Router::new()
        .route("/Plugin.Activate", post(activate))
        .route("/NetworkDriver.GetCapabilities", post(capabilities))
        .route("/NetworkDriver.GwAllocCheck", post(|| async { answer(json!({"SkipIPv4": false, "SkipIPv6": false})) }))
        .route("/NetworkDriver.CreateNetwork", post(create_network))
        .route("/NetworkDriver.DeleteNetwork", post(delete_network))
        .route("/NetworkDriver.CreateEndpoint", post(create_endpoint))
        .route("/NetworkDriver.DeleteEndpoint", post(delete_endpoint))
        .route("/NetworkDriver.EndpointOperInfo", post(endpoint_info))
        .route("/NetworkDriver.Join", post(join))
        .route("/NetworkDriver.Leave", post(leave))
        .route("/NetworkDriver.ProgramExternalConnectivity", post(publish))
        .route("/NetworkDriver.RevokeExternalConnectivity", post(revoke))
        .route("/NetworkDriver.DiscoverNew", post(|| async { answer(json!({})) }))
        .route("/NetworkDriver.DiscoverDelete", post(|| async { answer(json!({})) }))
        .route("/IpamDriver.GetCapabilities", post(|| async { answer(json!({"RequiresRequestReplay": true})) }))
        .route("/IpamDriver.GetDefaultAddressSpaces", post(address_spaces))
        .route("/IpamDriver.RequestPool", post(request_pool))
        .route("/IpamDriver.ReleasePool", post(release_pool))
        .route("/IpamDriver.RequestAddress", post(request_address))
        .route("/IpamDriver.ReleaseAddress", post(release_address))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(plugin)
}

fn answer(value: Value) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], value.to_string()).into_response()
}

/// The answer of the network driver.
fn network(method: &str, result: Result) -> Response {
    said("Err", method, result)
}

/// The answer of the addresses.
fn ipam(method: &str, result: Result) -> Response {
    said("Error", method, result)
}

fn said(key: &str, method: &str, result: Result) -> Response {
    answer(result.unwrap_or_else(|error| {
        warn!(%error, method, "not done");
        json!({ key: error.to_string() })
    }))
}

/// A request's body; an empty one is an empty request.
fn read<T: DeserializeOwned + Default>(body: &Bytes) -> std::result::Result<T, DriverError> {
    if body.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { Ok(serde_json::from_slice(body)?) }
}

async fn activate(State(plugin): State<Plugin>) -> Response {
    // Each start of dockerd begins with this, and then it asks again for the addresses that it still wants.
    if let Err(error) = plugin.pools.expect_replay().await {
        warn!(%error, "addresses of Docker's last run are not given again");
    }
    answer(json!({"Implements": ["NetworkDriver", "IpamDriver"]}))
}

async fn create_network(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.create_network(read::<CreateNetwork>(&body)?).await.map(|()| json!({})) };
    network("CreateNetwork", work.await)
}

async fn delete_network(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.delete_network(read::<NetworkOnly>(&body)?).await.map(|()| json!({})) };
    network("DeleteNetwork", work.await)
}

async fn create_endpoint(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.create_endpoint(read(&body)?).await.map(|made| json!({ "Interface": made })) };
    network("CreateEndpoint", work.await)
}

async fn delete_endpoint(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.delete_endpoint(read(&body)?).await.map(|()| json!({})) };
    network("DeleteEndpoint", work.await)
}

async fn endpoint_info(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.endpoint_info(read(&body)?).await.map(|info| json!({ "Value": info })) };
    network("EndpointOperInfo", work.await)
}

async fn join(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async {
        let request: EndpointRequest = read(&body)?;
        Ok(serde_json::to_value(plugin.driver.join(request).await?)?)
    };
    network("Join", work.await)
}

async fn leave(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.leave(read(&body)?).await.map(|()| json!({})) };
    network("Leave", work.await)
}

async fn publish(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.publish(read(&body)?).await.map(|()| json!({})) };
    network("ProgramExternalConnectivity", work.await)
}

async fn revoke(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.driver.revoke(read(&body)?).await.map(|()| json!({})) };
    network("RevokeExternalConnectivity", work.await)
}

async fn address_spaces() -> Response {
    let (local, global) = (super::ipam::LOCAL, super::ipam::GLOBAL);
    answer(json!({"LocalDefaultAddressSpace": local, "GlobalDefaultAddressSpace": global}))
}

async fn request_pool(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async {
        let request: RequestPool = read(&body)?;
        Ok(serde_json::to_value(plugin.pools.request(request).await?)?)
    };
    ipam("RequestPool", work.await)
}

async fn release_pool(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.pools.release(read::<AddressRequest>(&body)?).await.map(|()| json!({})) };
    ipam("ReleasePool", work.await)
}

async fn request_address(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async {
        let address = plugin.pools.request_address(read::<AddressRequest>(&body)?).await?;
        Ok(json!({"Address": address.to_string(), "Data": {}}))
    };
    ipam("RequestAddress", work.await)
}

async fn release_address(State(plugin): State<Plugin>, body: Bytes) -> Response {
    let work = async { plugin.pools.release_address(read::<AddressRequest>(&body)?).await.map(|()| json!({})) };
    ipam("ReleaseAddress", work.await)
}
