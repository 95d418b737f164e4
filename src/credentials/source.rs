//! Where a client id and its secret come from.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{check, file};
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
pub(super) trait DynSource: Send + Sync {
    fn load(&self) -> LoadFuture<'_>;
}

impl<S: CredentialSource> DynSource for S {
    fn load(&self) -> LoadFuture<'_> {
        Box::pin(CredentialSource::load(self))
    }
}

/// Where the pair of a [`ClientCredentials`](super::ClientCredentials) comes from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(super) id: Part,
    pub(super) secret: Part,
    /// Instead of the two.
    pub(super) custom: Option<Arc<dyn DynSource>>,
}

/// An id or a secret: in memory, or in a file.
#[derive(Clone)]
pub(super) enum Part {
    Value(Secret),
    File(PathBuf),
}

impl Source {
    /// Whether the pair may be another one than before.
    pub(crate) fn can_change(&self) -> bool {
        self.custom.is_some() || self.has_file()
    }

    fn has_file(&self) -> bool {
        let is_file = |part| matches!(part, &Part::File(_));
        is_file(&self.id) || is_file(&self.secret)
    }

    /// The pair as it is now, without waiting; `None` if a custom source has to
    /// be asked. Reading a file blocks.
    pub(crate) fn read(&self) -> Result<Option<AppCredentials>, ConfigError> {
        if self.custom.is_some() {
            return Ok(None);
        }
        let client_id = self.id.read("client_id")?;
        Ok(Some(AppCredentials {
            client_id: client_id.expose().to_owned(),
            client_secret: self.secret.read("client_secret")?,
        }))
    }

    /// The pair as it is now. Files are read on a blocking thread, one read at
    /// a time: `reading` is set while one runs, also when its caller has gone.
    pub(super) async fn load(&self, reading: &Arc<AtomicBool>) -> Result<AppCredentials, BoxError> {
        let read = match (&self.custom, tokio::runtime::Handle::try_current()) {
            (Some(custom), _) => Some(custom.load().await?),
            (None, Ok(runtime)) if self.has_file() => {
                if reading.swap(true, Ordering::Acquire) {
                    return Err("an earlier read of the file has not ended".into());
                }
                let (source, reading) = (self.clone(), Arc::clone(reading));
                let read = runtime.spawn_blocking(move || {
                    let read = source.read();
                    reading.store(false, Ordering::Release);
                    read
                });
                read.await??
            }
            (None, _) => self.read()?,
        };
        let pair = read.ok_or("there is no source")?;
        check::credential("client_id", &pair.client_id)?;
        check::credential("client_secret", pair.client_secret.expose())?;
        Ok(pair)
    }
}

impl Part {
    fn read(&self, field: &'static str) -> Result<Secret, ConfigError> {
        let value = match self {
            Self::Value(value) => value.clone(),
            Self::File(path) => file::read(field, path)?,
        };
        match (check::problem_of(value.expose()), self) {
            (None, _) => Ok(value),
            (Some(problem), Self::File(path)) => Err(ConfigError::CredentialFile {
                field,
                path: path.clone(),
                problem: problem.to_owned(),
            }),
            (Some(problem), Self::Value(_)) => Err(ConfigError::Credential { field, problem }),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.custom.is_some() {
            return f.write_str("a credential source");
        }
        let mut parts = f.debug_struct("AppCredentials");
        match &self.id {
            Part::Value(id) => parts.field("client_id", &id.expose()),
            Part::File(path) => parts.field("client_id", path),
        };
        match &self.secret {
            Part::Value(secret) => parts.field("client_secret", secret),
            Part::File(path) => parts.field("client_secret", path),
        };
        parts.finish()
    }
}
