use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer as _;
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
/// asks the resolver again; a token fetch goes on.
#[derive(Clone)]
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
            return State::Passed { inner }.into();
        }
        let chosen = extensions.and_then(|all| all.get());
        let slug = match self.map.slug(chosen, request.path()) {
            Ok(slug) => slug,
            Err(error) => {
                count("refused");
                // Gives back what the readied service holds: a permit, a place.
                drop(self.take_ready());
                return Pending::Refused(error).into();
            }
        };
        let known = self.map.with(slug, |layer| layer.layer(self.inner.clone()));
        if let Some(mut service) = known {
            // The readied service sends the request, and comes back unless the request waits.
            mem::swap(service.get_mut(), &mut self.inner);
            let inner = service.call(request);
            mem::swap(service.get_mut(), &mut self.inner);
            return State::Sent { inner }.into();
        }
        let find = Box::pin(Arc::clone(&self.map).find(slug.into()));
        let held = (self.take_ready(), request);
        Pending::Resolving { find, held }.into()
    }
}

impl<S: fmt::Debug> fmt::Debug for OrganizationsAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrganizationsAuth")
            .field("inner", &self.inner)
            .field("map", &self.map)
            .finish()
    }
}

pin_project! {
    /// The response of an [`OrganizationsAuth`] service.
    ///
    /// Un-boxed if the organization is known.
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
        Pending { call: Box<Pending<S, Req>> },
    }
}

type Find = Pin<Box<dyn Future<Output = Result<OfficeRndAuthLayer, Error>> + Send>>;

/// A request that has not been sent.
enum Pending<S, Req> {
    /// It waits for the resolver, with the service readied for it.
    Resolving { find: Find, held: (S, Req) },
    /// It will not be sent.
    Refused(Error),
    /// The future has completed.
    Completed,
}

impl<F, S, Req> From<State<F, S, Req>> for OrganizationsFuture<F, S, Req> {
    fn from(state: State<F, S, Req>) -> Self {
        Self { state }
    }
}

impl<F, S, Req> From<Pending<S, Req>> for OrganizationsFuture<F, S, Req> {
    #[cold]
    fn from(call: Pending<S, Req>) -> Self {
        let call = Box::new(call);
        State::Pending { call }.into()
    }
}

/// The response of the organization's own service.
type Sent<S, Req> = ResponseFuture<<S as Service<Req>>::Future, S, Req>;

impl<S, Req> Pending<S, Req> {
    /// Sends the request once its layer is there.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sent<S, Req>, Error>>
    where
        S: Service<Req> + Clone,
        S::Response: AuthResponse,
        S::Error: Into<BoxError>,
        Req: AuthRequest,
    {
        let found = match self {
            Self::Resolving { find, .. } => Some(ready!(find.as_mut().poll(cx))),
            _ => None,
        };
        match (mem::replace(self, Self::Completed), found) {
            (Self::Resolving { held, .. }, Some(Ok(layer))) => {
                let (inner, request) = held;
                Poll::Ready(Ok(layer.layer(inner).call(request)))
            }
            (Self::Resolving { .. }, Some(Err(error))) => {
                count("failed");
                Poll::Ready(Err(error))
            }
            (Self::Refused(error), _) => Poll::Ready(Err(error)),
            // Polled after completion: the caller's mistake. Stay pending.
            _ => Poll::Pending,
        }
    }
}

impl<F, S, Req, Res, E> Future for OrganizationsFuture<F, S, Req>
where
    F: Future<Output = Result<Res, E>>,
    S: Service<Req, Response = Res, Error = E, Future = F> + Clone,
    Res: AuthResponse,
    E: Into<BoxError>,
    Req: AuthRequest,
{
    type Output = Result<Res, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { inner } => return inner.poll(cx),
                StateProj::Passed { inner } => return inner.poll(cx).map_err(Into::into),
                StateProj::Pending { call } => {
                    let inner = ready!(call.poll_send(cx))?;
                    state.set(State::Sent { inner });
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
