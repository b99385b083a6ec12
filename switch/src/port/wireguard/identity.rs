//! Who this end is: its keys, and what guards it against floods of handshakes.

use super::key::{PublicKey, SecretKey};
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519;
use std::net::IpAddr;
use std::sync::Arc;

/// Handshake messages in a second from which on a sender has to prove that its address is its own, by a cookie. Each
/// message counts twice: before its sender is known, and at its peer.
const HANDSHAKE_LIMIT: u64 = 200;
/// Length of a cookie reply.
const COOKIE_LEN: usize = 64;

/// A pair of keys of this end.
pub(super) struct Identity {
    /// Tells identities apart.
    pub(super) number: u64,
    /// The private key.
    pub(super) secret: SecretKey,
    public: x25519::PublicKey,
    /// Counts handshakes; shared by all links.
    pub(super) limiter: Arc<RateLimiter>,
}

/// Who sent an initiation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Initiator {
    /// One that has this key, or has seen it: only the handshake proves that it has the private one.
    Peer(PublicKey),
    /// Unknown, and it has to send again with this cookie.
    Cookie([u8; COOKIE_LEN]),
    /// It was not meant for this identity.
    Other,
    /// The message is not good.
    Bad,
}

impl Identity {
    pub(super) fn new(number: u64, secret: SecretKey) -> Self {
        let public = x25519::PublicKey::from(&secret.to_static());
        Self { number, secret, public, limiter: Arc::new(RateLimiter::new(&public, HANDSHAKE_LIMIT)) }
    }

    pub(super) fn private(&self) -> x25519::StaticSecret {
        self.secret.to_static()
    }

    /// The public key.
    pub(super) fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    /// Reads who sent the initiation `message`, at the price of one multiplication on the curve.
    pub(super) fn initiator(&self, from: IpAddr, message: &[u8]) -> Initiator {
        let mut cookie = [0; COOKIE_LEN];
        let packet = match self.limiter.verify_packet(Some(from), message, &mut cookie) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(_)) => return Initiator::Cookie(cookie),
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => return Initiator::Other,
            Err(_) => return Initiator::Bad,
        };
        let Packet::HandshakeInit(initiation) = packet else { return Initiator::Bad };
        match parse_handshake_anon(&self.private(), &self.public, &initiation) {
            Ok(half) => Initiator::Peer(PublicKey::from_bytes(half.peer_static_public)),
            Err(_) => Initiator::Bad,
        }
    }
}
