//! What does the layer add to a request over a real socket, and what does a token cost there?
//!
//! ```text
//! cargo bench -p benches --bench wire
//! ```
//!
//! A hyper-util client on one core, an HTTP/1 server on the other, loopback
//! between them, connections kept alive. The second table is the token path:
//! `HttpTokenProvider` over hyper's client, asking the simulator.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use common::{Effort, goal, now, quantile, save, say};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use officernd_auth::testing::Simulator;
use officernd_auth::{
    Allowance, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, StaticToken, TokenCache,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_http::auth::AddAuthorizationLayer;

type Http = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Incoming>, BoxError>;

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let requests = runtime.block_on(requests(effort))?;
    let tokens = runtime.block_on(tokens(effort))?;
    save(
        effort,
        "wire",
        &json!({ "requests": requests, "tokens": tokens }),
    )?;
    Ok(())
}

/// Requests one after the other, the contenders in turns.
async fn requests(effort: Effort) -> Result<Vec<Value>, BoxError> {
    let (addr, _server) = server()?;
    let token = "a".repeat(1_000);
    let client = || {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        client.map_err(BoxError::from)
    };
    let ours = OfficeRndAuthLayer::builder(StaticToken::new(token.clone())?)
        .allow_origin(&format!("http://{addr}"))
        .build()?;
    ours.cache().warm_up().await?;
    let mut contenders: [(&str, Http, Vec<f64>); 3] = [
        ("bare", Http::new(client()), Vec::new()),
        (
            "tower-http",
            Http::new(AddAuthorizationLayer::bearer(&token).layer(client())),
            Vec::new(),
        ),
        ("ours", Http::new(ours.layer(client())), Vec::new()),
    ];
    let uri = Uri::try_from(format!("http://{addr}/api/v2/organizations/acme/locations"))?;
    for _ in 0..effort.pick(401, 2) {
        for (_, client, times) in &mut contenders {
            let batch = effort.pick(50, 2);
            let start = now();
            for _ in 0..batch {
                let request = Request::get(uri.clone()).body(Empty::new())?;
                let response = client.ready().await?.call(request).await?;
                response.into_body().collect().await?;
            }
            times.push(micros(start) / f64::from(batch));
        }
    }
    let [bare, peer, ours] = contenders.map(|(name, _, times)| {
        let (low, median) = (quantile(&times, 0.1), quantile(&times, 0.5));
        (name, low, median)
    });
    say("a request over loopback, µs");
    say(format!(
        "{:<12} {:>13} {:>8}",
        "contender", "lowest decile", "median"
    ));
    let mut rows = Vec::new();
    for (name, low, median) in [bare, peer, ours] {
        say(format!("{name:<12} {low:>13.2} {median:>8.2}"));
        rows.push(json!({ "name": name, "low_us": low, "median_us": median }));
    }
    if effort == Effort::Full {
        goal("a request over tower-http's", ours.1 / peer.1, 1.02);
    }
    Ok(rows)
}

/// One token after the other, over a new connection and over one kept alive.
async fn tokens(effort: Effort) -> Result<Vec<Value>, BoxError> {
    let officernd = Simulator::builder().no_rate_limit().start().await?;
    let cache = || -> Result<TokenCache, BoxError> {
        let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
            .scope(officernd.scope())
            .token_url(officernd.token_url());
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let provider = HttpTokenProvider::with_service(credentials, client)?;
        let layer = OfficeRndAuthLayer::builder(provider)
            .allowance(Allowance::unlimited())
            .build()?;
        Ok(layer.cache().clone())
    };
    let kept = cache()?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(201, 2) {
        let fresh = cache()?;
        for (cache, times) in [(&fresh, &mut cold), (&kept, &mut warm)] {
            let start = now();
            cache.refresh().await?;
            times.push(micros(start));
        }
    }
    say("a token request over loopback, µs");
    let mut rows = Vec::new();
    for (name, times) in [("new connection", cold), ("kept alive", warm)] {
        let (low, median) = (quantile(&times, 0.1), quantile(&times, 0.5));
        say(format!("{name:<14} {low:>11.0} {median:>8.0}"));
        rows.push(json!({ "name": name, "low_us": low, "median_us": median }));
    }
    Ok(rows)
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// A server with a runtime and a thread of its own; it ends when the sender is
/// dropped.
fn server() -> Result<(SocketAddr, oneshot::Sender<()>), BoxError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let (end, mut ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = &mut ended => return,
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        tokio::spawn(answer(TokioIo::new(stream)));
                    },
                }
            }
        });
    });
    Ok((addr, end))
}

async fn answer(stream: TokioIo<tokio::net::TcpStream>) {
    let service = hyper::service::service_fn(|_| async {
        let body = Full::new(Bytes::from_static(br#"{"results":[]}"#));
        Ok::<_, std::convert::Infallible>(Response::new(body))
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
    // A connection ends with its client.
    let _ = served.await;
}
