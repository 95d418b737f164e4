//! Does a hit cost the same with one organization and with ten thousand, and what does each weigh?
//!
//! ```text
//! cargo bench -p benches --bench organizations
//! ```
//!
//! Requests go to one of so many organizations, which is what the look-up
//! itself costs; to sixteen of them in turn; and to all, which is the worst
//! for any map: of 10,000 none is in the processor's caches. `map` shows how
//! much of each is memory's: a plain `HashMap` from the organization to its
//! header value, and nothing else. What a request to the same path costs
//! without a layer is subtracted.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::collections::HashMap;
use std::hint;
use std::sync::Arc;
use std::task::{Context, Poll};

use common::contenders::{Lane, Sink};
use common::rounds::{self, Entry, Plan};
use common::{Effort, goal, save, say};
use foldhash::fast::RandomState;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use officernd_auth::{OfficeRndAuthLayer, StaticToken};
use serde_json::json;
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service, ServiceExt};

const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let single = OfficeRndAuthLayer::new(StaticToken::new(token(0))?);
    runtime.block_on(single.cache().warm_up())?;
    let mut scenes = vec![("one cache", 1, 1, 0.0)];
    let mut entries: Vec<Entry> = vec![
        vec![lane(Identity::new().layer(Sink), uris(1, 1)?)],
        vec![lane(single.layer(Sink), uris(1, 1)?)],
    ];
    for size in SIZES {
        let (service, bytes) = organizations(&runtime, size)?;
        let map = MapLayer::new(size)?;
        let mut asked = vec![1, 16.min(size), size];
        asked.dedup();
        for asked in asked {
            let uris = || uris(size, asked);
            scenes.push(("ours", size, asked, bytes));
            entries.push(vec![lane(Identity::new().layer(Sink), uris()?)]);
            entries.push(vec![lane(service.clone(), uris()?)]);
            scenes.push(("map", size, asked, 0.0));
            entries.push(vec![lane(Identity::new().layer(Sink), uris()?)]);
            entries.push(vec![lane(map.layer(Sink), uris()?)]);
        }
    }

    let times = rounds::time(Plan::new(effort), entries);
    let added: Vec<f64> = times
        .chunks_exact(2)
        .map(|pair| pair.iter().skip(1).sum::<f64>() - pair.iter().take(1).sum::<f64>())
        .collect();
    let Some(&single) = added.first() else {
        return Err("nothing was timed".into());
    };
    say(format!(
        "{:<10} {:>13} {:>6} {:>9} {:>6} {:>11}",
        "scene", "organizations", "asked", "added ns", "ratio", "bytes each"
    ));
    let mut rows = Vec::new();
    for ((scene, size, asked, bytes), added) in scenes.into_iter().zip(added) {
        let ratio = added / single;
        say(format!(
            "{scene:<10} {size:>13} {asked:>6} {added:>9.1} {ratio:>6.2} {bytes:>11.0}"
        ));
        rows.push(json!({
            "scene": scene, "organizations": size, "asked": asked, "added": added,
            "ratio": ratio, "bytes": bytes,
        }));
        if effort == Effort::Full && scene == "ours" && asked == 1 {
            let what = format!("a hit among {size} organizations, over one cache's");
            goal(&what, ratio, 1.3);
            goal("bytes of an organization", bytes, 4_096.0);
        }
    }
    say("bytes each: what a 1,000-character token, its cache and its place keep on the heap");
    save(effort, "organizations", &json!({ "rows": rows }))?;
    Ok(())
}

/// The least that several organizations can cost.
struct MapLayer {
    values: Arc<HashMap<String, HeaderValue, RandomState>>,
}

#[derive(Clone)]
struct Map<S> {
    inner: S,
    values: Arc<HashMap<String, HeaderValue, RandomState>>,
}

impl MapLayer {
    fn new(organizations: usize) -> Result<Self, BoxError> {
        let mut values = HashMap::default();
        for number in 0..organizations {
            let value = HeaderValue::try_from(format!("Bearer {}", token(number)))?;
            values.insert(slug(number), value);
        }
        let values = Arc::new(values);
        Ok(Self { values })
    }
}

impl<S> Layer<S> for MapLayer {
    type Service = Map<S>;

    fn layer(&self, inner: S) -> Map<S> {
        let values = Arc::clone(&self.values);
        Map { inner, values }
    }
}

impl<S: Service<Request<()>>> Service<Request<()>> for Map<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<()>) -> S::Future {
        let slug = request.uri().path().split('/').nth(4).unwrap_or_default();
        if let Some(value) = self.values.get(slug).cloned() {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.inner.call(request)
    }
}

fn slug(number: usize) -> String {
    format!("organization-{number}")
}

/// As long as OfficeRnD's.
fn token(number: usize) -> String {
    format!("{number:a>1000}")
}

/// Paths to so many of the organizations, in an order that nothing guesses.
fn uris(organizations: usize, asked: usize) -> Result<Vec<Uri>, BoxError> {
    let mut numbers: Vec<usize> = (0..organizations).collect();
    let mut dice = fastrand::Rng::with_seed(6_749);
    dice.shuffle(&mut numbers);
    numbers.truncate(asked);
    let mut uris = Vec::new();
    for number in numbers {
        let slug = slug(number);
        let uri = format!("https://app.officernd.com/api/v2/organizations/{slug}/locations");
        uris.push(Uri::try_from(uri)?);
    }
    Ok(uris)
}

/// A service that has the token of every organization at hand, and the bytes
/// on the heap for each.
fn organizations(
    runtime: &tokio::runtime::Runtime,
    count: usize,
) -> Result<
    (
        impl Service<Request<()>, Error = BoxError> + Clone + Send + use<>,
        f64,
    ),
    BoxError,
> {
    let mut made = Err("not made".into());
    let counted = allocation_counter::measure(|| made = runtime.block_on(warm(count)));
    Ok((made?, counted.bytes_current as f64 / count as f64))
}

async fn warm(
    count: usize,
) -> Result<impl Service<Request<()>, Error = BoxError> + Clone + Send + use<>, BoxError> {
    let mut tokens = HashMap::new();
    for number in 0..count {
        tokens.insert(slug(number), StaticToken::new(token(number))?);
    }
    let layer = OfficeRndAuthLayer::per_organization(tokens).build()?;
    let mut service = layer.layer(Sink);
    for number in 0..count {
        let path = format!("/api/v2/organizations/{}/locations", slug(number));
        let uri = format!("https://app.officernd.com{path}");
        let request = Request::get(uri).body(())?;
        service.ready().await?.call(request).await?;
    }
    let warm = layer.organizations().len();
    if warm != count {
        return Err(format!("{warm} caches for {count} organizations").into());
    }
    Ok(service)
}

/// Sends so many requests, each to the next organization.
fn lane<S>(mut service: S, uris: Vec<Uri>) -> Lane
where
    S: Service<Request<()>> + Send + 'static,
{
    let mut next = 0;
    Box::new(move |requests| {
        for _ in 0..requests {
            next = (next + 1) % uris.len();
            let mut request = Request::new(());
            if let Some(uri) = uris.get(next) {
                request.uri_mut().clone_from(uri);
            }
            common::contenders::drive(&mut service, hint::black_box(request));
        }
    })
}
