//! Where a client id and its secret come from.

use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::check;
use crate::error::{BoxError, ConfigError};
use crate::secret::Secret;

/// The client id of an app and its secret, as one pair.
///
/// ```
/// use officernd_auth::credentials::AppCredentials;
///
/// let pair = AppCredentials::new("client-id", "hunter2");
/// assert!(!format!("{pair:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
pub struct AppCredentials {
    /// The client id.
    pub client_id: String,
    /// The client secret.
    pub client_secret: Secret,
}

impl AppCredentials {
    /// The pair of this id and this secret.
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

/// An asynchronous source of credentials, such as Vault, a cloud's secret manager
/// or a database.
///
/// A closure that returns a future is one, too:
///
/// ```
/// use officernd_auth::ClientCredentials;
/// use officernd_auth::credentials::AppCredentials;
///
/// let credentials = ClientCredentials::from_source(|| async {
///     // ... ask the secret manager ...
///     Ok(AppCredentials::new("client-id", "client-secret"))
/// })
/// .scope("flex.community.members.read");
/// # drop(credentials);
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// Loads the pair as it is now. Called before each token request, and every
    /// 5 s at most after the endpoint refused the last pair.
    ///
    /// # Errors
    ///
    /// Any error. Its text goes to logs. While the source fails, the last pair
    /// that it returned stays in use.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when it takes longer than half of the
    /// `fetch_timeout`.
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

type LoadFuture<'a> = Pin<Box<dyn Future<Output = Result<AppCredentials, BoxError>> + Send + 'a>>;

/// [`CredentialSource`] without its type.
pub(crate) trait DynSource: Send + Sync {
    fn load(&self) -> LoadFuture<'_>;
}

impl<S: CredentialSource> DynSource for S {
    fn load(&self) -> LoadFuture<'_> {
        Box::pin(CredentialSource::load(self))
    }
}

/// Where the pair of a [`ClientCredentials`](super::ClientCredentials) comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Pair { id: Part, secret: Part },
    Custom(Arc<dyn DynSource>),
}

/// An id or a secret: in memory, or in a file.
#[derive(Clone)]
pub(crate) enum Part {
    Value(Secret),
    File(PathBuf),
}

impl Source {
    /// Returns whether another pair may be loaded later.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(
            self,
            Self::Pair {
                id: Part::Value(_),
                secret: Part::Value(_)
            }
        )
    }

    /// Returns the two parts; those of a custom source are empty.
    pub(super) fn into_pair(self) -> (Part, Part) {
        let empty = || Part::Value(Secret::from(""));
        match self {
            Self::Pair { id, secret } => (id, secret),
            Self::Custom(_) => (empty(), empty()),
        }
    }

    /// Reads values and files; `None` if a custom source has to be asked.
    pub(crate) fn read(&self) -> Result<Option<AppCredentials>, ConfigError> {
        let Self::Pair { id, secret } = self else {
            return Ok(None);
        };
        let id = id.read("client_id")?;
        let secret = secret.read("client_secret")?;
        Ok(Some(AppCredentials::new(id.expose(), secret)))
    }

    /// Loads the current pair.
    pub(super) async fn load(&self) -> Result<AppCredentials, BoxError> {
        let pair = match self {
            Self::Custom(custom) => custom.load().await?,
            Self::Pair { .. } => self.read()?.ok_or("there is no source")?,
        };
        check::credential("client_id", &pair.client_id)?;
        check::credential("client_secret", pair.client_secret.expose())?;
        Ok(pair)
    }
}

/// A longer file is not a client id or a secret.
const MAX_BYTES: usize = 64 * 1024;

impl Part {
    /// Reads a value or a file and checks it; `name` is the setting's, for errors.
    pub(crate) fn read(&self, name: &'static str) -> Result<Secret, ConfigError> {
        let path = match self {
            Self::Value(value) => {
                check::credential(name, value.expose())?;
                return Ok(value.clone());
            }
            Self::File(path) => path,
        };
        let value = read_file(path).and_then(|value| match check::problem_of(value.expose()) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(value),
        });
        let path = path.clone();
        value.map_err(|problem| ConfigError::File {
            name,
            path,
            problem,
        })
    }
}

/// Reads a regular file, also behind symbolic links, as Kubernetes mounts secrets.
fn read_file(path: &Path) -> Result<Secret, String> {
    let cannot_be_opened = |error| format!("cannot be opened: {error}");
    // Before the file is opened: opening a pipe blocks.
    if !fs::metadata(path).map_err(cannot_be_opened)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot_be_opened)?;
    // Room from the start: a buffer that grows leaves its old bytes behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > MAX_BYTES {
        return Err("is over 64 KiB".to_owned());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8")?;
    // Editors add both.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Secret::from(text))
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Pair { id, secret } = self else {
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
