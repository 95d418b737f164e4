//! Your own token provider: here, a vault that fails twice. The first request waits while the cache tries once
//! more, then gets the error, which says when to come back. All later requests share one token.

#![expect(clippy::print_stdout, reason = "an example prints what it did")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, Response};
use officernd_auth::{
    AccessToken, BoxError, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit,
    TokenProvider,
};
use tower::{Service as _, ServiceBuilder, ServiceExt as _, service_fn};

#[derive(Clone, Default)]
struct Vault {
    reads: Arc<AtomicU32>,
}

impl TokenProvider for Vault {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        // Counts this request, and starts its timeout.
        let _permit = cx.permit().await?;
        let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        println!("vault read {read}, cause: {}", cx.cause().as_str());
        if read <= 2 {
            // The kind makes the cache back off; `retry_after` says for how long at least.
            let sealed = Error::new(ErrorKind::Transport, "the vault is sealed");
            return Err(sealed.with_retry_after(Duration::from_secs(1)));
        }
        AccessToken::bearer(format!("vault-token-{read}"), Duration::from_secs(600))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let vault = Vault::default();
    let layer = OfficeRndAuthLayer::new(vault.clone());
    // Any tower service of HTTP requests works as the client.
    let mut client = ServiceBuilder::new().layer(layer).service(service_fn(echo));

    let first = client.ready().await?.call(request()?).await;
    let error = first.err().ok_or("the vault was sealed")?;
    let error = Error::find(&error).ok_or("a token error was expected")?;
    println!("first request: {error}");
    let wait = error
        .retry_after()
        .ok_or("the error says when to come back")?;
    tokio::time::sleep(wait).await;

    for _ in 0..3 {
        let response = client.ready().await?.call(request()?).await?;
        println!("request sent with {:?}", response.into_body());
    }
    assert_eq!(vault.reads.load(Ordering::Relaxed), 3);
    Ok(())
}

fn request() -> Result<Request<()>, http::Error> {
    Request::get("https://app.officernd.com/api/v2/organizations/acme/locations").body(())
}

/// In place of an HTTP client: reports whether the request carried the token.
async fn echo(request: Request<()>) -> Result<Response<&'static str>, BoxError> {
    let bearer = request.headers().get("authorization");
    let bearer = bearer.is_some_and(|value| value.as_bytes().starts_with(b"Bearer vault-token-3"));
    Ok(Response::new(if bearer {
        "the vault's third token"
    } else {
        "no token"
    }))
}
