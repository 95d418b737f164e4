//! Sources of a client id and its secret.

use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::{BoxError, ConfigError};
use crate::future::BoxFuture;
use crate::secret::Secret;

/// Credentials that cannot be loaded, or that were refused, are loaded again this often.
pub(crate) const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// Maximum size of a file with a client id or a secret.
const MAX_BYTES: usize = 64 * 1024;

/// The client id and the client secret of an app.
///
/// ```
/// use officernd_auth::credentials::AppCredentials;
///
/// let app = AppCredentials::new("client-id", "hunter2");
/// assert!(!format!("{app:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
pub struct AppCredentials {
    /// The client id.
    pub client_id: String,
    /// The client secret.
    pub client_secret: Secret,
}

impl AppCredentials {
    /// Creates credentials from an id and a secret.
    #[must_use]
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: client_secret.into(),
        }
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.client_secret.expose() == other.client_secret.expose()
    }
}

/// An asynchronous source of credentials, such as Vault, a cloud's secret manager or a database.
///
/// Implemented for closures that return a future:
///
/// ```
/// use officernd_auth::ClientCredentials;
/// use officernd_auth::credentials::AppCredentials;
///
/// let credentials = ClientCredentials::from_source(|| async {
///     // ... call the secret manager ...
///     Ok(AppCredentials::new("client-id", "client-secret"))
/// })
/// .scope("flex.community.members.read");
/// # drop(credentials);
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// Loads the current credentials. Called before each token request, and at most every 5 s after
    /// the endpoint refused the last ones.
    ///
    /// # Errors
    ///
    /// Returns any error; its `Display` goes to logs. While the source fails, the last credentials
    /// stay in use.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped after half of the `fetch_timeout`.
    fn load(&self) -> impl Future<Output = Result<AppCredentials, BoxError>> + Send;
}

impl<F, Fut> CredentialSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AppCredentials, BoxError>> + Send,
{
    fn load(&self) -> impl Future<Output = Result<AppCredentials, BoxError>> + Send {
        self()
    }
}

/// Where the id and the secret of [`ClientCredentials`](super::ClientCredentials) come from.
#[derive(Clone)]
pub(crate) enum Source {
    Parts { id: Part, secret: Part },
    Custom(Arc<dyn Fn() -> BoxFuture<Result<AppCredentials, BoxError>> + Send + Sync>),
}

/// An id or a secret: in memory, or in a file.
#[derive(Clone)]
pub(crate) enum Part {
    Value(Secret),
    File(PathBuf),
}

impl Source {
    pub(super) fn custom(source: impl CredentialSource) -> Self {
        let source = Arc::new(source);
        Self::Custom(Arc::new(move || {
            let source = Arc::clone(&source);
            Box::pin(async move { source.load().await })
        }))
    }

    /// Returns id and secret. Those of a custom source are empty.
    pub(super) fn into_parts(self) -> (Part, Part) {
        let empty = || Part::Value(Secret::from(""));
        match self {
            Self::Parts { id, secret } => (id, secret),
            Self::Custom(_) => (empty(), empty()),
        }
    }

    /// Reads values and files. Returns `None` for a custom source.
    pub(crate) fn read(&self) -> Result<Option<AppCredentials>, ConfigError> {
        match self {
            Self::Parts { id, secret } => read_parts(id, secret).map(Some),
            Self::Custom(_) => Ok(None),
        }
    }

    /// Loads the current credentials.
    pub(crate) async fn load(&self) -> Result<AppCredentials, BoxError> {
        match self {
            Self::Parts { id, secret } => Ok(read_parts(id, secret)?),
            Self::Custom(load) => {
                let app = load().await?;
                check("client_id", &app.client_id)?;
                check("client_secret", app.client_secret.expose())?;
                Ok(app)
            }
        }
    }

    /// Returns `true` if different credentials may be loaded later.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(
            self,
            Self::Parts {
                id: Part::Value(_),
                secret: Part::Value(_)
            }
        )
    }
}

fn read_parts(id: &Part, secret: &Part) -> Result<AppCredentials, ConfigError> {
    let id = id.read("client_id")?;
    let secret = secret.read("client_secret")?;
    Ok(AppCredentials::new(id.expose(), secret))
}

impl Part {
    /// Reads and checks a value or a file. Errors have the `name` of the setting.
    pub(crate) fn read(&self, name: &'static str) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(value) => check(name, value.expose()).map(|()| value.clone()),
            Self::File(path) => read_file(path).map_err(|problem| ConfigError::File {
                name,
                path: path.clone(),
                problem,
            }),
        }
    }
}

/// Checks that a string can be an id or a secret.
fn check(name: &'static str, value: &str) -> Result<(), ConfigError> {
    flaw(value).map_or(Ok(()), |problem| Err(ConfigError::setting(name, problem)))
}

/// Returns why a string cannot be an id or a secret.
fn flaw(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.chars().any(char::is_control) {
        Some("has control characters; remove them, such as a newline at its end")
    } else if value.trim().is_empty() {
        Some("is blank")
    } else {
        None
    }
}

/// Reads a regular file, or a symbolic link to one, as Kubernetes mounts secrets.
fn read_file(path: &Path) -> Result<Secret, String> {
    let cannot_be_opened = |error| format!("cannot be opened: {error}");
    // Checked before the file is opened, because opening a pipe blocks.
    if !fs::metadata(path).map_err(cannot_be_opened)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot_be_opened)?;
    // Allocated in full: a buffer that grows would leave bytes of the secret in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > MAX_BYTES {
        return Err("is over 64 KiB".to_owned());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8")?;
    // Editors add a byte order mark and a line end.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match flaw(text) {
        Some(flaw) => Err(flaw.to_owned()),
        None => Ok(Secret::from(text)),
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Parts { id, secret } = self else {
            return f.write_str("a credential source");
        };
        let mut parts = f.debug_struct("AppCredentials");
        match id {
            Part::Value(id) => parts.field("client_id", &id.expose()),
            Part::File(path) => parts.field("client_id", path),
        };
        match secret {
            Part::Value(secret) => parts.field("client_secret", secret),
            Part::File(path) => parts.field("client_secret", path),
        };
        parts.finish()
    }
}
