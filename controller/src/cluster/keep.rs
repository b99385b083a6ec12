//! What the leader keeps in the cluster: its authorities, in a Secret, and where it is, in a ConfigMap.
//!
//! An authority is in the Secret before anybody is told of it, and two leaders cannot both write the Secret: the second one is told
//! that what it read is old, and reads again.

use super::{Config, PAUSE};
use crate::stream::certs::{Authorities, CertError, SERVER_FOR_S};
use crate::stream::places::{ADDRESS, BUNDLE, NAME};
use crate::stream::{now_s, tls};
use crate::watch::link::{Link, chain};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::rustls::ServerConfig;
use tracing::{info, warn};

/// The key of the Secret with the authorities and their private keys.
const AUTHORITIES: &str = "authorities.json";
/// How often it is looked whether something has to be renewed, and the ConfigMap is written again.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often a Secret is read again that somebody else has written meanwhile.
const TRIES: usize = 5;

/// Why an instance that leads cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// The API server.
    #[error("cannot {what}: {why}")]
    Api {
        /// What was to be done.
        what: String,
        /// What was said.
        why: String,
    },
    /// What is in the Secret.
    #[error(
        "what is in the Secret {0} is not what this program has written: {1}; take its data away to have new authorities"
    )]
    Secret(String, serde_json::Error),
    /// Certificates.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// Certificates, too.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The socket.
    #[error("cannot serve: {0}")]
    Serving(#[source] io::Error),
}

/// What is served with.
pub(super) struct Serving {
    pub(super) bundle: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Another handle of a socket that listens.
pub(super) fn again(listener: &TcpListener) -> Result<TcpListener, KeepError> {
    use std::os::fd::AsFd;
    let copy = || {
        let socket = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
        TcpListener::from_std(socket)
    };
    copy().map_err(KeepError::Serving)
}

/// Keeps it.
pub(super) struct Keeper {
    link: Link,
    namespace: String,
    address: String,
    authorities: Arc<Mutex<Authorities>>,
}

impl Keeper {
    pub(super) fn new(link: Link, config: &Config, authorities: Arc<Mutex<Authorities>>) -> Self {
        let (namespace, address) = (config.namespace.clone(), config.address.to_string());
        Self { link, namespace, address, authorities }
    }

    fn authorities(&self) -> MutexGuard<'_, Authorities> {
        self.authorities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<Client, KeepError> {
        let away = || KeepError::Api { what: "begin to serve".to_owned(), why: "no API server answers".to_owned() };
        self.link.clone().client().await.ok_or_else(away)
    }

    fn fault(&self, what: &str, error: &kube::Error) -> KeepError {
        let missing = matches!(error, kube::Error::Api(status) if status.code == 404);
        let hint = if missing { "; apply the manifests of the cluster role again" } else { "" };
        KeepError::Api { what: format!("{what} {}/{NAME}", self.namespace), why: format!("{}{hint}", chain(error)) }
    }

    /// Takes the authorities from the Secret, makes those that are needed, and says where this instance is.
    pub(super) async fn begin(&self) -> Result<Serving, KeepError> {
        let kept = self.maintain().await?;
        *self.authorities() = kept;
        let serving = self.serving()?;
        self.publish(&serving.bundle).await?;
        Ok(serving)
    }

    fn serving(&self) -> Result<Serving, KeepError> {
        let authorities = self.authorities();
        let (signed, key) = authorities.server(now_s())?;
        Ok(Serving { bundle: authorities.bundle(), certificate: signed.certificate, key })
    }

    /// The authorities as they are to be now, which are in the Secret.
    async fn maintain(&self) -> Result<Authorities, KeepError> {
        let api = Api::<Secret>::namespaced(self.client().await?, &self.namespace);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut secret = api.get(NAME).await.map_err(|error| self.fault("read the Secret", &error))?;
            let data = secret.data.get_or_insert_default();
            let name = || format!("{}/{NAME}", self.namespace);
            let mut authorities = match data.get(AUTHORITIES) {
                Some(ByteString(bytes)) => {
                    serde_json::from_slice(bytes).map_err(|error| KeepError::Secret(name(), error))?
                }
                None => Authorities::default(),
            };
            if !authorities.maintain(now_s())? {
                return Ok(authorities);
            }
            let text = serde_json::to_vec(&authorities).map_err(|error| KeepError::Secret(name(), error))?;
            data.insert(AUTHORITIES.to_owned(), ByteString(text));
            match api.replace(NAME, &PostParams::default(), &secret).await {
                Ok(_) => {
                    info!("the authorities of the stream are renewed");
                    return Ok(authorities);
                }
                Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
                Err(error) => return Err(self.fault("write the Secret", &error)),
            }
        }
    }

    async fn publish(&self, bundle: &str) -> Result<(), KeepError> {
        let api = Api::<ConfigMap>::namespaced(self.client().await?, &self.namespace);
        let data = Patch::Merge(json!({ "data": { ADDRESS: self.address, BUNDLE: bundle } }));
        let written = api.patch(NAME, &PatchParams::default(), &data).await;
        written.map(|_| ()).map_err(|error| self.fault("write the ConfigMap", &error))
    }

    /// Renews what has to be renewed, without an end. What is served with was made at `made_s`.
    pub(super) async fn go_on(&self, mut made_s: u64, tls: &watch::Sender<Arc<ServerConfig>>) {
        let mut pause = LOOK_EVERY;
        loop {
            sleep(pause).await;
            pause = match self.renew(&mut made_s, tls).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    warn!("{error}; what is there is used on, trying again");
                    PAUSE
                }
            };
        }
    }

    async fn renew(&self, made_s: &mut u64, tls: &watch::Sender<Arc<ServerConfig>>) -> Result<(), KeepError> {
        let kept = self.maintain().await?;
        let bundle = kept.bundle();
        let is_new = *self.authorities() != kept;
        if is_new || now_s().saturating_sub(*made_s) > SERVER_FOR_S / 2 {
            *self.authorities() = kept;
            let serving = self.serving()?;
            tls.send_replace(tls::server(&serving.bundle, &serving.certificate, &serving.key)?);
            *made_s = now_s();
            info!("the certificate of the stream is renewed");
        }
        self.publish(&bundle).await
    }
}
