//! The layer as a middleware of `reqwest_middleware`'s client.

use std::sync::Arc;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::{OrganizationSlug, OrganizationsLayer};
use crate::SkipAuth;

/// Sends each request through its organization's layer, with the replay after a 401. Reads the
/// extensions [`SkipAuth`] and [`OrganizationSlug`].
#[async_trait::async_trait]
impl Middleware for OrganizationsLayer {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if extensions.get::<SkipAuth>().is_some() {
            return next.run(request, extensions).await;
        }
        let chosen = extensions.get::<OrganizationSlug>();
        let slug = self.map.slug(chosen, request.url().path());
        let slug = slug.map_err(not_sent)?.into();
        let found = Arc::clone(&self.map).find(slug).await;
        let layer = found.map_err(not_sent)?;
        layer.handle(request, extensions, next).await
    }
}

/// Wraps the error as a source: `reqwest_middleware::Error` shows only the sources of a
/// middleware's error.
fn not_sent(error: crate::Error) -> Error {
    let shown = crate::Error::new(error.kind(), "officernd-auth did not send the request");
    Error::middleware(shown.with_source(error))
}
