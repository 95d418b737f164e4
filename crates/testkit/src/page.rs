//! Compares a page that lists events, metrics and fields with what the code has and emits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Recorder, SharedString, Unit};
use tracing::{Event, Metadata, Subscriber, span};

/// The Markdown of a page.
#[derive(Debug, Clone, Copy)]
pub struct Page(pub &'static str);

impl Page {
    /// Returns the cells of each row whose first cell is a name with this prefix.
    pub fn rows(self, prefix: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
        let mut rows = BTreeMap::new();
        for line in self.0.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, cells @ .., _] = &cells[..] else {
                continue;
            };
            let name = name.trim_matches('`');
            if name.starts_with(prefix) {
                assert!(rows.insert(name, cells.to_vec()).is_none(), "{name} twice");
            }
        }
        rows
    }

    /// Checks that the names in the sources of this package are those of the page.
    pub fn lists_the_names_in(self, package: &str) {
        let mut in_code = BTreeSet::new();
        let mut folders = vec![PathBuf::from(package).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let is_name_byte = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b'.';
                for text in fs::read_to_string(&path).unwrap().split('"').skip(1) {
                    let rest = text.strip_prefix("officernd_auth");
                    let ours = rest.is_some_and(|rest| rest.starts_with(['.', '_']));
                    if ours && text.bytes().all(is_name_byte) {
                        in_code.insert(text.to_owned());
                    }
                }
            }
        }
        let on_page = self.rows("officernd_auth").into_keys().map(Into::into);
        assert_eq!(in_code, on_page.collect());
        assert!(in_code.len() > 5, "{in_code:?}");
    }

    /// Checks that the page has a row for each of these fields.
    pub fn lists_fields<'a>(self, fields: impl IntoIterator<Item = &'a String>) {
        let mut count = 0;
        for field in fields {
            assert!(self.0.contains(&format!("\n| `{field}` |")), "{field}");
            count += 1;
        }
        assert!(count > 0);
    }

    /// Checks level and fields of the spans and events that this page lists. Returns the names
    /// that were not emitted.
    pub fn compare_events(self, events: &Events) -> Vec<&'static str> {
        let emitted = events.noted();
        let mut silent = Vec::new();
        for (name, row) in self.rows("officernd_auth.") {
            let Some((level, fields)) = emitted.get(name) else {
                silent.push(name);
                continue;
            };
            assert_eq!(row[0], level, "{name}");
            assert_eq!(&ticked(row[1]), fields, "{name}");
        }
        silent
    }

    /// Checks that the page lists exactly these metrics, with their types, units, labels and the
    /// values of labels.
    pub fn compare_metrics(self, metrics: &Metrics) {
        let noted = metrics.noted();
        let page = self.rows("officernd_auth_");
        let names: Vec<&str> = page.keys().copied().collect();
        let ours = |name: &&String| page.contains_key(name.as_str());
        let recorded = noted.recorded.keys().filter(ours).collect::<Vec<_>>();
        assert_eq!(recorded, names);
        assert_eq!(noted.described.keys().collect::<Vec<_>>(), names);
        for (name, row) in &page {
            let (kind, unit) = &noted.described[*name];
            let (recorded, labels) = &noted.recorded[*name];
            assert_eq!(row[0], kind, "{name}");
            assert_eq!(row[0], recorded, "{name}");
            assert_eq!(row[1], unit, "{name}");
            assert_eq!(&ticked(row[2]), labels, "{name}");
        }
        for (name, label, value) in noted.values.iter().filter(|value| ours(&&value.0)) {
            assert!(self.0.contains(&format!("`{value}`")), "{name} {label}");
        }
    }
}

/// The words between backticks.
fn ticked(cell: &str) -> BTreeSet<String> {
    let words = cell.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// A subscriber that notes level and fields of each span and event of ours.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Emitted>>);

/// By name: the level, and the names of the fields.
type Emitted = BTreeMap<String, (String, BTreeSet<String>)>;

impl Events {
    fn noted(&self) -> MutexGuard<'_, Emitted> {
        self.0.lock().unwrap()
    }

    /// Returns the names of all spans and events of ours.
    pub fn names(&self) -> Vec<String> {
        self.noted().keys().cloned().collect()
    }

    fn note(&self, metadata: &Metadata<'_>) {
        if metadata.name().starts_with("officernd_auth") {
            let fields = metadata.fields().iter();
            let fields = fields.map(|field| field.name().to_owned());
            let fields = fields.filter(|field| field != "message").collect();
            let noted = (metadata.level().to_string(), fields);
            self.noted().insert(metadata.name().to_owned(), noted);
        }
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.note(span.metadata());
        span::Id::from_u64(1)
    }
    fn event(&self, event: &Event<'_>) {
        self.note(event.metadata());
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A recorder that notes type, unit and labels of each metric.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// By name: type and unit.
    described: BTreeMap<String, (String, String)>,
    /// By name: type and labels.
    recorded: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Name, label and value.
    values: BTreeSet<(String, String, String)>,
}

impl Metrics {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap()
    }

    /// Returns the values of a label.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let noted = self.noted();
        let values = noted.values.iter();
        let values = values.filter(|value| (&*value.0, &*value.1) == (name, label));
        values.map(|value| value.2.clone()).collect()
    }

    fn describe(&self, kind: &str, name: &KeyName, unit: Option<Unit>) {
        let described = (kind.to_owned(), unit.unwrap().as_str().to_owned());
        let name = name.as_str().to_owned();
        self.noted().described.insert(name, described);
    }

    fn record(&self, kind: &str, key: &Key) {
        let mut noted = self.noted();
        let labels = key.labels().map(|label| label.key().to_owned()).collect();
        let recorded = (kind.to_owned(), labels);
        noted.recorded.insert(key.name().to_owned(), recorded);
        for label in key.labels() {
            let value = (key.name().into(), label.key().into(), label.value().into());
            noted.values.insert(value);
        }
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe("counter", &key, unit);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe("gauge", &key, unit);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe("histogram", &key, unit);
    }
    fn register_counter(&self, key: &Key, _: &metrics::Metadata<'_>) -> Counter {
        self.record("counter", key);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        self.record("gauge", key);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        self.record("histogram", key);
        Histogram::noop()
    }
}
