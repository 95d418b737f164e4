//! Ten seconds in the life of a client whose tokens live three.
//!
//! With nothing set it starts an OfficeRnD simulator, sends it 200 requests a
//! second through four clones of one client, and revokes the token once in the
//! middle. Exit status 1 if a request failed that should not have.
//!
//! With `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET` and `OFFICERND_SCOPE`
//! set it asks the real service for a token instead, and for your locations if
//! `OFFICERND_ORG_SLUG` is set too.

#![expect(clippy::print_stdout, reason = "it shows what happens")]
#![expect(
    clippy::disallowed_methods,
    reason = "a stopwatch, not a token's clock"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use officernd_auth::testing::Simulator;
use officernd_auth::{
    AccessToken, Allowance, BoxError, ClientCredentials, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, TokenProvider,
};
use tower::{Service, ServiceBuilder, ServiceExt as _};

const RUN: Duration = Duration::from_secs(10);
const CLONES: u32 = 4;
const REQUESTS_A_SECOND: u32 = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let live = ["OFFICERND_CLIENT_ID", "OFFICERND_CLIENT_SECRET"]
        .iter()
        .all(|name| std::env::var_os(name).is_some());
    let result = if live {
        real_service().await
    } else {
        simulated().await
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                println!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn real_service() -> Result<ExitCode, BoxError> {
    let layer = OfficeRndAuthLayer::from_env()?;
    let cache = layer.cache().clone();
    let mut client = ServiceBuilder::new()
        .layer(layer)
        .service(reqwest::Client::new());
    let token = cache.token().await?;
    println!(
        "token   granted, expires in {} s",
        token.expires_in().as_secs()
    );
    println!("scope   {}", token.scope().unwrap_or("(as asked)"));
    let Ok(slug) = std::env::var("OFFICERND_ORG_SLUG") else {
        println!("set OFFICERND_ORG_SLUG to list the locations of an organisation");
        return Ok(ExitCode::SUCCESS);
    };
    let url = format!("https://app.officernd.com/api/v2/organizations/{slug}/locations");
    let request = reqwest::Request::new(http::Method::GET, url.parse()?);
    let response = client.ready().await?.call(request).await?;
    println!(
        "GET /api/v2/organizations/{slug}/locations   {}",
        response.status()
    );
    println!("cache   {:?}", cache.status().phase);
    Ok(if response.status().is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn simulated() -> Result<ExitCode, BoxError> {
    // OfficeRnD gives 5 tokens a minute, for an hour each. Three-second tokens
    // need more of them, so both sides of the rule are lifted.
    let simulator = Simulator::builder()
        .token_life(Duration::from_secs(3))
        .rate_limit(30, Duration::from_secs(60))
        .start()
        .await?;
    let credentials = ClientCredentials::new(simulator.client_id(), simulator.client_secret())
        .scope("officernd.api.read")
        .token_url(simulator.token_url());
    let causes = Arc::default();
    let provider = CountCauses {
        provider: HttpTokenProvider::new(credentials)?,
        causes: Arc::clone(&causes),
    };
    let layer = OfficeRndAuthLayer::builder(provider)
        .allow_origin(simulator.url())
        .allowance(Allowance::new(30, Duration::from_secs(60)))
        .build()?;
    let cache = layer.cache().clone();
    let tally = Arc::new(Tally::default());

    // The whole of it, for a user: one line in the ServiceBuilder.
    let client = ServiceBuilder::new()
        .layer(layer.with_retry())
        .layer(tower::layer::layer_fn(|inner| Probe { inner }))
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    println!(
        "simulator on {}, tokens live 3 s, {REQUESTS_A_SECOND} requests/s",
        simulator.url()
    );
    let url = format!(
        "{}/api/v2/organizations/{}/locations",
        simulator.url(),
        simulator.org_slug()
    );
    let start = Instant::now();
    let drivers: Vec<_> = (0..CLONES)
        .map(|nth| {
            let (client, url, tally) = (client.clone(), url.clone(), Arc::clone(&tally));
            tokio::spawn(drive(client, url, tally, nth))
        })
        .collect();
    let mut revoked = false;
    while start.elapsed() < RUN {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if !revoked && start.elapsed() > RUN / 2 {
            simulator.revoke_all();
            revoked = true;
        }
        let status = cache.status();
        print!(
            "\r{:4.1} s  {:5} requests  token {} ({:?}, {:.1} s left){}   ",
            start.elapsed().as_secs_f32(),
            tally.sent.load(Ordering::Relaxed),
            status.generation,
            status.phase,
            status.expires_in.unwrap_or_default().as_secs_f32(),
            if revoked { "  revoked once" } else { "" },
        );
        std::io::stdout().flush()?;
    }
    for driver in drivers {
        driver.await?;
    }
    println!("\n");
    Ok(report(&tally, &causes, cache.status().token_requests))
}

/// One client's share of the load, at a steady beat.
async fn drive<S>(mut client: S, url: String, tally: Arc<Tally>, nth: u32)
where
    S: Service<Request<Empty<Bytes>>, Response = http::Response<hyper::body::Incoming>>
        + Send
        + 'static,
    S::Error: std::fmt::Display,
    S::Future: Send,
{
    let beat = Duration::from_secs(1) * CLONES / REQUESTS_A_SECOND;
    let start = tokio::time::Instant::now() + beat * nth / CLONES;
    let mut beats = tokio::time::interval_at(start, beat);
    while beats.tick().await.duration_since(start) < RUN {
        let Ok(request) = Request::get(&url).body(Empty::new()) else {
            return;
        };
        let mut request = request;
        let sent = Sent(Arc::new(AtomicU64::new(0)));
        let called = Instant::now();
        request.extensions_mut().insert((called, sent.clone()));
        let response = match client.ready().await {
            Ok(client) => client.call(request).await,
            Err(error) => Err(error),
        };
        tally.add(&sent, response.as_ref().ok().map(http::Response::status));
        match response {
            // Read to the end, so that the connection is used again.
            Ok(response) => drop(response.into_body().collect().await),
            Err(error) => println!("\nrequest failed: {error}"),
        }
    }
}

fn report(tally: &Tally, causes: &Causes, token_requests: u64) -> ExitCode {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let failed = count(&tally.sent) - count(&tally.good);
    println!("requests                  {:>8}", count(&tally.sent));
    println!("  answered 2xx            {:>8}", count(&tally.good));
    println!(
        "  401 seen by the caller  {:>8}",
        count(&tally.unauthorized)
    );
    println!("  that waited for a token {:>8}", count(&tally.waited));
    println!(
        "  slowest wait            {:>8.1} ms",
        count(&tally.slowest) as f64 / 1e3
    );
    println!("token requests            {token_requests:>8}");
    if let Ok(causes) = causes.lock() {
        for (cause, times) in causes.iter() {
            println!("  {cause:<23} {times:>8}");
        }
    }
    if failed > 0 {
        println!("\n{failed} requests failed that should not have");
        return ExitCode::FAILURE;
    }
    println!("\nevery request was answered, through every expiry and a revocation");
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    good: AtomicU64,
    unauthorized: AtomicU64,
    waited: AtomicU64,
    /// Microseconds.
    slowest: AtomicU64,
}

impl Tally {
    fn add(&self, sent: &Sent, status: Option<StatusCode>) {
        /// Longer than a hit takes on a busy machine, shorter than any fetch.
        const A_WAIT: u64 = 1_000;

        let bump = |counter: &AtomicU64, by: bool| counter.fetch_add(by.into(), Ordering::Relaxed);
        let wait = sent.0.load(Ordering::Relaxed);
        bump(&self.sent, true);
        bump(&self.good, status.is_some_and(|status| status.is_success()));
        bump(&self.unauthorized, status == Some(StatusCode::UNAUTHORIZED));
        bump(&self.waited, wait > A_WAIT);
        self.slowest.fetch_max(wait, Ordering::Relaxed);
    }
}

/// How long the request was held before it was first sent, in microseconds.
#[derive(Clone)]
struct Sent(Arc<AtomicU64>);

/// Stands below the layer and notes when a request comes out of it.
#[derive(Clone)]
struct Probe<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Probe<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some((called, Sent(wait))) = request.extensions().get::<(Instant, Sent)>() {
            let micros = u64::try_from(called.elapsed().as_micros()).unwrap_or(u64::MAX);
            let _ = wait.compare_exchange(0, micros.max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        self.inner.call(request)
    }
}

type Causes = Arc<Mutex<BTreeMap<&'static str, u32>>>;

/// A provider in front of a provider: counts why tokens are fetched.
struct CountCauses {
    provider: HttpTokenProvider,
    causes: Causes,
}

impl TokenProvider for CountCauses {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, officernd_auth::Error> {
        if let Ok(mut causes) = self.causes.lock() {
            *causes.entry(cx.cause().as_str()).or_default() += 1;
        }
        self.provider.fetch(cx).await
    }
}
