//! Where the client secret comes from.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{BoxError, ConfigError};
use crate::secret::Secret;

/// No secret is longer; a file that is, is another file.
const LONGEST: usize = 64 * 1024;

#[derive(Clone)]
pub(super) enum SecretSource {
    Value(Secret),
    File(PathBuf),
    Closure(Arc<dyn Fn() -> Result<Secret, BoxError> + Send + Sync>),
}

impl SecretSource {
    pub(super) fn of(
        source: impl Fn() -> Result<Secret, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::Closure(Arc::new(source))
    }

    pub(super) fn read(&self) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path),
            Self::Closure(source) => source().map_err(|error| ConfigError::SecretFile {
                path: PathBuf::from("(closure)"),
                problem: format!("cannot be read: {error}"),
            }),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, ConfigError> {
    let failed = |problem: String| ConfigError::SecretFile {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(|error| failed(format!("cannot be opened: {error}")))?;
    // Room from the start: a buffer that grows leaves its old bytes behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if bytes.len() > LONGEST {
        return Err(failed("is over 64 KiB: that is no secret".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("is not UTF-8".to_owned()))?;
    // One newline at the end is the editor's.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Secret::from(text))
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(secret) => secret.fmt(f),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Closure(_) => f.write_str("Closure"),
        }
    }
}
