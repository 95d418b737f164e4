//! Seals entries. Pure: the nonce is an argument.
//!
//! An envelope is a version byte, a nonce of 24 bytes, and XChaCha20-Poly1305's ciphertext with its tag.
//! Version and entry name are associated data, so an envelope opens only under its own name. Key and name are
//! derived from the client secret by HKDF-SHA-256 (RFC 5869), with endpoint, client id, scopes and parameters
//! as context: a different secret, scope or tenant has a different name *and* a different key.

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
/// IP address. The name is public, so it does not depend on the query of the URL, which may hold a key.
pub(crate) fn window(material: &KeyMaterial) -> Name {
    let endpoint = material.endpoint().split(['?', '#']).next();
    let endpoint = endpoint.unwrap_or_default();
    Name::digest_of(&[b"rate limit ", endpoint.as_bytes()].concat())
}

impl Sealer {
    pub(crate) fn of(material: &KeyMaterial) -> Self {
        let secret = material.secret().expose().as_bytes();
        Self::new(secret, material.context().as_ref())
    }

    /// Derives key and name. `context` must be different for each token of the secret.
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

    /// Seals bytes. Returns `None` if the envelope would be larger than [`MAX_ENTRY_SIZE`].
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

    /// Opens an envelope. Returns `None` if it was not sealed under this name.
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

    #[test]
    fn the_window_depends_on_the_endpoint_only() {
        let material = KeyMaterial::new("e", "c", "s");
        assert_eq!(window(&material), window(&KeyMaterial::new("e", "d", "t")));
        assert_ne!(window(&material), window(&KeyMaterial::new("f", "c", "s")));
        // A short key could be guessed from a digest.
        let with_key = KeyMaterial::new("e?key=hunter2", "c", "s");
        assert_eq!(window(&material), window(&with_key));
    }

    #[test]
    fn an_envelope_with_a_changed_bit_or_a_missing_byte_does_not_open() {
        let sealer = Sealer::new(b"secret", b"");
        let sealed = sealer.seal(N, b"plain").unwrap();
        assert_eq!(**sealer.open(&sealed).unwrap(), *b"plain");
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
    fn the_format_is_stable() {
        // The next version of this crate reads entries of this one: change the format only with its version byte.
        let sealer = Sealer::new(b"secret", b"context");
        assert_eq!(sealer.name().as_str(), "98a97ced2acac275d37eebcfba36fe1f");
        let sealed = sealer.seal(N, b"plain").unwrap();
        assert_eq!(
            Name::digest_of(&sealed).as_str(),
            "3d11ea7dc89a5771c5a848ee41e38053"
        );
    }

    #[test]
    fn envelopes_above_the_maximum_size_are_neither_made_nor_opened() {
        let sealer = Sealer::new(b"secret", b"");
        let huge = vec![0; MAX_ENTRY_SIZE];
        assert!(sealer.seal(N, &huge).is_none());
        assert!(sealer.open(&[huge, vec![1]].concat()).is_none());
    }
}
