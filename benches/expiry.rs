//! How long do requests wait while tokens expire?
//!
//! ```text
//! cargo bench -p benches --bench expiry             # prints
//! cargo bench -p benches --bench expiry -- --write  # also draws docs/expiry.svg
//! ```
//!
//! 1,000 requests a second for 10 s; a token is valid for 2 s, and a token request takes 200 ms. All caches get a
//! request in the same millisecond, between two requests without a token. The time of those two is subtracted, since
//! it shows when the machine stood still.

#![expect(clippy::disallowed_methods, reason = "a bench has no `Clock`")]

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::world::{Cache, Client, GOOD, World, succeeds};
use common::{Effort, goal, has_arg, say};
use officernd_auth::RateLimit;
use plotters::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tower::BoxError;

const LIFE: Duration = Duration::from_secs(2);
const LATENCY: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(1);
/// A wait that a user notices.
const NOTICED_MS: f64 = 5.0;
/// Each point of the picture is the longest wait in this many ticks.
const BUCKET: usize = 20;
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/expiry.svg");

/// One request per tick.
struct Stream {
    cache: Cache,
    world: World,
    client: Client,
    /// How long each request took, in microseconds.
    times: Arc<Vec<AtomicU64>>,
    refused: Arc<AtomicU64>,
}

impl Stream {
    fn new(cache: Cache, ticks: usize) -> Result<Self, BoxError> {
        let world = World::new(LATENCY, LIFE, usize::MAX);
        Ok(Self {
            cache,
            client: cache.client(&world, &RateLimit::unlimited(), false)?,
            world,
            times: Arc::new((0..ticks).map(|_| AtomicU64::new(0)).collect()),
            refused: Arc::default(),
        })
    }

    fn send(&self, tick: usize) -> JoinHandle<()> {
        let request = succeeds(self.client.clone(), GOOD);
        let (times, refused) = (Arc::clone(&self.times), Arc::clone(&self.refused));
        let sent = Instant::now();
        tokio::spawn(async move {
            if !request.await {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
            if let Some(time) = times.get(tick) {
                time.store(micros, Ordering::Relaxed);
            }
        })
    }

    fn millis(&self) -> Vec<f64> {
        let times = self.times.iter();
        times
            .map(|time| time.load(Ordering::Relaxed) as f64 / 1e3)
            .collect()
    }
}

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let ticks = effort.pick(10_000, 100);
    let [before, lazy, ours, after] = [Cache::Control, Cache::Lazy, Cache::Ours, Cache::Control]
        .map(|cache| Stream::new(cache, ticks));
    let streams = [before?, lazy?, ours?, after?];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&streams, ticks))?;

    let [before, lazy, ours, after] = &streams;
    let control = before.millis().into_iter().zip(after.millis());
    let control: Vec<f64> = control.map(|(before, after)| before.max(after)).collect();
    say(format!(
        "{:<6} {:>14} {:>12} {:>9} {:>8}",
        "cache", "token requests", "waits > 5 ms", "worst ms", "refused"
    ));
    let [lazy, ours] = [lazy, ours].map(|stream| {
        let waits = stream.millis().into_iter().zip(&control);
        let waits: Vec<f64> = waits
            .map(|(time, control)| (time - control).max(0.0))
            .collect();
        let noticed = waits.iter().filter(|wait| **wait > NOTICED_MS).count();
        let refused = stream.refused.load(Ordering::Relaxed);
        let (name, requests) = (stream.cache.name(), stream.world.facts().token_requests);
        say(format!(
            "{name:<6} {requests:>14} {noticed:>12} {:>9.1} {refused:>8}",
            highest(&waits)
        ));
        if stream.cache == Cache::Ours && effort == Effort::Full {
            goal("requests that wait over 5 ms", noticed as f64, 0.0);
            goal("requests with an expired token", refused as f64, 0.0);
        }
        waits.chunks(BUCKET).map(highest).collect::<Vec<f64>>()
    });
    let mut svg = String::new();
    draw(&mut svg, &lazy, &ours)?;
    if effort == Effort::Full && has_arg("--write") {
        std::fs::write(PICTURE, svg)?;
    }
    Ok(())
}

fn highest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

async fn run(streams: &[Stream], ticks: usize) -> Result<(), BoxError> {
    for stream in streams {
        succeeds(stream.client.clone(), GOOD).await;
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = Vec::new();
    for index in 0..ticks {
        tick.tick().await;
        for stream in streams {
            tasks.push(stream.send(index));
        }
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Draws how much longer than the control each request took, over time.
fn draw(svg: &mut String, lazy: &[f64], ours: &[f64]) -> Result<(), BoxError> {
    let at = |bucket: usize| (TICK * u32::try_from(bucket * BUCKET).unwrap_or(0)).as_secs_f64();
    let top = highest(lazy).max(highest(ours)).max(1.0) * 1.35;
    let area = SVGBackend::with_string(svg, (720, 340)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Added wait of a request while tokens expire every 2 s",
            ("sans-serif", 17),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..at(lazy.len()), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds; 1,000 requests/s, a token request takes 200 ms")
        .y_desc("ms")
        .light_line_style(WHITE)
        .draw()?;
    let series = [
        ("lazy single flight", lazy, RGBColor(188, 76, 0)),
        ("officernd-auth", ours, RGBColor(9, 105, 218)),
    ];
    for (name, waits, color) in series {
        let points = waits.iter().enumerate();
        let points = points.map(|(bucket, wait)| (at(bucket), *wait));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(format!("{name}, at most {:.0} ms", highest(waits)))
            .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 16, y + 2)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
