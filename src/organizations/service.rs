use std::fmt;
use std::future::{Future, ready};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::map::Map;
use crate::middleware::{AuthRequest, AuthResponse, ResponseFuture};
use crate::{BoxError, Error, OfficeRndAuthLayer, SkipAuth};

/// A service that sends each request through the layer of its organization.
///
/// Made by [`OrganizationsLayer`](super::OrganizationsLayer). Readiness is the inner service's own.
///
/// # Errors
///
/// Those of [`OfficeRndAuth`](crate::OfficeRndAuth), and
/// [`ErrorKind::Organization`](crate::ErrorKind::Organization) for a path that names no
/// organization, or for an organization without credentials.
///
/// # Cancel safety
///
/// A dropped future gives up its request. Another request that waits for the same organization
/// calls the resolver again; a token fetch continues.
#[derive(Debug, Clone)]
pub struct OrganizationsAuth<S> {
    inner: S,
    map: Arc<Map>,
}

impl<S> OrganizationsAuth<S> {
    pub(super) fn new(inner: S, map: Arc<Map>) -> Self {
        Self { inner, map }
    }

    /// Takes the service that was readied; a clone stays behind.
    #[cold]
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }
}

impl<S, Req> Service<Req> for OrganizationsAuth<S>
where
    S: Service<Req> + Clone,
    S::Response: AuthResponse,
    S::Error: Into<BoxError>,
    Req: AuthRequest,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = OrganizationsFuture<S::Future, S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let extensions = request.extensions();
        if extensions.is_some_and(|all| all.get::<SkipAuth>().is_some()) {
            count("passed");
            let inner = self.inner.call(request);
            let state = State::Passed { inner };
            return OrganizationsFuture { state };
        }
        let chosen = extensions.and_then(|all| all.get());
        let slug = match self.map.slug(chosen, request.path()) {
            Ok(slug) => slug,
            Err(error) => {
                count("refused");
                // Gives back what the readied service holds: a permit, a place.
                drop(self.take_ready());
                return unsent(Box::pin(ready(Err(error))), None);
            }
        };
        let entries = self.map.entries.load();
        if let Some(layer) = entries.get(slug).and_then(|entry| entry.layer()) {
            let inner = layer.call(&mut self.inner, request);
            let state = State::Sent { inner };
            return OrganizationsFuture { state };
        }
        let find = Box::pin(Arc::clone(&self.map).find(slug.into()));
        unsent(find, Some((self.take_ready(), request)))
    }
}

pin_project! {
    /// The response of an [`OrganizationsAuth`] service.
    ///
    /// Unboxed if the organization is known.
    pub struct OrganizationsFuture<F, S, Req> {
        #[pin]
        state: State<F, S, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, S, Req> {
        Sent { #[pin] inner: ResponseFuture<F, S, Req> },
        Passed { #[pin] inner: F },
        // Boxed: rare, and must not make every hit's future large.
        Unsent { call: Box<Unsent<S, Req>> },
    }
}

/// A request that waits for the resolver, or is refused.
struct Unsent<S, Req> {
    /// `None` once it has ended.
    find: Option<Find>,
    /// The request and the service readied for it, unless it is refused.
    held: Option<(S, Req)>,
}

type Find = Pin<Box<dyn Future<Output = Result<OfficeRndAuthLayer, Error>> + Send>>;

#[cold]
fn unsent<F, S, Req>(find: Find, held: Option<(S, Req)>) -> OrganizationsFuture<F, S, Req> {
    let find = Some(find);
    let call = Box::new(Unsent { find, held });
    let state = State::Unsent { call };
    OrganizationsFuture { state }
}

type Sent<S, Req> = State<<S as Service<Req>>::Future, S, Req>;

impl<S, Req> Unsent<S, Req> {
    /// Sends the request once its layer is there.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sent<S, Req>, Error>>
    where
        S: Service<Req> + Clone,
        Req: AuthRequest,
    {
        let Some(find) = &mut self.find else {
            // Polled after completion: the caller's mistake. Stay pending.
            return Poll::Pending;
        };
        let found = task::ready!(find.as_mut().poll(cx));
        self.find = None;
        match (found, self.held.take()) {
            (Ok(layer), Some((mut service, request))) => {
                let inner = layer.call(&mut service, request);
                Poll::Ready(Ok(State::Sent { inner }))
            }
            (Err(error), held) => {
                if held.is_some() {
                    count("failed");
                }
                Poll::Ready(Err(error))
            }
            (Ok(_), None) => Poll::Pending,
        }
    }
}

impl<F, S, Req, Res, E> Future for OrganizationsFuture<F, S, Req>
where
    F: Future<Output = Result<Res, E>>,
    S: Service<Req, Future = F> + Clone,
    Res: AuthResponse,
    E: Into<BoxError>,
    Req: AuthRequest,
{
    type Output = Result<Res, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { inner } => return inner.poll(cx),
                StateProj::Passed { inner } => return inner.poll(cx).map_err(Into::into),
                StateProj::Unsent { call } => {
                    let sent = task::ready!(call.poll_send(cx))?;
                    state.set(sent);
                }
            }
        }
    }
}

impl<F, S, Req> fmt::Debug for OrganizationsFuture<F, S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrganizationsFuture")
            .finish_non_exhaustive()
    }
}

/// Counts a request that was given to no organization's layer.
fn count(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("officernd_auth_requests_total", "outcome" => outcome).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = outcome;
}
