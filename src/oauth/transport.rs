//! Sends one token request over any HTTP client, and reads its bounded response.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::clock::{later, timeout_at};
#[cfg(feature = "reqwest")]
use crate::error::ConfigError;
use crate::error::{BoxError, Error, ErrorKind};
use crate::provider::FetchContext;

/// No token response is larger.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub(super) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, Error>> + Send>>;

/// An HTTP client, type-erased.
pub(super) type Transport =
    Box<dyn Fn(Request<Bytes>, FetchContext) -> ResponseFuture + Send + Sync>;

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
        // The clone that is readied is the one that is called.
        let mut service = service.clone();
        Box::pin(async move {
            // A client behind a limit that it shares with waiting requests is never ready. This ends
            // before the fetch timeout, which would not show the cause.
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
            // As a stream, which reqwest cannot send a second time: a client that follows redirects
            // or retries does not repeat the secret.
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

/// Builds a client for token requests alone. `plain`: the token URL is plain http, on this machine.
#[cfg(feature = "reqwest")]
pub(super) fn reqwest_client(plain: bool) -> Result<reqwest::Client, ConfigError> {
    if let Some(problem) = missing_tls(plain) {
        let problem = problem.to_owned();
        return Err(ConfigError::Client { problem });
    }
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // The rate limit counts requests; none is sent behind its back.
        .retry(reqwest::retry::never())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        // Below the default `fetch_timeout`: a connection that was never made takes no place in the rate limit.
        .connect_timeout(std::time::Duration::from_secs(5))
        // Used once an hour: an idle connection would be a dead one.
        .pool_max_idle_per_host(0);
    let client = match plain {
        // A proxy from the environment would get the secret in the clear; https uses a tunnel.
        true => client.no_proxy(),
        false => client,
    };
    client.build().map_err(|error| ConfigError::Client {
        // Its own text is "builder error"; the source has the reason.
        problem: error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string),
    })
}

/// Returns why this build, or this program, cannot make the client.
#[cfg(feature = "reqwest")]
fn missing_tls(plain: bool) -> Option<&'static str> {
    let fits = cfg!(any(feature = "rustls", feature = "native-tls"));
    if cfg!(not(feature = "rustls-no-provider")) {
        return (!fits && !plain).then_some(
            "this build has no TLS for an https token URL: enable one of the features rustls, \
             native-tls and rustls-no-provider of officernd-auth",
        );
    }
    // Without a provider reqwest panics, even for plain http.
    #[cfg(feature = "rustls-no-provider")]
    let fits = fits || rustls::crypto::CryptoProvider::get_default().is_some();
    (!fits).then_some(
        "rustls has no cryptography provider: install one before the client is built, with \
         CryptoProvider::install_default, or enable the feature rustls",
    )
}

/// Reads the body, up to the cap.
async fn read<B>(response: Response<B>) -> Result<Response<Bytes>, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    // Skips the body where the status alone decides.
    let skipped = matches!(head.status.as_u16(), 300..=399 | 408 | 429 | 500..);
    let body = if skipped {
        Bytes::new()
    } else {
        match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // The status of a failure is enough.
            Err(_) if head.status != StatusCode::OK => Bytes::new(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = "the token answer is over 64 KiB; is the token URL right?";
                return Err(Error::new(ErrorKind::Malformed, message));
            }
            Err(error) => return Err(failed(error)),
        }
    };
    Ok(Response::from_parts(head, body))
}

/// Returns the error of a request without a complete response.
fn failed(error: BoxError) -> Error {
    // From a layer of this crate below, or from a client that distinguishes the kinds.
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    let unsent = never_connected(&*error);
    #[cfg(feature = "reqwest")]
    let (timed_out, error) = match error.downcast::<reqwest::Error>() {
        Ok(error) => (error.is_timeout(), error.without_url().into()),
        Err(error) => (false, error),
    };
    #[cfg(not(feature = "reqwest"))]
    let timed_out = false;
    let (kind, message) = match (timed_out, unsent) {
        (true, _) => (ErrorKind::Timeout, "the token request timed out"),
        (false, true) => (ErrorKind::Transport, "the token endpoint cannot be reached"),
        (false, false) => (ErrorKind::Transport, "the token request failed"),
    };
    Error::new(kind, message)
        .with_source(error)
        .mark_unsent(unsent)
}

/// Returns `true` if one of the causes says that there was no connection. A timeout does not say so:
/// it may be that of a response.
fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    // A chain of sources may be a cycle.
    for _ in 0..64 {
        let Some(error) = next else { return false };
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable,
        ) = kind
        {
            return true;
        }
        // hyper-util's client, which reqwest uses, for an unknown name or a failed TLS handshake. The
        // text is what its `is_connect` says, without a dependency on its version.
        if error.to_string() == "client error (Connect)" {
            return true;
        }
        next = error.source();
    }
    false
}

fn not_ready() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the token endpoint's client did not become ready (poll_ready) in time; \
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
    fn an_https_token_url_needs_tls_and_a_plain_one_what_the_client_needs() {
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
