//! How many token requests do 10,000 cold callers cause, and how long do they wait?
//!
//! ```text
//! cargo bench -p benches --bench herd
//! cargo bench -p benches --bench herd -- --only ours  # for a profiler
//! ```

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use common::endpoint::{Endpoint, Keeper, Server};
use common::{Effort, arg_after, goal, now, quantile, say};
use tokio::runtime::Runtime;
use tower::BoxError;

const LATENCY: Duration = Duration::from_millis(50);
const LIFE: Duration = Duration::from_secs(3_600);

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let callers = effort.pick(10_000, 200);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut times: Vec<Vec<f64>> = Keeper::ALL.iter().map(|_| Vec::new()).collect();
    let mut fetches: Vec<u64> = Keeper::ALL.iter().map(|_| 0).collect();
    let only = arg_after("--only");
    // Interleaved, so that a slow phase of the machine is everybody's.
    for _ in 0..effort.pick(21, 1) {
        for ((keeper, times), most) in Keeper::ALL.into_iter().zip(&mut times).zip(&mut fetches) {
            if only.as_deref().is_some_and(|only| only != keeper.name()) {
                continue;
            }
            let (millis, fetched) = herd(&runtime, keeper, callers)?;
            times.push(millis);
            *most = fetched.max(*most);
        }
    }

    if only.is_some() {
        return Ok(());
    }
    let control = quantile(times.first().map_or(&[], Vec::as_slice), 0.5);
    let baseline = control + LATENCY.as_secs_f64() * 1e3;
    say(format!(
        "{:<10} {:>9} {:>10} {:>9} {:>7} {:>12}  what",
        "contender", "fetches", "median ms", "best ms", "ratio", "bytes each"
    ));
    for ((keeper, times), fetches) in Keeper::ALL.into_iter().zip(&times).zip(fetches) {
        let (median, best) = (quantile(times, 0.5), quantile(times, 0.0));
        let ratio = median / baseline;
        let bytes = waiting_bytes(keeper)?;
        let (name, what) = (keeper.name(), keeper.what());
        say(format!(
            "{name:<10} {fetches:>9} {median:>10.1} {best:>9.1} {ratio:>7.2} {bytes:>12}  {what}"
        ));
        if keeper == Keeper::Ours {
            goal("token requests", fetches as f64, 1.0);
            if effort == Effort::Full {
                goal("time over (latency + control)", ratio, 1.08);
            }
            if fetches > 1 {
                return Err(format!("{fetches} token requests for one herd").into());
            }
        }
    }
    say(format!(
        "{callers} tasks, fetch {LATENCY:?}; ratio: over latency + control = {baseline:.1} ms"
    ));
    Ok(())
}

/// Bytes on the heap for one more caller that waits.
fn waiting_bytes(keeper: Keeper) -> Result<u64, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let endpoint = Endpoint::new(LATENCY, LIFE);
    let shot = keeper.shot(&endpoint, Server::new(&endpoint))?;
    let mut callers = Vec::with_capacity(2);
    let mut wait = || {
        let mut caller = shot();
        let _ = caller
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        callers.push(caller);
    };
    wait();
    let counted = allocation_counter::measure(wait);
    Ok(u64::try_from(counted.bytes_current).unwrap_or(0))
}

/// Milliseconds until all have their response, and token requests.
fn herd(runtime: &Runtime, keeper: Keeper, callers: u64) -> Result<(f64, u64), BoxError> {
    let endpoint = Endpoint::new(LATENCY, LIFE);
    let server = Server::new(&endpoint);
    let shot = keeper.shot(&endpoint, server.clone())?;
    let took = runtime.block_on(async {
        let start = now();
        let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(shot())).collect();
        for task in tasks {
            task.await?;
        }
        Ok::<_, BoxError>(start.elapsed())
    })?;
    let refused = server.refused.load(Ordering::Relaxed);
    if server.answered.load(Ordering::Relaxed) != callers
        || keeper != Keeper::Control && refused > 0
    {
        return Err(format!("{}: {refused} requests without a token", keeper.name()).into());
    }
    Ok((took.as_secs_f64() * 1e3, endpoint.fetches()))
}
