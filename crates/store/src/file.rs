//! The store for processes on one host: small files in a directory, under a file lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fs4::TryLockError;
use officernd_auth::clock::{Clock as _, TokioClock};
use officernd_auth::{Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::later;
use crate::error::ConfigError;
use crate::record::{Record, Window};
use crate::store::{Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, TokenStore, whole_millis};

/// The maximum size of a file. A record is an entry in base64 with a few other fields.
const MAX_FILE_SIZE: u64 = 4 * MAX_ENTRY_SIZE as u64;
/// How long to wait for the lock, which is usually held for 1 ms. Below the 3 s limit of an operation.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A [`TokenStore`] for processes on one host: sealed files in a directory.
///
/// Each change is written to a new file and renamed into place, under a lock of the operating system. A process
/// may be killed at any time: the system releases its lock, and each file is complete, with or without the
/// change. There is one file for each token and one for each endpoint, with mode 0600. Files are not removed.
///
/// Use a separate directory on a local disk, which only the user of the service can write to. Over NFS, locks
/// may not work. Times are from the wall clock. If it is set forward, leases and slots may end early; if it is
/// set back, they are shortened to their normal length.
///
/// An operation waits up to 2 s for the lock, on tokio's blocking threads.
///
/// ```
/// use officernd_auth_store::FileStore;
///
/// # fn main() -> Result<(), officernd_auth_store::ConfigError> {
/// # let dir = std::env::temp_dir().join("officernd-auth-doc");
/// // For example /run/my-service
/// let store = FileStore::new(dir)?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: Arc<Path>,
}

impl FileStore {
    /// Opens a store in this directory. Makes the directory, with mode 0700, if it is missing; its parent must
    /// exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be made or written to, is a symbolic link, belongs to another
    /// user, or is writable by group or others.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let dir: PathBuf = dir.into();
        prepare(&dir).map_err(|error| {
            ConfigError::new(format!("{} cannot be used: {error}", dir.display()))
        })?;
        Ok(Self { dir: dir.into() })
    }

    /// Reads the record and the window, runs the operation, and writes its changes.
    async fn with<T: Send + 'static>(
        &self,
        (key, window): (&Name, &Name),
        operation: impl FnOnce(&mut Record, &mut Window, u64) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let dir = Arc::clone(&self.dir);
        let (key, window) = (path(&dir, key), path(&dir, window));
        let work = move || -> io::Result<T> {
            let _lock = lock(&dir)?;
            let wall = TokioClock.wall().duration_since(UNIX_EPOCH);
            let now = whole_millis(wall.unwrap_or_default());
            let (mut record, mut slots): (Record, Window) = (read(&key), read(&window));
            let before = (record.clone(), slots.clone());
            let answer = operation(&mut record, &mut slots, now);
            if record != before.0 {
                replace(&key, &record)?;
            }
            if slots != before.1 {
                replace(&window, &slots)?;
            }
            Ok(answer)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(io::Error::other).and_then(|done| done);
        done.map_err(|error| {
            let message = "the token store's directory cannot be used";
            Error::new(ErrorKind::Store, message).with_source(error)
        })
    }
}

impl TokenStore for FileStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let owned = claim.clone();
        self.with((&claim.key, &claim.window), move |record, window, now| {
            record.claim(window, &owned, now)
        })
        .await
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        let owned = finish.clone();
        self.with((&finish.key, &finish.window), move |record, window, now| {
            record.finish(window, &owned, now)
        })
        .await
    }
}

/// Makes the directory if it is missing, checks it, and opens the lock file.
fn prepare(dir: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => check(dir)?,
    }
    open_lock(dir).map(drop)
}

/// Refuses a directory that other users can write to, like ssh does.
fn check(dir: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::other(
            "it is not a directory, or a symbolic link",
        ));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            let writable = "group or others can write to it; use mode 0700";
            return Err(io::Error::other(writable));
        }
    }
    Ok(())
}

/// Opens the lock file. It is never removed: a process that waits for a removed file would lock a file that no
/// other process sees.
fn open_lock(dir: &Path) -> io::Result<File> {
    options().create(true).open(dir.join("officernd.lock"))
}

fn lock(dir: &Path) -> io::Result<File> {
    const PAUSE: Duration = Duration::from_millis(2);

    let file = open_lock(dir)?;
    let until = later(TokioClock.now(), LOCK_TIMEOUT);
    // Bounded by attempts too, because a test may pause the clock.
    for _ in 0..1000 {
        // Fully qualified: newer versions of std have a method of the same name.
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if TokioClock.now() >= until => break,
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
    let message = "another process holds the lock";
    Err(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// Reads a file. A file that is missing or cannot be read counts as empty.
fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    let read = || -> io::Result<T> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE_SIZE)
            .read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    read().unwrap_or_default()
}

/// Writes a new file and renames it into place. Does not sync to disk: after a power failure the record may be
/// missing, which costs one token request.
fn replace<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Removes the file of a process that was killed here. Under the lock, no other process uses it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().create_new(true).open(&temporary)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    drop(file);
    fs::rename(&temporary, path)
}

fn path(dir: &Path, key: &Name) -> PathBuf {
    dir.join(format!("officernd-{key}.json"))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
