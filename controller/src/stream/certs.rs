//! The certificates of the stream: an authority of the cluster role's own, and what it signs.
//!
//! - An [`Authority`] is good for a year. A third of that before its end there is a second one, which signs when every node has had the
//!   time to learn of it ([`TRUST_FIRST`]); the first one is trusted until it ends. So no certificate ever has an authority that a
//!   node or the cluster role does not trust.
//! - The cluster role's certificate is for servers alone, and has the name [`SERVER`]; a node's is for clients alone, and
//!   has the node's name. Neither does for the other.
//!
//! Nothing here reads a clock or a file: the time is an argument, in seconds since 1970.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The name of the cluster role in its certificate.
pub const SERVER: &str = "sluice-cluster";

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;
/// How long an authority is good for.
pub const AUTHORITY_FOR_S: u64 = 365 * DAY_S;
/// How long a certificate of the cluster role is good for; it has another when half of that is over.
pub const SERVER_FOR_S: u64 = 7 * DAY_S;
/// How long a node's certificate is good for; the node asks for another when two thirds of that are over.
pub const NODE_FOR_S: u64 = DAY_S;
/// How long a new authority is trusted before it signs.
pub const TRUST_FIRST: u64 = HOUR_S;
/// How much earlier than it is made a certificate is good: clocks differ.
const EARLIER_S: u64 = 300;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// What the library says.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// A key that is none.
    #[error("a public key has to be a point of P-256, uncompressed: 65 bytes, the first of them 4")]
    Key,
    /// There is no authority.
    #[error("there is no authority to sign certificates")]
    NoAuthority,
    /// A time that cannot be written.
    #[error("the time {0} s is none that a certificate can have")]
    Time(u64),
}

/// An authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its name, which no other one has.
    name: String,
    /// When it was made.
    made_s: u64,
    /// When it ends.
    not_after_s: u64,
    /// Its certificate, in PEM.
    certificate: String,
    /// Its private key, in PEM.
    key: String,
}

/// A certificate and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// In PEM.
    pub certificate: String,
    /// When it ends.
    pub not_after_s: u64,
}

fn at(seconds: u64) -> Result<OffsetDateTime, CertError> {
    let signed = i64::try_from(seconds).map_err(|_| CertError::Time(seconds))?;
    OffsetDateTime::from_unix_timestamp(signed).map_err(|_| CertError::Time(seconds))
}

/// What every certificate has.
fn params(name: &str, from_s: u64, to_s: u64) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(from_s.saturating_sub(EARLIER_S))?;
    params.not_after = at(to_s)?;
    Ok(params)
}

fn authority_params(name: &str, from_s: u64, to_s: u64) -> Result<CertificateParams, CertError> {
    let mut params = params(name, from_s, to_s)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A public key that somebody else has the private one of.
struct PublicKey<'a>(&'a [u8]);

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn new(now_s: u64) -> Result<Self, CertError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // The hash of the key is in every certificate that it signs, so equal names would do no harm.
        let name = format!("sluice-cluster authority {now_s}");
        let not_after_s = now_s.saturating_add(AUTHORITY_FOR_S);
        let certificate = authority_params(&name, now_s, not_after_s)?.self_signed(&key)?.pem();
        Ok(Self { name, made_s: now_s, not_after_s, certificate, key: key.serialize_pem() })
    }

    fn sign(
        &self,
        name: &str,
        key: &impl PublicKeyData,
        usage: ExtendedKeyUsagePurpose,
        (now_s, for_s): (u64, u64),
    ) -> Result<Signed, CertError> {
        let issuer =
            Issuer::new(authority_params(&self.name, self.made_s, self.not_after_s)?, KeyPair::from_pem(&self.key)?);
        let not_after_s = now_s.saturating_add(for_s).min(self.not_after_s);
        let mut params = params(name, now_s, not_after_s)?;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &issuer)?.pem();
        Ok(Signed { certificate, not_after_s })
    }
}

/// The authorities there are, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    authorities: Vec<Authority>,
}

impl Authorities {
    /// Makes those that are needed, and forgets those that have ended. Whether anything has changed: then it has to be kept,
    /// and everybody has to be told of [`Self::bundle`].
    ///
    /// # Errors
    /// [`CertError`].
    pub fn maintain(&mut self, now_s: u64) -> Result<bool, CertError> {
        let before = self.authorities.len();
        self.authorities.retain(|one| one.not_after_s > now_s);
        let is_due = |last: &Authority| last.not_after_s.saturating_sub(now_s) < AUTHORITY_FOR_S / 3;
        let is_new = self.authorities.last().is_none_or(is_due);
        if is_new {
            self.authorities.push(Authority::new(now_s)?);
        }
        Ok(is_new || self.authorities.len() != before)
    }

    /// The certificates of all, in PEM: whom to trust.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|one| one.certificate.as_str()).collect()
    }

    /// The newest one that has been trusted for long enough, or the oldest.
    fn signer(&self, now_s: u64) -> Result<&Authority, CertError> {
        let trusted = |one: &&Authority| one.made_s.saturating_add(TRUST_FIRST) <= now_s;
        let newest = self.authorities.iter().rev().find(trusted);
        newest.or(self.authorities.first()).ok_or(CertError::NoAuthority)
    }

    /// A certificate for the cluster role, and its private key in PEM.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn server(&self, now_s: u64) -> Result<(Signed, String), CertError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let signed = self.signer(now_s)?.sign(SERVER, &key, usage, (now_s, SERVER_FOR_S))?;
        Ok((signed, key.serialize_pem()))
    }

    /// A certificate for a node.
    ///
    /// # Errors
    /// [`CertError`]; also for a name that cannot be one of a host.
    pub fn node(&self, name: &str, public_key: &[u8], now_s: u64) -> Result<Signed, CertError> {
        if public_key.len() != 65 || public_key.first() != Some(&4) {
            return Err(CertError::Key);
        }
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.signer(now_s)?.sign(name, &PublicKey(public_key), usage, (now_s, NODE_FOR_S))
    }
}

/// A node's key.
#[derive(Debug)]
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new one.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn new() -> Result<Self, CertError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// What a certificate is asked for with.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The private key, in PEM.
    #[must_use]
    pub fn private(&self) -> String {
        self.0.serialize_pem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn an_authority_is_followed_by_another_before_its_end_which_signs_when_it_is_trusted() {
        let mut all = Authorities::default();
        assert!(all.maintain(NOW).unwrap());
        assert!(!all.maintain(NOW + AUTHORITY_FOR_S / 2).unwrap());
        let first = all.bundle();
        let due = NOW + AUTHORITY_FOR_S * 2 / 3 + 1;
        assert!(all.maintain(due).unwrap());
        assert!(all.bundle().starts_with(&first) && all.bundle().len() > first.len(), "both are trusted");
        assert_eq!(all.signer(due).unwrap().made_s, NOW, "nobody may trust the new one yet");
        assert_eq!(all.signer(due + TRUST_FIRST).unwrap().made_s, due);
        let end = NOW + AUTHORITY_FOR_S;
        assert!(all.maintain(end).unwrap());
        assert!(!all.bundle().contains(&first), "what has ended is not trusted");
        assert!(!all.maintain(end).unwrap());
    }

    #[test]
    fn what_is_kept_signs_as_before() {
        let mut all = Authorities::default();
        all.maintain(NOW).unwrap();
        let kept: Authorities = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(kept, all);
        let key = NodeKey::new().unwrap();
        assert_eq!(kept.node("n1", key.public(), NOW).unwrap().not_after_s, NOW + NODE_FOR_S);
    }

    #[test]
    fn what_is_no_key_and_no_name_gets_no_certificate() {
        let mut all = Authorities::default();
        assert!(matches!(all.server(NOW), Err(CertError::NoAuthority)));
        all.maintain(NOW).unwrap();
        let key = NodeKey::new().unwrap();
        assert!(matches!(all.node("n1", &key.public()[1..], NOW), Err(CertError::Key)));
        assert!(matches!(all.node("n1", &[0; 65], NOW), Err(CertError::Key)));
        assert!(all.node("ü", key.public(), NOW).is_err());
    }
}
