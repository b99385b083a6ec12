//! Keys of WireGuard: 32 bytes, written in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes in a key.
pub const KEY_LEN: usize = 32;
/// What a key has to be, in words.
pub(crate) const KEY_WANTED: &str = "not a key: 32 bytes in base64, as `sluice wireguard genkey` writes them";

/// A private key, or one shared by two peers. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_LEN]);

/// A public key, which is also a peer's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl SecretKey {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A new private key, from the system's random numbers.
    ///
    /// # Errors
    /// The system's.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; KEY_LEN];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        // The form in which Curve25519 uses a number (RFC 7748, 5), so that tools which write it out agree.
        bytes[0] &= 248;
        bytes[KEY_LEN - 1] = bytes[KEY_LEN - 1] & 127 | 64;
        Ok(Self(bytes))
    }

    /// Reads base64; `None` for anything but 32 bytes. Blanks around it are skipped.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    /// Reads the key in a file.
    ///
    /// # Errors
    /// The system's, and `InvalidData` when the file has something else in it.
    pub fn read(path: &Path) -> io::Result<Self> {
        /// More than any file with a key has.
        const MOST: u64 = 1024;
        let mut text = String::new();
        File::open(path)?.take(MOST).read_to_string(&mut text)?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, KEY_WANTED))
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.to_static()).to_bytes())
    }

    /// Its base64 form, for the one who asked for a new key.
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub(crate) fn to_static(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }

    pub(crate) const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(super::HIDDEN)
    }
}

impl PublicKey {
    /// Reads base64; `None` for anything but 32 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    pub(crate) const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_x25519(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode(text: &str) -> Option<[u8; KEY_LEN]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_has_the_public_key_of_rfc_7748() {
        // Section 6.1, Alice.
        let private = SecretKey::parse("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        assert_eq!(private.public().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(format!("{private:?}"), "(hidden)");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "AAAA", "not base64!", &"A".repeat(44)] {
            assert!(SecretKey::parse(text).is_none() && PublicKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn new_keys_differ_and_read_back() {
        let (a, b) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(SecretKey::parse(&format!(" {}\n", a.reveal())), Some(a));
    }
}
