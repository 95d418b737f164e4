//! The credentials of an app: client id and secret, token URL and scopes.

mod source;

use std::fmt;
use std::path::PathBuf;

use http::Uri;

pub use self::source::{AppCredentials, CredentialSource};
pub(crate) use self::source::{LOAD_AGAIN, Part, Source};
use crate::error::ConfigError;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::{origin, syntax};

/// Examples of scopes, for errors about them.
pub(crate) const SCOPE_EXAMPLES: &str =
    "such as flex.community.members.read for API v2 or officernd.api.read for v1";

/// OfficeRnD's token endpoint.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// The form fields that this crate sets (RFC 6749 sections 2.3.1, 4.4.2).
const OWN_FIELDS: [&str; 4] = ["client_id", "client_secret", "grant_type", "scope"];

/// An app's credentials for the client-credentials grant (RFC 6749 section 4.4), and the scopes to
/// request.
///
/// Errors in it are reported when a provider is created from it. `Debug` does not show the secret.
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
    /// The scopes, separated by single spaces.
    pub(crate) scope: Option<String>,
    token_url: String,
    pub(crate) form_params: Vec<(String, String)>,
}

impl ClientCredentials {
    /// Creates credentials from an app's client id and secret, for OfficeRnD's token endpoint.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        let id = Part::Value(Secret::from(client_id.into()));
        Self::of(Source::Parts {
            id,
            secret: Part::Value(client_secret.into()),
        })
    }

    /// Creates credentials from a source such as a secret manager, which is called before each token
    /// request. [`CredentialSource`] has an example.
    #[must_use]
    pub fn from_source(source: impl CredentialSource) -> Self {
        Self::of(Source::custom(source))
    }

    pub(crate) fn of(source: Source) -> Self {
        Self {
            source,
            scope: None,
            token_url: TOKEN_URL.to_owned(),
            form_params: Vec::new(),
        }
    }

    /// Reads the credentials from the environment, like [`Settings::from_env`]:
    /// `OFFICERND_CLIENT_ID` and `OFFICERND_CLIENT_SECRET`, or the names of files in
    /// `OFFICERND_CLIENT_ID_FILE` and `OFFICERND_CLIENT_SECRET_FILE`; `OFFICERND_SCOPES`; and
    /// optionally `OFFICERND_TOKEN_URL`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the variable that is missing, empty or
    /// invalid, or that contradicts another.
    pub fn from_env() -> Result<Self, ConfigError> {
        Settings::from_env()?.credentials()
    }

    /// Sets the scopes to request, separated by spaces. OfficeRnD requires at least one scope. Other
    /// token endpoints may not need any.
    ///
    /// Scopes of API v2, such as `flex.community.members.read`, are listed with each endpoint.
    /// `officernd.api.read` and `officernd.api.write` belong to v1.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        let scope = scope.into();
        let scopes = scope.split(' ').filter(|scope| !scope.is_empty());
        let scopes = scopes.collect::<Vec<_>>().join(" ");
        self.scope = (!scopes.is_empty()).then_some(scopes);
        self
    }

    /// Sets the scopes to request from a list.
    #[must_use]
    pub fn scopes<I>(self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut all = String::new();
        for scope in scopes {
            all += scope.as_ref();
            all += " ";
        }
        self.scope(all)
    }

    /// Sets the token endpoint, such as OfficeRnD's staging
    /// (`https://identity-staging.officernd.com/oauth/token`, for the API at
    /// `https://staging.officernd.com`), a gateway, or a simulator. The URL must be https, or plain
    /// http to a loopback host. Default: `https://identity.officernd.com/oauth/token`.
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
        let (_, secret) = self.source.into_parts();
        let id = Part::File(path.into());
        self.source = Source::Parts { id, secret };
        self
    }

    /// Reads the client secret from this file: at most 64 KiB of UTF-8, without a byte order mark and
    /// one trailing line end.
    ///
    /// The file is read when the provider is created and again before each token request, so a rotated
    /// secret needs no restart. To rotate the app itself, put the id into a file, too. While a file
    /// cannot be read, the last credentials that could be read stay in use.
    #[must_use]
    pub fn secret_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        let (id, _) = self.source.into_parts();
        let secret = Part::File(path.into());
        self.source = Source::Parts { id, secret };
        self
    }

    /// Checks everything but id and secret. Returns the parsed token URL.
    pub(crate) fn check(&self) -> Result<Uri, ConfigError> {
        let token_url = parse_token_url(&self.token_url)
            .map_err(|problem| ConfigError::setting("token_url", problem))?;
        match &self.scope {
            Some(scope) if !syntax::valid_scope(scope) => {
                let problem = format!(
                    "{scope:?} has characters that RFC 6749 section 3.3 does not allow; use \
                     printable ASCII without quotes and backslashes, {SCOPE_EXAMPLES}"
                );
                return Err(ConfigError::setting("scopes", problem));
            }
            None if is_officernd(&token_url) => {
                let problem =
                    format!("is missing: OfficeRnD grants no token without one, {SCOPE_EXAMPLES}");
                return Err(ConfigError::setting("scopes", problem));
            }
            _ => {}
        }
        for (at, (name, _)) in self.form_params.iter().enumerate() {
            let mut earlier = self.form_params.iter().take(at);
            let problem = if name.is_empty() {
                "has no name"
            } else if OWN_FIELDS.contains(&&**name) {
                "is set by this crate; use new() or scope()"
            } else if earlier.any(|(other, _)| other == name) {
                "is given twice"
            } else {
                continue;
            };
            let problem = format!("{name:?} {problem}");
            return Err(ConfigError::setting("form_param", problem));
        }
        Ok(token_url)
    }
}

/// Parses a token URL. The error does not show it, because it may contain a password.
fn parse_token_url(url: &str) -> Result<Uri, &'static str> {
    if url.contains('#') {
        return Err("has a fragment; remove '#' and what follows it");
    }
    let uri: Uri = url
        .parse()
        .map_err(|_| "is not a URL; write https://host/path")?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("is relative; write https://host/path");
    };
    let (host, _) = origin::split(authority.as_str())?;
    match scheme {
        "https" => Ok(uri),
        "http" if origin::is_loopback(host) => Ok(uri),
        "http" => Err("is plain http, which would expose the secret; use https"),
        _ => Err("is neither https nor http"),
    }
}

/// Returns `true` for the token URLs of OfficeRnD.
fn is_officernd(token_url: &Uri) -> bool {
    let host = token_url.host().unwrap_or_default().to_ascii_lowercase();
    host.ends_with(".officernd.com")
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
