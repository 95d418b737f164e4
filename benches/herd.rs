//! How many token requests do 10,000 callers without a token cause, and how long do they wait?
//!
//! ```text
//! cargo bench -p benches --bench herd
//! ```

#![expect(clippy::disallowed_methods, reason = "a bench has no `Clock`")]

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::world::{Cache, GOOD, HOUR, World, succeeds};
use common::{Effort, goal, quantile, say};
use officernd_auth::RateLimit;
use tokio::runtime::{Builder, Runtime};
use tower::BoxError;

const LATENCY: Duration = Duration::from_millis(50);
const CACHES: [Cache; 3] = [Cache::Control, Cache::Lazy, Cache::Ours];

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let callers = effort.pick(10_000, 200);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut times = CACHES.map(|_| Vec::new());
    let mut token_requests = CACHES.map(|_| 0);
    // The caches take turns, so that a slow phase of the machine affects all of them.
    for _ in 0..effort.pick(21, 1) {
        for ((cache, times), most) in CACHES.iter().zip(&mut times).zip(&mut token_requests) {
            let (millis, requests) = herd(&runtime, *cache, callers)?;
            times.push(millis);
            *most = requests.max(*most);
        }
    }

    let baseline = quantile(&times[0], 0.5) + LATENCY.as_secs_f64() * 1e3;
    say(format!(
        "{callers} callers; ratio: relative to {LATENCY:?} plus the control's median, {baseline:.1} ms"
    ));
    say(format!(
        "{:<10} {:>14} {:>10} {:>9} {:>7} {:>12}",
        "cache", "token requests", "median ms", "best ms", "ratio", "bytes each"
    ));
    for ((cache, times), requests) in CACHES.into_iter().zip(&times).zip(token_requests) {
        let (median, best) = (quantile(times, 0.5), quantile(times, 0.0));
        let ratio = median / baseline;
        let bytes = waiting_bytes(cache)?;
        say(format!(
            "{:<10} {requests:>14} {median:>10.1} {best:>9.1} {ratio:>7.2} {bytes:>12}",
            cache.name()
        ));
        if cache == Cache::Ours {
            goal("token requests", requests as f64, 1.0);
            if effort == Effort::Full {
                goal("ratio", ratio, 1.08);
            }
            if requests > 1 {
                return Err(format!("{requests} token requests for one herd").into());
            }
        }
    }
    Ok(())
}

fn world() -> World {
    World::new(LATENCY, HOUR, usize::MAX)
}

/// Returns the milliseconds until all callers have their response, and the token requests.
fn herd(runtime: &Runtime, cache: Cache, callers: u64) -> Result<(f64, u64), BoxError> {
    let world = world();
    let client = cache.client(&world, &RateLimit::unlimited(), false)?;
    let (took, succeeded) = runtime.block_on(async {
        let start = Instant::now();
        let callers = (0..callers).map(|_| tokio::spawn(succeeds(client.clone(), GOOD)));
        let mut succeeded = 0;
        for caller in callers.collect::<Vec<_>>() {
            succeeded += u64::from(caller.await?);
        }
        Ok::<_, BoxError>((start.elapsed(), succeeded))
    })?;
    if cache != Cache::Control && succeeded < callers {
        return Err(format!("{}: only {succeeded} requests succeeded", cache.name()).into());
    }
    let token_requests = world.facts().token_requests;
    Ok((took.as_secs_f64() * 1e3, token_requests))
}

/// Returns the bytes on the heap for one more caller that waits.
fn waiting_bytes(cache: Cache) -> Result<i64, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let client = cache.client(&world(), &RateLimit::unlimited(), false)?;
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = pin!(succeeds(client.clone(), GOOD));
    let _ = first.as_mut().poll(&mut cx);
    let mut second = None;
    let counted = allocation_counter::measure(|| {
        let caller = second.insert(Box::pin(succeeds(client.clone(), GOOD)));
        let _ = caller.as_mut().poll(&mut cx);
    });
    Ok(counted.bytes_current)
}
