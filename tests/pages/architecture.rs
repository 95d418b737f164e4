//! ARCHITECTURE names files and deadlines that exist. `UPDATE_PAGES=1` writes its table of deadlines anew.

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
    for word in words.filter(|word| ["src/", "tests/", "benches/", "docs/", "fuzz/"].iter().any(|folder| word.starts_with(folder))) {
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
            variants.push((variant.to_owned(), std::mem::take(&mut doc).trim().to_owned()));
        }
    }
    variants
}

#[test]
fn its_table_of_deadlines_is_the_one_of_the_state_machine() {
    let source = fs::read_to_string(root().join("src/cache/lifecycle.rs")).unwrap();
    let mut table = String::from("| deadline | meaning |\n|---|---|\n");
    let deadlines = variants(&source, "Deadline");
    assert!(deadlines.len() >= 7, "{deadlines:?}");
    for (name, meaning) in deadlines {
        table.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    let path = root().join("ARCHITECTURE.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- deadlines -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let rendered = format!("{before}<!-- deadlines -->\n{table}<!-- end -->{after}");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &rendered).unwrap();
    } else {
        assert!(page == rendered, "ARCHITECTURE.md is out of date: UPDATE_PAGES=1 writes it anew");
    }
}
