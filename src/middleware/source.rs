//! Where a layer's tokens come from.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::request::AuthRequest;
use crate::cache::{SlotReader, TokenCache, TokenHeader, TokenId};
use crate::clock::Clock;
use crate::error::Error;
use crate::observability::{RequestOutcome, WaitTimer};
use crate::organizations::{Known, Organizations};
use crate::token::AccessToken;

#[derive(Debug)]
pub(super) enum Source {
    Single(TokenCache),
    PerOrganization(Organizations),
}

/// What a look at the caches found for a request.
pub(super) enum Lookup {
    /// A token, which is on the request now.
    Inserted(Arc<TokenId>),
    /// No token yet: the request has to wait.
    Missing,
    /// The organization's token may not go to the request's origin.
    Foreign(Error),
}

/// A token for a request that waited, and its id. `None`: the request is to be
/// sent without a token.
type Acquired = Result<Option<(AccessToken, Arc<TokenId>)>, Error>;

pub(super) type Acquire = Pin<Box<dyn Future<Output = Acquired> + Send>>;

impl Source {
    /// Puts the token on the request if there is one that it may carry now.
    #[inline(always)]
    pub(super) fn try_header<Req: AuthRequest>(
        &self,
        reader: &mut SlotReader,
        request: &mut Req,
    ) -> Result<Lookup, Error> {
        let found = match self {
            Self::Single(cache) => cache.try_header(reader, |header| insert(request, header)),
            Self::PerOrganization(organizations) => {
                let chosen = request.organization();
                let caches = organizations.pin();
                let target = request.target();
                let slug = match &chosen {
                    Some(chosen) => chosen.as_str(),
                    None => organizations.slug_of(request.path())?,
                };
                let Some(known) = caches.get(slug) else {
                    return Ok(Lookup::Missing);
                };
                if let Err(error) = known.check_origin(slug, target.scheme, target.authority) {
                    return Ok(Lookup::Foreign(error));
                }
                let cache = &known.cache;
                cache.try_header_once(|header| insert(request, header))
            }
        };
        Ok(found.map_or(Lookup::Missing, Lookup::Inserted))
    }

    /// Waits for the token of a request. `pass_foreign`: to an origin from which
    /// its organization keeps the token, the request goes without.
    #[cold]
    pub(super) fn acquire<Req: AuthRequest>(
        &self,
        request: &mut Req,
        pass_foreign: bool,
    ) -> Acquire {
        match self {
            Self::Single(cache) => {
                let cache = cache.clone();
                Box::pin(async move {
                    let acquired = pin!(token_of(&cache));
                    counted(cache.clock(), acquired).await
                })
            }
            Self::PerOrganization(organizations) => {
                let organizations = organizations.clone();
                let chosen = request.organization();
                let target = request.target();
                let slug = match &chosen {
                    Some(chosen) => Ok(chosen.as_str()),
                    None => organizations.slug_of(request.path()),
                };
                let slug = slug.map(str::to_owned);
                let scheme = target.scheme.map(str::to_owned);
                let authority = target.authority.map(str::to_owned);
                Box::pin(async move {
                    let acquired = pin!(async {
                        let slug = slug?;
                        let named = |error: Error| error.of_organization(&slug);
                        let deadline = organizations.deadline();
                        let found = organizations.find(&slug, deadline).await;
                        let known: Known = found.map_err(named)?;
                        match known.check_origin(&slug, scheme.as_deref(), authority.as_deref()) {
                            Ok(()) => {}
                            Err(_) if pass_foreign => return Ok(None),
                            Err(error) => return Err(error),
                        }
                        let token = known.cache.token_until(deadline).await.map_err(named)?;
                        let id = known.cache.id_of(&token);
                        Ok(Some((token, id)))
                    });
                    counted(organizations.clock(), acquired).await
                })
            }
        }
    }
}

#[inline(always)]
fn insert<Req: AuthRequest>(request: &mut Req, header: &TokenHeader) -> Arc<TokenId> {
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, header.value.clone());
    Arc::clone(&header.id)
}

async fn token_of(cache: &TokenCache) -> Acquired {
    let token = cache.token().await?;
    let id = cache.id_of(&token);
    Ok(Some((token, id)))
}

/// Counts a request that has waited. By reference: an `async fn` keeps a future
/// that it is given twice, and thousands may wait for one token.
async fn counted(
    clock: &dyn Clock,
    acquired: Pin<&mut impl Future<Output = Acquired>>,
) -> Acquired {
    let waiter = WaitTimer::new(|| clock.now());
    let acquired = acquired.await;
    let outcome = match &acquired {
        Ok(Some(_)) => RequestOutcome::Waited,
        Ok(None) => RequestOutcome::Passed,
        Err(_) => RequestOutcome::Failed,
    };
    waiter.finish(outcome, || clock.now());
    acquired
}
