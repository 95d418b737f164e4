//! Files in a directory that others may have meddled with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::store::{MAX_ENTRY_SIZE, Name};
use crate::clock::{Clock as _, TokioClock};

/// A record is an entry in base64 and a little more.
const MAX_FILE_SIZE: u64 = 4 * MAX_ENTRY_SIZE as u64;
/// A process holds the lock for a millisecond, unless it was stopped.
const LOCK_TIMEOUT: Duration = Duration::from_millis(400);
/// Files that no process has changed for this long are removed: no token lives
/// longer than a day.
const MAX_FILE_AGE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// What one file holds.
#[derive(Serialize, Deserialize)]
struct Saved<T> {
    boot: String,
    content: T,
}

/// Makes the directory if it is not there, checks it, and opens its lock.
pub(super) fn prepare(dir: &Path) -> io::Result<File> {
    make(dir)?;
    check(dir)?;
    open_lock(dir)
}

/// Makes the directory, for its owner only, if it is not there.
fn make(dir: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes are Unix's"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a directory in which others can put files, as ssh does.
fn check(dir: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    let refused = |why: &str| Err(io::Error::other(why.to_owned()));
    if !metadata.is_dir() {
        return refused("it is no directory, or a symbolic link");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return refused("it belongs to another user");
        }
        if metadata.mode() & 0o022 != 0 {
            return refused("group or others can write to it; use mode 0700");
        }
    }
    Ok(())
}

/// One lock for the directory, in a file that is never removed: a process that
/// waits for a file that another one removes would hold a lock on nothing.
fn open_lock(dir: &Path) -> io::Result<File> {
    let file = options().create(true).open(dir.join("officernd.lock"))?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("officernd.lock is no regular file")),
    }
}

pub(super) fn lock(dir: &Path) -> io::Result<File> {
    const PAUSE: Duration = Duration::from_millis(2);

    let file = match open_lock(dir) {
        // Something has removed the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => prepare(dir)?,
        opened => opened?,
    };
    let mut left = LOCK_TIMEOUT;
    // By name: newer compilers know a method that is called the same.
    while fs4::FileExt::try_lock(&file).is_err() {
        left = left
            .checked_sub(PAUSE)
            .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the lock is not given up"))?;
        std::thread::sleep(PAUSE);
    }
    Ok(file)
}

/// The content of a file of this boot; the default for everything else: a file
/// that is not there, cannot be read, or is no regular file.
pub(super) fn read<T: DeserializeOwned + Default>(dir: &Path, key: &Name, boot: &str) -> T {
    let read = || -> io::Result<T> {
        let mut options = OpenOptions::new();
        guarded(options.read(true));
        let file = options.open(path(dir, key))?;
        if !file.metadata()?.is_file() {
            return Ok(T::default());
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_SIZE).read_to_end(&mut bytes)?;
        let saved: Saved<T> = serde_json::from_slice(&bytes)?;
        Ok(match saved.boot == boot {
            true => saved.content,
            false => T::default(),
        })
    };
    read().unwrap_or_default()
}

/// Writes a file beside the old one and renames it into place. Not synced to
/// the disk: after a power cut the record may be missing, and the host has
/// booted anew anyway.
pub(super) fn replace<T: Serialize>(
    dir: &Path,
    key: &Name,
    boot: &str,
    content: &T,
) -> io::Result<()> {
    let temporary = dir.join(format!("officernd-{key}.tmp"));
    // A process that was killed here has left it: under the lock it is unused.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let saved = Saved {
        boot: boot.to_owned(),
        content,
    };
    let mut file = options().create_new(true).open(&temporary)?;
    file.write_all(&serde_json::to_vec(&saved)?)?;
    drop(file);
    fs::rename(&temporary, path(dir, key))
}

/// Removes files of keys that are no longer used.
pub(super) fn sweep(dir: &Path) {
    const MAX_FILES: usize = 1000;

    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let now = TokioClock.wall();
    for entry in entries.take(MAX_FILES).flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Not the lock, which has a dot there.
        let ours = name.starts_with("officernd-");
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.map(|changed| now.duration_since(changed).unwrap_or_default());
        if ours && age.is_ok_and(|age| age > MAX_FILE_AGE) {
            // A file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn path(dir: &Path, key: &Name) -> PathBuf {
    dir.join(format!("officernd-{key}.json"))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    guarded(&mut options);
    options
}

/// Follows no symbolic link, and does not wait for the other end of a FIFO.
fn guarded(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;

        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    #[cfg(not(unix))]
    let _ = options;
}
