//! The credentials of an app: client id and secret, token URL and scopes.

mod check;
mod source;

use std::fmt;
use std::path::PathBuf;

use http::Uri;

use self::source::Source;
pub use self::source::{AppCredentials, CredentialSource};
pub(crate) use self::source::{LOAD_AGAIN, Loader, Part};
use crate::error::ConfigError;
use crate::secret::Secret;
use crate::settings::Settings;

/// Examples of scopes, for errors about them.
pub(crate) const SCOPE_EXAMPLES: &str =
    "such as flex.community.members.read for API v2 or officernd.api.read for v1";

/// OfficeRnD's token endpoint.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// An app's credentials for the client-credentials grant (RFC 6749 section 4.4), and the scopes it
/// requests.
///
/// A plain value: mistakes in it are reported when a provider is made from it. `Debug` does not show
/// the secret.
///
/// API v2 has scopes such as `flex.community.members.read`, listed with each endpoint;
/// `officernd.api.read` and `officernd.api.write`, the example on OfficeRnD's token page, belong to v1.
///
/// ```
/// use officernd_auth::ClientCredentials;
///
/// let credentials = ClientCredentials::new("client-id", "client-secret")
///     .scopes(["flex.community.members.read", "flex.space.locations.read"]);
/// assert!(!format!("{credentials:?}").contains("client-secret"));
/// ```
#[derive(Clone)]
pub struct ClientCredentials {
    pub(crate) source: Source,
    scope: Option<String>,
    token_url: String,
    pub(crate) form_params: Vec<(String, String)>,
}

impl ClientCredentials {
    /// Creates credentials from an app's client id and secret, for OfficeRnD's token endpoint.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        let id = Part::Value(Secret::from(client_id.into()));
        Self::of_pair(id, Part::Value(client_secret.into()))
    }

    /// Creates credentials from a secret manager or a database. The source is called before each token
    /// request, so id and secret may change together while the program runs. [`CredentialSource`] has
    /// an example.
    #[must_use]
    pub fn from_source(source: impl CredentialSource) -> Self {
        Self::of(Source::custom(source))
    }

    pub(crate) fn of_pair(id: Part, secret: Part) -> Self {
        Self::of(Source::Pair { id, secret })
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            scope: None,
            token_url: TOKEN_URL.to_owned(),
            form_params: Vec::new(),
        }
    }

    /// Reads the credentials from the environment, as [`Settings::from_env`] describes:
    /// `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET` (each may have `_FILE` at its end),
    /// `OFFICERND_SCOPES` and optionally `OFFICERND_TOKEN_URL`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the variable that is missing, empty or
    /// invalid, or that contradicts another.
    ///
    /// ```no_run
    /// use officernd_auth::{ClientCredentials, HttpTokenProvider};
    ///
    /// # #[cfg(feature = "reqwest")]
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let provider = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
    /// # drop(provider);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "reqwest"))]
    /// # fn main() {}
    /// ```
    pub fn from_env() -> Result<Self, ConfigError> {
        Settings::from_env()?.credentials()
    }

    /// Sets the scopes to request, separated by spaces. Without any, the field is left out. OfficeRnD
    /// then grants no token, so [`HttpTokenProvider::new`](crate::HttpTokenProvider::new) requires one
    /// for its token URLs.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets the scopes to request, one by one.
    #[must_use]
    pub fn scopes<I>(self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let scopes: Vec<I::Item> = scopes.into_iter().collect();
        let scopes: Vec<&str> = scopes.iter().map(AsRef::as_ref).collect();
        self.scope(scopes.join(" "))
    }

    /// Sets the token endpoint, such as OfficeRnD's staging
    /// (`https://identity-staging.officernd.com/oauth/token`, for the API at
    /// `https://staging.officernd.com`), a gateway, or a simulator. The URL must be absolute and https;
    /// plain http is allowed for a loopback host only.
    /// Default: `https://identity.officernd.com/oauth/token`.
    #[must_use]
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = url.into();
        self
    }

    /// Adds a field to the token request's form, such as `audience`.
    #[must_use]
    pub fn form_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.form_params.push((name.into(), value.into()));
        self
    }

    /// Reads the client id from this file, like [`secret_from_file`](Self::secret_from_file).
    #[must_use]
    pub fn id_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        let (_, secret) = self.source.into_pair();
        let id = Part::File(path.into());
        self.source = Source::Pair { id, secret };
        self
    }

    /// Reads the client secret from this file: at most 64 KiB of UTF-8, in a regular file or behind
    /// symbolic links to one. A byte order mark at its start and a line end at its end are not part of
    /// the secret.
    ///
    /// The file is read when the provider is made and again before each token request, so a rotated
    /// secret needs no restart. To rotate the app itself, put the id into a file, too. While a file
    /// cannot be read, the last pair that could be read stays in use.
    ///
    /// ```
    /// use officernd_auth::ClientCredentials;
    ///
    /// let credentials = ClientCredentials::new("", "")
    ///     .id_from_file("/run/secrets/officernd/client-id")
    ///     .secret_from_file("/run/secrets/officernd/client-secret");
    /// # drop(credentials);
    /// ```
    #[must_use]
    pub fn secret_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        let (id, _) = self.source.into_pair();
        let secret = Part::File(path.into());
        self.source = Source::Pair { id, secret };
        self
    }

    /// Returns the scopes to request, with one space between two; `None` for none.
    pub(crate) fn asked_scope(&self) -> Option<String> {
        let words = self.scope.as_deref()?.split(' ');
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Checks that OfficeRnD could grant a token: its own token URLs require a scope.
    #[cfg(feature = "reqwest")]
    pub(crate) fn check_scope(&self) -> Result<(), ConfigError> {
        let token_url = check::token_url(&self.token_url)?;
        if self.asked_scope().is_some() || !check::needs_scope(&token_url) {
            return Ok(());
        }
        let problem =
            format!("is missing: OfficeRnD grants no token without one, {SCOPE_EXAMPLES}");
        Err(ConfigError::setting("scopes", problem))
    }

    /// Checks everything but id and secret. Returns the parsed token URL.
    pub(crate) fn check(&self) -> Result<Uri, ConfigError> {
        let token_url = check::token_url(&self.token_url)?;
        if let Some(scope) = self.asked_scope() {
            check::scope(&scope)?;
        }
        check::form_params(&self.form_params)?;
        Ok(token_url)
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.form_params.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("ClientCredentials")
            .field("source", &self.source)
            .field("scope", &self.scope)
            .field("form_params", &names)
            .finish_non_exhaustive()
    }
}
