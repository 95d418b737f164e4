//! How long do requests wait while tokens expire under them?
//!
//! ```text
//! cargo bench -p benches --bench expiry             # prints
//! cargo bench -p benches --bench expiry -- --write  # also draws docs/expiry.svg
//! ```
//!
//! 1,000 requests a second for 10 s; a token lives for 2 s, a fetch takes
//! 200 ms. All contenders run at the same time and at the same ticks, between
//! two requests of the control: a tick at which the machine stood still counts
//! for none of them.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::endpoint::{Endpoint, Keeper, Server, Shot};
use common::{Effort, goal, has_arg, now, say};
use plotters::prelude::*;
use tokio::time::MissedTickBehavior;
use tower::BoxError;

const LIFE: Duration = Duration::from_secs(2);
const FETCH: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(1);
/// A wait that a user notices.
const NOTICED_MS: f64 = 5.0;
/// The picture shows the longest wait of each run of 20 ticks.
const BUCKET: usize = 20;
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/expiry.svg");

/// One stream of requests, and how long each waited, in microseconds.
struct Stream {
    keeper: Keeper,
    endpoint: Arc<Endpoint>,
    server: Server,
    shot: Shot,
    waits: Arc<Vec<AtomicU64>>,
}

impl Stream {
    fn new(keeper: Keeper, ticks: usize) -> Result<Self, BoxError> {
        let endpoint = Endpoint::new(FETCH, LIFE);
        let server = Server::new(&endpoint);
        let shot = keeper.shot(&endpoint, server.clone())?;
        let waits = Arc::new((0..ticks).map(|_| AtomicU64::new(0)).collect());
        Ok(Self {
            keeper,
            endpoint,
            server,
            shot,
            waits,
        })
    }

    async fn warm(&self) {
        if self.keeper != Keeper::Control {
            (self.shot)().await;
        }
    }

    fn send(&self, tick: usize) -> tokio::task::JoinHandle<()> {
        let request = (self.shot)();
        let waits = Arc::clone(&self.waits);
        let sent = now();
        tokio::spawn(async move {
            request.await;
            let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
            if let Some(wait) = waits.get(tick) {
                wait.store(micros, Ordering::Relaxed);
            }
        })
    }

    fn millis(&self) -> Vec<f64> {
        let waits = self.waits.iter();
        waits
            .map(|wait| wait.load(Ordering::Relaxed) as f64 / 1e3)
            .collect()
    }
}

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let ticks = effort.pick(10_000, 100);
    let mut streams = Vec::new();
    for keeper in Keeper::ALL.into_iter().chain([Keeper::Reissued]) {
        streams.push(Stream::new(keeper, ticks)?);
    }
    streams.push(Stream::new(Keeper::Control, ticks)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&streams, ticks))?;

    let before = streams.first().map(Stream::millis).unwrap_or_default();
    let after = streams.last().map(Stream::millis).unwrap_or_default();
    let control: Vec<f64> = before.iter().zip(&after).map(|(a, b)| a.max(*b)).collect();
    say(format!(
        "{:<10} {:>7} {:>8} {:>12} {:>13} {:>9} {:>8}  what",
        "contender", "sent", "fetches", "> 5 ms", "> 5 ms paired", "worst ms", "refused"
    ));
    let (mut lazy, mut ours) = (Vec::new(), Vec::new());
    for stream in streams.iter().take(Keeper::ALL.len() + 1) {
        let waits = stream.millis();
        let noticed = waits.iter().filter(|wait| **wait > NOTICED_MS).count();
        let pairs = waits.iter().zip(&control);
        let excess: Vec<f64> = pairs
            .map(|(wait, control)| (wait - control).max(0.0))
            .collect();
        let over = excess.iter().filter(|wait| **wait > NOTICED_MS).count();
        let worst = waits.iter().copied().fold(0.0, f64::max);
        let refused = match stream.keeper {
            Keeper::Control => 0,
            _ => stream.server.refused.load(Ordering::Relaxed),
        };
        let fetches = stream.endpoint.fetches();
        let (name, what) = (stream.keeper.name(), stream.keeper.what());
        say(format!(
            "{name:<10} {ticks:>7} {fetches:>8} {noticed:>12} {over:>13} {worst:>9.1} {refused:>8}  {what}"
        ));
        let points: Vec<f64> = excess
            .chunks(BUCKET)
            .map(|bucket| bucket.iter().copied().fold(0.0, f64::max))
            .collect();
        match stream.keeper {
            Keeper::Lazy => lazy = points,
            Keeper::Ours => ours = points,
            _ => {}
        }
        let is_ours = matches!(stream.keeper, Keeper::Ours | Keeper::Reissued);
        if is_ours && effort == Effort::Full {
            let waits = format!("{name}: requests that wait > 5 ms more than control");
            goal(&waits, over as f64, 0.0);
            goal(
                &format!("{name}: requests with a dead token"),
                refused as f64,
                0.0,
            );
        }
    }
    say("paired: over the worse of the control's two requests of the same tick");
    if effort == Effort::Once {
        draw(&mut String::new(), &lazy, &ours)?;
    } else if has_arg("--write") {
        let mut svg = String::new();
        draw(&mut svg, &lazy, &ours)?;
        std::fs::write(PICTURE, svg)?;
    }
    Ok(())
}

async fn run(streams: &[Stream], ticks: usize) -> Result<(), BoxError> {
    for stream in streams {
        stream.warm().await;
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

/// Draws how much longer than the control each request waited, over time.
fn draw(svg: &mut String, lazy: &[f64], ours: &[f64]) -> Result<(), BoxError> {
    let at = |bucket: usize| (TICK * u32::try_from(bucket * BUCKET).unwrap_or(0)).as_secs_f64();
    let highest = lazy.iter().chain(ours).copied().fold(1.0, f64::max);
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
        .build_cartesian_2d(0.0..at(lazy.len()), 0.0..highest * 1.35)?;
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
        let worst = waits.iter().copied().fold(0.0, f64::max);
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(format!("{name}, at most {worst:.0} ms"))
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
