//! The client of the API, with the token layer over it.

use std::time::Duration;

use axum::body::Body;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use officernd_auth::{BoxError, RetryUnauthorized};
use tower::retry::RetryLayer;
use tower::util::{BoxCloneSyncService, MapRequest};
use tower::{Layer, Service};

type Http = Client<HttpsConnector<HttpConnector>, Body>;
type Response = hyper::Response<Incoming>;
type Bodiless = hyper::Request<Empty<Bytes>>;
type BodilessHttp = MapRequest<Http, fn(Bodiless) -> hyper::Request<Body>>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shorter than servers keep a connection: none is used while it closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(crate) struct Upstream {
    /// For requests with a body, which streams and so cannot be sent twice.
    pub(crate) streaming: BoxCloneSyncService<hyper::Request<Body>, Response, BoxError>,
    /// For those without: a 401 is answered by a replay with the next token.
    pub(crate) replaying: BoxCloneSyncService<Bodiless, Response, BoxError>,
}

impl Upstream {
    /// `write_timeout` ends a connection whose peer acknowledges nothing for
    /// that long.
    pub(crate) fn new<L, Streaming, Replaying>(
        layer: &L,
        write_timeout: Duration,
    ) -> Result<Self, BoxError>
    where
        L: Layer<Http, Service = Streaming> + Layer<BodilessHttp, Service = Replaying>,
        Streaming: Service<hyper::Request<Body>, Response = Response, Error = BoxError>,
        Streaming: Clone + Send + Sync + 'static,
        Streaming::Future: Send,
        Replaying: Service<Bodiless, Response = Response, Error = BoxError>,
        Replaying: Clone + Send + Sync + 'static,
        Replaying::Future: Send,
    {
        let http = client(write_timeout)?;
        let streaming = layer.layer(http.clone());
        let bodiless: BodilessHttp = MapRequest::new(http, |request| request.map(Body::new));
        let retry = RetryLayer::new(RetryUnauthorized::new());
        let replaying = retry.layer(layer.layer(bodiless));
        Ok(Self {
            streaming: BoxCloneSyncService::new(streaming),
            replaying: BoxCloneSyncService::new(replaying),
        })
    }
}

fn client(write_timeout: Duration) -> Result<Http, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    let tls = HttpsConnectorBuilder::new()
        .try_with_platform_verifier()?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(tls))
}
