//! The layers as middleware of `reqwest_middleware`'s client.

use std::fmt;

use ::reqwest_middleware::{Error, Middleware, Next, Result};
use http::Extensions;
use reqwest::{Request, Response};
use tokio::sync::Mutex;
use tower::retry::RetryLayer;
use tower::util::{ServiceExt, service_fn};
use tower_layer::Layer;

use crate::error::BoxError;
use crate::observability::count_request;
use crate::organizations::OrganizationsLayer;
use crate::{OfficeRndAuthLayer, RetryUnauthorized, SkipAuth};

/// Sends each request through the layer, and replays it after a 401
/// ([`with_retry`](OfficeRndAuthLayer::with_retry)).
///
/// A middleware that is added after it sees each attempt, with its token. The extension
/// [`SkipAuth`] is set with `RequestBuilder::with_extension`.
/// [`Error::find_in`](crate::Error::find_in) finds this crate's error in
/// `reqwest_middleware::Error`.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = OfficeRndAuthLayer::new(StaticToken::new("abc")?);
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(layer)
///     .build();
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[async_trait::async_trait]
impl Middleware for OfficeRndAuthLayer {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if extensions.get::<SkipAuth>().is_some() {
            count_request("passed");
            return next.run(request, extensions).await;
        }
        let extensions = &Mutex::new(extensions);
        let rest = service_fn(move |request| {
            let next = next.clone();
            async move { next.run(request, &mut **extensions.lock().await).await }
        });
        let retry = RetryLayer::new(RetryUnauthorized::new());
        let client = retry.layer(self.layer(rest));
        client.oneshot(request).await.map_err(into_error)
    }
}

/// Sends each request through its organization's layer, and replays it after a 401.
///
/// The extensions [`SkipAuth`] and
/// [`OrganizationSlug`](crate::organizations::OrganizationSlug) are set with
/// `RequestBuilder::with_extension`.
#[async_trait::async_trait]
impl Middleware for OrganizationsLayer {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if extensions.get::<SkipAuth>().is_some() {
            count_request("passed");
            return next.run(request, extensions).await;
        }
        let layer = self.select(extensions.get(), request.url().path()).await;
        let layer = layer.map_err(|error| into_error(error.into()))?;
        layer.handle(request, extensions, next).await
    }
}

/// Returns the error of the inner client as it was, or wraps this crate's.
fn into_error(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => *inner,
        Err(error) => Error::middleware(NotSent(error)),
    }
}

/// Wraps this crate's error as a source: `reqwest_middleware::Error` shows only the sources of a
/// middleware's error.
#[derive(Debug)]
struct NotSent(BoxError);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("officernd-auth did not send the request")
    }
}

impl std::error::Error for NotSent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
