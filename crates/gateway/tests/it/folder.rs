//! Folders for configuration, sockets and stores.

use std::path::{Path, PathBuf};

/// A folder that is gone with the test. Declare it before the gateway that
/// writes to it, so that the gateway ends first.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("gw-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in it, by its name.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.join(name), text).unwrap();
        self.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
