//! Tokens on the default clock, in real time: only a release build on Linux
//! reads a coarse clock and believes it for a tick.
//!
//! `cargo test -p benches --release --test optimized_release`

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test says what must hold, and measures it"
)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response};
use officernd_auth::{
    AccessToken, BoxError, Error, ErrorKind, OfficeRndAuthLayer, RateLimit, provider_fn,
};
use tower::{Layer, Service, ServiceExt, service_fn};

const LIFE: Duration = Duration::from_secs(1);
/// For a machine that is busy. A token that never dies is later than that.
const LATE: Duration = Duration::from_millis(700);

/// Issues tokens of a second, and knows when each was asked for.
#[derive(Clone, Default)]
struct Issued(Arc<Mutex<Vec<Instant>>>);

impl Issued {
    fn issue(&self) -> Result<AccessToken, Error> {
        let mut issued = self.0.lock().unwrap();
        issued.push(Instant::now());
        AccessToken::bearer(format!("t-{}", issued.len()), LIFE)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The number of the token that a request carries, and its age.
    fn seen(&self, request: &Request<()>) -> (usize, Duration) {
        let header = request.headers()["authorization"].to_str().unwrap();
        let number: usize = header.strip_prefix("Bearer t-").unwrap().parse().unwrap();
        let issued = self.0.lock().unwrap();
        (number, issued.get(number - 1).unwrap().elapsed())
    }
}

fn request() -> Request<()> {
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    Request::get(url).body(()).unwrap()
}

/// A layer whose token endpoint is down after the first token.
fn issues_one_token(issued: &Issued) -> OfficeRndAuthLayer {
    let endpoint = issued.clone();
    let provider = provider_fn(move || {
        let first = endpoint.count() == 0;
        let down = || Error::new(ErrorKind::Denied, "down");
        let answer = if first { endpoint.issue() } else { Err(down()) };
        std::future::ready(answer)
    });
    let builder = OfficeRndAuthLayer::builder(provider);
    builder.rate_limit(RateLimit::unlimited()).build().unwrap()
}

/// Many requests at once on the hit path, then a pause for the fetch.
async fn burst<S>(service: &mut S) -> Result<(), BoxError>
where
    S: Service<Request<()>, Response = Response<()>, Error = BoxError>,
{
    for _ in 0..100 {
        service.ready().await?.call(request()).await?;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(())
}

#[tokio::test]
async fn a_token_that_cannot_be_replaced_dies_in_time_for_busy_and_for_rare_requests() {
    let issued = Issued::default();
    let layer = issues_one_token(&issued);
    let server = issued.clone();
    let inner = service_fn(move |request: Request<()>| {
        let (_, age) = server.seen(&request);
        assert!(age < LIFE + LATE, "a token {age:?} old");
        std::future::ready(Ok::<_, Infallible>(Response::new(())))
    });
    // A service that keeps the token, one that is used now and then, and a clone for each burst.
    let (mut held, mut rare) = (layer.layer(inner.clone()), layer.layer(inner));
    let start = Instant::now();
    let rarely = async {
        while start.elapsed() < LIFE + 2 * LATE {
            let sent = rare.ready().await.unwrap().call(request()).await;
            assert!(sent.is_ok() || start.elapsed() > LIFE / 2);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let busily = async {
        while start.elapsed() < LIFE / 2 {
            burst(&mut held).await.unwrap();
            burst(&mut held.clone()).await.unwrap();
        }
        // Until both fail, for good; a server that gets an older token ends the test.
        while burst(&mut held).await.is_ok() || burst(&mut held.clone()).await.is_ok() {}
    };
    tokio::join!(rarely, busily);
    assert!(layer.cache().try_token().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_follow_each_other_and_no_thread_stays_behind() {
    let issued = Issued::default();
    let endpoint = issued.clone();
    let provider = provider_fn(move || std::future::ready(endpoint.issue()));
    let layer = OfficeRndAuthLayer::builder(provider)
        .rate_limit(RateLimit::unlimited())
        .build()
        .unwrap();
    let mut threads = Vec::new();
    for _ in 0..4 {
        let server = issued.clone();
        let newest = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&newest);
        let mut service = layer.layer(service_fn(move |request: Request<()>| {
            let (number, age) = server.seen(&request);
            assert!(age < LIFE + LATE, "token {number} is {age:?} old");
            let before = seen.fetch_max(number, Ordering::Relaxed);
            assert!(number >= before, "token {number} after token {before}");
            std::future::ready(Ok::<_, Infallible>(Response::new(())))
        }));
        threads.push(tokio::spawn(async move {
            let start = Instant::now();
            while start.elapsed() < 3 * LIFE {
                burst(&mut service).await.unwrap();
            }
            newest.load(Ordering::Relaxed)
        }));
    }
    for thread in threads {
        // One each half second, unless the machine is busy.
        let newest = thread.await.unwrap();
        assert!(newest >= 3, "{newest} tokens in three lives");
    }
    assert!(issued.count() <= 8, "{}", issued.count());
}
