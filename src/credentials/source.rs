//! Where a client id and its secret come from.

use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::check;
use crate::clock::{Clock, timeout_at};
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::observability;
use crate::secret::Secret;

/// Credentials that cannot be read, or that were refused, are loaded again this often.
pub(crate) const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// A longer file is not a client id or a secret.
const MAX_BYTES: usize = 64 * 1024;

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
    /// Creates a pair of this id and this secret.
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
/// It is implemented for closures that return a future:
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
    /// Loads the current pair. Called before each token request, and at most every 5 s after the
    /// endpoint refused the last pair.
    ///
    /// # Errors
    ///
    /// Any error. Its text goes to logs. While the source fails, the last pair that it returned
    /// stays in use.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when it takes longer than half of the `fetch_timeout`.
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

type LoadFuture = Pin<Box<dyn Future<Output = Result<AppCredentials, BoxError>> + Send>>;

/// Where the pair of a [`ClientCredentials`](super::ClientCredentials) comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Pair { id: Part, secret: Part },
    Custom(Arc<dyn Fn() -> LoadFuture + Send + Sync>),
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

    /// Returns the two parts; those of a custom source are empty.
    pub(super) fn into_pair(self) -> (Part, Part) {
        let empty = || Part::Value(Secret::from(""));
        match self {
            Self::Pair { id, secret } => (id, secret),
            Self::Custom(_) => (empty(), empty()),
        }
    }

    /// Loads the current pair.
    async fn load(&self) -> Result<AppCredentials, BoxError> {
        match self {
            Self::Custom(load) => {
                let pair = load().await?;
                check::setting("client_id", &pair.client_id)?;
                check::setting("client_secret", pair.client_secret.expose())?;
                Ok(pair)
            }
            Self::Pair { id, secret } => Ok(read_pair(id, secret)?),
        }
    }
}

/// A source and what it returned last.
#[derive(Debug)]
pub(crate) struct Loader {
    source: Source,
    last_good: Mutex<Option<AppCredentials>>,
}

impl Loader {
    /// Reads values and files, so that mistakes show at setup. A custom source is not called yet.
    pub(crate) fn new(source: Source) -> Result<Self, ConfigError> {
        let read = match &source {
            Source::Pair { id, secret } => Some(read_pair(id, secret)?),
            Source::Custom(_) => None,
        };
        Ok(Self {
            last_good: Mutex::new(read),
            source,
        })
    }

    /// Returns the pair to use now: the last good one while the source fails or takes until `until`.
    pub(crate) async fn load(
        &self,
        clock: &dyn Clock,
        until: Instant,
    ) -> Result<AppCredentials, Error> {
        let loaded = match timeout_at(clock, until, pin!(self.source.load())).await {
            Some(loaded) => loaded,
            None => Err(BoxError::from("the source did not answer in time")),
        };
        // An option is whole between any two statements.
        let last_good = || {
            self.last_good
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let error = match loaded {
            Ok(pair) => {
                *last_good() = Some(pair.clone());
                return Ok(pair);
            }
            Err(error) => error,
        };
        let pair = last_good().clone();
        observability::credentials_unreadable(&*error, pair.is_some());
        pair.ok_or_else(|| {
            // Nothing was sent, so waiting callers get it at once.
            Error::new(ErrorKind::Transport, "the credentials cannot be loaded")
                .not_attempted()
                .with_source(error)
                .with_retry_after(LOAD_AGAIN)
                .with_max_backoff(LOAD_AGAIN)
        })
    }

    /// Returns `true` if a different pair may be loaded later.
    pub(crate) fn can_change(&self) -> bool {
        use Part::Value;

        !matches!(
            self.source,
            Source::Pair {
                id: Value(_),
                secret: Value(_)
            }
        )
    }
}

fn read_pair(id: &Part, secret: &Part) -> Result<AppCredentials, ConfigError> {
    let id = id.read("client_id")?;
    Ok(AppCredentials::new(
        id.expose(),
        secret.read("client_secret")?,
    ))
}

impl Part {
    /// Reads a value or a file and checks it; `name` is the setting's, for errors.
    pub(crate) fn read(&self, name: &'static str) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(value) => check::setting(name, value.expose()).map(|()| value.clone()),
            Self::File(path) => read_file(path).map_err(|problem| ConfigError::File {
                name,
                path: path.clone(),
                problem,
            }),
        }
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
    file.take(MAX_BYTES as u64 + 1)
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
    check::credential(text)?;
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
