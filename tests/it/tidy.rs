//! The rules of the repository that a program can check: dependency direction, file sizes, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

/// The layer of each module; lower ones come first. A module uses lower layers,
/// and within the lowest two its own.
const LAYERS: [(&str, u8); 18] = [
    ("clock", 0),
    ("error", 0),
    ("secret", 0),
    ("origin", 0),
    ("syntax", 0),
    ("sync", 0),
    ("observability", 0),
    ("token", 1),
    ("credentials", 1),
    ("config", 1),
    ("allowance", 2),
    ("provider", 3),
    ("fleet", 4),
    ("oauth", 5),
    ("cache", 6),
    ("organizations", 7),
    ("middleware", 8),
    ("store", 9),
];

/// These depend on all others.
const ABOVE: [&str; 4] = ["builder", "lib", "testing", "fuzzing"];

/// Lines of code in a file, without tests, comments and blank lines.
const LONGEST: usize = 300;

fn sources() -> Vec<(PathBuf, String)> {
    below(&["src"])
}

fn below(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root.join(name)).collect();
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

/// The code of a file, without its unit tests and comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
}

fn room(path: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = path.strip_prefix(src).unwrap();
    let first = inside.components().next().unwrap();
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

fn layer(room: &str) -> u8 {
    let known = LAYERS.iter().find(|(name, _)| *name == room);
    known.unwrap_or_else(|| panic!("give {room} a layer")).1
}

#[test]
fn a_module_uses_lower_layers_only() {
    for (path, text) in sources() {
        let here = room(&path);
        if ABOVE.contains(&here.as_str()) {
            continue;
        }
        for line in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                if used.is_empty() || used == here {
                    continue;
                }
                assert!(
                    layer(&used) < layer(&here)
                        || (layer(&used) == layer(&here) && layer(&here) < 2),
                    "{} must not know {used}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_file_outgrows_its_room() {
    for (path, text) in sources() {
        let lines = code(&text).count();
        assert!(
            lines <= LONGEST,
            "{} has {lines} lines of code",
            path.display()
        );
    }
}

#[test]
fn nothing_is_switched_off_or_left_for_later() {
    let everything = below(&["src", "tests", "examples", "benches", "gateway"]);
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
