//! Where a layer's tokens come from: one cache, or one for each organisation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use self::private::Source;
use crate::cache::{Lent, Reader, Ticket, TokenCache, TokenStatus};
use crate::error::Error;
use crate::observability::{Requested, Waiter};
use crate::organizations::Directory;
use crate::organizations::slug::{Slug, refused};
use crate::token::AccessToken;

pub(super) type Acquired = Result<(AccessToken, Ticket), Error>;
pub(super) type Acquire = Pin<Box<dyn Future<Output = Acquired> + Send>>;

/// What a layer takes its tokens from: a [`TokenCache`], or
/// [`Organizations`]. Sealed.
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::TokenSource) {}
/// # let token = officernd_auth::StaticToken::new("abc").unwrap();
/// takes(&officernd_auth::TokenCache::new(token));
/// ```
pub trait TokenSource: Source {}

impl<T: Source> TokenSource for T {}

impl Source for TokenCache {
    type Reader = Reader;

    #[inline(always)]
    fn lend(&self, _path: &str, reader: &mut Self::Reader) -> Result<Option<Lent>, Error> {
        Ok(Self::lend(self, reader))
    }

    fn acquire(&self, _path: &str) -> Acquire {
        let cache = self.clone();
        Box::pin(async move {
            let waiter = Waiter::new(|| cache.now());
            let token = cache.token().await;
            told(waiter, &token, || cache.now());
            let token = token?;
            let ticket = cache.ticket(&token);
            Ok((token, ticket))
        })
    }
}

/// A token cache for each organisation, behind
/// [`OfficeRndAuthLayer::per_organization`](super::OfficeRndAuthLayer::per_organization).
/// Clones share the caches.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use officernd_auth::organizations::Organizations;
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = HashMap::from([("acme".to_owned(), StaticToken::new("abc")?)]);
/// let layer = OfficeRndAuthLayer::per_organization(tokens).build()?;
/// let organizations: &Organizations = layer.organizations();
/// assert!(organizations.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Organizations {
    directory: Arc<Directory>,
    default: Option<Box<str>>,
}

impl Organizations {
    pub(crate) fn new(directory: Directory, default: Option<Box<str>>) -> Self {
        let directory = Arc::new(directory);
        Self { directory, default }
    }

    /// The cache of an organisation: for warm-up and readiness. Asks the
    /// resolver if there is none yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Organization`](crate::ErrorKind::Organization) for what is
    /// no slug or has no credentials; the resolver's own errors; `Timeout`
    /// after the `acquire_timeout`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn cache(&self, slug: &str) -> Result<TokenCache, Error> {
        let slug = Slug::new(slug)
            .ok_or_else(|| refused("no slug: letters, digits, '-' and '_', at most 63 of them"))?;
        self.directory.find(slug.as_str()).await
    }

    /// The state of every organisation in use.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, TokenStatus)> {
        self.directory.statuses()
    }

    /// How many organisations are kept, unknown ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directory.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Organizations {
    #[inline]
    fn slug<'a>(&'a self, path: &'a str) -> Result<&'a str, Error> {
        let slug = Slug::of_path(path)?.map(Slug::as_str);
        slug.or(self.default.as_deref()).ok_or_else(|| {
            refused(
                "the path names no organisation (/api/v2/organizations/{slug}/…), and there is \
                 no default_organization",
            )
        })
    }
}

impl Source for Organizations {
    type Reader = ();

    #[inline]
    fn lend(&self, path: &str, (): &mut Self::Reader) -> Result<Option<Lent>, Error> {
        let slug = self.slug(path)?;
        let lent = self.directory.with(slug, TokenCache::lend_once);
        Ok(lent.flatten())
    }

    fn acquire(&self, path: &str) -> Acquire {
        let directory = Arc::clone(&self.directory);
        let slug = self.slug(path).map(str::to_owned);
        Box::pin(async move {
            let waiter = Waiter::new(|| directory.now());
            let found = async {
                let cache = directory.find(&slug?).await?;
                let token = cache.token().await?;
                let ticket = cache.ticket(&token);
                Ok((token, ticket))
            }
            .await;
            told(waiter, &found, || directory.now());
            found
        })
    }
}

/// Counts a request that has waited.
fn told<T>(waiter: Waiter, result: &Result<T, Error>, now: impl FnOnce() -> Instant) {
    let became = match result {
        Ok(_) => Requested::Waited,
        Err(_) => Requested::Failed,
    };
    waiter.over(became, now);
}

impl fmt::Debug for Organizations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.fmt(f)
    }
}

pub(super) mod private {
    use super::{Acquire, Error, Lent, fmt};

    #[expect(unnameable_types, reason = "sealed")]
    pub trait Source: Clone + fmt::Debug {
        /// What a service keeps to read faster.
        type Reader: Default + Clone;

        /// The token for a request to this path, if it is at hand.
        fn lend(&self, path: &str, reader: &mut Self::Reader) -> Result<Option<Lent>, Error>;
        /// Waits for it.
        fn acquire(&self, path: &str) -> Acquire;
    }
}
