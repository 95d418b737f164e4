//! The token store that several gateways share.

use std::path::Path;

use officernd_auth::HttpTokenProvider;
use officernd_auth_store::{FileStore, RedisStore, SharedTokenProvider};

use crate::config::Config;

pub(crate) type Shared = SharedTokenProvider<HttpTokenProvider>;

/// Wraps the provider of one app, so that its token is in the store under a key of its own.
pub(crate) type Share = Box<dyn Fn(HttpTokenProvider) -> Shared>;

/// Opens the configured store without connecting. The error does not show the URL, which may contain a
/// password.
pub(crate) fn open(config: &Config) -> Result<Option<Share>, String> {
    let url = match (&config.store, &config.store_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err("store and store_file are both set".to_owned()),
        (Some(url), None) => url.clone(),
        (None, Some(file)) => String::from_utf8(read(file)?)
            .map_err(|_| format!("{}: is not UTF-8", file.display()))?,
    };
    let url = url.trim();
    let roots = config.store_ca_file.as_deref().map(read).transpose()?;
    if let Some(path) = url.strip_prefix("file:") {
        if !path.starts_with('/') || roots.is_some() {
            return Err("file: takes an absolute path and no store_ca_file".to_owned());
        }
        let store = FileStore::new(path).map_err(|error| error.to_string())?;
        let share = move |provider| Shared::new(provider, store.clone());
        return Ok(Some(Box::new(share)));
    }
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err("must start with redis://, rediss:// or file:/".to_owned());
    }
    let store = RedisStore::new(url).and_then(|store| match roots {
        Some(pem) => store.root_certificates(pem),
        None => Ok(store),
    });
    let store = store.map_err(|error| error.to_string())?;
    let share = move |provider| Shared::new(provider, store.clone());
    Ok(Some(Box::new(share)))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}
