//! What does a hit cost beside a peer that refreshes its token too?
//!
//! ```text
//! cargo bench --locked --manifest-path benches/peers/Cargo.toml --bench peers
//! ```
//!
//! Three runs, each with all contenders in turns; the figure is the median of
//! the three, and the spread is printed. Times are worth something as ratios:
//! code layout moves them by 5 ns, and the neighbors of the machine by more.

#[allow(dead_code, reason = "no bench needs all of it")]
#[path = "../common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use common::contenders::{self, Contender, Use};
use common::rounds::{self, Entry, Plan};
use common::{Effort, goal, quantile, say};
use http::Request;
use http::header::AUTHORIZATION;
use middle::{Authorizer, BasicClientCredentialAuthorizer};
use serde_json::json;
use tower::{BoxError, Layer, Service};

const RUNS: usize = 3;

const SCENES: [(Use, usize); 4] = [
    (Use::Held, 1),
    (Use::Held, 2),
    (Use::Cloned, 1),
    (Use::Cloned, 2),
];

/// Ours over this contender at most so many times, per scene.
const GOALS: [(&str, [Option<f64>; 4]); 2] = [
    ("tower-http", [Some(2.0), Some(1.15), None, None]),
    ("middle", [Some(0.85), Some(0.6), Some(0.9), Some(0.6)]),
];

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut contenders = contenders::all()?;
    contenders.retain(|contender| contender.name != contenders::SHARED);
    contenders.push(middle(&runtime)?);

    let mut runs = Vec::new();
    for _ in 0..effort.pick(RUNS, 1) {
        let mut entries: Vec<Entry> = Vec::new();
        for (how, threads) in SCENES {
            for contender in &contenders {
                entries.push((0..threads).map(|_| contender.lane(how)).collect());
            }
        }
        runs.push(rounds::time(Plan::new(effort), entries));
    }

    for (scene, (how, threads)) in SCENES.into_iter().enumerate() {
        let index = |name: &str| {
            let mut names = contenders.iter().map(|contender| contender.name);
            scene * contenders.len() + names.position(|other| other == name).unwrap_or(0)
        };
        // In each run, over the baseline of that run.
        let added = |name: &str| -> Vec<f64> {
            let at = |times: &Vec<f64>, index| times.get(index).copied().unwrap_or(f64::NAN);
            let over = |times| at(times, index(name)) - at(times, index("bare"));
            runs.iter().map(over).collect()
        };
        let ours = added("ours");
        say(format!("{threads} thread(s), {}", how.what()));
        say(format!(
            "  {:<12} {:>8} {:>15} {:>10} {:>13}",
            "contender", "added ns", "of the runs", "ours over", "of the runs"
        ));
        for contender in &contenders {
            let name = contender.name;
            let added = added(name);
            let ratios: Vec<f64> = ours.iter().zip(&added).map(|(a, b)| a / b).collect();
            let (low, mid, high) = spread(&added);
            let (least, ratio, most) = spread(&ratios);
            say(format!(
                "  {name:<12} {mid:>8.1} {low:>7.1}-{high:<7.1} {ratio:>10.2} {least:>6.2}-{most:<6.2}"
            ));
            let goals = GOALS.iter().find(|(peer, _)| *peer == name);
            let most = goals.and_then(|(_, goals)| *goals.get(scene)?);
            if let Some(most) = most.filter(|_| effort == Effort::Full) {
                goal(&format!("added ns over {name}'s"), ratio, most);
            }
        }
    }
    Ok(())
}

fn spread(samples: &[f64]) -> (f64, f64, f64) {
    let of = |share| quantile(samples, share);
    (of(0.0), of(0.5), of(1.0))
}

/// The peer has no layer; this one does as little as it can.
struct MiddleLayer(BasicClientCredentialAuthorizer);

#[derive(Clone)]
struct Middle<S> {
    inner: S,
    authorizer: BasicClientCredentialAuthorizer,
}

impl<S> Layer<S> for MiddleLayer {
    type Service = Middle<S>;

    fn layer(&self, inner: S) -> Middle<S> {
        let authorizer = self.0.clone();
        Middle { inner, authorizer }
    }
}

impl<S: Service<Request<()>>> Service<Request<()>> for Middle<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<()>) -> S::Future {
        let Ok(value) = self.authorizer.authorization_header() else {
            panic!("the token has not expired");
        };
        request
            .headers_mut()
            .insert(AUTHORIZATION, (*value).clone());
        self.inner.call(request)
    }
}

/// With the token of the other contenders, from an endpoint of its own.
fn middle(runtime: &tokio::runtime::Runtime) -> Result<Contender, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = url::Url::parse(&format!("http://{}/token", listener.local_addr()?))?;
    let token = Arc::new(contenders::token());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Requests of a few hundred bytes come in one piece.
            let _ = stream.read(&mut [0; 4_096]);
            let body =
                json!({ "access_token": *token, "token_type": "bearer", "expires_in": 3_600 });
            let body = body.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let builder = BasicClientCredentialAuthorizer::basic_builder("client", "secret", url);
    let authorizer = runtime.block_on(builder.build())?;
    Contender::checked(
        "middle",
        "middle's authorizer under a layer of ours",
        MiddleLayer(authorizer),
    )
}
