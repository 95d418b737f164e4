//! The rules of the layout that a program can check: where modules are, which way they depend on each other, how long
//! a file is, and that nothing is switched off or left for later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate, lower layers first. A module uses its own layer and those below.
const LAYERS: [&[&str]; 7] = [
    &[
        "origin",
        "secret",
        "syntax",
        "observability",
        "clock",
        "error",
        "sync",
    ],
    &["credentials", "token", "config"],
    &["provider", "allowance"],
    &["fleet", "oauth"],
    &["cache"],
    &["middleware", "organizations"],
    &["builder"],
];

/// They stand above the layers, and no layer uses them.
const ABOVE: [&str; 3] = ["guide", "lib", "testing"];

/// Types with an inherent `impl` outside the file that declares them. Two of them have constructors in `builder`, the
/// only module that may use what these need.
const SPREAD: &[&str] = &["OfficeRndAuthLayer", "Settings"];

const MAX_LINES: usize = 300;
const MAX_MEDIAN: usize = 150;

/// Longer files of one concept each: the state machine, its tests, and the handle with its documentation.
const LONG: &[&str] = &[
    "cache/lifecycle.rs",
    "cache/lifecycle_tests.rs",
    "cache/mod.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below these folders, with their text.
fn files_below(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// A file of `src` that is not a file of unit tests.
struct Module {
    file: String,
    /// `["cache", "slot"]` for `cache/slot.rs`, `["cache"]` for `cache/mod.rs`.
    path: Vec<String>,
    text: String,
}

impl Module {
    fn name(&self) -> String {
        self.path.join("::")
    }

    /// The code without unit tests, comments and blank lines.
    fn code(&self) -> String {
        let code = self.text.split("\n#[cfg(test)]").next().unwrap();
        let lines = code.lines().map(str::trim);
        let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }

    /// The paths that the code names, as written from the root: `["cache", "slot", "Slot"]`.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let code = self.code();
        for (start, _) in code.match_indices("::") {
            let head = code[..start].rsplit(|c: char| !is_word(c)).next().unwrap();
            let before = &code[..start - head.len()];
            if before.ends_with(':') || !["crate", "super", "self"].contains(&head) {
                continue;
            }
            let mut path = match head {
                "crate" => Vec::new(),
                "self" => self.path.clone(),
                _ => self.path[..self.path.len() - 1].to_vec(),
            };
            let rest = code[start + 2..].split(|c: char| !is_word(c) && c != ':');
            for part in rest.clone().next().unwrap().split("::") {
                match part {
                    "super" => drop(path.pop()),
                    part => path.push(part.to_owned()),
                }
            }
            found.push(path);
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn modules() -> Vec<Module> {
    let src = root().join("src");
    let mut modules = Vec::new();
    for (path, text) in files_below(&["src"]) {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let mut parts: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        if parts.last() != Some(&"tests") {
            let path = parts.into_iter().map(str::to_owned).collect();
            let file = file.to_owned();
            modules.push(Module { file, path, text });
        }
    }
    assert!(modules.len() > 50);
    modules
}

fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("{module} has no layer"))
}

#[test]
fn every_module_uses_its_own_layer_and_those_below() {
    for module in modules() {
        let here = module.path[0].as_str();
        if ABOVE.contains(&here) {
            continue;
        }
        for path in module.paths() {
            let used = path[0].as_str();
            let is_module = used.starts_with(|c: char| c.is_ascii_lowercase());
            if is_module && used != here {
                let file = &module.file;
                assert!(!ABOVE.contains(&used), "{file} uses {used}");
                assert!(layer(used) <= layer(here), "{file} uses {used}");
            }
        }
    }
}

#[test]
fn no_two_modules_import_each_other() {
    let modules = modules();
    let names: BTreeSet<String> = modules.iter().map(Module::name).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in &modules {
        for mut path in module.paths() {
            let top = path[0].clone();
            while !path.is_empty() && !names.contains(&path.join("::")) {
                path.pop();
            }
            uses.entry(module.name())
                .or_default()
                .insert(path.join("::"));
            uses.entry(module.path[0].clone()).or_default().insert(top);
        }
    }
    let is_circle = |one: &str, other: &str| uses.get(other).is_some_and(|used| used.contains(one));
    let mut found = Vec::new();
    for (one, used) in &uses {
        for other in used.iter().filter(|other| is_circle(one, other)) {
            // A module and the one that contains it are one concept.
            let related = one.starts_with(other.as_str()) || other.starts_with(one.as_str());
            if !related && one < other {
                found.push(format!("{one} and {other}"));
            }
        }
    }
    assert!(found.is_empty(), "they import each other: {found:#?}");
}

#[test]
fn a_type_is_implemented_in_the_file_that_declares_it() {
    let mut found = Vec::new();
    for module in modules() {
        let code = module.code();
        for line in code.lines().filter(|line| line.starts_with("impl")) {
            let is_inherent = !line.contains(" for ");
            let after = line.trim_start_matches("impl");
            // Skips the list of generics.
            let mut depth = 0;
            let generics = after.find(|c: char| {
                depth += i32::from(c == '<') - i32::from(c == '>');
                depth == 0
            });
            let after = after[generics.unwrap_or(0)..].trim_start_matches(['>', ' ']);
            let name: String = after.chars().take_while(|c| is_word(*c)).collect();
            let declared = ["struct", "enum", "union"].iter().any(|kind| {
                let declaration = format!("{kind} {name}");
                let mut ends = code
                    .match_indices(&declaration)
                    .map(|(at, _)| at + declaration.len());
                ends.any(|end| !code[end..].starts_with(is_word))
            });
            if is_inherent && !name.is_empty() {
                let known = SPREAD.contains(&name.as_str());
                if !declared && !known {
                    found.push(format!("{} implements {name}", module.file));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn files_are_short() {
    let (mut lengths, mut long) = (Vec::new(), Vec::new());
    for (path, text) in files_below(&["src"]) {
        let lines = text.lines().count();
        let known = LONG
            .iter()
            .any(|file| path.ends_with(Path::new("src").join(file)));
        if lines > MAX_LINES && !known {
            long.push(format!("{} has {lines} lines", path.display()));
        }
        lengths.push(lines);
    }
    assert!(long.is_empty(), "{long:#?}");
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= MAX_MEDIAN, "the median file has {median} lines");
}

#[test]
fn nothing_is_switched_off_or_left_for_later() {
    let everything = files_below(&["src", "tests", "examples", "benches", "crates"]);
    let others = |(path, _): &(PathBuf, String)| !path.ends_with("tidy.rs");
    for (path, text) in everything.into_iter().filter(others) {
        for word in [
            "todo!(",
            "unimplemented!(",
            "#[ignore",
            "TODO",
            "FIXME",
            "unsafe {",
        ] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn banned_words_do_not_come_back() {
    words::check();
}

mod words;
