//! ARCHITECTURE names files that exist, and has the state machine's tables. `UPDATE_PAGES=1` writes the tables anew.

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_file_that_it_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut named = 0;
    let words = page.split([' ', '\n', '`', ',', ';', '|', '(', ')']);
    for word in words.filter(|word| {
        ["src/", "tests/", "benches/", "docs/", "fuzz/"]
            .iter()
            .any(|folder| word.starts_with(folder))
    }) {
        assert!(root().join(word.trim_end_matches('.')).exists(), "{word}");
        named += 1;
    }
    assert!(named > 30, "{named}");
}

/// The variants of an enum with the first sentence of their docs.
fn variants(source: &str, name: &str) -> Vec<(String, String)> {
    let body = source.split_once(&format!("enum {name} {{\n")).unwrap().1;
    let body = body.split_once("\n}").unwrap().0;
    let mut variants = Vec::new();
    let mut doc = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if let Some(variant) = line.strip_suffix(',') {
            variants.push((
                variant.to_owned(),
                std::mem::take(&mut doc).trim().to_owned(),
            ));
        }
    }
    variants
}

fn source(file: &str) -> String {
    fs::read_to_string(root().join("src/cache").join(file)).unwrap()
}

fn deadlines() -> String {
    let mut table = String::from("| deadline | meaning |\n|---|---|\n");
    let deadlines = variants(&source("lifecycle.rs"), "Deadline");
    assert!(deadlines.len() >= 7, "{deadlines:?}");
    for (name, meaning) in deadlines {
        table.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    table
}

/// The rows of the test `decision_table`: a state, code that makes it, an event, and the decision.
fn decisions() -> String {
    let tests = source("lifecycle_tests.rs");
    let (_, rows) = tests.split_once("fn decision_table() {").unwrap();
    let (rows, _) = rows.split_once("\n    ];").unwrap();
    let mut table = String::from("| the state | the event | the decision |\n|---|---|---|\n");
    let mut last = "";
    for row in rows
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(\""))
    {
        let (state, rest) = row.split_once('"').unwrap();
        let (rest, decision) = rest.strip_suffix("\"),").unwrap().rsplit_once('"').unwrap();
        let event = rest.trim_end_matches(", ").rsplit(' ').next().unwrap();
        let shown = if state == last { "" } else { state };
        table.push_str(&format!(
            "| {shown} | {} | {decision} |\n",
            event.to_lowercase()
        ));
        last = state;
    }
    assert!(table.lines().count() > 30, "{table}");
    table
}

#[test]
fn its_tables_are_those_of_the_state_machine() {
    let path = root().join("ARCHITECTURE.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut rendered = page.clone();
    for (name, table) in [("deadlines", deadlines()), ("decisions", decisions())] {
        let begin = format!("<!-- {name} -->\n");
        let (before, rest) = rendered.split_once(&begin).unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        rendered = format!("{before}{begin}{table}<!-- end -->{after}");
    }
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &rendered).unwrap();
    } else {
        assert!(
            page == rendered,
            "ARCHITECTURE.md is out of date: UPDATE_PAGES=1 writes it anew"
        );
    }
}
