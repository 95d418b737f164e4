//! The key material of a token, by which processes share it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::TokenProvider;
use crate::error::Error;
use crate::secret::Secret;

/// A provider with key material, so that processes with equal material can share a token.
///
/// [`HttpTokenProvider`](crate::HttpTokenProvider) implements it. For your own provider:
///
/// ```
/// use officernd_auth::provider::{KeyMaterial, KeyedProvider};
/// use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, Secret, TokenProvider};
/// use std::time::Duration;
///
/// struct Gateway {
///     secret: Secret,
/// }
///
/// impl TokenProvider for Gateway {
///     async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
///         let _permit = cx.permit().await?;
///         AccessToken::bearer("from-the-gateway", Duration::from_secs(600))
///     }
///
///     fn rate_limit(&self) -> Option<RateLimit> {
///         None
///     }
/// }
///
/// impl KeyedProvider for Gateway {
///     async fn key_material(&self) -> Result<KeyMaterial, Error> {
///         let secret = self.secret.clone();
///         let material = KeyMaterial::new("https://gateway.example/token", "my-app", secret);
///         Ok(material.scope("officernd.api.read"))
///     }
/// }
/// # drop(Gateway { secret: Secret::from("hunter2") });
/// ```
pub trait KeyedProvider: TokenProvider {
    /// Returns the key material of the next fetch. Called before and after each fetch: if the two
    /// results differ, the credentials were rotated meanwhile, and the token is not shared. The call
    /// after a fetch may take at most 1 s.
    ///
    /// # Errors
    ///
    /// Returns an error if the credentials cannot be read. The fetch then fails.
    fn key_material(&self) -> impl Future<Output = Result<KeyMaterial, Error>> + Send;
}

impl<P: KeyedProvider> KeyedProvider for Arc<P> {
    fn key_material(&self) -> impl Future<Output = Result<KeyMaterial, Error>> + Send {
        P::key_material(self)
    }
}

/// Everything that a token depends on: the endpoint, the client id and secret, the set of scopes, and
/// all other parameters.
///
/// The secret also encrypts shared tokens. `Debug` does not show it.
///
/// ```
/// use officernd_auth::provider::KeyMaterial;
///
/// let material = KeyMaterial::new("https://identity.officernd.com/oauth/token", "id", "hunter2")
///     .scope("officernd.api.write officernd.api.read")
///     .param("audience", "reports");
/// assert!(!format!("{material:?}").contains("hunter2"));
/// ```
#[derive(Clone)]
pub struct KeyMaterial {
    endpoint: String,
    client_id: String,
    secret: Secret,
    scopes: Vec<String>,
    params: Vec<(String, String)>,
    /// Whether the credentials may change while the process runs.
    may_change: bool,
}

impl KeyMaterial {
    /// Creates the material of a client at an endpoint. Clients share a rate limit only if their
    /// endpoints are spelled the same.
    #[must_use]
    pub fn new(
        endpoint: impl Into<String>,
        client_id: impl Into<String>,
        secret: impl Into<Secret>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            client_id: client_id.into(),
            secret: secret.into(),
            scopes: Vec::new(),
            params: Vec::new(),
            may_change: true,
        }
    }

    /// Adds the requested scopes, separated by spaces, in any order.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        let words = scope.split(' ').filter(|word| !word.is_empty());
        self.scopes.extend(words.map(str::to_owned));
        self.scopes.sort_unstable();
        self.scopes.dedup();
        self
    }

    /// Adds a parameter of the token request. The order of parameters does not matter.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self.params.sort_unstable();
        self
    }

    /// Declares that the credentials do not change while the process runs.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.may_change = false;
        self
    }

    /// Returns `true` if the credentials may change while the process runs.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.may_change
    }

    /// Returns the token endpoint, whose clients share a rate limit.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the client secret.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Encodes everything but the secret. Different materials have different encodings, because each
    /// part follows its length. The bytes may contain secret parameters, and are wiped when dropped.
    #[must_use]
    pub fn context(&self) -> impl AsRef<[u8]> + use<> {
        let mut context = Zeroizing::new(Vec::new());
        let mut part = |text: &str| {
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            context.extend(length.to_be_bytes());
            context.extend(text.as_bytes());
        };
        part(&self.endpoint);
        part(&self.client_id);
        part(&self.scopes.join(" "));
        for (name, value) in &self.params {
            part(name);
            part(value);
        }
        context
    }
}

/// Compares everything that a token depends on.
impl PartialEq for KeyMaterial {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.context(), other.context());
        self.secret.expose() == other.secret.expose() && ours.as_ref() == theirs.as_ref()
    }
}

impl Eq for KeyMaterial {}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.params.iter().map(|(name, _)| &**name).collect();
        // Without the query: some gateways expect a key there.
        let endpoint = self.endpoint.split(['?', '#']).next();
        f.debug_struct("KeyMaterial")
            .field("endpoint", &endpoint.unwrap_or_default())
            .field("client_id", &self.client_id)
            .field("scopes", &self.scopes)
            .field("params", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_material_counts_and_order_does_not() {
        let material = || KeyMaterial::new("e", "c", "s").scope("a b").param("x", "1");
        let same = KeyMaterial::new("e", "c", "s")
            .param("x", "1")
            .scope(" b  a a ");
        assert_eq!(material(), same);
        let others = [
            KeyMaterial::new("E", "c", "s").scope("a b").param("x", "1"),
            KeyMaterial::new("e", "C", "s").scope("a b").param("x", "1"),
            KeyMaterial::new("e", "c", "S").scope("a b").param("x", "1"),
            material().scope("c"),
            KeyMaterial::new("e", "c", "s").scope("a").param("x", "1"),
            KeyMaterial::new("e", "c", "s").scope("a b"),
            KeyMaterial::new("e", "c", "s").scope("a b").param("x", "2"),
            KeyMaterial::new("e", "c", "s").scope("a b").param("x1", ""),
            material().param("y", ""),
            KeyMaterial::new("ec", "", "s").scope("a b").param("x", "1"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(material(), *other, "{at}");
        }
    }
}
