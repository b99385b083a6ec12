//! TLS of the stream: 1.3 alone, with `ring`.
//!
//! A client without a certificate gets in, since it has to ask for one somewhere; what it may do then is the service's matter.
//! Sessions are not taken up again: the certificate is looked at in every handshake.

use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("cannot use a certificate: {0}")]
pub struct TlsError(String);

fn error(error: impl ToString) -> TlsError {
    TlsError(error.to_string())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(error)
}

/// What the cluster role serves with: whom it trusts, its certificate and its key, in PEM.
///
/// # Errors
/// [`TlsError`] for what is no such.
pub fn server(bundle: &str, certificate: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for one in certificates(bundle)? {
        roots.add(one).map_err(error)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().map_err(error)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(error)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, key)
        .map_err(error)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The node whose certificate this is, which has been verified.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    let name = names.next()?;
    names.next().is_none().then(|| name.to_owned())
}
