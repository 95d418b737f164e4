//! The cache that people write by hand.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::sync::RwLock;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt as _, service_fn};

/// Returns a correct lazy single flight over `inner`: it keeps a token until it expires, and one request fetches the
/// next one under the write lock while the others wait.
///
/// `fetch` returns a token and when it expires. With `drop_on_401`, the cache also drops a token that got a 401.
pub(crate) fn lazy<S, F, Fut>(
    inner: S,
    fetch: F,
    drop_on_401: bool,
) -> impl Service<Request<()>, Response = Response<()>, Error = BoxError, Future: Send> + Clone + Send
where
    S: Service<Request<()>, Response = Response<()>> + Clone + Send,
    S::Error: Into<BoxError>,
    S::Future: Send,
    F: Fn() -> Fut + Clone + Send,
    Fut: Future<Output = Result<(String, Instant), BoxError>> + Send,
{
    let cache: Arc<RwLock<Option<(String, Instant)>>> = Arc::default();
    service_fn(move |mut request: Request<()>| {
        let (inner, fetch, cache) = (inner.clone(), fetch.clone(), Arc::clone(&cache));
        async move {
            let cached = live(&*cache.read().await);
            let token = match cached {
                Some(token) => token,
                None => {
                    let mut cache = cache.write().await;
                    match live(&cache) {
                        Some(token) => token,
                        None => cache.insert(fetch().await?).0.clone(),
                    }
                }
            };
            let value = HeaderValue::try_from(format!("Bearer {token}"))?;
            request.headers_mut().insert(AUTHORIZATION, value);
            let response = inner.oneshot(request).await.map_err(Into::into)?;
            if drop_on_401 && response.status() == StatusCode::UNAUTHORIZED {
                // Another request may have replaced it already.
                let mut cache = cache.write().await;
                cache.take_if(|(current, _)| *current == token);
            }
            Ok(response)
        }
    })
}

fn live(cached: &Option<(String, Instant)>) -> Option<String> {
    let (token, expires) = cached.as_ref()?;
    (Instant::now() < *expires).then(|| token.clone())
}
