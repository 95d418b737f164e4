//! What do the figures look like?
//!
//! ```text
//! cargo bench -p benches --bench contention --bench expiry
//! cargo bench -p benches --bench plot             # target/bench-figures/{hit,expiry}.svg
//! cargo bench -p benches --bench plot -- --write  # docs/plots/{hit,expiry}.svg
//! ```
//!
//! Draws what the other benches have left in `target/bench-figures`. The
//! machine and the date are theirs; `--machine NAME` and `--date DATE` say
//! something else.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use common::{Effort, arg_after, figures_dir, has_arg, say};
use serde_json::{Value, json};
use tower::BoxError;

/// In the order in which they are drawn: name, label, class.
const CONTENDERS: [(&str, &str, &str); 5] = [
    ("limit", "insert a clone, no more", "limit"),
    ("duties", "the duties", "limit"),
    ("ours", "officernd-auth", "ours"),
    ("tower-http", "tower-http, static token", "peer"),
    ("naive", "naive (RwLock + format!)", "naive"),
];

fn main() -> Result<(), BoxError> {
    if Effort::from_args() == Effort::Once {
        let (contention, expiry) = sample();
        let drawn = hit(&contention).and(expiry_scene(&expiry));
        return drawn
            .map(drop)
            .ok_or_else(|| "the sample cannot be drawn".into());
    }
    let figures = figures_dir()?;
    let out = if has_arg("--write") {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plots"))
    } else {
        &figures
    };
    fs::create_dir_all(out)?;
    for (bench, file, draw) in [
        ("contention", "hit.svg", hit as fn(&Value) -> Option<String>),
        ("expiry", "expiry.svg", expiry_scene),
    ] {
        let source = figures.join(format!("{bench}.json"));
        let Ok(text) = fs::read_to_string(&source) else {
            say(format!(
                "no figures yet; run: cargo bench -p benches --bench {bench}"
            ));
            continue;
        };
        let all: Value = serde_json::from_str(&text)?;
        let svg = draw(&all).ok_or_else(|| format!("{bench}: a figure is missing"))?;
        fs::write(out.join(file), svg)?;
        say(format!("{}", out.join(file).display()));
    }
    Ok(())
}

/// Added cost per request: two panels, a bar for each contender and thread count.
fn hit(all: &Value) -> Option<String> {
    let rows = all.get("figures")?.get("rows")?.as_array()?;
    let added = |name: &str, how: &str, threads: u64| -> Option<f64> {
        let row = rows.iter().find(|row| {
            row.get("name").and_then(Value::as_str) == Some(name)
                && row.get("use").and_then(Value::as_str) == Some(how)
                && row.get("threads").and_then(Value::as_u64) == Some(threads)
        })?;
        row.get("added")?.as_f64()
    };
    // The scale is for those that can be compared; the naive bars run off it.
    let mut longest: f64 = 1.0;
    for (name, _, _) in CONTENDERS.iter().filter(|c| c.0 != "naive") {
        for (how, threads) in [("held", 1), ("held", 2), ("cloned", 1), ("cloned", 2)] {
            longest = longest.max(added(name, how, threads)?);
        }
    }
    let (left, width) = (190.0, 370.0);
    let step = nice_step(longest);
    let end = (longest / step).ceil() * step;
    let per_ns = width / end;
    let mut body = String::new();
    let mut y = 72.0;
    for (how, title) in [
        ("held", "Service held"),
        ("cloned", "Service cloned for each request"),
    ] {
        text(&mut body, 20.0, y, "panel", "start", title);
        let top = y + 10.0;
        let bottom = top + 44.0 * CONTENDERS.len() as f64;
        let mut tick = 0.0;
        while tick <= end + step / 2.0 {
            let x = left + tick * per_ns;
            line(&mut body, x, top, x, bottom, "grid");
            text(
                &mut body,
                x,
                bottom + 15.0,
                "tick",
                "middle",
                &format!("{tick:.0}"),
            );
            tick += step;
        }
        text(
            &mut body,
            left + width + 14.0,
            bottom + 15.0,
            "tick",
            "start",
            "ns",
        );
        y = top;
        for (name, label, class) in CONTENDERS {
            text(&mut body, left - 10.0, y + 26.0, "label", "end", label);
            for (threads, dy) in [(1, 4.0), (2, 22.0)] {
                let ns = added(name, how, threads)?;
                let length = (ns.max(0.0) * per_ns).min(width + 24.0);
                let class = if threads == 1 {
                    class.to_owned()
                } else {
                    format!("{class} two")
                };
                rect(&mut body, left, y + dy, length, &class);
                if ns > end {
                    let cut = left + width + 4.0;
                    let (high, low) = (y + dy - 2.0, y + dy + 18.0);
                    line(&mut body, cut, low, cut + 6.0, high, "cut");
                    line(&mut body, cut + 5.0, low, cut + 11.0, high, "cut");
                }
                let note = format!(
                    "{ns:.0} ({threads} thread{})",
                    if threads == 1 { "" } else { "s" }
                );
                text(
                    &mut body,
                    left + length + 6.0,
                    y + dy + 12.0,
                    "note",
                    "start",
                    &note,
                );
            }
            y += 44.0;
        }
        line(&mut body, left, top, left, bottom, "axis");
        y = bottom + 48.0;
    }
    let title = "Added time per request, over the inner service alone";
    Some(frame(
        all,
        720.0,
        y + 2.0,
        title,
        "a token at hand; lowest decile of interleaved rounds",
        &body,
    ))
}

/// Waiting time over time, beyond the control's.
fn expiry_scene(all: &Value) -> Option<String> {
    let figures = all.get("figures")?;
    let bucket = figures.get("bucket_s")?.as_f64()?;
    let series = figures.get("series")?.as_array()?;
    let points = |name: &str| -> Option<Vec<f64>> {
        let one = series
            .iter()
            .find(|one| one.get("name").and_then(Value::as_str) == Some(name))?;
        let points = one.get("excess_ms_by_bucket")?.as_array()?;
        points.iter().map(Value::as_f64).collect()
    };
    let (lazy, ours) = (points("lazy")?, points("ours")?);
    let seconds = bucket * lazy.len() as f64;
    let highest = lazy.iter().chain(&ours).copied().fold(1.0, f64::max);
    let step = nice_step(highest);
    let end = (highest / step).ceil() * step;
    let (left, top, width, height) = (62.0, 76.0, 620.0, 220.0);
    let x_of = |index: usize| left + width * (index as f64 * bucket) / seconds;
    let y_of = |ms: f64| top + height - height * ms / end;
    let mut body = String::new();
    let mut tick = 0.0;
    while tick <= end + step / 2.0 {
        let y = y_of(tick);
        line(&mut body, left, y, left + width, y, "grid");
        text(
            &mut body,
            left - 8.0,
            y + 4.0,
            "tick",
            "end",
            &format!("{tick:.0}"),
        );
        tick += step;
    }
    text(&mut body, left - 8.0, top - 12.0, "tick", "end", "ms");
    let whole = seconds.ceil() as usize;
    for second in 0..=whole {
        let x = left + width * second as f64 / seconds;
        if x <= left + width + 1.0 {
            text(
                &mut body,
                x,
                top + height + 18.0,
                "tick",
                "middle",
                &format!("{second} s"),
            );
        }
    }
    for (points, class) in [(&lazy, "peer"), (&ours, "ours")] {
        let mut path = String::new();
        for (index, ms) in points.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            write!(path, "{verb}{:.1} {:.1}", x_of(index), y_of(*ms)).ok()?;
        }
        writeln!(body, r#"<path class="line {class}" d="{path}"/>"#).ok()?;
    }
    let worst = |points: &[f64]| points.iter().copied().fold(0.0, f64::max);
    for (dx, class, label) in [
        (
            0.0,
            "ours",
            format!("officernd-auth (worst {:.1} ms)", worst(&ours)),
        ),
        (
            250.0,
            "peer",
            format!("lazy single flight (worst {:.0} ms)", worst(&lazy)),
        ),
    ] {
        let (x, y) = (left + 60.0 + dx, top - 14.0);
        line(
            &mut body,
            x,
            y - 4.0,
            x + 22.0,
            y - 4.0,
            &format!("line {class}"),
        );
        text(&mut body, x + 28.0, y, "note", "start", &label);
    }
    let title = "How much longer a request waits while tokens expire";
    let note = "beyond a request without a token at the same tick; 1,000 requests/s, life 2 s, fetch 200 ms";
    Some(frame(all, 720.0, top + height + 50.0, title, note, &body))
}

/// 1, 2 or 5 times a power of ten: about five of them make `longest`.
fn nice_step(longest: f64) -> f64 {
    let rough = longest / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough);
    factor.unwrap_or(10.0) * power
}

fn frame(all: &Value, width: f64, height: f64, title: &str, note: &str, body: &str) -> String {
    let said = |name: &str| {
        let figure = || all.get(name)?.as_str().map(str::to_owned);
        arg_after(&format!("--{name}"))
            .or_else(figure)
            .unwrap_or_default()
    };
    let rustc = said("rustc");
    let rustc = rustc.split(" (").next().unwrap_or_default();
    let source = format!("{}; {rustc}; {}", said("machine"), said("date"));
    let mut svg = String::new();
    let head = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>
  svg {{ font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
  text {{ fill: #24292f; }}
  .title {{ font-size: 16px; font-weight: 600; }} .panel {{ font-weight: 600; }}
  .sub, .tick, .source {{ fill: #57606a; font-size: 11.5px; }} .note {{ font-size: 12px; }}
  .paper {{ fill: #ffffff; }} .cut {{ stroke: #ffffff; stroke-width: 2.5; }}
  .grid {{ stroke: #d0d7de; }} .axis {{ stroke: #57606a; }}
  .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }} .two {{ fill-opacity: 0.6; }}
  rect.ours {{ fill: #0969da; }} .line.ours {{ stroke: #0969da; }}
  rect.peer {{ fill: #bc4c00; }} .line.peer {{ stroke: #bc4c00; }}
  rect.limit {{ fill: #6e7781; }} rect.naive {{ fill: #a40e26; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }} .sub, .tick, .source {{ fill: #9198a1; }}
    .paper {{ fill: #0d1117; }} .cut {{ stroke: #0d1117; }}
    .grid {{ stroke: #3d444d; }} .axis {{ stroke: #9198a1; }}
    rect.ours {{ fill: #58a6ff; }} .line.ours {{ stroke: #58a6ff; }}
    rect.peer {{ fill: #f0883e; }} .line.peer {{ stroke: #f0883e; }}
    rect.limit {{ fill: #8b949e; }} rect.naive {{ fill: #ff7b72; }}
  }}
</style>
<rect class="paper" width="{width}" height="{height}"/>
"##
    );
    svg.push_str(&head);
    text(&mut svg, 20.0, 26.0, "title", "start", title);
    text(&mut svg, 20.0, 43.0, "sub", "start", note);
    svg.push_str(body);
    text(
        &mut svg,
        width - 20.0,
        height - 8.0,
        "source",
        "end",
        &source,
    );
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    *svg += &format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{words}</text>\n"
    );
}

fn line(svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
    *svg += &format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>\n"
    );
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, class: &str) {
    *svg += &format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"16\" class=\"{class}\"/>\n"
    );
}

/// Figures of the right shape, to draw without a measurement.
fn sample() -> (Value, Value) {
    let mut rows = Vec::new();
    for (name, _, _) in CONTENDERS {
        for (how, threads) in [("held", 1), ("held", 2), ("cloned", 1), ("cloned", 2)] {
            let added = if name == "naive" { 300 } else { 40 };
            rows.push(json!({ "name": name, "use": how, "threads": threads, "added": added }));
        }
    }
    let flat = |name, ms| json!({ "name": name, "excess_ms_by_bucket": [ms, 1, ms] });
    (
        json!({ "figures": { "rows": rows } }),
        json!({ "figures": { "bucket_s": 0.02, "series": [flat("lazy", 200), flat("ours", 2)] } }),
    )
}
