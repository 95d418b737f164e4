//! The credentials of an app: client id and secret, token URL and scopes.

mod check;
mod loader;
mod source;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;

pub(crate) use self::loader::Loader;
pub(crate) use self::source::Part;
use self::source::Source;
pub use self::source::{AppCredentials, CredentialSource};
use crate::error::ConfigError;
use crate::secret::Secret;
use crate::settings::Settings;

/// Examples of scopes, for errors about them.
pub(crate) const SCOPE_EXAMPLES: &str =
    "such as flex.community.members.read for API v2 or officernd.api.read for v1";

/// OfficeRnD's token endpoint.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// An app's credentials for the client-credentials grant (RFC 6749 section 4.4),
/// and what it asks for.
///
/// A plain value: mistakes in it are reported when a provider is made of it.
/// `Debug` does not show the secret.
///
/// API v2 has scopes such as `flex.community.members.read`, listed with each
/// endpoint; `officernd.api.read` and `officernd.api.write`, the example on
/// OfficeRnD's token page, belong to v1.
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
    /// The client id and secret of an app, for OfficeRnD's token endpoint.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        let id = Part::Value(Secret::from(client_id.into()));
        Self::of_pair(id, Part::Value(client_secret.into()))
    }

    /// Credentials that come from elsewhere: a secret manager, a database. The
    /// source is asked before each token request, so id and secret may change
    /// together while the program runs. [`CredentialSource`] has an example.
    #[must_use]
    pub fn from_source(source: impl CredentialSource) -> Self {
        Self::of(Source::Custom(Arc::new(source)))
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

    /// Reads the credentials from the environment: `OFFICERND_CLIENT_ID` or
    /// `OFFICERND_CLIENT_ID_FILE`, `OFFICERND_CLIENT_SECRET` or `OFFICERND_CLIENT_SECRET_FILE`,
    /// `OFFICERND_SCOPES` or `OFFICERND_SCOPE` (separated by white space or commas), and optionally
    /// `OFFICERND_TOKEN_URL`. [`Settings::from_env`](crate::Settings::from_env) reads the other
    /// settings too.
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

    /// The scopes to ask for, separated by spaces. Without any, the field is
    /// left out. OfficeRnD grants no token then, so
    /// [`HttpTokenProvider::new`](crate::HttpTokenProvider::new) wants at least
    /// one for its token URLs.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The scopes to ask for, one by one.
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

    /// Another token endpoint than
    /// `https://identity.officernd.com/oauth/token`: OfficeRnD's staging
    /// (`https://identity-staging.officernd.com/oauth/token`, for the API at
    /// `https://staging.officernd.com`), a gateway, a simulator. Absolute and
    /// https; plain http only to this machine.
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

    /// Reads the client id from this file. Otherwise as [`secret_from_file`](Self::secret_from_file).
    #[must_use]
    pub fn id_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        let (_, secret) = self.source.into_pair();
        let id = Part::File(path.into());
        self.source = Source::Pair { id, secret };
        self
    }

    /// Reads the client secret from this file: at most 64 KiB of UTF-8, in a regular file or
    /// behind symbolic links to one. A byte order mark at its start and a line end at its end are
    /// not part of the secret.
    ///
    /// The file is read when the provider is made and again before each token
    /// request, so a rotated secret needs no restart. To rotate the app itself,
    /// put the id into a file, too. While a file cannot be read, the last pair that could be read
    /// stays in use.
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

    /// The scopes to ask for, with one space between two; `None` for none.
    pub(crate) fn asked_scope(&self) -> Option<String> {
        let words: Vec<&str> = self.scope.as_deref()?.split(' ').collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Checks that OfficeRnD could grant a token: at its own URLs that takes a
    /// scope.
    #[cfg(feature = "reqwest")]
    pub(crate) fn check_scope(&self, token_url: &Uri) -> Result<(), ConfigError> {
        if self.asked_scope().is_some() || !check::needs_scope(token_url) {
            return Ok(());
        }
        let problem =
            format!("is missing: OfficeRnD grants no token without one, {SCOPE_EXAMPLES}");
        Err(ConfigError::setting("scopes", problem))
    }

    /// Checks everything but id and secret. The token URL, parsed.
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

#[cfg(test)]
mod tests;
