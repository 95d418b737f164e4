//! Sends a token request over any HTTP client, and reads the response up to a limit.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::clock::{later, timeout_at};
#[cfg(feature = "reqwest")]
use crate::error::ConfigError;
use crate::error::{BoxError, Error, ErrorKind, chain};
use crate::future::BoxFuture;
use crate::provider::FetchContext;

/// Maximum size of a token response.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// A type-erased HTTP client.
pub(super) type Transport = Box<
    dyn Fn(Request<Bytes>, FetchContext) -> BoxFuture<Result<Response<Bytes>, Error>> + Send + Sync,
>;

/// Sends over a tower HTTP service.
pub(super) fn over_service<S, B>(service: S) -> Transport
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Box::new(move |request, cx| {
        let mut service = service.clone();
        Box::pin(async move {
            // A service behind a limit that it shares with waiting requests is never ready. The
            // fetch timeout would end the wait too, but without the cause.
            let until = later(cx.clock().now(), cx.fetch_timeout() / 10 * 9);
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(|error| failed(error.into())));
            let ready = timeout_at(cx.clock(), until, pin!(ready)).await;
            // Nothing is sent before `call`.
            ready
                .unwrap_or_else(|| Err(not_ready()))
                .map_err(|error| error.mark_unsent(true))?;
            let response = service.call(request.map(Full::new)).await;
            read(response.map_err(|error| failed(error.into()))?).await
        })
    })
}

/// Sends over a reqwest client.
#[cfg(feature = "reqwest")]
pub(super) fn over_reqwest(client: reqwest::Client) -> Transport {
    Box::new(move |request, _| {
        let client = client.clone();
        Box::pin(async move {
            // reqwest cannot send a stream twice, so redirects and retries do not resend the secret.
            let request = request.map(|body| reqwest::Body::wrap(Full::new(body)));
            let request =
                reqwest::Request::try_from(request).map_err(|error| failed(error.into()))?;
            let token_url = request.url().clone();
            let response = client.execute(request).await;
            let response = response.map_err(|error| failed(error.into()))?;
            if *response.url() != token_url {
                let message = "the token endpoint redirected the request, and the client followed; \
                    is the token URL right?";
                return Err(Error::new(ErrorKind::Malformed, message));
            }
            read(Response::from(response)).await
        })
    })
}

/// Builds a client for token requests. `plain`: the token URL is plain http, to a loopback host.
#[cfg(feature = "reqwest")]
pub(super) fn reqwest_client(plain: bool) -> Result<reqwest::Client, ConfigError> {
    if let Some(problem) = missing_tls(plain) {
        let problem = problem.to_owned();
        return Err(ConfigError::Client { problem });
    }
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // The rate limit does not see the client's own retries.
        .retry(reqwest::retry::never())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        // Below `fetch_timeout`, so that a connection that was not made does not count towards the rate limit.
        .connect_timeout(std::time::Duration::from_secs(5))
        // A token is fetched once an hour; an idle connection would be closed by then.
        .pool_max_idle_per_host(0);
    let client = match plain {
        // A proxy would read the secret; https goes through it in a tunnel.
        true => client.no_proxy(),
        false => client,
    };
    client.build().map_err(|error| ConfigError::Client {
        // Its message is "builder error"; the source has the reason.
        problem: error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string),
    })
}

/// Returns why this build, or this program, cannot build the client.
#[cfg(feature = "reqwest")]
fn missing_tls(plain: bool) -> Option<&'static str> {
    let fits = cfg!(any(feature = "rustls", feature = "native-tls"));
    if cfg!(not(feature = "rustls-no-provider")) {
        return (!fits && !plain).then_some(
            "this build has no TLS for an https token URL; enable the feature rustls, native-tls \
             or rustls-no-provider of officernd-auth",
        );
    }
    // Without a provider reqwest panics, even for a plain http URL.
    #[cfg(feature = "rustls-no-provider")]
    let fits = fits || rustls::crypto::CryptoProvider::get_default().is_some();
    (!fits).then_some(
        "rustls has no cryptography provider; call CryptoProvider::install_default before the \
         client is built, or enable the feature rustls",
    )
}

/// Reads the body, up to [`MAX_RESPONSE_BYTES`].
async fn read<B>(response: Response<B>) -> Result<Response<Bytes>, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    // Skips the body if the status alone decides.
    let skipped = matches!(head.status.as_u16(), 300..=399 | 408 | 429 | 500..);
    let body = if skipped {
        Bytes::new()
    } else {
        match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // The status alone describes the failure.
            Err(_) if head.status != StatusCode::OK => Bytes::new(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = "the token response is over 64 KiB; is the token URL right?";
                return Err(Error::new(ErrorKind::Malformed, message));
            }
            Err(error) => return Err(failed(error)),
        }
    };
    Ok(Response::from_parts(head, body))
}

/// Returns the error of a request without a complete response.
fn failed(error: BoxError) -> Error {
    // The client may have a layer of this crate, or return this error itself.
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    #[cfg(feature = "reqwest")]
    let (timed_out, unsent, error) = match error.downcast::<reqwest::Error>() {
        Ok(error) => (
            error.is_timeout(),
            error.is_connect(),
            error.without_url().into(),
        ),
        Err(error) => (false, never_connected(&*error), error),
    };
    #[cfg(not(feature = "reqwest"))]
    let (timed_out, unsent) = (false, never_connected(&*error));
    let (kind, message) = match (timed_out, unsent) {
        (true, _) => (ErrorKind::Timeout, "the token request timed out"),
        (false, true) => (ErrorKind::Transport, "the token endpoint cannot be reached"),
        (false, false) => (ErrorKind::Transport, "the token request failed"),
    };
    Error::new(kind, message)
        .with_source(error)
        .mark_unsent(unsent)
}

/// Returns `true` if one of the causes of a client's error means that no connection was made. A
/// timeout does not: the request may have been sent before it.
fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let refused = matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    | io::ErrorKind::AddrNotAvailable
            )
        );
        // The error of hyper-util's client for DNS and TLS. Compares the message,
        // because `is_connect` would tie this crate to a version of hyper-util.
        refused || error.to_string() == "client error (Connect)"
    })
}

fn not_ready() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the token endpoint's client was not ready (poll_ready) in time; \
         it must not share a limit with the layer's requests",
    )
}

#[cfg(all(
    test,
    feature = "reqwest",
    not(any(feature = "rustls", feature = "native-tls"))
))]
mod tests {
    use crate::{ClientCredentials, ConfigError, HttpTokenProvider};

    #[test]
    fn an_https_token_url_needs_tls() {
        let provider = |url: &str| {
            let credentials = ClientCredentials::new("id", "secret").scope("a");
            HttpTokenProvider::new(credentials.token_url(url))
        };
        let error = provider("https://identity.officernd.com/oauth/token").unwrap_err();
        assert!(matches!(error, ConfigError::Client { .. }), "{error}");
        assert!(error.to_string().contains("feature"), "{error}");
        let plain = provider("http://127.0.0.1:1/oauth/token");
        assert_eq!(plain.is_err(), cfg!(feature = "rustls-no-provider"));
    }
}
