//! A client id or secret in a file.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::secret::Secret;

/// A longer file is not a client id or a secret.
const MAX_BYTES: usize = 64 * 1024;

/// Reads a regular file, also behind symbolic links, as Kubernetes mounts
/// secrets. A pipe would block until someone writes to it.
pub(super) fn read(field: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    let failed = |problem: String| ConfigError::CredentialFile {
        field,
        path: path.to_owned(),
        problem,
    };
    let cannot_be_opened = |error| failed(format!("cannot be opened: {error}"));
    // Before it is opened: to open a pipe blocks.
    if !fs::metadata(path).map_err(cannot_be_opened)?.is_file() {
        return Err(failed("is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(cannot_be_opened)?;
    // Room from the start: a buffer that grows leaves its old bytes behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if bytes.len() > MAX_BYTES {
        return Err(failed("is over 64 KiB".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("is not UTF-8".to_owned()))?;
    // One newline at the end is the editor's.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Secret::from(text))
}
