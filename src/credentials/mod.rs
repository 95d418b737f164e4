//! The credentials of an app: client id and secret, token URL and scopes.

mod check;
mod env;
mod file;
mod loader;
mod source;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;

pub(crate) use self::loader::Loader;
pub use self::source::{AppCredentials, CredentialSource};
use self::source::{Part, Source};
use crate::error::ConfigError;
use crate::secret::Secret;

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
    pub(crate) basic_auth: bool,
}

impl ClientCredentials {
    /// The client id and secret of an app, for OfficeRnD's token endpoint.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self::of(Source {
            id: Part::Value(Secret::from(client_id.into())),
            secret: Part::Value(client_secret.into()),
            custom: None,
        })
    }

    /// Credentials that come from elsewhere: a secret manager, a database. The
    /// source is asked before each token request, so id and secret may change
    /// together while the program runs. [`CredentialSource`] has an example.
    #[must_use]
    pub fn from_source(source: impl CredentialSource) -> Self {
        Self::of(Source {
            id: Part::Value(Secret::from("")),
            secret: Part::Value(Secret::from("")),
            custom: Some(Arc::new(source)),
        })
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            scope: None,
            token_url: TOKEN_URL.to_owned(),
            form_params: Vec::new(),
            basic_auth: false,
        }
    }

    /// The credentials of the environment: `OFFICERND_CLIENT_ID` or
    /// `OFFICERND_CLIENT_ID_FILE`; `OFFICERND_CLIENT_SECRET` or
    /// `OFFICERND_CLIENT_SECRET_FILE`;
    /// `OFFICERND_SCOPE` or `OFFICERND_SCOPES` (separated by white space or
    /// commas); optionally `OFFICERND_TOKEN_URL`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable that is missing, empty, in
    /// conflict with another, or wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        env::read(|name| std::env::var_os(name))
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

    /// One more field of the request's form, such as `audience`.
    #[must_use]
    pub fn form_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.form_params.push((name.into(), value.into()));
        self
    }

    /// Sends id and secret as HTTP Basic (RFC 6749 section 2.3.1) instead of in the
    /// form. OfficeRnD documents the form only.
    #[must_use]
    pub fn basic_auth(mut self) -> Self {
        self.basic_auth = true;
        self
    }

    /// The client id is what this file holds, without a newline at its end.
    /// Otherwise as [`secret_from_file`](Self::secret_from_file).
    #[must_use]
    pub fn id_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.id = Part::File(path.into());
        self.source.custom = None;
        self
    }

    /// The client secret is what this file holds, without a newline at its
    /// end: at most 64 KiB of UTF-8, in a regular file or behind symbolic links
    /// to one.
    ///
    /// The file is read when the provider is made and again before each token
    /// request, so a rotated secret needs no restart. To rotate the app itself,
    /// put the id into a file, too.
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
        self.source.secret = Part::File(path.into());
        self.source.custom = None;
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
        Err(ConfigError::Scope {
            problem: format!("is missing: OfficeRnD grants no token without one, {SCOPE_EXAMPLES}"),
        })
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
            .field("basic_auth", &self.basic_auth)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
