//! Where a layer's tokens come from.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::request::AuthRequest;
use crate::cache::{SlotReader, Token, TokenCache};
use crate::clock::Clock;
use crate::error::Error;
use crate::observability::{RequestOutcome, WaitTimer};
use crate::organizations::{Known, Organizations};

#[derive(Debug)]
pub(super) enum Source {
    Single(TokenCache),
    PerOrganization(Organizations),
}

/// What a look at the caches found for a request.
pub(super) enum Lookup {
    /// A token, which is on the request now.
    Inserted(Arc<Token>),
    /// No token yet: the request has to wait.
    Missing,
    /// The organization's token may not go to the request's origin.
    Foreign(Error),
}

/// A token for a request that waited. `None`: the request is to be sent without a
/// token.
type Acquired = Result<Option<Arc<Token>>, Error>;

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
            Self::Single(cache) => cache.try_carry(Some(reader), |token| carry(request, token)),
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
                cache.try_carry(None, |token| carry(request, token))
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
                        let token = known.cache.token_until(deadline).await;
                        Ok(Some(token.map_err(named)?))
                    });
                    counted(organizations.clock(), acquired).await
                })
            }
        }
    }
}

#[inline(always)]
fn carry<Req: AuthRequest>(request: &mut Req, token: &Arc<Token>) -> Arc<Token> {
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, token.value().clone());
    Arc::clone(token)
}

async fn token_of(cache: &TokenCache) -> Acquired {
    Ok(Some(cache.token_until(cache.deadline()).await?))
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
