//! How entries are sealed: pure, chance is an argument.
//!
//! An envelope is a version byte, a nonce of 24 bytes, and XChaCha20-Poly1305's ciphertext with its tag.
//! Version and entry name are associated data, so an envelope opens only where it was put. Key and name come
//! from the client secret by HKDF-SHA-256 (RFC 5869), with everything that tells one token from another as
//! context: another secret, scope or tenant is another name *and* another key.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use officernd_auth::provider::KeyMaterial;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::store::{MAX_ENTRY_SIZE, Name};

const VERSION: u8 = 3;
const NONCE: usize = 24;
const SALT: &[u8] = b"officernd-auth shared store v3";

/// Seals and opens the entries of one token.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    name: Name,
}

/// Returns the name of the endpoint's rate-limit window. All clients share it, because OfficeRnD may count by
/// IP address. The name is no secret, so a key in the query of the URL is left out.
pub(crate) fn window(material: &KeyMaterial) -> Name {
    let end = material.endpoint().find(['?', '#']);
    let endpoint = end.and_then(|end| material.endpoint().get(..end));
    let endpoint = endpoint.unwrap_or(material.endpoint());
    Name::digest_of(&[b"rate limit ", endpoint.as_bytes()].concat())
}

impl Sealer {
    pub(crate) fn of(material: &KeyMaterial) -> Self {
        let secret = material.secret().expose().as_bytes();
        Self::new(secret, material.context().as_ref())
    }

    /// `context` tells this token from all others of the same secret; no two may encode alike.
    pub(crate) fn new(secret: &[u8], context: &[u8]) -> Self {
        let prk = Hkdf::<Sha256>::new(Some(SALT), secret);
        let key = expand::<32>(&prk, b"seal", context);
        Self {
            cipher: XChaCha20Poly1305::new((&*key).into()),
            name: Name::from_bytes(*expand::<16>(&prk, b"name", context)),
        }
    }

    /// Returns the name of the entry.
    pub(crate) fn name(&self) -> Name {
        self.name.clone()
    }

    /// `None` if it would be larger than any entry may be.
    pub(crate) fn seal(&self, nonce: [u8; NONCE], plain: &[u8]) -> Option<Vec<u8>> {
        let aad = self.associated();
        let payload = Payload {
            msg: plain,
            aad: &aad,
        };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        let envelope = [&[VERSION], &nonce[..], &sealed].concat();
        (envelope.len() <= MAX_ENTRY_SIZE).then_some(envelope)
    }

    /// `None` for bytes that were not sealed under this name.
    pub(crate) fn open(&self, envelope: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if envelope.len() > MAX_ENTRY_SIZE {
            return None;
        }
        let (&version, rest) = envelope.split_first()?;
        if version != VERSION {
            return None;
        }
        let (&nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let aad = self.associated();
        let payload = Payload {
            msg: sealed,
            aad: &aad,
        };
        let plain = self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        Some(Zeroizing::new(plain))
    }

    fn associated(&self) -> Vec<u8> {
        [&[VERSION], self.name.as_str().as_bytes()].concat()
    }
}

fn expand<const N: usize>(prk: &Hkdf<Sha256>, label: &[u8], context: &[u8]) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    let length = u64::try_from(label.len()).unwrap_or(u64::MAX).to_be_bytes();
    // Fails only for more than 255 blocks of output.
    let _ = prk.expand_multi_info(&[&length, label, context], &mut *output);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: [u8; NONCE] = [7; NONCE];

    fn sealer(secret: &str, context: &str) -> Sealer {
        Sealer::new(secret.as_bytes(), context.as_bytes())
    }

    #[test]
    fn what_was_sealed_opens_here_and_nowhere_else() {
        let here = sealer("secret", "tenant a");
        let sealed = here.seal(N, b"plain").unwrap();
        assert_eq!(**here.open(&sealed).unwrap(), *b"plain");
        for other in [sealer("rotated", "tenant a"), sealer("secret", "tenant b")] {
            assert!(other.open(&sealed).is_none());
            assert_ne!(other.name(), here.name());
        }
    }

    #[test]
    fn the_window_is_the_endpoints() {
        let material = KeyMaterial::new("e", "c", "s");
        assert_eq!(window(&material), window(&KeyMaterial::new("e", "d", "t")));
        assert_ne!(window(&material), window(&KeyMaterial::new("f", "c", "s")));
        // A digest of a short key could be guessed.
        let with_key = KeyMaterial::new("e?key=hunter2", "c", "s");
        assert_eq!(window(&material), window(&with_key));
    }

    #[test]
    fn no_bit_can_be_changed_and_no_byte_left_out() {
        let sealer = sealer("secret", "");
        let sealed = sealer.seal(N, b"plain").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(sealer.open(&changed).is_none(), "{at}");
            }
            assert!(sealer.open(&sealed[..at]).is_none());
        }
        let longer = [&sealed[..], b"x"].concat();
        assert!(sealer.open(&longer).is_none());
    }

    #[test]
    fn the_format_stays() {
        // Entries of one version of this crate are read by the next: change this only with the version byte.
        let sealer = sealer("secret", "context");
        assert_eq!(sealer.name().as_str(), "98a97ced2acac275d37eebcfba36fe1f");
        let sealed = sealer.seal(N, b"plain").unwrap();
        assert_eq!(
            Name::digest_of(&sealed).as_str(),
            "3d11ea7dc89a5771c5a848ee41e38053"
        );
    }

    #[test]
    fn larger_than_any_entry_is_refused_both_ways() {
        let sealer = sealer("secret", "");
        let huge = vec![0; MAX_ENTRY_SIZE];
        assert!(sealer.seal(N, &huge).is_none());
        assert!(sealer.open(&[huge, vec![1]].concat()).is_none());
    }
}
