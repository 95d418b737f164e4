//! What does each way of holding the client add to a request?
//!
//! ```text
//! cargo bench --locked --manifest-path benches-peers/Cargo.toml --bench clone
//! ```
//!
//! The same request through the same layer: by a service that a loop keeps, by
//! a clone for each request, as axum's `State` hands one out, behind tower's
//! `BoxCloneSyncService`, and through tower's `Buffer`, whose worker runs on
//! the same thread. Over the inner service alone, held.

#[allow(dead_code, reason = "no bench needs all of it")]
#[path = "../benches/common/mod.rs"]
mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::extract::{FromRequestParts, State};
use common::contenders::{Lane, Sink, drive, request};
use common::rounds::{self, Entry, Plan};
use common::{Effort, quantile, save, say};
use http::{Request, Response};
use officernd_auth::{OfficeRndAuth, OfficeRndAuthLayer, StaticToken};
use serde_json::json;
use tower::buffer::Buffer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt};

type Client = OfficeRndAuth<Sink>;
type Boxed = BoxCloneSyncService<Request<()>, Response<()>, BoxError>;

const RUNS: usize = 3;

/// How a program holds its client, and a loop of requests by it.
type Way = (&'static str, fn(&Client) -> Lane);

const WAYS: [Way; 6] = [
    ("held", |client| held(client.clone())),
    ("service.clone() each", |client| {
        let client = client.clone();
        Box::new(move |requests| {
            for _ in 0..requests {
                drive(&mut client.clone(), request(false));
            }
        })
    }),
    ("axum's State each", |client| {
        let client = client.clone();
        Box::new(move |requests| {
            for _ in 0..requests {
                drive(&mut from_state(&client), request(false));
            }
        })
    }),
    ("BoxCloneSyncService held", |client| {
        held(Boxed::new(client.clone()))
    }),
    ("BoxCloneSyncService cloned each", |client| {
        let client = Boxed::new(client.clone());
        Box::new(move |requests| {
            for _ in 0..requests {
                drive(&mut client.clone(), request(false));
            }
        })
    }),
    ("Buffer", |client| buffered(client.clone())),
];

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let layer = OfficeRndAuthLayer::new(StaticToken::new("a".repeat(1_000))?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(layer.cache().warm_up())?;
    let client = layer.layer(Sink);

    let mut runs = Vec::new();
    for _ in 0..effort.pick(RUNS, 1) {
        let mut entries: Vec<Entry> = vec![vec![held(Sink)]];
        entries.extend(WAYS.map(|(_, lane)| vec![lane(&client)]));
        runs.push(rounds::time(Plan::new(effort), entries));
    }
    say(format!("{:<34} {:>8}  of the runs", "way", "added ns"));
    let mut rows = Vec::new();
    for (index, (name, _)) in WAYS.into_iter().enumerate() {
        let over = |times: &Vec<f64>| Some(times.get(index + 1)? - times.first()?);
        let added: Vec<f64> = runs.iter().filter_map(over).collect();
        let [low, mid, high] = [0.0, 0.5, 1.0].map(|share| quantile(&added, share));
        say(format!("{name:<34} {mid:>8.1}  {low:.1}-{high:.1}"));
        rows.push(json!({ "name": name, "added": [low, mid, high] }));
    }
    save(effort, "clone", &json!({ "rows": rows }))?;
    Ok(())
}

fn held<S: Service<Request<()>> + Send + 'static>(mut service: S) -> Lane {
    Box::new(move |requests| {
        for _ in 0..requests {
            drive(&mut service, request(false));
        }
    })
}

/// What axum does for a handler that takes `State<Client>`.
fn from_state(client: &Client) -> Client {
    let (mut parts, ()) = Request::new(()).into_parts();
    let extracted = pin!(State::<Client>::from_request_parts(&mut parts, client));
    let mut cx = Context::from_waker(Waker::noop());
    match extracted.poll(&mut cx) {
        Poll::Ready(Ok(State(client))) => client,
        _ => panic!("a state is always at hand"),
    }
}

/// One request after the other, as a program with one caller has it: each waits
/// for the worker.
fn buffered(client: Client) -> Lane {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        panic!("a runtime can be built");
    };
    let (mut buffer, worker) = Buffer::pair(client, 64);
    runtime.spawn(worker);
    Box::new(move |requests| {
        runtime.block_on(async {
            for _ in 0..requests {
                let Ok(ready) = buffer.ready().await else {
                    panic!("the worker lives");
                };
                if ready.call(request(false)).await.is_err() {
                    panic!("the inner service never fails");
                }
            }
        });
    })
}
