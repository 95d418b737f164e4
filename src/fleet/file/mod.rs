//! The store for processes on one host: a directory of small files under a
//! lock of the operating system.

mod clock;
mod disk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Record, Window};
use super::store::{Claim, Claimed, Finish, Name, TokenStore};
use crate::error::{ConfigError, Error, ErrorKind};

/// A [`TokenStore`] for processes on one host: a directory of sealed files.
///
/// Each change is written to a file beside the old one and renamed into place,
/// under a lock of the operating system. A process may be killed at any
/// instant: its lock ends with it, and a file is whole, before or after the
/// change. Files have mode 0600.
///
/// Use a directory of its own on a local disk, owned by the user of the service
/// and writable by no other. Symbolic links, FIFOs and devices in it are not
/// followed or opened: they count as absent. A directory that is removed is
/// made again. Over NFS, locks may not work.
///
/// On Linux, times are those of `CLOCK_BOOTTIME`, which no correction of the
/// wall clock changes; a record from before the last boot counts as absent.
///
/// ```
/// use officernd_auth::fleet::FileStore;
///
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// # let dir = std::env::temp_dir().join("officernd-auth-doc");
/// // For example /run/my-service
/// let store = FileStore::new(dir)?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FileStore {
    dir: Arc<Path>,
}

impl FileStore {
    /// A store in this directory. Makes it, with mode 0700, if it is not there;
    /// its parent must be.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] if it cannot be made or written to, is a symbolic
    /// link, belongs to another user, or is writable by group or others.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let dir: PathBuf = dir.into();
        let failed = |error: io::Error| ConfigError::Store {
            problem: format!("{} cannot be used: {error}", dir.display()),
        };
        disk::prepare(&dir).map_err(failed)?;
        Ok(Self { dir: dir.into() })
    }

    /// Reads the record and the window, runs the operation, and writes what it
    /// changed.
    async fn with<T: Send + 'static>(
        &self,
        key: &Name,
        window: &Name,
        operation: impl FnOnce(&mut Record, &mut Window, u64) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let dir = Arc::clone(&self.dir);
        let (key, window) = (key.clone(), window.clone());
        let work = move || -> io::Result<T> {
            let _lock = disk::lock(&dir)?;
            let now = clock::now();
            let mut record: Record = disk::read(&dir, &key, &now.boot);
            let mut places: Window = disk::read(&dir, &window, &now.boot);
            let before = (record.clone(), places.clone());
            let answer = operation(&mut record, &mut places, now.millis);
            if record != before.0 {
                disk::replace(&dir, &key, &now.boot, &record)?;
            }
            if places != before.1 {
                disk::replace(&dir, &window, &now.boot, &places)?;
            }
            Ok(answer)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(io::Error::other)
            .and_then(|done| done)
            .map_err(failed)
    }
}

impl TokenStore for FileStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let owned = claim.clone();
        self.with(&claim.key, &claim.window, move |record, window, now| {
            record.claim(window, &owned, now)
        })
        .await
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        let (owned, dir) = (finish.clone(), Arc::clone(&self.dir));
        self.with(&finish.key, &finish.window, move |record, window, now| {
            disk::sweep(&dir);
            record.finish(window, &owned, now)
        })
        .await
    }
}

fn failed(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Store,
        "the token store's directory cannot be used",
    )
    .with_source(error)
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("dir", &self.dir).finish()
    }
}
