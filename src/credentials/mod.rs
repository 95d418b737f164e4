//! Who asks for a token, where, and for what.

mod env;
mod source;

use std::fmt;
use std::path::PathBuf;

use http::Uri;

use self::source::SecretSource;
use crate::error::{BoxError, ConfigError};
use crate::origin;
use crate::secret::Secret;
use crate::syntax;

/// Where OfficeRnD hands out tokens.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// The fields that this crate fills in itself (RFC 6749 §2.3.1, §4.4.2).
const OWN_FIELDS: [&str; 4] = ["client_id", "client_secret", "grant_type", "scope"];

/// An app's credentials for the client-credentials grant (RFC 6749 §4.4), and
/// what it asks for.
///
/// A plain value: mistakes in it are reported when a provider is made of it.
/// `Debug` does not show the secret.
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
    pub(crate) client_id: String,
    secret: SecretSource,
    scope: Option<String>,
    token_url: String,
    pub(crate) form_params: Vec<(String, String)>,
    pub(crate) basic_auth: bool,
}

impl ClientCredentials {
    /// The client id and secret of an app, for OfficeRnD's token endpoint.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self {
            client_id: client_id.into(),
            secret: SecretSource::Value(client_secret.into()),
            scope: None,
            token_url: TOKEN_URL.to_owned(),
            form_params: Vec::new(),
            basic_auth: false,
        }
    }

    /// The credentials of the environment: `OFFICERND_CLIENT_ID`;
    /// `OFFICERND_CLIENT_SECRET` or `OFFICERND_CLIENT_SECRET_FILE`;
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
    /// left out; OfficeRnD wants at least one.
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

    /// Another token endpoint: staging, a gateway, a simulator. Absolute and
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

    /// Sends id and secret as HTTP Basic (RFC 6749 §2.3.1) instead of in the
    /// form. OfficeRnD documents the form only.
    #[must_use]
    pub fn basic_auth(mut self) -> Self {
        self.basic_auth = true;
        self
    }

    /// The client secret is what this file holds, without a newline at its
    /// end. It is read when the provider is made and again at each fetch, so a
    /// rotated secret needs no restart. At most 64 KiB of UTF-8.
    #[must_use]
    pub fn secret_from_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret = SecretSource::File(path.into());
        self
    }

    /// The client secret is what this closure returns, each time it is asked:
    /// when the provider is made and at each fetch. It may block for as long
    /// as a file takes to read. What its error says goes to logs.
    ///
    /// ```
    /// use officernd_auth::{ClientCredentials, Secret};
    ///
    /// let credentials = ClientCredentials::new("client-id", "")
    ///     .secret_from(|| Ok(Secret::from("from-a-keyring")));
    /// # drop(credentials);
    /// ```
    #[must_use]
    pub fn secret_from<F>(mut self, source: F) -> Self
    where
        F: Fn() -> Result<Secret, BoxError> + Send + Sync + 'static,
    {
        self.secret = SecretSource::of(source);
        self
    }

    /// The secret as it is now.
    pub(crate) fn read_secret(&self) -> Result<Secret, ConfigError> {
        let secret = self.secret.read()?;
        let problem = problem_of(secret.expose());
        match (problem, &self.secret) {
            (None, _) => Ok(secret),
            (Some(problem), SecretSource::File(path)) => Err(ConfigError::SecretFile {
                path: path.clone(),
                problem: problem.to_owned(),
            }),
            (Some(problem), _) => Err(ConfigError::Credential {
                field: "client_secret",
                problem,
            }),
        }
    }

    /// Whether the secret may have changed since it was read.
    pub(crate) fn secret_can_change(&self) -> bool {
        !matches!(self.secret, SecretSource::Value(_))
    }

    /// The scopes to ask for, with one space between two; `None` for none.
    pub(crate) fn asked_scope(&self) -> Option<String> {
        let words: Vec<&str> = self.scope.as_deref()?.split(' ').collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Everything checked but the secret; the token URL, parsed.
    pub(crate) fn check(&self) -> Result<Uri, ConfigError> {
        if let Some(problem) = problem_of(&self.client_id) {
            let field = "client_id";
            return Err(ConfigError::Credential { field, problem });
        }
        if let Some(scope) = self
            .asked_scope()
            .filter(|scope| !syntax::valid_scope(scope))
        {
            return Err(ConfigError::Scope {
                problem: format!(
                    "{scope:?} has characters that RFC 6749 §3.3 does not allow: \
                     scopes are printable ASCII without quotes and backslashes, \
                     separated by spaces"
                ),
            });
        }
        for (at, (name, _)) in self.form_params.iter().enumerate() {
            let problem = if name.is_empty() {
                "has no name"
            } else if OWN_FIELDS.contains(&name.as_str()) {
                "is filled in by this crate; use new() or scope()"
            } else if self
                .form_params
                .iter()
                .take(at)
                .any(|(other, _)| other == name)
            {
                "is given twice"
            } else {
                continue;
            };
            let name = name.clone();
            return Err(ConfigError::FormParam { name, problem });
        }
        check_url(&self.token_url)
    }
}

/// Why an id or a secret cannot be used.
fn problem_of(credential: &str) -> Option<&'static str> {
    if credential.is_empty() {
        Some("is empty")
    } else if credential.chars().any(char::is_control) {
        Some("has control characters in it (a newline at its end?)")
    } else {
        None
    }
}

fn check_url(url: &str) -> Result<Uri, ConfigError> {
    // Of what is not a sound URL nothing is shown: it may hold a password.
    let wrong = |problem: &str| {
        let problem = problem.to_owned();
        Err(ConfigError::TokenUrl { problem })
    };
    if url.contains('#') {
        return wrong("has a fragment; leave out '#' and what follows");
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("is no URL; write https://host/path");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("is relative; write https://host/path");
    };
    let host = match origin::split(authority.as_str()) {
        Ok((host, _)) => host,
        Err(flaw) => return wrong(flaw),
    };
    match scheme {
        "https" => Ok(uri),
        "http" if origin::is_loopback(host) => Ok(uri),
        "http" => wrong("is plain http, which would show the secret to the network; use https"),
        _ => wrong("is neither https nor http"),
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.form_params.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("ClientCredentials")
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .field("scope", &self.scope)
            .field("form_params", &names)
            .field("basic_auth", &self.basic_auth)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> ClientCredentials {
        ClientCredentials::new("id", "secret").scope("officernd.api.read")
    }

    #[test]
    fn sound_credentials_are_sound() {
        assert_eq!(sound().check().unwrap(), TOKEN_URL);
        assert_eq!(sound().read_secret().unwrap().expose(), "secret");
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let table = [
            (ClientCredentials::new("", "s"), "client_id is empty"),
            (ClientCredentials::new("a\nb", "s"), "client_id has control"),
            (sound().scope("a\"b"), "RFC 6749 §3.3"),
            (sound().scope("é"), "RFC 6749 §3.3"),
            (sound().scope("a\tb"), "RFC 6749 §3.3"),
            (sound().form_param("scope", "x"), "filled in by this crate"),
            (
                sound().form_param("a", "1").form_param("a", "2"),
                "given twice",
            ),
            (sound().form_param("", "1"), "no name"),
            (sound().token_url("/oauth/token"), "is relative"),
            (sound().token_url("identity.officernd.com"), "is relative"),
            (sound().token_url(""), "is no URL"),
            (
                sound().token_url("http://identity.officernd.com/"),
                "plain http",
            ),
            (
                sound().token_url("ftp://identity.officernd.com/"),
                "neither https",
            ),
            (sound().token_url("https://u:hunter2@host/"), "user info"),
            (sound().token_url("https://host:99999/"), "port"),
            (sound().token_url("https://host/#x"), "fragment"),
        ];
        for (credentials, message) in table {
            let error = credentials.check().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains("hunter2"));
        }
        for (secret, message) in [
            ("", "client_secret is empty"),
            ("s\n", "newline at its end"),
        ] {
            let error = ClientCredentials::new("id", secret)
                .read_secret()
                .unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for url in [
            "http://127.0.0.1:8080/oauth/token",
            "http://localhost/t",
            "http://[::1]:1/t",
        ] {
            assert!(sound().token_url(url).check().is_ok(), "{url}");
        }
    }

    #[test]
    fn scopes_are_joined_by_single_spaces() {
        let asked = |credentials: ClientCredentials| credentials.asked_scope();
        assert_eq!(asked(sound().scopes(["a", "b"])).as_deref(), Some("a b"));
        assert_eq!(asked(sound().scope("  a   b ")).as_deref(), Some("a b"));
        assert_eq!(asked(sound().scope(" ")), None);
    }

    #[test]
    fn debug_shows_no_secret_and_no_parameter() {
        let credentials = ClientCredentials::new("id", "hunter2").form_param("audience", "hunter2");
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
