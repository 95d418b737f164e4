//! The store for processes on one host: a directory of small files under a
//! lock of the operating system.

mod record;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::record::Record;
use super::{Holder, LARGEST_ENTRY, Lease, Spent, StoreKey, Stored, Terms, TokenStore};
use crate::clock::{Clock as _, TokioClock};
use crate::error::{ConfigError, Error, ErrorKind};

/// A record is an entry in base64 and a little more. What is larger is not one.
const LARGEST_FILE: u64 = 4 * LARGEST_ENTRY as u64;

/// Whoever has the lock has it for a millisecond; or it was stopped.
const LOCK_PATIENCE: Duration = Duration::from_millis(400);

/// Records that nobody has touched for so long are swept out: no token lives
/// for longer than a day.
const DUST: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A [`TokenStore`] for processes on one host: a directory of sealed files.
///
/// Each change is written aside and renamed into place under a lock of the
/// operating system, so that a process may be killed at any instant: the lock
/// goes with it, and what is read is whole, before or after the change. Files
/// are readable for their owner only (mode 0600).
///
/// Use a directory of your own on a local disk. Over NFS, locks may be a
/// matter of opinion.
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
    /// A store in this directory. It is made, for the owner only, if it is not
    /// there; what is above it must be.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] if it cannot be made, or files cannot be written
    /// in it.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let dir: PathBuf = dir.into();
        let failed = |what: &str, error: &io::Error| ConfigError::Store {
            problem: format!("{} cannot be {what}: {error}", dir.display()),
        };
        match make_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("made", &error));
            }
            _ => {}
        }
        open_lock(&dir).map_err(|error| failed("used", &error))?;
        Ok(Self { dir: dir.into() })
    }

    /// Reads the record, lets it be changed, and puts it back if it was.
    async fn with<T, F>(&self, key: &StoreKey, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Record, SystemTime) -> (T, bool) + Send + 'static,
    {
        let (dir, key) = (Arc::clone(&self.dir), key.clone());
        let work = move || -> io::Result<T> {
            let _lock = lock(&dir)?;
            let now = TokioClock.wall();
            let mut record = read(&dir, &key)?;
            record.sweep(now);
            let (answer, changed) = change(&mut record, now);
            if changed {
                replace(&dir, &key, &record)?;
            }
            Ok(answer)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(io::Error::other).flatten_io().map_err(failed)
    }
}

impl TokenStore for FileStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, Error> {
        self.with(key, |record, now| (record.load(now), false))
            .await
    }

    async fn save(
        &self,
        key: &StoreKey,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
    ) -> Result<bool, Error> {
        let (entry, holder) = (entry.to_vec(), holder.clone());
        let dir = Arc::clone(&self.dir);
        self.with(key, move |record, now| {
            sweep(&dir, now);
            let saved = record.save(&entry, life, &holder, now);
            (saved, saved)
        })
        .await
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        holder: &Holder,
        limit: Duration,
    ) -> Result<Lease, Error> {
        let holder = holder.clone();
        self.with(key, move |record, now| {
            let lease = record.acquire(&holder, limit, now);
            (lease, lease == Lease::Held)
        })
        .await
    }

    async fn release(&self, key: &StoreKey, holder: &Holder) -> Result<(), Error> {
        let holder = holder.clone();
        self.with(key, move |record, _| ((), record.release(&holder)))
            .await
    }

    async fn spend(&self, key: &StoreKey, ticket: &Holder, terms: Terms) -> Result<Spent, Error> {
        let ticket = ticket.clone();
        self.with(key, move |record, now| {
            let spent = record.spend(&ticket, terms, now);
            (spent, spent == Spent::Granted)
        })
        .await
    }

    async fn settle(&self, key: &StoreKey, ticket: &Holder, per: Duration) -> Result<(), Error> {
        let ticket = ticket.clone();
        self.with(key, move |record, now| {
            ((), record.settle(&ticket, per, now))
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

fn record_path(dir: &Path, key: &StoreKey) -> PathBuf {
    dir.join(format!("officernd-{key}.json"))
}

/// One lock for the directory, in a file that is never removed: who waits for
/// a file that another removes would hold a lock on nothing.
fn open_lock(dir: &Path) -> io::Result<File> {
    options()
        .create(true)
        .truncate(false)
        .open(dir.join("officernd.lock"))
}

fn lock(dir: &Path) -> io::Result<File> {
    const PAUSE: Duration = Duration::from_millis(2);

    let file = open_lock(dir)?;
    let mut left = LOCK_PATIENCE;
    // By name: newer compilers know a method that is called the same.
    while fs4::FileExt::try_lock(&file).is_err() {
        left = left
            .checked_sub(PAUSE)
            .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the lock is not given up"))?;
        std::thread::sleep(PAUSE);
    }
    Ok(file)
}

/// The record; an empty one for what is not there, or is none.
fn read(dir: &Path, key: &StoreKey) -> io::Result<Record> {
    let file = match File::open(record_path(dir, key)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Aside, and then into place. Not synced to the disk: after a power cut there
/// may be nothing, which is a miss, and the token would be dead soon anyway.
fn replace(dir: &Path, key: &StoreKey, record: &Record) -> io::Result<()> {
    let aside = dir.join(format!("officernd-{key}.tmp"));
    // What somebody left who was killed here. Under the lock nobody is here.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().create_new(true).open(&aside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    drop(file);
    fs::rename(&aside, record_path(dir, key))
}

/// Removes records of keys that nobody uses any more.
fn sweep(dir: &Path, now: SystemTime) {
    const MOST: usize = 1000;

    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.take(MOST).flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Not the lock, which has a dot there.
        let ours = name.starts_with("officernd-");
        let touched = entry.metadata().and_then(|metadata| metadata.modified());
        let age = touched.map(|touched| now.duration_since(touched).unwrap_or_default());
        if ours && age.is_ok_and(|age| age > DUST) {
            // One that stays is no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes are Unix's"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

trait FlattenIo<T> {
    fn flatten_io(self) -> io::Result<T>;
}

impl<T> FlattenIo<T> for io::Result<io::Result<T>> {
    fn flatten_io(self) -> io::Result<T> {
        self.and_then(|inner| inner)
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("dir", &self.dir).finish()
    }
}
