//! The token store that gateways share, and the provider over it.

use officernd_auth::{
    AccessToken, Error, FetchContext, HttpTokenProvider, RateLimit, TokenProvider,
};
use officernd_auth_store::{FileStore, RedisStore, SharedTokenProvider};

/// One store for all organizations: their tokens have keys of their own.
#[derive(Clone)]
pub(crate) enum SharedStore {
    Redis(RedisStore),
    File(FileStore),
}

impl SharedStore {
    /// `redis://`, `rediss://` or `file:/directory`. The error does not show the
    /// URL, which may hold a password.
    pub(crate) fn open(url: &str, roots: Option<Vec<u8>>) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file:") {
            if !path.starts_with('/') || roots.is_some() {
                return Err("file: needs an absolute path, and no store_ca_file".to_owned());
            }
            let store = FileStore::new(path).map_err(|error| error.to_string())?;
            return Ok(Self::File(store));
        }
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err("is none of redis://, rediss:// and file:/directory".to_owned());
        }
        let store = RedisStore::new(url);
        let store = match roots {
            Some(pem) => store.and_then(|store| store.root_certificates(pem)),
            None => store,
        };
        Ok(Self::Redis(store.map_err(|error| error.to_string())?))
    }
}

/// Mints the tokens of one app, through the store if there is one.
#[derive(Clone)]
pub(crate) enum Provider {
    Alone(HttpTokenProvider),
    Redis(SharedTokenProvider<HttpTokenProvider>),
    File(SharedTokenProvider<HttpTokenProvider>),
}

impl Provider {
    pub(crate) fn new(http: HttpTokenProvider, store: Option<&SharedStore>) -> Self {
        match store {
            None => Self::Alone(http),
            Some(SharedStore::Redis(store)) => {
                Self::Redis(SharedTokenProvider::new(http, store.clone()))
            }
            Some(SharedStore::File(store)) => {
                Self::File(SharedTokenProvider::new(http, store.clone()))
            }
        }
    }

    /// How many tokens came from another gateway, by way of the store.
    pub(crate) fn taken(&self) -> u64 {
        match self {
            Self::Alone(_) => 0,
            Self::Redis(shared) => shared.status().taken,
            Self::File(shared) => shared.status().taken,
        }
    }

    /// What the store's last failure was, while the store is out of use.
    pub(crate) fn store_problem(&self) -> Option<String> {
        let status = match self {
            Self::Alone(_) => return None,
            Self::Redis(shared) => shared.status(),
            Self::File(shared) => shared.status(),
        };
        let last = status.last_error.unwrap_or_default();
        (!status.available).then_some(last)
    }
}

impl TokenProvider for Provider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        match self {
            Self::Alone(provider) => provider.fetch(cx).await,
            Self::Redis(provider) => provider.fetch(cx).await,
            Self::File(provider) => provider.fetch(cx).await,
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        match self {
            Self::Alone(provider) => provider.rate_limit(),
            Self::Redis(provider) => provider.rate_limit(),
            Self::File(provider) => provider.rate_limit(),
        }
    }
}
